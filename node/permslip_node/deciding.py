"""Deciding: the node's own verdict on a query, and the ledger's entry of it.

The same :func:`permslip.decision.decide` as in the broker, with facts that only the node has: its lease, its clock,
uses, whether it saw the query before, what it is able to answer now.

Rules:

- A verdict is made by cached facts and checked at commit: where a grant, delegation, organization or count changed
  meanwhile, it is made again under the head's lock, by the facts of that very moment.
- Refusals are entries too.
- A query is decided once. Its id is remembered for as long as any clock could take it for fresh; after a restart the
  ledger's own end says which ones were decided.

Example::

    draft = decider.draft(answer, unfit=Reason.ALLOWED)
    [recorded] = await ledger.append(draft)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from sqlalchemy import Connection, Engine

from permslip._pb.permslip.v1 import ledger_pb2, statement_pb2 as pb
from permslip.decision import MAX_CLOCK_SKEW, MAX_QUERY_LIFETIME, Decision, Facts, decide
from permslip.facts import FactReader, depends_on, gather
from permslip.hosting.database import reading
from permslip.hosting.drafts import Draft
from permslip.hosting.facts_store import FactStore
from permslip.hosting.leaves import decode_leaf
from permslip.hosting.ledger import Ledger
from permslip.quantities import Millis, Position
from permslip.reasons import Reason
from permslip_node.open_answers import OpenAnswer
from permslip_node.uses import Account, Link, is_counted, read_account, uses_subject

__all__ = ["Decider", "decided_lately"]

# Longer than any query can be taken for fresh: its own life, and a clock that is ahead.
REMEMBERED: Final = MAX_QUERY_LIFETIME + 2 * MAX_CLOCK_SKEW
_PAGE: Final = 1_000


class Decider:
    """Decides queries. Belongs to one event loop.

    Args:
        node: this node's root.
        engine: the node's database, for counts of uses.
        facts: recorded statements.
        clock: UTC milliseconds now.
        seen: ids of queries that were decided before → when.
    """

    def __init__(
        self, node: bytes, engine: Engine, facts: FactStore, *, clock: Callable[[], Millis], seen: dict[bytes, int]
    ) -> None:
        self._node, self._engine, self._facts, self._clock = node, engine, facts, clock
        # Insertion order is order of time: what is forgotten stands at the front.
        self._seen = dict(sorted(seen.items(), key=lambda item: item[1]))

    def see(self, query_id: bytes) -> bool:
        """Note a query; True when it was seen before."""
        now = self._clock()
        while self._seen:
            oldest = next(iter(self._seen))
            if self._seen[oldest] >= now - REMEMBERED:
                break
            del self._seen[oldest]
        if query_id in self._seen:
            return True
        self._seen[query_id] = now
        return False

    def undecided(self, answer: OpenAnswer) -> None:
        """The decision is not recorded: the same query may be sent again."""
        if not answer.seen:
            self._seen.pop(answer.query.id, None)

    def may_be_relayers(self, answer: OpenAnswer) -> bool:
        """Whether a query is refused that whoever relays it could have caused alone: it came before, or is over, or
        comes from a key that nobody vouches for; anybody can make such keys."""
        if answer.decision.reason == Reason.ALLOWED:
            return False
        payload = answer.query.payload
        if answer.seen or self._clock() >= min(payload.expires_at, payload.created_at + MAX_QUERY_LIFETIME):
            return True
        standing = answer.facts.standings.get(payload.signer.root)
        return standing is None or standing.admission is None or standing.suspension is not None

    def draft(self, answer: OpenAnswer, *, unfit: Reason) -> Draft:
        """Decide a query, and make the entry that says so.

        Args:
            answer: its facts and decision are set.
            unfit: why this node may not answer anyone now, or ``ALLOWED``.
        """
        facts, account = self._gathered(self._facts, None, answer, unfit)
        now = self._clock()
        decision = decide(facts, answer.query, now=now)
        answer.facts, answer.decision, answer.is_counted = facts, decision, account is not None

        def again(connection: Connection, position: int) -> Draft:
            reader = self._facts.at(connection, position)
            facts, account = self._gathered(reader, connection, answer, unfit)
            now = self._clock()
            decision = decide(facts, answer.query, now=now)
            answer.again = facts, decision
            return self._entry(answer, facts, decision, account, now=now)

        draft = self._entry(answer, facts, decision, account, now=now)
        draft.redo = again
        return draft

    def reconsider(self, answer: OpenAnswer) -> Reason:
        """Whether an answer that is under way would still be allowed, by the newest facts."""
        # The query's own time may be over; what it was allowed to read is read to the end.
        now = min(self._clock(), Millis(answer.query.payload.expires_at - 1))
        return decide(gather(self._facts, answer.query), answer.query, now=now).reason

    def _gathered(
        self, reader: FactReader, connection: Connection | None, answer: OpenAnswer, unfit: Reason
    ) -> tuple[Facts, Account | None]:
        facts = gather(reader, answer.query, seen=answer.seen, unfit=unfit)
        links = (facts.grant, *facts.delegations)
        if facts.grant is None or not is_counted(links):
            return facts, None
        if connection is None:
            with reading(self._engine) as own:
                account = self._account(own, links, answer)
        else:
            account = self._account(connection, links, answer)
        return replace(facts, uses=account.uses, use_cost=account.cost), account

    def _account(self, connection: Connection, links: tuple[Link, ...], answer: OpenAnswer) -> Account:
        return read_account(
            connection,
            links,
            answer.query,
            paged=answer.page is not None,
            resumed=answer.resumes,
            now=self._clock(),
        )

    def _entry(
        self, answer: OpenAnswer, facts: Facts, decision: Decision, account: Account | None, *, now: Millis
    ) -> Draft:
        query, payload = answer.query, answer.query.payload
        allowed = decision.reason == Reason.ALLOWED
        grant = facts.grant
        body = ledger_pb2.AccessDecided(
            query_id=query.id,
            envelope_sha256=query.sha256,
            requester=payload.signer,
            grant_id=payload.grant_id,
            delegation_ids=payload.delegation_ids,
            action=payload.action,
            purpose=grant.payload.purpose if grant is not None else pb.PURPOSE_UNSPECIFIED,
            reason=decision.reason.wire,
            sections=[
                ledger_pb2.SectionVerdict(section=section, reason=reason.wire) for section, reason in decision.sections
            ],
            decided_at=now,
            facts_position=facts.position,
            uses=(account.debited if allowed else account.uses) if account is not None else (),
            routed_position=answer.routed_position,
        )
        subjects = depends_on(facts, query)
        changes: tuple[bytes, ...] = ()
        write: Callable[[Connection, Position], None] | None = None
        if account is not None:
            counted = [link.id for link in account.links if link is not None and link.payload.max_uses]
            uses = tuple(map(uses_subject, [*counted, *([account.retries] if account.retries else [])]))
            subjects += uses
            if allowed:
                kept = account
                changes = uses

                def debit(connection: Connection, _position: Position) -> None:
                    kept.debit(connection, query)

                write = debit
        return Draft(
            "access_decided",
            body,
            slice=(self._node, grant.payload.slice.handle) if grant is not None else None,
            depends_on=subjects,
            facts_position=facts.position,
            changes=changes,
            write=write,
            evidence=query.raw,
            despite_clock=decision.reason == Reason.CLOCK,
        )


def decided_lately(ledger: Ledger, now: Millis) -> dict[bytes, int]:
    """The queries that the ledger's last entries decided → when: for a node that has just started."""
    found: dict[bytes, int] = {}
    end = ledger.size
    while end > 0:
        start = max(0, end - _PAGE)
        oldest = now
        for leaf in ledger.leaves(start, end):
            if leaf.leaf is None:
                continue
            entry = decode_leaf(leaf.leaf)
            oldest = Millis(min(oldest, entry.recorded_at))
            if entry.WhichOneof("event") == "access_decided" and entry.recorded_at >= now - REMEMBERED:
                found[entry.access_decided.query_id] = entry.recorded_at
        if oldest < now - REMEMBERED:
            break
        end = start
    return found

"""Decisions, made again: an entry's verdict against the one that facts, query and clock give once more.

Rules:

- What the ledger leaves open is decided in the keeper's favour: where two verdicts are possible and one of them was
  recorded, they agree.
- What only a node knows of itself is taken from its entry: why it could answer nobody, what its own rule keeps back.
- Uses go on from what the ledger shows, not from what the node says, so that one lie is not believed by the next.

Example::

    decisions = Decisions(facts, evidence, uses=None)
    decisions.replay(position, entry, raw_query)
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from permslip import statements as st
from permslip._pb.permslip.v1 import ledger_pb2, statement_pb2 as pb
from permslip.auditing.bundle_facts import BundleFacts
from permslip.auditing.codes import Code
from permslip.auditing.finding import utc_text
from permslip.auditing.replay_evidence import Evidence
from permslip.auditing.replay_times import Seen
from permslip.auditing.replay_uses import Account, Uses
from permslip.auditing.replay_verdicts import agrees, describes, differs, recorded, replayed, shown
from permslip.decision import MAX_CLOCK_SKEW, Decision, Facts, decide
from permslip.facts import depends_on, gather
from permslip.quantities import Millis
from permslip.reasons import Reason
from permslip.statements import Signed

__all__ = ["Decisions"]

# Why a node answers nobody at the moment; it alone knows.
_UNFIT: Final = {each.wire: each for each in (Reason.NO_LEASE, Reason.CLOCK, Reason.DRAINING, Reason.BUSY)}
_NOTHING_WITHHELD: Final[frozenset[str]] = frozenset()


class Decisions:
    """The decisions of one ledger.

    Args:
        facts: as of the entry that is looked at.
        evidence: believes queries, and takes what differs.
        uses: the counts of a node's ledger; None at the broker, which does not count.

    Attributes:
        some_hidden: entries before were hidden from the auditor: they may have used something up, or decided a query.
    """

    def __init__(self, facts: BundleFacts, evidence: Evidence, uses: Uses | None) -> None:
        self._facts, self._evidence, self._uses = facts, evidence, uses
        self._seen = Seen()
        self.some_hidden = False

    def replay(self, position: int, entry: ledger_pb2.LogEntry, raw: bytes | None) -> None:
        """Decide one query again.

        Args:
            position: of the entry.
            entry: with an ``access_decided``.
            raw: the envelope of the query that it names, if it is there.
        """
        body, evidence = entry.access_decided, self._evidence
        if raw is None:
            evidence.missing(st.QUERY, body.query_id)
            return
        query = evidence.believed(st.QUERY, body.query_id, body.envelope_sha256, raw)
        if query is None:
            return
        if field := describes(body, query.payload):
            evidence.fault(Code.DECISION_MISDESCRIBED, f"the entry's {field} is not the query's.", query=query.id)
        facts, account, decision, agreed = self._again(position, body, query)
        self._check_time(entry, facts, query)
        if facts.grant is not None:
            place = facts.grant.payload.slice
            evidence.check_place(entry, (place.node, place.handle))
        self._seen.add(query.id, expires_at=query.payload.expires_at, now=body.decided_at)
        raced = None
        # Nearly always nothing changed between the facts and the entry: then no subject need be looked at.
        if not self._facts.rest_since(body.facts_position):
            subjects = depends_on(facts, query)
            if (lost := self._facts.lost(subjects)) is not None:
                evidence.note_lost(lost, "this decision")
                return
            raced = self._facts.changed_since(subjects, body.facts_position)
        if body.facts_position > position:
            evidence.fault(
                Code.FACTS_POSITION,
                f"decided by the facts at {body.facts_position}, which the ledger did not have yet.",
            )
        if not agreed or raced is not None:
            self._differs(position, body, query, facts, decision, raced)
        elif body.purpose != (pb.PURPOSE_UNSPECIFIED if facts.grant is None else facts.grant.payload.purpose):
            evidence.fault(Code.DECISION_MISDESCRIBED, "the entry's purpose is not the grant's.", query=query.id)
        if account is not None:
            self._check_uses(body, facts, account)

    def _again(
        self, position: int, body: ledger_pb2.AccessDecided, query: Signed[pb.Query]
    ) -> tuple[Facts, Account | None, Decision, bool]:
        """The decision made again: of several that the ledger leaves possible, the one that it recorded, if any."""
        now = Millis(body.decided_at)
        unfit, withheld = Reason.ALLOWED, _NOTHING_WITHHELD
        if self._uses is not None:
            unfit = _UNFIT.get(body.reason, unfit)
            withheld = frozenset(each.section for each in body.sections if each.reason == pb.REASON_WITHHELD)
        seen = self._seen.holds(query.id, query.payload.expires_at)
        facts = gather(self._facts, query, seen=seen[0], unfit=unfit, withheld=withheld)
        account = self._uses.account(facts, query, position, now) if self._uses is not None else None
        if account is not None:
            facts = replace(facts, uses=account.uses, use_cost=account.costs[0])
        decision = decide(facts, query, now=now)
        if agrees(body, decision):
            return facts, account, decision, True
        if self.some_hidden and True not in seen:
            seen = (*seen, True)
        for known in seen:
            for cost in account.costs if account is not None else (1,):
                uses = self._used_before(body, account, cost) if account is not None else None
                possible = replace(facts, seen=known, uses=uses, use_cost=cost)
                again = decide(possible, query, now=now)
                if agrees(body, again):
                    return possible, account, again, True
        return facts, account, decision, False

    def _used_before(self, body: ledger_pb2.AccessDecided, account: Account, cost: int) -> tuple[int, ...]:
        """The uses before a decision; what hidden entries may have used is believed."""
        if not self.some_hidden or len(body.uses) != len(account.links):
            return account.uses
        paid = cost if body.reason == pb.REASON_ALLOWED else 0
        told = tuple(
            used - paid if link is not None and link.payload.max_uses else used
            for used, link in zip(body.uses, account.links, strict=True)
        )
        return told if all(one >= other for one, other in zip(told, account.uses, strict=True)) else account.uses

    def _differs(
        self,
        position: int,
        body: ledger_pb2.AccessDecided,
        query: Signed[pb.Query],
        facts: Facts,
        decision: Decision,
        raced: bytes | None,
    ) -> None:
        """Tell of both verdicts, or of one that was made by outdated facts."""
        message = "the verdict still holds." if agrees(body, decision) else differs(body, decision)
        if raced is not None:
            message = (
                f"decided by the facts at {body.facts_position}; what it rests on changed before it was recorded at "
                f"{position}, and it was not decided again: {message}"
            )
        self._evidence.fault(
            Code.VERDICT_DIFFERS if raced is None else Code.DECISION_RACED,
            message,
            query=query.id,
            recorded=recorded(body),
            replayed=replayed(decision),
            facts=shown(facts),
            changed=raced,
        )

    def _check_uses(self, body: ledger_pb2.AccessDecided, facts: Facts, account: Account) -> None:
        allowed = body.reason == pb.REASON_ALLOWED
        for cost in dict.fromkeys((facts.use_cost, *account.costs)):
            counted = replace(account, uses=self._used_before(body, account, cost))
            if tuple(body.uses) == (counted.debited(cost) if allowed else counted.uses):
                break
        else:
            cost, counted = facts.use_cost, account
            expected = list(counted.debited(cost) if allowed else counted.uses)
            self._evidence.fault(
                Code.USES_DIFFER,
                f"the entry counts {list(body.uses)} uses, the ledger shows {expected}.",
                recorded=list(body.uses),
                counted=expected,
            )
        if allowed and self._uses is not None:
            self._uses.debit(counted, cost)

    def _check_time(self, entry: ledger_pb2.LogEntry, facts: Facts, query: Signed[pb.Query]) -> None:
        body = entry.access_decided
        # A node whose clock is behind says so, and dates the refusal by that very clock.
        if abs(entry.recorded_at - body.decided_at) <= MAX_CLOCK_SKEW or body.reason == pb.REASON_CLOCK:
            return
        facts_at = self._facts.changed_at(depends_on(facts, query))
        code, than = Code.DECISION_TIME, f"recorded at {utc_text(entry.recorded_at)}"
        if body.decided_at < facts_at - MAX_CLOCK_SKEW:
            code, than = Code.DATED_BEFORE_FACTS, f"by facts that were recorded at {utc_text(facts_at)}"
        self._evidence.fault(
            code,
            f"decided at {utc_text(body.decided_at)}, {than}: was a clock set?",
            decided_at=body.decided_at,
            recorded_at=entry.recorded_at,
            facts_at=facts_at,
        )

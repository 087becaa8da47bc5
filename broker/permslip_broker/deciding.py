"""Deciding a requester's queries: believe, gather, decide, and the ledger entry that says so.

The decision is made twice where that is needed: on the facts as they stand when the query arrives, and once more under
the ledger's lock if one of those facts changed before the entry was recorded.

Example::

    entry = deciding.open(envelope, requester, ends_at=loop.time() + 30.0)
    [recorded] = await recorder.append(deciding.draft(entry))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from google.protobuf.message import DecodeError
from sqlalchemy import Connection

from permslip import statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.decision import decide
from permslip.errors import AuthorityError
from permslip.facts import gather
from permslip.hosting.drafts import Draft
from permslip.hosting.facts_store import FactStore
from permslip.hosting.leaves import decode_leaf
from permslip.hosting.ledger import Ledger
from permslip.quantities import Millis
from permslip.reasons import Reason
from permslip_broker.entries import decided
from permslip_broker.open_queries import OpenQuery, Requester
from permslip_broker.replays import LONGEST_LIFE, Replays

__all__ = ["Deciding", "restore_replays"]

_PAGE = 1_000


class Deciding:
    """Decides queries by the broker's facts.

    Args:
        federation: the only one whose queries count.
        facts: what is recorded.
        replays: what was decided before.
        clock: the broker's; called from the ledger's thread too.
    """

    def __init__(self, federation: str, facts: FactStore, replays: Replays, clock: Callable[[], Millis]) -> None:
        self._federation, self._facts, self._replays, self._clock = federation, facts, replays, clock

    def expect(self, envelopes: Sequence[pb.Envelope]) -> None:
        """Read the grants that a batch of (unverified) queries names, with one query for those that are not cached."""
        if len(envelopes) > 1:
            self._facts.prefetch(_grant_named(each) for each in envelopes)

    def open(self, envelope: pb.Envelope, requester: Requester, *, ends_at: float) -> OpenQuery:
        """Believe a query and decide it.

        Raises:
            MalformedError: not a query of this federation.
            SignatureError: not signed by the key it names.
            KeyRejectedError: that key must not be used.
            AuthorityError: it was signed by somebody else than greeted on this stream.
        """
        query = st.verify(st.QUERY, envelope, federation=self._federation)
        if query.payload.signer.root != requester.root:
            raise AuthorityError("query: signed by another than the one who opened this stream.")
        now, expires_at = self._clock(), query.payload.expires_at
        seen = self._replays.holds(query.id, expires_at)
        entry = OpenQuery(query, requester, seen=seen, ends_at=ends_at)
        facts = gather(self._facts, query, seen=seen)
        entry.take(facts, decide(facts, query, now=now), now)
        self._replays.add(query.id, expires_at=expires_at, now=now)
        return entry

    def draft(self, entry: OpenQuery) -> Draft:
        """The entry of the ledger that records the decision."""

        def decide_again(connection: Connection, size: int) -> Draft:
            now = self._clock()
            facts = gather(self._facts.at(connection, size), entry.query, seen=entry.seen)
            entry.take(facts, decide(facts, entry.query, now=now), now)
            return decided(entry.query, facts, entry.decision, now=now)

        return decided(entry.query, entry.facts, entry.decision, now=entry.decided_at, redo=decide_again)

    def still_holds(self, entry: OpenQuery) -> Reason:
        """What would be decided by the facts of now, as of the time of the decision; ``ALLOWED`` while it holds."""
        facts = gather(self._facts, entry.query)
        return decide(facts, entry.query, now=entry.decided_at).reason

    def undecided(self, entry: OpenQuery) -> None:
        """The decision could not be recorded: the same query may be sent again."""
        if not entry.seen:
            self._replays.forget(entry.query.id, entry.query.payload.expires_at)


def _grant_named(envelope: pb.Envelope) -> bytes:
    try:
        return pb.Query.FromString(envelope.payload).grant_id
    except DecodeError:
        return b""


def restore_replays(ledger: Ledger, replays: Replays, *, now: Millis) -> int:
    """Learn from the ledger's tail which queries were decided before this start; returns how many."""
    found: set[bytes] = set()
    end = ledger.size
    while end > 0:
        start = max(0, end - _PAGE)
        entries = [decode_leaf(each.leaf) for each in ledger.leaves(start, end) if each.leaf is not None]
        found.update(each.access_decided.query_id for each in entries if each.HasField("access_decided"))
        if not entries or entries[0].recorded_at < now - LONGEST_LIFE:
            break
        end = start
    replays.restore(found, now=now)
    return len(found)

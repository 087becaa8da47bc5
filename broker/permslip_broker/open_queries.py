"""Queries that are under way, and the requesters' streams they came on.

Rules:

- An :class:`OpenQuery` is registered before its decision is recorded: a revocation that is recorded a moment later
  finds it.
- ``granted`` is what the node was told it may send, ``relayed`` what it sent, ``drained`` what was written to the
  requester's stream. What the broker holds of one answer is at most ``granted - drained``.

Example::

    registry.add(entry)
    for entry in registry.concerned_by([grant_id]):
        ...
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import NamedTuple

from permslip._pb.permslip.v1 import provider_pb2, statement_pb2 as pb
from permslip.decision import Decision, Facts
from permslip.facts import depends_on
from permslip.outbox import Outbox
from permslip.quantities import Millis
from permslip.reasons import Reason
from permslip.statements import Signed
from permslip_broker.attachments import AttachedNode

__all__ = ["OpenQueries", "OpenQuery", "Relayed", "Requester"]

# One message to a requester: small enough that little is under way on the wire when a consent is revoked.
_BATCH_BYTES = 256 << 10


class Relayed(NamedTuple):
    """A reply in a requester's outbox; with ``entry`` a piece of an answer that a node sent, ``last`` its last one.

    ``reply`` is a serialized ``ExchangeReply``.
    """

    reply: bytes
    entry: OpenQuery | None = None
    sealed: int = 0
    last: bool = False


class Requester:
    """One stream of a provider, or of a guardian or learner who reads a profile.

    Args:
        root: who greeted.
        high_water: bytes that may wait here before nodes get no more credit for this stream's answers.
    """

    def __init__(self, root: bytes, *, high_water: int) -> None:
        self.root = root
        self.outbox: Outbox[Relayed] = Outbox(high_water=high_water, batch_bytes=_BATCH_BYTES)
        self.high_water = high_water
        self.open: dict[bytes, OpenQuery] = {}
        self.starved: set[OpenQuery] = set()
        # Queries whose decisions are being recorded.
        self.recording = 0
        self.gone = False
        self.cut_off = asyncio.Event()
        # What is being written just now, and an event for whoever waits until it is.
        self.writing: list[Relayed] = []
        self.written = asyncio.Event()

    def say(self, reply: provider_pb2.ExchangeReply) -> None:
        """Send something of the broker's own."""
        raw = reply.SerializeToString()
        self.outbox.put(Relayed(raw), len(raw))

    @property
    def has_room(self) -> bool:
        """Whether nodes may be told to send more for this stream."""
        return self.held_bytes < self.high_water

    @property
    def held_bytes(self) -> int:
        """Bytes that wait here or are being written."""
        return self.outbox.waiting_bytes + sum(sealed for _, _, sealed, _ in self.writing)

    async def settled(self) -> None:
        """Wait until every query that came was answered, and the answers were written."""
        while self.open or self.recording or len(self.outbox) or self.writing:
            await self.written.wait()

    def is_writing(self, target_id: bytes) -> bool:
        """Whether something under this grant or delegation is being written just now."""
        return any(entry is not None and entry.is_under(target_id) for _, entry, _, _ in self.writing)

    def is_finishing(self, entry: OpenQuery) -> bool:
        """Whether the last piece of an answer is being written just now."""
        return any(each is entry and last for _, each, _, last in self.writing)

    def being_written(self, entry: OpenQuery) -> int:
        """Bytes of one answer that are being written just now."""
        return sum(sealed for _, each, sealed, _ in self.writing if each is entry)


class OpenQuery:
    """One query, from its arrival until its last piece or its end.

    Args:
        query: verified.
        requester: whose stream it came on.
        seen: it was decided before.
        ends_at: the event loop's time at which it is given up.
    """

    __slots__ = (
        "asked",
        "decided_at",
        "decision",
        "drained",
        "ended",
        "ends_at",
        "facts",
        "granted",
        "manifest_sha256",
        "node",
        "opened",
        "position",
        "query",
        "relayed",
        "requester",
        "seen",
        "stale",
        "timer",
    )

    def __init__(self, query: Signed[pb.Query], requester: Requester, *, seen: bool, ends_at: float) -> None:
        self.query = query
        self.requester = requester
        self.seen = seen
        self.ends_at = ends_at
        self.facts = Facts(0)
        self.decision = Decision(Reason.INTERNAL, ())
        self.decided_at = Millis(0)
        # Ledger position of the decision, once it is recorded.
        self.position = -1
        # Facts changed while the decision was being recorded.
        self.stale = False
        # Why it ended early, or what the node said with its last piece; None while it is under way.
        self.ended: Reason | None = None
        self.node: AttachedNode | None = None
        self.opened = False
        self.manifest_sha256 = b""
        self.granted = self.relayed = self.drained = self.asked = 0
        self.timer: asyncio.TimerHandle | None = None

    @property
    def slice_of(self) -> tuple[bytes, bytes] | None:
        """Node root and handle, where the grant is known."""
        if self.facts.grant is None:
            return None
        place = self.facts.grant.payload.slice
        return place.node, place.handle

    @property
    def is_outsiders(self) -> bool:
        """Whether it is refused, and comes from a key that nobody vouches for: anybody can make such keys."""
        if self.decision.reason == Reason.ALLOWED:
            return False
        standing = self.facts.standings.get(self.query.payload.signer.root)
        return standing is None or standing.admission is None or standing.suspension is not None

    def is_under(self, target_id: bytes) -> bool:
        """Whether it uses this grant or delegation."""
        payload = self.query.payload
        return payload.grant_id == target_id or target_id in payload.delegation_ids

    def take(self, facts: Facts, decision: Decision, now: Millis) -> None:
        """What was decided; again, when the facts changed before it was recorded."""
        self.facts, self.decision, self.decided_at = facts, decision, now


class OpenQueries:
    """The open queries, by the subjects whose change may end them."""

    def __init__(self) -> None:
        self._by_subject: dict[bytes, set[OpenQuery]] = {}
        self._subjects: dict[OpenQuery, tuple[bytes, ...]] = {}

    def __len__(self) -> int:
        return len(self._subjects)

    def add(self, entry: OpenQuery) -> None:
        """Register a query with the subjects that its decision depends on."""
        subjects = depends_on(entry.facts, entry.query)
        self._subjects[entry] = subjects
        for subject in subjects:
            self._by_subject.setdefault(subject, set()).add(entry)

    def remove(self, entry: OpenQuery) -> None:
        """It ended. Does nothing for one that is not registered."""
        for subject in self._subjects.pop(entry, ()):
            among = self._by_subject.get(subject)
            if among is not None:
                among.discard(entry)
                if not among:
                    del self._by_subject[subject]

    def concerned_by(self, subjects: Iterable[bytes]) -> set[OpenQuery]:
        """The open queries whose decision depends on one of these."""
        found: set[OpenQuery] = set()
        for subject in subjects:
            found |= self._by_subject.get(subject, set())
        return found

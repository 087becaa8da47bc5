"""Credit: how many sealed bytes of an answer a node may send, so that a slow reader costs nobody else anything.

Rules:

- A requester has room for ``answer`` bytes of each answer, and says so again as it reads (``Credit`` frames). Its own
  word is believed only as far as bytes were really written to its stream: at most ``answer`` bytes of one answer are
  ahead of that.
- A node begins with ``first`` bytes: enough for one chunk, so that a small slice needs no credit frame at all. More is
  given when its first bytes arrive and the requester's stream has room.
- While more than the stream's high-water mark waits for a requester, its answers get nothing; they are given their
  share as soon as there is room.

So one stream holds at most its high-water mark, ``first`` bytes for each open query, and one piece more for each answer
that was flowing.

Example::

    flow.start(entry)               # routed: the node may send its first chunk
    flow.relayed(entry, 60_000)     # it sent so much: it is told of more
    flow.written(requester, batch)  # a batch was written: more again
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from permslip._pb.permslip.v1 import node_pb2, provider_pb2
from permslip_broker.open_queries import OpenQuery, Relayed, Requester

__all__ = ["CHUNK", "CreditFlow"]

# The greatest chunk (SPEC.md §3). A node ends a chunk that it began: it may overshoot by one.
CHUNK: Final = 66_048
_MOST: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class CreditFlow:
    """Gives credit to nodes.

    Args:
        first: bytes of an answer that a node may send unasked.
        answer: bytes of one answer that may be ahead of what was written to the requester.
    """

    first: int
    answer: int

    def start(self, entry: OpenQuery) -> None:
        """The query is sent to its node."""
        entry.granted = self.first
        entry.asked += self.answer

    def ask(self, entry: OpenQuery, more: int) -> None:
        """The requester says that it has read so many bytes more."""
        entry.asked = min(entry.asked + more, _MOST)
        self._extend(entry)

    def relayed(self, entry: OpenQuery, sealed: int) -> bool:
        """So many bytes came from the node.

        Returns:
            False when they are more than it was told it may send.
        """
        entry.relayed += sealed
        if entry.relayed >= entry.granted + CHUNK:
            return False
        self._extend(entry)
        return True

    def written(self, requester: Requester, batch: Iterable[Relayed]) -> None:
        """A batch was written to the requester's stream."""
        for _, entry, sealed, _ in batch:
            if entry is not None:
                entry.drained += sealed
                self._extend(entry)
        if requester.starved and requester.has_room:
            starved, requester.starved = requester.starved, set()
            for entry in starved:
                self._extend(entry)

    def _extend(self, entry: OpenQuery) -> None:
        node = entry.node
        if node is None or not entry.granted or entry.ended is not None:
            return
        more = min(entry.asked, entry.drained + self.answer) - entry.granted
        # Not in crumbs, while the node still has credit for a chunk.
        if more <= 0 or (more < self.answer // 2 and entry.granted - entry.relayed >= CHUNK):
            return
        if not entry.requester.has_room:
            entry.requester.starved.add(entry)
            return
        entry.granted += more
        credit = provider_pb2.Credit(query_id=entry.query.id, bytes=more)
        node.outbox.put(node_pb2.BrokerFrame(credit=credit))

"""The nodes that are attached to this broker now, and what waits to be sent to each.

A node dials out and keeps one stream. An :class:`AttachedNode` is that stream as the rest of the broker sees it: an
outbox, the queries that are open on it, and how far its pushes went out. A second stream of the same node takes the
first one's place: the first may be a connection that died without a word.

Rules:

- Pushes leave in order and without a gap: one that is handed over right after its commit goes out at once if it is the
  next one; else :meth:`AttachedNode.push` only wakes the stream's own reader of the database.
- A node answers at most ``max_open`` queries at once; more of them wait here, and a query that was ended meanwhile is
  never sent.

Example::

    attachments.attach(node)
    attachments.get(root).outbox.put(node_pb2.BrokerFrame(credit=credit))
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from permslip._pb.permslip.v1 import node_pb2
from permslip.errors import PermslipError
from permslip.outbox import Outbox
from permslip.quantities import Millis

if TYPE_CHECKING:
    from permslip_broker.open_queries import OpenQuery

__all__ = ["AttachedNode", "Attachments"]

MOST_OPEN: Final = 4096


class AttachedNode:
    """One node's stream.

    Args:
        root: the node.
        signing_key: the online key that it greeted with.
        max_open: queries it answers at once.
        pushes_held: greatest number up to which it holds every push.
    """

    def __init__(self, root: bytes, signing_key: bytes, *, max_open: int, pushes_held: int) -> None:
        self.root = root
        self.signing_key = signing_key
        self.max_open = min(max(max_open, 1), MOST_OPEN)
        self.pushes_held = pushes_held
        self.last_tick_at = Millis(0)
        self.outbox: Outbox[node_pb2.BrokerFrame] = Outbox()
        self.open: dict[bytes, OpenQuery] = {}
        self.waiting: dict[OpenQuery, None] = {}
        self.ended_by: PermslipError | None = None
        self._sent = pushes_held
        self._due = asyncio.Event()
        self._due.set()

    @property
    def pushes_sent(self) -> int:
        """Number of the last push that went into the outbox."""
        return self._sent

    def push(self, push: node_pb2.Push) -> None:
        """A statement was recorded that this node must hold."""
        if push.number == self._sent + 1 and not self._due.is_set():
            self.send_push(push)
        elif push.number > self._sent:
            self._due.set()

    def send_push(self, push: node_pb2.Push) -> None:
        """Put the next push into the outbox."""
        self._sent = push.number
        self.outbox.put(node_pb2.BrokerFrame(push=push), push.ByteSize())

    def expect_pushes(self, count: int) -> None:
        """There are so many pushes: see that those not sent yet are read from the database."""
        if count > self._sent:
            self._due.set()

    async def pushes_due(self) -> None:
        """Wait until there may be pushes in the database that were not sent."""
        await self._due.wait()

    def pushes_read(self) -> None:
        """The database held no more pushes just now."""
        self._due.clear()

    def end(self, reason: PermslipError | None) -> None:
        """Let the stream end after what waits; ``reason`` is told to the node."""
        self.ended_by = reason
        self.outbox.close()


class Attachments:
    """The attached nodes, by root. Belongs to the event loop."""

    def __init__(self) -> None:
        self._nodes: dict[bytes, AttachedNode] = {}
        self._on_change: list[Callable[[bytes], None]] = []
        self._on_detach: list[Callable[[AttachedNode], None]] = []

    def __iter__(self) -> Iterator[AttachedNode]:
        return iter(list(self._nodes.values()))

    def __len__(self) -> int:
        return len(self._nodes)

    def get(self, root: bytes) -> AttachedNode | None:
        """The node's stream, while it is attached."""
        return self._nodes.get(root)

    def on_change(self, call: Callable[[bytes], None]) -> None:
        """``call`` hears the root of each node that attaches or detaches."""
        self._on_change.append(call)

    def on_detach(self, call: Callable[[AttachedNode], None]) -> None:
        """``call`` is given each stream that ended, before anybody else hears of it."""
        self._on_detach.append(call)

    def attach(self, node: AttachedNode, replaced: PermslipError) -> None:
        """Take a node's stream in; an older stream of the same node ends with ``replaced``."""
        older = self._nodes.get(node.root)
        if older is not None:
            self.detach(older)
            older.end(replaced)
        self._nodes[node.root] = node
        self._changed(node.root)

    def detach(self, node: AttachedNode) -> None:
        """The stream ended. Does nothing for one that was replaced."""
        if self._nodes.get(node.root) is not node:
            return
        del self._nodes[node.root]
        for call in self._on_detach:
            call(node)
        self._changed(node.root)

    def _changed(self, root: bytes) -> None:
        for call in self._on_change:
            call(root)

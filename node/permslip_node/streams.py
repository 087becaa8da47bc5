"""One broker's stream as the rest of the node sees it: what waits to be sent, and whether its queries may be answered.

Example::

    stream.put(node_pb2.NodeFrame(lease=request))
    if stream.is_fit(): ...
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from permslip._pb.permslip.v1 import node_pb2
from permslip.outbox import Outbox
from permslip_node.lease import Lease
from permslip_node.open_answers import OpenAnswer, Sending

__all__ = ["BrokerStream"]


class BrokerStream:
    """One stream, from hello to end.

    Args:
        broker: root key of the broker at its other end.
        lease: of this stream.
        pushes_held: how many of the broker's pushes this node holds.
        asked_again: number of the last of them, if it must come once more before anything is answered; else 0.
        monotonic: milliseconds of a clock that also runs while the machine sleeps.
        high_water: bytes that may wait before who makes bulk waits.
    """

    def __init__(
        self,
        broker: bytes,
        *,
        lease: Lease,
        pushes_held: Callable[[], int],
        asked_again: int = 0,
        monotonic: Callable[[], int],
        high_water: int,
    ) -> None:
        self.broker = broker
        self.lease = lease
        self.outbox: Outbox[Sending] = Outbox(high_water=high_water)
        self.first_credit = 0
        self.is_open = True
        self.ended = asyncio.Event()
        """Set once nothing more leaves through it."""
        self._writing: Sequence[Sending] = ()
        self._written = asyncio.Event()
        self._pushes_held, self._monotonic = pushes_held, monotonic
        self._asked_again = asked_again

    def is_fit(self) -> bool:
        """Whether the lease is fresh."""
        return self.is_open and self.lease.is_fresh(self._monotonic(), self.pushes_held())

    def pushes_held(self) -> int:
        """Greatest number up to which every push is held, and is known to be still the broker's."""
        held = self._pushes_held()
        return min(held, self._asked_again - 1) if self._asked_again else held

    def came_again(self, number: int) -> None:
        """A push with this number came, and is what is held."""
        if number == self._asked_again:
            self._asked_again = 0

    def put(
        self, frame: node_pb2.NodeFrame, answer: OpenAnswer | None = None, *, sealed: int = 0, last: bool = False
    ) -> None:
        """Add a frame to what waits."""
        self.outbox.put(Sending(frame, answer, sealed, last), frame.ByteSize() if sealed else 0)

    def discard(self, answer: OpenAnswer) -> None:
        """Take out what waits of an answer."""
        self.outbox.discard(lambda item: item.answer is answer)

    def begin_writing(self, items: Sequence[Sending]) -> None:
        """These are being given to the connection."""
        self._writing = items
        self._written.clear()

    def end_writing(self) -> None:
        """They were given to it, or never will be."""
        self._writing = ()
        self._written.set()

    def leaving(self) -> list[OpenAnswer]:
        """The answers of which something is being given to the connection."""
        return [item.answer for item in self._writing if item.answer is not None]

    async def settled(self, subjects: Iterable[bytes]) -> None:
        """Wait until nothing of an answer that depends on any of these is being given to the connection."""
        wanted = set(subjects)
        while any(not wanted.isdisjoint(answer.subjects) for answer in self.leaving()):
            await self._written.wait()

    def close(self) -> None:
        """The stream ended: nothing more leaves through it."""
        self.is_open = False
        self.ended.set()
        self.outbox.discard(lambda _: True)
        self.outbox.close()

"""Outboxes: what waits to be sent on one stream, taken as batches.

Message count, not cryptography, is what costs on a stream. So a writer that wakes takes *everything* that is ready and
sends it as one message; nothing is ever delayed to make a batch larger.

Rules:

- :meth:`Outbox.put` never blocks: small control frames always fit.
- Who makes bulk waits for :meth:`Outbox.room` first; so what waits is bounded by the high-water mark plus one piece for
  each producer.
- A batch is at most ``batch_bytes`` (and never empty), so that one message stays far below gRPC's limit.

Example::

    outbox: Outbox[pb.NodeFrame] = Outbox()
    outbox.put(frame, size=len(chunk))
    async for frames in outbox.batches():
        await call.write(pb.AttachRequest(frames=frames))
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final, Generic, TypeVar

__all__ = ["Outbox"]

T = TypeVar("T")

BATCH_BYTES: Final = 1 << 20
BATCH_FRAMES: Final = 512
HIGH_WATER_BYTES: Final = 4 << 20


class Outbox(Generic[T]):
    """Frames that wait for one stream. One reader, any number of producers, one event loop.

    Args:
        high_water: bytes above which :meth:`room` waits.
        batch_bytes: greatest sum of sizes in one batch (a single larger frame goes alone).
    """

    def __init__(self, *, high_water: int = HIGH_WATER_BYTES, batch_bytes: int = BATCH_BYTES) -> None:
        self._frames: deque[tuple[T, int]] = deque()
        self._bytes = 0
        self._high_water = high_water
        self._batch_bytes = batch_bytes
        self._ready = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def waiting_bytes(self) -> int:
        """Sum of the sizes of what waits."""
        return self._bytes

    def put(self, frame: T, size: int = 0) -> None:
        """Add a frame; does nothing once closed (nobody is there to read it)."""
        if self._closed:
            return
        self._frames.append((frame, size))
        self._bytes += size
        if self._bytes >= self._high_water:
            self._room.clear()
        self._ready.set()

    async def room(self) -> None:
        """Wait until less than the high-water mark waits, or the outbox is closed."""
        await self._room.wait()

    def discard(self, unwanted: Callable[[T], bool]) -> None:
        """Take out the frames that must not leave any more, e.g. those of a grant that was just revoked."""
        kept = deque((frame, size) for frame, size in self._frames if not unwanted(frame))
        self._frames = kept
        self._bytes = sum(size for _, size in kept)
        if self._bytes < self._high_water:
            self._room.set()

    def close(self) -> None:
        """Let :meth:`batches` end after what already waits; whoever waits for room goes on."""
        self._closed = True
        self._ready.set()
        self._room.set()

    async def batches(self) -> AsyncIterator[list[T]]:
        """All that is ready, again and again, until the outbox is closed and empty."""
        while True:
            await self._ready.wait()
            if self._frames:
                yield self._take()
            if self._frames:
                continue
            if self._closed:
                return
            self._ready.clear()

    def _take(self) -> list[T]:
        batch: list[T] = []
        taken = 0
        while self._frames and len(batch) < BATCH_FRAMES:
            frame, size = self._frames[0]
            if batch and taken + size > self._batch_bytes:
                break
            self._frames.popleft()
            batch.append(frame)
            taken += size
        self._bytes -= taken
        if self._bytes < self._high_water:
            self._room.set()
        return batch

"""Streams between processes: the options of every channel and server here, and a writer that ends with its reader."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Final, TypeVar

from permslip.outbox import Outbox

__all__ = ["OPTIONS", "while_reading"]

T = TypeVar("T")

OPTIONS: Final = [("grpc.max_receive_message_length", 16 << 20), ("grpc.so_reuseport", 0)]


async def while_reading(
    receive: Coroutine[Any, Any, None], outbox: Outbox[T], *, batched: bool = True
) -> AsyncIterator[list[T]]:
    """What the outbox holds, message by message, while ``receive`` reads the other direction."""
    reading = asyncio.create_task(receive)
    try:
        async for frames in outbox.batches():
            if batched:
                yield frames
            else:
                for frame in frames:
                    yield [frame]
    finally:
        reading.cancel()

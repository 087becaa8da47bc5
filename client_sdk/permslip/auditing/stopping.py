"""Ending what goes on until it is stopped: by a signal, from anywhere, in order.

Rules:

- A signal only asks; what is being done is brought to an end by whoever does it, who looks at :attr:`Stop.asked`.
- It is heard even while a long computation keeps the event loop busy.

Example::

    with stopping() as stop:
        while not await stop.wait(1.0):
            look()
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Stop", "stopping"]


class Stop:
    """Whether it is to end; made within a running event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()
        self._asked = False

    @property
    def asked(self) -> bool:
        """Whether somebody asked."""
        return self._asked

    def ask(self) -> None:
        """Ask it to end; from any thread, and from a signal's handler."""
        self._asked = True
        self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self, seconds: float | None) -> bool:
        """Wait until it is asked to end, or for so many seconds (None: without end); whether it was asked."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return self._asked
        return True


@contextmanager
def stopping() -> Iterator[Stop]:
    """SIGINT and SIGTERM ask it to end while this lasts; in the main thread."""
    stop = Stop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda _number, _frame: stop.ask())
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

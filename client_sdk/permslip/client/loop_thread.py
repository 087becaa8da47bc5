"""An event loop in a thread of its own: what the clients without ``await`` run on.

Rules:

- The loop begins when it is needed first, and ends with :meth:`LoopThread.end`.
- An iterator that is left early, and Ctrl-C, cancel what is under way.

Example::

    thread = LoopThread()
    try:
        names = thread.run(client.organizations())
    finally:
        thread.end(client.aclose)
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Final, Self, TypeVar

__all__ = ["BlockingClient", "LoopThread"]

T = TypeVar("T")

_END: Final = object()
_WAIT: Final = 10.0


class LoopThread:
    """An event loop in a thread of its own, begun when it is needed first."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._beginning = threading.Lock()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run to its end; an exception here cancels it there."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._begun())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def iterate(self, source: AsyncIterator[T]) -> Iterator[T]:
        """The same items; leaving early closes the source."""

        async def following() -> Any:
            return await anext(source, _END)

        async def closed() -> None:
            if (aclose := getattr(source, "aclose", None)) is not None:
                await aclose()

        try:
            while (item := self.run(following())) is not _END:
                yield item
        finally:
            self.run(closed())

    def end(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run ``last``, then end the loop and the thread."""
        if self._loop is None or self._thread is None:
            return
        self.run(last())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_WAIT)
        self._loop = self._thread = None

    def _begun(self) -> asyncio.AbstractEventLoop:
        with self._beginning:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_serve, args=(self._loop,), name="permslip-client", daemon=True)
                self._thread.start()
            return self._loop


class BlockingClient:
    """What every client without ``await`` is: a loop of its own, a context manager, closed once.

    Args:
        aclose: ends the client beneath.
    """

    def __init__(self, aclose: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._thread = LoopThread()
        self._aclose = aclose

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; safe to call twice."""
        self._thread.end(self._aclose)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

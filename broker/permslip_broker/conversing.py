"""Two-way streams: one task reads, one writes, others do what else the stream needs.

Example::

    await conversing(read(), write(), work())      # ends with the writing, or with the first error
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

__all__ = ["conversing"]


async def conversing(writing: Coroutine[Any, Any, None], *beside: Coroutine[Any, Any, None]) -> None:
    """Run all of them until the writing ends or one of them raises; whatever still runs then is cancelled.

    A reader that comes to the end of what the other side sends does not end the conversation: answers may be due.

    Raises:
        Exception: what the first of them raised.
    """
    writer = asyncio.ensure_future(writing)
    running = {writer, *(asyncio.ensure_future(each) for each in beside)}
    tasks = set(running)
    try:
        while writer in running:
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

"""The way into the ledger: what was appended is known to the facts before anybody else hears of it.

Every append of the broker goes through a :class:`Recorder`, also those that change no fact: so the store of facts sees
the ledger grow without a gap, and need not ask the database what it missed.

Rules:

- ``then`` runs as soon as the entry is on the disk, whether or not the caller still waits: a client that hung up does
  not keep a revocation from taking effect.
- :meth:`Recorder.append_soon` is for entries that nobody waits for. All that come in one turn of the event loop are one
  append; a failure is logged.

Example::

    [recorded] = await recorder.append(draft, then=take_effect)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from permslip.errors import PermslipError
from permslip.hosting.facts_store import FactStore
from permslip.hosting.ledger import Draft, Ledger, Recorded
from permslip.hosting.logs import get_log

__all__ = ["Recorder"]

_log = get_log(__name__)

Then = Callable[[Sequence[Recorded]], None]


class Recorder:
    """Appends to the ledger and tells the facts.

    Args:
        ledger: open.
        facts: of the same database.
    """

    def __init__(self, ledger: Ledger, facts: FactStore) -> None:
        self._ledger, self._facts = ledger, facts
        self._under_way: set[asyncio.Task[Any]] = set()
        self._soon: list[Draft] = []

    async def append(self, *drafts: Draft, then: Then | None = None) -> list[Recorded]:
        """Append entries as one unit; returns when they are on the disk.

        Raises:
            PermslipError: as :meth:`permslip.hosting.ledger.Ledger.append`, or what a callback raised.
        """
        task = asyncio.ensure_future(self._append(drafts, then))
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def append_soon(self, draft: Draft) -> None:
        """Append an entry that nobody waits for."""
        self._soon.append(draft)
        if len(self._soon) == 1:
            task = asyncio.ensure_future(self._append_gathered())
            self._under_way.add(task)
            task.add_done_callback(self._ended_unseen)

    async def settle(self) -> None:
        """Wait until everything that was given to :meth:`append` and :meth:`append_soon` is on the disk, or failed."""
        while self._under_way:
            await asyncio.wait(list(self._under_way))

    async def _append(self, drafts: tuple[Draft, ...], then: Then | None) -> list[Recorded]:
        recorded = await self._ledger.append(*drafts)
        self._facts.committed(recorded)
        if then is not None:
            then(recorded)
        return recorded

    async def _append_gathered(self) -> None:
        drafts, self._soon = self._soon, []
        await self._append(tuple(drafts), None)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # the caller's, if it still waits

    def _ended_unseen(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, PermslipError):
            _log.error("entry_lost", error=type(error).__name__, detail=str(error))
        elif error is not None:
            _log.error("entry_lost", error=type(error).__name__, exc_info=error)

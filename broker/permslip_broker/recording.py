"""The way into the ledger: what was appended is known to the facts before anybody else hears of it.

Every append of the broker goes through a :class:`Recorder`, also those that change no fact: so the store of facts sees
the ledger grow without a gap, and need not ask the database what it missed.

Rules:

- ``then`` runs as soon as the entry is on the disk, whether or not the caller still waits: a client that hung up does
  not keep a revocation from taking effect.
- :meth:`Recorder.append_soon` is for entries that nobody waits for, such as that an answer was passed on. They ride on
  the next commit, and wait for one :data:`SOON` seconds at most: a flush of the disk for each would be taken from the
  decisions that somebody waits for. A failure is logged.

Example::

    [recorded] = await recorder.append(draft, then=take_effect)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from permslip.errors import PermslipError, UnavailableError
from permslip.hosting.facts_store import FactStore
from permslip.hosting.ledger import Draft, Ledger, Recorded
from permslip.hosting.logs import get_log

__all__ = ["SOON", "Recorder"]

SOON: Final = 0.05

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
        self._under_way: set[asyncio.Future[list[Recorded]]] = set()
        self._soon: list[Draft] = []
        self._timer: asyncio.TimerHandle | None = None

    @property
    def under_way(self) -> int:
        """Appends that are not on the disk yet."""
        return len(self._under_way)

    async def append(self, *drafts: Draft, then: Then | None = None) -> list[Recorded]:
        """Append entries as one unit; returns when they are on the disk.

        Raises:
            PermslipError: as :meth:`permslip.hosting.ledger.Ledger.submit`, or what a callback raised.
        """
        self._append_waiting()
        return await asyncio.shield(self._submit(drafts, then))

    def begin(self, drafts: Sequence[Draft], then: Then, otherwise: Callable[[PermslipError], None]) -> None:
        """Append entries as one unit without waiting: the way of queries, which must lose no turn of the event loop.

        Args:
            drafts: of one batch.
            then: called when they are on the disk.
            otherwise: called when they were not recorded.
        """
        self._append_waiting()
        try:
            future = self._submit(drafts, then)
        except PermslipError as error:
            otherwise(error)
            return

        def ended(done: asyncio.Future[list[Recorded]]) -> None:
            error = None if done.cancelled() else done.exception()
            if isinstance(error, PermslipError):
                otherwise(error)
            elif error is not None:
                _log.error("append_failed", exc_info=error)
                otherwise(UnavailableError("the entries were not recorded."))

        future.add_done_callback(ended)

    def append_soon(self, draft: Draft) -> None:
        """Append an entry that nobody waits for."""
        self._soon.append(draft)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SOON, self._append_waiting)

    async def settle(self) -> None:
        """Wait until everything that was given to :meth:`append` and :meth:`append_soon` is on the disk, or failed."""
        self._append_waiting()
        while self._under_way:
            await asyncio.wait(list(self._under_way))

    def _submit(self, drafts: Sequence[Draft], then: Then | None) -> asyncio.Future[list[Recorded]]:
        future = self._ledger.submit(*drafts)

        def on_the_disk(done: asyncio.Future[list[Recorded]]) -> None:
            self._under_way.discard(done)
            if done.cancelled() or done.exception() is not None:
                return
            self._facts.committed(done.result())
            if then is not None:
                then(done.result())

        self._under_way.add(future)
        future.add_done_callback(on_the_disk)
        return future

    def _append_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._soon:
            drafts, self._soon = self._soon, []
            try:
                self._submit(drafts, None).add_done_callback(_tell_if_lost)
            except PermslipError as error:
                _log.error("entries_lost", entries=len(drafts), detail=str(error))


def _tell_if_lost(done: asyncio.Future[list[Recorded]]) -> None:
    if not done.cancelled() and (error := done.exception()) is not None:
        _log.error("entries_lost", error=type(error).__name__, detail=str(error))

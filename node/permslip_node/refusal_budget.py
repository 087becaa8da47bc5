"""How many refusals that a broker can cause by itself are recorded: it must not fill the node's disk.

Whoever relays can repeat what others signed, and make up keys to sign with. Entries of the ledger and lines of the log
about such requests are limited to :data:`PER_SECOND`; the others are counted, and one line a second says how many.

Example::

    if budget.may_record():
        ledger.submit(entry)
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from permslip.hosting.logs import get_log

__all__ = ["PER_SECOND", "RefusalBudget"]

_log = get_log(__name__)

PER_SECOND: Final = 20


class RefusalBudget:
    """Counts refusals. Belongs to one event loop.

    Args:
        of: what is refused, for the log.
        per_second: how many are recorded.
    """

    def __init__(self, of: str, *, per_second: int = PER_SECOND) -> None:
        self._of, self._per_second = of, per_second
        self._second, self._recorded, self._left_out = float("-inf"), 0, 0
        self._timer: asyncio.TimerHandle | None = None

    def may_record(self) -> bool:
        """Whether one more may be recorded now; counts it."""
        now = time.monotonic()
        if now - self._second >= 1:
            self._second, self._recorded = now, 0
        self._recorded += 1
        if self._recorded <= self._per_second:
            return True
        self._left_out += 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(1, self.tell)
        return False

    def tell(self) -> None:
        """Say in the log how many were left out since it was said last."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._left_out:
            _log.warning("refusals_not_recorded", of=self._of, count=self._left_out)
            self._left_out = 0

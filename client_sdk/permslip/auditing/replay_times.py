"""Which queries were decided before, and whether a ledger's times can be true.

Rules:

- A query is decided once. A keeper need remember it only while it could be taken for fresh, and so does the replay.
- Witnesses cosigned checkpoints by clocks of their own. What a checkpoint holds is not dated after its cosignatures,
  and what came later not before them.

Example::

    seen.holds(query.id, at=entry.access_decided.decided_at)
    bounds.fault(position, recorded_at)
"""

from __future__ import annotations

import json
import sqlite3
from bisect import bisect_right
from typing import Final

from permslip.decision import MAX_CLOCK_SKEW, MAX_QUERY_LIFETIME

__all__ = ["Seen", "WitnessedTimes"]

_STRETCH: Final = 10_000
# From its decision on a query can live that long at most: it may be dated ahead by the skew.
_LONGEST_LIFE: Final = MAX_QUERY_LIFETIME + MAX_CLOCK_SKEW


class Seen:
    """Ids of queries that one ledger decided, while they could be taken for fresh."""

    def __init__(self) -> None:
        self._stretches: dict[int, dict[bytes, bool]] = {}

    def holds(self, query_id: bytes, expires_at: int) -> tuple[bool, ...]:
        """Whether the keeper knew it as decided, when it was asked again; both where it need not have remembered."""
        surely = self._stretches.get(expires_at // _STRETCH, {}).get(query_id)
        return (False,) if surely is None else (True,) if surely else (True, False)

    def add(self, query_id: bytes, *, expires_at: int, now: int) -> None:
        """It was decided.

        Args:
            expires_at: its own end.
            now: when it was decided.
        """
        stretch = self._stretches.get(expires_at // _STRETCH)
        if stretch is None:
            # What ended is refused for that. What ends too late to be allowed at all need not be remembered for long.
            for ended in [each for each in self._stretches if (each + 1) * _STRETCH <= now - MAX_CLOCK_SKEW]:
                del self._stretches[ended]
            if expires_at < now or expires_at > now + 4 * _LONGEST_LIFE:
                return
            stretch = self._stretches[expires_at // _STRETCH] = {}
        stretch.setdefault(query_id, now <= expires_at <= now + _LONGEST_LIFE)


class WitnessedTimes:
    """What cosigned checkpoints of one ledger say about when its entries were made.

    Args:
        db: the bundle.
        ledger: its number.
    """

    def __init__(self, db: sqlite3.Connection, ledger: int) -> None:
        seen: dict[int, tuple[int, int]] = {}
        for size, cosigners in db.execute("SELECT size, cosigners FROM checkpoint WHERE ledger = ?", (ledger,)):
            times = [int(each["timestamp"]) * 1_000 for each in json.loads(cosigners)]
            if times:
                first, last = seen.get(size, (min(times), max(times)))
                seen[size] = min(first, *times), max(last, *times)
        self._sizes = sorted(seen)
        # Of the checkpoints up to each size the latest first cosignature; of those from it on the earliest last one.
        self._not_before: list[int] = []
        for size in self._sizes:
            self._not_before.append(max([seen[size][0], *self._not_before[-1:]]))
        self._not_after: list[int] = []
        for size in reversed(self._sizes):
            self._not_after.insert(0, min([seen[size][1], *self._not_after[:1]]))

    def bounds(self, position: int) -> tuple[int, int, int]:
        """Between which times an entry was made, UTC milliseconds, with the skew that clocks may have; 0: no bound.

        Returns:
            the first and the last time, and the position from which on others hold.
        """
        index = bisect_right(self._sizes, position)
        first = self._not_before[index - 1] - MAX_CLOCK_SKEW if index else 0
        # Cosignatures count whole seconds.
        last = self._not_after[index] + 1_000 + MAX_CLOCK_SKEW if index < len(self._sizes) else 0
        return first, last, self._sizes[index] if index < len(self._sizes) else 2**63

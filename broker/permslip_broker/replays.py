"""Which queries were decided before: each one counts once.

A query's id is the digest of what was signed, its own end included. So ids are kept in one set for each stretch of time
in which they end, a look-up knows which set to ask, and what has ended is dropped a whole set at a time: a query that
ended is refused for that.

Example::

    >>> replays = Replays()
    >>> replays.add(b"q" * 32, expires_at=70_000, now=10_000)
    >>> replays.holds(b"q" * 32, 70_000), replays.holds(b"r" * 32, 70_000)
    (True, False)
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Final

from permslip.decision import MAX_CLOCK_SKEW, MAX_QUERY_LIFETIME

__all__ = ["LONGEST_LIFE", "Replays"]

# From its decision on a query can live that long at most: it may be dated ahead by the skew.
LONGEST_LIFE: Final = MAX_QUERY_LIFETIME + MAX_CLOCK_SKEW
_STRETCH: Final = 10_000


class Replays:
    """Ids of the queries that were decided and have not ended."""

    def __init__(self) -> None:
        self._stretches: dict[int, set[bytes]] = {}
        self._restored: set[bytes] = set()
        self._restored_until = 0

    def __len__(self) -> int:
        return sum(map(len, self._stretches.values())) + len(self._restored)

    def holds(self, query_id: bytes, expires_at: int) -> bool:
        """Whether this query, which ends then, was decided."""
        return query_id in self._stretches.get(expires_at // _STRETCH, ()) or query_id in self._restored

    def add(self, query_id: bytes, *, expires_at: int, now: int) -> None:
        """A query is being decided. One that ends too late to be allowed at all is not kept."""
        if self._restored and now >= self._restored_until:
            self._restored = set()
        stretch = expires_at // _STRETCH
        known = self._stretches.get(stretch)
        if known is None:
            if not now <= expires_at <= now + LONGEST_LIFE:
                return
            for ended in [each for each in self._stretches if (each + 1) * _STRETCH <= now]:
                del self._stretches[ended]
            known = self._stretches[stretch] = set()
        known.add(query_id)

    def forget(self, query_id: bytes, expires_at: int) -> None:
        """The decision did not come about: the query may be sent again."""
        self._stretches.get(expires_at // _STRETCH, set()).discard(query_id)

    def restore(self, query_ids: AbstractSet[bytes], *, now: int) -> None:
        """After a restart: what the ledger says was decided in the last :data:`LONGEST_LIFE` milliseconds."""
        self._restored = set(query_ids)
        self._restored_until = now + LONGEST_LIFE

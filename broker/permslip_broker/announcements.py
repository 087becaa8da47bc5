"""Who waits for something to change: a parent for her school's acknowledgement, a depositor for an endorsement.

Rules:

- A subscription is made before the thing is started, so that nothing is missed in between.
- It says about *what* something changed, with the statement that changed it where one did. Of two that come before the
  subscriber looks the later is kept.

Example::

    with announcements.subscribe([revocation_id, node_root]) as changed:
        await record(revocation)
        while not acknowledged():
            for subject, signed in (await changed.next()).items():
                ...
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from permslip.statements import Signed

__all__ = ["Announcements", "Subscription"]


class Subscription:
    """What one waiter listens for."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._news: dict[bytes, Signed[Any] | None] = {}

    async def next(self) -> dict[bytes, Signed[Any] | None]:
        """Wait until something changed since the last call; about what, and by which statement."""
        await self._changed.wait()
        self._changed.clear()
        news, self._news = self._news, {}
        return news

    def notice(self, subject: bytes, signed: Signed[Any] | None) -> None:
        """Something about this changed."""
        self._news[subject] = signed
        self._changed.set()


class Announcements:
    """Subscriptions by what they are about: ids of statements, roots of nodes. Belongs to the event loop."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, set[Subscription]] = {}

    @contextmanager
    def subscribe(self, subjects: Iterable[bytes]) -> Iterator[Subscription]:
        """Listen for changes of these while the block lasts."""
        subscription, about = Subscription(), set(subjects)
        for each in about:
            self._waiting.setdefault(each, set()).add(subscription)
        try:
            yield subscription
        finally:
            for each in about:
                among = self._waiting[each]
                among.discard(subscription)
                if not among:
                    del self._waiting[each]

    def announce(self, subject: bytes, signed: Signed[Any] | None = None) -> None:
        """Something about this changed, by this statement if by one."""
        for subscription in self._waiting.get(subject, ()):
            subscription.notice(subject, signed)

"""Who waits for something to change: a parent for her school's acknowledgement, a depositor for an endorsement.

Rules:

- A subscription is made before the thing is started, so that nothing is missed in between.
- It says only about *what* something changed; the subscriber reads the state anew. So announcing twice does no harm.

Example::

    with announcements.subscribe([revocation_id, node_root]) as changed:
        await record(revocation)
        while not acknowledged():
            for subject in await changed.next():
                ...
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

__all__ = ["Announcements", "Subscription"]


class Subscription:
    """What one waiter listens for."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._subjects: set[bytes] = set()

    async def next(self) -> set[bytes]:
        """Wait until something changed since the last call; about what."""
        await self._changed.wait()
        self._changed.clear()
        subjects, self._subjects = self._subjects, set()
        return subjects

    def notice(self, subject: bytes) -> None:
        """Something about this changed."""
        self._subjects.add(subject)
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

    def announce(self, subject: bytes) -> None:
        """Something about this changed."""
        for subscription in self._waiting.get(subject, ()):
            subscription.notice(subject)

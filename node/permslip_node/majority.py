"""Coming of age: from one day on the learner alone decides, and what others signed for her ends.

The day is the operator's word (``permslip node majority``), or follows from the birth date of an import where the
configuration says at what age (``majority_age``). It begins at 00:00 UTC.

Rules:

- Each learner's day is looked at when it comes (``learner.majority_due``), within ``notice_ms`` while the node runs and
  before it attaches when it starts: an entry of the ledger says that authority passed, and in the same transaction
  every living endorsement on her slice is judged anew.
- The operator's word stands: no import changes it.
- A day that was wrong can be taken back. Authority then passes back, with an entry of its own, and nothing that ended
  is revived.

Example::

    await majorities.settle(handle, NewDay(day_millis(date(2027, 5, 4)), by_hand=True))
    await majorities.look()
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final

from sqlalchemy import Connection, Engine, select, update

from permslip._pb.permslip.v1 import ledger_pb2
from permslip.hosting.database import reading, writing
from permslip.hosting.drafts import Recorded
from permslip.hosting.logs import get_log
from permslip.quantities import Millis
from permslip_node import schema
from permslip_node.endorsing import Endorser
from permslip_node.recording import Recording
from permslip_node.roster import change_draft

__all__ = ["Majorities", "NewDay", "day_millis", "majority_of"]

_log = get_log(__name__)

# Learners whose day has come that are dealt with in one look.
_TOGETHER: Final = 500


@dataclass(frozen=True, slots=True)
class NewDay:
    """The day on which a learner comes of age, as somebody says it.

    Attributes:
        at: UTC milliseconds; 0 is unknown.
        by_hand: the operator says so, and no import changes it.
    """

    at: int
    by_hand: bool


def day_millis(day: date) -> int:
    """When a day begins, UTC milliseconds; at least 1, for 0 stands for «unknown»."""
    return max(1, int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000)


def majority_of(birth_date: str, age: int) -> int:
    """When somebody comes of age, UTC milliseconds; 0 where the date is none.

    Args:
        birth_date: ``YYYY-MM-DD``. Who was born on 29 February comes of age on 1 March of a year that has no such day.
        age: in years.
    """
    try:
        born = date.fromisoformat(birth_date)
    except ValueError:
        return 0
    try:
        return day_millis(born.replace(year=born.year + age))
    except ValueError:
        return day_millis(date(min(born.year + age, date.max.year), 3, 1))


class Majorities:
    """Lets authority pass when its day has come. Belongs to one event loop.

    Args:
        node: this node's root.
        engine: its database.
        recording: where it is recorded.
        endorser: judges anew what was endorsed.
        clock: UTC milliseconds now.
    """

    def __init__(
        self, node: bytes, engine: Engine, recording: Recording, endorser: Endorser, *, clock: Callable[[], Millis]
    ) -> None:
        self._node, self._engine, self._recording = node, engine, recording
        self._endorser, self._clock = endorser, clock
        # One look at a time: authority passes once.
        self._turn = asyncio.Lock()

    async def look(self) -> int:
        """Deal with everyone whose day has come, or was changed by an import; returns how many."""
        learner = schema.learner.c
        due = select(learner.handle).where(learner.majority_due <= self._clock()).limit(_TOGETHER)
        async with self._turn:
            with reading(self._engine) as connection:
                handles = [bytes(row.handle) for row in connection.execute(due)]
            for handle in handles:
                await self.settle(handle)
        return len(handles)

    async def settle(self, handle: bytes, day: NewDay | None = None) -> list[Recorded]:
        """Let what holds by the day be what the ledger says, and judge the learner's living endorsements by it.

        Args:
            handle: of the learner.
            day: set it to this; None: it stays.

        Returns:
            what was recorded; the first entry is the change of authority, where authority passed.
        """
        learner = schema.learner.c
        with reading(self._engine) as connection:
            row = connection.execute(
                select(learner.majority_at, learner.majority_in_force).where(learner.handle == handle)
            ).one()
        at = row.majority_at if day is None else day.at
        of_age = bool(at) and self._clock() >= at
        values = {"majority_due": at if at and not of_age else None, "majority_in_force": of_age}
        if day is not None:
            values |= {"majority_at": day.at, "majority_by_hand": day.by_hand}

        def write(connection: Connection, _position: int = 0) -> None:
            # An import that changed the day meanwhile made it due again.
            connection.execute(
                update(schema.learner)
                .where(learner.handle == handle, learner.majority_at == row.majority_at)
                .values(values)
            )

        def write_alone() -> None:
            with writing(self._engine) as connection:
                write(connection)

        if of_age == row.majority_in_force:
            await self._recording.aside(write_alone)
            return await self._endorser.review(handle)
        change = change_draft(ledger_pb2.AUTHORITY_CHANGE_MAJORITY, self._node, handle, write)
        recorded = await self._endorser.review(handle, change)
        _log.info("authority_passed", of_age=of_age, endorsements_judged=len(recorded) - 1)
        return recorded

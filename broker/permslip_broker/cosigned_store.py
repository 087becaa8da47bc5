"""The last checkpoints of this broker's ledger with their cosignatures, so that a restart can show them at once.

What is lost with a crash is asked for again: each witness cosigns the same checkpoint as often as it is offered.

Example::

    store.write({ENOUGH: kept})
    store.read()[ENOUGH].size
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from sqlalchemy import Engine, delete, insert, select

from permslip.hosting.database import reading, writing
from permslip.quantities import Millis
from permslip_broker.schema import BrokerTables

__all__ = ["ENOUGH", "NEWEST", "CosignedStore", "Kept"]

ENOUGH: Final = 1
NEWEST: Final = 2


class Kept(NamedTuple):
    """One checkpoint: its size and root, its witnesses' signature lines, and when the last of them came."""

    size: int
    root: bytes
    lines: bytes
    cosigned_at: Millis


class CosignedStore:
    """Reads and writes them; waits for the database.

    Args:
        engine: the broker's database.
        tables: its tables.
    """

    def __init__(self, engine: Engine, tables: BrokerTables) -> None:
        self._engine, self._table = engine, tables.cosigned

    def read(self) -> dict[int, Kept]:
        """What is kept, by its place."""
        with reading(self._engine) as connection:
            rows = connection.execute(select(self._table)).all()
        return {
            int(row.place): Kept(int(row.size), bytes(row.root), bytes(row.lines), Millis(row.cosigned_at))
            for row in rows
        }

    def write(self, kept: Mapping[int, Kept]) -> None:
        """Put checkpoints in their places."""
        with writing(self._engine) as connection:
            for place, each in kept.items():
                connection.execute(delete(self._table).where(self._table.c.place == place))
                connection.execute(insert(self._table).values(place=place, **each._asdict()))

"""Many rows in few statements, through the raw driver: the ledger's hot path.

``executemany`` steps a SQLite statement once a row and gives up Python's lock at every step. While the event loop is
busy, taking the lock back may cost the writer's thread 5 ms each time, so that a batch of a thousand rows would take
seconds. One statement of 256 rows gives it up once. Statements come in few sizes, so that drivers keep them prepared.

Example::

    >>> insert = RowInsert(tables.leaf, engine.dialect)                # doctest: +SKIP
    >>> insert.run(cursor, [(0, digest, leaf, None), another])         # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Dialect, Table

__all__ = ["RowInsert", "statement"]

_SIZES: Final = (256, 64, 16, 4, 1)


def statement(dialect: Dialect, sql: str, rows: int = 0, row: str = "?") -> str:
    """A statement as the raw driver of ``dialect`` wants it.

    Args:
        dialect: of the engine whose raw cursor runs it.
        sql: with ``?`` for each parameter, and ``…`` where a list of rows or values stands.
        rows: how many stand there.
        row: one of them.
    """
    sql = sql.replace("…", ", ".join([row] * rows))
    return sql if dialect.name == "sqlite" else sql.replace("?", "%s")


class RowInsert:
    """Inserts rows into one table.

    Args:
        table: rows are tuples in the order of its columns.
        dialect: of the engine whose raw cursors :meth:`run` gets.
        replace: a row whose primary key is there replaces what the other columns hold. One call must then not hold
            the same key twice.
    """

    def __init__(self, table: Table, dialect: Dialect, *, replace: bool = False) -> None:
        columns = [column.name for column in table.columns]
        sql = f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES …"  # noqa: S608 (names of our own schema)
        if replace:
            keys = [column.name for column in table.primary_key.columns]
            others = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in keys)
            sql += f" ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {others}"
        row = f"({', '.join(['?'] * len(columns))})"
        self._statements = [(size, statement(dialect, sql, size, row)) for size in _SIZES]

    def run(self, cursor: Any, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert ``rows`` with as few statements as their number allows."""
        start, left = 0, len(rows)
        for size, sql in self._statements:
            while left >= size:
                cursor.execute(sql, [value for row in rows[start : start + size] for value in row])
                start += size
                left -= size

"""The tables of one ledger, for SQLite and PostgreSQL alike.

=====================  =====================================================================================
``log_head``           one row, locked by whoever appends: size, root, last time, last position of a change
``leaf``               position → leaf hash, bytes (``NULL`` once erased), position of the slice's entry before
``tree_hash``          hashes of complete subtrees of level 4 and above: (level, idx) as in :mod:`permslip.merkle`
``slice``              (node root, handle) → a number: the position of the slice's first entry
``slice_head``         where each slice's chain ends: its last number and that entry's position
``slice_mark``         position of every 64th entry of a slice, so that a page of a long chain is found at once
``evidence``           position → the envelope that the entry names, where no other table keeps it; gone once erased
``subject_change``     subject (a statement's id, a root key) → last position that changed what holds about it
=====================  =====================================================================================

Rules:

- Positions have no gap: ``leaf`` holds exactly ``0 … size - 1``, and ``log_head.size`` is moved in the transaction that
  inserts them.
- A complete subtree never changes. Those below level 4 are not stored: hashing at most 8 leaves' hashes together when
  a proof asks for one costs less than writing one more row with every leaf.
- A slice's entries are chained backwards by ``leaf.previous``. An index over (slice, number) would cost each append
  more than all of the above together, since handles are random and every append would dirty a page of its own.
- Tables that a broker or node adds must not refer to ``leaf`` by a foreign key: their rows are written before the
  leaf's own, in the same transaction.

Example::

    >>> metadata = MetaData()
    >>> tables = ledger_tables(metadata)
    >>> sorted(metadata.tables) == sorted(table.name for table in tables)
    True
"""

from __future__ import annotations

from typing import Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    UniqueConstraint,
)

__all__ = ["LOWEST_STORED_LEVEL", "MARK_EVERY", "LedgerTables", "ledger_tables"]

MARK_EVERY: Final = 64
"""How many entries of a slice lie between two of its marks."""

LOWEST_STORED_LEVEL: Final = 4
"""Subtrees of lower levels are hashed together from their leaves' hashes when they are asked for."""

# SQLite makes only an INTEGER PRIMARY KEY the row's own number, and its integers have 64 bits under any name.
_INT64 = BigInteger().with_variant(Integer(), "sqlite")


class LedgerTables(NamedTuple):
    """The tables of one ledger."""

    log_head: Table
    leaf: Table
    tree_hash: Table
    slice: Table
    slice_head: Table
    slice_mark: Table
    evidence: Table
    subject_change: Table


def ledger_tables(metadata: MetaData) -> LedgerTables:
    """Declare the ledger's tables in ``metadata``; nothing is created yet."""
    return LedgerTables(
        log_head=Table(
            "log_head",
            metadata,
            Column("id", Integer, CheckConstraint("id = 1"), primary_key=True, autoincrement=False),
            Column("size", _INT64, nullable=False),
            Column("root", LargeBinary, nullable=False),
            Column("recorded_at", _INT64, nullable=False),
            # -1 while nothing has changed anything.
            Column("change_position", _INT64, nullable=False),
        ),
        leaf=Table(
            "leaf",
            metadata,
            Column("position", _INT64, primary_key=True, autoincrement=False),
            Column("leaf_hash", LargeBinary, nullable=False),
            Column("leaf", LargeBinary),
            Column("previous", _INT64),
        ),
        tree_hash=Table(
            "tree_hash",
            metadata,
            Column("level", Integer, primary_key=True, autoincrement=False),
            Column("idx", _INT64, primary_key=True, autoincrement=False),
            Column("hash", LargeBinary, nullable=False),
            sqlite_with_rowid=False,
        ),
        slice=Table(
            "slice",
            metadata,
            Column("slice", _INT64, primary_key=True, autoincrement=False),
            Column("node", LargeBinary, nullable=False),
            Column("handle", LargeBinary, nullable=False),
            UniqueConstraint("node", "handle"),
        ),
        slice_head=Table(
            "slice_head",
            metadata,
            Column("slice", _INT64, primary_key=True, autoincrement=False),
            Column("seq", _INT64, nullable=False),
            Column("position", _INT64, nullable=False),
        ),
        slice_mark=Table(
            "slice_mark",
            metadata,
            Column("slice", _INT64, primary_key=True, autoincrement=False),
            Column("seq", _INT64, primary_key=True, autoincrement=False),
            Column("position", _INT64, nullable=False),
            sqlite_with_rowid=False,
        ),
        evidence=Table(
            "evidence",
            metadata,
            Column("position", _INT64, primary_key=True, autoincrement=False),
            Column("envelope", LargeBinary, nullable=False),
        ),
        subject_change=Table(
            "subject_change",
            metadata,
            Column("subject", LargeBinary, primary_key=True),
            Column("position", _INT64, nullable=False),
            Index("subject_change_position", "position"),
            sqlite_with_rowid=False,
        ),
    )

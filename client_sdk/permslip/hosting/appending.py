"""Appending batches of drafts: one transaction, one lock and one flush for all of them.

:class:`Appender` is the ledger without threads and event loop: a batch of calls goes in, an outcome for each comes out.

Rules, in the order of a commit:

1. The head's row is locked (SQLite: the database's write lock). If another process advanced it, what this one remembers
   is read again.
2. A draft whose facts changed since they were read is done again (:mod:`permslip.hosting.drafts`), by facts that can
   change no more. Changes by earlier drafts of the same batch count.
3. Leaves get position, time and their place in their slice's chain. Time never runs backwards.
4. Rows are inserted, the head moves, the transaction commits. Only then does this process's memory follow: if anything
   fails, nothing happened.

Example::

    >>> appender = Appender(engine, tables, LeafEncoder("grand-bend", root), clock=now)    # doctest: +SKIP
    >>> [[first], [second]] = appender.commit([(draft,), (another,)])                       # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from itertools import islice
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from permslip.errors import UnavailableError
from permslip.hosting.batch import Batch, Outcome, Slice, SliceEnd
from permslip.hosting.database import as_unavailable, is_serialization_failure, writing
from permslip.hosting.drafts import Draft
from permslip.hosting.leaves import NONCE_BYTES, LeafEncoder
from permslip.hosting.ledger_reading import Head, SqlHashes
from permslip.hosting.rows import RowInsert, statement
from permslip.hosting.schema import LOWEST_STORED_LEVEL, LedgerTables
from permslip.merkle import Frontier, empty_root

__all__ = ["Appender"]

_T = TypeVar("_T")

_REMEMBERED_SLICES: Final = 32_768
_REMEMBERED_CHANGES: Final = 65_536
_ATTEMPTS: Final = 8
_IN_ONE_QUERY: Final = 400

_MAKE_HEAD: Final = (
    "INSERT INTO log_head (id, size, root, recorded_at, change_position) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (id) DO NOTHING"
)
_READ_HEAD: Final = "SELECT size, root, recorded_at, change_position FROM log_head WHERE id = 1"
_MOVE_HEAD: Final = "UPDATE log_head SET size = ?, root = ?, recorded_at = ?, change_position = ? WHERE id = 1"
_CHANGES_SINCE: Final = "SELECT subject, position FROM subject_change WHERE position >= ? LIMIT ?"
_CHANGES_OF: Final = "SELECT subject, position FROM subject_change WHERE subject IN (…)"
_ENDS: Final = (
    "SELECT slice.node, slice.handle, slice.slice, slice_head.seq, leaf.leaf_hash, leaf.position FROM slice "
    "JOIN slice_head ON slice_head.slice = slice.slice JOIN leaf ON leaf.position = slice_head.position "
    "WHERE (slice.node, slice.handle) IN (VALUES …)"
)


class Appender:
    """Appends batches to one ledger; used by one thread at a time.

    Args:
        engine: the database.
        tables: the ledger's tables in it.
        encoder: makes the leaves.
        clock: UTC milliseconds now.
        entropy: makes that many random bytes.
        max_clock_lag: milliseconds by which the clock may be behind the last leaf; ``None`` allows any number.
    """

    def __init__(
        self,
        engine: Engine,
        tables: LedgerTables,
        encoder: LeafEncoder,
        *,
        clock: Callable[[], int],
        entropy: Callable[[int], bytes] = os.urandom,
        max_clock_lag: int | None = None,
    ) -> None:
        self._engine = engine
        self._tables = tables
        self._encoder = encoder
        self._clock = clock
        self._entropy = entropy
        self._max_clock_lag = max_clock_lag
        self._database_errors = (SQLAlchemyError, engine.dialect.loaded_dbapi.Error)

        self.head = Head(0, empty_root(), 0, -1)
        """The head as this process last committed or read it; readable from any thread."""
        self._frontier = Frontier()
        self._ends: dict[Slice, SliceEnd] = {}  # in the order in which they were first met
        self._changes: dict[bytes, int] = {}  # every change at or after _changes_from
        self._changes_from = 0

        dialect = engine.dialect
        self._dialect = dialect
        self._lock = _READ_HEAD if dialect.name == "sqlite" else f"{_READ_HEAD} FOR UPDATE"
        self._move_head = statement(dialect, _MOVE_HEAD)
        self._insert_leaves = RowInsert(tables.leaf, dialect)
        self._insert_hashes = RowInsert(tables.tree_hash, dialect)
        self._insert_slices = RowInsert(tables.slice, dialect)
        self._insert_marks = RowInsert(tables.slice_mark, dialect)
        self._insert_evidence = RowInsert(tables.evidence, dialect)
        self._replace_heads = RowInsert(tables.slice_head, dialect, replace=True)
        self._replace_changes = RowInsert(tables.subject_change, dialect, replace=True)

    def open(self, opening: Draft) -> None:
        """Read the head; a new ledger gets ``opening`` as its first entry.

        Raises:
            UnavailableError: the database does not answer, or lacks the ledger's tables.
        """
        make_head = statement(self._dialect, _MAKE_HEAD)
        self._attempt(lambda connection: connection.exec_driver_sql(make_head, (1, 0, empty_root(), 0, -1)))
        for outcome in self.commit([(opening,)], only_if_empty=True):
            if isinstance(outcome, Exception):
                raise outcome

    def commit(self, calls: Sequence[tuple[Draft, ...]], *, only_if_empty: bool = False) -> list[Outcome]:
        """Append all drafts of all calls, in order, in one transaction.

        Args:
            calls: each succeeds or fails as a whole, and independently of the others.
            only_if_empty: append nothing, and return nothing, where the ledger has entries.

        Returns:
            one outcome for each call.

        Raises:
            UnavailableError: the transaction failed. Should it have been committed all the same, the next commit
                finds the head advanced and goes on from there.
        """
        return self._attempt(lambda connection: self._prepare(connection, calls, only_if_empty))()

    def clock_behind(self, now: int) -> int:
        """Milliseconds by which ``now`` is behind the last leaf, where that is more than allowed; else 0."""
        lag = self.head.recorded_at - now
        return 0 if self._max_clock_lag is None or lag <= self._max_clock_lag else lag

    def _attempt(self, work: Callable[[Connection], _T]) -> _T:
        """Do ``work`` in a writing transaction, again where the database gave it up in favour of another."""
        attempt = 0
        while True:
            attempt += 1
            try:
                with writing(self._engine) as connection:
                    return work(connection)
            except self._database_errors as error:
                if attempt == _ATTEMPTS or not is_serialization_failure(error):
                    raise as_unavailable(error, "the ledger could not be written") from error

    def _prepare(
        self, connection: Connection, calls: Sequence[tuple[Draft, ...]], only_if_empty: bool
    ) -> Callable[[], list[Outcome]]:
        """Everything but the commit; what is returned is called after it."""
        cursor: Any = connection.connection.cursor()
        self._lock_head(connection, cursor)
        head = self.head
        if only_if_empty and head.size:
            return list
        now = self._clock()
        self._recall_ends(cursor, calls)
        batch = Batch(
            connection,
            self._encoder,
            size=head.size,
            change_position=head.change_position,
            recorded_at=max(now, head.recorded_at),
            clock_behind=self.clock_behind(now),
            nonces=self._entropy(NONCE_BYTES * sum(map(len, calls))),
            ends=self._ends,
            changes=self._changes_for(cursor, calls),
        )
        outcomes = [batch.add(drafts) for drafts in calls]
        if not batch.leaves:
            return lambda: outcomes

        frontier = copy(self._frontier)
        finished = frontier.extend([leaf_hash for _, leaf_hash, _, _ in batch.leaves])
        moved = Head(frontier.size, frontier.root(), batch.recorded_at, batch.change_position)
        self._insert_leaves.run(cursor, batch.leaves)
        self._insert_hashes.run(cursor, [row for row in finished if row[0] >= LOWEST_STORED_LEVEL])
        self._insert_slices.run(cursor, batch.new_slices)
        self._replace_heads.run(cursor, [(number, seq, position) for number, seq, _, position in batch.ends.values()])
        self._insert_marks.run(cursor, batch.marks)
        self._insert_evidence.run(cursor, batch.evidence)
        self._replace_changes.run(cursor, list(batch.changes.items()))
        cursor.execute(self._move_head, moved)

        def adopt() -> list[Outcome]:
            self._frontier = frontier
            self._remember(batch)
            self.head = moved
            return outcomes

        return adopt

    def _lock_head(self, connection: Connection, cursor: Any) -> None:
        cursor.execute(self._lock)
        row = cursor.fetchone()
        locked = Head(row[0], bytes(row[1]), row[2], row[3])
        if locked == self.head:
            return
        known = self.head.size
        if locked.size <= known:
            raise UnavailableError(
                f"the ledger has {locked.size} entries and had {known}: its database was exchanged.",
                remedy="Restart the service.",
            )
        frontier = Frontier.restore(locked.size, SqlHashes(connection, self._tables))
        if frontier.root() != locked.root:
            raise UnavailableError(
                f"the tree's hashes do not give the head's root at size {locked.size}: the database is damaged.",
                remedy="Restore it from a backup.",
            )
        self._frontier = frontier
        self._ends.clear()
        cursor.execute(statement(self._dialect, _CHANGES_SINCE), (known, _REMEMBERED_CHANGES))
        changes = {bytes(subject): position for subject, position in cursor.fetchall()}
        if known == 0 or len(changes) == _REMEMBERED_CHANGES:
            self._changes, self._changes_from = {}, locked.size
        else:
            self._add_changes(changes, locked.size)
        self.head = locked

    def _recall_ends(self, cursor: Any, calls: Sequence[tuple[Draft, ...]]) -> None:
        """Read where the chains end that the drafts will extend, so far as they are not remembered."""
        ends = self._ends
        unknown = {
            draft.slice for drafts in calls for draft in drafts if draft.slice is not None and draft.slice not in ends
        }
        for some in _portions(unknown):
            sql = statement(self._dialect, _ENDS, len(some), "(?, ?)")
            cursor.execute(sql, [value for pair in some for value in pair])
            for node, handle, number, seq, leaf_hash, position in cursor.fetchall():
                ends[bytes(node), bytes(handle)] = number, seq, bytes(leaf_hash), position

    def _changes_for(self, cursor: Any, calls: Sequence[tuple[Draft, ...]]) -> Mapping[bytes, int]:
        """Last changes of what the drafts depend on; from memory, but for drafts decided by facts older than that."""
        last, since = self.head.change_position, self._changes_from
        old = {
            subject
            for drafts in calls
            for draft in drafts
            if draft.facts_position is not None and draft.facts_position < since and draft.facts_position <= last
            for subject in draft.depends_on
        }
        if not old:
            return self._changes
        found: dict[bytes, int] = {}
        for some in _portions(old):
            cursor.execute(statement(self._dialect, _CHANGES_OF, len(some)), some)
            found.update((bytes(subject), position) for subject, position in cursor.fetchall())
        return ChainMap(found, self._changes)

    def _remember(self, batch: Batch) -> None:
        ends = self._ends
        ends.update(batch.ends)
        if len(ends) > _REMEMBERED_SLICES:
            for where in list(islice(ends, len(ends) - _REMEMBERED_SLICES)):
                del ends[where]
        if batch.changes:
            self._add_changes(batch.changes, self._frontier.size)

    def _add_changes(self, changes: Mapping[bytes, int], size: int) -> None:
        if len(self._changes) + len(changes) > _REMEMBERED_CHANGES:
            self._changes, self._changes_from = {}, size
        else:
            self._changes.update(changes)


def _portions(values: set[_T]) -> Iterator[list[_T]]:
    """The values, as many at a time as one query takes."""
    remaining = iter(values)
    while some := list(islice(remaining, _IN_ONE_QUERY)):
        yield some

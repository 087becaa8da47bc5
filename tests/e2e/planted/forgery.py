"""A keeper who rewrites its own ledger: a stopped database is changed, and all that follows from it is made anew.

:class:`ForgedLedger` reads all leaves of a database, lets a test change, remove, insert and move them, and writes back
what an honest keeper's database would look like had all that been said from the beginning: leaf hashes, tree, slice
chains, positions in every other table. Checkpoints need no forging: the keeper's own software signs whatever head it
finds at its next start.

:func:`execute` is the clumsy way: one statement of SQL, and nothing else fits any more.

:func:`forget_checkpoints` lets the lie be as old as the ledger: what broker and witnesses had cosigned of the true
history is forgotten by all of them, so that only what the entries themselves say can give it away.

Example::

    with ForgedLedger(folder / "broker.db") as ledger:
        [position] = ledger.find("access_decided", query_id=asked.id)
        ledger.entry(position).access_decided.reason = Reason.ALLOWED.wire
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from google.protobuf.message import Message

from permslip._pb.permslip.v1 import ledger_pb2
from permslip.hosting.leaves import MAX_LEAF_BYTES
from permslip.hosting.schema import LOWEST_STORED_LEVEL, MARK_EVERY
from permslip.merkle import Frontier, leaf_hash
from permslip.statements import Signed

__all__ = ["Forged", "ForgedLedger", "execute", "forget_checkpoints", "put_statement"]

_OWN_TABLES = frozenset({"leaf", "slice", "slice_head", "slice_mark", "evidence", "tree_hash", "log_head"})


@dataclass
class Forged:
    """One leaf on its way into the forged ledger.

    Attributes:
        entry: what it says; its place in its slice's chain is made anew.
        evidence: the envelope that is kept beside it.
        before: its position in the true ledger; None: there is no such entry.
    """

    entry: ledger_pb2.LogEntry
    evidence: bytes | None = None
    before: int | None = None


class ForgedLedger:
    """The ledger in one SQLite file, written back when the block ends.

    Args:
        database: of a broker or node that is stopped.
        chained: number the slices' chains anew; without it they stay as the entries say.
        renumbered: let facts' and routed positions in the entries follow entries that moved.
    """

    def __init__(self, database: Path, *, chained: bool = True, renumbered: bool = True) -> None:
        self._database, self._chained, self._renumbered = database, chained, renumbered
        with closing(sqlite3.connect(database)) as connection:
            rows = connection.execute(
                "SELECT leaf.position, leaf.leaf, evidence.envelope FROM leaf "
                "LEFT JOIN evidence ON evidence.position = leaf.position ORDER BY leaf.position"
            ).fetchall()
        self.leaves = [Forged(ledger_pb2.LogEntry.FromString(leaf), kept, before) for before, leaf, kept in rows]
        self._true_size = len(rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.write()

    # ------------------------------------------------------------------------------------- looking

    def entry(self, position: int) -> ledger_pb2.LogEntry:
        """What stands at a position; change it at will."""
        return self.leaves[position].entry

    def find(self, event: str, **fields: object) -> list[int]:
        """Positions of the entries of one kind whose fields have these values."""
        found = []
        for position, each in enumerate(self.leaves):
            if each.entry.WhichOneof("event") == event:
                body = getattr(each.entry, event)
                if all(getattr(body, name) == value for name, value in fields.items()):
                    found.append(position)
        return found

    def one(self, event: str, **fields: object) -> int:
        """The only such position."""
        [found] = self.find(event, **fields)
        return found

    # ------------------------------------------------------------------------------------- changing

    def remove(self, *positions: int) -> list[Forged]:
        """Take entries away; returns them."""
        taken = [self.leaves[each] for each in positions]
        self.leaves = [each for position, each in enumerate(self.leaves) if position not in positions]
        return taken

    def move(self, position: int, to: int) -> None:
        """Put an entry at another position; those between make room."""
        self.leaves.insert(to, self.leaves.pop(position))

    def insert(self, position: int, event: str, body: Message, *, evidence: Message | None = None, **of: Any) -> None:
        """Say something that was never said.

        Args:
            position: where.
            event: which member of the entry.
            body: that member.
            evidence: the envelope that is kept beside it.
            of: ``like``, an entry whose keeper, slice and time are taken.
        """
        like: ledger_pb2.LogEntry = of.get("like") or self.leaves[position - 1].entry
        entry = ledger_pb2.LogEntry(
            version=like.version,
            federation=like.federation,
            ledger=like.ledger,
            nonce=os.urandom(16),
            recorded_at=self.leaves[position - 1].entry.recorded_at,
        )
        if like.HasField("slice"):
            entry.slice.CopyFrom(like.slice)
        getattr(entry, event).CopyFrom(body)
        kept = evidence.SerializeToString(deterministic=True) if evidence is not None else None
        self.leaves.insert(position, Forged(entry, kept))

    def append(self, event: str, body: Message, *, evidence: Message | None = None, **of: Any) -> int:
        """The same at the end; returns the position."""
        self.insert(len(self.leaves), event, body, evidence=evidence, **of)
        return len(self.leaves) - 1

    def record(self, position: int, signed: Signed[Any], *, subject: bytes, like: ledger_pb2.LogEntry) -> None:
        """Say that a statement was accepted; the statement itself is for :func:`put_statement`."""
        body = ledger_pb2.StatementRecorded(
            statement_id=signed.id,
            payload_type=signed.kind.payload_type,
            envelope_sha256=signed.sha256,
            subject=subject,
        )
        self.insert(position, "statement_recorded", body, like=like)

    def copy_of(self, position: int) -> Forged:
        """An entry once more, for another place."""
        copied = deepcopy(self.leaves[position])
        copied.before = None
        copied.entry.nonce = os.urandom(16)
        return copied

    # ------------------------------------------------------------------------------------- writing

    def write(self) -> None:
        """Make everything anew that follows from the leaves."""
        moved = {each.before: position for position, each in enumerate(self.leaves) if each.before is not None}
        if self._renumbered:
            self._renumber(moved)
        leaves, ends = [], dict[bytes, tuple[int, int, bytes, int]]()
        heads, marks, slices = dict[int, tuple[int, int]](), [], []
        tree, finished = Frontier(), []
        place, number, seq = b"", 0, 0
        for position, each in enumerate(self.leaves):
            entry, previous = each.entry, None
            if entry.HasField("slice"):
                place = entry.slice.SerializeToString(deterministic=True)
                number, seq, digest, last = ends.get(place, (position, 0, b"", -1))
                if seq == 0:
                    slices.append((position, entry.slice.node, entry.slice.handle))
                else:
                    previous = last
                if self._chained:
                    entry.slice_seq, entry.slice_prev = seq + 1, digest
            leaf = entry.SerializeToString(deterministic=True)
            assert len(leaf) <= MAX_LEAF_BYTES
            digest = leaf_hash(leaf)
            leaves.append((position, digest, leaf, previous))
            finished += tree.append(digest)
            if entry.HasField("slice"):
                ends[place] = (number, seq + 1, digest, position)
                heads[number] = (seq + 1, position)
                if (seq + 1) % MARK_EVERY == 0:
                    marks.append((number, seq + 1, position))
        kept = [(position, each.evidence) for position, each in enumerate(self.leaves) if each.evidence is not None]
        with closing(sqlite3.connect(self._database)) as connection, connection:
            for table in sorted(_OWN_TABLES - {"log_head"}):
                connection.execute(f"DELETE FROM {table}")
            connection.executemany("INSERT INTO leaf VALUES (?, ?, ?, ?)", leaves)
            connection.executemany("INSERT INTO evidence VALUES (?, ?)", kept)
            stored = [(level, index, digest) for level, index, digest in finished if level >= LOWEST_STORED_LEVEL]
            connection.executemany("INSERT INTO tree_hash VALUES (?, ?, ?)", stored)
            connection.executemany("INSERT INTO slice VALUES (?, ?, ?)", slices)
            connection.executemany("INSERT INTO slice_head VALUES (?, ?, ?)", [(n, *end) for n, end in heads.items()])
            connection.executemany("INSERT INTO slice_mark VALUES (?, ?, ?)", marks)
            connection.execute(
                "UPDATE log_head SET size = ?, root = ?, recorded_at = ?",
                (len(leaves), tree.root(), max(each.entry.recorded_at for each in self.leaves)),
            )
            if self._true_size != len(leaves) or any(before != now for before, now in moved.items()):
                _move_positions(connection, moved, len(leaves))

    def _renumber(self, moved: dict[int, int]) -> None:
        sizes = [self._size_after(moved, size) for size in range(self._true_size + 1)]
        for each in self.leaves:
            if each.before is not None and each.entry.HasField("access_decided"):
                decided = each.entry.access_decided
                if decided.facts_position <= self._true_size:
                    decided.facts_position = sizes[decided.facts_position]

    def _size_after(self, moved: dict[int, int], size: int) -> int:
        """The size that the forged ledger had when it held what the true one held at ``size``."""
        return max((moved[before] + 1 for before in range(size) if before in moved), default=0)


def execute(database: Path, sql: str, *parameters: object) -> int:
    """Change a stopped database with one statement; returns how many rows it concerned, of which there must be some."""
    with closing(sqlite3.connect(database)) as connection, connection:
        changed = connection.execute(sql, parameters).rowcount
    assert changed, f"nothing was changed by {sql}"
    return changed


def forget_checkpoints(folder: Path) -> None:
    """Nobody in this folder remembers any checkpoint of anybody: the lie is as old as the ledgers."""
    for database in sorted(folder.glob("*.db")):
        with closing(sqlite3.connect(database)) as connection, connection:
            for table in ("cosigned", "node_checkpoint", "witnessed"):
                if connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone():
                    connection.execute(f"DELETE FROM {table}")
    _remember_pushes(folder)


def _remember_pushes(folder: Path) -> None:
    """Each node remembers the broker's last push as it now stands in the broker's ledger."""
    with closing(sqlite3.connect(folder / "broker.db")) as connection:
        pushes = connection.execute(
            "SELECT push.node, push.number, statement_id, position FROM push "
            "JOIN push_head ON push_head.node = push.node AND push_head.pushes = push.number"
        ).fetchall()
    last = {node: rest for node, *rest in pushes}
    for database in sorted(set(folder.glob("*.db")) - {folder / "broker.db", folder / "audit.db"}):
        with closing(sqlite3.connect(database)) as connection, connection:
            (leaf,) = connection.execute("SELECT leaf FROM leaf WHERE position = 0").fetchone()
            number, statement_id, position = last[ledger_pb2.LogEntry.FromString(leaf).ledger]
            connection.execute(
                "UPDATE broker_state SET pushes_held = ?, last_push = ?, last_position = ?, ledger_size = ?",
                (number, statement_id, position, position + 1),
            )


def put_statement(database: Path, signed: Signed[Any], position: int) -> None:
    """File a statement where auditors are given it from."""
    execute(
        database,
        "INSERT INTO statement (id, kind, envelope, envelope_sha256, position) VALUES (?, ?, ?, ?, ?)",
        signed.id,
        signed.kind.name,
        signed.raw,
        signed.sha256,
        position,
    )


def _move_positions(connection: sqlite3.Connection, moved: dict[int, int], size: int) -> None:
    """Positions in all other tables follow; rows about entries that are gone go as well."""
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    for table in sorted(set(tables) - _OWN_TABLES):
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        if "position" in columns:
            place = columns.index("position")
            rows = connection.execute(f"SELECT * FROM {table}").fetchall()
            connection.execute(f"DELETE FROM {table}")
            connection.executemany(
                f"INSERT INTO {table} VALUES ({', '.join('?' * len(columns))})", list(_moved(rows, place, moved))
            )
    last = connection.execute("SELECT MAX(position) FROM subject_change").fetchone()[0]
    connection.execute("UPDATE log_head SET change_position = ?", (-1 if last is None else last,))
    if "instance" in tables:
        connection.execute("UPDATE instance SET noticed = ?", (size,))


def _moved(rows: Iterable[tuple[Any, ...]], place: int, moved: dict[int, int]) -> Iterable[tuple[Any, ...]]:
    for row in rows:
        if row[place] in moved:
            yield (*row[:place], moved[row[place]], *row[place + 1 :])

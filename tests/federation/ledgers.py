"""The ledger of a broker or node, read from its database while its process runs, or after it died.

Nothing is believed that is not in the leaves' bytes: hashes, tree and slice chains are computed anew from them.

Example::

    ledger = LedgerOf(school.folder / "node.db")
    ledger.verify()
    [decided] = ledger.events("access_decided", query_id=asked.id)
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from permslip._pb.permslip.v1 import ledger_pb2
from permslip.merkle import Frontier, leaf_hash

__all__ = ["LedgerOf"]


class LedgerOf:
    """One ledger.

    Args:
        database: the SQLite file of the service that keeps it.
    """

    def __init__(self, database: Path) -> None:
        self.database = database

    def entries(self) -> list[ledger_pb2.LogEntry]:
        """Everything, in order."""
        leaves = self._rows("SELECT leaf FROM leaf ORDER BY position")
        return [ledger_pb2.LogEntry.FromString(leaf) for (leaf,) in leaves]

    def events(self, name: str, **fields: object) -> list[Any]:
        """The events of one kind whose fields have these values."""
        found = [getattr(each, name) for each in self.entries() if each.WhichOneof("event") == name]
        return [each for each in found if all(getattr(each, field) == value for field, value in fields.items())]

    def decisions(self, query_id: bytes) -> list[int]:
        """The reasons with which a query was decided."""
        return [each.reason for each in self.events("access_decided", query_id=query_id)]

    def endings(self, query_id: bytes) -> list[int]:
        """The reasons with which the answer to a query ended."""
        return [each.reason for each in self.events("access_answered", query_id=query_id)]

    def statements(self) -> set[bytes]:
        """Ids of the statements that are recorded."""
        return {each.statement_id for each in self.events("statement_recorded")}

    def uses(self, subject: bytes) -> int:
        """How often a grant or delegation was used (at a node)."""
        rows = self._rows("SELECT uses FROM use_count WHERE subject = ?", subject)
        return int(rows[0][0]) if rows else 0

    def verify(self) -> int:
        """Check positions, hashes, root and slice chains; returns the size."""
        with closing(self._connect()) as connection:
            connection.execute("BEGIN")
            [(size, root)] = connection.execute("SELECT size, root FROM log_head").fetchall()
            rows = connection.execute("SELECT position, leaf_hash, leaf FROM leaf ORDER BY position").fetchall()
        assert [position for position, _, _ in rows] == list(range(size)), "positions have no gap"
        hashes = [leaf_hash(leaf) for _, _, leaf in rows]
        assert [stored for _, stored, _ in rows] == hashes, "a leaf's hash is the hash of its bytes"
        tree = Frontier()
        tree.extend(hashes)
        assert tree.root() == root, "the root is the root of the leaves"
        ends: dict[bytes, tuple[int, bytes]] = {}
        for digest, (_, _, leaf) in zip(hashes, rows, strict=True):
            entry = ledger_pb2.LogEntry.FromString(leaf)
            if entry.HasField("slice"):
                place = entry.slice.SerializeToString(deterministic=True)
                assert (entry.slice_seq - 1, entry.slice_prev) == ends.get(place, (0, b"")), (
                    "a slice's chain has no gap"
                )
                ends[place] = entry.slice_seq, digest
        return int(size)

    def _rows(self, query: str, *parameters: object) -> list[Any]:
        with closing(self._connect()) as connection:
            return connection.execute(query, parameters).fetchall()

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.database, timeout=20, isolation_level=None)

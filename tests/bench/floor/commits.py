"""Durable commits with nothing between: ``sqlite3`` in WAL mode with ``synchronous=FULL``, fed by asyncio futures.

Whatever waits when the thread wakes goes into one transaction. A row is a position and the bytes of a ledger leaf;
there is no tree, no chain and no other table.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path
from queue import SimpleQueue

from permslip._pb.permslip.v1 import ledger_pb2, statement_pb2 as pb
from tests.bench.workload import FEDERATION, SECTION

__all__ = ["Commits", "leaf"]

_Call = tuple[list[bytes], asyncio.Future[None]]


def leaf() -> bytes:
    """Bytes as long as the leaf of an allowed access."""
    entry = ledger_pb2.LogEntry(
        version=1,
        federation=FEDERATION,
        ledger=bytes(32),
        nonce=bytes(16),
        recorded_at=1_790_000_000_000,
        slice=pb.Slice(node=bytes(32), handle=bytes(16)),
        slice_seq=1000,
        slice_prev=bytes(32),
        access_decided=ledger_pb2.AccessDecided(
            query_id=bytes(32),
            envelope_sha256=bytes(32),
            requester=pb.Signer(root=bytes(32), key=bytes(32)),
            grant_id=bytes(32),
            action=pb.ACTION_READ,
            purpose=pb.PURPOSE_TUTORING,
            reason=pb.REASON_ALLOWED,
            sections=[ledger_pb2.SectionVerdict(section=SECTION, reason=pb.REASON_ALLOWED)],
            decided_at=1_790_000_000_000,
            facts_position=1000,
        ),
    )
    return entry.SerializeToString()


class Commits:
    """Rows that are on the disk when the future resolves. Belongs to the event loop that made it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[_Call | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="commits", daemon=True)
        self._thread.start()

    def append(self, rows: list[bytes]) -> asyncio.Future[None]:
        """Append rows in one transaction."""
        done: asyncio.Future[None] = self._loop.create_future()
        self._queue.put((rows, done))
        return done

    async def close(self) -> None:
        """Write what waits, and end."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _write(self) -> None:
        connection = sqlite3.connect(self._path, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE leaf (position INTEGER PRIMARY KEY, leaf BLOB NOT NULL)")
        position = 0
        queue = self._queue
        while (call := queue.get()) is not None:
            calls = [call]
            while not queue.empty():
                another = queue.get()
                if another is None:
                    queue.put(None)
                    break
                calls.append(another)
            rows = [row for each in calls for row in each[0]]
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO leaf VALUES (?, ?)", enumerate(rows, position))
            connection.execute("COMMIT")
            position += len(rows)
            self._loop.call_soon_threadsafe(_resolve, [each[1] for each in calls])
        connection.close()


def _resolve(done: list[asyncio.Future[None]]) -> None:
    for each in done:
        if not each.done():
            each.set_result(None)

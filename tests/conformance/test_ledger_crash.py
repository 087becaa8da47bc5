"""Killed in the middle of appending, a ledger holds every entry that was acknowledged, and is whole."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys

import pytest

from permslip._pb.permslip.v1.ledger_pb2 import LogEntry
from tests.conformance.conftest import KEEPER, ORIGIN, Database, refused

NODE = b"\x11" * 32

# Appends from 50 coroutines and says what was acknowledged, until it is killed.
WRITER = f"""
import asyncio, sys, time
from sqlalchemy import MetaData
from permslip._pb.permslip.v1.ledger_pb2 import RequestRefused
from permslip.hosting.database import open_engine
from permslip.hosting.ledger import Draft, Ledger
from permslip.hosting.schema import ledger_tables

async def append(ledger, handle):
    while True:
        body = RequestRefused(reason=10, method="Deposit")
        [recorded] = await ledger.append(Draft("request_refused", body, slice=({NODE!r}, handle)))
        print(recorded.position, recorded.leaf_hash.hex(), flush=True)

async def main():
    ledger = Ledger.open(
        open_engine(sys.argv[1]), ledger_tables(MetaData()), federation="grand-bend", keeper={KEEPER!r},
        origin={ORIGIN!r}, clock=lambda: time.time_ns() // 1_000_000)
    await asyncio.gather(*(append(ledger, bytes([i]) * 16) for i in range(50)))

asyncio.run(main())
"""


@pytest.mark.parametrize("lines", [1, 333, 1_000])
async def test_what_was_acknowledged_before_a_kill_is_there(database: Database, lines: int) -> None:
    acknowledged = await asyncio.to_thread(write_until_killed, database.url, lines)

    ledger = database.open(max_clock_lag=None)

    leaves = database.leaves()
    for line in acknowledged:
        position, leaf_hash = line.split()
        assert leaves[int(position)].leaf_hash.hex() == leaf_hash
    for handle in {LogEntry.FromString(leaf.leaf or b"").slice.handle for leaf in leaves[1:]}:
        seqs = [entry.seq for entry in ledger.slice_entries(NODE, handle, limit=10_000)]
        assert seqs == list(range(1, len(seqs) + 1))
    [recorded] = await ledger.append(refused())
    assert recorded.position == len(leaves)


def write_until_killed(url: str, lines: int) -> list[str]:
    """What a process acknowledged that was killed after so many lines."""
    writer = subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    acknowledged = [writer.stdout.readline() for _ in range(lines)]
    writer.send_signal(signal.SIGKILL)
    acknowledged += writer.stdout.readlines()
    writer.stdout.close()
    assert writer.wait() == -signal.SIGKILL
    return [line for line in acknowledged if line.endswith("\n")]  # the last may be cut off

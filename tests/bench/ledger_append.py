"""Appending to the ledger: 200 coroutines, each of which waits for its own entry, against raw ``sqlite3`` group commit.

The raw side writes rows as long as the ledger's leaves, in the same WAL mode with ``synchronous=FULL``; the ledger also
makes each leaf, chains it in its slice, grows the tree and rechecks the facts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from sqlalchemy import MetaData

from permslip._pb.permslip.v1 import ledger_pb2, statement_pb2 as pb
from permslip.hosting.database import open_engine
from permslip.hosting.ledger import Draft, Ledger
from permslip.hosting.schema import ledger_tables
from tests.bench.figures import Figure, Report
from tests.bench.floor.commits import Commits, leaf
from tests.bench.load import in_turns_of_rates
from tests.bench.scale import Scale
from tests.bench.workload import FEDERATION, SECTION

__all__ = ["measure"]

_ROOT = bytes(range(32))


async def measure(report: Report, scale: Scale, folder: Path) -> None:
    """Entries a second of both."""
    commits = Commits(folder / "raw.db")
    engine = open_engine(f"sqlite:///{folder / 'ledger.db'}")
    metadata = MetaData()
    tables = ledger_tables(metadata)
    metadata.create_all(engine)
    ledger = Ledger.open(
        engine,
        tables,
        federation=FEDERATION,
        keeper=_ROOT,
        origin=f"{FEDERATION}/bench",
        clock=lambda: time.time_ns() // 1_000_000,
    )
    row = [leaf()]
    body = _decided(ledger.size)

    def raw(number: int) -> Awaitable[object]:
        return commits.append(row)

    def recorded(number: int) -> Awaitable[object]:
        return ledger.append(
            Draft(
                "access_decided",
                body,
                slice=(_ROOT, number.to_bytes(16, "big")),
                depends_on=(bytes(32), _ROOT),
                facts_position=body.facts_position,
            )
        )

    async def rate(append: Callable[[int], Awaitable[object]]) -> float:
        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for writer in range(scale.writers):
                group.create_task(_write(append, writer, scale.rows // scale.writers))
        return scale.rows / (time.perf_counter() - started)

    rates = await in_turns_of_rates({"raw": lambda: rate(raw), "ledger": lambda: rate(recorded)}, rounds=scale.rounds)
    report.add(
        Figure(
            "ledger.append",
            rates["ledger"],
            "entries/s",
            baseline=rates["raw"],
            against="raw sqlite3 group commit",
            at_least=0.3,
            note=f"{scale.writers} concurrent writers, each waits for its own entry",
        )
    )
    await ledger.close()
    await commits.close()
    engine.dispose()


async def _write(append: Callable[[int], Awaitable[object]], writer: int, entries: int) -> None:
    for _ in range(entries):
        await append(writer)


def _decided(facts_position: int) -> ledger_pb2.AccessDecided:
    return ledger_pb2.AccessDecided(
        query_id=bytes(32),
        envelope_sha256=bytes(32),
        requester=pb.Signer(root=_ROOT, key=_ROOT),
        grant_id=bytes(32),
        action=pb.ACTION_READ,
        purpose=pb.PURPOSE_TUTORING,
        reason=pb.REASON_ALLOWED,
        sections=[ledger_pb2.SectionVerdict(section=SECTION, reason=pb.REASON_ALLOWED)],
        decided_at=1_790_000_000_000,
        facts_position=facts_position,
    )

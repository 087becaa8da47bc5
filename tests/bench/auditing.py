"""What an auditor waits for: leaves pulled from a broker, beside a plain transfer; a million leaves verified.

Pulling is compared with reading the same messages through the same channel and throwing them away: what it adds is the
hash of every leaf, the tree over them, and keeping them on the disk. Examining what was pulled (strict decoding, rows,
indexes) needs no connection and is a figure of its own.

Verifying runs in a process of its own, whose peak of memory is what it says: once for a tenth of the leaves, once for
all of them.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import MetaData

from permslip._pb.permslip.v1 import auditor_pb2, ledger_pb2, statement_pb2 as pb
from permslip.auditing.bundle import Bundle
from permslip.auditing.entry_rows import EntryRow, row_of
from permslip.auditing.examining import Examination
from permslip.auditing.fetching import new_meta
from permslip.auditing.pulling import frontier_of, pull
from permslip.auditing.results import silent
from permslip.checkpoints import Checkpoint, sign_checkpoint
from permslip.client.auditing import AsyncAuditorClient, LedgerCheckpoint
from permslip.hosting.database import open_engine
from permslip.hosting.leaves import LeafEncoder, encode_event, encode_time
from permslip.hosting.ledger import Draft, Ledger
from permslip.hosting.schema import ledger_tables
from permslip.keyfile import PrincipalKind, StoredKeys
from permslip.keys import did_text
from permslip.merkle import Frontier, leaf_hash
from permslip.notes import Ed25519Signer
from tests.bench.figures import Figure, Report
from tests.bench.load import in_turns_of_rates
from tests.bench.processes import Processes
from tests.bench.scale import Scale
from tests.federation.principals import Organization, Person
from tests.federation.processes import FederationProcesses, now

__all__ = ["measure"]

_AT_ONCE = 2_000
_SLICES = 5_000
_MOST_MEMORY = 300
_INDEXES = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'entry' AND sql IS NOT NULL"


async def measure(report: Report, scale: Scale, folder: Path) -> None:
    """Leaves a second, and megabytes."""
    await _fetching(report, scale, folder / "fetch")
    _verifying(report, scale, folder)


# ------------------------------------------------------------------------------------------------------- fetching


async def _fetching(report: Report, scale: Scale, folder: Path) -> None:
    async with _auditing(folder, scale.leaves // 10) as (client, root):
        checkpoint = await client.checkpoint()
        visits = _Visits(client, root, checkpoint, folder)

        async def rate(transfer: Callable[[], Awaitable[None]]) -> float:
            started = time.perf_counter()
            await transfer()
            return checkpoint.size / (time.perf_counter() - started)

        await visits.plain()
        rates = await in_turns_of_rates(
            {"plain": lambda: rate(visits.plain), "pull": lambda: rate(visits.pulled)}, rounds=scale.rounds
        )
        started = time.perf_counter()
        await visits.examined()
        examined = checkpoint.size / (time.perf_counter() - started)
    report.add(
        Figure(
            "audit.pull",
            rates["pull"],
            "leaves/s",
            baseline=rates["plain"],
            against="the same bytes through the same channel",
            at_least=0.5,
            note=f"{checkpoint.size:,} leaves of a broker, hashed, under the tree, and on the disk",
        ),
        Figure(
            "audit.examine", examined, "leaves/s", note="strictly decoded, in rows and indexes; no connection waits"
        ),
    )


@asynccontextmanager
async def _auditing(folder: Path, leaves: int) -> AsyncIterator[tuple[AsyncAuditorClient, bytes]]:
    """A broker's process with so many leaves, and an auditor who may read them."""
    with FederationProcesses(folder) as federation:
        federation.start_broker()
        auditor = Organization.new("Auditor", pb.PRINCIPAL_KIND_AUDITOR, federation.federation, now=now())
        federation.admit([auditor])
        federation.broker.kill()
        await _fill(federation, leaves)
        federation.start_broker()
        client = AsyncAuditorClient(
            broker=federation.address,
            broker_root=did_text(federation.root),
            federation=federation.federation,
            operator=did_text(federation.operator.public),
            keys=StoredKeys(PrincipalKind.AUDITOR, auditor.key, auditor.sealing),
            cert=auditor.cert.envelope,
        )
        async with client:
            yield client, federation.root


async def _fill(federation: FederationProcesses, leaves: int) -> None:
    engine = open_engine(f"sqlite:///{federation.broker_folder / 'broker.db'}")
    ledger = Ledger.open(
        engine,
        ledger_tables(MetaData()),
        federation=federation.federation,
        keeper=federation.root,
        origin=f"{federation.federation}/broker",
        clock=now,
    )
    node = os.urandom(32)
    for first in range(0, leaves, _AT_ONCE):
        drafts = (
            Draft("access_answered", _answer(os.urandom(32)), slice=(node, (number % _SLICES).to_bytes(16, "big")))
            for number in range(first, min(first + _AT_ONCE, leaves))
        )
        await asyncio.gather(*(ledger.append(each) for each in drafts))
    await ledger.close()
    engine.dispose()


def _answer(query_id: bytes) -> ledger_pb2.AccessAnswered:
    return ledger_pb2.AccessAnswered(
        query_id=query_id, reason=pb.REASON_ALLOWED, manifest_sha256=query_id, sealed_bytes=4_096
    )


@dataclass
class _Visits:
    """One ledger, read in several ways; each into a bundle of its own."""

    client: AsyncAuditorClient
    root: bytes
    checkpoint: LedgerCheckpoint
    folder: Path
    bundles: list[Bundle] = field(default_factory=list)

    async def plain(self) -> None:
        """The messages, as bytes, thrown away."""
        session = self.client.session
        call: Any = session.open_channel().unary_stream(
            "/permslip.v1.AuditorService/FetchEntries", request_serializer=_serialized
        )
        request = auditor_pb2.FetchEntriesRequest(
            hello=await session.greet(), ledger=self.root, until=self.checkpoint.size
        )
        async for _ in call(request):
            pass

    async def pulled(self) -> None:
        """The leaves, into a new bundle."""
        bundle = Bundle.create(self.folder / f"{len(self.bundles)}.db", await new_meta(self.client))
        self.bundles.append(bundle)
        origin = self.checkpoint.checkpoint.origin
        number = bundle.add_ledger(self.root, kind="broker", name="broker", origin=origin)
        with bundle.findings("fetch") as found:
            await pull(self.client, bundle, bundle.ledger(number), self.checkpoint, found, silent)
        if found.faults or frontier_of(bundle.ledger(number)).root() != self.checkpoint.root:
            raise RuntimeError("what was pulled does not make the root that was signed")

    async def examined(self) -> None:
        """What was pulled last, into rows."""
        bundle = self.bundles[-1]
        [row] = bundle.ledgers()
        with bundle.findings("fetch") as found:
            examination = Examination(self.client, bundle, self.client.session.server.federation, found, silent)
            await examination.run(row.ledger)
        if found.faults:
            raise RuntimeError("an honest ledger has faults")


def _serialized(request: auditor_pb2.FetchEntriesRequest) -> bytes:
    return request.SerializeToString()


# ------------------------------------------------------------------------------------------------------ verifying


def _verifying(report: Report, scale: Scale, folder: Path) -> None:
    few, many = max(scale.leaves // 10, 1), scale.leaves
    told = {leaves: _verified(_bundle(folder / f"{leaves}.db", leaves)) for leaves in (few, many)}
    report.add(
        Figure("audit.verify", many / told[many]["seconds"], "leaves/s", note=f"{many:,} leaves, one process"),
        Figure(
            "audit.verify.memory",
            told[many]["peak_mb"],
            "MB",
            baseline=told[few]["peak_mb"],
            against=f"{few:,} leaves",
            value_at_most=_MOST_MEMORY,
            note=f"the peak of the process that verifies {many:,} leaves",
        ),
    )


def _verified(made: tuple[Path, str, str]) -> dict[str, float]:
    path, root, operator = made
    with Processes() as processes:
        child = processes.start("tests.bench.audit_process", str(path), root, operator)
        told: dict[str, float] = child.say()
    path.unlink()
    return told


def _bundle(path: Path, leaves: int) -> tuple[Path, str, str]:
    """A bundle of one ledger with so many leaves, signed."""
    keeper, operator = Organization.new("Broker", pb.PRINCIPAL_KIND_BROKER, "fed.bench", now=now()), Person.new()
    meta = {
        "federation": keeper.federation,
        "broker_root": did_text(keeper.root),
        "operator": did_text(operator.public),
        "scope": "{}",
    }
    with Bundle.create(path, meta) as bundle:
        origin = f"{keeper.federation}/broker"
        bundle.add_ledger(keeper.root, kind="broker", name="broker", origin=origin)
        frontier, rows = Frontier(), _rows(keeper, origin, leaves)
        # Made once at the end they cost a fraction of what they cost leaf by leaf.
        indexes = bundle.db.execute(_INDEXES).fetchall()
        for name, _ in indexes:
            bundle.db.execute(f"DROP INDEX {name}")
        while portion := list(islice(rows, _AT_ONCE)):
            with bundle.transaction():
                bundle.add_entries(portion)
            frontier.extend([each.leaf_hash for each in portion])
        for _, made in indexes:
            bundle.db.execute(made)
        log = Ed25519Signer(origin, keeper.key)
        note = sign_checkpoint(Checkpoint(origin, leaves, frontier.root()), [log])
        with bundle.transaction():
            bundle.set_fetched(1, leaves)
            bundle.add_statements([keeper.cert])
            bundle.add_checkpoint(
                1, leaves, frontier.root(), note, vkey=str(log.key), cosigners=[], visit=1, fetched_at=now()
            )
    return path, did_text(keeper.root), did_text(operator.public)


def _rows(keeper: Organization, origin: str, leaves: int) -> Iterator[EntryRow]:
    encoder, node = LeafEncoder(keeper.federation, keeper.root), os.urandom(32)
    ends: dict[int, tuple[int, bytes]] = {}
    for position in range(leaves):
        time_bytes, place = encode_time(1_790_000_000_000 + position), position % _SLICES
        if position == 0:
            event = encode_event("ledger_opened", ledger_pb2.LedgerOpened(origin=origin))
            leaf = encoder.encode(os.urandom(16), time_bytes, event)
        else:
            seq, before = ends.get(place, (0, b""))
            event = encode_event("access_answered", _answer(os.urandom(32)))
            where = node, place.to_bytes(16, "big")
            leaf = encoder.encode(os.urandom(16), time_bytes, event, where, seq + 1, before)
            ends[place] = seq + 1, leaf_hash(leaf)
        yield row_of(ledger_pb2.LogEntry.FromString(leaf), 1, position, leaf_hash(leaf), leaf)

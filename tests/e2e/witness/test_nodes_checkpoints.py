"""Nodes' own ledgers: the broker cosigns their checkpoints, and finds out a node that went back or rewrote its own."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from functools import partial

import pytest

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.checkpoints import CosignatureVerifier
from permslip.client.auditing import AsyncAuditorClient
from permslip.errors import UnavailableError
from permslip.keyfile import PrincipalKind, StoredKeys
from permslip.keys import did_text
from permslip.notes import Ed25519Verifier, SignatureType, VerifiedNote, VerifierKey, open_note
from permslip.witnesses import witness_name
from tests.e2e.witness.three_witnesses import ThreeWitnesses
from tests.federation.principals import Organization
from tests.federation.processes import now
from tests.federation.school_process import SchoolProcess, until

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def one_federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThreeWitnesses]:
    with ThreeWitnesses(tmp_path_factory.mktemp("nodes")) as running:
        yield running


@pytest.fixture
async def federation(one_federation: ThreeWitnesses) -> ThreeWitnesses:
    for each in one_federation.schools:
        if not each.is_running:
            each.start()
    await one_federation.settled_in()
    return one_federation


@asynccontextmanager
async def auditing(federation: ThreeWitnesses) -> AsyncIterator[AsyncAuditorClient]:
    """An auditor who may see everything."""
    processes = federation.processes
    auditor = Organization.new("Auditor", pb.PRINCIPAL_KIND_AUDITOR, processes.federation, now=now())
    processes.admit([auditor])
    for school in federation.schools:
        if school.is_running:
            await until(partial(_knows, school, auditor), "the node knows the auditor")
    async with AsyncAuditorClient(
        broker=processes.address,
        broker_root=did_text(processes.root),
        federation=processes.federation,
        operator=did_text(processes.operator.public),
        keys=StoredKeys(PrincipalKind.AUDITOR, auditor.key, auditor.sealing),
        cert=auditor.cert.envelope,
    ) as client:
        yield client


def _knows(school: SchoolProcess, auditor: Organization) -> bool:
    return auditor.cert.id in school.ledger.statements()


def both(federation: ThreeWitnesses, school: SchoolProcess, note: bytes) -> VerifiedNote:
    """The note with what the node and the broker signed of it verified."""
    name = witness_name(federation.processes.federation, school.root)
    node = Ed25519Verifier(VerifierKey(name, SignatureType.ED25519, school.organization.key.public))
    log = federation.log_verifier().key
    broker = CosignatureVerifier(VerifierKey(log.name, SignatureType.COSIGNATURE_V1, log.public))
    return open_note(note, [node, broker])


def kept(federation: ThreeWitnesses, school: SchoolProcess) -> int:
    """Size of the node's checkpoint that the broker cosigned last."""
    with closing(sqlite3.connect(federation.ledger.database, timeout=20)) as connection:
        row = connection.execute("SELECT size FROM node_checkpoint WHERE node = ?", (school.root,)).fetchone()
    return int(row[0]) if row else 0


async def test_node_and_broker_sign_what_an_auditor_gets(federation: ThreeWitnesses) -> None:
    school = federation.schools[0]
    async with auditing(federation) as client:
        first = await client.checkpoint(school.root)
        federation.grow()
        await until(lambda: len(school.ledger.entries()) > first.size, "the node recorded what was pushed")
        second = await client.checkpoint(school.root)

    for each in (first, second):
        assert [line.name for line in both(federation, school, each.note).signatures] == [
            witness_name(federation.processes.federation, school.root),
            f"{federation.processes.federation}/broker",
        ]
    assert second.size > first.size
    assert kept(federation, school) >= second.size


def _reaches(federation: ThreeWitnesses, school: SchoolProcess, size: int) -> bool:
    return kept(federation, school) >= size


async def test_broker_asks_nodes_by_itself(federation: ThreeWitnesses) -> None:
    federation.grow()
    for school in federation.schools:
        size = len(school.ledger.entries())
        await until(partial(_reaches, federation, school, size), "the broker cosigned it")


async def test_node_that_is_not_attached_has_no_checkpoint_to_give(federation: ThreeWitnesses) -> None:
    school = federation.schools[1]
    gone = len(federation.broker_said("node_detached"))
    school.kill()
    await until(lambda: len(federation.broker_said("node_detached")) > gone, "the broker knows")
    async with auditing(federation) as client:
        with pytest.raises(UnavailableError, match="the node is not attached"):
            await client.checkpoint(school.root)


async def test_node_that_went_back_to_an_earlier_ledger_is_found_out(federation: ThreeWitnesses) -> None:
    school = federation.schools[2]
    database = school.folder / "node.db"
    earlier = school.folder / "earlier.db"
    with closing(sqlite3.connect(database, timeout=20)) as source, closing(sqlite3.connect(earlier)) as target:
        source.backup(target)
    grown = len(school.ledger.entries())
    federation.grow()
    await until(lambda: kept(federation, school) > grown, "the broker cosigned what came since")
    school.end()
    for leftover in ("node.db-wal", "node.db-shm"):
        (school.folder / leftover).unlink(missing_ok=True)
    shutil.move(earlier, database)
    school.start()

    said = await federation.until_broker_said("node_checkpoint_refused")
    assert any(f'"fault": "{fault}"' in said for fault in ("ROLLBACK", "FORK", "INCONSISTENT"))
    await school.until_ready()
    async with auditing(federation) as client:
        note = (await client.checkpoint(school.root)).note
    assert [line.name for line in both(federation, school, note).signatures] == [
        witness_name(federation.processes.federation, school.root)
    ]
    alerts = federation.ledger.events("witness_alert")
    assert {(each.keeper, each.seen_size) for each in alerts} == {(school.root, kept(federation, school))}
    assert len({each.fault for each in alerts}) == len(alerts)

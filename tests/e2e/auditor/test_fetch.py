"""Fetching the broker's ledger into a bundle, and verifying the bundle alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.audit_scope import make_scope
from permslip.auditing.bundle import Bundle
from permslip.auditing.fetching import Fetch, new_meta
from permslip.auditing.results import Result, Trust
from permslip.auditing.verifying import verify
from permslip.checkpoints import Checkpoint
from permslip.client.auditing import AsyncAuditorClient
from permslip.errors import ConfigurationError, KeyRejectedError
from permslip.keyfile import PrincipalKind, StoredKeys
from permslip.keys import did_text
from permslip.reasons import Reason
from tests.e2e.broker.small_federation import FEDERATION, SmallFederation
from tests.federation.principals import Organization, admit


def client_of(federation: SmallFederation, auditor: Organization) -> AsyncAuditorClient:
    return AsyncAuditorClient(
        broker=federation.address,
        broker_root=did_text(federation.root),
        federation=FEDERATION,
        operator=did_text(federation.operator.public),
        keys=StoredKeys(PrincipalKind.AUDITOR, auditor.key, auditor.sealing),
        cert=auditor.cert.envelope,
        now=federation.now,
    )


def trust_in(federation: SmallFederation) -> Trust:
    return Trust(FEDERATION, broker_root=federation.root, operator=federation.operator.public)


@asynccontextmanager
async def auditing(
    federation: SmallFederation, scope: pb.AuditScope | None = None
) -> AsyncIterator[AsyncAuditorClient]:
    auditor = Organization.new("State Auditor", pb.PRINCIPAL_KIND_AUDITOR, FEDERATION, now=federation.now())
    word = admit(federation.operator, auditor, now=federation.now(), audit_scope=scope)
    results = await federation.admit(word, auditor.cert)
    assert all(each.refusal.code == Reason.ALLOWED.wire for each in results), results
    async with client_of(federation, auditor) as client:
        yield client


def bundle_at(path: Path, meta: dict[str, str]) -> Bundle:
    return Bundle.open(path) if path.exists() else Bundle.create(path, meta)


async def fetched(client: AsyncAuditorClient, federation: SmallFederation, path: Path) -> Result:
    with bundle_at(path, await new_meta(client)) as bundle:
        return await Fetch(client, bundle, trust_in(federation), nodes=[]).run()


def verified(federation: SmallFederation, path: Path) -> tuple[Result, list[tuple[str, str]]]:
    """The result and the faults; of the nodes nothing was fetched here, which keeps a result from being clean."""
    with Bundle.open(path) as bundle:
        result = verify(bundle, trust_in(federation))
        return result, bundle.db.execute("SELECT code, message FROM finding WHERE severity = 'fault'").fetchall()


async def accesses(federation: SmallFederation, count: int = 1) -> None:
    """Accesses at a school, answered, and one that is refused."""
    async with federation.attached() as node, federation.requester(federation.tutor) as tutor:
        grant = await federation.endorsed_grant()
        for _ in range(count):
            await tutor.ask(federation.query(federation.tutor, grant))
        await tutor.ask(federation.query(federation.tutor, bytes(32)))
        await federation.revoke(federation.revocation(grant))
        assert node is not None
    await federation.broker.recorder.settle()


async def test_a_fetched_bundle_is_clean_and_shows_the_accesses(federation: SmallFederation, tmp_path: Path) -> None:
    await accesses(federation, 3)
    async with auditing(federation) as client:
        result = await fetched(client, federation, tmp_path / "audit.db")

    assert (result.word, result.findings) == ("clean", {})
    checked, faults = verified(federation, tmp_path / "audit.db")
    assert (checked.faults, faults) == (0, [])
    assert did_text(federation.school.root) in checked.unchecked
    assert checked.counts["leaves"] == result.counts["entries"]
    with Bundle.open(tmp_path / "audit.db") as bundle:
        rows = bundle.db.execute("SELECT requester_name, accesses, allowed, refused FROM accesses_by_provider")
        assert rows.fetchall() == [("Tutors", 4, 3, 1)]
        rows = bundle.db.execute("SELECT reason, refusals FROM refusals_by_reason WHERE event = 'access_decided'")
        assert rows.fetchall() == [("GRANT_UNKNOWN", 1)]


async def test_a_second_visit_brings_only_what_is_new(federation: SmallFederation, tmp_path: Path) -> None:
    await accesses(federation)
    async with auditing(federation) as client:
        first = await fetched(client, federation, tmp_path / "audit.db")
        await accesses(federation)
        second = await fetched(client, federation, tmp_path / "audit.db")
        third = await fetched(client, federation, tmp_path / "audit.db")

    assert second.counts["entries"] > 0
    assert "entries" not in third.counts
    checked, faults = verified(federation, tmp_path / "audit.db")
    assert (checked.faults, faults) == (0, [])
    assert checked.counts["leaves"] == first.counts["entries"] + second.counts["entries"]
    assert checked.counts["checkpoints"] == 3


async def test_a_scope_that_hides_entries_still_verifies(federation: SmallFederation, tmp_path: Path) -> None:
    await accesses(federation)
    async with auditing(federation, make_scope(nodes=(federation.platform.root,))) as client:
        result = await fetched(client, federation, tmp_path / "audit.db")

    checked, faults = verified(federation, tmp_path / "audit.db")
    assert result.counts["hidden"] == checked.counts["hidden"] > 0
    assert (checked.faults, faults) == (0, [])


async def test_who_is_no_auditor_fetches_nothing(federation: SmallFederation, tmp_path: Path) -> None:
    stranger = Organization.new("Nobody", pb.PRINCIPAL_KIND_AUDITOR, FEDERATION, now=federation.now())
    async with client_of(federation, stranger) as client:
        with pytest.raises(KeyRejectedError, match="not admitted as an auditor"):
            await fetched(client, federation, tmp_path / "audit.db")


async def test_a_bundle_of_another_broker_is_not_continued(federation: SmallFederation, tmp_path: Path) -> None:
    async with auditing(federation) as client:
        meta = {**await new_meta(client), "broker_root": did_text(federation.school.root)}
        with (
            Bundle.create(tmp_path / "audit.db", meta) as bundle,
            pytest.raises(ConfigurationError, match="broker_root"),
        ):
            await Fetch(client, bundle, trust_in(federation), nodes=[]).run()


async def test_a_ledger_that_does_not_continue_the_auditors_own_checkpoint_is_a_fork(
    federation: SmallFederation, tmp_path: Path
) -> None:
    async with auditing(federation) as client:
        own = Checkpoint(federation.settings.ledger_origin, 3, bytes(32))
        with Bundle.create(tmp_path / "audit.db", await new_meta(client)) as bundle:
            result = await Fetch(client, bundle, trust_in(federation), nodes=[], last=[own]).run()

    assert (result.exit_code, dict(result.findings)) == (1, {"CHECKPOINT_FORK": 1})
    checked, faults = verified(federation, tmp_path / "audit.db")
    assert checked.exit_code == 1
    assert [code for code, _ in faults].count("CHECKPOINT_FORK") == 2  # of the fetch, and taken over from it

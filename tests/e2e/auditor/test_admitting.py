"""``permslip operator admit --kind auditor``: what the operator types is the scope that everybody reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.audit_scope import make_scope
from permslip.client.operating import AsyncOperatorClient
from permslip.keyfile import PrincipalKind, StoredKeys
from permslip.keys import did_text
from tests.federation.principals import DAY, Organization
from tests.federation.processes import FederationProcesses, now

pytestmark = pytest.mark.e2e

SEPTEMBER = 1_788_220_800_000  # 2026-09-01 00:00 UTC


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FederationProcesses]:
    """A broker with a school admitted."""
    with FederationProcesses(tmp_path_factory.mktemp("federation")) as running:
        running.start_broker()
        yield running


@pytest.fixture
def school(federation: FederationProcesses) -> Organization:
    made = Organization.new("High", pb.PRINCIPAL_KIND_NODE, federation.federation, now=now())
    federation.admit([made])
    return made


def words(federation: FederationProcesses, who: Organization, kind: str, *more: str) -> list[str]:
    folder: Path = federation.broker_folder
    operator = ["operator", "--config", str(folder / "permslip.toml"), "--key", str(folder / "operator.key")]
    admit = ["admit", did_text(who.root), "--kind", kind, "--name", "State Auditor", "--agreement", "MOU-1", *more]
    return [*operator, *admit]


def auditor(federation: FederationProcesses) -> Organization:
    return Organization.new("State Auditor", pb.PRINCIPAL_KIND_AUDITOR, federation.federation, now=now())


async def scope_of(federation: FederationProcesses, who: Organization) -> pb.AuditScope | None:
    """As the directory tells it."""
    operator = federation.operator
    async with AsyncOperatorClient(
        broker=federation.address,
        broker_root=did_text(federation.root),
        federation=federation.federation,
        keys=StoredKeys(PrincipalKind.OPERATOR, operator.key, operator.sealing),
    ) as client:
        found = await client.organization(who.root)
    assert found is not None
    return found.audit_scope


async def test_an_auditor_is_admitted_to_nodes_and_days(federation: FederationProcesses, school: Organization) -> None:
    who = auditor(federation)
    limits = ["--nodes", did_text(school.root), "--from", "2026-09-01", "--until", "2026-09-30"]

    told = federation.command(*words(federation, who, "auditor", *limits))

    assert told["scope"] == {"nodes": [did_text(school.root)], "from": "2026-09-01", "until": "2026-09-30"}
    wanted = make_scope(nodes=(school.root,), begins=SEPTEMBER, ends=SEPTEMBER + 30 * DAY)
    assert await scope_of(federation, who) == wanted


async def test_an_auditor_without_limits_may_see_everything(federation: FederationProcesses) -> None:
    who = auditor(federation)

    federation.command(*words(federation, who, "auditor"))

    assert await scope_of(federation, who) == make_scope()


async def test_an_organization_of_another_kind_has_no_scope(
    federation: FederationProcesses, school: Organization
) -> None:
    assert await scope_of(federation, school) is None
    refused = federation.run_refused(*words(federation, auditor(federation), "provider", "--from", "2026-09-01"))
    assert refused.code == 2


@pytest.mark.parametrize(
    "limits",
    [("--from", "September"), ("--until", "2026-13-01"), ("--from", "2026-09-02", "--until", "2026-09-01")],
)
def test_days_that_are_none_are_refused(limits: tuple[str, ...], federation: FederationProcesses) -> None:
    assert federation.run_refused(*words(federation, auditor(federation), "auditor", *limits)).code == 2

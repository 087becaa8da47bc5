"""Every fault of the table is planted in a copy of an honest federation, and the named check finds it where it is.

Nothing planted, nothing found. The faults were chosen by what could go wrong or be done wrong, not by what the checker
looks for.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.e2e.planted.faults_of_brokers import BROKER_FAULTS
from tests.e2e.planted.faults_of_bundles import BUNDLE_FAULTS
from tests.e2e.planted.faults_of_nodes import NODE_FAULTS
from tests.e2e.planted.honest import Honest
from tests.e2e.planted.revived import Audit, Revived, audited
from tests.e2e.planted.staging import Caught, Fault, Stage

pytestmark = pytest.mark.e2e

ALL_CLEAN = {"fetch": 0, "verify": 0, "replay": 0, "reconcile": 0}
FAULTS = [*BROKER_FAULTS, *NODE_FAULTS]


def named(fault: Fault) -> str:
    """The row's name in the list of tests."""
    return fault.plant.__name__


async def test_nothing_is_found_where_nothing_was_planted(honest: Honest, tmp_path: Path) -> None:
    honest.copy_to(tmp_path)
    async with Revived.running(honest, tmp_path) as revived:
        audit = await revived.audit()
        again = await revived.audit("fetch", "verify")

    assert audit.findings == []
    assert audit.codes == ALL_CLEAN
    assert again.findings == []


def test_there_are_enough_rows() -> None:
    rows = [*FAULTS, *BUNDLE_FAULTS]
    assert len(rows) >= 26
    assert len({each.name for each in rows}) == len(rows)


@pytest.mark.parametrize("fault", FAULTS, ids=named)
async def test_fault_in_the_databases_is_caught(fault: Fault, honest: Honest, tmp_path: Path, visited: Path) -> None:
    stage = Stage(honest, honest.copy_to(tmp_path))
    expected = fault.plant(stage)
    if fault.old:
        stage.forget_checkpoints()
    if fault.visited:
        shutil.copy(visited, tmp_path / "audit.db")

    async with Revived.running(honest, tmp_path) as revived:
        audit = await revived.audit()

    check_caught(audit, expected)


@pytest.mark.parametrize("fault", BUNDLE_FAULTS, ids=named)
async def test_fault_in_the_bundle_is_caught(fault: Fault, honest: Honest, tmp_path: Path, visited: Path) -> None:
    bundle = tmp_path / "audit.db"
    shutil.copy(visited, bundle)
    expected = fault.plant(Stage(honest, {"broker": tmp_path / "broker.db", "bundle": bundle}))

    settings = honest.settings_file(tmp_path, "127.0.0.1:9")
    audit = await audited(honest, settings, bundle, "verify", "replay", "reconcile")

    check_caught(audit, expected)


def check_caught(audit: Audit, expected: list[Caught]) -> None:
    """Every finding that was expected is there, and the command that found a fault says so by its exit code."""
    assert expected
    for each in expected:
        wanted = (each.step, str(each.code), each.ledger, each.severity)
        alike = [one for one in audit.findings if (one.step, one.code, one.ledger, one.severity) == wanted]
        assert alike, (each, sorted(map(str, audit.findings)))
        if each.position is not None:
            assert each.position in [one.position for one in alike], (each, alike)
        assert audit.codes[each.step] == 1 or each.severity != "fault"

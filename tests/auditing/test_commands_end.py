"""How the commands of ``permslip audit`` end: what could not be checked never looks like findings, or like none."""

from __future__ import annotations

import functools
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from permslip.auditing.bundle import Bundle
from permslip.auditing.report_parts import Level
from permslip.auditing.reporting import make_report
from permslip.cli.audit import audit
from permslip.clock import system_clock
from permslip.keys import did_text
from tests.auditing.conftest import Scene
from tests.auditing.signed_bundles import signed_bundle


@pytest.fixture
def path(scene: Scene, tmp_path: Path) -> Path:
    """A whole bundle with one access."""
    grant = scene.fed.consent(scene.mother, scene.school, scene.tutor)
    scene.fed.access(scene.tutor, grant)
    signed_bundle(scene.fed, tmp_path / "audit.db").close()
    return tmp_path / "audit.db"


def ended(scene: Scene, command: str, path: Path, *more: str) -> Result:
    trust = scene.fed.trust
    whom = ("--broker-root", did_text(trust.broker_root), "--operator", did_text(trust.operator))
    return CliRunner().invoke(audit, ["--federation", trust.federation, *whom, command, str(path), *more])


def test_a_bundle_that_somebody_else_is_writing_could_not_be_checked(
    scene: Scene, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "connect", functools.partial(sqlite3.connect, timeout=0))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        result = ended(scene, "verify", path)
    finally:
        other.close()

    assert result.exit_code == 2
    assert "Traceback" not in result.output


@pytest.mark.parametrize("failure", [RuntimeError("unforeseen"), KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("command", ["verify", "report"])
def test_what_nobody_foresaw_and_an_interruption_could_not_be_checked(
    scene: Scene, path: Path, command: str, failure: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise failure

    monkeypatch.setattr("permslip.auditing.verifying.verify", fails)
    monkeypatch.setattr("permslip.auditing.reporting.write_report", fails)

    assert ended(scene, command, path).exit_code == 2


def test_names_in_a_bundle_cannot_move_the_terminals_cursor(scene: Scene, path: Path) -> None:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("UPDATE ledger SET origin = 'x', name = char(27) || '[2J' || char(8238) || 'evil'")
    db.close()

    result = ended(scene, "verify", path)

    assert result.exit_code == 1
    assert "evil" in result.output
    assert all(each.isprintable() or each == "\n" for each in result.output)


@pytest.mark.parametrize("command", ["replay", "reconcile"])
def test_who_replays_a_bundle_that_was_not_verified_is_told_so(scene: Scene, path: Path, command: str) -> None:
    assert "Not verified" in ended(scene, command, path).output
    assert json.loads(ended(scene, command, path, "--json").output)["verified"] is False

    ended(scene, "verify", path)

    assert "Not verified" not in ended(scene, command, path).output
    assert json.loads(ended(scene, command, path, "--json").output)["verified"] is True


def test_what_was_checked_before_the_last_fetch_clears_nothing_that_came_since(scene: Scene, path: Path) -> None:
    for command in ("verify", "replay", "reconcile"):
        ended(scene, command, path)
    with Bundle.open(path) as bundle:
        assert make_report(bundle, now=system_clock()).verdict.level == Level.GOOD
        bundle.db.execute("INSERT INTO run VALUES ('fetch', 0, ?, 'clean', '{}')", (system_clock() + 1,))

        report = make_report(bundle, now=system_clock())

    assert report.verdict.level == Level.WARNING
    assert "Not verified" in ended(scene, "replay", path).output

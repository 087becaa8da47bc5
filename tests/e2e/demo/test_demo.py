"""``permslip demo``: it comes out as said, it says so, and it leaves nothing behind."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.demo.running_demo import PlayedDemo, RunningDemo, has_ended

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

KEYS = {
    "nodes", "learners", "guardian_links", "records", "import_seconds", "import_peak_mb", "grants", "profiles",
    "profile_sections", "partial", "revocation", "refusals", "ledger", "audit", "central_leaks",
}  # fmt: skip
REFUSALS = {
    "forged": "BAD_SIGNATURE",
    "widened": "BAD_SIGNATURE",
    "replayed": "QUERY_REPLAYED",
    "expired": "QUERY_EXPIRED",
    "wrong_section": "SECTION_NOT_GRANTED",
    "sensitive_section": "SECTION_SENSITIVE",
    "wrong_requester": "NOT_GRANTEE",
    "wrong_action": "ACTION_NOT_GRANTED",
    "unknown_grant": "GRANT_UNKNOWN",
    "revoked": "GRANT_REVOKED",
    "used_up": "USES_EXHAUSTED",
    "stranger_grants": "ENDORSEMENT_REFUSED",
    "widened_grant": "BAD_SIGNATURE",
}


def test_the_report_has_every_key_and_no_other(played: PlayedDemo) -> None:
    assert set(played.report) == KEYS
    assert set(played.report["partial"]) == {"unreachable_node", "sections_missing"}
    assert set(played.report["revocation"]) == {"acknowledged", "seconds", "query_after"}
    assert set(played.report["ledger"]) == {"broker_entries", "node_entries", "checkpoint_verified"}
    assert set(played.report["audit"]) == {"entries", "results", "differences", "report"}


def test_four_nodes_hold_the_whole_district(played: PlayedDemo) -> None:
    report = played.report
    assert (report["nodes"], report["learners"]) == (4, 9)
    assert len(report["records"]) == len(report["ledger"]["node_entries"]) == 4
    assert all(sections and all(sections.values()) for sections in report["records"].values())
    assert report["guardian_links"] > 9
    assert report["import_seconds"] > 0
    assert 0 < report["import_peak_mb"] <= 300


def test_every_consent_gives_a_profile(played: PlayedDemo) -> None:
    assert played.report["profiles"] >= 6
    assert played.report["grants"] > played.report["profiles"]
    assert played.report["profile_sections"] > played.report["profiles"]


def test_a_profile_names_the_node_that_is_down_and_what_is_missing(played: PlayedDemo) -> None:
    partial = played.report["partial"]
    assert partial["unreachable_node"] == "Alder Creek Learning Platform"
    assert "personal.work_habits" in partial["sections_missing"]


def test_a_revocation_is_acknowledged_and_the_next_query_refused(played: PlayedDemo) -> None:
    revocation = played.report["revocation"]
    assert (revocation["acknowledged"], revocation["query_after"]) == (True, "GRANT_REVOKED")
    assert revocation["seconds"] > 0


def test_every_attempt_is_refused_for_its_own_reason(played: PlayedDemo) -> None:
    assert played.report["refusals"] == REFUSALS


def test_the_ledgers_grew_and_the_checkpoint_verifies(played: PlayedDemo) -> None:
    ledger = played.report["ledger"]
    assert ledger["checkpoint_verified"] is True
    assert ledger["broker_entries"] > played.report["grants"] + played.report["profiles"]
    assert all(count > 0 for count in ledger["node_entries"].values())


def test_an_auditor_finds_no_difference_in_any_ledger(played: PlayedDemo) -> None:
    audit = played.report["audit"]
    assert audit["results"] == {"verify": "clean", "replay": "clean", "reconcile": "clean"}
    assert audit["differences"] == 0
    assert "No fault was found" in Path(audit["report"]).read_text(encoding="utf-8")
    assert Path(audit["report"]) == played.keep / "report.html"
    with closing(sqlite3.connect(played.keep / "audit.db")) as bundle:
        [(ledgers,)] = bundle.execute("SELECT count(*) FROM ledger WHERE fetched = head_size")
        [(accesses,)] = bundle.execute("SELECT count(*) FROM accesses")
    assert ledgers == 5
    assert accesses > played.report["profiles"]


def test_nothing_about_a_learner_is_in_the_centre(played: PlayedDemo) -> None:
    assert played.report["central_leaks"] == 0


def test_what_is_kept_can_be_looked_at(played: PlayedDemo) -> None:
    assert ET.fromstring((played.keep / "jagged.svg").read_text(encoding="utf-8")).tag.endswith("svg")
    profile = json.loads((played.keep / "profile.json").read_text(encoding="utf-8"))
    assert profile["sections"]
    assert {each["state"] for each in profile["coverage"]} >= {"returned", "denied"}
    assert json.loads((played.keep / "report.json").read_text(encoding="utf-8")) == played.report


def test_the_commands_that_it_names_work_while_it_stays_up(played: PlayedDemo) -> None:
    assert len(played.tried) == 5
    for each in played.tried:
        assert each.code == 0, each
        assert each.output.strip(), each


def test_it_speaks_plainly_to_a_pipe(played: PlayedDemo) -> None:
    assert "\x1b" not in played.said
    assert "did:key:z6Mk" in played.said


def test_json_is_the_only_thing_on_standard_output(played: PlayedDemo) -> None:
    assert json.loads(played.output) == played.report


def test_ctrl_c_is_how_a_demo_that_stays_up_ends_well(played: PlayedDemo) -> None:
    assert played.code == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130)])
def test_interrupted_it_ends_what_it_started(
    start_demo: Callable[..., RunningDemo], tmp_path: Path, number: int, code: int
) -> None:
    demo = start_demo("--learners", "9")
    broker = int(re.findall(r"process (\d+)", demo.until("broker listens on"))[0])
    assert demo.end(number) == code
    assert has_ended(broker)
    assert list(tmp_path.iterdir()) == [], "the temporary folder is gone"


def test_killed_it_takes_its_processes_with_it(start_demo: Callable[..., RunningDemo]) -> None:
    demo = start_demo("--learners", "9")
    broker = int(re.findall(r"process (\d+)", demo.until("broker listens on"))[0])
    demo.end(signal.SIGKILL)
    assert has_ended(broker)


def test_data_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ran = subprocess.run(
        [sys.executable, "-m", "permslip", "demo", "--data", str(tmp_path / "empty")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert "edfi-1.0-full/EdFiSampleData.zip" in ran.stderr


def test_a_folder_with_something_in_it_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    ran = subprocess.run(
        [sys.executable, "-m", "permslip", "demo", "--keep", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1
    assert "--keep" in ran.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["mine"]


@pytest.mark.data
@pytest.mark.slow
def test_the_full_ed_fi_set_comes_in_whole(shared_data: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    ran = subprocess.run(
        [
            sys.executable, "-m", "permslip", "demo",
            "--data", str(shared_data / "grandbend"), "--report", str(report), "--families", "12",
        ],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
    found = json.loads(report.read_text(encoding="utf-8"))
    assert (found["nodes"], found["learners"], found["guardian_links"]) == (4, 960, 1872)
    assert found["records"]["Grand Bend High School"]["transcript.grades"] == 13_440
    assert found["import_peak_mb"] <= 300
    assert found["refusals"] == REFUSALS
    assert found["central_leaks"] == 0

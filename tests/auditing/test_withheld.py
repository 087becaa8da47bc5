"""What is not there: a node's ledger that was left out, and entries that no scope hides."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from permslip import statements as st
from permslip.auditing.bundle import Bundle
from permslip.auditing.results import Result
from permslip.auditing.verifying import verify
from permslip.keys import did_text
from tests.auditing.conftest import Scene, faults, told
from tests.auditing.signed_bundles import signed_bundle

BROKER, SCHOOL, OTHER = 1, 2, 3


@pytest.fixture
def used(scene: Scene) -> Scene:
    """Three accesses to one slice, and consents at both schools."""
    grant = scene.fed.consent(scene.mother, scene.school, scene.tutor)
    for _ in range(3):
        scene.fed.access(scene.tutor, grant)
    scene.fed.consent(scene.father, scene.other, scene.club)
    return scene


def hide(bundle: Bundle, ledger: int, position: int) -> None:
    """As a keeper sends an entry that it does not show."""
    columns = [name for _, name, *_ in bundle.db.execute("PRAGMA table_info(entry)")]
    said = [f"{name} = NULL" for name in columns if name not in ("ledger", "position", "leaf_hash")]
    bundle.db.execute(f"UPDATE entry SET {', '.join(said)} WHERE ledger = ? AND position = ?", (ledger, position))


def accesses(bundle: Bundle, ledger: int) -> list[tuple[int, int]]:
    """Position and time of each decision."""
    query = "SELECT position, recorded_at FROM entry WHERE ledger = ? AND event = 'access_decided' ORDER BY position"
    return bundle.db.execute(query, (ledger,)).fetchall()


def verified(scene: Scene, bundle: Bundle, **scope: object) -> Result:
    bundle.set_meta("scope", json.dumps({"nodes": [], "from": 0, "until": 0} | scope))
    return verify(bundle, scene.fed.trust)


@pytest.mark.parametrize(("ledger", "codes"), [(BROKER, {"SLICE_CHAIN"}), (SCHOOL, {"SLICE_CHAIN", "LEAF_HIDDEN"})])
def test_an_entry_about_a_node_of_the_scope_that_came_as_a_hash_was_withheld(
    used: Scene, tmp_path: Path, ledger: int, codes: set[str]
) -> None:
    with signed_bundle(used.fed, tmp_path / "audit.db") as bundle:
        hide(bundle, ledger, accesses(bundle, ledger)[1][0])

        verified(used, bundle, nodes=[did_text(used.school.id)])

        assert codes <= set(faults(bundle)) <= codes | {"STATEMENT_UNNAMED"}


def test_an_entry_within_the_dates_of_the_scope_that_came_as_a_hash_was_withheld(used: Scene, tmp_path: Path) -> None:
    with signed_bundle(used.fed, tmp_path / "audit.db") as bundle:
        hide(bundle, BROKER, accesses(bundle, BROKER)[1][0])

        verified(used, bundle, **{"from": 1})

        assert faults(bundle) == {"LEAF_HIDDEN": 1, "SLICE_CHAIN": 1}


def test_the_last_entries_cannot_be_withheld_from_who_may_see_to_the_end(used: Scene, tmp_path: Path) -> None:
    with signed_bundle(used.fed, tmp_path / "audit.db") as bundle:
        [[last]] = bundle.db.execute("SELECT max(position) FROM entry WHERE ledger = ?", (BROKER,))
        hide(bundle, BROKER, last)

        verified(used, bundle, **{"from": 1})

        assert faults(bundle) == {"LEAF_HIDDEN": 1}


def test_an_entry_outside_the_dates_of_the_scope_is_hidden_rightly(used: Scene, tmp_path: Path) -> None:
    with signed_bundle(used.fed, tmp_path / "audit.db") as bundle:
        position, recorded_at = accesses(bundle, BROKER)[1]
        hide(bundle, BROKER, position)

        verified(used, bundle, until=recorded_at)

        assert faults(bundle) == {}


def without(bundle: Bundle, ledger: int) -> None:
    for table in ("entry", "checkpoint", "ledger"):
        bundle.db.execute(f"DELETE FROM {table} WHERE ledger = ?", (ledger,))


def test_a_bundle_without_an_admitted_nodes_ledger_could_not_be_checked(used: Scene, tmp_path: Path) -> None:
    with signed_bundle(used.fed, tmp_path / "audit.db") as bundle:
        without(bundle, OTHER)

        result = verified(used, bundle)

        assert (result.exit_code, result.findings["LEDGER_UNREACHED"]) == (2, 1)
        assert did_text(used.other.id) in result.unchecked


def test_a_nodes_ledger_outside_the_scope_is_not_missed(used: Scene, tmp_path: Path) -> None:
    with signed_bundle(used.fed, tmp_path / "audit.db") as bundle:
        without(bundle, OTHER)

        result = verified(used, bundle, nodes=[did_text(used.school.id)])

        assert "LEDGER_UNREACHED" not in result.findings


@pytest.mark.parametrize(("column", "value"), [("kind", "broker"), ("did", "did:key:nobody")])
def test_a_ledger_that_stands_for_somebody_else_is_found(used: Scene, tmp_path: Path, column: str, value: str) -> None:
    with signed_bundle(used.fed, tmp_path / "audit.db") as bundle:
        bundle.db.execute(f"UPDATE ledger SET {column} = ? WHERE ledger = ?", (value, SCHOOL))

        verified(used, bundle)

        assert faults(bundle)["LEDGER_LABEL"] == 1


def test_what_another_ledger_says_was_erased_is_still_owed(used: Scene, tmp_path: Path) -> None:
    query = next(each for each in used.fed.statements.values() if each.kind is st.QUERY)
    used.fed.erase(used.fed.keeper(used.other), query.id)
    with signed_bundle(used.fed, tmp_path / "audit.db") as bundle:
        verified(used, bundle)

        named = [ledger for ledger, *_ in told(bundle, "STATEMENT_MISSING")]
        assert sorted(named) == [BROKER, SCHOOL]

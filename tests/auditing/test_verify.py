"""Verifying a bundle: clean where nothing was altered, and one code for each thing that was."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from permslip import statements as st
from permslip._pb.permslip.v1 import ledger_pb2, statement_pb2 as pb
from permslip.auditing.bundle import Bundle
from permslip.auditing.codes import Code
from permslip.auditing.finding import Severity
from permslip.auditing.results import Result, Trust
from permslip.auditing.verifying import verify
from permslip.errors import ConfigurationError, MalformedError
from permslip.merkle import leaf_hash
from tests.auditing.conftest import Scene, faults, told
from tests.auditing.signed_bundles import resign, signed_bundle, witness_set
from tests.scenarios.world import DAY

BROKER, SCHOOL, OTHER = 1, 2, 3


@pytest.fixture
def used(scene: Scene) -> Scene:
    """Accesses, one refused, and a revocation."""
    fed = scene.fed
    grant = fed.consent(scene.mother, scene.school, scene.tutor)
    for _ in range(3):
        fed.access(scene.tutor, grant)
    fed.consent(scene.father, scene.other, scene.club)
    fed.revoke(scene.mother, grant, scene.school)
    fed.access(scene.tutor, grant)
    return scene


def checked(scene: Scene, path: Path, plant: Callable[[Bundle], object] = lambda _: None) -> tuple[Result, Bundle]:
    bundle = signed_bundle(scene.fed, path / "audit.db", witnesses=[scene.school, scene.other])
    plant(bundle)
    return verify(bundle, scene.fed.trust), bundle


def sql(statement: str, *values: object) -> Callable[[Bundle], object]:
    return lambda bundle: bundle.db.execute(statement, values)


def test_a_bundle_that_nobody_altered_is_clean(used: Scene, tmp_path: Path) -> None:
    result, bundle = checked(used, tmp_path)

    with bundle:
        assert (result.exit_code, faults(bundle)) == (0, {})
        assert result.counts["ledgers"] == 3
        assert result.counts["checkpoints"] == 6
        assert result.counts["leaves"] == bundle.db.execute("SELECT count(*) FROM entry").fetchone()[0]
        assert set(result.findings) == {"COSIGNATURE_NONE"}
        assert bundle.db.execute("SELECT step, result FROM run").fetchall() == [("verify", "clean")]


# ------------------------------------------------------------------------------------------------------ leaves


def alter_leaf(bundle: Bundle, *, rehash: bool) -> None:
    [[leaf]] = bundle.db.execute("SELECT leaf FROM entry WHERE ledger = 1 AND position = 9")
    altered = leaf[:-1] + bytes([leaf[-1] ^ 1])
    digest = leaf_hash(altered if rehash else leaf)
    bundle.db.execute("UPDATE entry SET leaf = ?, leaf_hash = ? WHERE ledger = 1 AND position = 9", (altered, digest))


def swap_leaves(bundle: Bundle) -> None:
    for old, new in ((9, 1_000), (10, 9), (1_000, 10)):
        bundle.db.execute("UPDATE entry SET position = ? WHERE ledger = 1 AND position = ?", (new, old))


def insert_leaf(bundle: Bundle) -> None:
    [[size]] = bundle.db.execute("SELECT count(*) FROM entry WHERE ledger = 1")
    for position in range(size, 9, -1):
        bundle.db.execute("UPDATE entry SET position = ? WHERE ledger = 1 AND position = ?", (position, position - 1))
    columns = [row[1] for row in bundle.db.execute("PRAGMA table_info(entry)") if row[1] != "position"]
    names = ", ".join(columns)
    bundle.db.execute(f"INSERT INTO entry (position, {names}) SELECT 9, {names} FROM entry WHERE position = 3 LIMIT 1")


@pytest.mark.parametrize(
    ("plant", "code"),
    [
        (lambda bundle: alter_leaf(bundle, rehash=False), Code.LEAF_HASH),
        (lambda bundle: alter_leaf(bundle, rehash=True), Code.CHECKPOINT_ROOT),
        (sql("DELETE FROM entry WHERE ledger = 1 AND position = 9"), Code.POSITION_GAP),
        (sql("DELETE FROM entry WHERE ledger = 1 AND position >= 20"), Code.POSITION_GAP),
        (swap_leaves, Code.CHECKPOINT_ROOT),
        (insert_leaf, Code.CHECKPOINT_ROOT),
        (sql("UPDATE entry SET reason = 'ALLOWED' WHERE reason = 'GRANT_REVOKED'"), Code.LEAF_COLUMNS),
        (sql("UPDATE entry SET leaf = NULL WHERE ledger = 1 AND position = 12"), Code.LEAF_HIDDEN),
        (sql("UPDATE entry SET leaf = x'00' WHERE ledger = 2 AND position = 3"), Code.LEAF_MALFORMED),
        (sql("UPDATE entry SET leaf_hash = x'00' WHERE ledger = 2 AND position = 3"), Code.LEAF_HASH),
    ],
)
def test_a_leaf_that_was_altered_moved_left_out_or_added_is_found(
    used: Scene, tmp_path: Path, plant: Callable[[Bundle], object], code: Code
) -> None:
    result, bundle = checked(used, tmp_path, plant)

    with bundle:
        assert result.exit_code == 1
        assert code in faults(bundle)


def test_a_leaf_is_told_with_ledger_and_position(used: Scene, tmp_path: Path) -> None:
    _, bundle = checked(used, tmp_path, lambda bundle: alter_leaf(bundle, rehash=False))

    with bundle:
        [(ledger, position, severity, _)] = told(bundle, "LEAF_HASH")
        assert (ledger, position, severity) == (1, 9, "fault")


def test_a_leaf_of_another_ledger_is_found(used: Scene, tmp_path: Path) -> None:
    path = tmp_path / "audit.db"
    with signed_bundle(used.fed, path) as bundle:
        other = Trust("fed.elsewhere", used.fed.trust.broker_root, used.fed.trust.operator)
        bundle.set_meta("federation", "fed.elsewhere")
        verify(bundle, other)
        assert faults(bundle)["LEDGER_LABEL"] == bundle.db.execute("SELECT count(*) FROM entry").fetchone()[0]


def test_a_ledger_that_opens_as_another_one_is_found(used: Scene, tmp_path: Path) -> None:
    used.fed.broker.entries[0].body.origin = "fed.example/elsewhere"

    _, bundle = checked(used, tmp_path)

    with bundle:
        assert faults(bundle) == {"LEDGER_OPENING": 1}


def test_a_clock_that_went_back_is_found(used: Scene, tmp_path: Path) -> None:
    entries = used.fed.broker.entries
    for each in entries[-3:]:
        each.recorded_at = entries[-4].recorded_at - 1

    _, bundle = checked(used, tmp_path)

    with bundle:
        assert [position for _, position, _, _ in told(bundle, "CLOCK_BACKWARD")] == [len(entries) - 3]


def test_one_entry_dated_ahead_is_told_once(used: Scene, tmp_path: Path) -> None:
    used.fed.broker.entries[5].recorded_at = used.fed.broker.entries[-1].recorded_at

    _, bundle = checked(used, tmp_path)

    with bundle:
        assert faults(bundle) == {"CLOCK_BACKWARD": 1}


def test_a_leaf_dated_after_it_was_fetched_is_found(used: Scene, tmp_path: Path) -> None:
    used.fed.broker.entries[-1].recorded_at = used.fed.at + 2 * DAY

    _, bundle = checked(used, tmp_path)

    with bundle:
        assert faults(bundle) == {"CLOCK_AHEAD": 1}


def test_a_hole_in_the_chain_of_a_slice_is_found_though_the_tree_is_whole(used: Scene, tmp_path: Path) -> None:
    keeper = used.fed.keeper(used.school)
    lost = next(number for number, each in enumerate(keeper.entries) if each.event == "access_decided")
    path = tmp_path / "audit.db"
    leaves = keeper.leaves()
    del leaves[lost], keeper.entries[lost]
    keeper.leaves = lambda: leaves  # type: ignore[method-assign]  # the chain is as it was before the entry went

    with signed_bundle(used.fed, path) as bundle:
        verify(bundle, used.fed.trust)
        assert faults(bundle) == {"SLICE_CHAIN": 1}


def test_entries_that_a_scope_hides_are_a_note_and_their_chains_hold(used: Scene, tmp_path: Path) -> None:
    for each in used.fed.keeper(used.school).entries:
        each.hidden = each.event.startswith("access_")
    with signed_bundle(used.fed, tmp_path / "audit.db") as bundle:
        bundle.set_meta("scope", '{"from": 1, "nodes": [], "until": 2}')
        bundle.db.execute("DELETE FROM statement WHERE kind = 'manifest'")

        result = verify(bundle, used.fed.trust)

        assert (result.exit_code, faults(bundle)) == (0, {})
        assert result.findings["LEAF_HIDDEN"] == 1


# ------------------------------------------------------------------------------------------------- checkpoints


def fork(scene: Scene, bundle: Bundle, *, visit: int) -> None:
    [[size]] = bundle.db.execute("SELECT max(size) FROM checkpoint WHERE ledger = 1")
    at = scene.fed.at + DAY
    resign(bundle, scene.fed.broker, BROKER, size=size, root=bytes(32), visit=visit, at=at)


def test_two_roots_of_one_size_are_a_fork(used: Scene, tmp_path: Path) -> None:
    _, bundle = checked(used, tmp_path, lambda bundle: fork(used, bundle, visit=3))

    with bundle:
        assert faults(bundle) == {"CHECKPOINT_FORK": 1}


def test_two_roots_of_one_size_that_came_in_one_visit_are_a_fork(used: Scene, tmp_path: Path) -> None:
    def second(bundle: Bundle) -> None:
        [row] = bundle.db.execute("SELECT * FROM checkpoint WHERE ledger = 1 AND visit = 2").fetchall()
        fork(used, bundle, visit=2)
        [made] = bundle.db.execute("SELECT * FROM checkpoint WHERE ledger = 1 AND visit = 2").fetchall()
        bundle.db.execute("DELETE FROM checkpoint WHERE ledger = 1 AND visit = 2")
        for ledger, size, root, note, vkey, cosigned_by, visit, at in (row, made):
            named = json.loads(cosigned_by)
            bundle.add_checkpoint(ledger, size, root, note, vkey=vkey, cosigners=named, visit=visit, fetched_at=at)

    _, bundle = checked(used, tmp_path, second)

    with bundle:
        assert faults(bundle) == {"CHECKPOINT_FORK": 1}


@pytest.mark.parametrize(
    ("code", "severity", "exit_code"), [("CHECKPOINT_KEY", "fault", 1), ("LEDGER_UNREACHED", "warning", 2)]
)
def test_a_ledger_of_which_the_last_fetch_got_nothing_is_not_clean(
    used: Scene, tmp_path: Path, code: str, severity: Severity, exit_code: int
) -> None:
    def fetched(bundle: Bundle) -> None:
        with bundle.findings("fetch") as found:
            found.add(Code(code), "the library: nothing came.", severity=severity, root=used.other.id)

    result, bundle = checked(used, tmp_path, fetched)

    with bundle:
        assert (result.exit_code, result.findings[code]) == (exit_code, 1)


def test_a_history_that_was_rewritten_and_signed_again_is_a_fork(used: Scene, tmp_path: Path) -> None:
    def rewritten(bundle: Bundle) -> None:
        [[first]] = bundle.db.execute("SELECT min(size) FROM checkpoint WHERE ledger = 1")
        at = used.fed.at + DAY
        resign(bundle, used.fed.broker, BROKER, size=first, root=b"r" * 32, visit=1, at=at)

    _, bundle = checked(used, tmp_path, rewritten)

    with bundle:
        assert faults(bundle) == {"CHECKPOINT_FORK": 1}


def test_a_checkpoint_by_another_key_is_found(used: Scene, tmp_path: Path) -> None:
    def forged(bundle: Bundle) -> None:
        [(size, root)] = bundle.db.execute("SELECT size, root FROM checkpoint WHERE ledger = 1 AND visit = 2")
        at = used.fed.at + DAY
        resign(bundle, used.fed.broker, BROKER, size=size, root=root, visit=2, at=at, signer=used.tutor)

    _, bundle = checked(used, tmp_path, forged)

    with bundle:
        assert faults(bundle) == {"CHECKPOINT_KEY": 1}


def test_a_checkpoint_beyond_the_leaves_leaves_the_bundle_unchecked(used: Scene, tmp_path: Path) -> None:
    def beyond(bundle: Bundle) -> None:
        resign(bundle, used.fed.broker, BROKER, size=10_000, root=bytes(32), visit=3, at=used.fed.at + DAY)

    result, bundle = checked(used, tmp_path, beyond)

    with bundle:
        assert (result.exit_code, faults(bundle)) == (2, {})
        assert "fetch again" in result.unchecked


def test_leaves_under_no_checkpoint_leave_the_bundle_unchecked(used: Scene, tmp_path: Path) -> None:
    result, bundle = checked(used, tmp_path, sql("DELETE FROM checkpoint WHERE ledger = 1 AND visit = 2"))

    with bundle:
        assert (result.exit_code, faults(bundle)) == (2, {})


def test_a_ledger_without_a_checkpoint_is_found(used: Scene, tmp_path: Path) -> None:
    _, bundle = checked(used, tmp_path, sql("DELETE FROM checkpoint WHERE ledger = 3"))

    with bundle:
        assert "CHECKPOINT_MISSING" in faults(bundle)


def test_columns_of_a_checkpoint_that_say_something_else_are_found(used: Scene, tmp_path: Path) -> None:
    _, bundle = checked(used, tmp_path, sql("UPDATE checkpoint SET cosigners = '[]' WHERE ledger = 1 AND visit = 2"))

    with bundle:
        assert faults(bundle) == {"CHECKPOINT_COLUMNS": 1}


def uncosigned(scene: Scene, bundle: Bundle) -> None:
    """The broker's line is taken off the school's newest checkpoint."""
    keeper = scene.fed.keeper(scene.school)
    size, root, at = bundle.db.execute(
        "SELECT size, root, fetched_at FROM checkpoint WHERE ledger = ? AND visit = 2", (SCHOOL,)
    ).fetchone()
    resign(bundle, keeper, SCHOOL, size=size, root=root, visit=2, at=at)


def test_a_nodes_checkpoint_that_the_broker_has_not_cosigned_is_a_warning(used: Scene, tmp_path: Path) -> None:
    result, bundle = checked(used, tmp_path, lambda bundle: uncosigned(used, bundle))

    with bundle:
        [(ledger, _, severity, _)] = told(bundle, "COSIGNATURES_MISSING")
    assert (ledger, severity, result.exit_code) == (SCHOOL, "warning", 0)


def test_a_nodes_checkpoint_that_the_broker_refused_to_cosign_is_a_fault(used: Scene, tmp_path: Path) -> None:
    alert = ledger_pb2.WitnessAlert(
        fault=ledger_pb2.WITNESS_FAULT_FORK, seen_size=3, offered_size=3, keeper=used.school.id
    )
    used.fed.broker.append("witness_alert", alert, used.fed.at)

    result, bundle = checked(used, tmp_path, lambda bundle: uncosigned(used, bundle))

    with bundle:
        [(ledger, _, severity, _)] = told(bundle, "COSIGNATURES_MISSING")
    assert (ledger, severity, result.exit_code) == (SCHOOL, "fault", 1)


def test_a_node_that_was_refused_and_is_cosigned_again_is_clean(used: Scene, tmp_path: Path) -> None:
    alert = ledger_pb2.WitnessAlert(fault=ledger_pb2.WITNESS_FAULT_ROLLBACK, keeper=used.school.id)
    used.fed.broker.append("witness_alert", alert, used.fed.at)

    result, bundle = checked(used, tmp_path)

    bundle.close()
    assert result.exit_code == 0


@pytest.mark.parametrize(("quorum", "expected"), [(2, {}), (3, {"COSIGNATURES_MISSING": 1})])
def test_the_newest_checkpoint_needs_the_quorum_of_the_pinned_set(
    used: Scene, tmp_path: Path, quorum: int, expected: dict[str, int]
) -> None:
    third = used.fed.node("third")
    pinned = witness_set(used.fed, [used.school, used.other, third], quorum)
    with signed_bundle(used.fed, tmp_path / "audit.db", witnesses=[used.school, used.other]) as bundle:
        verify(bundle, replace(used.fed.trust, witness_set=pinned))

        assert faults(bundle) == expected
        assert [severity for _, _, severity, _ in told(bundle, "COSIGNATURES_MISSING")].count("warning") == 1


def test_nodes_outside_the_pinned_set_make_no_quorum(used: Scene, tmp_path: Path) -> None:
    sybils = [used.fed.node(f"sybil {number}") for number in range(5)]
    pinned = witness_set(used.fed, [used.school, used.other], 2)
    with signed_bundle(used.fed, tmp_path / "audit.db", witnesses=[used.school, *sybils]) as bundle:
        verify(bundle, replace(used.fed.trust, witness_set=pinned))

        assert faults(bundle) == {"COSIGNATURES_MISSING": 1}


# -------------------------------------------------------------------------------------------------- statements


def alter_signature(bundle: Bundle) -> None:
    [(identifier, raw)] = bundle.db.execute("SELECT id, envelope FROM statement WHERE kind = 'revocation'")
    envelope = st.parse_envelope(raw)
    signature = envelope.signatures[0].signature
    envelope.signatures[0].signature = signature[:-1] + bytes([signature[-1] ^ 1])
    bundle.db.execute(
        "UPDATE statement SET envelope = ? WHERE id = ?",
        (envelope.SerializeToString(deterministic=True), identifier),
    )


@pytest.mark.parametrize(
    ("plant", "code"),
    [
        (alter_signature, Code.STATEMENT_SIGNATURE),
        (sql("DELETE FROM statement WHERE kind = 'revocation'"), Code.STATEMENT_MISSING),
        (sql("DELETE FROM statement WHERE kind = 'manifest'"), Code.STATEMENT_MISSING),
        (sql("DELETE FROM statement WHERE kind = 'query'"), Code.STATEMENT_MISSING),
        (sql("UPDATE statement SET id = zeroblob(32) WHERE kind = 'revocation'"), Code.STATEMENT_ID),
        (sql("UPDATE statement SET envelope = x'0a' WHERE kind = 'revocation'"), Code.STATEMENT_MALFORMED),
        (sql("UPDATE statement SET created_at = 5 WHERE kind = 'revocation'"), Code.STATEMENT_COLUMNS),
        (sql("UPDATE statement SET envelope_sha256 = zeroblob(32) WHERE kind = 'grant'"), Code.ENVELOPE_DIGEST),
        (sql("INSERT INTO erased VALUES (zeroblob(32), 1, 5, 0, 'rule')"), Code.ERASURE_UNRECORDED),
    ],
)
def test_a_statement_that_was_altered_or_left_out_is_found(
    used: Scene, tmp_path: Path, plant: Callable[[Bundle], object], code: Code
) -> None:
    result, bundle = checked(used, tmp_path, plant)

    with bundle:
        assert result.exit_code == 1
        assert code in faults(bundle)


def test_evidence_that_was_erased_is_told_with_its_day_and_is_no_fault(used: Scene, tmp_path: Path) -> None:
    asked = [each for each in used.fed.statements.values() if each.kind is st.QUERY][:2]
    for keeper in (used.fed.broker, used.fed.keeper(used.school)):
        used.fed.erase(keeper, *(each.id for each in asked))

    result, bundle = checked(used, tmp_path)

    with bundle:
        assert (result.exit_code, faults(bundle)) == (0, {})
        messages = [message for *_, message in told(bundle, "EVIDENCE_ERASED")]
        assert len(messages) == 4
        assert all("evidence erased on 20" in each and "ferpa-5y" in each for each in messages)


@pytest.mark.parametrize(("days", "expected"), [(29, ["warning"] * 2), (31, [])])
def test_evidence_that_was_erased_soon_after_its_entry_is_a_warning(
    used: Scene, tmp_path: Path, days: int, expected: list[str]
) -> None:
    asked = next(each for each in used.fed.statements.values() if each.kind is st.QUERY)
    used.fed.pass_time(days * DAY)
    used.fed.erase(used.fed.keeper(used.school), asked.id)
    used.fed.missing.clear()

    def without(bundle: Bundle) -> None:
        bundle.db.execute("DELETE FROM statement WHERE id = ?", (asked.id,))
        bundle.db.execute("DELETE FROM statement WHERE kind = 'manifest'")

    _, bundle = checked(used, tmp_path, without)

    with bundle:
        assert [severity for ledger, _, severity, _ in told(bundle, "ERASED_EARLY") if ledger == SCHOOL] == expected


def test_a_statement_that_no_leaf_names_is_a_warning(used: Scene, tmp_path: Path) -> None:
    stray = used.fed.grant(used.mother, used.school, used.club)

    def added(bundle: Bundle) -> None:
        bundle.add_statements([stray])

    result, bundle = checked(used, tmp_path, added)

    with bundle:
        assert result.exit_code == 0
        assert result.findings["STATEMENT_UNNAMED"] == 1


def test_a_query_that_came_again_in_another_envelope_is_no_fault(used: Scene, tmp_path: Path) -> None:
    entry = used.fed.broker.find("access_decided")
    entry.body.reason = pb.REASON_QUERY_REPLAYED
    entry.body.envelope_sha256 = bytes(32)

    _, bundle = checked(used, tmp_path)

    with bundle:
        assert faults(bundle) == {}


# ------------------------------------------------------------------------------------------- what is no bundle


def test_a_bundle_of_another_operator_is_not_checked(used: Scene, tmp_path: Path) -> None:
    with signed_bundle(used.fed, tmp_path / "audit.db") as bundle:
        with pytest.raises(ConfigurationError, match="operator"):
            verify(bundle, replace(used.fed.trust, operator=used.mother.id))
        assert bundle.db.execute("SELECT count(*) FROM run").fetchone() == (0,)


def test_a_damaged_file_is_not_checked(used: Scene, tmp_path: Path) -> None:
    path = tmp_path / "audit.db"
    with signed_bundle(used.fed, path) as bundle:
        [[page]] = bundle.db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'entry'")
        [[size]] = bundle.db.execute("PRAGMA page_size")
    with path.open("r+b") as stream:
        stream.seek((page - 1) * size)
        stream.write(b"\xff" * size)

    with Bundle.open(path) as bundle, pytest.raises(MalformedError, match="damaged"):
        verify(bundle, used.fed.trust)


def test_an_open_bundle_is_an_ordinary_database(used: Scene, tmp_path: Path) -> None:
    signed_bundle(used.fed, tmp_path / "audit.db").close()

    with sqlite3.connect(tmp_path / "audit.db") as db:
        rows = db.execute("SELECT kept_by, last_use_after_revocation_ms FROM revocation_to_last_use").fetchall()
        purposes = db.execute("SELECT accesses, allowed, refused FROM accesses_by_purpose").fetchall()
    db.close()

    assert [kind for kind, _ in rows] == ["broker", "node"]
    assert all(after < 0 for _, after in rows)
    assert purposes == [(4, 3, 1)]

"""Reconcile finds where broker and nodes tell different stories, and nothing where they tell the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from permslip import statements as st
from permslip._pb.permslip.v1 import ledger_pb2, statement_pb2 as pb
from permslip.auditing.reconciling import reconcile
from permslip.errors import ConfigurationError
from permslip.keys import did_text
from permslip.reasons import Reason
from permslip.statements import Signed
from tests.auditing.conftest import Scene, faults, told
from tests.auditing.ledgers import Access, Entry, Keeper
from tests.auditing.test_replay import TRANSCRIPT, everything
from tests.scenarios.world import DAY, HOUR, MINUTE


def used(scene: Scene) -> tuple[Signed[pb.Grant], Access]:
    """A consent that was used once."""
    grant = scene.fed.consent(scene.mother, scene.school, scene.tutor)
    return grant, scene.fed.access(scene.tutor, grant, TRANSCRIPT)


def drop(keeper: Keeper, *entries: Entry) -> None:
    """Never log these."""
    keeper.entries = [each for each in keeper.entries if not any(each is entry for entry in entries)]


def delay(keeper: Keeper, entry: Entry, millis: int) -> None:
    """Log it later, behind everything else; something harmless stands in its place."""
    harmless = Entry("request_refused", refusal(), entry.recorded_at)
    keeper.entries[keeper.position_of(entry)] = harmless
    entry.recorded_at = keeper.entries[-1].recorded_at + millis
    keeper.entries.append(entry)


def refusal() -> ledger_pb2.RequestRefused:
    """What an entry says that concerns nobody."""
    return ledger_pb2.RequestRefused(reason=pb.REASON_MALFORMED, method="Deposit")


def of(keeper: Keeper, access: Access, event: str) -> Entry:
    """The entry of an access."""
    return keeper.find(event, query_id=access.query.id)


def test_honest_ledgers_with_every_kind_of_entry_tell_the_same_story(scene: Scene, tmp_path: Path) -> None:
    everything(scene)

    with scene.fed.bundle(tmp_path / "audit.db") as bundle:
        result = reconcile(bundle, scene.fed.trust)

    assert (result.word, dict(result.findings)) == ("clean", {})
    assert result.counts["routed"] > 10
    assert result.counts["manifests"] > 5
    assert "unknown" not in result.counts


# ------------------------------------------------------------------------------------------- planted faults


def a_broker_that_routes_without_logging(scene: Scene) -> None:
    _, access = used(scene)
    entry = scene.fed.broker.entries[access.routed]
    entry.event, entry.body = "request_refused", refusal()
    drop(scene.fed.broker, of(scene.fed.broker, access, "access_answered"))


def a_node_that_serves_what_the_broker_refused(scene: Scene) -> None:
    _, access = used(scene)
    body = scene.fed.broker.entries[access.routed].body
    body.reason = pb.REASON_GRANT_EXPIRED
    drop(scene.fed.broker, of(scene.fed.broker, access, "access_answered"))


def a_node_that_names_another_position(scene: Scene) -> None:
    _, access = used(scene)
    of(scene.fed.keeper(scene.school), access, "access_decided").body.routed_position = 3


def a_node_that_serves_without_logging(scene: Scene) -> None:
    _, access = used(scene)
    keeper = scene.fed.keeper(scene.school)
    drop(keeper, *(of(keeper, access, event) for event in ("access_decided", "access_answered")))


def an_answer_that_was_swapped(scene: Scene) -> None:
    _, access = used(scene)
    of(scene.fed.broker, access, "access_answered").body.manifest_sha256 = bytes(32)


def an_answer_of_which_the_broker_relayed_more(scene: Scene) -> None:
    _, access = used(scene)
    of(scene.fed.broker, access, "access_answered").body.sealed_bytes += 1


def a_node_that_logs_without_serving(scene: Scene) -> None:
    _, access = used(scene)
    end = of(scene.fed.broker, access, "access_answered")
    end.body.Clear()
    end.body.MergeFrom(ledger_pb2.AccessAnswered(query_id=access.query.id, reason=pb.REASON_TIMED_OUT))
    end.recorded_at += 30_000


def a_node_that_forgets_how_a_whole_answer_ended(scene: Scene) -> None:
    _, access = used(scene)
    keeper = scene.fed.keeper(scene.school)
    drop(keeper, of(keeper, access, "access_answered"))


def a_broker_that_forgets_how_a_whole_answer_ended(scene: Scene) -> None:
    _, access = used(scene)
    drop(scene.fed.broker, of(scene.fed.broker, access, "access_answered"))


def an_end_of_what_was_refused(scene: Scene) -> None:
    grant, _ = used(scene)
    refused = scene.fed.access(scene.club, grant)
    scene.fed.answered(scene.fed.broker, refused.query, (scene.school.id, bytes(16)), Reason.TIMED_OUT)


def an_end_that_is_told_twice(scene: Scene) -> None:
    _, access = used(scene)
    end = of(scene.fed.broker, access, "access_answered")
    scene.fed.broker.append(end.event, end.body, end.recorded_at, end.place)


def a_manifest_of_another_query(scene: Scene) -> None:
    grant, one = used(scene)
    other = scene.fed.access(scene.tutor, grant, TRANSCRIPT)
    assert one.manifest is not None
    for keeper in (scene.fed.broker, scene.fed.keeper(scene.school)):
        of(keeper, other, "access_answered").body.manifest_sha256 = one.manifest.sha256


def an_answer_long_after_its_revocation(scene: Scene) -> None:
    fed = scene.fed
    grant, access = used(scene)
    fed.revoke(scene.mother, grant, scene.school)
    for keeper in (fed.broker, fed.keeper(scene.school)):
        delay(keeper, of(keeper, access, "access_answered"), 6_000)


def a_decision_after_the_revocation_was_acknowledged(scene: Scene) -> None:
    fed = scene.fed
    grant, access = used(scene)
    fed.revoke(scene.mother, grant, scene.school)
    keeper = fed.keeper(scene.school)
    for event in ("access_decided", "access_answered"):
        delay(keeper, of(keeper, access, event), 0)


def more_answers_than_the_consent_allows(scene: Scene) -> None:
    fed = scene.fed
    grant = fed.consent(scene.mother, scene.school, scene.tutor, max_uses=1)
    keeper = fed.keeper(scene.school)
    for _ in range(2):
        fed.access(scene.tutor, grant)
        keeper.uses.clear()


def a_node_with_another_clock(scene: Scene) -> None:
    _, access = used(scene)
    of(scene.fed.keeper(scene.school), access, "access_decided").body.decided_at += HOUR


def a_node_whose_clock_is_behind_what_it_is_pushed(scene: Scene) -> None:
    for entry in scene.fed.keeper(scene.school).entries:
        entry.recorded_at -= 2 * MINUTE


def a_revocation_that_was_kept_back(scene: Scene) -> None:
    fed = scene.fed
    grant, _ = used(scene)
    fed.offline.add(scene.school.id)
    fed.revoke(scene.mother, grant, scene.school)


def a_revocation_that_was_left_out_between_others(scene: Scene) -> None:
    fed = scene.fed
    one, two = (fed.consent(scene.mother, scene.school, scene.tutor) for _ in range(2))
    first = fed.revoke(scene.mother, one, scene.school)
    fed.revoke(scene.mother, two, scene.school)
    keeper = fed.keeper(scene.school)
    drop(keeper, keeper.find("statement_recorded", statement_id=first.id))
    drop_acknowledgements(scene, one)


def drop_acknowledgements(scene: Scene, grant: Signed[pb.Grant]) -> None:
    """Nobody says that this grant's revocation arrived; later ones say their own size."""
    fed = scene.fed
    for signed in [each for each in fed.statements.values() if each.kind is st.ACKNOWLEDGEMENT]:
        entries = [each for keeper in (fed.broker, *fed.nodes.values()) for each in keeper.entries]
        named = [each for each in entries if getattr(each.body, "statement_id", b"") == signed.id]
        if signed.payload.target_id == grant.id:
            for keeper in (fed.broker, *fed.nodes.values()):
                drop(keeper, *named)
            continue
        keeper = fed.keeper(scene.school)
        size = 1 + keeper.position_of(keeper.find("statement_recorded", statement_id=signed.payload.statement_id))
        word = fed.acknowledgement(scene.school, fed.statements[signed.payload.statement_id], ledger_size=size)
        fed.statements[word.id] = word
        for each in named:
            each.body.statement_id, each.body.envelope_sha256 = word.id, word.sha256


def a_certificate_that_was_never_pushed(scene: Scene) -> None:
    fed = scene.fed
    fed.offline.add(scene.school.id)
    fed.record(fed.key_cert(scene.club.with_online_key(2), 2))


def a_push_under_another_number(scene: Scene) -> None:
    keeper = scene.fed.keeper(scene.school)
    pushed = [each for each in keeper.entries if each.event == "statement_recorded" and each.body.push_number]
    pushed[-1].body.push_number += 1


def pushes_in_another_order(scene: Scene) -> None:
    keeper = scene.fed.keeper(scene.school)
    keeper.entries[-2:] = reversed(keeper.entries[-2:])


def a_push_that_the_broker_never_logged(scene: Scene) -> None:
    fed = scene.fed
    suspension = fed.suspension(scene.club)
    fed.statements[suspension.id] = suspension
    keeper = fed.keeper(scene.school)
    keeper.recorded(suspension, fed.at, subject=scene.club.id, place=None, push=len(keeper.pushes) + 1)


def a_statement_recorded_twice(scene: Scene) -> None:
    grant, _ = used(scene)
    scene.fed.broker.recorded(grant, scene.fed.at, subject=b"", place=scene.fed.place(grant))


def an_acknowledgement_of_what_the_node_does_not_hold(scene: Scene) -> None:
    fed = scene.fed
    grant, _ = used(scene)
    revocation = fed.revoke(scene.mother, grant, scene.school)
    keeper = fed.keeper(scene.school)
    entry = keeper.find("statement_recorded", statement_id=revocation.id)
    entry.event, entry.body = "request_refused", refusal()


def an_acknowledgement_beyond_the_nodes_ledger(scene: Scene) -> None:
    fed = scene.fed
    grant, _ = used(scene)
    revocation = fed.revoke(scene.mother, grant, scene.school)
    word = fed.acknowledgement(scene.school, revocation, ledger_size=99)
    fed.statements[word.id] = word
    for keeper in (fed.broker, fed.keeper(scene.school)):
        keeper.recorded(word, fed.at, subject=grant.id, place=fed.place(grant))


def an_endorsement_that_the_node_never_logged(scene: Scene) -> None:
    fed = scene.fed
    grant = fed.record(fed.grant(scene.mother, scene.school, scene.tutor))
    fed.take(fed.endorsement(grant, scene.school))


def an_approval_without_every_signature(scene: Scene) -> None:
    fed = scene.fed
    grant = fed.record(fed.grant(scene.mother, scene.school, scene.tutor))
    fed.endorse(grant, scene.school, guardians=[scene.father], quorum_rule="all")


def an_approval_of_somebody_without_authority(scene: Scene) -> None:
    fed = scene.fed
    grant = fed.record(fed.grant([scene.mother, scene.father], scene.school, scene.tutor))
    named = fed.endorsement(grant, scene.school)
    fed.endorse(grant, scene.school, revokers=named.payload.revokers[:1])


def a_checkpoint_that_a_node_refused(scene: Scene) -> None:
    alert = ledger_pb2.WitnessAlert(
        fault=ledger_pb2.WITNESS_FAULT_STALE, seen_size=9, seen_root=bytes(32), offered_size=4, offered_root=bytes(32)
    )
    scene.fed.keeper(scene.school).append("witness_alert", alert, scene.fed.at)


PLANTED: list[tuple[Callable[[Scene], None], set[str]]] = [
    (a_broker_that_routes_without_logging, {"SERVED_UNROUTED"}),
    (a_node_that_serves_what_the_broker_refused, {"SERVED_UNROUTED"}),
    (a_node_that_names_another_position, {"ROUTED_POSITION"}),
    (a_node_that_serves_without_logging, {"SERVED_UNLOGGED"}),
    (an_answer_that_was_swapped, {"ANSWER_DIFFERS"}),
    (an_answer_of_which_the_broker_relayed_more, {"ANSWER_SIZE"}),
    (a_node_that_logs_without_serving, {"ANSWER_NEVER_CAME"}),
    (a_node_that_forgets_how_a_whole_answer_ended, {"ANSWER_UNLOGGED"}),
    (a_broker_that_forgets_how_a_whole_answer_ended, {"ANSWER_UNLOGGED"}),
    (an_end_of_what_was_refused, {"ANSWERED_UNDECIDED"}),
    (an_end_that_is_told_twice, {"ANSWERED_TWICE"}),
    (a_manifest_of_another_query, {"MANIFEST_DIFFERS"}),
    (an_answer_long_after_its_revocation, {"ANSWERED_AFTER_REVOCATION"}),
    (a_decision_after_the_revocation_was_acknowledged, {"ANSWERED_AFTER_REVOCATION", "MANIFEST_DIFFERS"}),
    (more_answers_than_the_consent_allows, {"USES_OVER_LIMIT"}),
    (a_node_with_another_clock, {"CLOCKS_APART"}),
    (a_node_whose_clock_is_behind_what_it_is_pushed, {"CLOCKS_APART"}),
    (a_revocation_that_was_kept_back, {"REVOCATION_WITHHELD"}),
    (a_revocation_that_was_left_out_between_others, {"REVOCATION_WITHHELD"}),
    (a_certificate_that_was_never_pushed, {"PUSH_MISSING"}),
    (a_push_under_another_number, {"PUSH_DIFFERS"}),
    (pushes_in_another_order, {"PUSH_DIFFERS"}),
    (a_push_that_the_broker_never_logged, {"PUSH_UNLOGGED"}),
    (a_statement_recorded_twice, {"RECORDED_TWICE"}),
    (an_acknowledgement_of_what_the_node_does_not_hold, {"ACKNOWLEDGED_UNHELD", "REVOCATION_WITHHELD"}),
    (an_acknowledgement_beyond_the_nodes_ledger, {"ACKNOWLEDGED_UNHELD"}),
    (an_endorsement_that_the_node_never_logged, {"WORD_UNLOGGED"}),
    (an_approval_without_every_signature, {"QUORUM_NOT_MET"}),
    (an_approval_of_somebody_without_authority, {"QUORUM_NOT_MET"}),
    (a_checkpoint_that_a_node_refused, {"WITNESS_ALERTED"}),
]


@pytest.mark.parametrize(("plant", "expected"), PLANTED, ids=[plant.__name__ for plant, _ in PLANTED])
def test_a_planted_difference_is_found_and_nothing_else(
    plant: Callable[[Scene], None], expected: set[str], scene: Scene, tmp_path: Path
) -> None:
    plant(scene)

    result, found = scene.audit(tmp_path, reconcile)

    assert set(found) == expected
    assert result.exit_code == 1


def test_entries_that_are_missing_from_the_bundle_are_a_gap(scene: Scene, tmp_path: Path) -> None:
    used(scene)
    with scene.fed.bundle(tmp_path / "audit.db") as bundle:
        bundle.db.execute("DELETE FROM entry WHERE ledger = 1 AND position = 2")
        reconcile(bundle, scene.fed.trust)

        assert told(bundle, "POSITION_GAP") == [(1, 3, "fault", "position 3 follows 1.")]


# ------------------------------------------------------------------------------------- unknown is no fault


def test_an_end_that_both_sides_lost_is_unknown(scene: Scene, tmp_path: Path) -> None:
    _, access = used(scene)
    for keeper in (scene.fed.broker, scene.fed.keeper(scene.school)):
        drop(keeper, of(keeper, access, "access_answered"))

    result, found = scene.audit(tmp_path, reconcile)

    assert (found, result.counts["unknown"]) == ({}, 1)


def test_a_node_that_is_offline_is_not_held_to_what_it_could_not_get(scene: Scene, tmp_path: Path) -> None:
    fed = scene.fed
    grant, _ = used(scene)
    fed.offline.add(scene.school.id)
    fed.revoke(scene.mother, grant, scene.school)

    result, found = scene.audit(tmp_path, reconcile, fetched_at=fed.at)

    assert (found, result.counts["not held yet"]) == ({}, 1)


def test_routed_and_never_received_is_no_fault(scene: Scene, tmp_path: Path) -> None:
    grant, _ = used(scene)
    scene.fed.offline.add(scene.school.id)
    lost = scene.fed.access(scene.tutor, grant)

    result, found = scene.audit(tmp_path, reconcile)

    assert lost.answered == Reason.UNREACHABLE
    assert (found, result.counts["routed and not served"]) == ({}, 1)


def test_an_answer_that_came_a_moment_too_late_is_a_warning(scene: Scene, tmp_path: Path) -> None:
    _, access = used(scene)
    end = of(scene.fed.broker, access, "access_answered")
    end.body.Clear()
    end.body.MergeFrom(ledger_pb2.AccessAnswered(query_id=access.query.id, reason=pb.REASON_TIMED_OUT))
    end.recorded_at += 500

    with scene.fed.bundle(tmp_path / "audit.db") as bundle:
        result = reconcile(bundle, scene.fed.trust)
        [(_, _, severity, _)] = told(bundle, "ANSWER_NEVER_CAME")

    assert (severity, result.exit_code) == ("warning", 0)


@pytest.mark.parametrize(
    "reason", [pb.REASON_UNREACHABLE, pb.REASON_CANCELLED, pb.REASON_MALFORMED, pb.REASON_TIMED_OUT]
)
def test_a_whole_answer_of_which_nothing_came_is_a_warning(
    reason: pb.Reason.ValueType, scene: Scene, tmp_path: Path
) -> None:
    _, access = used(scene)
    end = of(scene.fed.broker, access, "access_answered")
    end.body.Clear()
    end.body.MergeFrom(ledger_pb2.AccessAnswered(query_id=access.query.id, reason=reason))

    with scene.fed.bundle(tmp_path / "audit.db") as bundle:
        result = reconcile(bundle, scene.fed.trust)
        [(_, _, severity, _)] = told(bundle, "ANSWER_NEVER_CAME")

    assert (severity, result.exit_code) == ("warning", 0)


def without_the_last_access(scene: Scene) -> None:
    """The broker's ledger ends before the access that the node's shows."""
    _, access = used(scene)
    del scene.fed.broker.entries[access.routed :]


def beyond(scene: Scene, path: Path, change: str, *values: object) -> tuple[list[str], int, int]:
    """Severities of what is found of it, the exit code, and how many were left alone."""
    without_the_last_access(scene)
    with scene.fed.bundle(path / "audit.db") as bundle:
        bundle.db.execute(change, values)
        result = reconcile(bundle, scene.fed.trust)
        severities = [severity for _, _, severity, _ in told(bundle, "SERVED_UNROUTED")]
    return severities, result.exit_code, result.counts.get("beyond the broker's entries", 0)


def test_served_beyond_the_end_of_a_broker_that_was_fetched_later_is_a_fault(scene: Scene, tmp_path: Path) -> None:
    found = beyond(scene, tmp_path, "UPDATE checkpoint SET fetched_at = fetched_at + 1 WHERE ledger = 1")

    assert found == (["fault"], 1, 0)


def test_served_beyond_the_end_of_a_broker_that_was_fetched_before_is_not_known_yet(
    scene: Scene, tmp_path: Path
) -> None:
    found = beyond(scene, tmp_path, "UPDATE checkpoint SET fetched_at = fetched_at - 1 WHERE ledger = 1")

    assert found == ([], 0, 1)


def test_served_beyond_what_was_fetched_of_the_broker_is_not_known_yet(scene: Scene, tmp_path: Path) -> None:
    found = beyond(scene, tmp_path, "UPDATE checkpoint SET size = size + 2 WHERE ledger = 1")

    assert found == ([], 0, 1)


def test_served_beyond_a_checkpoint_of_slow_witnesses_is_a_warning(scene: Scene, tmp_path: Path) -> None:
    seconds = scene.fed.at // 1_000 - 60
    cosigners = json.dumps([{"name": "a node", "vkey": "", "timestamp": seconds}])

    found = beyond(scene, tmp_path, "UPDATE checkpoint SET cosigners = ? WHERE ledger = 1", cosigners)

    assert found == (["warning"], 0, 0)


def test_a_nodes_checkpoint_that_the_broker_refused_is_told_by_the_nodes_name(scene: Scene, tmp_path: Path) -> None:
    used(scene)
    alert = ledger_pb2.WitnessAlert(
        fault=ledger_pb2.WITNESS_FAULT_FORK, seen_size=4, offered_size=4, keeper=scene.school.id
    )
    scene.fed.broker.append("witness_alert", alert, scene.fed.at)

    with scene.fed.bundle(tmp_path / "audit.db") as bundle:
        reconcile(bundle, scene.fed.trust)
        [(ledger, _, severity, message)] = told(bundle, "WITNESS_ALERTED")

    assert (ledger, severity) == (1, "fault")
    assert "the broker refused a checkpoint of school as FORK" in message


def test_an_end_written_right_behind_an_acknowledgement_is_no_fault(scene: Scene, tmp_path: Path) -> None:
    fed = scene.fed
    grant, access = used(scene)
    fed.revoke(scene.mother, grant, scene.school)
    for keeper in (fed.broker, fed.keeper(scene.school)):
        delay(keeper, of(keeper, access, "access_answered"), 50)

    _, found = scene.audit(tmp_path, reconcile)

    assert found == {}


def test_a_revocation_that_a_guardian_brought_herself_is_no_unlogged_push(scene: Scene, tmp_path: Path) -> None:
    fed = scene.fed
    grant, _ = used(scene)
    revocation = fed.revocation(scene.mother, grant, scene.school)
    fed.statements[revocation.id] = revocation
    fed.keeper(scene.school).recorded(revocation, fed.at, subject=grant.id, place=fed.place(grant))

    with fed.bundle(tmp_path / "audit.db") as bundle:
        result = reconcile(bundle, fed.trust)
        assert [severity for _, _, severity, _ in told(bundle, "REVOCATION_UNKNOWN")] == ["warning"]

    assert result.exit_code == 0


def test_a_revocation_by_a_guardian_whom_the_node_removed_need_not_be_held(scene: Scene, tmp_path: Path) -> None:
    fed = scene.fed
    grant = fed.consent(scene.mother, scene.school, scene.tutor, guardians=[scene.father])
    fed.offline.add(scene.school.id)
    fed.revoke(scene.father, grant, scene.school)
    fed.offline.clear()
    word = fed.endorsement(grant, scene.school)
    fed.statements[word.id] = word
    fed.keeper(scene.school).recorded(word, fed.at, subject=grant.id, place=fed.place(grant))

    result, found = scene.audit(tmp_path, reconcile)

    assert (found, result.counts["revocations without right"]) == ({}, 1)


def test_what_the_scope_hides_is_unknown(scene: Scene, tmp_path: Path) -> None:
    _, access = used(scene)
    scene.fed.broker.entries[access.routed].hidden = True

    result, found = scene.audit(tmp_path, reconcile)

    assert (found, result.counts["unknown"]) == ({}, 2)


def test_a_later_approval_may_name_more_who_decide_than_signed(scene: Scene, tmp_path: Path) -> None:
    fed = scene.fed
    grant = fed.record(fed.grant(scene.mother, scene.school, scene.tutor))
    fed.endorse(grant, scene.school, quorum_rule="all")
    fed.pass_time(DAY)
    fed.endorse(grant, scene.school, quorum_rule="all", guardians=[fed.person("mother's new phone")])

    _, found = scene.audit(tmp_path, reconcile)

    assert found == {}


def test_one_side_alone_cannot_be_reconciled(scene: Scene, tmp_path: Path) -> None:
    used(scene)
    with scene.fed.bundle(tmp_path / "audit.db") as bundle:
        bundle.db.execute("UPDATE ledger SET fetched = 0 WHERE ledger <> 1")
        with pytest.raises(ConfigurationError, match="one side alone"):
            reconcile(bundle, scene.fed.trust)


@pytest.mark.parametrize(("scope", "exit_code"), [([], 2), (["school"], 0)], ids=["unlimited", "another node's"])
def test_a_node_that_is_missing_beside_others_leaves_the_bundle_unchecked(
    scene: Scene, tmp_path: Path, scope: list[str], exit_code: int
) -> None:
    used(scene)
    keepers = [scene.fed.broker, scene.fed.keeper(scene.school)]
    with scene.fed.bundle(tmp_path / "audit.db", keepers=keepers) as bundle:
        bundle.set_meta("scope", json.dumps({"nodes": [did_text(getattr(scene, each).id) for each in scope]}))

        result = reconcile(bundle, scene.fed.trust)

        assert (result.exit_code, faults(bundle)) == (exit_code, {})
        assert (did_text(scene.other.id) in result.unchecked) == (exit_code == 2)

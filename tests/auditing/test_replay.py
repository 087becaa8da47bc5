"""Replay finds what was decided wrongly, and nothing where all was decided rightly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from permslip import statements as st
from permslip._pb.permslip.v1 import ledger_pb2, statement_pb2 as pb
from permslip.auditing.bundle import Bundle
from permslip.auditing.replaying import replay
from permslip.auditing.results import Trust
from permslip.errors import ConfigurationError
from permslip.facts import gather
from permslip.reasons import Reason
from tests.auditing.conftest import Scene, faults, told
from tests.auditing.ledgers import Access, Entry
from tests.scenarios.world import DAY, HOUR, MINUTE, seed

TRANSCRIPT = ("transcript.courses", "transcript.grades")


def everything(scene: Scene) -> None:
    """One of each kind of entry, by the rules."""
    fed, school, tutor, club = scene.fed, scene.school, scene.tutor, scene.club
    grant = fed.consent(
        scene.mother, school, tutor, delegation_depth=1, onward_parties=[club.id], guardians=[scene.father]
    )
    fed.access(tutor, grant, TRANSCRIPT)
    fed.access(tutor, grant, TRANSCRIPT, unfit=Reason.NO_LEASE)
    fed.access(tutor, grant, TRANSCRIPT, unfit=Reason.CLOCK)
    fed.access(tutor, grant, TRANSCRIPT, withheld=["transcript.grades"])
    fed.access(tutor, grant, ("personal.health", "transcript.grades"))
    fed.access(tutor, grant, ends=Reason.TIMED_OUT)
    fed.access(scene.club, grant)
    first = fed.record(fed.delegation(tutor, grant, club))
    through = fed.access(club, grant, chain=[first])
    fed.ask_again(through.query)
    pending = fed.record(fed.grant(scene.mother, school, tutor))
    fed.access(tutor, pending)
    fed.endorse(pending, school, verdict=pb.ENDORSEMENT_VERDICT_QUORUM_NOT_MET)
    fed.access(tutor, pending)
    newer = fed.consent(scene.mother, school, tutor, supersedes=[grant.id])
    fed.access(tutor, grant)
    fed.access(tutor, newer)
    fed.record(fed.suspension(club))
    fed.access(club, newer)
    fed.record(fed.admission(club, pb.PRINCIPAL_KIND_PROVIDER))
    fed.revoke(scene.mother, newer, school)
    fed.access(tutor, newer)
    elsewhere = fed.consent([scene.mother, scene.father], scene.other, tutor, max_uses=1)
    fed.access(tutor, elsewhere)
    fed.access(tutor, elsewhere)
    renewed = tutor.with_online_key(2)
    fed.record(fed.key_cert(renewed, 2))
    fed.access(tutor, elsewhere)
    fed.access(renewed, elsewhere)
    nobody = fed.grant(scene.mother, school, tutor)
    fed.access(tutor, nobody)
    for keeper in (fed.broker, fed.keeper(school)):
        keeper.append(
            "request_refused", ledger_pb2.RequestRefused(reason=pb.REASON_MALFORMED, method="Deposit"), fed.at
        )
    change = ledger_pb2.AuthorityChanged(change=ledger_pb2.AUTHORITY_CHANGE_LINKED)
    fed.keeper(school).append("authority_changed", change, fed.at, (school.id, seed("handle", "school")[:16]))


def test_a_clean_ledger_with_every_kind_of_entry_gives_no_finding(scene: Scene, tmp_path: Path) -> None:
    everything(scene)

    with scene.fed.bundle(tmp_path / "audit.db") as bundle:
        result = replay(bundle, scene.fed.trust)

        assert (result.word, dict(result.findings)) == ("clean", {})
        reasons = {name for (name,) in bundle.db.execute("SELECT reason FROM entry WHERE event = 'access_decided'")}
    assert result.counts["decisions"] > 20
    assert len(reasons) > 10


def test_both_verdicts_and_the_facts_that_decided_are_told(scene: Scene, tmp_path: Path) -> None:
    fed = scene.fed
    grant = fed.consent(scene.mother, scene.school, scene.tutor)
    fed.revoke(scene.mother, grant, scene.school)
    refused = fed.access(scene.tutor, grant)
    allow(fed.broker.entries[refused.routed])

    with fed.bundle(tmp_path / "audit.db") as bundle:
        result = replay(bundle, fed.trust)
        [(ledger, position, severity, message)] = told(bundle, "VERDICT_DIFFERS")
        [details] = [row[0] for row in bundle.db.execute("SELECT details FROM finding")]

    assert (ledger, position, severity) == (1, refused.routed, "fault")
    assert message == "the ledger says ALLOWED, its own facts give GRANT_REVOKED."
    assert '"replayed": {"reason": "GRANT_REVOKED"' in details
    assert f'"ended": {{"{grant.id.hex()}": "GRANT_REVOKED"}}' in details
    assert result.exit_code == 1


# ------------------------------------------------------------------------------------------- planted faults


def allow(entry: Entry) -> None:
    """Log that it was allowed."""
    entry.body.reason = pb.REASON_ALLOWED
    for each in entry.body.sections:
        each.reason = pb.REASON_ALLOWED


def consented(scene: Scene, **changes: Any) -> tuple[Any, Access]:
    """A consent that was used once."""
    grant = scene.fed.consent(scene.mother, scene.school, scene.tutor, **changes)
    return grant, scene.fed.access(scene.tutor, grant, TRANSCRIPT)


def a_refusal_logged_as_allowed(scene: Scene) -> None:
    grant, _ = consented(scene)
    allow(scene.fed.broker.entries[scene.fed.access(scene.club, grant).routed])


def a_section_logged_as_refused(scene: Scene) -> None:
    _, access = consented(scene)
    scene.fed.broker.entries[access.routed].body.sections[0].reason = pb.REASON_SECTION_NOT_GRANTED


def an_access_under_a_grant_that_nobody_endorsed(scene: Scene) -> None:
    grant = scene.fed.record(scene.fed.grant(scene.mother, scene.school, scene.tutor))
    allow(scene.fed.broker.entries[scene.fed.access(scene.tutor, grant).routed])


def a_node_that_allows_more_uses_than_granted(scene: Scene) -> None:
    grant, _ = consented(scene, max_uses=1)
    served = scene.fed.access(scene.tutor, grant).served
    assert served is not None
    entry = scene.fed.keeper(scene.school).entries[served]
    allow(entry)
    entry.body.uses[:] = [2]


def a_broker_that_says_it_had_no_lease(scene: Scene) -> None:
    _, access = consented(scene)
    body = scene.fed.broker.entries[access.routed].body
    body.reason = pb.REASON_NO_LEASE
    for each in body.sections:
        each.reason = pb.REASON_NO_LEASE


def a_replayed_query_that_is_allowed(scene: Scene) -> None:
    _, access = consented(scene)
    again = scene.fed.ask_again(access.query)
    allow(scene.fed.broker.entries[again.routed])


def a_decision_that_raced_a_revocation(scene: Scene) -> None:
    fed = scene.fed
    grant, _ = consented(scene)
    fed.pass_time(1_000)
    query = fed.query(scene.tutor, grant, TRANSCRIPT)
    fed.statements[query.id] = query
    before = gather(fed.broker.facts, query)
    decision = fed.ask(query)
    fed.revoke(scene.mother, grant, scene.school)
    fed.decided(fed.broker, query, before, decision)


def a_decision_by_outdated_facts_that_is_right_by_chance(scene: Scene) -> None:
    fed = scene.fed
    grant, _ = consented(scene)
    fed.pass_time(1_000)
    query = fed.query(scene.tutor, grant, TRANSCRIPT)
    fed.statements[query.id] = query
    before = gather(fed.broker.facts, query)
    decision = fed.ask(query)
    fed.endorse(grant, scene.school)
    fed.decided(fed.broker, query, before, decision)


def a_decision_by_facts_of_the_future(scene: Scene) -> None:
    _, access = consented(scene)
    scene.fed.broker.entries[access.routed].body.facts_position += 10


def a_decision_that_names_another_requester(scene: Scene) -> None:
    _, access = consented(scene)
    scene.fed.broker.entries[access.routed].body.requester.CopyFrom(scene.club.signer)


def a_decision_that_names_another_purpose(scene: Scene) -> None:
    _, access = consented(scene)
    scene.fed.broker.entries[access.routed].body.purpose = pb.PURPOSE_RESEARCH


def a_decision_dated_back(scene: Scene) -> None:
    scene.fed.pass_time(HOUR)
    grant = scene.fed.consent(scene.mother, scene.school, scene.tutor, not_before=scene.fed.now - DAY)
    scene.fed.pass_time(HOUR)
    access = scene.fed.access(scene.tutor, grant)
    scene.fed.broker.entries[access.routed].body.decided_at -= 2 * MINUTE


def a_decision_dated_before_its_facts(scene: Scene) -> None:
    _, access = consented(scene)
    scene.fed.broker.entries[access.routed].body.decided_at -= 2 * MINUTE


def an_entry_dated_before_the_one_before(scene: Scene) -> None:
    _, access = consented(scene)
    scene.fed.broker.entries[access.routed].recorded_at -= 2_000


def entries_dated_before_a_cosignature_of_what_precedes_them(scene: Scene) -> None:
    fed = scene.fed
    size = len(fed.broker.entries)
    fed.broker.checkpoints = [(size, [{"name": "school", "vkey": "", "timestamp": (fed.now + HOUR) // 1_000}])]
    consented(scene)


def entries_dated_after_a_cosignature_of_what_holds_them(scene: Scene) -> None:
    fed = scene.fed
    consented(scene)
    cosigner = {"name": "school", "vkey": "", "timestamp": (fed.now - HOUR) // 1_000}
    fed.broker.checkpoints = [(len(fed.broker.entries), [cosigner])]


def an_entry_outside_its_slice(scene: Scene) -> None:
    _, access = consented(scene)
    scene.fed.broker.entries[access.routed].place = None


def a_grant_recorded_in_another_slice(scene: Scene) -> None:
    grant, _ = consented(scene)
    entry = scene.fed.broker.find("statement_recorded", statement_id=grant.id)
    entry.place = (scene.school.id, bytes(16))


def a_widened_delegation(scene: Scene) -> None:
    fed = scene.fed
    grant = fed.consent(scene.mother, scene.school, scene.tutor, delegation_depth=1, onward_parties=[scene.club.id])
    fed.take(fed.delegation(scene.tutor, grant, scene.club, sections=["personal", "transcript"]))


def a_grant_with_a_forged_signature(scene: Scene) -> None:
    fed = scene.fed
    grant = fed.grant(scene.mother, scene.school, scene.tutor)
    wider = pb.Grant.FromString(grant.envelope.payload)
    wider.sections[:] = ["personal"]
    envelope = pb.Envelope()
    envelope.CopyFrom(grant.envelope)
    envelope.payload = wider.SerializeToString(deterministic=True)
    from permslip.dsse import statement_id

    forged = st.Signed(statement_id(st.GRANT.payload_type, envelope.payload), st.GRANT, wider, envelope)
    fed.take(forged)


def an_endorsement_by_another_node(scene: Scene) -> None:
    fed = scene.fed
    grant = fed.record(fed.grant(scene.mother, scene.school, scene.tutor))
    fed.take(fed.endorsement(grant, scene.other))


def a_revocation_by_a_stranger(scene: Scene) -> None:
    grant, _ = consented(scene)
    scene.fed.take(scene.fed.revocation(scene.fed.person("stranger"), grant, scene.school))


def an_admission_by_somebody_else(scene: Scene) -> None:
    body = scene.fed.admission(scene.club, pb.PRINCIPAL_KIND_PROVIDER).payload
    made = pb.Admission()
    made.CopyFrom(body)
    made.signer.CopyFrom(scene.mother.signer)
    scene.fed.take(st.sign(st.ADMISSION, made, [scene.mother.online]))


def a_statement_that_is_missing(scene: Scene) -> None:
    grant, _ = consented(scene)
    scene.fed.missing.add(grant.id)


def a_query_that_is_missing(scene: Scene) -> None:
    _, access = consented(scene)
    scene.fed.missing.add(access.query.id)


def a_statement_with_another_subject(scene: Scene) -> None:
    grant, _ = consented(scene)
    scene.fed.broker.find("statement_recorded", subject=grant.id).body.subject = bytes(32)


def a_statement_with_another_envelope(scene: Scene) -> None:
    grant, _ = consented(scene)
    scene.fed.broker.find("statement_recorded", statement_id=grant.id).body.envelope_sha256 = bytes(32)


def a_statement_of_another_kind(scene: Scene) -> None:
    _, access = consented(scene)
    scene.fed.broker.recorded(access.query, scene.fed.at, subject=b"", place=None)


def uses_that_do_not_add_up(scene: Scene) -> None:
    _, access = consented(scene, max_uses=3)
    assert access.served is not None
    scene.fed.keeper(scene.school).entries[access.served].body.uses[:] = [3]


PLANTED: list[tuple[Callable[[Scene], None], set[str]]] = [
    (a_refusal_logged_as_allowed, {"VERDICT_DIFFERS"}),
    (a_section_logged_as_refused, {"VERDICT_DIFFERS"}),
    (an_access_under_a_grant_that_nobody_endorsed, {"VERDICT_DIFFERS"}),
    (a_node_that_allows_more_uses_than_granted, {"VERDICT_DIFFERS"}),
    (a_broker_that_says_it_had_no_lease, {"VERDICT_DIFFERS"}),
    (a_replayed_query_that_is_allowed, {"VERDICT_DIFFERS"}),
    (a_decision_that_raced_a_revocation, {"DECISION_RACED"}),
    (a_decision_by_outdated_facts_that_is_right_by_chance, {"DECISION_RACED"}),
    (a_decision_by_facts_of_the_future, {"FACTS_POSITION"}),
    (a_decision_that_names_another_requester, {"DECISION_MISDESCRIBED"}),
    (a_decision_that_names_another_purpose, {"DECISION_MISDESCRIBED"}),
    (a_decision_dated_back, {"DECISION_TIME", "VERDICT_DIFFERS"}),
    (a_decision_dated_before_its_facts, {"DATED_BEFORE_FACTS", "VERDICT_DIFFERS"}),
    (an_entry_dated_before_the_one_before, {"CLOCK_BACKWARD"}),
    (entries_dated_before_a_cosignature_of_what_precedes_them, {"WITNESS_TIME"}),
    (entries_dated_after_a_cosignature_of_what_holds_them, {"WITNESS_TIME"}),
    (an_entry_outside_its_slice, {"SLICE_DIFFERS"}),
    (a_grant_recorded_in_another_slice, {"SLICE_DIFFERS"}),
    (a_widened_delegation, {"NOT_ADMISSIBLE"}),
    (a_grant_with_a_forged_signature, {"STATEMENT_SIGNATURE"}),
    (an_endorsement_by_another_node, {"NOT_ADMISSIBLE"}),
    (a_revocation_by_a_stranger, {"NOT_ADMISSIBLE"}),
    (an_admission_by_somebody_else, {"NOT_ADMISSIBLE"}),
    (a_statement_that_is_missing, {"STATEMENT_MISSING", "DECISION_UNCHECKED"}),
    (a_query_that_is_missing, {"STATEMENT_MISSING"}),
    (a_statement_with_another_subject, {"STATEMENT_SUBJECT"}),
    (a_statement_with_another_envelope, {"ENVELOPE_DIGEST"}),
    (a_statement_of_another_kind, {"STATEMENT_KIND"}),
    (uses_that_do_not_add_up, {"USES_DIFFER"}),
]


def test_one_entry_dated_ahead_of_many_is_told_once(scene: Scene, tmp_path: Path) -> None:
    consented(scene)
    entries = scene.fed.broker.entries
    entries[3].recorded_at = entries[-1].recorded_at

    _, found = scene.audit(tmp_path, replay)

    assert found == {"CLOCK_BACKWARD": 1}


@pytest.mark.parametrize(("plant", "expected"), PLANTED, ids=[plant.__name__ for plant, _ in PLANTED])
def test_a_planted_fault_is_found_and_nothing_else(
    plant: Callable[[Scene], None], expected: set[str], scene: Scene, tmp_path: Path
) -> None:
    plant(scene)

    result, found = scene.audit(tmp_path)

    assert set(found) == expected
    assert result.exit_code == 1


# ------------------------------------------------------------------------------------- hidden, erased, missing


def test_an_erased_query_is_noted_and_neither_clean_nor_a_fault(scene: Scene, tmp_path: Path) -> None:
    _, access = consented(scene)
    scene.fed.pass_time(DAY)
    scene.fed.erase(scene.fed.broker, access.query.id)

    with scene.fed.bundle(tmp_path / "audit.db") as bundle:
        result = replay(bundle, scene.fed.trust)
        notes = told(bundle, "EVIDENCE_ERASED")

    assert result.faults == 0
    assert {(ledger, severity, message) for ledger, _, severity, message in notes} == {
        (1, "note", "evidence erased on 2026-09-22: the query."),
        (2, "note", "evidence erased on 2026-09-22: the query."),
    }
    assert result.counts["erased"] == 2


def test_decisions_that_rest_on_an_erased_grant_are_noted_one_by_one(scene: Scene, tmp_path: Path) -> None:
    grant, access = consented(scene)
    scene.fed.access(scene.tutor, grant)
    scene.fed.erase(scene.fed.broker, grant.id)

    with scene.fed.bundle(tmp_path / "audit.db") as bundle:
        result = replay(bundle, scene.fed.trust)
        positions = [position for ledger, position, _, _ in told(bundle, "EVIDENCE_ERASED") if ledger == 1]

    assert result.faults == 0
    assert access.routed in positions
    assert len(positions) == 4  # the grant, its endorsement, two decisions


def test_an_erased_certificate_is_healed_by_a_newer_one(scene: Scene, tmp_path: Path) -> None:
    fed, renewed = scene.fed, scene.tutor.with_online_key(2)
    first = next(
        each for each in fed.statements.values() if each.kind is st.KEY_CERT and each.payload.root == scene.tutor.id
    )
    fed.record(fed.key_cert(renewed, 2))
    fed.erase(fed.broker, first.id)
    grant = fed.consent(scene.mother, scene.school, renewed)
    later = fed.access(renewed, grant)
    allow(fed.broker.entries[fed.access(scene.club, grant).routed])

    with fed.bundle(tmp_path / "audit.db") as bundle:
        replay(bundle, fed.trust)
        noted = {position for _, position, _, _ in told(bundle, "EVIDENCE_ERASED")}
        found = faults(bundle)

    assert later.routed not in noted
    assert found == {"VERDICT_DIFFERS": 1}


def test_what_hidden_entries_used_up_is_not_held_against_the_node(scene: Scene, tmp_path: Path) -> None:
    grant, first = consented(scene, max_uses=2)
    second = scene.fed.access(scene.tutor, grant)
    refused = scene.fed.access(scene.tutor, grant)
    assert first.served is not None
    scene.fed.keeper(scene.school).entries[first.served].hidden = True

    result, found = scene.audit(tmp_path)

    assert (second.answered, refused.answered) == (Reason.ALLOWED, Reason.USES_EXHAUSTED)
    assert (found, result.counts["hidden"]) == ({}, 1)


def test_a_query_that_a_hidden_entry_decided_may_be_refused_as_seen(scene: Scene, tmp_path: Path) -> None:
    _, access = consented(scene)
    again = scene.fed.ask_again(access.query)
    scene.fed.broker.entries[access.routed].hidden = True

    _, found = scene.audit(tmp_path)

    assert again.reason == Reason.QUERY_REPLAYED
    assert found == {}


# ---------------------------------------------------------------------------------------------- what nodes may


def test_a_node_may_record_a_revoked_grant_that_it_never_saw_before(scene: Scene, tmp_path: Path) -> None:
    fed = scene.fed
    fed.offline.add(scene.school.id)
    old = fed.record(fed.grant(scene.mother, scene.school, scene.tutor))
    grant = fed.record(fed.grant(scene.mother, scene.school, scene.tutor, supersedes=[old.id]))
    fed.revoke(scene.mother, grant, scene.school)
    fed.offline.clear()
    fed.pass_time(100 * DAY)
    fed.deliver(fed.keeper(scene.school))

    _, found = scene.audit(tmp_path)

    assert found == {}


def test_a_node_may_sign_with_a_key_whose_certificate_comes_later(scene: Scene, tmp_path: Path) -> None:
    fed = scene.fed
    fed.offline.add(scene.school.id)
    renewed = scene.school.with_online_key(2)
    fed.record(fed.key_cert(renewed, 2))
    grant = fed.record(fed.grant(scene.mother, renewed, scene.tutor))
    fed.endorse(grant, renewed)
    fed.deliver(fed.keeper(scene.school))

    _, found = scene.audit(tmp_path)

    assert found == {}


def test_a_node_may_not_sign_with_a_key_that_nobody_certified(scene: Scene, tmp_path: Path) -> None:
    fed = scene.fed
    grant = fed.record(fed.grant(scene.mother, scene.school, scene.tutor))
    fed.endorse(grant, scene.school.with_online_key(9))

    _, found = scene.audit(tmp_path)

    assert found == {"NOT_ADMISSIBLE": 2}


@pytest.mark.parametrize(
    ("ends", "asks", "uses"),
    [
        (Reason.ALLOWED, {"continues": True}, [2]),
        (Reason.TIMED_OUT, {"continues": True}, [1]),
        (Reason.TIMED_OUT, {"retry_of": True}, [1]),
        (Reason.ALLOWED, {"retry_of": True}, [2]),
        (Reason.ALLOWED, {"continues": True, "page": True}, [1]),
    ],
)
def test_pages_resumptions_and_retries_cost_what_the_ledger_shows(
    ends: Reason, asks: dict[str, bool], uses: list[int], scene: Scene, tmp_path: Path
) -> None:
    fed = scene.fed
    grant = fed.consent(scene.mother, scene.school, scene.tutor, max_uses=2)
    first = fed.access(scene.tutor, grant, ends=ends)
    fields: dict[str, Any] = {name: b"page" if name == "page" else first.query.id for name in asks}
    second = fed.access(scene.tutor, grant, **fields)
    assert second.served is not None
    entry = fed.keeper(scene.school).entries[second.served]
    entry.body.uses[:] = uses
    wrong = {1: 2, 2: 1}[uses[0]]

    _, found = scene.audit(tmp_path)
    entry.body.uses[:] = [wrong]
    (tmp_path / "audit.db").unlink()
    _, then = scene.audit(tmp_path)

    assert (found, then) == ({}, {"USES_DIFFER": 1})


def test_a_retry_is_free_once(scene: Scene, tmp_path: Path) -> None:
    fed = scene.fed
    grant = fed.consent(scene.mother, scene.school, scene.tutor, max_uses=3)
    first = fed.access(scene.tutor, grant, ends=Reason.TIMED_OUT)
    for uses in (1, 2):
        retry = fed.access(scene.tutor, grant, retry_of=first.query.id)
        assert retry.served is not None
        fed.keeper(scene.school).entries[retry.served].body.uses[:] = [uses]

    _, found = scene.audit(tmp_path)

    assert found == {}


def test_a_resumption_after_a_crash_may_cost_either(scene: Scene, tmp_path: Path) -> None:
    fed = scene.fed
    grant = fed.consent(scene.mother, scene.school, scene.tutor, max_uses=2)
    first = fed.access(scene.tutor, grant)
    keeper = fed.keeper(scene.school)
    del keeper.entries[-1]
    keeper.facts.advance(len(keeper.entries))
    second = fed.access(scene.tutor, grant, continues=first.query.id)
    assert second.served is not None

    for uses in (1, 2):
        keeper.entries[second.served].body.uses[:] = [uses]
        _, found = scene.audit(tmp_path)
        assert found == {}
        (tmp_path / "audit.db").unlink()


# ------------------------------------------------------------------------------------------------- could not


def test_a_bundle_of_another_federation_is_not_checked(scene: Scene, tmp_path: Path) -> None:
    trust = scene.fed.trust
    with (
        scene.fed.bundle(tmp_path / "audit.db") as bundle,
        pytest.raises(ConfigurationError, match="federation"),
    ):
        replay(bundle, Trust("another", trust.broker_root, trust.operator))


def test_an_empty_bundle_is_not_clean(scene: Scene, tmp_path: Path) -> None:
    scene.fed.bundle(tmp_path / "full.db").close()
    with Bundle.open(tmp_path / "full.db") as bundle:
        bundle.db.execute("UPDATE ledger SET fetched = 0")
        with pytest.raises(ConfigurationError, match="no entry"):
            replay(bundle, scene.fed.trust)
        assert bundle.db.execute("SELECT result FROM run").fetchone() == ("unchecked",)


def test_findings_of_an_earlier_run_are_replaced(scene: Scene, tmp_path: Path) -> None:
    a_refusal_logged_as_allowed(scene)
    with scene.fed.bundle(tmp_path / "audit.db") as bundle:
        replay(bundle, scene.fed.trust)
        replay(bundle, scene.fed.trust)
        assert faults(bundle) == {"VERDICT_DIFFERS": 1}


def test_progress_is_told_to_the_end(scene: Scene, tmp_path: Path) -> None:
    consented(scene)
    told_of: list[tuple[str, int, int]] = []
    with scene.fed.bundle(tmp_path / "audit.db") as bundle:
        replay(bundle, scene.fed.trust, progress=lambda *what: told_of.append(what))

    assert told_of[-1] == ("replay of library", len(scene.fed.keeper(scene.other).entries), told_of[-1][2])

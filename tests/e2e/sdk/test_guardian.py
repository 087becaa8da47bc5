"""The straight line with the SDK: a parent links, grants, watches and revokes; a tutor reads meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path

import pytest

from permslip import statements as st
from permslip.armor import read_statements
from permslip.client.consenting import GivenTerms
from permslip.client.guarding import AsyncGuardianClient
from permslip.client.providing import AsyncClient
from permslip.consents import open_private
from permslip.coverage import Held
from permslip.errors import KeyRejectedError, MalformedError, RefusedError
from permslip.grant_views import GrantStatus
from permslip.notices import check_notice
from permslip.reasons import Reason
from permslip.wallet import Wallet
from tests.e2e.sdk.three_schools import CHILD, TERMS, ThreeSchools

pytestmark = pytest.mark.e2e


@pytest.fixture
async def schools(tmp_path: Path) -> AsyncIterator[ThreeSchools]:
    async with ThreeSchools.running(tmp_path) as running:
        yield running


@pytest.fixture
async def mother(schools: ThreeSchools) -> AsyncIterator[AsyncGuardianClient]:
    async with schools.guardian("mother") as client:
        yield client


@pytest.fixture
async def tutor(schools: ThreeSchools) -> AsyncIterator[AsyncClient]:
    async with schools.tutor() as client:
        yield client


def wallet_of(guardian: AsyncGuardianClient) -> Wallet:
    assert guardian.wallet is not None
    return guardian.wallet


# ------------------------------------------------------------------------------------------------- link


async def test_a_slip_links_the_child_and_the_wallet_remembers(
    schools: ThreeSchools, mother: AsyncGuardianClient
) -> None:
    linked = await mother.link((await schools.school("Cedar")).slip(CHILD).slip.text())

    assert (linked.learner_name, linked.node_name, linked.quorum_rule) == (f"Learner {CHILD}", "Cedar", "all")
    assert wallet_of(mother).slices == (linked,)


async def test_a_used_slip_is_refused(schools: ThreeSchools, mother: AsyncGuardianClient) -> None:
    text = (await schools.school("Lincoln")).slip(CHILD).slip.text()
    await mother.link(text)

    async with schools.guardian("somebody else") as other:
        with pytest.raises(RefusedError) as caught:
            await other.link(text)

    assert caught.value.code == "LINK_REFUSED"


async def test_a_mistyped_slip_names_the_group(mother: AsyncGuardianClient, schools: ThreeSchools) -> None:
    text = (await schools.school("Lincoln")).slip(CHILD).slip.text()
    place = 30
    mistyped = text[:place] + ("0" if text[place] != "0" else "1") + text[place + 1 :]

    with pytest.raises(MalformedError, match="group 4 of 14"):
        await mother.link(mistyped)


# ------------------------------------------------------------------------------------------------ grant


async def test_one_tap_grants_every_school_and_the_tutor_reads_the_profile(
    schools: ThreeSchools, mother: AsyncGuardianClient, tutor: AsyncClient
) -> None:
    await schools.link(mother, "Lincoln", "Birch")

    consent = await mother.grant(schools.tutor_root, **TERMS)
    profile = await tutor.profile("learner-17")

    assert consent.is_active
    assert set(consent.text.splitlines()) == {"Birch: confirmed by the school", "Lincoln: confirmed by the school"}
    assert {each.node_name for each in profile.attendance} == {"Lincoln", "Birch"}
    assert (len(profile.attendance), len(profile.grades)) == (14, 10)
    assert profile.faults == ()
    assert {each.section for each in profile.coverage if each.state == Held.DENIED} >= {
        "voice.goals",
        "portfolio.works",
    }


async def test_the_grantee_can_prove_which_words_the_parent_read(
    schools: ThreeSchools, mother: AsyncGuardianClient, tutor: AsyncClient
) -> None:
    await schools.link(mother, "Lincoln")
    draft = await mother.draft(schools.tutor_root, **TERMS)

    consent = await mother.deposit(draft)

    (view,) = [each async for each in tutor.grants()]
    assert view.id == consent.grants[0].id
    assert view.private is not None
    names = {view.node: view.node_name, schools.tutor_root: view.grantee_name}
    proved = check_notice(view.signed.payload, view.private, names=names)
    assert proved == draft.notices[0]
    assert "> Help with reading" in proved.text
    assert wallet_of(mother).grants[0].notice == proved.text


async def test_no_school_can_tell_from_its_grant_that_there_is_another(
    schools: ThreeSchools, mother: AsyncGuardianClient
) -> None:
    await schools.link(mother, "Lincoln", "Birch")

    consent = await mother.grant(schools.tutor_root, **TERMS)

    lincoln = next(each for each in consent.grants if each.node_name == "Lincoln")
    school = schools.schools["Lincoln"].organization
    private = open_private(lincoln.signed.payload, school.sealing)
    seen = lincoln.signed.envelope.payload + private.SerializeToString()
    birch = next(each for each in consent.grants if each.node_name == "Birch").signed.payload
    hidden = (birch.slice.node, birch.slice.handle, birch.nonce, b"Birch", consent.consent_id)
    assert not [each for each in hidden if each in seen]


async def test_a_school_that_asks_for_all_guardians_does_not_confirm_for_one(
    schools: ThreeSchools, mother: AsyncGuardianClient
) -> None:
    await schools.link(mother, "Cedar")

    consent = await mother.grant(schools.tutor_root, **TERMS)

    assert [(each.status, each.refused_because) for each in consent.grants] == [(GrantStatus.REFUSED, "QUORUM_NOT_MET")]
    assert not consent.is_active


async def test_a_school_that_asks_for_all_guardians_confirms_when_both_have_signed(
    schools: ThreeSchools, mother: AsyncGuardianClient, tutor: AsyncClient
) -> None:
    await schools.link(mother, "Cedar")
    async with schools.guardian("father") as father:
        await schools.link(father, "Cedar", person="P2")
        key = wallet_of(father).keys.signing

        consent = await mother.grant(schools.tutor_root, cosigners=[key], **TERMS)

    assert consent.is_active
    assert len((await tutor.profile("learner-17")).attendance) == 7


async def test_a_school_that_is_offline_leaves_the_grant_pending_and_confirms_later(
    schools: ThreeSchools, mother: AsyncGuardianClient
) -> None:
    await schools.link(mother, "Lincoln", "Birch")
    await schools.stop("Birch")

    consent = await mother.grant(schools.tutor_root, wait=1.0, **TERMS)
    await schools.start("Birch")

    assert {each.node_name: each.status for each in consent.grants} == {
        "Lincoln": GrantStatus.ACTIVE,
        "Birch": GrantStatus.PENDING,
    }
    statuses: dict[bytes, GrantStatus] = {}
    while set(statuses.values()) != {GrantStatus.ACTIVE}:
        statuses = {each.id: each.status async for each in mother.grants()}


async def test_a_grantee_that_nobody_admitted_is_refused_before_anything_is_signed(
    schools: ThreeSchools, mother: AsyncGuardianClient
) -> None:
    await schools.link(mother, "Lincoln")

    with pytest.raises(KeyRejectedError, match="has registered no key"):
        await mother.grant(schools.federation.stranger.root, **TERMS)

    assert wallet_of(mother).grants == ()


async def test_a_provider_is_found_by_its_public_name(schools: ThreeSchools, mother: AsyncGuardianClient) -> None:
    assert await mother.provider_named("tutors") == schools.tutor_root
    with pytest.raises(MalformedError, match="The providers are: Clinic, Tutors"):
        await mother.provider_named("Lincoln")


async def test_a_consent_may_take_the_place_of_an_earlier_one(
    schools: ThreeSchools, mother: AsyncGuardianClient, tutor: AsyncClient
) -> None:
    await schools.link(mother, "Lincoln")
    first = await mother.grant(schools.tutor_root, **TERMS)

    narrower: GivenTerms = {**TERMS, "sections": ["personal.attendance"]}
    await mother.grant(schools.tutor_root, supersedes=first.grants, **narrower)

    statuses = {tuple(each.sections): each.status async for each in tutor.grants()}
    assert statuses == {
        ("personal.attendance", "transcript"): GrantStatus.SUPERSEDED,
        ("personal.attendance",): GrantStatus.ACTIVE,
    }
    profile = await tutor.profile("learner-17", sections=["transcript.grades", "personal.attendance"])
    assert {each.section: each.state for each in profile.coverage} == {
        "personal.attendance": Held.RETURNED,
        "transcript.grades": Held.DENIED,
    }


@pytest.mark.parametrize(
    ("until", "ends"),
    [
        ("2027-06-30", "2027-07-01T00:00:00+00:00"),
        (date(2027, 6, 30), "2027-07-01T00:00:00+00:00"),
        ("2027-06-30T12:00:00+02:00", "2027-06-30T10:00:00+00:00"),
        (datetime(2027, 6, 30, 12), "2027-06-30T12:00:00+00:00"),  # noqa: DTZ001  # without zone it is UTC
    ],
)
async def test_a_day_ends_with_its_last_moment(
    schools: ThreeSchools, mother: AsyncGuardianClient, until: str | date, ends: str
) -> None:
    await schools.link(mother, "Lincoln")

    terms: GivenTerms = {**TERMS, "until": until}
    draft = await mother.draft(schools.tutor_root, **terms)

    assert datetime.fromisoformat(ends).timestamp() * 1000 == draft.grants[0].expires_at


# ---------------------------------------------------------------------------------------------- profile


async def test_a_mother_reads_her_own_childs_profile_by_a_grant_to_her_own_key(
    schools: ThreeSchools, mother: AsyncGuardianClient
) -> None:
    await schools.link(mother, "Lincoln", "Birch")

    first = await mother.profile()
    second = await mother.profile(sections=["personal.attendance"])

    assert {each.node_name for each in first.attendance} == {"Lincoln", "Birch"}
    assert len(second.attendance) == 14
    own = [each async for each in mother.grants()]
    assert [(each.purpose, each.signed.payload.grantee) for each in own] == [("family", mother.public.raw)] * 2


async def test_a_section_beyond_her_own_grant_makes_a_new_one(
    schools: ThreeSchools, mother: AsyncGuardianClient
) -> None:
    await schools.link(mother, "Lincoln")
    await mother.profile()

    health = await mother.profile(sections=["personal.health"])

    assert [each.state for each in health.coverage] == [Held.NONE_HELD]


# ----------------------------------------------------------------------------------------------- revoke


async def test_after_the_schools_have_confirmed_the_next_query_is_refused(
    schools: ThreeSchools, mother: AsyncGuardianClient, tutor: AsyncClient
) -> None:
    await schools.link(mother, "Lincoln", "Birch")
    consent = await mother.grant(schools.tutor_root, **TERMS)
    assert len((await tutor.profile("learner-17")).attendance) == 14

    states = [state async for state in mother.revoke(consent)]

    assert states[-1].is_complete
    assert states[-1].text == "2 of 2 places confirmed."
    assert all(each.acknowledgement is not None for each in states[-1].grants)
    assert all(each.revoked for each in wallet_of(mother).grants)
    profile = await tutor.profile("learner-17")
    assert {each.reason for each in profile.coverage} == {Reason.GRANT_REVOKED}
    assert profile.entries == ()


async def test_a_school_that_is_offline_is_said_to_be_and_confirms_when_it_comes_back(
    schools: ThreeSchools, mother: AsyncGuardianClient
) -> None:
    await schools.link(mother, "Lincoln", "Birch")
    consent = await mother.grant(schools.tutor_root, **TERMS)
    await schools.stop("Birch")

    texts: list[str] = []
    async for state in mother.revoke(consent):
        if texts[-1:] != [state.text]:
            texts.append(state.text)
        if state.confirmed == 1 and "Birch" not in schools.nodes_up:
            await schools.start("Birch")

    assert "1 of 2 places confirmed, 1 offline: it cannot answer anyone until it has caught up." in texts
    assert texts[-1] == "2 of 2 places confirmed."


async def test_revoking_again_follows_the_revocation_that_the_broker_holds(
    schools: ThreeSchools, mother: AsyncGuardianClient
) -> None:
    await schools.link(mother, "Lincoln")
    await mother.grant(schools.tutor_root, **TERMS)
    views = [each async for each in mother.grants()]
    first = [state async for state in mother.revoke(views)][-1]

    again = [each async for each in mother.grants()]
    second = [state async for state in mother.revoke(again)][-1]

    assert [each.status for each in again] == [GrantStatus.REVOKED]
    assert [each.confirmed for each in again] == [True]
    assert second.grants[0].revocation.id == first.grants[0].revocation.id
    assert second.is_complete


async def test_the_other_guardian_can_revoke_as_well(
    schools: ThreeSchools, mother: AsyncGuardianClient, tutor: AsyncClient
) -> None:
    await schools.link(mother, "Birch")
    async with schools.guardian("father") as father:
        await schools.link(father, "Birch", person="P2")
        consent = await mother.grant(schools.tutor_root, **TERMS)
        await father.profile()  # the broker shows him a slice once he has a consent of his own on it

        seen = [each async for each in father.grants() if each.signed.payload.grantee == schools.tutor_root]
        last = [state async for state in father.revoke(seen)][-1]

    assert [each.id for each in seen] == [each.id for each in consent.grants]
    assert last.is_complete
    assert {each.reason for each in (await tutor.profile("learner-17")).coverage} == {Reason.GRANT_REVOKED}


async def test_nobody_else_can_revoke(schools: ThreeSchools, mother: AsyncGuardianClient) -> None:
    await schools.link(mother, "Lincoln")
    consent = await mother.grant(schools.tutor_root, **TERMS)

    async with schools.guardian("stranger") as stranger:
        last = [state async for state in stranger.revoke(consent)][-1]

    assert last.confirmed == 0
    assert isinstance(last.grants[0].error, RefusedError)
    assert last.text == "0 of 1 place confirmed, 1 could not be revoked."


async def test_an_id_that_nobody_knows_is_refused(schools: ThreeSchools, mother: AsyncGuardianClient) -> None:
    with pytest.raises(RefusedError, match="nothing is known by"):
        _ = [state async for state in mother.revoke("00" * 32)]
    with pytest.raises(MalformedError, match="hexadecimal"):
        _ = [state async for state in mother.revoke("the tutor's")]


async def test_the_revocation_file_holds_what_the_school_can_act_on_and_needs_no_broker(
    schools: ThreeSchools, mother: AsyncGuardianClient, tmp_path: Path
) -> None:
    await schools.link(mother, "Lincoln", "Birch")
    consent = await mother.grant(schools.tutor_root, **TERMS)
    await mother.aclose()

    async with schools.guardian("mother", broker="127.0.0.1:9") as cut_off:
        count = await cut_off.revocation_file(consent.consent_id, tmp_path / "revoke.txt")

    assert count == 2
    statements = [
        st.verify(st.REVOCATION, each, federation="fed.test") for each in read_statements(tmp_path / "revoke.txt")
    ]
    assert {each.payload.target_id for each in statements} == {each.id for each in consent.grants}


# --------------------------------------------------------------------------------------------- accesses


async def test_every_access_is_shown_and_proved_to_be_in_the_ledger(
    schools: ThreeSchools, mother: AsyncGuardianClient, tutor: AsyncClient
) -> None:
    await schools.link(mother, "Lincoln", "Birch")
    await mother.grant(schools.tutor_root, **TERMS)
    await tutor.profile("learner-17", sections=["personal.attendance"])
    await schools.federation.broker.recorder.settle()

    report = await mother.accesses()

    assert [(each.requester_name, each.purpose, each.reason, each.refused_by) for each in report] == [
        ("Tutors", "tutoring", Reason.ALLOWED, "")
    ] * 2
    assert {each.node_name for each in report} == {"Lincoln", "Birch"}
    assert all(each.sections == (("personal.attendance", Reason.ALLOWED),) for each in report)
    assert (report.is_complete, report.findings) == (True, ())


async def test_a_refused_access_is_shown_as_well(
    schools: ThreeSchools, mother: AsyncGuardianClient, tutor: AsyncClient
) -> None:
    await schools.link(mother, "Lincoln")
    await mother.grant(schools.tutor_root, **TERMS)
    await tutor.profile("learner-17", sections=["voice.goals"])

    report = await mother.accesses(wallet_of(mother).slices)

    assert [(each.reason, each.refused_by) for each in report] == [(Reason.SECTION_NOT_GRANTED, "broker")]
    assert report.accesses[0].school is None


async def test_accesses_of_another_childs_slice_are_not_told(
    schools: ThreeSchools, mother: AsyncGuardianClient
) -> None:
    await schools.link(mother, "Lincoln")
    await mother.grant(schools.tutor_root, **TERMS)
    other = replace(wallet_of(mother).slices[0], handle=bytes(16))

    with pytest.raises(RefusedError) as caught:
        await mother.accesses([other])

    assert caught.value.code == "NOT_ALLOWED"


# --------------------------------------------------------------------------------------------- operator


async def test_a_suspended_provider_is_refused_and_admitted_anew(
    schools: ThreeSchools, mother: AsyncGuardianClient, tutor: AsyncClient
) -> None:
    await schools.link(mother, "Lincoln")
    await mother.grant(schools.tutor_root, **TERMS)

    async with schools.operator() as operator:
        await operator.suspend(schools.tutor_root, agreement_id="NDPA-1")
        with pytest.raises(RefusedError) as caught:
            await tutor.profile("learner-17")
        await operator.admit(schools.tutor_root, kind="provider", name="Tutors", agreement_id="NDPA-2")
        status = await operator.status()

    assert caught.value.code == "REQUESTER_SUSPENDED"
    assert (await tutor.profile("learner-17")).attendance
    assert {each.name for each in status.nodes if each.attached} == {"Lincoln"}


async def test_a_statement_that_is_not_recorded_is_an_error_with_its_code(schools: ThreeSchools) -> None:
    async with schools.operator() as operator:
        with pytest.raises(MalformedError, match="expected one of provider, node, auditor"):
            await operator.admit(schools.tutor_root, kind="school", name="X", agreement_id="Y")
        with pytest.raises(RefusedError, match="key-cert"):
            await operator.register(
                [schools.federation.tutor.cert.envelope, schools.federation.broker_keys.cert.envelope]
            )

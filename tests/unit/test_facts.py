"""permslip.facts and permslip.admissible: what may be recorded, and what a decision then sees of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from permslip import statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.capabilities import chain_of
from permslip.errors import AttenuationError, AuthorityError, KeyRejectedError, MalformedError, PermslipError
from permslip.facts import RECORDED_KINDS, MemoryFacts, depends_on, gather, subjects
from permslip.reasons import Reason
from permslip.statements import Signed
from tests.scenarios.samples import signed_samples
from tests.scenarios.world import DAY, MINUTE, NOW, Party, World, seed

PROVIDER, NODE = pb.PRINCIPAL_KIND_PROVIDER, pb.PRINCIPAL_KIND_NODE


class Federation(World):
    """A school, a tutor who may pass on, a club and a camp, a mother and a father; one grant, not endorsed yet."""

    def __init__(self) -> None:
        super().__init__()
        self.school, self.other_school = self.node("school"), self.node("other school")
        self.tutor, self.club, self.camp = (self.provider(name) for name in ("tutor", "club", "camp"))
        self.mother, self.father = self.person("mother"), self.person("father")
        self.consent = self.record(
            self.grant(
                self.mother,
                self.school,
                self.tutor,
                delegation_depth=2,
                onward_parties=sorted([self.club.id, self.camp.id]),
            )
        )

    def refused(
        self, error: type[PermslipError], signed: Signed[Any], *, pushed: bool = False, match: str | None = None
    ) -> PermslipError:
        with pytest.raises(error, match=match) as caught:
            self.judge(signed, pushed=pushed)
        return caught.value

    def refused_field(self, signed: Signed[Any], *, pushed: bool = False) -> str:
        error = self.refused(MalformedError, signed, pushed=pushed)
        assert isinstance(error, MalformedError)
        return error.field


@pytest.fixture
def federation() -> Federation:
    return Federation()


# ---------------------------------------------------------------------------------------------- what is recorded


@pytest.mark.parametrize("kind", [kind for kind in st.KINDS.values() if kind not in RECORDED_KINDS], ids=repr)
def test_statements_that_change_no_facts_are_not_recorded(kind: st.Kind[Any], federation: Federation) -> None:
    assert federation.refused_field(signed_samples()[kind.name]) == "envelope.payload_type"


@pytest.mark.parametrize(
    "make",
    [
        lambda w: w.admission(w.organization("new"), PROVIDER, created_at=w.now + MINUTE + 1),
        lambda w: w.suspension(w.tutor, created_at=w.now + MINUTE + 1),
        lambda w: w.key_cert(w.tutor, 2, created_at=w.now + MINUTE + 1),
        lambda w: w.grant(w.mother, w.school, w.tutor, created_at=w.now + MINUTE + 1),
        lambda w: w.endorsement(w.consent, w.school, created_at=w.now + MINUTE + 1),
        lambda w: w.delegation(w.tutor, w.consent, w.club, created_at=w.now + MINUTE + 1),
    ],
    ids=["admission", "suspension", "key-cert", "grant", "endorsement", "delegation"],
)
def test_what_is_dated_more_than_a_minute_ahead_is_refused(
    make: Callable[[Any], Signed[Any]], federation: Federation
) -> None:
    signed = make(federation)

    assert federation.refused_field(signed).endswith(".created_at")
    federation.pass_time(1)
    federation.judge(signed)


def test_a_revocation_counts_whatever_its_date(federation: Federation) -> None:
    federation.record(
        federation.revocation(federation.mother, federation.consent, federation.school, created_at=NOW + 400 * DAY)
    )

    capability = federation.facts.capability(federation.consent.id)
    assert capability is not None
    assert capability.ended == Reason.GRANT_REVOKED


# ---------------------------------------------------------------------------------------------- organizations


@pytest.mark.parametrize("make", ["admission", "suspension"])
@pytest.mark.parametrize("by", ["a stranger", "a stranger under the operator's root", "the operator's other key"])
def test_only_the_operator_admits_and_suspends(make: str, by: str, federation: Federation) -> None:
    stranger = federation.person("stranger")
    signer = {
        "a stranger": stranger.signer,
        "a stranger under the operator's root": pb.Signer(root=federation.operator.id, key=stranger.id),
        "the operator's other key": pb.Signer(root=stranger.id, key=federation.operator.id),
    }[by]
    honest = federation.operator
    federation.operator = honest if by == "the operator's other key" else stranger
    signed: Signed[Any] = (
        federation.admission(federation.club, PROVIDER, signer=signer)
        if make == "admission"
        else federation.suspension(federation.club, signer=signer)
    )
    federation.operator = honest

    federation.refused(AuthorityError, signed)
    federation.refused(AuthorityError, signed, pushed=True)


def test_replaying_an_old_admission_or_suspension_is_refused(federation: Federation) -> None:
    club = federation.organization("chess club")
    never_used = federation.admission(club, PROVIDER)
    first = federation.record(federation.admission(club, PROVIDER))
    suspended = federation.record(federation.suspension(club))
    for old in (never_used, first):
        assert federation.refused_field(old) == "admission.created_at"
        assert federation.refused_field(old, pushed=True) == "admission.created_at"

    federation.record(federation.admission(club, PROVIDER))

    assert federation.refused_field(suspended) == "suspension.created_at"


def test_an_organization_that_is_not_admitted_certifies_nothing(federation: Federation) -> None:
    federation.refused(AuthorityError, federation.key_cert(federation.organization("chess club")), match="not admitted")


def test_an_organization_that_was_only_suspended_certifies_nothing(federation: Federation) -> None:
    club = federation.organization("chess club")
    federation.record(federation.suspension(club))

    federation.refused(AuthorityError, federation.key_cert(club), match="not admitted")


def test_an_old_certificate_is_refused(federation: Federation) -> None:
    newer = federation.tutor.with_online_key(2)
    federation.record(federation.key_cert(newer, 2))

    for number in (1, 2):
        assert federation.refused_field(federation.key_cert(federation.tutor, number)) == "key-cert.seq"


def test_a_certificate_is_checked_before_it_counts(federation: Federation) -> None:
    federation.refused(KeyRejectedError, federation.key_cert(federation.tutor, 2, signing_key=federation.tutor.id))


# ---------------------------------------------------------------------------------------------- grants


def test_a_grant_must_be_well_formed(federation: Federation) -> None:
    signed = federation.grant(federation.mother, federation.school, federation.tutor, sections=["identity"])

    assert federation.refused_field(signed) == "grant.sections[0]"
    assert federation.refused_field(signed, pushed=True) == "grant.sections[0]"


def test_a_grant_that_has_ended_is_refused_unless_it_is_pushed(federation: Federation) -> None:
    signed = federation.grant(federation.mother, federation.school, federation.tutor, expires_at=NOW + DAY)
    federation.pass_time(DAY)

    assert federation.refused_field(signed) == "grant.expires_at"
    federation.record(signed, pushed=True)
    assert federation.facts.capability(signed.id) is not None


def test_a_grant_that_ends_in_a_millisecond_is_accepted(federation: Federation) -> None:
    federation.record(federation.grant(federation.mother, federation.school, federation.tutor, expires_at=NOW + 1))


@pytest.mark.parametrize("who", ["nobody", "a provider", "suspended before it was admitted"])
def test_a_grant_on_a_node_that_was_never_admitted_is_refused(who: str, federation: Federation) -> None:
    place = {"nobody": federation.organization("nowhere"), "a provider": federation.club}.get(
        who, federation.organization("barred")
    )
    if who == "suspended before it was admitted":
        federation.record(federation.suspension(place))

    assert federation.refused_field(federation.grant(federation.mother, place, federation.tutor)) == "grant.slice.node"


def test_a_grant_on_a_node_that_is_suspended_now_waits(federation: Federation) -> None:
    federation.record(federation.suspension(federation.school))

    federation.record(federation.grant(federation.mother, federation.school, federation.tutor))


def test_a_grant_supersedes_only_known_grants_on_its_own_slice(federation: Federation) -> None:
    def superseding(*ids: bytes, node: Party = federation.school) -> Signed[pb.Grant]:
        return federation.grant(federation.mother, node, federation.tutor, supersedes=sorted(ids))

    other = federation.record(
        federation.grant(federation.mother, federation.school, federation.tutor, handle=seed("sister")[:16])
    )
    unknown = b"\xff" * 32
    assert federation.refused_field(superseding(federation.consent.id, unknown)) == "grant.supersedes[1]"
    assert federation.refused_field(superseding(other.id)) == "grant.supersedes[0]"
    elsewhere = superseding(federation.consent.id, node=federation.other_school)
    assert federation.refused_field(elsewhere) == "grant.supersedes[0]"

    federation.record(superseding(federation.consent.id))


# ---------------------------------------------------------------------------------------------- endorsements


def test_an_endorsement_of_an_unknown_grant_is_refused(federation: Federation) -> None:
    unknown = federation.grant(federation.mother, federation.school, federation.tutor)

    assert federation.refused_field(federation.endorsement(unknown, federation.school)) == "endorsement.grant_id"


def test_an_endorsement_by_another_node_is_refused(federation: Federation) -> None:
    federation.refused(AuthorityError, federation.endorsement(federation.consent, federation.other_school))


def test_an_endorsement_with_an_earlier_key_of_the_node_is_refused(federation: Federation) -> None:
    federation.record(federation.key_cert(federation.school.with_online_key(2), 2))

    federation.refused(AuthorityError, federation.endorsement(federation.consent, federation.school))


def test_an_endorsement_with_an_expired_key_is_refused(federation: Federation) -> None:
    federation.pass_time(301 * DAY)

    federation.refused(AuthorityError, federation.endorsement(federation.consent, federation.school), match="ended")


def test_an_endorsement_that_is_not_newer_is_refused(federation: Federation) -> None:
    first = federation.endorsement(federation.consent, federation.school, created_at=NOW)
    same_time = federation.endorsement(federation.consent, federation.school, created_at=NOW)
    refusal = federation.endorsement(
        federation.consent, federation.school, created_at=NOW + 1, verdict=pb.ENDORSEMENT_VERDICT_SUSPENDED
    )
    federation.record(first)
    assert federation.refused_field(same_time) == "endorsement.created_at"
    federation.record(refusal)

    assert federation.refused_field(first) == "endorsement.created_at"


def test_a_dead_grant_is_not_endorsed_but_may_be_refused(federation: Federation) -> None:
    federation.record(federation.revocation(federation.mother, federation.consent, federation.school))

    approval = federation.endorsement(federation.consent, federation.school)
    assert federation.refused_field(approval) == "endorsement.grant_id"
    federation.record(
        federation.endorsement(federation.consent, federation.school, verdict=pb.ENDORSEMENT_VERDICT_AUTHORITY_ENDED)
    )


def test_a_grant_that_was_revoked_before_its_endorsement_supersedes_nothing(federation: Federation) -> None:
    newer = federation.record(
        federation.grant(federation.mother, federation.school, federation.tutor, supersedes=[federation.consent.id])
    )
    federation.record(federation.revocation(federation.mother, newer, federation.school))

    federation.refused_field(federation.endorsement(newer, federation.school))

    capability = federation.facts.capability(federation.consent.id)
    assert capability is not None
    assert capability.ended == Reason.ALLOWED


# ---------------------------------------------------------------------------------------------- delegations


def test_the_grantee_passes_on_what_it_holds_and_so_does_its_delegatee(federation: Federation) -> None:
    first = federation.record(
        federation.delegation(
            federation.tutor, federation.consent, federation.club, onward_parties=[federation.camp.id]
        )
    )
    second = federation.record(federation.delegation(federation.club, first, federation.camp))

    delegated = federation.facts.delegated(second.id)
    assert delegated is not None
    assert delegated.grant_id == federation.consent.id
    assert [each.id for each in chain_of(federation.facts, second.id)] == [first.id, second.id]


def test_who_does_not_hold_a_grant_passes_nothing_on(federation: Federation) -> None:
    federation.refused(
        AuthorityError, federation.delegation(federation.club, federation.consent, federation.camp), match="not hold"
    )
    first = federation.record(
        federation.delegation(
            federation.tutor, federation.consent, federation.club, onward_parties=[federation.camp.id]
        )
    )
    federation.refused(
        AuthorityError, federation.delegation(federation.tutor, first, federation.camp), match="not hold"
    )


def test_a_delegation_that_widens_is_refused_by_its_dimension(federation: Federation) -> None:
    wide = federation.delegation(
        federation.tutor, federation.consent, federation.club, sections=["personal", "transcript"]
    )

    error = federation.refused(AttenuationError, wide)
    assert isinstance(error, AttenuationError)
    assert error.dimension == "sections"


def test_a_delegation_is_measured_against_the_delegation_above_it(federation: Federation) -> None:
    first = federation.record(
        federation.delegation(
            federation.tutor,
            federation.consent,
            federation.club,
            sections=["transcript.grades"],
            onward_parties=[federation.camp.id],
        )
    )

    federation.refused(
        AttenuationError, federation.delegation(federation.club, first, federation.camp, sections=["transcript"])
    )


def test_a_delegation_of_something_unknown_is_refused(federation: Federation) -> None:
    unknown = federation.grant(federation.mother, federation.school, federation.tutor)
    signed = federation.delegation(federation.tutor, unknown, federation.club)

    assert federation.refused_field(signed) == "delegation.parent_id"


def test_a_delegation_must_be_well_formed(federation: Federation) -> None:
    signed = federation.delegation(federation.tutor, federation.consent, federation.club, onward_parties=[])

    assert federation.refused_field(signed) == "delegation.onward_parties"


def test_a_person_passes_nothing_on(federation: Federation) -> None:
    own = federation.record(
        federation.grant(
            federation.mother,
            federation.school,
            federation.father,
            purpose=pb.PURPOSE_FAMILY,
            delegation_depth=1,
            onward_parties=[federation.club.id],
        )
    )

    federation.refused(AuthorityError, federation.delegation(federation.father, own, federation.club))


# ---------------------------------------------------------------------------------------------- revocations


def test_a_revocation_of_something_unknown_is_refused(federation: Federation) -> None:
    unknown = federation.grant(federation.mother, federation.school, federation.tutor)

    assert (
        federation.refused_field(federation.revocation(federation.mother, unknown, federation.school))
        == "revocation.target_id"
    )


def test_a_stranger_revokes_nothing(federation: Federation) -> None:
    federation.refused(AuthorityError, federation.revocation(federation.father, federation.consent, federation.school))


def test_a_guardian_whom_the_latest_approval_names_may_revoke_also_after_a_refusal(federation: Federation) -> None:
    federation.record(federation.endorsement(federation.consent, federation.school, guardians=[federation.father]))
    federation.record(
        federation.endorsement(federation.consent, federation.school, verdict=pb.ENDORSEMENT_VERDICT_OBJECTED)
    )

    federation.record(federation.revocation(federation.father, federation.consent, federation.school))


def test_the_grantee_revokes_with_its_current_key_and_not_with_its_root(federation: Federation) -> None:
    with_root = Party("tutor", federation.tutor.root, federation.tutor.root, federation.tutor.sealing)
    federation.refused(
        AuthorityError,
        federation.revocation(with_root, federation.consent, federation.school, "GRANTEE"),
        match="online key",
    )

    federation.record(federation.revocation(federation.tutor, federation.consent, federation.school, "GRANTEE"))


def test_a_thief_of_an_earlier_key_revokes_nothing(federation: Federation) -> None:
    federation.record(federation.key_cert(federation.tutor.with_online_key(2), 2))
    stolen = federation.revocation(federation.tutor, federation.consent, federation.school, "GRANTEE")

    federation.refused(AuthorityError, stolen)
    federation.refused(AuthorityError, stolen, pushed=True)


def test_a_pushed_revocation_counts_although_its_key_has_expired_meanwhile(federation: Federation) -> None:
    signed = federation.revocation(federation.tutor, federation.consent, federation.school, "GRANTEE")
    federation.pass_time(301 * DAY)

    federation.refused(AuthorityError, signed, match="ended")
    federation.record(signed, pushed=True)


def test_a_person_who_is_grantee_revokes_with_her_own_key(federation: Federation) -> None:
    own = federation.record(
        federation.grant(federation.mother, federation.school, federation.father, purpose=pb.PURPOSE_FAMILY)
    )

    federation.record(federation.revocation(federation.father, own, federation.school, "GRANTEE"))


def test_a_grantee_without_standing_that_signs_by_another_key_revokes_nothing(federation: Federation) -> None:
    grant = federation.record(
        federation.grant(federation.mother, federation.school, federation.organization("unadmitted"))
    )

    federation.refused(
        AuthorityError,
        federation.revocation(federation.organization("unadmitted"), grant, federation.school, "GRANTEE"),
    )


def test_a_grantee_that_was_suspended_unadmitted_revokes_with_its_own_key(federation: Federation) -> None:
    barred = federation.person("barred")
    grant = federation.record(federation.grant(federation.mother, federation.school, barred))
    federation.record(federation.suspension(barred))

    federation.record(federation.revocation(barred, grant, federation.school, "GRANTEE"))


def test_a_delegation_is_revoked_by_whoever_stands_above_it(federation: Federation) -> None:
    first = federation.record(federation.delegation(federation.tutor, federation.consent, federation.club))

    federation.record(federation.revocation(federation.mother, first, federation.school))

    delegated = federation.facts.delegated(first.id)
    assert delegated is not None
    assert delegated.ended == Reason.DELEGATION_REVOKED


# ---------------------------------------------------------------------------------------------- acknowledgements


def test_the_node_that_a_grant_names_acknowledges_its_revocation(federation: Federation) -> None:
    revocation = federation.record(federation.revocation(federation.mother, federation.consent, federation.school))

    federation.record(federation.acknowledgement(federation.school, revocation))


def test_another_node_cannot_acknowledge_it(federation: Federation) -> None:
    revocation = federation.record(federation.revocation(federation.mother, federation.consent, federation.school))

    federation.refused(
        AuthorityError, federation.acknowledgement(federation.other_school, revocation), match="must act on it"
    )


def test_nobody_else_acknowledges_anything(federation: Federation) -> None:
    revocation = federation.record(federation.revocation(federation.mother, federation.consent, federation.school))

    for who in (federation.tutor, federation.organization("nobody")):
        federation.refused(AuthorityError, federation.acknowledgement(who, revocation), match="admitted node")
    old_key = federation.school
    federation.record(federation.key_cert(old_key.with_online_key(2), 2))
    federation.refused(AuthorityError, federation.acknowledgement(old_key, revocation), match="current key")


def test_what_was_not_revoked_is_not_acknowledged(federation: Federation) -> None:
    revocation = federation.revocation(federation.mother, federation.consent, federation.school)

    signed = federation.acknowledgement(federation.school, revocation)

    assert federation.refused_field(signed) == "acknowledgement.target_id"
    unknown = federation.acknowledgement(federation.school, revocation, target_id=seed("unknown"))
    assert federation.refused_field(unknown) == "acknowledgement.target_id"


def test_a_revoked_delegation_is_acknowledged_and_a_living_one_is_not(federation: Federation) -> None:
    first = federation.record(federation.delegation(federation.tutor, federation.consent, federation.club))
    revocation = federation.revocation(federation.tutor, first, federation.school, "DELEGATOR")
    assert federation.refused_field(federation.acknowledgement(federation.school, revocation)) == (
        "acknowledgement.target_id"
    )

    federation.record(revocation)

    federation.record(federation.acknowledgement(federation.school, revocation))


def test_any_node_acknowledges_the_suspension_in_force_and_no_other(federation: Federation) -> None:
    earlier = federation.suspension(federation.tutor)
    suspension = federation.record(federation.suspension(federation.tutor))

    federation.record(federation.acknowledgement(federation.school, suspension))
    federation.record(federation.acknowledgement(federation.other_school, suspension))
    assert federation.refused_field(federation.acknowledgement(federation.school, earlier)) == (
        "acknowledgement.statement_id"
    )
    federation.record(federation.admission(federation.tutor, PROVIDER))
    assert federation.refused_field(federation.acknowledgement(federation.school, suspension)) == (
        "acknowledgement.statement_id"
    )


# ---------------------------------------------------------------------------------------------- what a decision sees


def test_gathered_facts_hold_what_the_query_names(federation: Federation) -> None:
    endorsement = federation.record(federation.endorsement(federation.consent, federation.school))
    first = federation.record(federation.delegation(federation.tutor, federation.consent, federation.club))
    query = federation.query(federation.club, federation.consent, chain=[first])

    facts = gather(federation.facts, query)

    assert facts.position == federation.facts.position
    assert facts.grant is federation.consent
    assert facts.endorsement is endorsement
    assert facts.delegations == (first,)
    assert facts.ended == {}
    assert set(facts.standings) == {federation.club.id, federation.tutor.id, federation.school.id}
    assert (facts.seen, facts.uses, facts.use_cost, facts.unfit, facts.withheld) == (
        False,
        None,
        1,
        Reason.ALLOWED,
        frozenset(),
    )


def test_gathered_facts_say_what_has_ended(federation: Federation) -> None:
    first = federation.record(federation.delegation(federation.tutor, federation.consent, federation.club))
    federation.record(federation.revocation(federation.tutor, first, federation.school, "DELEGATOR"))
    federation.record(federation.revocation(federation.mother, federation.consent, federation.school))
    query = federation.query(federation.club, federation.consent, chain=[first])

    facts = gather(federation.facts, query)

    assert facts.ended == {federation.consent.id: Reason.GRANT_REVOKED, first.id: Reason.DELEGATION_REVOKED}


def test_what_the_caller_alone_knows_is_passed_on(federation: Federation) -> None:
    facts = gather(
        federation.facts,
        federation.query(federation.tutor, federation.consent),
        seen=True,
        uses=(3,),
        use_cost=0,
        unfit=Reason.NO_LEASE,
        withheld=frozenset({"voice.goals"}),
    )

    assert (facts.seen, facts.uses, facts.use_cost, facts.unfit, facts.withheld) == (
        True,
        (3,),
        0,
        Reason.NO_LEASE,
        frozenset({"voice.goals"}),
    )


def test_what_is_unknown_is_gathered_as_unknown(federation: Federation) -> None:
    stranger = federation.person("stranger")
    unknown = federation.grant(federation.mother, federation.school, stranger)
    delegation = federation.delegation(federation.tutor, federation.consent, federation.club)

    facts = gather(federation.facts, federation.query(stranger, unknown, chain=[delegation]))

    assert (facts.grant, facts.endorsement, facts.delegations, facts.standings) == (None, None, (None,), {})


def test_a_decision_depends_on_all_whose_change_could_change_it(federation: Federation) -> None:
    first = federation.record(federation.delegation(federation.tutor, federation.consent, federation.club))
    stranger = federation.person("stranger")
    query = federation.query(stranger, federation.consent, chain=[first])

    depends = depends_on(gather(federation.facts, query), query)

    assert set(depends) == {federation.consent.id, first.id, stranger.id, federation.school.id, federation.tutor.id}
    assert len(depends) == 5


def test_a_decision_on_an_unknown_grant_depends_on_it_and_on_the_requester(federation: Federation) -> None:
    unknown = federation.grant(federation.mother, federation.school, federation.tutor)
    query = federation.query(federation.tutor, unknown)

    assert depends_on(gather(federation.facts, query), query) == (unknown.id, federation.tutor.id)


def test_the_subjects_of_a_statement_are_what_it_changes(federation: Federation) -> None:
    other = federation.grant(federation.mother, federation.school, federation.tutor, supersedes=[federation.consent.id])
    delegation = federation.delegation(federation.tutor, federation.consent, federation.club)
    revocation = federation.revocation(federation.mother, federation.consent, federation.school)

    assert subjects(other) == (other.id, federation.consent.id)
    assert subjects(delegation) == (delegation.id,)
    assert subjects(federation.endorsement(other, federation.school)) == (other.id,)
    assert subjects(revocation) == (federation.consent.id,)
    assert subjects(federation.admission(federation.club, PROVIDER)) == (federation.club.id,)
    assert subjects(federation.suspension(federation.club)) == (federation.club.id,)
    assert subjects(federation.key_cert(federation.club)) == (federation.club.id,)
    assert subjects(federation.acknowledgement(federation.school, revocation)) == ()


def test_entries_that_change_no_facts_move_the_position_alone() -> None:
    facts = MemoryFacts()

    facts.advance(17)

    assert facts.position == 17

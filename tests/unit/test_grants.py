"""permslip.grants: what makes a grant well formed, what makes a delegation narrower, and who may revoke."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.errors import AttenuationError, AuthorityError, MalformedError
from permslip.grants import (
    MAX_ENDORSEMENT_LIFETIME,
    MAX_GRANT_LIFETIME,
    PERSONAL_PURPOSES,
    Terms,
    check_delegation,
    check_endorsement,
    check_grant,
    check_revocation,
    delegation_terms,
    grant_terms,
    narrow,
    revoker_hash,
)
from permslip.statements import Signed
from tests.scenarios.world import DAY, NOW, Party, World

A, B, C = b"A" * 32, b"B" * 32, b"C" * 32
PARENT = Terms(
    actions=frozenset({pb.ACTION_READ, pb.ACTION_WATCH}),
    sections=("personal", "transcript"),
    not_before=1000,
    expires_at=2000,
    records_from="2026-01-01",
    records_until="2026-12-31",
    max_uses=10,
    depth=2,
    onward=frozenset({B, C}),
    party=A,
)
CHILD = replace(PARENT, depth=1, onward=frozenset({C}), party=B)


class Cast:
    """Who plays in these tests."""

    def __init__(self) -> None:
        self.world = World()
        self.school, self.other_school = self.world.node("school"), self.world.node("other school")
        self.tutor, self.club = self.world.provider("tutor"), self.world.provider("club")
        self.mother, self.father = self.world.person("mother"), self.world.person("father")
        self.grant = self.world.grant(self.mother, self.school, self.tutor)


@pytest.fixture
def cast() -> Cast:
    return Cast()


def changed(grant: Signed[pb.Grant], **changes: Any) -> pb.Grant:
    body = pb.Grant()
    body.CopyFrom(grant.payload)
    for name in changes:
        body.ClearField(name)  # type: ignore[arg-type]  # the name is the caller's word
    body.MergeFrom(pb.Grant(**changes))
    return body


# ---------------------------------------------------------------------------------------------- attenuation


def test_a_child_within_its_parent_is_accepted_as_it_is() -> None:
    assert narrow(PARENT, CHILD) is CHILD


@pytest.mark.parametrize(
    "changes",
    [
        {"actions": frozenset({pb.ACTION_READ})},
        {"sections": ("transcript.grades",)},
        {"not_before": 1001, "expires_at": 1999},
        {"records_from": "2026-01-02", "records_until": "2026-12-30"},
        {"records_from": "2026-12-31", "records_until": "2026-12-31"},
        {"max_uses": 1},
        {"depth": 0, "onward": frozenset()},
        {"onward": frozenset({B, C})},
        {"party": C},
    ],
)
def test_a_child_that_is_narrower_is_accepted(changes: dict[str, Any]) -> None:
    child = replace(CHILD, **changes)

    assert narrow(PARENT, child) is child


@pytest.mark.parametrize(
    ("dimension", "changes"),
    [
        ("actions", {"actions": frozenset({pb.ACTION_READ, pb.ACTION_APPEND})}),
        ("actions", {"actions": frozenset({pb.ACTION_APPEND})}),
        ("sections", {"sections": ("transcript", "voice.goals")}),
        ("sections", {"sections": ("personal.health",)}),
        ("sections", {"sections": ("transcript.songs",)}),
        ("time", {"not_before": 999}),
        ("time", {"expires_at": 2001}),
        ("dates", {"records_from": "2025-12-31"}),
        ("dates", {"records_from": ""}),
        ("dates", {"records_until": "2027-01-01"}),
        ("dates", {"records_until": ""}),
        ("uses", {"max_uses": 11}),
        ("uses", {"max_uses": 0}),
        ("depth", {"depth": 2}),
        ("depth", {"depth": 3}),
        ("parties", {"onward": frozenset({C, b"D" * 32})}),
        ("parties", {"party": b"D" * 32}),
        ("parties", {"party": A}),
    ],
)
def test_a_child_that_is_wider_is_refused_by_its_dimension(dimension: str, changes: dict[str, Any]) -> None:
    with pytest.raises(AttenuationError) as caught:
        narrow(PARENT, replace(CHILD, **changes))

    assert caught.value.dimension == dimension


def test_what_the_parent_does_not_bound_the_child_need_not_bound() -> None:
    parent = replace(PARENT, records_from="", records_until="", max_uses=0)

    for changes in ({}, {"records_from": "", "records_until": ""}, {"max_uses": 0}, {"max_uses": 10**9}):
        narrow(parent, replace(CHILD, **changes))


def test_what_may_not_be_passed_on_is_not_passed_on() -> None:
    with pytest.raises(AttenuationError) as caught:
        narrow(replace(PARENT, depth=0), replace(CHILD, depth=0, onward=frozenset()))

    assert caught.value.dimension == "depth"


def test_terms_are_read_from_every_field_of_a_grant(cast: Cast) -> None:
    grant = cast.world.grant(
        cast.mother,
        cast.school,
        cast.tutor,
        actions=[pb.ACTION_READ, pb.ACTION_APPEND],
        sections=["transcript.grades", "voice"],
        not_before=NOW + 1,
        expires_at=NOW + 2,
        records_from="2026-01-01",
        records_until="2026-01-02",
        max_uses=3,
        delegation_depth=2,
        onward_parties=[B, C],
    ).payload

    assert grant_terms(grant) == Terms(
        frozenset({pb.ACTION_READ, pb.ACTION_APPEND}),
        ("transcript.grades", "voice"),
        NOW + 1,
        NOW + 2,
        "2026-01-01",
        "2026-01-02",
        3,
        2,
        frozenset({B, C}),
        cast.tutor.id,
    )


def test_terms_of_a_delegation_are_held_by_its_delegatee(cast: Cast) -> None:
    grant = cast.world.grant(cast.mother, cast.school, cast.tutor, delegation_depth=2, onward_parties=[cast.club.id])
    delegation = cast.world.delegation(cast.tutor, grant, cast.club)

    terms = delegation_terms(delegation.payload)

    assert terms == replace(grant_terms(grant.payload), depth=1, party=cast.club.id)


# ---------------------------------------------------------------------------------------------- grants


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"not_before": NOW, "expires_at": NOW + MAX_GRANT_LIFETIME},
        {"not_before": NOW + 1, "expires_at": NOW + 2},
        {"records_from": "2026-01-01"},
        {"records_until": "2026-01-01"},
        {"records_from": "2026-01-01", "records_until": "2026-01-01"},
        {"actions": [pb.ACTION_APPEND]},
        {"actions": [pb.ACTION_READ, pb.ACTION_WATCH]},
        {"delegation_depth": 1, "onward_parties": [B]},
    ],
)
def test_a_well_formed_grant_is_accepted(changes: dict[str, Any], cast: Cast) -> None:
    check_grant(changed(cast.grant, **changes))


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("grant.expires_at", {"not_before": NOW, "expires_at": NOW}),
        ("grant.expires_at", {"not_before": NOW, "expires_at": NOW - 1}),
        ("grant.expires_at", {"not_before": NOW, "expires_at": NOW + MAX_GRANT_LIFETIME + 1}),
        ("grant.not_before", {"created_at": 1, "not_before": 2 + MAX_GRANT_LIFETIME, "expires_at": 500 * DAY}),
        ("grant.records_until", {"records_from": "2026-01-02", "records_until": "2026-01-01"}),
        ("grant.onward_parties", {"delegation_depth": 1}),
        ("grant.onward_parties", {"onward_parties": [B]}),
        ("grant.actions", {"actions": [pb.ACTION_WATCH]}),
        ("grant.actions", {"actions": [pb.ACTION_APPEND, pb.ACTION_WATCH]}),
        ("grant.sections[1]", {"sections": ["transcript", "transcript.songs"]}),
        ("grant.sections[0]", {"sections": ["identity"]}),
    ],
)
def test_a_grant_that_is_not_well_formed_is_refused_by_its_field(
    field: str, changes: dict[str, Any], cast: Cast
) -> None:
    with pytest.raises(MalformedError) as caught:
        check_grant(changed(cast.grant, **changes))

    assert caught.value.field == field


def test_a_grant_begins_at_most_400_days_after_it_was_signed(cast: Cast) -> None:
    start = cast.grant.payload.created_at + MAX_GRANT_LIFETIME

    check_grant(changed(cast.grant, not_before=start, expires_at=start + 1))


@pytest.mark.parametrize("recipients", [[B, A], [A, A]])
def test_sealed_copies_stand_in_order_without_repetition(recipients: list[bytes], cast: Cast) -> None:
    copies = [pb.SealedCopy(recipient=each, sealed=b"x") for each in recipients]
    private = pb.SealedPrivate(salted_sha256=bytes(32), copies=copies)

    with pytest.raises(MalformedError) as caught:
        check_grant(changed(cast.grant, private=private))

    assert caught.value.field == "grant.private.copies"


def test_sealed_copies_in_order_are_accepted(cast: Cast) -> None:
    copies = [pb.SealedCopy(recipient=each, sealed=b"x") for each in (A, B, C)]

    check_grant(changed(cast.grant, private=pb.SealedPrivate(salted_sha256=bytes(32), copies=copies)))


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("delegation.expires_at", {"expires_at": NOW - DAY}),
        ("delegation.records_until", {"records_from": "2026-01-02", "records_until": "2026-01-01"}),
        ("delegation.onward_parties", {"delegation_depth": 1}),
        ("delegation.actions", {"actions": [pb.ACTION_WATCH]}),
        ("delegation.sections[0]", {"sections": ["identity"]}),
    ],
)
def test_a_delegation_that_is_not_well_formed_is_refused_by_its_field(
    field: str, changes: dict[str, Any], cast: Cast
) -> None:
    delegation = cast.world.delegation(cast.tutor, cast.grant, cast.club, **changes).payload

    with pytest.raises(MalformedError) as caught:
        check_delegation(delegation)

    assert caught.value.field == field


def test_a_well_formed_delegation_is_accepted(cast: Cast) -> None:
    check_delegation(cast.world.delegation(cast.tutor, cast.grant, cast.club).payload)


def test_family_and_self_are_the_personal_purposes() -> None:
    assert sorted(PERSONAL_PURPOSES) == [pb.PURPOSE_FAMILY, pb.PURPOSE_SELF]


# ---------------------------------------------------------------------------------------------- endorsements


def test_the_word_of_the_grants_node_about_the_grant_is_accepted(cast: Cast) -> None:
    check_endorsement(cast.world.endorsement(cast.grant, cast.school), cast.grant)


def test_an_endorsement_of_another_grant_is_refused(cast: Cast) -> None:
    other = cast.world.grant(cast.mother, cast.school, cast.club)

    with pytest.raises(AuthorityError):
        check_endorsement(cast.world.endorsement(other, cast.school), cast.grant)


def test_an_endorsement_by_another_node_is_refused(cast: Cast) -> None:
    with pytest.raises(AuthorityError):
        check_endorsement(cast.world.endorsement(cast.grant, cast.other_school), cast.grant)


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("endorsement.revokers", {"revokers": []}),
        ("endorsement.valid_until", {"valid_until": 0}),
        ("endorsement.valid_until", {"created_at": NOW, "valid_until": NOW}),
        ("endorsement.valid_until", {"created_at": NOW, "valid_until": NOW + MAX_ENDORSEMENT_LIFETIME + 1}),
    ],
)
def test_an_approval_needs_revokers_and_an_end_within_30_days(field: str, changes: dict[str, Any], cast: Cast) -> None:
    with pytest.raises(MalformedError) as caught:
        check_endorsement(cast.world.endorsement(cast.grant, cast.school, **changes), cast.grant)

    assert caught.value.field == field


def test_an_approval_may_last_30_days_and_as_little_as_a_millisecond(cast: Cast) -> None:
    for end in (NOW + 1, NOW + MAX_ENDORSEMENT_LIFETIME):
        endorsement = cast.world.endorsement(cast.grant, cast.school, created_at=NOW, valid_until=end)
        check_endorsement(endorsement, cast.grant)


def test_a_refusal_needs_neither_revokers_nor_end(cast: Cast) -> None:
    refusal = cast.world.endorsement(
        cast.grant, cast.school, verdict=pb.ENDORSEMENT_VERDICT_NO_AUTHORITY, revokers=[], valid_until=0
    )

    check_endorsement(refusal, cast.grant)


def test_a_revoker_is_named_by_a_hash_over_grant_and_key() -> None:
    assert revoker_hash(A, B) == sha256(b"permslip revoker v1\x00" + A + B).digest()


# ---------------------------------------------------------------------------------------------- revocations


class Chain(Cast):
    """A grant to the tutor, passed on to the club, and by the club to the camp."""

    def __init__(self) -> None:
        super().__init__()
        self.camp = self.world.provider("camp")
        self.grant = self.world.grant(
            self.mother,
            self.school,
            self.tutor,
            delegation_depth=2,
            onward_parties=sorted([self.club.id, self.camp.id]),
        )
        self.approval = self.world.endorsement(self.grant, self.school, guardians=[self.father])
        self.first = self.world.delegation(
            self.tutor, self.grant, self.club, onward_parties=[self.camp.id], delegation_depth=1
        )
        self.second = self.world.delegation(self.club, self.first, self.camp)

    def judge(self, by: Party, role: str, *, chain: int = 0, approved: bool = True, **changes: Any) -> None:
        links = (self.first, self.second)[:chain]
        target: Signed[Any] = links[-1] if links else self.grant
        revocation = self.world.revocation(by, target, self.school, role, **changes)
        check_revocation(revocation, self.grant, self.approval if approved else None, links)


@pytest.fixture
def chain() -> Chain:
    return Chain()


@pytest.mark.parametrize(
    ("who", "role", "links"),
    [
        ("mother", "GUARDIAN", 0),
        ("father", "GUARDIAN", 0),
        ("mother", "GUARDIAN", 2),
        ("tutor", "GRANTEE", 0),
        ("school", "NODE", 0),
        ("school", "NODE", 1),
        ("club", "GRANTEE", 1),
        ("tutor", "DELEGATOR", 1),
        ("tutor", "DELEGATOR", 2),
        ("club", "DELEGATOR", 2),
        ("camp", "GRANTEE", 2),
    ],
)
def test_who_may_revoke(who: str, role: str, links: int, chain: Chain) -> None:
    chain.judge(getattr(chain, who), role, chain=links)


@pytest.mark.parametrize(
    ("who", "role", "links"),
    [
        ("tutor", "GUARDIAN", 0),
        ("mother", "GRANTEE", 0),
        ("mother", "NODE", 0),
        ("mother", "DELEGATOR", 0),
        ("tutor", "DELEGATOR", 0),
        ("club", "GRANTEE", 0),
        ("club", "DELEGATOR", 0),
        ("camp", "DELEGATOR", 2),
        ("club", "DELEGATOR", 1),
        ("tutor", "GRANTEE", 1),
        ("other_school", "NODE", 0),
        ("school", "GRANTEE", 0),
        ("tutor", "NODE", 0),
    ],
)
def test_who_may_not_revoke(who: str, role: str, links: int, chain: Chain) -> None:
    with pytest.raises(AuthorityError):
        chain.judge(getattr(chain, who), role, chain=links)


def test_a_guardian_who_did_not_sign_needs_the_schools_word(chain: Chain) -> None:
    chain.judge(chain.mother, "GUARDIAN", approved=False)

    with pytest.raises(AuthorityError):
        chain.judge(chain.father, "GUARDIAN", approved=False)


def test_a_guardians_key_under_another_root_revokes_nothing(chain: Chain) -> None:
    disguised = pb.Signer(root=chain.club.id, key=chain.mother.id)

    with pytest.raises(AuthorityError):
        chain.judge(chain.mother, "GUARDIAN", signer=disguised)


def test_a_right_to_revoke_one_grant_is_none_to_revoke_another(chain: Chain) -> None:
    other = chain.world.grant(chain.mother, chain.school, chain.club)
    approval = chain.world.endorsement(other, chain.school)
    mistaken = chain.world.revocation(chain.father, other, chain.school)

    with pytest.raises(AuthorityError):
        # the father's hash stands in the approval of the first grant only
        check_revocation(mistaken, other, approval)
    stolen = chain.world.endorsement(other, chain.school, revokers=list(chain.approval.payload.revokers))
    with pytest.raises(AuthorityError):
        check_revocation(mistaken, other, stolen)


@pytest.mark.parametrize("changes", [{"target_id": A}, {"node": A}])
def test_a_revocation_must_name_target_and_node(changes: dict[str, Any], chain: Chain) -> None:
    with pytest.raises(AuthorityError, match="another target or node"):
        chain.judge(chain.mother, "GUARDIAN", **changes)


def test_a_revocation_of_the_grant_is_none_of_the_delegation(chain: Chain) -> None:
    of_grant = chain.world.revocation(chain.mother, chain.grant, chain.school)

    with pytest.raises(AuthorityError, match="another target or node"):
        check_revocation(of_grant, chain.grant, chain.approval, (chain.first,))

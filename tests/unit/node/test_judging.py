"""Who may consent for a learner: the roster's rules, without network or database."""

from __future__ import annotations

from dataclasses import replace

import pytest

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.grants import MAX_ENDORSEMENT_LIFETIME
from permslip.quantities import Handle, Millis
from permslip_node.judging import MAX_REVOKERS, Judgement, judge
from permslip_node.roster import Authority, Guardian

NOW = Millis(1_790_000_000_000)
DAY = 86_400_000
PROVIDER = b"T" * 32
ENDORSED = pb.ENDORSEMENT_VERDICT_ENDORSED

MOTHER = Guardian("P1", "Mother", "Mother", keys=(b"m" * 32,))
FATHER = Guardian("P2", "Father", "Father", keys=(b"f" * 32,))
LEARNER = Guardian("self", "Ada", "Self", keys=(b"l" * 32,), is_learner=True)


def family(*persons: Guardian, rule: str = "any", majority_at: int = 0) -> Authority:
    return Authority(Handle(b"h" * 16), "604822", "Ada", rule, True, majority_at, persons)


def grant(
    *signers: Guardian, grantee: bytes = PROVIDER, purpose: pb.Purpose.ValueType = pb.PURPOSE_TUTORING
) -> pb.Grant:
    return pb.Grant(
        granted_by=sorted(each.keys[0] for each in signers),
        grantee=grantee,
        purpose=purpose,
        expires_at=NOW + 100 * DAY,
    )


def judged(
    given: pb.Grant, authority: Authority | None, *, provider: bool = True, before: bool = False, now: Millis = NOW
) -> Judgement:
    return judge(given, authority, provider_admitted=provider, approved_before=before, now=now)


def test_any_one_guardian_may_consent_and_every_guardian_may_revoke() -> None:
    judgement = judged(grant(MOTHER), family(MOTHER, FATHER))
    assert (judgement.verdict, judgement.rule) == (ENDORSED, "any")
    assert judgement.revokers == (b"f" * 32, b"m" * 32)
    assert judgement.valid_until == NOW + MAX_ENDORSEMENT_LIFETIME


def test_where_guardians_are_hidden_from_one_another_only_who_signed_may_revoke() -> None:
    hidden = replace(family(MOTHER, FATHER), visible=False)
    assert judged(grant(MOTHER), hidden).revokers == (b"m" * 32,)
    assert judged(grant(MOTHER, FATHER), hidden).revokers == (b"f" * 32, b"m" * 32)
    new_phone = replace(MOTHER, keys=(b"n" * 32,), retired_keys=MOTHER.keys)
    hidden = replace(family(new_phone, FATHER), visible=False)
    assert judged(grant(MOTHER), hidden, before=True).revokers == (b"m" * 32, b"n" * 32)


def test_endorsement_never_outlives_the_grant_or_the_learners_minority() -> None:
    short = grant(MOTHER)
    short.expires_at = NOW + DAY
    assert judged(short, family(MOTHER)).valid_until == NOW + DAY
    assert judged(grant(MOTHER), family(MOTHER, majority_at=NOW + 2 * DAY)).valid_until == NOW + 2 * DAY


def test_grant_that_has_ended_is_not_endorsed() -> None:
    over = grant(MOTHER)
    over.expires_at = NOW
    assert judged(over, family(MOTHER)).verdict == pb.ENDORSEMENT_VERDICT_TERMS_REFUSED


def test_handle_that_nobody_was_given_is_unknown() -> None:
    assert judged(grant(MOTHER), None).verdict == pb.ENDORSEMENT_VERDICT_UNKNOWN_HANDLE


@pytest.mark.parametrize(
    ("person", "verdict"),
    [
        (replace(MOTHER, keys=()), pb.ENDORSEMENT_VERDICT_NO_AUTHORITY),
        (replace(MOTHER, keys=(), retired_keys=MOTHER.keys), pb.ENDORSEMENT_VERDICT_NO_AUTHORITY),
        (replace(MOTHER, holds_authority=False), pb.ENDORSEMENT_VERDICT_NO_AUTHORITY),
        (replace(MOTHER, suspended=True), pb.ENDORSEMENT_VERDICT_SUSPENDED),
    ],
)
def test_signer_without_authority_is_refused_by_reason(
    person: Guardian, verdict: pb.EndorsementVerdict.ValueType
) -> None:
    assert judged(grant(MOTHER), family(person, FATHER)).verdict == verdict
    assert judged(grant(MOTHER, FATHER), family(person, FATHER)).verdict == verdict


def test_all_needs_everybody_also_those_without_a_key_but_not_the_suspended() -> None:
    not_linked = replace(FATHER, keys=())
    assert judged(grant(MOTHER), family(MOTHER, FATHER, rule="all")).verdict == pb.ENDORSEMENT_VERDICT_QUORUM_NOT_MET
    assert (
        judged(grant(MOTHER), family(MOTHER, not_linked, rule="all")).verdict == pb.ENDORSEMENT_VERDICT_QUORUM_NOT_MET
    )
    assert judged(grant(MOTHER), family(MOTHER, replace(FATHER, suspended=True), rule="all")).verdict == ENDORSED
    assert judged(grant(MOTHER, FATHER), family(MOTHER, FATHER, rule="all")).verdict == ENDORSED


def test_two_keys_of_one_person_are_one_person() -> None:
    twice = replace(MOTHER, keys=(b"m" * 32, b"n" * 32))
    given = grant(MOTHER)
    given.granted_by.append(b"n" * 32)
    assert judged(given, family(twice, FATHER, rule="all")).verdict == pb.ENDORSEMENT_VERDICT_QUORUM_NOT_MET


def test_what_another_guardian_revoked_comes_back_only_with_everybodys_signature() -> None:
    vetoed = replace(family(MOTHER, FATHER), vetoes=frozenset({(PROVIDER, "P2")}))
    assert judged(grant(MOTHER), vetoed).verdict == pb.ENDORSEMENT_VERDICT_REVOKED_BEFORE
    assert judged(grant(FATHER), vetoed).verdict == ENDORSED
    assert judged(grant(MOTHER, FATHER), vetoed).verdict == ENDORSED
    assert judged(grant(MOTHER, grantee=b"O" * 32), vetoed).verdict == ENDORSED
    suspended = replace(vetoed, persons=(MOTHER, replace(FATHER, suspended=True)))
    assert judged(grant(MOTHER), suspended).verdict == ENDORSED


def test_endorsed_grant_outlives_one_signers_suspension_only_if_the_others_meet_the_quorum() -> None:
    suspended = replace(MOTHER, suspended=True)
    assert judged(grant(MOTHER), family(suspended, FATHER), before=True).verdict == pb.ENDORSEMENT_VERDICT_SUSPENDED
    assert judged(grant(MOTHER, FATHER), family(suspended, FATHER), before=True).verdict == ENDORSED
    assert judged(grant(MOTHER, FATHER), family(suspended, FATHER)).verdict == pb.ENDORSEMENT_VERDICT_SUSPENDED


def test_endorsed_grant_outlives_the_loss_of_the_phone_that_signed_it() -> None:
    new_phone = replace(MOTHER, keys=(b"n" * 32,), retired_keys=MOTHER.keys)
    judgement = judged(grant(MOTHER), family(new_phone), before=True)
    assert (judgement.verdict, judgement.revokers) == (ENDORSED, (b"m" * 32, b"n" * 32))


def test_suspended_guardian_is_no_longer_among_those_who_may_revoke_what_others_signed() -> None:
    judgement = judged(grant(MOTHER), family(MOTHER, replace(FATHER, suspended=True)), before=True)
    assert judgement.revokers == (b"m" * 32,)


def test_from_majority_on_the_learner_alone_decides() -> None:
    before = family(MOTHER, LEARNER, majority_at=NOW + 1)
    after = family(MOTHER, LEARNER, majority_at=NOW)
    assert judged(grant(MOTHER), before).verdict == ENDORSED
    assert judged(grant(LEARNER), before).verdict == pb.ENDORSEMENT_VERDICT_NO_AUTHORITY
    assert judged(grant(MOTHER), after).verdict == pb.ENDORSEMENT_VERDICT_AUTHORITY_ENDED
    assert judged(grant(MOTHER), after, before=True).verdict == pb.ENDORSEMENT_VERDICT_AUTHORITY_ENDED
    assert judged(grant(LEARNER), after).verdict == ENDORSED


def test_grantee_is_an_admitted_provider_or_for_family_purposes_one_of_the_family() -> None:
    authority = family(MOTHER, FATHER, LEARNER, replace(MOTHER, person_id="P3", keys=(b"s" * 32,), suspended=True))
    refused = pb.ENDORSEMENT_VERDICT_TERMS_REFUSED
    assert judged(grant(MOTHER), authority, provider=False).verdict == refused

    def to(grantee: bytes, purpose: pb.Purpose.ValueType) -> pb.EndorsementVerdict.ValueType:
        return judged(grant(MOTHER, grantee=grantee, purpose=purpose), authority, provider=False).verdict

    assert to(b"m" * 32, pb.PURPOSE_FAMILY) == ENDORSED
    assert to(b"f" * 32, pb.PURPOSE_FAMILY) == ENDORSED
    assert to(b"l" * 32, pb.PURPOSE_SELF) == ENDORSED
    assert to(b"m" * 32, pb.PURPOSE_SELF) == refused
    assert to(b"m" * 32, pb.PURPOSE_TUTORING) == refused
    assert to(b"?" * 32, pb.PURPOSE_FAMILY) == refused
    assert to(b"s" * 32, pb.PURPOSE_FAMILY) == pb.ENDORSEMENT_VERDICT_SUSPENDED


def test_consent_waits_for_a_provider_that_is_suspended_for_a_while() -> None:
    assert judged(grant(MOTHER), family(MOTHER), provider=False, before=True).verdict == ENDORSED


def test_signers_are_always_among_the_revokers_however_many_guardians_there_are() -> None:
    crowd = [Guardian(f"P{n}", "", "", keys=(bytes([n]) * 32,)) for n in range(60)]
    judgement = judged(grant(crowd[59]), family(*crowd))
    assert len(judgement.revokers) == MAX_REVOKERS
    assert crowd[59].keys[0] in judgement.revokers
    assert list(judgement.revokers) == sorted(judgement.revokers)

"""Consents: one grant for each school, whose private words only the school and the grantee can read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, strategies as some

from permslip import statements as st
from permslip._pb.permslip.v1 import session_pb2, statement_pb2 as pb
from permslip.consents import (
    PURPOSES,
    ConsentTerms,
    cosign,
    make_grant,
    make_revocation,
    open_private,
    purpose_code,
    sign_in_part,
)
from permslip.directory import Directory
from permslip.errors import AuthorityError, MalformedError, SealError, SignatureError
from permslip.grant_views import GrantStatus, GrantView, view_of
from permslip.keys import SealingKey, SigningKey
from permslip.notices import check_notice
from permslip.quantities import Millis

FED = "fed.example"
PARENT, FATHER, STRANGER = (SigningKey.from_seed(each * 32) for each in (b"p", b"f", b"x"))
SCHOOL, SCHOOL_ROOT = SigningKey.from_seed(b"s" * 32), SigningKey.from_seed(b"r" * 32).public.raw
NODE_SEAL, TUTOR_SEAL, OTHER_SEAL = (SealingKey.from_seed(each * 32) for each in (b"1", b"2", b"3"))
TUTOR = SigningKey.from_seed(b"t" * 32).public.raw
NAMES = {SCHOOL_ROOT: "Lincoln Elementary", TUTOR: "Ana's Tutoring"}
T = Millis(1_790_000_000_000)
DAY = 86_400_000
TERMS = ConsentTerms(
    grantee=TUTOR,
    sections=("transcript.grades", "personal.attendance"),
    purpose=pb.PURPOSE_TUTORING,
    purpose_text="Help with reading",
    expires_at=T + 90 * DAY,
    relationship="Mother",
    reference="learner-17",
)
PLACE = pb.Slice(node=SCHOOL_ROOT, handle=b"h" * 16)


def grant(terms: ConsentTerms = TERMS, *, signers: tuple[SigningKey, ...] = (PARENT,)) -> pb.Grant:
    return make_grant(
        terms,
        PLACE,
        federation=FED,
        granted_by=[each.public.raw for each in signers],
        names=NAMES,
        recipients=[NODE_SEAL.public, TUTOR_SEAL.public],
        now=T,
    )


def signed_grant(terms: ConsentTerms = TERMS) -> st.Signed[pb.Grant]:
    return st.sign(st.GRANT, grant(terms), [PARENT])


def test_a_grant_is_complete_and_is_believed() -> None:
    signed = signed_grant()

    assert st.verify(st.GRANT, signed.envelope, federation=FED).id == signed.id
    assert list(signed.payload.sections) == ["personal.attendance", "transcript.grades"]


@pytest.mark.parametrize("reader", [NODE_SEAL, TUTOR_SEAL], ids=["node", "grantee"])
def test_node_and_grantee_read_the_private_part(reader: SealingKey) -> None:
    private = open_private(signed_grant().payload, reader)

    assert (private.purpose_text, private.relationship, private.reference) == (
        "Help with reading",
        "Mother",
        "learner-17",
    )


def test_nobody_else_reads_the_private_part() -> None:
    with pytest.raises(SealError, match="not sealed to this key"):
        open_private(signed_grant().payload, OTHER_SEAL)


def test_a_private_part_taken_from_another_grant_is_refused() -> None:
    mine, other = grant(), grant(replace(TERMS, reference="learner-18"))
    del mine.private.copies[:]
    mine.private.copies.extend(other.private.copies)

    with pytest.raises(SealError, match="not the one that the parent signed"):
        open_private(mine, TUTOR_SEAL)


def test_a_private_part_of_another_learner_does_not_open() -> None:
    moved = grant()
    moved.slice.handle = b"i" * 16

    with pytest.raises(SealError, match="another purpose"):
        open_private(moved, TUTOR_SEAL)


def test_the_notice_that_was_shown_can_be_proved_from_the_grant() -> None:
    signed = signed_grant()

    notice = check_notice(signed.payload, open_private(signed.payload, NODE_SEAL), names=NAMES)

    assert "> Help with reading" in notice.text


def test_two_grants_of_one_consent_share_no_random_value() -> None:
    one, other = grant(), grant()

    assert one.nonce != other.nonce
    assert one.notice.salted_sha256 != other.notice.salted_sha256
    assert one.private.salted_sha256 != other.private.salted_sha256


def test_nothing_private_stands_in_clear_in_what_the_broker_sees() -> None:
    raw = signed_grant().raw

    assert not [word for word in (b"reading", b"Mother", b"learner-17", b"Lincoln", b"Ana") if word in raw]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"sections": ()}, "grant.sections"),
        ({"sections": ("personal.horoscope",)}, r"grant.sections\[0\]"),
        ({"purpose_text": ""}, "grant.private.purpose_text"),
        ({"grantee": b""}, "grant.grantee"),
        ({"purpose": pb.PURPOSE_UNSPECIFIED}, "grant.purpose"),
        ({"expires_at": T - DAY}, "grant.expires_at"),
        ({"expires_at": T + 401 * DAY}, "grant.expires_at"),
        ({"delegation_depth": 1}, "grant.onward_parties"),
    ],
    ids=lambda each: next(iter(each)) if isinstance(each, dict) else "",
)
def test_a_consent_without_what_the_law_demands_is_refused_by_the_fields_name(
    changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(MalformedError, match=field):
        grant(replace(TERMS, **changes))


def test_every_purpose_has_a_name() -> None:
    assert purpose_code("Tutoring") == pb.PURPOSE_TUTORING
    assert len(PURPOSES) == len(pb.Purpose.values()) - 1
    with pytest.raises(MalformedError, match="Choose one of: instruction, tutoring"):
        purpose_code("marketing")


def test_two_guardians_sign_the_same_bytes_one_after_the_other() -> None:
    first = sign_in_part(grant(signers=(PARENT, FATHER)), [PARENT])
    with pytest.raises(SignatureError, match="missing"):
        st.verify(st.GRANT, first, federation=FED)

    both = cosign(first, FATHER, federation=FED)

    assert st.verify(st.GRANT, both, federation=FED).payload.grantee == TUTOR


@pytest.mark.parametrize(
    ("key", "federation", "error"),
    [
        (STRANGER, FED, SignatureError),
        (PARENT, FED, SignatureError),
        (FATHER, "other.example", MalformedError),
    ],
    ids=["a key not named", "twice the same", "another federation"],
)
def test_only_those_named_add_their_signature(key: SigningKey, federation: str, error: type[Exception]) -> None:
    first = sign_in_part(grant(signers=(PARENT, FATHER)), [PARENT])

    with pytest.raises(error):
        cosign(first, key, federation=federation)


def test_what_was_altered_after_the_first_signature_is_not_cosigned() -> None:
    first = sign_in_part(grant(signers=(PARENT, FATHER)), [PARENT])
    first.payload = grant(signers=(PARENT, FATHER)).SerializeToString(deterministic=True)

    with pytest.raises(SignatureError, match="invalid"):
        cosign(first, FATHER, federation=FED)


def test_only_grants_are_cosigned() -> None:
    with pytest.raises(MalformedError, match="expected a grant"):
        cosign(revocation(signed_grant()).envelope, PARENT, federation=FED)


# ------------------------------------------------------------------------------------------------ views


def revocation(target: st.Signed[pb.Grant]) -> st.Signed[pb.Revocation]:
    return make_revocation(
        target.id,
        SCHOOL_ROOT,
        federation=FED,
        signer=pb.Signer(root=PARENT.public.raw, key=PARENT.public.raw),
        role=pb.REVOKER_ROLE_GUARDIAN,
        key=PARENT,
        now=T,
    )


def endorsement(
    target: bytes,
    verdict: pb.EndorsementVerdict.ValueType = pb.ENDORSEMENT_VERDICT_ENDORSED,
    *,
    root: bytes = SCHOOL_ROOT,
) -> pb.Envelope:
    payload = pb.Endorsement(
        federation=FED,
        nonce=bytes(15) + b"1",
        created_at=T,
        signer=pb.Signer(root=root, key=SCHOOL.public.raw),
        grant_id=target,
        verdict=verdict,
        quorum_rule="any",
    )
    return st.sign(st.ENDORSEMENT, payload, [SCHOOL]).envelope


def acknowledgement(of: st.Signed[pb.Revocation], target: bytes) -> pb.Envelope:
    payload = pb.Acknowledgement(
        federation=FED,
        nonce=bytes(15) + b"1",
        created_at=T,
        signer=pb.Signer(root=SCHOOL_ROOT, key=SCHOOL.public.raw),
        statement_id=of.id,
        target_id=target,
        ledger_size=9,
    )
    return st.sign(st.ACKNOWLEDGEMENT, payload, [SCHOOL]).envelope


def view(state: session_pb2.GrantState, now: int = T) -> GrantView:
    directory = Directory(federation=FED, operator=STRANGER.public.raw)
    return view_of(state, federation=FED, directory=directory, sealing=TUTOR_SEAL, now=Millis(now))


GRANTED = signed_grant()
REVOKED = revocation(GRANTED)


@pytest.mark.parametrize(
    ("state", "now", "status"),
    [
        ({}, T, GrantStatus.PENDING),
        ({"endorsement": endorsement(GRANTED.id)}, T, GrantStatus.ACTIVE),
        ({"endorsement": endorsement(GRANTED.id)}, T + 90 * DAY, GrantStatus.EXPIRED),
        (
            {"endorsement": endorsement(GRANTED.id, pb.ENDORSEMENT_VERDICT_QUORUM_NOT_MET)},
            T,
            GrantStatus.REFUSED,
        ),
        (
            {"endorsement": endorsement(GRANTED.id, pb.ENDORSEMENT_VERDICT_AUTHORITY_ENDED)},
            T,
            GrantStatus.AUTHORITY_ENDED,
        ),
        ({"revocation": REVOKED.envelope}, T, GrantStatus.REVOKING),
        (
            {"revocation": REVOKED.envelope, "acknowledgement": acknowledgement(REVOKED, GRANTED.id)},
            T,
            GrantStatus.REVOKED,
        ),
        ({"status": session_pb2.GRANT_STATUS_SUPERSEDED}, T, GrantStatus.SUPERSEDED),
        ({"status": session_pb2.GRANT_STATUS_ACTIVE}, T, GrantStatus.PENDING),
        ({"status": session_pb2.GRANT_STATUS_REVOKED}, T, GrantStatus.PENDING),
    ],
    ids=[
        "nothing said",
        "endorsed",
        "ended",
        "refused",
        "authority ended",
        "revoked, not acknowledged",
        "acknowledged",
        "superseded",
        "the broker says active without endorsement",
        "the broker says revoked without revocation",
    ],
)
def test_the_status_follows_from_what_was_signed(state: dict[str, Any], now: int, status: GrantStatus) -> None:
    assert view(session_pb2.GrantState(grant=GRANTED.envelope, **state), now).status == status


def test_a_view_reads_what_the_parent_wrote_for_the_grantee() -> None:
    seen = view(session_pb2.GrantState(grant=GRANTED.envelope, consent_id=b"c" * 16))

    assert (seen.reference, seen.purpose_text, seen.purpose) == ("learner-17", "Help with reading", "tutoring")
    assert seen.to_dict()["sections"] == ["personal.attendance", "transcript.grades"]
    assert not seen.confirmed


def test_a_view_in_a_log_tells_nothing_that_the_parent_wrote_for_the_grantee() -> None:
    shown = repr(view(session_pb2.GrantState(grant=GRANTED.envelope)))

    assert GRANTED.id.hex() in shown
    assert "personal.attendance, transcript.grades for tutoring until" in shown
    assert "learner-17" not in shown
    assert "Help with reading" not in shown
    assert repr(GRANTED) == f"<Signed grant {GRANTED.id.hex()}>"


def test_a_refusal_says_which() -> None:
    seen = view(
        session_pb2.GrantState(
            grant=GRANTED.envelope, endorsement=endorsement(GRANTED.id, pb.ENDORSEMENT_VERDICT_SUSPENDED)
        )
    )

    assert seen.refused_because == "SUSPENDED"


OTHER = signed_grant(replace(TERMS, reference="other"))


@pytest.mark.parametrize(
    "state",
    [
        {"grant_id": OTHER.id},
        {"endorsement": endorsement(OTHER.id)},
        {"endorsement": endorsement(GRANTED.id, root=TUTOR)},
        {"revocation": revocation(OTHER).envelope},
        {"revocation": REVOKED.envelope, "acknowledgement": acknowledgement(REVOKED, OTHER.id)},
    ],
    ids=["id", "endorsement of another grant", "endorsement by another node", "revocation", "acknowledgement"],
)
def test_statements_about_something_else_are_refused(state: dict[str, Any]) -> None:
    with pytest.raises(AuthorityError):
        view(session_pb2.GrantState(grant=GRANTED.envelope, **state))


def delegation(parent: bytes, holder: SigningKey, to: bytes) -> st.Signed[pb.Delegation]:
    payload = pb.Delegation(
        federation=FED,
        nonce=bytes(15) + b"1",
        created_at=T,
        signer=pb.Signer(root=holder.public.raw, key=holder.public.raw),
        parent_id=parent,
        delegatee=to,
        actions=[pb.ACTION_READ],
        sections=["transcript.grades"],
        not_before=T,
        expires_at=T + DAY,
    )
    return st.sign(st.DELEGATION, payload, [holder])


def test_the_chain_of_delegations_leads_from_the_grant_to_its_holder() -> None:
    first = delegation(GRANTED.id, STRANGER, FATHER.public.raw)
    second = delegation(first.id, FATHER, SCHOOL_ROOT)
    seen = view(session_pb2.GrantState(grant=GRANTED.envelope, delegations=[second.envelope, first.envelope]))

    assert seen.chain_to(TUTOR) == ()
    assert seen.chain_to(FATHER.public.raw) == (first.id,)
    assert seen.chain_to(SCHOOL_ROOT) == (first.id, second.id)
    with pytest.raises(AuthorityError, match="no delegation leads here"):
        seen.chain_to(PARENT.public.raw)


@given(some.integers(0, 2000))
def test_flipping_any_bit_of_the_sealed_copy_is_noticed(place: int) -> None:
    altered = pb.Grant.FromString(GRANTED.envelope.payload)
    copy = next(each for each in altered.private.copies if each.recipient == TUTOR_SEAL.public)
    raw = bytearray(copy.sealed)
    raw[place % len(raw)] ^= 1 << place % 8
    copy.sealed = bytes(raw)

    with pytest.raises(SealError):
        open_private(altered, TUTOR_SEAL)

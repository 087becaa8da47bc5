"""permslip.witnesses: who chose the witnesses, who let them be changed, and whose cosignatures count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from permslip import statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.checkpoints import (
    Checkpoint,
    CosignatureSigner,
    cosign,
    open_checkpoint,
    sign_checkpoint,
)
from permslip.errors import AuthorityError, MalformedError, PermslipError, ProofError, SignatureError
from permslip.keys import SigningKey
from permslip.merkle import leaf_hash
from permslip.notes import Ed25519Signer, append_signatures
from permslip.statements import Signed
from permslip.witnesses import (
    add_signature,
    begin_witness_set,
    check_witness_set,
    missing_signatures,
    verify_witness_sets,
    witness_name,
    witness_policy,
)

FEDERATION = "fed.example"
NOW = 1_790_000_000_000
OPERATOR = SigningKey.from_seed(bytes([1] * 32))
ROOTS = [SigningKey.from_seed(bytes([10 + number] * 32)) for number in range(5)]
ONLINE = {root.public.raw: SigningKey.from_seed(bytes([30 + number] * 32)) for number, root in enumerate(ROOTS)}
LOG_KEY = SigningKey.from_seed(bytes([9] * 32))
LOG = Ed25519Signer("fed.example/broker", LOG_KEY)


def payload_of(roots: Sequence[SigningKey], quorum: int, **changes: Any) -> pb.WitnessSet:
    given: dict[str, Any] = {
        "federation": FEDERATION,
        "nonce": bytes([len(roots)] * 16),
        "created_at": NOW,
        "signer": pb.Signer(root=OPERATOR.public.raw, key=OPERATOR.public.raw),
        "seq": 1,
        "witnesses": sorted(each.public.raw for each in roots),
        "quorum": quorum,
    }
    return pb.WitnessSet(**given | changes)


def first(roots: Sequence[SigningKey] = ROOTS[:3], quorum: int = 2, **changes: Any) -> Signed[pb.WitnessSet]:
    return st.sign(st.WITNESS_SET, payload_of(roots, quorum, **changes), [OPERATOR])


def changed(
    before: Signed[pb.WitnessSet],
    roots: Sequence[SigningKey] = ROOTS[1:4],
    *,
    signers: Sequence[SigningKey] = ROOTS[:2],
    **changes: Any,
) -> Signed[pb.WitnessSet]:
    given: dict[str, Any] = {
        "quorum": 2,
        "seq": before.payload.seq + 1,
        "replaces": before.id,
        "old_witnesses": sorted(each.public.raw for each in signers),
    }
    return st.sign(st.WITNESS_SET, payload_of(roots, **given | changes), [OPERATOR, *signers])


def newest_of(*sets: Signed[pb.WitnessSet]) -> Signed[pb.WitnessSet]:
    return verify_witness_sets([each.envelope for each in sets], federation=FEDERATION, operator=OPERATOR.public.raw)


# --------------------------------------------------------------------------------------- the first set


def test_the_first_set_is_the_operators_word() -> None:
    assert newest_of(first()).payload.quorum == 2


def test_a_set_by_somebody_else_is_refused() -> None:
    other = ROOTS[0]
    signer = pb.Signer(root=other.public.raw, key=other.public.raw)
    forged = st.sign(st.WITNESS_SET, payload_of(ROOTS[:3], 2, signer=signer), [other])

    with pytest.raises(AuthorityError, match="not signed by the federation's operator"):
        newest_of(forged)


def test_a_set_of_another_federation_is_refused() -> None:
    with pytest.raises(MalformedError, match=r"witness-set\.federation"):
        newest_of(first(federation="other.example"))


@pytest.mark.parametrize(("count", "quorum"), [(1, 2), (2, 1), (3, 1), (4, 2), (3, 4), (5, 2)])
def test_a_quorum_is_more_than_half_and_at_most_all(count: int, quorum: int) -> None:
    with pytest.raises(MalformedError, match=f"more than half of {count} witnesses and at most all, got {quorum}"):
        newest_of(first(ROOTS[:count], quorum))


@pytest.mark.parametrize(
    "changes",
    [{"seq": 2}, {"replaces": bytes(32)}, {"seq": 2, "replaces": bytes(32)}],
    ids=["a later number", "replaces something", "both"],
)
def test_a_file_that_lacks_the_sets_before_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedError, match=r"Give all sets from the first to the newest"):
        newest_of(first(**changes))


def test_a_first_set_needs_nobody_elses_signature() -> None:
    payload = payload_of(ROOTS[:3], 2, old_witnesses=[ROOTS[0].public.raw])
    signed = st.sign(st.WITNESS_SET, payload, [OPERATOR, ROOTS[0]])

    with pytest.raises(MalformedError, match=r"witness-set\.old_witnesses"):
        newest_of(signed)


def test_no_set_at_all_is_no_policy() -> None:
    with pytest.raises(MalformedError, match="at least one witness set"):
        newest_of()


# --------------------------------------------------------------------------------------- a change


def test_the_old_quorum_lets_the_set_be_changed() -> None:
    before = first()
    after = changed(before)
    last = changed(after, ROOTS, signers=ROOTS[2:4], quorum=3)

    assert newest_of(before, after).id == after.id
    assert newest_of(before, after, last).payload.quorum == 3


@pytest.mark.parametrize("signers", [ROOTS[:1], ROOTS[3:5], [ROOTS[0], ROOTS[4]], [*ROOTS[:2], ROOTS[4]]])
def test_fewer_than_the_old_quorum_or_strangers_change_nothing(signers: list[SigningKey]) -> None:
    before = first()

    with pytest.raises(AuthorityError, match="expected the signatures of at least 2 witnesses of the set before"):
        newest_of(before, changed(before, signers=signers))


def test_the_operator_alone_cannot_change_the_set() -> None:
    before = first()
    after = st.sign(st.WITNESS_SET, payload_of(ROOTS[2:], 2, seq=2, replaces=before.id), [OPERATOR])

    with pytest.raises(AuthorityError, match="got 0 of them"):
        newest_of(before, after)


@pytest.mark.parametrize("changes", [{"seq": 1}, {"seq": 3}, {"replaces": b"r" * 32}])
def test_a_change_names_the_set_before_it_and_has_the_next_number(changes: dict[str, Any]) -> None:
    before = first()

    with pytest.raises(MalformedError, match=r"witness-set\.seq: expected set number 2"):
        newest_of(before, changed(before, **changes))


def test_a_change_is_checked_against_the_set_before_it_alone() -> None:
    before = first()
    after = changed(before)

    with pytest.raises(MalformedError, match="expected set number 1, replacing none"):
        check_witness_set(after, operator=OPERATOR.public.raw)
    check_witness_set(after, before, operator=OPERATOR.public.raw)


# --------------------------------------------------------------------------------------- signing offline


def test_signatures_are_added_one_after_the_other_by_those_who_are_named() -> None:
    before = first()
    whole = changed(before).envelope
    begun = begin_witness_set(pb.WitnessSet.FromString(whole.payload), OPERATOR, before)
    assert missing_signatures(begun) == sorted(each.public.raw for each in ROOTS[:2])

    half = add_signature(begun, ROOTS[1])
    with pytest.raises(SignatureError):
        verify_witness_sets([before.envelope, half], federation=FEDERATION, operator=OPERATOR.public.raw)
    done = add_signature(half, ROOTS[0])

    assert missing_signatures(done) == []
    assert done.SerializeToString() == whole.SerializeToString()


def test_a_set_that_could_never_count_is_not_begun() -> None:
    before = first()

    with pytest.raises(AuthorityError, match="expected the signatures of at least 2"):
        begin_witness_set(changed(before, signers=ROOTS[:1]).payload, OPERATOR, before)


@pytest.mark.parametrize("key", [ROOTS[4], OPERATOR], ids=["not named", "has signed"])
def test_who_is_not_named_or_has_signed_adds_nothing(key: SigningKey) -> None:
    begun = changed(first()).envelope
    del begun.signatures[:]
    begun = add_signature(begun, OPERATOR)

    with pytest.raises(AuthorityError, match="names no signature of did:key:"):
        add_signature(begun, key)


def test_a_signature_is_added_to_a_witness_set_alone() -> None:
    with pytest.raises(MalformedError, match=r"envelope\.payload_type"):
        missing_signatures(pb.Envelope(payload_type=st.GRANT.payload_type))


# --------------------------------------------------------------------------------------- what it demands


def checkpoint() -> bytes:
    return sign_checkpoint(Checkpoint(LOG.key.name, 1, leaf_hash(b"one")), [LOG])


def cosigned(*signers: tuple[SigningKey, SigningKey]) -> bytes:
    """The checkpoint, cosigned under the names of these roots with these online keys."""
    raw = checkpoint()
    opened = open_checkpoint(raw, LOG.verifier)
    lines = [
        cosign(opened, CosignatureSigner(witness_name(FEDERATION, root.public.raw), key, timestamp=NOW // 1_000))
        for root, key in signers
    ]
    return append_signatures(raw, lines)


def own(number: int) -> tuple[SigningKey, SigningKey]:
    return ROOTS[number], ONLINE[ROOTS[number].public.raw]


def certified(root: bytes) -> bytes | None:
    return ONLINE[root].public.raw


def test_a_quorum_of_the_set_is_enough() -> None:
    policy = witness_policy(first(), signing_key=certified)

    verified = policy.verify(cosigned(own(0), own(2)), LOG.verifier)

    assert (policy.k, len(policy.verifiers)) == (2, 3)
    assert {each.witness.name for each in verified.cosignatures} == {
        witness_name(FEDERATION, ROOTS[number].public.raw) for number in (0, 2)
    }


@pytest.mark.parametrize(
    "signers",
    [
        [own(0)],
        [own(0), own(3)],
        [own(0), (ROOTS[1], ONLINE[ROOTS[0].public.raw])],
        [own(0), (ROOTS[1], ROOTS[1])],
        [own(0), (ROOTS[1], LOG_KEY)],
    ],
    ids=["too few", "outside the set", "one key under two names", "the root itself", "the log's key"],
)
def test_nobody_else_makes_up_for_a_missing_witness(signers: list[tuple[SigningKey, SigningKey]]) -> None:
    policy = witness_policy(first(), signing_key=certified)

    with pytest.raises(ProofError, match="expected cosignatures by 2 of 3 witnesses .* got 1"):
        policy.verify(cosigned(*signers), LOG.verifier)


def test_two_witnesses_that_name_one_key_are_none() -> None:
    shared = dict.fromkeys((each.public.raw for each in ROOTS[:2]), ONLINE[ROOTS[0].public.raw].public.raw)
    policy = witness_policy(first(), signing_key=lambda root: shared.get(root, certified(root)))

    assert [each.key.name for each in policy.verifiers] == [witness_name(FEDERATION, ROOTS[2].public.raw)]
    with pytest.raises(ProofError, match="only 1 of them have a certified key of their own"):
        policy.verify(cosigned(own(0), (ROOTS[1], own(0)[1]), own(2)), LOG.verifier)


def test_a_witness_that_names_the_logs_key_is_none_and_stops_nobody() -> None:
    named = {ROOTS[1].public.raw: LOG_KEY.public.raw}
    policy = witness_policy(first(), signing_key=lambda root: named.get(root, certified(root)))

    assert policy.verify(cosigned(own(0), own(2)), LOG.verifier).checkpoint.size == 1
    with pytest.raises(ProofError):
        policy.verify(cosigned(own(0), (ROOTS[1], LOG_KEY)), LOG.verifier)


def test_a_witness_without_a_certified_key_counts_among_the_set_and_not_among_the_signers() -> None:
    policy = witness_policy(first(), signing_key=lambda root: None if root == ROOTS[1].public.raw else certified(root))

    assert (policy.k, len(policy.verifiers)) == (2, 2)
    assert policy.verify(cosigned(own(0), own(2)), LOG.verifier).checkpoint.size == 1
    with pytest.raises(ProofError):
        policy.verify(cosigned(own(0), own(1)), LOG.verifier)


def test_an_earlier_key_of_a_witness_counts_no_more() -> None:
    newer = SigningKey.from_seed(bytes([70] * 32))
    policy = witness_policy(
        first(),
        signing_key=lambda root: newer.public.raw if root == ROOTS[0].public.raw else certified(root),
    )

    with pytest.raises(ProofError):
        policy.verify(cosigned(own(0), own(2)), LOG.verifier)
    assert policy.verify(cosigned((ROOTS[0], newer), own(2)), LOG.verifier).checkpoint.size == 1


def test_without_certificates_nothing_is_believed() -> None:
    policy = witness_policy(first(), signing_key=lambda _: None)

    with pytest.raises(ProofError, match="only 0 of them have a certified key"):
        policy.verify(cosigned(own(0), own(1)), LOG.verifier)


def test_a_checkpoint_of_another_log_is_refused_whoever_cosigned_it() -> None:
    policy = witness_policy(first(), signing_key=certified)

    with pytest.raises(PermslipError):
        policy.verify(cosigned(own(0), own(1)), Ed25519Signer("fed.example/other", LOG_KEY).verifier)

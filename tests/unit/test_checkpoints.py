"""Checkpoints: one form, whose cosignatures count, and what a witness accepts after what."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, strategies as st

from permslip.checkpoints import (
    MAX_EXTENSIONS,
    MAX_ORIGIN_BYTES,
    Checkpoint,
    CosignatureSigner,
    CosignatureVerifier,
    UpdateOutcome,
    UpdateRefusedError,
    VerifiedCheckpoint,
    check_update,
    cosign,
    open_checkpoint,
    sign_checkpoint,
    verify_cosigned,
)
from permslip.errors import ConfigurationError, KeyRejectedError, MalformedError, ProofError, SignatureError
from permslip.keys import SigningKey
from permslip.merkle import (
    MAX_SIZE,
    MemoryHashes,
    consistency_proof,
    empty_root,
    leaf_hash,
    root_at,
)
from permslip.notes import (
    Ed25519Signer,
    NoteSignature,
    SignatureType,
    VerifierKey,
    append_signatures,
    sign_note,
)

ORIGIN = "broker.example/ledger"
LOG_KEY = SigningKey.from_seed(bytes([9] * 32))
LOG = Ed25519Signer(ORIGIN, LOG_KEY)
HASHES = MemoryHashes.of_leaves([leaf_hash(bytes([number])) for number in range(40)])
OTHER_HASHES = MemoryHashes.of_leaves([leaf_hash(bytes([number, 1])) for number in range(40)])
NOW = 1_800_000_000


def checkpoint(size: int, hashes: MemoryHashes = HASHES, origin: str = ORIGIN) -> Checkpoint:
    return Checkpoint(origin, size, root_at(hashes, size))


def witness(number: int, *, at: int = NOW, name: str = "") -> CosignatureSigner:
    key = SigningKey.from_seed(bytes([number + 20] * 32))
    return CosignatureSigner(name or f"node-{number}.example", key, timestamp=at)


WITNESSES = [witness(number) for number in range(3)]
VERIFIERS = [each.verifier for each in WITNESSES]
RAW = sign_checkpoint(checkpoint(21), [LOG])
OPENED = open_checkpoint(RAW, LOG.verifier)


def cosigned(*signers: CosignatureSigner, raw: bytes = RAW) -> bytes:
    return append_signatures(raw, [cosign(open_checkpoint(raw, LOG.verifier), signer) for signer in signers])


# -------------------------------------------------------------------------------------------------- the text

origins = st.text(st.characters(exclude_categories=["Cs"], min_codepoint=0x20), min_size=1, max_size=60)


@given(
    origin=origins,
    size=st.integers(0, MAX_SIZE),
    root=st.binary(min_size=32, max_size=32),
    extensions=st.lists(origins, max_size=3).map(tuple),
)
def test_a_checkpoint_comes_back_from_its_text(
    origin: str, size: int, root: bytes, extensions: tuple[str, ...]
) -> None:
    whole = Checkpoint(origin, size, root, extensions)
    assert Checkpoint.parse(whole.text()) == whole


@given(text=st.text(st.sampled_from("a01\n=A"), max_size=60))
def test_text_that_parses_is_the_only_form_of_what_it_says(text: str) -> None:
    text = f"o\n{text}"
    for body in (text, f"{text}\n{base64.b64encode(bytes(32)).decode()}\n"):
        try:
            parsed = Checkpoint.parse(body)
        except MalformedError:
            continue
        assert parsed.text() == body


ROOT_TEXT = base64.b64encode(bytes(range(32))).decode()


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", "checkpoint"),
        (f"o\n1\n{ROOT_TEXT}", "checkpoint"),
        ("o\n1\n", "checkpoint"),
        (f"o\n1\n{ROOT_TEXT}\next", "checkpoint"),
        (f"\n1\n{ROOT_TEXT}\n", "checkpoint.origin"),
        (f"o\t\n1\n{ROOT_TEXT}\n", "checkpoint.origin"),
        (f"o\ud800\n1\n{ROOT_TEXT}\n", "checkpoint.origin"),
        (f"{'x' * 256}\n1\n{ROOT_TEXT}\n", "checkpoint.origin"),
        (f"o\n\n{ROOT_TEXT}\n", "checkpoint.size"),
        (f"o\n-1\n{ROOT_TEXT}\n", "checkpoint.size"),
        (f"o\n+1\n{ROOT_TEXT}\n", "checkpoint.size"),
        (f"o\n01\n{ROOT_TEXT}\n", "checkpoint.size"),
        (f"o\n00\n{ROOT_TEXT}\n", "checkpoint.size"),
        (f"o\n1 \n{ROOT_TEXT}\n", "checkpoint.size"),
        (f"o\n1_0\n{ROOT_TEXT}\n", "checkpoint.size"),
        (f"o\n\u0661\n{ROOT_TEXT}\n", "checkpoint.size"),
        (f"o\n{MAX_SIZE + 1}\n{ROOT_TEXT}\n", "checkpoint.size"),
        (f"o\n{10**19}\n{ROOT_TEXT}\n", "checkpoint.size"),
        ("o\n1\n\n", "checkpoint.root"),
        (f"o\n1\n{ROOT_TEXT[:-1]}\n", "checkpoint.root"),
        (f"o\n1\n {ROOT_TEXT}\n", "checkpoint.root"),
        (f"o\n1\n{base64.b64encode(bytes(31)).decode()}\n", "checkpoint.root"),
        (f"o\n1\n{base64.b64encode(bytes(33)).decode()}\n", "checkpoint.root"),
        (f"o\n1\n{ROOT_TEXT}\n\n", "checkpoint.extensions[0]"),
        (f"o\n1\n{ROOT_TEXT}\next\n\n", "checkpoint.extensions[1]"),
        (f"o\n1\n{ROOT_TEXT}\n" + "x\n" * (MAX_EXTENSIONS + 1), "checkpoint.extensions"),
    ],
)
def test_any_other_text_is_refused_by_field(text: str, field: str) -> None:
    with pytest.raises(MalformedError) as caught:
        Checkpoint.parse(text)
    assert caught.value.field == field


def test_the_longest_origin_the_largest_size_and_all_extensions_are_accepted() -> None:
    largest = Checkpoint("x" * MAX_ORIGIN_BYTES, MAX_SIZE, bytes(32), ("x",) * MAX_EXTENSIONS)
    assert Checkpoint.parse(largest.text()) == largest


@pytest.mark.parametrize("size", [-1, MAX_SIZE + 1])
def test_a_checkpoint_of_an_impossible_size_cannot_be_made(size: int) -> None:
    with pytest.raises(MalformedError, match=rf"checkpoint\.size: expected 0 to {MAX_SIZE}, got {size}"):
        Checkpoint(ORIGIN, size, bytes(32))


# --------------------------------------------------------------------------------------------- the log's own


def test_a_signed_checkpoint_opens_with_the_logs_key() -> None:
    assert VerifiedCheckpoint(checkpoint(21), OPENED.note, ()) == OPENED
    assert OPENED.note.raw == RAW


def test_a_checkpoint_of_another_log_is_refused_unless_it_is_expected() -> None:
    raw = sign_checkpoint(checkpoint(21, origin="other.example"), [LOG])
    with pytest.raises(ProofError, match=rf"expected a checkpoint of {ORIGIN}, got one of other\.example"):
        open_checkpoint(raw, LOG.verifier)
    assert open_checkpoint(raw, LOG.verifier, origin="other.example").checkpoint.size == 21
    with pytest.raises(ProofError, match="expected a checkpoint of third"):
        open_checkpoint(raw, LOG.verifier, origin="third")
    with pytest.raises(ProofError, match="expected a checkpoint of , got"):
        open_checkpoint(raw, LOG.verifier, origin="")


def test_a_note_by_the_log_that_is_no_checkpoint_is_refused() -> None:
    with pytest.raises(MalformedError):
        open_checkpoint(sign_note("hello\n", [LOG]), LOG.verifier)


def test_a_checkpoint_by_another_key_under_the_logs_name_is_refused() -> None:
    forger = Ed25519Signer(ORIGIN, SigningKey.from_seed(bytes([8] * 32)))
    with pytest.raises(SignatureError):
        open_checkpoint(sign_checkpoint(checkpoint(21), [forger]), LOG.verifier)


# ---------------------------------------------------------------------------------------------- cosignatures


def test_a_cosignature_signs_header_time_and_text() -> None:
    line = cosign(OPENED, WITNESSES[0])
    assert line.signature[:8] == NOW.to_bytes(8, "big")
    message = b"cosignature/v1\ntime 1800000000\n" + checkpoint(21).text().encode()
    WITNESSES[0].key.public.verify(message, line.signature[8:])
    WITNESSES[0].verifier.verify(OPENED.note.text, line.signature)


@given(position=st.integers(0, 72 * 8 - 1))
def test_flipping_any_bit_of_a_cosignature_is_refused(position: int) -> None:
    changed = bytearray(cosign(OPENED, WITNESSES[0]).signature)
    changed[position // 8] ^= 1 << position % 8
    with pytest.raises(SignatureError):
        WITNESSES[0].verifier.verify(OPENED.note.text, bytes(changed))


@pytest.mark.parametrize("change", [b"", b"x"])
def test_a_cosignature_of_another_length_or_without_a_time_is_refused(change: bytes) -> None:
    signature = cosign(OPENED, WITNESSES[0]).signature
    wrong = signature + change if change else signature[:-1]
    with pytest.raises(SignatureError, match=f"got {len(wrong)} bytes with time {NOW}"):
        WITNESSES[0].verifier.verify(OPENED.note.text, wrong)
    for time in (0, 2**63, 2**64 - 1):
        with pytest.raises(SignatureError, match=f"got 72 bytes with time {time}"):
            WITNESSES[0].verifier.verify(OPENED.note.text, time.to_bytes(8, "big") + signature[8:])


@pytest.mark.parametrize("timestamp", [0, -1, 2**63])
def test_nobody_cosigns_at_an_impossible_time(timestamp: int) -> None:
    with pytest.raises(MalformedError, match=f"timestamp: expected POSIX seconds from 1 to {MAX_SIZE}, got"):
        witness(0, at=timestamp)
    assert witness(0, at=1).sign(OPENED.note.text)
    assert witness(0, at=MAX_SIZE).sign(OPENED.note.text)


def test_only_checkpoints_are_cosigned() -> None:
    signature = cosign(OPENED, WITNESSES[0]).signature
    with pytest.raises(MalformedError):
        WITNESSES[0].sign("hello\n")
    with pytest.raises(MalformedError):
        WITNESSES[0].verifier.verify("hello\n", signature)


def test_a_cosignature_verifier_refuses_a_key_of_another_type() -> None:
    with pytest.raises(KeyRejectedError, match="to be a key of type COSIGNATURE_V1, got ED25519"):
        CosignatureVerifier(VerifierKey("w", SignatureType.ED25519, LOG_KEY.public))


# ---------------------------------------------------------------------------------------------------- quorum


def test_a_quorum_is_returned_in_the_sets_order_with_times() -> None:
    raw = cosigned(witness(2, at=NOW + 2), witness(0, at=NOW + 1))
    verified = verify_cosigned(raw, LOG.verifier, VERIFIERS, 2)
    assert verified.checkpoint == checkpoint(21)
    assert [(each.witness, each.timestamp) for each in verified.cosignatures] == [
        (VERIFIERS[0].key, NOW + 1),
        (VERIFIERS[2].key, NOW + 2),
    ]


def test_one_too_few_is_refused() -> None:
    with pytest.raises(ProofError, match=rf"expected cosignatures by 2 of 3 witnesses on {ORIGIN} at size 21 .*got 1"):
        verify_cosigned(cosigned(WITNESSES[0]), LOG.verifier, VERIFIERS, 2)


def test_one_witness_counts_once_with_its_latest_time() -> None:
    raw = cosigned(witness(0, at=NOW + 5), witness(0, at=NOW + 9), witness(0, at=NOW + 7))
    with pytest.raises(ProofError, match="got 1"):
        verify_cosigned(raw, LOG.verifier, VERIFIERS, 2)
    verified = verify_cosigned(raw, LOG.verifier, VERIFIERS[:1], 1)
    assert [each.timestamp for each in verified.cosignatures] == [NOW + 9]


def test_one_key_under_two_names_is_no_set_of_witnesses() -> None:
    sybil = witness(0, name="another-name.example").verifier
    with pytest.raises(ConfigurationError, match="witnesses: expected each witness to have a public key of its own"):
        verify_cosigned(cosigned(WITNESSES[0]), LOG.verifier, [*VERIFIERS, sybil], 3)


def test_the_logs_own_key_is_no_witness() -> None:
    own = CosignatureSigner(ORIGIN, LOG_KEY, timestamp=NOW)
    with pytest.raises(ConfigurationError, match="and not the log's"):
        verify_cosigned(cosigned(own), LOG.verifier, [own.verifier], 1)


@pytest.mark.parametrize(("count", "k"), [(0, 0), (1, 0), (1, 2), (2, 1), (3, 1), (3, 4), (3, -1)])
def test_a_quorum_must_be_above_half_of_the_set_and_at_most_all(count: int, k: int) -> None:
    raw = cosigned(*WITNESSES)
    with pytest.raises(ConfigurationError, match=f"above half of {count} witnesses and at most all, got {k}"):
        verify_cosigned(raw, LOG.verifier, VERIFIERS[:count], k)


@pytest.mark.parametrize(("count", "k"), [(1, 1), (2, 2), (3, 2), (3, 3)])
def test_every_majority_of_the_set_can_be_the_quorum(count: int, k: int) -> None:
    verified = verify_cosigned(cosigned(*WITNESSES), LOG.verifier, VERIFIERS[:count], k)
    assert len(verified.cosignatures) == count


def test_a_witness_outside_the_pinned_set_does_not_count() -> None:
    raw = cosigned(WITNESSES[0], witness(7), witness(8))
    with pytest.raises(ProofError, match="got 1"):
        verify_cosigned(raw, LOG.verifier, VERIFIERS, 2)


def test_a_false_cosignature_of_a_pinned_witness_refuses_the_checkpoint() -> None:
    other = open_checkpoint(sign_checkpoint(checkpoint(22), [LOG]), LOG.verifier)
    raw = append_signatures(cosigned(*WITNESSES[:2]), [cosign(other, WITNESSES[2])])
    with pytest.raises(SignatureError):
        verify_cosigned(raw, LOG.verifier, VERIFIERS, 2)


def test_cosignatures_without_the_logs_signature_are_not_enough() -> None:
    text = checkpoint(21).text()
    raw = sign_note(text, WITNESSES)
    with pytest.raises(SignatureError, match=f"expected a signature by the log {ORIGIN}"):
        verify_cosigned(raw, LOG.verifier, VERIFIERS, 2)


def test_a_cosigned_checkpoint_of_another_log_is_refused_unless_it_is_expected() -> None:
    text = checkpoint(21, origin="other.example").text()
    raw = sign_note(text, [LOG, *WITNESSES])
    with pytest.raises(ProofError, match="expected a checkpoint of"):
        verify_cosigned(raw, LOG.verifier, VERIFIERS, 2)
    assert len(verify_cosigned(raw, LOG.verifier, VERIFIERS, 2, origin="other.example").cosignatures) == 3


def test_a_plain_signature_by_a_witness_key_is_no_cosignature() -> None:
    plain = WITNESSES[0]
    signature = SigningKey.from_seed(bytes([20] * 32)).sign(OPENED.note.text.encode())
    forged = NoteSignature(plain.key.name, plain.key.key_id, NOW.to_bytes(8, "big") + signature)
    with pytest.raises(SignatureError):
        verify_cosigned(append_signatures(RAW, [forged]), LOG.verifier, VERIFIERS[:1], 1)


# -------------------------------------------------------------------------------------------- updates, forks


def test_a_first_checkpoint_of_any_size_is_accepted_without_proof() -> None:
    for size in (0, 1, 21):
        assert check_update(None, checkpoint(size), []) is UpdateOutcome.FIRST


@given(old=st.integers(0, 40), new=st.integers(0, 40))
def test_growth_with_its_proof_is_accepted_and_nothing_smaller(old: int, new: int) -> None:
    if new < old:
        with pytest.raises(UpdateRefusedError) as caught:
            check_update(checkpoint(old), checkpoint(new), [])
        assert caught.value.outcome is UpdateOutcome.ROLLBACK
    else:
        proof = consistency_proof(HASHES, old, new)
        expected = UpdateOutcome.SAME if old == new else UpdateOutcome.GROWN
        assert check_update(checkpoint(old), checkpoint(new), proof) is expected


def refusal(old: Checkpoint | None, new: Checkpoint, proof: list[bytes]) -> UpdateRefusedError:
    with pytest.raises(UpdateRefusedError) as caught:
        check_update(old, new, proof)
    assert isinstance(caught.value, ProofError)
    assert (caught.value.old, caught.value.new) == (old, new)
    assert not caught.value.outcome.may_be_cosigned
    return caught.value


def test_two_roots_at_one_size_are_a_fork_that_names_both() -> None:
    old, new = checkpoint(21), checkpoint(21, OTHER_HASHES)
    error = refusal(old, new, [])
    assert error.outcome is UpdateOutcome.FORK
    assert old.root.hex() in str(error)
    assert new.root.hex() in str(error)
    assert "Keep both signed checkpoints" in error.remedy


def test_a_fork_is_named_so_even_when_a_proof_comes_with_it() -> None:
    assert refusal(checkpoint(21), checkpoint(21, OTHER_HASHES), [bytes(32)]).outcome is UpdateOutcome.FORK


def test_a_smaller_size_is_a_rollback_even_to_an_honest_earlier_root() -> None:
    error = refusal(checkpoint(21), checkpoint(20), [])
    assert error.outcome is UpdateOutcome.ROLLBACK
    assert "size 20" in error.message
    assert "size 21" in error.message
    assert refusal(checkpoint(1), checkpoint(0), []).outcome is UpdateOutcome.ROLLBACK


@pytest.mark.parametrize(
    ("old", "new", "proof"),
    [
        (checkpoint(9), checkpoint(21), []),
        (checkpoint(9), checkpoint(21, OTHER_HASHES), consistency_proof(OTHER_HASHES, 9, 21)),
        (checkpoint(9), checkpoint(21), consistency_proof(HASHES, 10, 21)),
        (checkpoint(21), checkpoint(21), [bytes(32)]),
        (checkpoint(0), checkpoint(21), [bytes(32)]),
        (None, checkpoint(21), [bytes(32)]),
        (None, Checkpoint(ORIGIN, 0, bytes(32)), []),
    ],
)
def test_what_is_not_proved_is_inconsistent(old: Checkpoint | None, new: Checkpoint, proof: list[bytes]) -> None:
    assert refusal(old, new, proof).outcome is UpdateOutcome.INCONSISTENT


def test_an_empty_tree_with_another_root_after_an_empty_tree_is_a_fork() -> None:
    assert refusal(checkpoint(0), Checkpoint(ORIGIN, 0, bytes(32)), []).outcome is UpdateOutcome.FORK
    assert checkpoint(0).root == empty_root()


def test_another_logs_checkpoint_is_refused_before_anything_else() -> None:
    error = refusal(checkpoint(21), checkpoint(20, origin="other.example"), [])
    assert error.outcome is UpdateOutcome.OTHER_LOG


def test_only_first_same_and_grown_may_be_cosigned() -> None:
    assert {each for each in UpdateOutcome if each.may_be_cosigned} == {
        UpdateOutcome.FIRST,
        UpdateOutcome.SAME,
        UpdateOutcome.GROWN,
    }

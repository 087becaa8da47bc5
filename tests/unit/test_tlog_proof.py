"""Proof files: one form, and each step of the specification refuses what it is there to refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from permslip import errors
from permslip.checkpoints import Checkpoint, CosignatureVerifier, sign_checkpoint
from permslip.errors import MalformedError, PermslipError, ProofError
from permslip.keys import SigningKey
from permslip.merkle import MAX_SIZE, MemoryHashes, inclusion_proof, leaf_hash, root_at
from permslip.notes import Ed25519Signer, Ed25519Verifier, VerifierKey
from permslip.tlog_proof import MAX_EXTRA_BYTES, MAX_PROOF_BYTES, TlogProof, verify_proof
from permslip.witnesses import WitnessPolicy
from tests.vectors.making import proof_vectors

VECTORS: dict[str, Any] = json.loads(proof_vectors.FILE.read_text("utf-8"))
LOG = Ed25519Verifier(VerifierKey.parse(VECTORS["log"]))
WITNESSES = tuple(CosignatureVerifier(VerifierKey.parse(each)) for each in VECTORS["witnesses"])

SIGNER = Ed25519Signer("log.example", SigningKey.from_seed(bytes(32)))
LEAVES = [bytes([number]) * (number + 1) for number in range(33)]
TREE = MemoryHashes.of_leaves([leaf_hash(each) for each in LEAVES])


def policy_of(case: dict[str, Any]) -> WitnessPolicy | None:
    return WitnessPolicy(WITNESSES, case["k"]) if case["k"] else None


def note(size: int) -> bytes:
    return sign_checkpoint(Checkpoint("log.example", size, root_at(TREE, size)), [SIGNER])


def proof_of(index: int, size: int) -> TlogProof:
    return TlogProof(index, tuple(inclusion_proof(TREE, index, size)), note(size), LEAVES[index])


places = st.integers(1, len(LEAVES)).flatmap(lambda size: st.tuples(st.integers(0, size - 1), st.just(size)))


# ---------------------------------------------------------------------------------------------- the vectors


def test_the_vectors_are_what_the_generator_makes() -> None:
    assert proof_vectors.FILE.read_text("utf-8") == proof_vectors.content()


def test_names_of_vectors_are_unique() -> None:
    for cases in (VECTORS["good"], VECTORS["bad"]):
        assert len({each["name"] for each in cases}) == len(cases)


@pytest.mark.parametrize("case", VECTORS["good"], ids=lambda case: case["name"])
def test_a_good_proof_is_verified_and_written_the_same(case: dict[str, Any]) -> None:
    raw = case["file"].encode()

    proof = TlogProof.parse(raw)
    opened = verify_proof(
        proof,
        LOG,
        policy=policy_of(case),
        leaf_hash=bytes.fromhex(case["leaf_hash"]),
    )

    assert proof.raw() == raw
    assert proof.index == case["index"] < opened.checkpoint.size
    assert proof.origin == opened.checkpoint.origin == LOG.key.name
    assert len(opened.cosignatures) >= case["k"]


@pytest.mark.parametrize("case", VECTORS["bad"], ids=lambda case: case["name"])
def test_a_bad_proof_is_refused_as_it_says(case: dict[str, Any]) -> None:
    with pytest.raises(getattr(errors, case["error"])) as caught:
        verify_proof(TlogProof.parse(case["file"].encode()), LOG, policy=policy_of(case))

    assert type(caught.value).__name__ == case["error"]


@pytest.mark.data
def test_the_example_of_the_specification_is_read_up_to_its_shortened_signatures(shared_data: Path) -> None:
    text = (shared_data / "vectors" / "c2sp-specs" / "tlog-proof.md").read_text("utf-8")
    example = text.split("```\n")[1]
    head, _, checkpoint = example.partition("\n\n")
    # Its extra data is shortened too; what stands there is no whole base64.
    lines = [line for line in head.split("\n") if not line.startswith("extra ")]
    checkpoint = f"{checkpoint.split(chr(10) * 2)[0]}\n\n— example.com/fancylog {'A' * 92}\n"

    proof = TlogProof.parse(("\n".join(lines) + "\n\n" + checkpoint).encode())

    assert (proof.index, len(proof.hashes), proof.origin) == (73894, 5, "example.com/fancylog")


# ---------------------------------------------------------------------------------------------- properties


@given(place=places)
def test_every_entry_of_every_tree_is_proved(place: tuple[int, int]) -> None:
    proof = proof_of(*place)

    assert verify_proof(TlogProof.parse(proof.raw()), SIGNER.verifier).checkpoint.size == place[1]


@given(place=places, at=st.integers(0), bit=st.integers(0, 7))
def test_a_proof_with_one_flipped_bit_is_refused_wherever_it_is(place: tuple[int, int], at: int, bit: int) -> None:
    raw = bytearray(proof_of(*place).raw())
    raw[at % len(raw)] ^= 1 << bit

    with pytest.raises(PermslipError):
        verify_proof(TlogProof.parse(bytes(raw)), SIGNER.verifier)


@given(raw=st.binary(max_size=200))
def test_bytes_that_parse_are_the_only_form_of_what_they_say(raw: bytes) -> None:
    for each in (
        raw,
        b"c2sp.org/tlog-proof@v1\n" + raw,
        b"c2sp.org/tlog-proof@v1\nindex 0\n" + raw + b"\n\n" + note(1),
    ):
        try:
            parsed = TlogProof.parse(each)
        except MalformedError:
            continue
        assert parsed.raw() == each


@given(place=places, other=st.binary(min_size=1, max_size=40))
def test_no_other_entry_is_proved_by_it(place: tuple[int, int], other: bytes) -> None:
    proof = proof_of(*place)
    if other == proof.extra:
        return

    with pytest.raises(ProofError):
        verify_proof(TlogProof(proof.index, proof.hashes, proof.checkpoint, other), SIGNER.verifier)


# ---------------------------------------------------------------------------------------------- bounds and policy


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"index": -1}, "proof.index"),
        ({"index": MAX_SIZE}, "proof.index"),
        ({"hashes": (bytes(31),)}, "proof.hashes[0]"),
        ({"hashes": (bytes(32),) * 65}, "proof.hashes"),
        ({"extra": b""}, "proof.extra"),
        ({"extra": bytes(MAX_EXTRA_BYTES + 1)}, "proof.extra"),
        ({"checkpoint": b"no note"}, "note"),
    ],
)
def test_what_the_format_cannot_carry_is_refused(changes: dict[str, Any], field: str) -> None:
    given: dict[str, Any] = {"index": 0, "hashes": (), "checkpoint": note(1), "extra": b"x", **changes}

    with pytest.raises(MalformedError) as caught:
        TlogProof(**given)

    assert caught.value.field == field


@pytest.mark.parametrize(
    "raw",
    [
        b"c2sp.org/tlog-proof@v1\nextra " + b"A" * (2 * MAX_EXTRA_BYTES + 4) + b"\nindex 0\n\n" + note(1),
        bytes(MAX_PROOF_BYTES + 1),
        "c2sp.org/tlog-proof@v1\nindex ١\n\n".encode() + note(1),
    ],
)
def test_what_is_too_large_or_no_ascii_is_refused_before_it_is_read(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        TlogProof.parse(raw)


def test_a_proof_without_the_entry_needs_its_hash() -> None:
    whole = proof_of(5, 9)
    bare = TlogProof(5, whole.hashes, whole.checkpoint)

    with pytest.raises(ProofError, match="does not hold the entry"):
        verify_proof(bare, SIGNER.verifier)
    assert verify_proof(bare, SIGNER.verifier, leaf_hash=leaf_hash(LEAVES[5])).checkpoint.size == 9
    with pytest.raises(ProofError):
        verify_proof(bare, SIGNER.verifier, leaf_hash=leaf_hash(LEAVES[6]))


def test_the_hash_that_is_given_and_the_entry_must_agree() -> None:
    with pytest.raises(ProofError, match="another entry"):
        verify_proof(proof_of(5, 9), SIGNER.verifier, leaf_hash=leaf_hash(LEAVES[6]))


def test_a_quorum_of_nobody_is_no_quorum() -> None:
    with pytest.raises(ProofError):
        verify_proof(proof_of(5, 9), SIGNER.verifier, policy=WitnessPolicy((), 1))


def test_a_checkpoint_whose_text_is_no_checkpoint_names_no_log() -> None:
    proof = proof_of(0, 1)
    nameless = TlogProof(0, (), b"\n" + proof.checkpoint, LEAVES[0])

    with pytest.raises(MalformedError, match="expected a log's name"):
        _ = nameless.origin

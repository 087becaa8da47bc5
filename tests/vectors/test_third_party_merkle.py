"""Merkle proofs and signed notes against other people's: the RFC 6962 proof vectors of transparency-dev/merkle,
pymerkle and securesystemslib.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from pymerkle import InmemoryTree
from securesystemslib.signer import (  # type: ignore[attr-defined]  # typed, but without re-export marks
    Signature,
    SSlibKey,
)

from permslip.checkpoints import Checkpoint, sign_checkpoint
from permslip.errors import ProofError
from permslip.keys import SigningKey
from permslip.merkle import (
    MemoryHashes,
    consistency_proof,
    empty_root,
    inclusion_proof,
    leaf_hash,
    root_at,
    verify_consistency,
    verify_inclusion,
)
from permslip.notes import Ed25519Signer, parse_note

VECTORS = 92
LARGEST = 130


@pytest.fixture(scope="module")
def vectors(shared_data: Path) -> Path:
    return shared_data / "vectors" / "merkle-rfc6962"


def decoded(value: str | None) -> bytes:
    return base64.b64decode(value or "", validate=True)


def check(path: Path) -> None:
    """Verify one vector; raises ProofError where it does not hold."""
    case: dict[str, Any] = json.loads(path.read_text())
    proof = [decoded(item) for item in case["proof"] or []]
    if "leafIdx" in case:
        verify_inclusion(decoded(case["leafHash"]), case["leafIdx"], case["treeSize"], proof, decoded(case["root"]))
    else:
        verify_consistency(case["size1"], case["size2"], decoded(case["root1"]), decoded(case["root2"]), proof)


@pytest.mark.data
def test_every_rfc_6962_vector_is_judged_as_its_authors_say(vectors: Path) -> None:
    paths = sorted(vectors.glob("*/*/*.json"))
    assert len(paths) == VECTORS
    wrong = []
    for path in paths:
        try:
            check(path)
            refused = False
        except ProofError:
            refused = True
        if refused != json.loads(path.read_text())["wantErr"]:
            wrong.append(str(path.relative_to(vectors)))
    assert wrong == []


@pytest.fixture(scope="module")
def theirs() -> InmemoryTree:
    tree = InmemoryTree(algorithm="sha256")
    for number in range(LARGEST):
        tree.append_entry(b"leaf %d" % number)
    return tree


@pytest.fixture(scope="module")
def ours() -> MemoryHashes:
    return MemoryHashes.of_leaves([leaf_hash(b"leaf %d" % number) for number in range(LARGEST)])


def test_roots_of_all_sizes_equal_pymerkles(ours: MemoryHashes, theirs: InmemoryTree) -> None:
    assert root_at(ours, 0) == empty_root() == theirs.get_root(0)
    for size in range(1, LARGEST + 1):
        assert root_at(ours, size) == theirs.get_root(size)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 64, 100, LARGEST])
def test_inclusion_proofs_are_hash_for_hash_pymerkles(ours: MemoryHashes, theirs: InmemoryTree, size: int) -> None:
    for index in range(size):
        path = theirs.prove_inclusion(index + 1, size).path  # counts leaves from one, begins with the leaf
        assert inclusion_proof(ours, index, size) == path[1:]
        verify_inclusion(path[0], index, size, path[1:], theirs.get_root(size))


@pytest.mark.parametrize("size", [2, 3, 7, 8, 9, 64, 100, LARGEST])
def test_consistency_proofs_hold_between_pymerkles_roots(ours: MemoryHashes, theirs: InmemoryTree, size: int) -> None:
    # Its own proofs are of another form: where the old tree ends at a split it goes on down to a leaf.
    for old in range(1, size):
        proof = consistency_proof(ours, old, size)
        verify_consistency(old, size, theirs.get_root(old), theirs.get_root(size), proof)


def test_securesystemslib_verifies_the_signature_of_our_checkpoint() -> None:
    key = SigningKey.from_seed(bytes(range(32)))
    raw = sign_checkpoint(Checkpoint("log.example/broker", 0, empty_root()), [Ed25519Signer("log.example/broker", key)])
    signature = parse_note(raw).signatures[0].signature
    public = SSlibKey("id", "ed25519", "ed25519", {"public": key.public.raw.hex()})
    text = raw[: raw.rindex(b"\n\n") + 1]
    public.verify_signature(Signature("id", signature.hex()), text)

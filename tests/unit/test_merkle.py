"""Merkle trees: what a proof shows, and that nothing else is taken for one."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from permslip.errors import MalformedError, ProofError
from permslip.merkle import (
    HASH_BYTES,
    MAX_PROOF_HASHES,
    MAX_SIZE,
    Coordinate,
    Frontier,
    HashReader,
    MemoryHashes,
    consistency_proof,
    empty_root,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root_at,
    verify_consistency,
    verify_inclusion,
)

LARGEST = 130
LEAVES = [leaf_hash(b"leaf %d" % number) for number in range(LARGEST)]
HASHES = MemoryHashes.of_leaves(LEAVES)
ROOTS = [root_at(HASHES, size) for size in range(LARGEST + 1)]

sizes = st.integers(1, LARGEST)


def definition(leaves: Sequence[bytes]) -> bytes:
    """MTH as RFC 9162, section 2.1.1 writes it, over leaf hashes."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\x01" + definition(leaves[:split]) + definition(leaves[split:])).digest()


def turns(index: int, size: int) -> str:
    """The shape of a leaf's path, from the root down: which way it turns at each node."""
    if size == 1:
        return ""
    split = 1
    while split * 2 < size:
        split *= 2
    return "L" + turns(index, split) if index < split else "R" + turns(index - split, size - split)


def flipped(digest: bytes, position: int) -> bytes:
    changed = bytearray(digest)
    changed[position // 8] ^= 1 << position % 8
    return bytes(changed)


class CountingHashes(HashReader):
    """A reader that counts its batch reads."""

    def __init__(self, hashes: HashReader) -> None:
        self.hashes = hashes
        self.reads: list[int] = []

    def hashes_at(self, coordinates: Sequence[Coordinate]) -> list[bytes]:
        self.reads.append(len(coordinates))
        return self.hashes.hashes_at(coordinates)


class CyclicHashes(HashReader):
    """Every complete subtree of a log of 2**63 - 1 equal leaves."""

    def __init__(self) -> None:
        self.by_level = [leaf_hash(b"same")]
        for _ in range(62):
            self.by_level.append(node_hash(self.by_level[-1], self.by_level[-1]))

    def hashes_at(self, coordinates: Sequence[Coordinate]) -> list[bytes]:
        return [self.by_level[level] for level, _ in coordinates]


# ------------------------------------------------------------------------------------------- hashing, roots


def test_sizes_are_those_of_a_signed_64_bit_integer() -> None:
    assert MAX_SIZE == 2**63 - 1


def test_leaf_node_and_empty_tree_are_hashed_with_the_prefixes_of_rfc_6962() -> None:
    assert leaf_hash(b"abc") == sha256(b"\x00abc").digest()
    assert node_hash(b"l" * 32, b"r" * 32) == sha256(b"\x01" + b"l" * 32 + b"r" * 32).digest()
    assert empty_root().hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_root_of_every_size_is_what_the_definition_says() -> None:
    assert [definition(LEAVES[:size]) for size in range(LARGEST + 1)] == ROOTS


def test_frontier_has_the_root_of_the_definition_after_every_append() -> None:
    frontier = Frontier()
    seen = [(frontier.size, frontier.root())]
    for leaf in LEAVES:
        frontier.append(leaf)
        seen.append((frontier.size, frontier.root()))
    assert seen == list(enumerate(ROOTS))


def test_append_returns_every_subtree_it_finished_children_first() -> None:
    frontier = Frontier()
    a, b, c, d = LEAVES[:4]
    assert frontier.append(a) == [(0, 0, a)]
    assert frontier.append(b) == [(0, 1, b), (1, 0, node_hash(a, b))]
    assert frontier.append(c) == [(0, 2, c)]
    assert frontier.append(d) == [
        (0, 3, d),
        (1, 1, node_hash(c, d)),
        (2, 0, node_hash(node_hash(a, b), node_hash(c, d))),
    ]


@given(cuts=st.lists(st.integers(0, LARGEST), max_size=6))
def test_appending_in_batches_finishes_the_same_subtrees_as_one_batch(cuts: list[int]) -> None:
    frontier = Frontier()
    finished = []
    edges = [0, *sorted(cuts), LARGEST]
    for start, end in pairwise(edges):
        finished += frontier.extend(LEAVES[start:end])
    assert finished == Frontier().extend(LEAVES)
    assert frontier.root() == ROOTS[LARGEST]


@given(size=st.integers(0, LARGEST))
def test_restored_frontier_goes_on_where_the_stored_one_was(size: int) -> None:
    frontier = Frontier.restore(size, HASHES)
    assert (frontier.size, frontier.root()) == (size, ROOTS[size])
    frontier.extend(LEAVES[size:])
    assert frontier.root() == ROOTS[LARGEST]


@pytest.mark.parametrize("size", [0, 1, 7, 8, 100])
def test_a_frontier_made_of_its_peaks_goes_on_where_it_was(size: int) -> None:
    frontier = Frontier()
    frontier.extend(LEAVES[:size])
    again = Frontier.of_peaks(size, frontier.peaks)
    again.extend(LEAVES[size:])
    assert again.root() == ROOTS[LARGEST]


@pytest.mark.parametrize(("size", "peaks"), [(3, [bytes(32)]), (1, [bytes(31)]), (-1, []), (0, [bytes(32)])])
def test_peaks_that_cannot_be_those_of_a_size_are_refused(size: int, peaks: list[bytes]) -> None:
    with pytest.raises(ProofError):
        Frontier.of_peaks(size, peaks)


def test_a_batch_with_a_leaf_of_the_wrong_length_leaves_the_frontier_unchanged() -> None:
    frontier = Frontier()
    frontier.extend(LEAVES[:5])
    with pytest.raises(MalformedError, match=r"leaves\[2\]: expected 32 bytes, got 31"):
        frontier.extend([LEAVES[5], LEAVES[6], LEAVES[7][:-1]])
    assert (frontier.size, frontier.root()) == (5, ROOTS[5])


def test_a_tree_does_not_grow_beyond_the_largest_size() -> None:
    frontier = Frontier.restore(MAX_SIZE - 1, CyclicHashes())
    frontier.append(leaf_hash(b"same"))
    assert frontier.root() == root_at(CyclicHashes(), MAX_SIZE)
    with pytest.raises(ProofError, match=f"expected a size after appending from 0 to {MAX_SIZE}, got"):
        frontier.append(leaf_hash(b"same"))
    assert frontier.size == MAX_SIZE


@pytest.mark.parametrize("size", [-1, MAX_SIZE + 1])
def test_roots_and_frontiers_of_impossible_sizes_are_refused(size: int) -> None:
    with pytest.raises(ProofError, match=f"expected a size from 0 to {MAX_SIZE}, got {size}"):
        root_at(HASHES, size)
    with pytest.raises(ProofError, match=f"expected a size from 0 to {MAX_SIZE}, got {size}"):
        Frontier.restore(size, HASHES)


# ------------------------------------------------------------------------------------------------- readers


def test_a_reader_answers_for_one_hash_by_its_batch_form() -> None:
    assert HASHES.hash_at(0, 3) == LEAVES[3]
    assert HASHES.hash_at(1, 1) == node_hash(LEAVES[2], LEAVES[3])


def test_a_hash_that_is_not_stored_is_a_proof_error_that_names_it() -> None:
    with pytest.raises(ProofError, match=r"expected a stored hash at \(level, index\) \(8, 0\), found none"):
        HASHES.hash_at(8, 0)


def test_every_root_and_proof_costs_at_most_one_batch_read() -> None:
    reader = CountingHashes(HASHES)
    root_at(reader, 127)
    assert reader.reads == [7]
    inclusion_proof(reader, 77, 127)
    consistency_proof(reader, 77, 127)
    assert len(reader.reads) == 3
    root_at(reader, 0)
    inclusion_proof(reader, 0, 1)
    consistency_proof(reader, 127, 127)
    assert len(reader.reads) == 3


class ShortReader(HashReader):
    """A reader that answers with one hash too few."""

    def hashes_at(self, coordinates: Sequence[Coordinate]) -> list[bytes]:
        return HASHES.hashes_at(coordinates)[1:]


class ClippedReader(HashReader):
    """A reader whose last hash lacks a byte."""

    def hashes_at(self, coordinates: Sequence[Coordinate]) -> list[bytes]:
        *whole, last = HASHES.hashes_at(coordinates)
        return [*whole, last[:-1]]


@pytest.mark.parametrize("reader", [ShortReader(), ClippedReader()])
def test_a_reader_that_breaks_its_promise_is_refused(reader: HashReader) -> None:
    with pytest.raises(ProofError, match="expected 3 hashes of 32 bytes from the reader"):
        root_at(reader, 7)


# ----------------------------------------------------------------------------------------- inclusion proofs


def test_every_leaf_of_every_size_has_a_proof_that_verifies() -> None:
    for size in range(1, 70):
        for index in range(size):
            proof = inclusion_proof(HASHES, index, size)
            assert len(proof) == len(turns(index, size))
            verify_inclusion(LEAVES[index], index, size, proof, ROOTS[size])


@given(data=st.data(), size=sizes)
def test_flipping_any_bit_of_leaf_proof_or_root_is_refused(data: st.DataObject, size: int) -> None:
    index = data.draw(st.integers(0, size - 1))
    hashes = [LEAVES[index], ROOTS[size], *inclusion_proof(HASHES, index, size)]
    which = data.draw(st.integers(0, len(hashes) - 1))
    hashes[which] = flipped(hashes[which], data.draw(st.integers(0, 255)))
    leaf, root, *proof = hashes
    with pytest.raises(ProofError, match="inclusion proof leads to root"):
        verify_inclusion(leaf, index, size, proof, root)


@given(data=st.data(), size=st.integers(2, LARGEST))
def test_a_wrong_index_is_refused(data: st.DataObject, size: int) -> None:
    index, wrong = data.draw(st.lists(st.integers(0, size - 1), min_size=2, max_size=2, unique=True))
    proof = inclusion_proof(HASHES, index, size)
    with pytest.raises(ProofError, match="inclusion proof"):
        verify_inclusion(LEAVES[index], wrong, size, proof, ROOTS[size])


@given(data=st.data(), size=sizes, wrong=sizes)
def test_a_wrong_size_is_refused_unless_the_path_has_the_same_shape(data: st.DataObject, size: int, wrong: int) -> None:
    index = data.draw(st.integers(0, min(size, wrong) - 1))
    proof = inclusion_proof(HASHES, index, size)
    if turns(index, size) == turns(index, wrong):
        verify_inclusion(LEAVES[index], index, wrong, proof, ROOTS[size])
    else:
        with pytest.raises(ProofError):
            verify_inclusion(LEAVES[index], index, wrong, proof, ROOTS[size])


@given(data=st.data(), size=sizes)
def test_a_proof_that_is_longer_or_shorter_is_refused(data: st.DataObject, size: int) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(HASHES, index, size)
    with pytest.raises(ProofError, match=f"of {len(proof) + 1} hashes is too long for leaf {index} of {size}"):
        verify_inclusion(LEAVES[index], index, size, [*proof, ROOTS[1]], ROOTS[size])
    if proof:
        with pytest.raises(ProofError, match="too short"):
            verify_inclusion(LEAVES[index], index, size, proof[:-1], ROOTS[size])


@pytest.mark.parametrize(("index", "size"), [(0, 0), (3, 3), (-1, 3), (1, 1)])
def test_an_index_outside_the_tree_is_refused(index: int, size: int) -> None:
    message = f"expected the index of a leaf below the tree size {size}, got {index}"
    with pytest.raises(ProofError, match=message):
        verify_inclusion(LEAVES[0], index, size, [], LEAVES[0])
    with pytest.raises(ProofError, match=message):
        inclusion_proof(HASHES, index, size)


@pytest.mark.parametrize("size", [-1, MAX_SIZE + 1, 2**64])
def test_inclusion_in_a_tree_of_impossible_size_is_refused(size: int) -> None:
    with pytest.raises(ProofError, match=f"expected a size from 0 to {MAX_SIZE}, got {size}"):
        verify_inclusion(LEAVES[0], 0, size, [], LEAVES[0])
    with pytest.raises(ProofError, match=f"expected a size from 0 to {MAX_SIZE}, got {size}"):
        inclusion_proof(HASHES, 0, size)


@pytest.mark.parametrize("length", [0, HASH_BYTES - 1, HASH_BYTES + 1, 2 * HASH_BYTES])
def test_hashes_of_the_wrong_length_are_refused_in_an_inclusion_proof(length: int) -> None:
    message = f"expected hashes of 32 bytes in the inclusion proof, got one of {length}"
    with pytest.raises(ProofError, match=message):
        verify_inclusion(b"x" * length, 0, 1, [], b"x" * length)
    with pytest.raises(ProofError, match=message):
        verify_inclusion(LEAVES[0], 0, 2, [b"x" * length], node_hash(LEAVES[0], b"x" * length))


def test_an_inclusion_proof_of_too_many_hashes_is_refused_before_hashing() -> None:
    with pytest.raises(ProofError, match="expected at most 64 hashes in the inclusion proof, got 65"):
        verify_inclusion(LEAVES[0], 0, MAX_SIZE, [LEAVES[1]] * (MAX_PROOF_HASHES + 1), LEAVES[0])


@pytest.mark.parametrize("index", [0, 1, 2**62 - 1, 2**62, MAX_SIZE - 1])
def test_leaves_of_the_largest_tree_can_be_proved(index: int) -> None:
    reader = CyclicHashes()
    proof = inclusion_proof(reader, index, MAX_SIZE)
    verify_inclusion(leaf_hash(b"same"), index, MAX_SIZE, proof, root_at(reader, MAX_SIZE))


# --------------------------------------------------------------------------------------- consistency proofs


def test_every_size_is_proved_a_prefix_of_every_later_one() -> None:
    for new in range(66):
        for old in range(new + 1):
            proof = consistency_proof(HASHES, old, new)
            verify_consistency(old, new, ROOTS[old], ROOTS[new], proof)


@pytest.mark.parametrize(("old", "new"), [(0, 0), (0, 9), (9, 9)])
def test_equal_sizes_and_an_empty_old_tree_need_no_proof(old: int, new: int) -> None:
    assert consistency_proof(HASHES, old, new) == []
    with pytest.raises(ProofError, match=f"expected an empty consistency proof from size {old} to {new}, got 1"):
        verify_consistency(old, new, ROOTS[old], ROOTS[new], [ROOTS[1]])


@given(data=st.data(), new=st.integers(2, LARGEST))
def test_flipping_any_bit_of_either_root_or_of_the_proof_is_refused(data: st.DataObject, new: int) -> None:
    old = data.draw(st.integers(1, new - 1))
    hashes = [ROOTS[old], ROOTS[new], *consistency_proof(HASHES, old, new)]
    which = data.draw(st.integers(0, len(hashes) - 1))
    hashes[which] = flipped(hashes[which], data.draw(st.integers(0, 255)))
    old_root, new_root, *proof = hashes
    with pytest.raises(ProofError, match=f"consistency proof from size {old} to {new} leads to (old|new) root"):
        verify_consistency(old, new, old_root, new_root, proof)


@given(data=st.data(), new=st.integers(2, LARGEST))
def test_a_wrong_old_size_is_refused(data: st.DataObject, new: int) -> None:
    old, wrong = data.draw(st.lists(st.integers(1, new), min_size=2, max_size=2, unique=True))
    with pytest.raises(ProofError):
        verify_consistency(wrong, new, ROOTS[old], ROOTS[new], consistency_proof(HASHES, old, new))


@given(data=st.data(), new=st.integers(2, LARGEST))
def test_a_consistency_proof_that_is_longer_or_shorter_is_refused(data: st.DataObject, new: int) -> None:
    old = data.draw(st.integers(1, new - 1))
    proof = consistency_proof(HASHES, old, new)
    with pytest.raises(ProofError, match=f"of {len(proof) + 1} hashes is too long from size {old} to {new}"):
        verify_consistency(old, new, ROOTS[old], ROOTS[new], [*proof, ROOTS[1]])
    with pytest.raises(ProofError, match=r"too short|got an empty one"):
        verify_consistency(old, new, ROOTS[old], ROOTS[new], proof[:-1])


def test_a_missing_consistency_proof_is_refused() -> None:
    with pytest.raises(ProofError, match="expected a consistency proof from size 4 to 8, got an empty one"):
        verify_consistency(4, 8, ROOTS[4], ROOTS[8], [])


def test_two_roots_at_one_size_are_refused_and_both_named() -> None:
    with pytest.raises(ProofError, match=f"same size 5: {ROOTS[5].hex()} and {ROOTS[6].hex()}"):
        verify_consistency(5, 5, ROOTS[5], ROOTS[6], [])
    with pytest.raises(ProofError, match=f"same size 0: {empty_root().hex()} and {ROOTS[6].hex()}"):
        verify_consistency(0, 0, empty_root(), ROOTS[6], [])


def test_an_empty_old_tree_must_have_the_empty_root() -> None:
    with pytest.raises(ProofError, match=f"expected root {empty_root().hex()} of the empty tree, got {ROOTS[1].hex()}"):
        verify_consistency(0, 5, ROOTS[1], ROOTS[5], [])


@pytest.mark.parametrize(("old", "new"), [(6, 5), (-1, 5)])
def test_old_sizes_out_of_order_are_refused(old: int, new: int) -> None:
    with pytest.raises(ProofError, match=f"expected an old size of at most {new}, got {old}"):
        consistency_proof(HASHES, old, new)
    with pytest.raises(ProofError, match=f"expected an old size of at most {new}, got {old}"):
        verify_consistency(old, new, ROOTS[5], ROOTS[5], [])


@pytest.mark.parametrize("new", [-1, MAX_SIZE + 1])
def test_impossible_new_sizes_are_refused(new: int) -> None:
    with pytest.raises(ProofError, match=f"expected a new size from 0 to {MAX_SIZE}, got {new}"):
        consistency_proof(HASHES, 0, new)
    with pytest.raises(ProofError, match=f"expected a new size from 0 to {MAX_SIZE}, got {new}"):
        verify_consistency(0, new, empty_root(), ROOTS[5], [])


@pytest.mark.parametrize("which", range(3))
def test_hashes_of_the_wrong_length_are_refused_in_a_consistency_proof(which: int) -> None:
    hashes = [ROOTS[1], ROOTS[2], LEAVES[1]]
    hashes[which] += b"\x00"
    old_root, new_root, *proof = hashes
    with pytest.raises(ProofError, match="expected hashes of 32 bytes in the consistency proof, got one of 33"):
        verify_consistency(1, 2, old_root, new_root, proof)


@pytest.mark.parametrize("old", [1, 2, 3, 2**61 + 1, 2**62 - 1, 2**62, MAX_SIZE - 1])
def test_the_largest_tree_is_proved_consistent_with_earlier_ones(old: int) -> None:
    reader = CyclicHashes()
    proof = consistency_proof(reader, old, MAX_SIZE)
    assert len(proof) <= MAX_PROOF_HASHES
    verify_consistency(old, MAX_SIZE, root_at(reader, old), root_at(reader, MAX_SIZE), proof)


def test_a_consistency_proof_may_have_sixty_four_hashes_and_no_more() -> None:
    reader = CyclicHashes()
    roots = root_at(reader, 3), root_at(reader, MAX_SIZE)
    proof = consistency_proof(reader, 3, MAX_SIZE)
    assert len(proof) == MAX_PROOF_HASHES
    with pytest.raises(ProofError, match="expected at most 64 hashes in the consistency proof, got 65"):
        verify_consistency(3, MAX_SIZE, *roots, [*proof, proof[0]])

"""The Merkle tree of RFC 6962 and RFC 9162 over SHA-256: roots, appending, proofs and their verification.

**Coordinates** ``(level, index)`` name the complete subtree over the leaves ``index << level`` up to
``(index + 1) << level``; level 0 holds the leaf hashes. A complete subtree never changes, so a store keeps
each hash once and for ever, and every root and proof of every earlier size stays computable.

Rules:

* A leaf is hashed as ``SHA-256(00 || data)``, a node as ``SHA-256(01 || left || right)``, the empty tree as
  ``SHA-256()``.
* Sizes and indexes are below 2**63; no loop over levels or proof hashes runs more than 64 times.
* A root does not commit to its tree's size: two sizes in which a leaf's path has the same shape accept the
  same proof. Size and root must therefore come from one signed checkpoint (:mod:`permslip.checkpoints`).
* Making a root or proof costs one :meth:`HashReader.hashes_at` call.

Example:
    >>> frontier, hashes = Frontier(), MemoryHashes()
    >>> hashes.add(frontier.extend([leaf_hash(b"grant"), leaf_hash(b"query"), leaf_hash(b"revocation")]))
    >>> proof = inclusion_proof(hashes, 1, frontier.size)
    >>> verify_inclusion(leaf_hash(b"query"), 1, frontier.size, proof, frontier.root())
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Protocol

from permslip.errors import MalformedError, ProofError

__all__ = [
    "HASH_BYTES",
    "MAX_PROOF_HASHES",
    "MAX_SIZE",
    "Coordinate",
    "Frontier",
    "HashReader",
    "MemoryHashes",
    "SubtreeHash",
    "consistency_proof",
    "empty_root",
    "inclusion_proof",
    "leaf_hash",
    "node_hash",
    "root_at",
    "verify_consistency",
    "verify_inclusion",
]

HASH_BYTES = 32
MAX_SIZE = 2**63 - 1
MAX_PROOF_HASHES = 64

Coordinate = tuple[int, int]
"""``(level, index)`` of a complete subtree."""

SubtreeHash = tuple[int, int, bytes]
"""``(level, index, hash)`` of a complete subtree."""

_EMPTY_ROOT = sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf's bytes (RFC 9162, section 2.1.1)."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node (RFC 9162, section 2.1.1)."""
    return sha256(b"\x01" + left + right).digest()


def empty_root() -> bytes:
    """The root of the tree without leaves."""
    return _EMPTY_ROOT


class HashReader(Protocol):
    """Where the hashes of complete subtrees are read from.

    A reader returns, for every complete subtree of its tree, the 32-byte hash that was stored, in the order
    asked for, and raises :class:`~permslip.errors.ProofError` where it holds none. It does not promise that
    the hashes are right: what is made from them is to be verified against a signed root.
    """

    def hash_at(self, level: int, index: int) -> bytes:
        """The hash of one complete subtree."""
        return self.hashes_at([(level, index)])[0]

    def hashes_at(self, coordinates: Sequence[Coordinate]) -> list[bytes]:
        """The hashes of many complete subtrees, in the order of ``coordinates``, in one read."""
        ...


class MemoryHashes(HashReader):
    """Subtree hashes kept in memory: for short logs, and as the model of a stored reader."""

    def __init__(self) -> None:
        self._hashes: dict[Coordinate, bytes] = {}

    @classmethod
    def of_leaves(cls, leaf_hashes: Sequence[bytes]) -> MemoryHashes:
        """All complete subtrees over the given leaf hashes."""
        hashes = cls()
        hashes.add(Frontier().extend(leaf_hashes))
        return hashes

    def add(self, subtrees: Iterable[SubtreeHash]) -> None:
        """Keep what :meth:`Frontier.append` or :meth:`Frontier.extend` returned."""
        for level, index, digest in subtrees:
            self._hashes[level, index] = digest

    def hashes_at(self, coordinates: Sequence[Coordinate]) -> list[bytes]:
        try:
            return [self._hashes[coordinate] for coordinate in coordinates]
        except KeyError as missing:
            raise ProofError(f"expected a stored hash at (level, index) {missing}, found none") from None


class Frontier:
    """The compact range of a growing tree: the roots of its maximal complete subtrees, largest first.

    It holds at most 63 hashes whatever the size, and is all that is needed to append and to know the root.
    """

    def __init__(self) -> None:
        self._size = 0
        self._roots: list[bytes] = []

    @classmethod
    def restore(cls, size: int, reader: HashReader) -> Frontier:
        """The frontier of the first ``size`` leaves, from one batch read.

        Raises:
            ProofError: the size is out of range, or the reader lacks a hash.
        """
        _check_size("size", size)
        frontier = cls()
        frontier._roots = _read(reader, _peaks(0, size))
        frontier._size = size
        return frontier

    @classmethod
    def of_peaks(cls, size: int, peaks: Sequence[bytes]) -> Frontier:
        """The frontier that :attr:`peaks` were of; they are believed.

        Raises:
            ProofError: the size is out of range, or has another number of peaks.
        """
        _check_size("size", size)
        if len(peaks) != size.bit_count() or any(len(each) != HASH_BYTES for each in peaks):
            raise ProofError(f"expected {size.bit_count()} hashes of {HASH_BYTES} bytes for size {size}")
        frontier = cls()
        frontier._roots, frontier._size = list(peaks), size
        return frontier

    @property
    def size(self) -> int:
        """How many leaves were appended."""
        return self._size

    @property
    def peaks(self) -> tuple[bytes, ...]:
        """The roots of the maximal complete subtrees, largest first: with the size, all that there is to keep."""
        return tuple(self._roots)

    def root(self) -> bytes:
        """The root of the tree as it is now."""
        return _fold(self._roots)

    def append(self, leaf: bytes) -> list[SubtreeHash]:
        """Append one leaf hash; see :meth:`extend`."""
        return self.extend((leaf,))

    def extend(self, leaves: Sequence[bytes]) -> list[SubtreeHash]:
        """Append leaf hashes.

        Returns:
            every complete subtree that this finished, leaves included, children first: what a store must write.

        The frontier is unchanged if this raises.

        Raises:
            MalformedError: a leaf hash is not 32 bytes long.
            ProofError: the tree would grow beyond 2**63 - 1 leaves.
        """
        size = self._size
        _check_size("size after appending", size + len(leaves))
        roots = self._roots.copy()
        finished: list[SubtreeHash] = []
        add, push, pop = finished.append, roots.append, roots.pop
        for position, leaf in enumerate(leaves, size):
            if len(leaf) != HASH_BYTES:
                field = f"leaves[{position - size}]"
                raise MalformedError(f"expected {HASH_BYTES} bytes, got {len(leaf)}", field=field)
            level, index, digest = 0, position, leaf
            add((0, index, digest))
            while index & 1:  # one turn for each trailing one bit of the position, so at most 63
                digest = sha256(b"\x01" + pop() + digest).digest()
                level += 1
                index >>= 1
                add((level, index, digest))
            push(digest)
        self._roots = roots
        self._size = size + len(leaves)
        return finished


def root_at(reader: HashReader, size: int) -> bytes:
    """The root of the first ``size`` leaves.

    Raises:
        ProofError: the size is out of range, or the reader lacks a hash.
    """
    _check_size("size", size)
    return _fold(_read(reader, _peaks(0, size)))


def inclusion_proof(reader: HashReader, index: int, size: int) -> list[bytes]:
    """The proof that leaf ``index`` is in the tree of ``size`` leaves: PATH of RFC 9162, section 2.1.3.1.

    Returns:
        the sibling hashes from the leaf's up to the root's child.

    Raises:
        ProofError: there is no such leaf, or the reader lacks a hash.
    """
    _check_size("size", size)
    if not 0 <= index < size:
        raise ProofError(f"expected the index of a leaf below the tree size {size}, got {index}")
    siblings: list[Coordinate] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            siblings.append((middle, high))
            high = middle
        else:
            siblings.append((low, middle))
            low = middle
    return _range_roots(reader, siblings[::-1])


def consistency_proof(reader: HashReader, old_size: int, new_size: int) -> list[bytes]:
    """The proof that the tree of ``old_size`` leaves is a prefix of that of ``new_size`` leaves.

    By RFC 9162, section 2.1.4.1; empty for equal sizes, and for an empty old tree, a prefix of every tree.

    Raises:
        ProofError: the sizes are out of range or order, or the reader lacks a hash.
    """
    _check_size("new size", new_size)
    if not 0 <= old_size <= new_size:
        raise ProofError(f"expected an old size of at most {new_size}, got {old_size}")
    if old_size == 0:
        return []
    ranges: list[Coordinate] = []
    low, high = 0, new_size
    while high != old_size:
        middle = low + _split(high - low)
        if old_size <= middle:
            ranges.append((middle, high))
            high = middle
        else:
            ranges.append((low, middle))
            low = middle
    if low > 0:
        ranges.append((low, high))  # with low == 0 this is the old root, which the verifier has
    return _range_roots(reader, ranges[::-1])


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Verify an inclusion proof by the steps of RFC 9162, section 2.1.3.2.

    Args:
        leaf: hash of the leaf, see :func:`leaf_hash`.
        index: zero-based position of the leaf.
        size: leaves in the tree; from the same signed checkpoint as ``root``.

    Raises:
        ProofError: the proof does not show that the leaf is at ``index`` in the tree with that root.
    """
    _check_size("size", size)
    _check_hashes("inclusion proof", proof, leaf)
    # (1) The index lies in the tree.
    if not 0 <= index < size:
        raise ProofError(f"expected the index of a leaf below the tree size {size}, got {index}")
    # (2) fn is the index, sn the last leaf's index; (3) r is the leaf hash.
    fn, sn, r = index, size - 1, leaf
    # (4) Hash the path together.
    for sibling in proof:
        if sn == 0:
            raise ProofError(f"inclusion proof of {len(proof)} hashes is too long for leaf {index} of {size}")
        if fn & 1 or fn == sn:
            r = node_hash(sibling, r)
            fn, sn = _skip_levels_without_sibling(fn, sn)
        else:
            r = node_hash(r, sibling)
        fn, sn = fn >> 1, sn >> 1
    # (5) The path reached the root, and the root is the expected one.
    if sn != 0:
        raise ProofError(f"inclusion proof of {len(proof)} hashes is too short for leaf {index} of {size}")
    if r != root:
        raise ProofError(f"inclusion proof leads to root {r.hex()}, expected {root.hex()}")


def verify_consistency(old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Verify a consistency proof by the steps of RFC 9162, section 2.1.4.2.

    An empty old tree is consistent with every tree if the proof is empty and the old root is
    :func:`empty_root` (C2SP tlog-witness); nothing is then shown about the new root.

    Raises:
        ProofError: the proof does not show that the old tree is a prefix of the new one.
    """
    _check_size("new size", new_size)
    if not 0 <= old_size <= new_size:
        raise ProofError(f"expected an old size of at most {new_size}, got {old_size}")
    _check_hashes("consistency proof", proof, old_root, new_root)
    span = f"from size {old_size} to {new_size}"
    if old_size in {0, new_size}:
        if proof:
            raise ProofError(f"expected an empty consistency proof {span}, got {len(proof)} hashes")
        if old_size == 0 and old_root != _EMPTY_ROOT:
            raise ProofError(f"expected root {_EMPTY_ROOT.hex()} of the empty tree, got {old_root.hex()}")
        if old_size == new_size and old_root != new_root:
            raise ProofError(f"two roots at the same size {new_size}: {old_root.hex()} and {new_root.hex()}")
        return
    # (1) The proof is not empty.
    if not proof:
        raise ProofError(f"expected a consistency proof {span}, got an empty one")
    # (2) An old tree that is complete is itself the first hash.
    path = [old_root, *proof] if old_size & (old_size - 1) == 0 else list(proof)
    # (3) fn and sn are the last leaves' indexes; (4) skip the levels at which the old tree is complete.
    fn, sn = old_size - 1, new_size - 1
    complete = (fn ^ (fn + 1)).bit_length() - 1
    fn, sn = fn >> complete, sn >> complete
    # (5) fr and sr grow into the old and the new root.
    fr = sr = path[0]
    # (6) Hash the path together.
    for sibling in path[1:]:
        if sn == 0:
            raise ProofError(f"consistency proof of {len(proof)} hashes is too long {span}")
        if fn & 1 or fn == sn:
            fr, sr = node_hash(sibling, fr), node_hash(sibling, sr)
            fn, sn = _skip_levels_without_sibling(fn, sn)
        else:
            sr = node_hash(sr, sibling)
        fn, sn = fn >> 1, sn >> 1
    # (7) Both roots are the expected ones, and the path reached the new root.
    if sn != 0:
        raise ProofError(f"consistency proof of {len(proof)} hashes is too short {span}")
    if fr != old_root:
        raise ProofError(f"consistency proof {span} leads to old root {fr.hex()}, expected {old_root.hex()}")
    if sr != new_root:
        raise ProofError(f"consistency proof {span} leads to new root {sr.hex()}, expected {new_root.hex()}")


def _check_size(what: str, size: int) -> None:
    if not 0 <= size <= MAX_SIZE:
        raise ProofError(f"expected a {what} from 0 to {MAX_SIZE}, got {size}")


def _check_hashes(what: str, proof: Sequence[bytes], *others: bytes) -> None:
    if len(proof) > MAX_PROOF_HASHES:
        raise ProofError(f"expected at most {MAX_PROOF_HASHES} hashes in the {what}, got {len(proof)}")
    for digest in (*others, *proof):
        if len(digest) != HASH_BYTES:
            raise ProofError(f"expected hashes of {HASH_BYTES} bytes in the {what}, got one of {len(digest)}")


def _skip_levels_without_sibling(fn: int, sn: int) -> tuple[int, int]:
    """Right-shift both until ``fn``, which is odd or equals ``sn`` and so is not zero, is odd."""
    levels = (fn & -fn).bit_length() - 1
    return fn >> levels, sn >> levels


def _split(width: int) -> int:
    """The largest power of two below ``width`` (width > 1)."""
    return 1 << ((width - 1).bit_length() - 1)


def _peaks(low: int, high: int) -> list[Coordinate]:
    """The maximal complete subtrees over the leaves ``low`` to ``high``, from left to right.

    ``low`` must be a multiple of the largest power of two in ``high - low``, as in every range of RFC 9162.
    """
    peaks: list[Coordinate] = []
    width = high - low
    for level in range(width.bit_length() - 1, -1, -1):
        if width >> level & 1:
            peaks.append((level, low >> level))
            low += 1 << level
    return peaks


def _fold(roots: Sequence[bytes]) -> bytes:
    """The root over complete subtrees of falling size."""
    if not roots:
        return _EMPTY_ROOT
    root = roots[-1]
    for left in roots[-2::-1]:
        root = node_hash(left, root)
    return root


def _range_roots(reader: HashReader, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """The roots over several ranges of leaves, from one batch read."""
    peaks = [_peaks(low, high) for low, high in ranges]
    hashes = iter(_read(reader, [coordinate for group in peaks for coordinate in group]))
    return [_fold([next(hashes) for _ in group]) for group in peaks]


def _read(reader: HashReader, coordinates: Sequence[Coordinate]) -> list[bytes]:
    if not coordinates:
        return []
    hashes = reader.hashes_at(coordinates)
    if len(hashes) != len(coordinates) or any(len(digest) != HASH_BYTES for digest in hashes):
        raise ProofError(f"expected {len(coordinates)} hashes of {HASH_BYTES} bytes from the reader")
    return hashes

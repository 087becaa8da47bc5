"""Tools of others accept checkpoints, cosignatures, proofs and tiles of ours, and refuse altered ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from permslip.merkle import consistency_proof, inclusion_proof
from tests.thirdparty.logs import WrittenLog
from tests.thirdparty.programs import Judge, RefusedError


def test_cosigned_checkpoint_is_accepted(judge: Judge, log: WrittenLog) -> None:
    judge.checkpoint(log.note, log.log_key, log.witnesses, 2)


def test_checkpoint_with_another_size_is_refused(judge: Judge, log: WrittenLog) -> None:
    altered = log.note.replace(b"\n700\n", b"\n701\n")
    with pytest.raises(RefusedError):
        judge.checkpoint(altered, log.log_key, log.witnesses, 2)


def test_checkpoint_with_an_altered_cosignature_is_refused(judge: Judge, log: WrittenLog) -> None:
    line = log.note.splitlines(keepends=True)[-1]
    swapped = line[:-20] + (b"B" if line[-20:-19] == b"A" else b"A") + line[-19:]
    with pytest.raises(RefusedError):
        judge.checkpoint(log.note.replace(line, swapped), log.log_key, log.witnesses, 2)


def test_checkpoint_without_its_quorum_is_refused(judge: Judge, log: WrittenLog) -> None:
    lines = log.note.splitlines(keepends=True)
    with pytest.raises(RefusedError):
        judge.checkpoint(b"".join(lines[:-1]), log.log_key, log.witnesses, 2)


@pytest.mark.parametrize("index", [0, 255, 256, 511, 512, 699])
def test_inclusion_proof_is_accepted(judge: Judge, log: WrittenLog, index: int) -> None:
    proof = inclusion_proof(log.hashes, index, log.size)
    judge.inclusion(log.leaves[index], index, *log.tree(log.size), proof)


def test_altered_inclusion_proofs_are_refused(judge: Judge, log: WrittenLog) -> None:
    proof = inclusion_proof(log.hashes, 300, log.size)
    swapped = [bytes([proof[0][0] ^ 1]) + proof[0][1:], *proof[1:]]
    tree = log.tree(log.size)
    for leaf, index, hashes in (
        (log.leaves[300], 300, swapped),
        (log.leaves[300], 300, proof[:-1]),
        (log.leaves[300], 301, proof),
        (log.leaves[301], 300, proof),
    ):
        with pytest.raises(RefusedError):
            judge.inclusion(leaf, index, *tree, hashes)


@pytest.mark.parametrize("old_size", [1, 256, 300, 512, 699])
def test_consistency_proof_is_accepted(judge: Judge, log: WrittenLog, old_size: int) -> None:
    judge.consistency(log.tree(old_size), log.tree(log.size), consistency_proof(log.hashes, old_size, log.size))


def test_altered_consistency_proofs_are_refused(judge: Judge, log: WrittenLog) -> None:
    old, new = log.tree(log.old_size), log.tree(log.size)
    proof = consistency_proof(log.hashes, log.old_size, log.size)
    rewritten = (log.old_size, log.tree(log.old_size - 1)[1])
    for hashes, before in ((proof[1:], old), ([*proof[:-1], bytes(32)], old), (proof, rewritten)):
        with pytest.raises(RefusedError):
            judge.consistency(before, new, hashes)


@pytest.mark.parametrize("index", [0, 256, 699])
def test_tiles_are_accepted(judge: Judge, log: WrittenLog, index: int) -> None:
    judge.tiles(log.folder, log.leaves[index], index, log.log_key, log.tree(log.old_size))


def test_altered_tiles_are_refused(judge: Judge, log: WrittenLog, tmp_path: Path) -> None:
    copy = tmp_path / "altered"
    shutil.copytree(log.folder, copy)
    tile = copy / "tile" / "0" / "001"
    content = bytearray(tile.read_bytes())
    content[7 * 32] ^= 1
    tile.write_bytes(content)
    with pytest.raises(RefusedError):
        judge.tiles(copy, log.leaves[263], 263, log.log_key, log.tree(log.old_size))

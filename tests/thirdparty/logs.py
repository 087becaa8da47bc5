"""A log written by the trust library alone: entries, tiles, a cosigned checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from permslip.checkpoints import Checkpoint, CosignatureSigner, cosign, open_checkpoint, sign_checkpoint
from permslip.keys import SigningKey
from permslip.merkle import MemoryHashes, leaf_hash, root_at
from permslip.notes import Ed25519Signer, append_signatures
from permslip.tiles import bundles_between, encode_bundle, tile_bytes, tiles_between

__all__ = ["ORIGIN", "WrittenLog", "write_log"]

ORIGIN: Final = "fed.example/broker"
_TIME: Final = 1_790_000_000


@dataclass(frozen=True)
class WrittenLog:
    """A log on the disk, and all that a verifier needs to be told.

    Attributes:
        folder: ``checkpoint`` and ``tile/…``.
        note: the checkpoint.
        log_key, witnesses: vkeys.
        old_size: a size that it had before.
    """

    folder: Path
    note: bytes
    log_key: str
    witnesses: tuple[str, ...]
    leaves: tuple[bytes, ...]
    hashes: MemoryHashes
    old_size: int

    @property
    def size(self) -> int:
        """Entries."""
        return len(self.leaves)

    def tree(self, size: int) -> tuple[int, bytes]:
        """Size and root."""
        return size, root_at(self.hashes, size)


def write_log(folder: Path, *, size: int, old_size: int, witnesses: int = 2) -> WrittenLog:
    """Write a log; entry ``n`` is ``entry n`` with some bytes that are no text."""
    leaves = tuple(b"entry %d \x00\xff" % number for number in range(size))
    hashes = MemoryHashes.of_leaves([leaf_hash(each) for each in leaves])
    for tile in tiles_between(0, size):
        _write(folder / tile.path, tile_bytes(hashes, tile))
    for bundle in bundles_between(0, size):
        first = bundle.index * 256
        _write(folder / bundle.path, encode_bundle(leaves[first : first + bundle.width]))

    log = Ed25519Signer(ORIGIN, SigningKey.from_seed(bytes(32)))
    signed = sign_checkpoint(Checkpoint(ORIGIN, size, root_at(hashes, size)), [log])
    signers = [
        CosignatureSigner(f"school-{number}.example", SigningKey.from_seed(bytes([number + 1] * 32)), timestamp=_TIME)
        for number in range(witnesses)
    ]
    opened = open_checkpoint(signed, log.verifier)
    note = append_signatures(signed, [cosign(opened, each) for each in signers])
    _write(folder / "checkpoint", note)
    return WrittenLog(folder, note, str(log.key), tuple(str(each.key) for each in signers), leaves, hashes, old_size)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)

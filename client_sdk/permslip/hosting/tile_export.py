"""A ledger as files by c2sp.org/tlog-tiles, in a folder that any HTTP server or tool can take as it is.

Rules:

- What is there already is kept: a tile never changes. So an export that was interrupted goes on where it stopped, and a
  later one adds what came since. ``checkpoint`` is written last: what it covers is there.
- Memory holds one tile or bundle, however large the ledger.
- Each file is written under another name and then renamed: there is never half a file under its own name.
- With entries the files are their owner's alone (0600). A bundle with an erased entry cannot be made any more, and one
  that was made before is taken away.

Example::

    exported = export_tiles(ledger, folder, size, note, entries=False)
    exported.tiles, exported.bundles
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from permslip.checkpoints import Checkpoint
from permslip.errors import MalformedError
from permslip.hosting.ledger_reading import LedgerReader
from permslip.merkle import HASH_BYTES
from permslip.notes import parse_note
from permslip.tiles import TILE_WIDTH, bundles_between, encode_bundle, tiles_between

__all__ = ["Exported", "export_tiles"]


@dataclass(slots=True)
class Exported:
    """What was written.

    Attributes:
        size: entries that the checkpoint covers.
        tiles, bundles: files that were added.
        kept: files that were there.
        erased: bundles that hold an erased entry, and were left out or taken away.
    """

    size: int
    tiles: int = 0
    bundles: int = 0
    kept: int = 0
    erased: int = 0


def export_tiles(ledger: LedgerReader, folder: Path, size: int, note: bytes, *, entries: bool) -> Exported:
    """Write everything that a checkpoint covers.

    Args:
        ledger: of which.
        folder: made if it is missing.
        size: of the checkpoint.
        note: the checkpoint, signed.
        entries: also what the entries say.

    Raises:
        MalformedError: the folder holds another ledger, or a later state of this one, or cannot be written.
    """
    try:
        _check_folder(folder, Checkpoint.parse(parse_note(note).untrusted_text))
        done = Exported(size)
        mode = 0o600 if entries else 0o644
        folder.mkdir(mode=0o700 if entries else 0o755, parents=True, exist_ok=True)
        for tile in tiles_between(0, size):
            path = folder / tile.path
            if _is_there(path, tile.width * HASH_BYTES):
                done.kept += 1
            else:
                _write(path, ledger.tile(tile), mode)
                done.tiles += 1
        if entries:
            _write_bundles(ledger, folder, size, done, mode)
        _write(folder / "checkpoint", note, mode)
    except OSError as error:
        raise MalformedError(
            f"cannot be written: {error.strerror}.",
            field=str(error.filename or folder),
            remedy="Name a folder of yours with room.",
        ) from error
    return done


def _write_bundles(ledger: LedgerReader, folder: Path, size: int, done: Exported, mode: int) -> None:
    for bundle in bundles_between(0, size):
        path = folder / bundle.path
        start = bundle.index * TILE_WIDTH
        leaves = [leaf.leaf for leaf in ledger.leaves(start, start + bundle.width)]
        whole = [leaf for leaf in leaves if leaf is not None]
        if len(whole) < len(leaves):
            path.unlink(missing_ok=True)
            done.erased += 1
            continue
        content = encode_bundle(whole)
        if _is_there(path, len(content)):
            done.kept += 1
        else:
            _write(path, content, mode)
            done.bundles += 1


def _check_folder(folder: Path, new: Checkpoint) -> None:
    try:
        before = Checkpoint.parse(parse_note((folder / "checkpoint").read_bytes()).untrusted_text)
    except FileNotFoundError:
        return
    if before.origin != new.origin or before.size > new.size:
        raise MalformedError(
            f"holds {before.origin} at {before.size} entries; expected {new.origin} at {new.size} or fewer.",
            field=str(folder),
            remedy="Name a folder of its own for each ledger.",
        )


def _is_there(path: Path, length: int) -> bool:
    try:
        return path.stat().st_size == length
    except FileNotFoundError:
        return False


def _write(path: Path, content: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as stream:
            stream.write(content)
        draft.replace(path)
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()

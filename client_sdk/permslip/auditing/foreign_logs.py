"""Verifying a tlog-tiles log that anybody made: checkpoint, entries against tiles, tiles up to the root.

A log is a folder or an HTTP address with ``checkpoint``, ``tile/<L>/<N>`` and, where it gives them,
``tile/entries/<N>`` (:mod:`permslip.tiles`, c2sp.org/tlog-tiles). Nothing but its verifier key is known of it.

Rules:

- The checkpoint is signed by that key. Of witnesses whose keys are given, more than half must have cosigned, or as many
  as are asked for.
- Every hash of every tile is compared with what the tiles below it make, every entry with its hash; the leaves make the
  root that was signed.
- A partial tile may be missing where the full one is there: its first hashes are the same.
- A server may keep what entries say to itself (401, 403): the log is then verified from its hashes up.
- One tile of each level is in memory, and one bundle of entries.

Example::

    result, findings = verify_log(Path("export"), "example.com/log+…", witnesses=[], progress=silent)
"""

from __future__ import annotations

import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from permslip.auditing.codes import Code
from permslip.auditing.results import Progress, Result, silent
from permslip.checkpoints import Checkpoint, CosignatureVerifier, open_checkpoint, verify_cosigned
from permslip.errors import ConfigurationError, MalformedError, ProofError, SignatureError, UnavailableError
from permslip.merkle import HASH_BYTES, Frontier, leaf_hash
from permslip.notes import Ed25519Verifier, VerifierKey
from permslip.tiles import MAX_ENTRY_BYTES, TILE_WIDTH, EntryBundle, Tile, decode_bundle

__all__ = ["LogFinding", "verify_log"]

_HEIGHT: Final = 8
_MAX_NOTE: Final = 1_000_000
_MAX_TILE: Final = TILE_WIDTH * HASH_BYTES
_MAX_BUNDLE: Final = TILE_WIDTH * (MAX_ENTRY_BYTES + 2)
_MOST_FINDINGS: Final = 1_000
_TIMEOUT: Final = 30.0

# Reads a path of the log, at most so many bytes; None where there is no such file.
_Read: TypeAlias = Callable[[str, int], bytes | None]


@dataclass(frozen=True, slots=True)
class LogFinding:
    """What was found in a log."""

    code: Code
    message: str


@dataclass
class _Found:
    findings: list[LogFinding] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, code: Code, message: str) -> None:
        self.codes[str(code)] += 1
        if len(self.findings) < _MOST_FINDINGS:
            self.findings.append(LogFinding(code, message))


def verify_log(
    source: str | Path,
    vkey: str,
    *,
    witnesses: Sequence[str] = (),
    quorum: int = 0,
    origin: str | None = None,
    progress: Progress = silent,
) -> tuple[Result, list[LogFinding]]:
    """Verify a log.

    Args:
        source: a folder, or ``https://…`` (``http://…``).
        vkey: the log's verifier key, ``name+keyid+base64``.
        witnesses: verifier keys of its witnesses.
        quorum: how many of them must have cosigned; 0: more than half.
        origin: the checkpoint's first line; the key's name unless given.
        progress: told how far it is.

    Returns:
        the result, and its first findings.

    Raises:
        MalformedError: a verifier key is none.
        ConfigurationError: the source is neither a folder nor an address; the quorum cannot be.
        UnavailableError: the log cannot be read.
    """
    found = _Found()
    log = Ed25519Verifier(VerifierKey.parse(vkey))
    read = _reader(source)
    checkpoint = _checkpoint(read, log, [VerifierKey.parse(each) for each in witnesses], quorum, origin, found)
    if checkpoint is not None:
        _Tiles(read, checkpoint, found, progress).check()
    faults = found.codes.total()
    return Result("verify", dict(found.counts), dict(found.codes), faults), found.findings


def _checkpoint(
    read: _Read,
    log: Ed25519Verifier,
    witnesses: Sequence[VerifierKey],
    quorum: int,
    origin: str | None,
    found: _Found,
) -> Checkpoint | None:
    note = read("checkpoint", _MAX_NOTE)
    if note is None:
        raise UnavailableError("the log has no file «checkpoint».", remedy="Name the folder or address that holds it.")
    try:
        opened = open_checkpoint(note, log, origin=origin)
    except SignatureError as error:
        found.add(Code.CHECKPOINT_SIGNATURE, error.message)
        return None
    except (MalformedError, ProofError) as error:
        found.add(Code.CHECKPOINT_MALFORMED, error.message)
        return None
    found.counts["checkpoints"] += 1
    if witnesses:
        try:
            verifiers = [CosignatureVerifier(each) for each in witnesses]
            cosigned = verify_cosigned(note, log, verifiers, quorum or len(verifiers) // 2 + 1, origin=origin)
            found.counts["cosignatures"] = len(cosigned.cosignatures)
        except SignatureError as error:
            found.add(Code.COSIGNATURE_INVALID, error.message)
        except ProofError as error:
            found.add(Code.COSIGNATURES_MISSING, error.message)
    return opened.checkpoint


class _Tiles:
    """The tree of one log, from its leaves up."""

    def __init__(self, read: _Read, checkpoint: Checkpoint, found: _Found, progress: Progress) -> None:
        self._read, self._found, self._progress = read, found, progress
        self._size, self._root = checkpoint.size, checkpoint.root
        # The tile of each level above the leaves' that was read last.
        self._held: dict[int, tuple[int, bytes | None]] = {}

    def check(self) -> None:
        frontier = Frontier()
        for index in range(-(-self._size // TILE_WIDTH)):
            width = min(TILE_WIDTH, self._size - index * TILE_WIDTH)
            hashes = self._hashes(Tile(0, index, width))
            if hashes is None:
                return  # nothing above can be computed
            self._entries(index, hashes)
            for level, number, digest in frontier.extend(hashes):
                if level and level % _HEIGHT == 0:
                    self._compare(level // _HEIGHT, number, digest)
            self._progress("tiles", frontier.size, self._size)
        self._found.counts["leaves"] = self._size
        if frontier.root() != self._root:
            self._found.add(
                Code.CHECKPOINT_ROOT,
                f"the {self._size} leaves make root {frontier.root().hex()}, the log signed {self._root.hex()}.",
            )

    def _hashes(self, tile: Tile) -> list[bytes] | None:
        content = self._content(tile)
        if content is None:
            return None
        return [content[at : at + HASH_BYTES] for at in range(0, len(content), HASH_BYTES)]

    def _content(self, tile: Tile) -> bytes | None:
        """A tile's bytes; those of the full one, cut, where the partial one is gone."""
        content = self._read(tile.path, _MAX_TILE)
        if content is None and tile.width < TILE_WIDTH:
            full = self._read(Tile(tile.level, tile.index).path, _MAX_TILE)
            content = None if full is None else full[: tile.width * HASH_BYTES]
        if content is None:
            self._found.add(Code.TILE_MISSING, f"expected {tile.path}, found none.")
            return None
        if len(content) != tile.width * HASH_BYTES:
            expected = tile.width * HASH_BYTES
            self._found.add(Code.TILE_MISMATCH, f"expected {expected} bytes in {tile.path}, got {len(content)}.")
            return None
        self._found.counts["tiles"] += 1
        return content

    def _entries(self, index: int, hashes: Sequence[bytes]) -> None:
        bundle = EntryBundle(index, len(hashes))
        content = self._read(bundle.path, _MAX_BUNDLE)
        if content is None and bundle.width < TILE_WIDTH:
            full = self._read(EntryBundle(index).path, _MAX_BUNDLE)
            content = None if full is None else _cut(full, bundle.width)
        if content is None:
            if self._found.counts["entries"]:
                self._found.add(Code.TILE_MISSING, f"expected {bundle.path}, found none.")
            return
        try:
            entries = decode_bundle(content, bundle.width)
        except MalformedError as error:
            self._found.add(Code.TILE_MISMATCH, f"{bundle.path}: {error.message}.")
            return
        self._found.counts["entries"] += len(entries)
        for number, (entry, digest) in enumerate(zip(entries, hashes, strict=True), index * TILE_WIDTH):
            if leaf_hash(entry) != digest:
                self._found.add(Code.LEAF_HASH, f"entry {number} is not the one of its hash in {Tile(0, index).path}.")

    def _compare(self, level: int, number: int, digest: bytes) -> None:
        """A complete subtree's root is what the tile above says."""
        index, offset = divmod(number, TILE_WIDTH)
        held = self._held.get(level)
        if held is None or held[0] != index:
            hashes_there = (self._size >> level * _HEIGHT) - index * TILE_WIDTH
            held = index, self._content(Tile(level, index, min(TILE_WIDTH, hashes_there)))
            self._held[level] = held
        content = held[1]
        if content is not None and content[offset * HASH_BYTES : (offset + 1) * HASH_BYTES] != digest:
            path = Tile(level, index).path
            self._found.add(Code.TILE_MISMATCH, f"hash {offset} of {path} is not what the tiles below it make.")


def _cut(full: bytes, width: int) -> bytes:
    """The first entries of a full bundle."""
    end = 0
    for _ in range(width):
        end += 2 + int.from_bytes(full[end : end + 2], "big")
    return full[:end]


def _reader(source: str | Path) -> _Read:
    if isinstance(source, str) and urllib.parse.urlsplit(source).scheme in {"http", "https"}:
        return _over_http(source)
    folder = Path(source)
    if not folder.is_dir():
        raise ConfigurationError("is neither a folder nor an http address.", key=str(source))
    return _in_folder(folder)


def _in_folder(folder: Path) -> _Read:
    def read(path: str, most: int) -> bytes | None:
        try:
            with (folder / path).open("rb") as stream:
                return stream.read(most + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UnavailableError(f"{path} cannot be read: {error.strerror}.") from error

    return read


def _over_http(address: str) -> _Read:
    base = address.rstrip("/")

    def read(path: str, most: int) -> bytes | None:
        try:
            with urllib.request.urlopen(f"{base}/{path}", timeout=_TIMEOUT) as response:  # noqa: S310  # http(s) alone
                content: bytes = response.read(most + 1)
                return content
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in {404, 410} or (error.code in {401, 403} and path.startswith("tile/entries/")):
                return None
            raise UnavailableError(f"{base}/{path}: the server answered {error.code}.") from error
        except (urllib.error.URLError, OSError) as error:
            raise UnavailableError(f"{base}/{path} cannot be read: {error}.", remedy="Try again.") from error

    return read

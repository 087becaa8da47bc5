"""Tiles: a Merkle tree and its entries as immutable files that any HTTP server or folder can hold.

By c2sp.org/tlog-tiles. A **hash tile** ``tile/<L>/<N>`` holds 256 consecutive hashes of tree level ``8 * L``;
an **entry bundle** ``tile/entries/<N>`` the bytes of the 256 leaves of the level-0 tile with the same number.
The rightmost of either may be *partial*, with fewer: its path ends in ``.p/<W>`` for its width. Numbers are
written in groups of three digits, all but the last behind an ``x``: tile 1234067 is ``x001/x234/067``.

Rules:

* One spelling for each path; anything else is refused, before any file is touched.
* A tile's length is exactly 32 bytes for each hash of its width; an entry has at most 65,535 bytes.
* Which partial tiles exist follows from a checkpoint's size: do not fetch any for a size that is not signed.
* Hashes read from tiles are what some server says. Believe a root or proof made of them only after it was
  verified against a signed root (:mod:`permslip.checkpoints`).

Example:
    >>> from permslip.merkle import MemoryHashes, leaf_hash, root_at
    >>> hashes = MemoryHashes.of_leaves([leaf_hash(bytes([number])) for number in range(70)])
    >>> files = {tile.path: tile_bytes(hashes, tile) for tile in tiles_between(0, 70)}
    >>> sorted(files)
    ['tile/0/000.p/70']
    >>> served = TileHashes(70, lambda tiles: [files[tile.path] for tile in tiles])
    >>> root_at(served, 70) == root_at(hashes, 70)
    True
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from permslip.errors import MalformedError, ProofError
from permslip.merkle import HASH_BYTES, MAX_SIZE, Coordinate, HashReader, node_hash

__all__ = [
    "MAX_ENTRY_BYTES",
    "MAX_PATH_CHARACTERS",
    "TILE_WIDTH",
    "EntryBundle",
    "Tile",
    "TileHashes",
    "bundles_between",
    "decode_bundle",
    "encode_bundle",
    "parse_path",
    "tile_bytes",
    "tiles_between",
]

TILE_WIDTH = 256
MAX_ENTRY_BYTES = 65_535
MAX_PATH_CHARACTERS = 64

_TILE_HEIGHT = 8
_TILE_LEVELS = 8  # the format allows 64, but 2**63 leaves have hashes on tile levels 0 to 7 alone
_LENGTH_BYTES = 2
_CACHED_TILES = 1024  # at most 8 MB
_PATH = re.compile(
    r"tile/(?P<level>entries|[0-9]{1,2})/(?P<groups>(?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/(?P<width>[0-9]{1,3}))?"
)


@dataclass(frozen=True, slots=True)
class Tile:
    """A hash tile's coordinates.

    Args:
        level: its hashes are those of tree level ``8 * level``; at most 7 with fewer than 2**63 leaves.
        index: number within the level.
        width: how many hashes it holds; below 256 it is partial.

    Raises:
        MalformedError: no tree of fewer than 2**63 leaves has such a tile.
    """

    level: int
    index: int
    width: int = TILE_WIDTH

    def __post_init__(self) -> None:
        if not 0 <= self.level < _TILE_LEVELS:
            raise MalformedError(f"expected a level below {_TILE_LEVELS}, got {self.level}", field="tile.level")
        _check_extent("tile", self.index, self.width, self.level * _TILE_HEIGHT)

    @property
    def path(self) -> str:
        """``tile/<L>/<N>[.p/<W>]``."""
        return f"tile/{self.level}/{_number(self.index, self.width)}"


@dataclass(frozen=True, slots=True)
class EntryBundle:
    """An entry bundle's coordinates: the leaves from ``256 * index``, ``width`` of them.

    Raises:
        MalformedError: no tree of fewer than 2**63 leaves has such a bundle.
    """

    index: int
    width: int = TILE_WIDTH

    def __post_init__(self) -> None:
        _check_extent("bundle", self.index, self.width, 0)

    @property
    def path(self) -> str:
        """``tile/entries/<N>[.p/<W>]``."""
        return f"tile/entries/{_number(self.index, self.width)}"


def parse_path(path: str) -> Tile | EntryBundle:
    """Parse the path of a hash tile or an entry bundle, without a leading slash.

    Raises:
        MalformedError: not the one spelling of such a path.
    """
    found = _PATH.fullmatch(path) if len(path) <= MAX_PATH_CHARACTERS else None
    if found is None:
        raise MalformedError(f"expected tile/<L>/<N>[.p/<W>], got {path[:MAX_PATH_CHARACTERS]!r}", field="path")
    level, groups, width = found["level"], found["groups"], found["width"]
    index = int(groups.replace("x", "").replace("/", ""))
    parsed: Tile | EntryBundle
    if level == "entries":
        parsed = EntryBundle(index, int(width or TILE_WIDTH))
    else:
        parsed = Tile(int(level), index, int(width or TILE_WIDTH))
    if parsed.path != path:
        raise MalformedError(f"expected the path to be spelled {parsed.path}, got {path!r}", field="path")
    return parsed


def tiles_between(old_size: int, new_size: int) -> Iterator[Tile]:
    """The hash tiles that a log of ``new_size`` leaves serves and that of ``old_size`` did not, by level.

    From 0 these are all that the size needs. A tile that grew since the old size comes with its new width.

    Raises:
        ProofError: the sizes are out of range or order.
    """
    _check_sizes(old_size, new_size)
    for level in range(_TILE_LEVELS):
        old, new = (size >> level * _TILE_HEIGHT for size in (old_size, new_size))
        for index, width in _extents(old, new):
            yield Tile(level, index, width)


def bundles_between(old_size: int, new_size: int) -> Iterator[EntryBundle]:
    """The entry bundles that a log of ``new_size`` leaves serves and that of ``old_size`` does not.

    Raises:
        ProofError: the sizes are out of range or order.
    """
    _check_sizes(old_size, new_size)
    for index, width in _extents(old_size, new_size):
        yield EntryBundle(index, width)


def tile_bytes(reader: HashReader, tile: Tile) -> bytes:
    """A tile's content, from one batch read.

    Raises:
        ProofError: the reader lacks a hash.
    """
    first = tile.index * TILE_WIDTH
    level = tile.level * _TILE_HEIGHT
    hashes = reader.hashes_at([(level, first + offset) for offset in range(tile.width)])
    if len(hashes) != tile.width or any(len(digest) != HASH_BYTES for digest in hashes):
        raise ProofError(f"expected {tile.width} hashes of {HASH_BYTES} bytes for {tile.path}")
    return b"".join(hashes)


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """An entry bundle's content: each entry behind its length as a big-endian uint16.

    Raises:
        MalformedError: not 1 to 256 entries, or one of more than 65,535 bytes.
    """
    if not 0 < len(entries) <= TILE_WIDTH:
        raise MalformedError(f"expected 1 to {TILE_WIDTH} entries, got {len(entries)}", field="bundle")
    for number, entry in enumerate(entries):
        if len(entry) > MAX_ENTRY_BYTES:
            raise MalformedError(
                f"expected at most {MAX_ENTRY_BYTES} bytes, got {len(entry)}", field=f"bundle[{number}]"
            )
    return b"".join(len(entry).to_bytes(_LENGTH_BYTES, "big") + entry for entry in entries)


def decode_bundle(raw: bytes, width: int) -> list[bytes]:
    """The entries of a bundle of known width; their leaf hashes must still be compared with the tile's.

    Raises:
        MalformedError: not exactly ``width`` length-prefixed entries.
    """
    entries: list[bytes] = []
    offset = 0
    for number in range(width):
        start = offset + _LENGTH_BYTES
        offset = start + int.from_bytes(raw[offset:start], "big")
        if start > len(raw) or offset > len(raw):
            raise MalformedError(f"expected {width} entries, got bytes for fewer", field=f"bundle[{number}]")
        entries.append(raw[start:offset])
    if offset != len(raw):
        raise MalformedError(f"expected {width} entries, got {len(raw) - offset} bytes more", field="bundle")
    return entries


class TileHashes(HashReader):
    """Subtree hashes read from the tiles of a log of one size, fetched when they are needed.

    Args:
        size: the log's size, from a verified checkpoint.
        fetch: gets the content of tiles, in the order asked for. It is called at most once for each batch of
            hashes, with the tiles that are not among the last 1,024 that were used.
    """

    def __init__(self, size: int, fetch: Callable[[Sequence[Tile]], Sequence[bytes]]) -> None:
        _check_sizes(0, size)
        self._size = size
        self._fetch = fetch
        self._tiles: OrderedDict[Tile, bytes] = OrderedDict()

    def hashes_at(self, coordinates: Sequence[Coordinate]) -> list[bytes]:
        """Read hashes, and hash together those between tile levels.

        Raises:
            ProofError: a subtree is not complete at this size, or a tile has not its length.
        """
        wanted = [self._tile_of(level, index) for level, index in coordinates]
        held = self._held(list(dict.fromkeys(wanted)))
        return [
            _subtree_root(held[tile], level % _TILE_HEIGHT, index)
            for tile, (level, index) in zip(wanted, coordinates, strict=True)
        ]

    def _tile_of(self, level: int, index: int) -> Tile:
        if not (0 <= level < _TILE_LEVELS * _TILE_HEIGHT and index >= 0 and (index + 1) << level <= self._size):
            raise ProofError(
                f"expected a complete subtree of {self._size} leaves, got (level, index) ({level}, {index})"
            )
        tile_level, height = divmod(level, _TILE_HEIGHT)
        number = index << height >> _TILE_HEIGHT
        width = min(TILE_WIDTH, (self._size >> tile_level * _TILE_HEIGHT) - number * TILE_WIDTH)
        return Tile(tile_level, number, width)

    def _held(self, tiles: Sequence[Tile]) -> dict[Tile, bytes]:
        held: dict[Tile, bytes] = {}
        missing: list[Tile] = []
        for tile in tiles:
            if tile in self._tiles:
                self._tiles.move_to_end(tile)
                held[tile] = self._tiles[tile]
            else:
                missing.append(tile)
        if missing:
            contents = self._fetch(missing)
            if len(contents) != len(missing):
                raise ProofError(f"expected {len(missing)} tiles to be fetched, got {len(contents)}")
            for tile, content in zip(missing, contents, strict=True):
                if len(content) != tile.width * HASH_BYTES:
                    raise ProofError(f"expected {tile.width * HASH_BYTES} bytes of {tile.path}, got {len(content)}")
                held[tile] = self._tiles[tile] = content
            while len(self._tiles) > _CACHED_TILES:
                self._tiles.popitem(last=False)
        return held


def _subtree_root(content: bytes, height: int, index: int) -> bytes:
    """The root over ``2**height`` hashes of a tile: those of the subtree ``index`` of its tree level."""
    first = (index << height) % TILE_WIDTH
    row = [content[at * HASH_BYTES : (at + 1) * HASH_BYTES] for at in range(first, first + (1 << height))]
    for _ in range(height):
        row = [node_hash(row[at], row[at + 1]) for at in range(0, len(row), 2)]
    return row[0]


def _extents(old: int, new: int) -> Iterator[tuple[int, int]]:
    """Index and width of the tiles that ``new`` hashes of one level fill and ``old`` did not."""
    if old < new:
        full, rest = divmod(new, TILE_WIDTH)
        for index in range(old // TILE_WIDTH, full):
            yield index, TILE_WIDTH
        if rest:
            yield full, rest


def _check_sizes(old_size: int, new_size: int) -> None:
    if not 0 <= old_size <= new_size <= MAX_SIZE:
        raise ProofError(f"expected sizes from 0 to {MAX_SIZE} in order, got {old_size} and {new_size}")


def _check_extent(what: str, index: int, width: int, level: int) -> None:
    if not 0 < width <= TILE_WIDTH:
        raise MalformedError(f"expected 1 to {TILE_WIDTH}, got {width}", field=f"{what}.width")
    if index < 0 or (index * TILE_WIDTH + width) << level > MAX_SIZE:
        raise MalformedError(f"expected a {what} of fewer than 2**63 leaves, got {index}", field=f"{what}.index")


def _number(index: int, width: int) -> str:
    digits = str(index)
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    partial = "" if width == TILE_WIDTH else f".p/{width}"
    return "".join(f"x{group}/" for group in groups[:-1]) + groups[-1] + partial

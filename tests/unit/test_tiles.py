"""Tiles: their paths, which exist at a size, and a tree read back from them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, strategies as st

from permslip.errors import MalformedError, ProofError
from permslip.merkle import (
    MAX_SIZE,
    Coordinate,
    HashReader,
    MemoryHashes,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_at,
)
from permslip.tiles import (
    MAX_ENTRY_BYTES,
    TILE_WIDTH,
    EntryBundle,
    Tile,
    TileHashes,
    bundles_between,
    decode_bundle,
    encode_bundle,
    parse_path,
    tile_bytes,
    tiles_between,
)

LARGEST = 70_000
LEAVES = [leaf_hash(number.to_bytes(4, "big")) for number in range(LARGEST)]
HASHES = MemoryHashes.of_leaves(LEAVES)
SMALL = 1500


class Folder:
    """The tiles of one log size, that remembers what was fetched."""

    def __init__(self, size: int) -> None:
        self.files = {tile: tile_bytes(HASHES, tile) for tile in tiles_between(0, size)}
        self.fetched: list[list[str]] = []

    def fetch(self, tiles: Sequence[Tile]) -> list[bytes]:
        self.fetched.append([tile.path for tile in tiles])
        return [self.files[tile] for tile in tiles]


# --------------------------------------------------------------------------------------------------- paths


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 0), "tile/0/000"),
        (Tile(0, 999), "tile/0/999"),
        (Tile(0, 1000), "tile/0/x001/000"),
        (Tile(1, 1234067), "tile/1/x001/x234/067"),
        (Tile(0, 273, 112), "tile/0/273.p/112"),
        (Tile(7, 0, 127), "tile/7/000.p/127"),
        (Tile(0, 2**55 - 1, 255), "tile/0/x036/x028/x797/x018/x963/967.p/255"),
        (EntryBundle(0), "tile/entries/000"),
        (EntryBundle(1234067, 8), "tile/entries/x001/x234/067.p/8"),
    ],
)
def test_coordinates_have_one_path_and_it_parses_back(tile: Tile | EntryBundle, path: str) -> None:
    assert tile.path == path
    assert parse_path(path) == tile


@given(level=st.integers(0, 6), index=st.integers(0, 2**70), width=st.integers(1, TILE_WIDTH))
def test_every_tile_that_can_exist_parses_back_from_its_path(level: int, index: int, width: int) -> None:
    index %= 2 ** (55 - 8 * level) - 1
    assert parse_path(Tile(level, index, width).path) == Tile(level, index, width)
    assert parse_path(EntryBundle(index, width).path) == EntryBundle(index, width)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile/0",
        "tile/0/",
        "/tile/0/000",
        "tile/0/000/",
        "tile/0/000\n",
        "tile/0/0",
        "tile/0/0000",
        "tile/0/001/000",
        "tile/0/x001",
        "tile/0/x001/x000",
        "tile/0/x000/000",
        "tile/0/x000/x001/000",
        "tile/00/000",
        "tile/01/000",
        "tile/-1/000",
        "tile/a/000",
        "tile/8/000",
        "tile/63/000",
        "tile/64/000",
        "tile/7/000",
        "tile/7/000.p/128",
        "tile/7/001.p/1",
        "tile/0/000.p/0",
        "tile/0/000.p/00",
        "tile/0/000.p/01",
        "tile/0/000.p/256",
        "tile/0/000.p/257",
        "tile/0/000.p/1000",
        "tile/0/000.p/",
        "tile/0/000.p",
        "tile/0/000.P/1",
        "tile/0/\u0660\u0660\u0660",
        "tile/data/000",
        "tile/entries/../000",
        "tile/entries/x000/000",
        "tile/0/x036/x028/x797/x018/x963/968",
        "tile/0/x999/x999/x999/x999/x999/x999/999",
        "tile/0/" + "x000/" * 20 + "000",
        "checkpoint",
    ],
)
def test_any_other_path_is_refused(path: str) -> None:
    with pytest.raises(MalformedError):
        parse_path(path)


def test_a_refused_path_says_how_it_is_spelled() -> None:
    with pytest.raises(
        MalformedError, match=r"path: expected the path to be spelled tile/0/001, got 'tile/0/x000/001'"
    ):
        parse_path("tile/0/x000/001")
    with pytest.raises(MalformedError, match=r"path: expected tile/<L>/<N>\[\.p/<W>\], got 'xxxx"):
        parse_path("x" * 1000)


@pytest.mark.parametrize(
    ("level", "index", "width", "field"),
    [
        (-1, 0, 1, "tile.level"),
        (8, 0, 1, "tile.level"),
        (0, 0, 0, "tile.width"),
        (0, 0, 257, "tile.width"),
        (0, -1, 1, "tile.index"),
        (0, 2**55, 1, "tile.index"),
        (0, 2**55 - 1, 256, "tile.index"),
        (7, 0, 128, "tile.index"),
    ],
)
def test_impossible_tiles_are_refused_by_field(level: int, index: int, width: int, field: str) -> None:
    with pytest.raises(MalformedError) as caught:
        Tile(level, index, width)
    assert caught.value.field == field


def test_impossible_bundles_are_refused_by_field() -> None:
    for index, width, field in [(-1, 1, "bundle.index"), (2**55, 1, "bundle.index"), (0, 0, "bundle.width")]:
        with pytest.raises(MalformedError) as caught:
            EntryBundle(index, width)
        assert caught.value.field == field


# ----------------------------------------------------------------------------------- which tiles there are


def test_the_formats_example_of_seventy_thousand_leaves() -> None:
    tiles = list(tiles_between(0, 70_000))
    assert [tile for tile in tiles if tile.width < TILE_WIDTH] == [
        Tile(0, 273, 112),
        Tile(1, 1, 17),
        Tile(2, 0, 1),
    ]
    assert [tile for tile in tiles if tile.width == TILE_WIDTH] == [
        *(Tile(0, index) for index in range(273)),
        Tile(1, 0),
    ]


def test_the_formats_example_of_two_hundred_and_fifty_six_leaves() -> None:
    assert list(tiles_between(0, 256)) == [Tile(0, 0), Tile(1, 0, 1)]


@given(old=st.integers(0, LARGEST), grown=st.integers(0, 2000))
def test_growth_needs_exactly_the_tiles_that_were_not_there(old: int, grown: int) -> None:
    new = min(LARGEST, old + grown)
    assert set(tiles_between(old, new)) == set(tiles_between(0, new)) - set(tiles_between(0, old))
    assert [(bundle.index, bundle.width) for bundle in bundles_between(old, new)] == [
        (tile.index, tile.width) for tile in tiles_between(old, new) if tile.level == 0
    ]


def test_the_largest_tree_has_tiles_on_eight_levels() -> None:
    assert [tile.level for tile in tiles_between(MAX_SIZE - 1, MAX_SIZE)] == [0]
    assert {tile.level for tile in tiles_between(2**62 - 1, 2**62)} == set(range(8))


@pytest.mark.parametrize(("old", "new"), [(-1, 4), (5, 4), (0, MAX_SIZE + 1)])
def test_sizes_out_of_range_or_order_have_no_tiles(old: int, new: int) -> None:
    with pytest.raises(ProofError, match=f"in order, got {old} and {new}"):
        next(tiles_between(old, new))
    with pytest.raises(ProofError, match=f"in order, got {old} and {new}"):
        next(bundles_between(old, new))


# ---------------------------------------------------------------------------------------- hashes from tiles


def test_a_level_zero_tile_is_its_leaf_hashes_and_a_level_one_tile_the_roots_of_full_tiles() -> None:
    assert tile_bytes(HASHES, Tile(0, 1, 3)) == b"".join(LEAVES[256:259])
    full = MemoryHashes.of_leaves(LEAVES[256:512])
    assert tile_bytes(HASHES, Tile(1, 0, 2))[32:] == root_at(full, 256)


@pytest.mark.parametrize("size", [1, 255, 256, 257, 511, 512, 1500, 65_536, 65_537, 70_000])
def test_roots_and_proofs_from_tiles_are_those_from_stored_hashes(size: int) -> None:
    served = TileHashes(size, Folder(size).fetch)
    for earlier in sorted({1, size // 3 + 1, size - size // 256, size}):
        assert root_at(served, earlier) == root_at(HASHES, earlier)
        assert inclusion_proof(served, earlier - 1, size) == inclusion_proof(HASHES, earlier - 1, size)
        assert consistency_proof(served, earlier, size) == consistency_proof(HASHES, earlier, size)


@given(data=st.data(), size=st.integers(1, SMALL))
def test_every_complete_subtree_can_be_read_from_tiles(data: st.DataObject, size: int) -> None:
    level = data.draw(st.integers(0, size.bit_length() - 1))
    index = data.draw(st.integers(0, (size >> level) - 1))
    assert TileHashes(size, Folder(size).fetch).hash_at(level, index) == HASHES.hash_at(level, index)


@pytest.mark.parametrize(
    ("level", "index"), [(0, 300), (0, -1), (-1, 0), (9, 0), (2, 75), (64, 0), (1000, 0), (0, 2**80)]
)
def test_a_subtree_that_is_not_complete_at_the_size_is_refused_without_fetching(level: int, index: int) -> None:
    folder = Folder(300)
    with pytest.raises(ProofError, match=rf"complete subtree of 300 leaves, got \(level, index\) \({level}, {index}\)"):
        TileHashes(300, folder.fetch).hash_at(level, index)
    assert folder.fetched == []


def test_tiles_are_fetched_once_when_needed_in_one_call_for_each_batch() -> None:
    folder = Folder(700)
    served = TileHashes(700, folder.fetch)
    assert folder.fetched == []
    root_at(served, 700)
    assert folder.fetched == [["tile/1/000.p/2", "tile/0/002.p/188"]]
    root_at(served, 700)
    inclusion_proof(served, 600, 700)
    assert len(folder.fetched) == 1
    inclusion_proof(served, 3, 700)
    assert folder.fetched[1:] == [["tile/0/000"]]


def test_the_tile_unused_longest_is_fetched_anew_when_many_were_read() -> None:
    same = b"h" * 32
    fetched: list[Tile] = []

    def fetch(tiles: Sequence[Tile]) -> list[bytes]:
        fetched.extend(tiles)
        return [same * tile.width for tile in tiles]

    served = TileHashes(MAX_SIZE, fetch)
    for index in range(1024):
        served.hash_at(0, index * TILE_WIDTH)
    served.hash_at(0, 0)
    assert len(fetched) == 1024
    served.hash_at(0, 1024 * TILE_WIDTH)
    served.hash_at(0, 0)
    assert len(fetched) == 1025
    served.hash_at(0, TILE_WIDTH)
    assert fetched[1025:] == [Tile(0, 1)]


@pytest.mark.parametrize("wrong", [b"", b"x" * 31, b"x" * 319, b"x" * 321, b"x" * 8192])
def test_a_tile_of_the_wrong_length_is_refused(wrong: bytes) -> None:
    with pytest.raises(ProofError, match=rf"expected 320 bytes of tile/0/000\.p/10, got {len(wrong)}"):
        TileHashes(10, lambda tiles: [wrong]).hash_at(0, 0)


def test_a_fetch_that_returns_too_few_tiles_is_refused() -> None:
    with pytest.raises(ProofError, match="expected 1 tiles to be fetched, got 0"):
        TileHashes(10, lambda tiles: []).hash_at(0, 0)


def test_a_log_of_impossible_size_is_refused() -> None:
    for size in (-1, MAX_SIZE + 1):
        with pytest.raises(ProofError, match="expected sizes from 0 to"):
            TileHashes(size, lambda tiles: [])


class ClippedHashes(HashReader):
    """A reader with hashes that are cut short, or too few."""

    def __init__(self, *, keep: int, length: int) -> None:
        self.keep = keep
        self.length = length

    def hashes_at(self, coordinates: Sequence[Coordinate]) -> list[bytes]:
        return [digest[: self.length] for digest in HASHES.hashes_at(coordinates)][: self.keep]


@pytest.mark.parametrize("reader", [ClippedHashes(keep=1, length=32), ClippedHashes(keep=2, length=31)])
def test_no_tile_is_made_of_hashes_that_are_missing_or_cut(reader: HashReader) -> None:
    with pytest.raises(ProofError, match=r"expected 2 hashes of 32 bytes for tile/0/000\.p/2"):
        tile_bytes(reader, Tile(0, 0, 2))


# --------------------------------------------------------------------------------------------- entry bundles


@given(entries=st.lists(st.binary(max_size=300), min_size=1, max_size=TILE_WIDTH))
def test_entries_come_back_from_their_bundle(entries: list[bytes]) -> None:
    assert decode_bundle(encode_bundle(entries), len(entries)) == entries


def test_a_bundle_is_big_endian_length_prefixed() -> None:
    assert encode_bundle([b"abc", b"", b"x" * 258]) == b"\x00\x03abc\x00\x00\x01\x02" + b"x" * 258
    longest = b"x" * MAX_ENTRY_BYTES
    assert decode_bundle(encode_bundle([longest]), 1) == [longest]


@pytest.mark.parametrize("entries", [[], [b""] * 257])
def test_a_bundle_of_no_or_too_many_entries_is_refused(entries: list[bytes]) -> None:
    with pytest.raises(MalformedError, match=f"bundle: expected 1 to 256 entries, got {len(entries)}"):
        encode_bundle(entries)


def test_an_entry_that_is_too_long_is_refused_by_number() -> None:
    with pytest.raises(MalformedError, match=r"bundle\[1\]: expected at most 65535 bytes, got 65536"):
        encode_bundle([b"", b"x" * (MAX_ENTRY_BYTES + 1)])


@given(entries=st.lists(st.binary(max_size=20), min_size=1, max_size=8), cut=st.integers(1, 1000))
def test_a_bundle_cut_short_anywhere_is_refused(entries: list[bytes], cut: int) -> None:
    raw = encode_bundle(entries)
    with pytest.raises(MalformedError, match=r"bundle\[\d\]: expected \d entries, got bytes for fewer"):
        decode_bundle(raw[: -(cut % len(raw) or len(raw))], len(entries))


@given(entries=st.lists(st.binary(max_size=20), min_size=1, max_size=8), more=st.binary(min_size=1, max_size=4))
def test_a_bundle_with_bytes_behind_its_entries_is_refused(entries: list[bytes], more: bytes) -> None:
    with pytest.raises(MalformedError, match=f"bundle: expected {len(entries)} entries, got {len(more)} bytes more"):
        decode_bundle(encode_bundle(entries) + more, len(entries))

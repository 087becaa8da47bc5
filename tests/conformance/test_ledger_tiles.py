"""A stored ledger as tlog-tiles: served over HTTP and exported to a folder, on each backend."""

from __future__ import annotations

import stat
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from http.client import HTTPConnection
from pathlib import Path
from urllib.error import HTTPError

import pytest

from permslip.checkpoints import Checkpoint, open_checkpoint, sign_checkpoint
from permslip.errors import MalformedError
from permslip.hosting.ledger import Ledger
from permslip.hosting.metrics import Metrics, exposed
from permslip.hosting.tile_export import export_tiles
from permslip.hosting.tile_serving import TilePages
from permslip.keys import SigningKey
from permslip.merkle import consistency_proof, inclusion_proof, leaf_hash, root_at, verify_consistency, verify_inclusion
from permslip.notes import Ed25519Signer
from permslip.tiles import Tile, TileHashes, bundles_between, decode_bundle, parse_path, tiles_between
from tests.conformance.conftest import Database, refused

SIGNER = Ed25519Signer("grand-bend/broker", SigningKey.from_seed(bytes([9] * 32)))


async def grown(database: Database, size: int) -> Ledger:
    ledger = database.open()
    while ledger.size < size:
        await ledger.append(*(refused() for _ in range(min(400, size - ledger.size))))
    return ledger


def note_of(ledger: Ledger, size: int) -> bytes:
    root = ledger.root() if size == ledger.size else bytes(32)
    return sign_checkpoint(Checkpoint(SIGNER.key.name, size, root), [SIGNER])


# --------------------------------------------------------------------------------------- over HTTP


class Site:
    """A ledger's pages on loopback."""

    def __init__(self, port: int) -> None:
        self.port = port

    def get(self, path: str) -> tuple[bytes, Message]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=30) as answer:
            return answer.read(), answer.headers

    def refused(self, path: str) -> int:
        with pytest.raises(HTTPError) as error:
            self.get(path)
        error.value.close()
        return int(error.value.code)

    def fetch(self, tiles: object) -> list[bytes]:
        assert isinstance(tiles, list)
        return [self.get(tile.path)[0] for tile in tiles]


@contextmanager
def served(ledger: Ledger, published: tuple[int, bytes] | None) -> Iterator[Site]:
    with exposed(Metrics(), "127.0.0.1", 0, pages=TilePages(lambda: published, ledger)) as port:
        yield Site(port)


@pytest.mark.parametrize("size", [1, 255, 256, 257, 700])
async def test_checkpoint_and_tiles_are_enough_to_prove_everything(database: Database, size: int) -> None:
    ledger = await grown(database, size)
    leaves = database.leaves()
    with served(ledger, (size, note_of(ledger, size))) as site:
        checkpoint = open_checkpoint(site.get("checkpoint")[0], SIGNER.verifier).checkpoint
        hashes = TileHashes(checkpoint.size, lambda tiles: site.fetch(list(tiles)))

        assert root_at(hashes, checkpoint.size) == checkpoint.root
        for position in {0, size // 2, size - 1}:
            proof = inclusion_proof(hashes, position, size)
            verify_inclusion(leaves[position].leaf_hash, position, size, proof, checkpoint.root)
        old = (size + 1) // 2
        proof = consistency_proof(hashes, old, size)
        verify_consistency(old, size, root_at(hashes, old), checkpoint.root, proof)


async def test_tiles_may_be_kept_for_ever_and_the_checkpoint_may_not(database: Database) -> None:
    ledger = await grown(database, 300)
    with served(ledger, (300, note_of(ledger, 300))) as site:
        tile, headers = site.get("tile/0/000")
        assert (len(tile), headers["Content-Type"]) == (8_192, "application/octet-stream")
        assert "immutable" in headers["Cache-Control"]
        assert site.get("checkpoint")[1]["Cache-Control"] == "no-cache"
        assert b"permslip_ledger_size" in site.get("metrics")[0]


async def test_what_the_published_checkpoint_does_not_cover_is_not_served(database: Database) -> None:
    ledger = await grown(database, 600)
    with served(ledger, (300, b"note")) as site:
        assert len(site.get("tile/0/000")[0]) == 8_192
        assert len(site.get("tile/0/001.p/44")[0]) == 44 * 32
        assert len(site.get("tile/1/000.p/1")[0]) == 32
        for path in ("tile/0/001.p/45", "tile/0/001", "tile/1/000.p/2", "tile/0/002.p/1", "tile/1/000", "tile/7/000"):
            assert site.refused(path) == 404, path


async def test_entries_are_served_to_nobody(database: Database) -> None:
    ledger = await grown(database, 300)
    with served(ledger, (300, b"note")) as site:
        assert site.refused("tile/entries/000") == 403
        assert site.refused("tile/entries/001.p/44") == 403


@pytest.mark.parametrize(
    "path",
    ["tile/0/0", "tile/00/000", "tile/0/000.p/256", "tile/0/000.p/0", "tile/0/../000", "tile/0/x000/000", "tile/9/000"],
)
async def test_a_path_has_one_spelling(database: Database, path: str) -> None:
    ledger = await grown(database, 300)
    with served(ledger, (300, b"note")) as site:
        assert site.refused(path) == 404


async def test_nothing_but_reading_is_served_and_nothing_before_a_checkpoint_is(database: Database) -> None:
    ledger = await grown(database, 10)
    with served(ledger, None) as site:
        assert site.refused("checkpoint") == 503
        assert site.refused("tile/0/000.p/10") == 503
        connection = HTTPConnection("127.0.0.1", site.port, timeout=30)
        connection.request("POST", "/checkpoint", b"")
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")
        connection.close()
    with served(ledger, (10, b"note")) as site:
        connection = HTTPConnection("127.0.0.1", site.port, timeout=30)
        connection.request("HEAD", "/tile/0/000.p/10")
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Content-Length"], answer.read()) == (200, "320", b"")
        connection.close()


# --------------------------------------------------------------------------------------- as files


def files(folder: Path) -> dict[str, bytes]:
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


async def test_an_export_holds_what_the_checkpoint_needs_and_nothing_else(database: Database, tmp_path: Path) -> None:
    ledger = await grown(database, 600)
    folder = tmp_path / "tiles"

    done = export_tiles(ledger, folder, 600, note_of(ledger, 600), entries=True)

    found = files(folder)
    tiles, bundles = list(tiles_between(0, 600)), list(bundles_between(0, 600))
    wanted = {each.path for each in tiles} | {each.path for each in bundles} | {"checkpoint"}
    assert set(found) == wanted
    assert (done.tiles, done.bundles, done.kept, done.erased) == (len(tiles), 3, 0, 0)
    hashes = TileHashes(600, lambda tiles: [found[each.path] for each in tiles])
    assert root_at(hashes, 600) == open_checkpoint(found["checkpoint"], SIGNER.verifier).checkpoint.root
    for bundle in bundles:
        level = parse_path(f"tile/0/{bundle.path.removeprefix('tile/entries/')}")
        assert isinstance(level, Tile)
        entries = decode_bundle(found[bundle.path], bundle.width)
        assert b"".join(map(leaf_hash, entries)) == found[level.path]


@pytest.mark.parametrize(("entries", "mode"), [(True, 0o600), (False, 0o644)])
async def test_files_with_entries_are_their_owners_alone(
    database: Database, tmp_path: Path, entries: bool, mode: int
) -> None:
    ledger = await grown(database, 300)

    export_tiles(ledger, tmp_path / "tiles", 300, note_of(ledger, 300), entries=entries)

    found = [each for each in (tmp_path / "tiles").rglob("*") if each.is_file()]
    assert found
    assert {stat.S_IMODE(each.stat().st_mode) & mode for each in found} == {mode & 0o644}
    assert not any(stat.S_IMODE(each.stat().st_mode) & ~mode for each in found)
    assert any("entries" in each.parts for each in found) is entries


async def test_an_export_goes_on_where_it_was(database: Database, tmp_path: Path) -> None:
    ledger = await grown(database, 300)
    folder = tmp_path / "tiles"
    export_tiles(ledger, folder, 300, note_of(ledger, 300), entries=True)
    (folder / "tile/0/000").unlink()
    (folder / "tile/entries/001.p/44").write_bytes(b"half")

    mended = export_tiles(ledger, folder, 300, note_of(ledger, 300), entries=True)
    assert (mended.tiles, mended.bundles) == (1, 1)
    ledger = await grown(database, 600)
    later = export_tiles(ledger, folder, 600, note_of(ledger, 600), entries=True)

    assert (later.tiles, later.bundles) == (3, 2)
    fresh = tmp_path / "fresh"
    export_tiles(ledger, fresh, 600, note_of(ledger, 600), entries=True)
    assert files(fresh).items() <= files(folder).items()


async def test_a_bundle_with_an_erased_entry_is_left_out_and_taken_away(database: Database, tmp_path: Path) -> None:
    ledger = await grown(database, 600)
    folder = tmp_path / "tiles"
    export_tiles(ledger, folder, 600, note_of(ledger, 600), entries=True)
    ledger.erase([300])

    done = export_tiles(ledger, folder, 600, note_of(ledger, 600), entries=True)

    assert (done.erased, done.tiles, done.bundles) == (1, 0, 0)
    assert sorted(each.name for each in (folder / "tile/entries").iterdir()) == ["000", "002.p"]


async def test_a_folder_is_for_one_ledger_and_does_not_go_back(database: Database, tmp_path: Path) -> None:
    ledger = await grown(database, 20)
    folder = tmp_path / "tiles"
    export_tiles(ledger, folder, 20, note_of(ledger, 20), entries=False)
    other = Ed25519Signer("other/broker", SigningKey.from_seed(bytes([8] * 32)))

    with pytest.raises(MalformedError, match="holds grand-bend/broker at 20 entries"):
        export_tiles(
            ledger, folder, 20, sign_checkpoint(Checkpoint("other/broker", 20, ledger.root()), [other]), entries=False
        )
    with pytest.raises(MalformedError, match="expected grand-bend/broker at 10 or fewer"):
        export_tiles(ledger, folder, 10, note_of(ledger, 10), entries=False)


async def test_a_folder_that_cannot_be_written_is_named(database: Database, tmp_path: Path) -> None:
    ledger = await grown(database, 2)
    (tmp_path / "file").write_text("no folder")

    with pytest.raises(MalformedError, match="file"):
        export_tiles(ledger, tmp_path / "file", 2, note_of(ledger, 2), entries=False)

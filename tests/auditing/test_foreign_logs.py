"""Verifying tlog-tiles logs as anybody may have made them: folders and HTTP addresses of tiles and entries."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from permslip.auditing.foreign_logs import verify_log
from permslip.checkpoints import Checkpoint, CosignatureSigner, cosign, open_checkpoint, sign_checkpoint
from permslip.cli import main
from permslip.errors import ConfigurationError, MalformedError, UnavailableError
from permslip.keys import SigningKey
from permslip.merkle import MemoryHashes, leaf_hash, root_at
from permslip.notes import Ed25519Signer, append_signatures
from permslip.tiles import bundles_between, encode_bundle, tile_bytes, tiles_between
from tests.auditing.log_server import serving

ORIGIN = "log.example/2026"
LOG = Ed25519Signer(ORIGIN, SigningKey.from_seed(bytes(32)))
WITNESSES = [
    CosignatureSigner(f"witness-{number}.example", SigningKey.from_seed(bytes([number]) * 32), timestamp=1_800_000_000)
    for number in range(1, 4)
]
VKEYS = [str(each.key) for each in WITNESSES]


@dataclass
class Log:
    """A log in a folder."""

    folder: Path
    size: int

    def path(self, name: str) -> Path:
        return self.folder / name

    def flip(self, name: str, at: int = -1) -> None:
        content = bytearray(self.path(name).read_bytes())
        content[at] ^= 1
        self.path(name).write_bytes(content)


def made(folder: Path, size: int, *, cosigned_by: int = 2) -> Log:
    entries = [b"entry %d" % number for number in range(size)]
    hashes = MemoryHashes.of_leaves([leaf_hash(each) for each in entries])
    note = sign_checkpoint(Checkpoint(ORIGIN, size, root_at(hashes, size)), [LOG])
    opened = open_checkpoint(note, LOG.verifier)
    files = {"checkpoint": append_signatures(note, [cosign(opened, each) for each in WITNESSES[:cosigned_by]])}
    files |= {tile.path: tile_bytes(hashes, tile) for tile in tiles_between(0, size)}
    for each in bundles_between(0, size):
        files[each.path] = encode_bundle(entries[each.index * 256 : each.index * 256 + each.width])
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return Log(folder, size)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """Two full tiles of leaves, a partial third, and the tile above."""
    return made(tmp_path / "log", 600)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 600, 70_000])
def test_a_log_of_any_size_is_clean(tmp_path: Path, size: int) -> None:
    log = made(tmp_path / "log", size)

    result, found = verify_log(log.folder, str(LOG.key), witnesses=VKEYS)

    assert (result.exit_code, found) == (0, [])
    assert result.counts.get("entries", 0) == size
    assert result.counts["cosignatures"] == 2


def test_a_log_without_entries_is_verified_from_its_tiles_up(log: Log) -> None:
    for each in bundles_between(0, log.size):
        log.path(each.path).unlink()

    result, _ = verify_log(log.folder, str(LOG.key))

    assert (result.exit_code, result.counts["leaves"], result.counts.get("entries")) == (0, 600, None)


def test_a_partial_tile_may_be_cut_from_the_full_one(log: Log) -> None:
    hashes = MemoryHashes.of_leaves([leaf_hash(b"entry %d" % number) for number in range(768)])
    full = next(each for each in tiles_between(600, 768) if each.index == 2 and each.level == 0)
    log.path(full.path).write_bytes(tile_bytes(hashes, full))
    log.path("tile/entries/002").write_bytes(encode_bundle([b"entry %d" % number for number in range(512, 768)]))
    log.path("tile/0/002.p/88").unlink()
    log.path("tile/entries/002.p/88").unlink()

    assert verify_log(log.folder, str(LOG.key))[0].exit_code == 0


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("tile/entries/001", "LEAF_HASH"),
        ("tile/0/000", "CHECKPOINT_ROOT"),
        ("tile/0/002.p/88", "CHECKPOINT_ROOT"),
        ("tile/1/000.p/2", "TILE_MISMATCH"),
    ],
)
def test_a_file_that_was_altered_is_found(log: Log, name: str, code: str) -> None:
    log.flip(name)

    result, found = verify_log(log.folder, str(LOG.key))

    assert result.exit_code == 1
    assert code in {str(each.code) for each in found}


@pytest.mark.parametrize("name", ["tile/0/001", "tile/1/000.p/2", "tile/entries/001"])
def test_a_file_that_is_gone_is_found(log: Log, name: str) -> None:
    log.path(name).unlink()

    result, _ = verify_log(log.folder, str(LOG.key))

    assert (result.exit_code, set(result.findings)) == (1, {"TILE_MISSING"})


def test_a_tile_that_was_cut_short_is_found(log: Log) -> None:
    log.path("tile/0/000").write_bytes(bytes(32))

    assert set(verify_log(log.folder, str(LOG.key))[0].findings) == {"TILE_MISMATCH"}


def test_entries_that_are_no_bundle_are_found(log: Log) -> None:
    log.path("tile/entries/000").write_bytes(b"\xff")

    assert set(verify_log(log.folder, str(LOG.key))[0].findings) == {"TILE_MISMATCH"}


def test_a_checkpoint_of_another_key_is_found(log: Log) -> None:
    other = Ed25519Signer(ORIGIN, SigningKey.from_seed(b"o" * 32))

    assert set(verify_log(log.folder, str(other.key))[0].findings) == {"CHECKPOINT_SIGNATURE"}


def test_a_checkpoint_of_another_origin_is_found(log: Log) -> None:
    result, _ = verify_log(log.folder, str(LOG.key), origin="log.example/2027")

    assert set(result.findings) == {"CHECKPOINT_MALFORMED"}


def test_too_few_cosignatures_are_found(log: Log) -> None:
    assert verify_log(log.folder, str(LOG.key), witnesses=VKEYS, quorum=2)[0].exit_code == 0
    assert set(verify_log(log.folder, str(LOG.key), witnesses=VKEYS, quorum=3)[0].findings) == {"COSIGNATURES_MISSING"}


def test_what_is_no_key_no_folder_and_no_log_is_refused(log: Log, tmp_path: Path) -> None:
    with pytest.raises(MalformedError):
        verify_log(log.folder, "log.example+00000000+AAAA")
    with pytest.raises(ConfigurationError):
        verify_log(tmp_path / "nowhere", str(LOG.key))
    with pytest.raises(UnavailableError):
        verify_log(tmp_path, str(LOG.key))


def test_a_log_is_verified_over_http(log: Log) -> None:
    with serving(log.folder) as address:
        result, _ = verify_log(address, str(LOG.key), witnesses=VKEYS)

    assert (result.exit_code, result.counts["entries"]) == (0, 600)


def test_a_log_whose_entries_are_not_for_everybody_is_verified_from_its_tiles_up(log: Log) -> None:
    with serving(log.folder, refused="/tile/entries/") as address:
        result, _ = verify_log(address, str(LOG.key))

    assert (result.exit_code, result.counts["leaves"], result.counts.get("entries")) == (0, 600, None)


def test_a_server_that_refuses_hashes_leaves_the_log_unchecked(log: Log) -> None:
    with serving(log.folder, refused="/tile/0/") as address, pytest.raises(UnavailableError, match="403"):
        verify_log(address, str(LOG.key))


def test_a_server_that_is_away_leaves_the_log_unchecked() -> None:
    with pytest.raises(UnavailableError):
        verify_log("http://127.0.0.1:9/log", str(LOG.key))


def test_the_command_verifies_a_log_without_any_settings(log: Log) -> None:
    command = ["audit", "verify", str(log.folder), "--vkey", str(LOG.key), "--witness", VKEYS[0], "--json"]

    clean = CliRunner().invoke(main, command)
    log.flip("tile/entries/001")
    altered = CliRunner().invoke(main, command)

    assert (clean.exit_code, json.loads(clean.stdout)["counts"]["leaves"]) == (0, 600)
    assert (altered.exit_code, json.loads(altered.stdout)["findings"]) == (1, {"LEAF_HASH": 1})

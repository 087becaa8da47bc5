"""``permslip audit verify`` accepts a log that a tool of others made and let grow, and refuses it altered."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from permslip.cli import main
from tests.auditing.log_server import serving
from tests.thirdparty.log_of_theirs import LogOfTheirs
from tests.thirdparty.programs import Aics

# Entries are bytes: one is empty, one is no text, one is as long as a bundle allows.
ENTRIES = [b"", b"\x00\xff \xe2", b"x" * 65_535, *(b"entry %d" % number for number in range(3, 700))]


@pytest.fixture(scope="module")
def whole(aics: Aics, tmp_path_factory: pytest.TempPathFactory) -> LogOfTheirs:
    """Begun with 300 entries, grown to 700; the tool takes away partial tiles that became full."""
    log = LogOfTheirs.begun(aics, tmp_path_factory.mktemp("log"), ENTRIES[:300])
    log.grow(ENTRIES[300:])
    return log


def verified(log: LogOfTheirs, source: Path | str, *more: str) -> tuple[int, Any]:
    """Exit code, and what the command says as JSON."""
    witnesses = [word for each in log.witnesses for word in ("--witness", each)]
    done = CliRunner().invoke(main, ["audit", "verify", str(source), "--vkey", log.key, *witnesses, *more, "--json"])
    return done.exit_code, json.loads(done.stdout)


def test_log_is_accepted_from_its_folder_and_over_http(whole: LogOfTheirs) -> None:
    with serving(whole.folder) as address:
        found = [verified(whole, each) for each in (whole.folder, address)]

    for code, said in found:
        assert (code, said["findings"]) == (0, {})
        assert {"leaves": 700, "entries": 700, "cosignatures": 3}.items() <= said["counts"].items()


def test_log_is_accepted_each_time_it_has_grown(aics: Aics, tmp_path: Path) -> None:
    log = LogOfTheirs.begun(aics, tmp_path / "log", ENTRIES[:1])
    for size in (255, 256, 513):
        log.grow(ENTRIES[log.size : size], lines=["an extension of theirs"])
        code, said = verified(log, log.folder)
        assert (code, said["counts"]["entries"]) == (0, size)


@pytest.mark.parametrize(
    ("name", "at", "code"),
    [
        ("tile/entries/001", 40, "LEAF_HASH"),
        ("tile/0/000", 5, "CHECKPOINT_ROOT"),
        ("tile/0/002.p/188", 5, "CHECKPOINT_ROOT"),
        ("tile/1/000.p/2", 5, "TILE_MISMATCH"),
        ("checkpoint", 20, "CHECKPOINT_SIGNATURE"),
        ("checkpoint", -20, "COSIGNATURE_INVALID"),
    ],
)
def test_altered_log_is_refused(whole: LogOfTheirs, name: str, at: int, code: str, tmp_path: Path) -> None:
    copy = tmp_path / "altered"
    shutil.copytree(whole.folder, copy)
    content = bytearray((copy / name).read_bytes())
    content[at] = ord("1") if content[at] != ord("1") else ord("2")
    (copy / name).write_bytes(content)

    with serving(copy) as address:
        found = [verified(whole, each) for each in (copy, address)]

    for exit_code, said in found:
        assert exit_code == 1
        assert code in said["findings"]


def test_log_that_too_few_witnesses_cosigned_is_refused(whole: LogOfTheirs, tmp_path: Path) -> None:
    copy = tmp_path / "altered"
    shutil.copytree(whole.folder, copy)
    lines = (copy / "checkpoint").read_bytes().splitlines(keepends=True)
    (copy / "checkpoint").write_bytes(b"".join(lines[:-1]))

    assert verified(whole, copy)[0] == 0
    code, said = verified(whole, copy, "--quorum", "3")
    assert (code, set(said["findings"])) == (1, {"COSIGNATURES_MISSING"})

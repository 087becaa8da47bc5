"""Tools of others accept what a running federation shows, and refuse it altered: no line of ours is in between."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import pytest
from click.testing import CliRunner

from permslip.cli import main
from tests.auditing.log_server import serving
from tests.thirdparty.programs import Aics, Judge, RefusedError
from tests.thirdparty.shown import Proof, Shown, ShownLog, entries_in, read_proof, showing, tree_of

pytestmark = pytest.mark.e2e

Note: TypeAlias = "Callable[[bytes], bytes]"


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    with showing(tmp_path_factory.mktemp("federation")) as running:
        yield running


@pytest.fixture(params=["broker", "node"])
def ledger(request: pytest.FixtureRequest, shown: Shown) -> ShownLog:
    """The broker's, which witnesses cosign; a school's, which the broker cosigns."""
    found: ShownLog = getattr(shown, request.param)
    return found


# ------------------------------------------------------------------------------------------ checkpoints


def with_cosignatures(note: bytes, count: int) -> bytes:
    """The note with the first so many lines that are not its keeper's own."""
    text, _, signatures = note.partition(b"\n\n")
    own = b"\xe2\x80\x94 " + text.split(b"\n")[0] + b" "
    lines = signatures.splitlines(keepends=True)
    others = [each for each in lines if not each.startswith(own)]
    assert len(others) >= count
    return text + b"\n\n" + b"".join([each for each in lines if each.startswith(own)] + others[:count])


def altered_line(note: bytes, number: int) -> bytes:
    """One character of the signature in that line is another one."""
    lines = note.splitlines(keepends=True)
    line = lines[number]
    lines[number] = line[:-20] + (b"B" if line[-20:-19] == b"A" else b"A") + line[-19:]
    return b"".join(lines)


def resized(note: bytes) -> bytes:
    origin, size, rest = note.split(b"\n", 2)
    return b"\n".join([origin, b"%d" % (int(size) - 1), rest])


def test_checkpoint_is_accepted_with_its_cosignatures(judge: Judge, ledger: ShownLog) -> None:
    for note in (ledger.earlier, ledger.note):
        judge.checkpoint(with_cosignatures(note, ledger.quorum), ledger.key, ledger.cosigners, ledger.quorum)
    judge.checkpoint(ledger.note, ledger.key, ledger.cosigners, ledger.quorum)


@pytest.mark.parametrize(
    "alter",
    [
        pytest.param(resized, id="size"),
        pytest.param(lambda note: altered_line(note, 4), id="signature"),
        pytest.param(lambda note: altered_line(note, -1), id="cosignature"),
        pytest.param(lambda note: b"".join(note.splitlines(keepends=True)[:-1]), id="one cosignature too few"),
    ],
)
def test_altered_checkpoint_is_refused(judge: Judge, ledger: ShownLog, alter: Note) -> None:
    altered = alter(with_cosignatures(ledger.note, ledger.quorum))
    with pytest.raises(RefusedError):
        judge.checkpoint(altered, ledger.key, ledger.cosigners, ledger.quorum)


# ------------------------------------------------------------------------------------------ tiles


@pytest.mark.parametrize("index", [0, 256, -1])
def test_tiles_that_the_broker_serves_are_accepted(judge: Judge, shown: Shown, index: int) -> None:
    log = shown.broker
    index %= tree_of(log.note)[0]
    judge.tiles(shown.site, entries_in(log.exported)[index], index, log.key, tree_of(log.earlier))


def test_entry_that_is_not_the_one_of_served_tiles_is_refused(judge: Judge, shown: Shown) -> None:
    entry = bytearray(entries_in(shown.broker.exported)[3])
    entry[-1] ^= 1
    with pytest.raises(RefusedError):
        judge.tiles(shown.site, bytes(entry), 3, shown.broker.key, tree_of(shown.broker.earlier))


def test_history_that_is_not_the_one_of_served_tiles_is_refused(judge: Judge, shown: Shown) -> None:
    entries, (size, root) = entries_in(shown.broker.exported), tree_of(shown.broker.earlier)
    with pytest.raises(RefusedError):
        judge.tiles(shown.site, entries[3], 3, shown.broker.key, (size + 1, root))


def test_served_tiles_are_verified_by_our_command_without_entries(shown: Shown) -> None:
    log = shown.broker
    witnesses = [word for each in log.cosigners for word in ("--witness", each)]
    done = CliRunner().invoke(main, ["audit", "verify", shown.site, "--vkey", log.key, *witnesses, "--json"])

    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["counts"]["leaves"] >= tree_of(log.note)[0]


@pytest.mark.parametrize("index", [0, 256, -1])
def test_exported_tiles_are_accepted(judge: Judge, ledger: ShownLog, index: int) -> None:
    entries = entries_in(ledger.exported)
    index %= len(entries)
    judge.tiles(ledger.exported, entries[index], index, ledger.key, tree_of(ledger.earlier))


def test_exported_tiles_continue_what_was_cosigned(judge: Judge, ledger: ShownLog) -> None:
    judge.tiles(ledger.exported, entries_in(ledger.exported)[7], 7, ledger.key, tree_of(ledger.note))


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "at"),
    [("tile/0/000", 7 * 32), ("tile/1/000.p/1", 0), ("tile/entries/000", 40), ("checkpoint", 40)],
)
def test_altered_files_are_refused(judge: Judge, ledger: ShownLog, name: str, at: int, tmp_path: Path) -> None:
    copy = tmp_path / "altered"
    shutil.copytree(ledger.exported, copy)
    flip(copy / name, at)
    with serving(copy) as address, pytest.raises(RefusedError):
        judge.tiles(address, entries_in(copy)[0], 0, ledger.key, tree_of(ledger.earlier))


def test_exported_bundles_of_entries_are_read_by_others(aics: Aics, ledger: ShownLog, tmp_path: Path) -> None:
    aics.entry(ledger.exported, 256, ledger.key)
    copy = tmp_path / "altered"
    shutil.copytree(ledger.exported, copy)
    flip(copy / "tile" / "entries" / "000", 40)
    with pytest.raises(RefusedError):
        aics.entry(copy, 0, ledger.key)


# ------------------------------------------------------------------------------------------ a parent's proofs


def saved(shown: Shown) -> list[tuple[Proof, ShownLog]]:
    """Every file, and whose ledger it is about."""
    # A school's side comes sealed past the broker, which cannot cosign it there: the school's signature is all it has.
    sides = (shown.broker, replace(shown.node, cosigners=(), quorum=0))
    keepers = {each.key.partition("+")[0]: each for each in sides}
    found = [read_proof(each) for each in sorted(shown.proofs.glob("*.tlog-proof"))]
    return [(each, keepers[each.note.decode().split("\n")[0]]) for each in found]


def check(judge: Judge, proof: Proof, keeper: ShownLog) -> None:
    judge.checkpoint(proof.note, keeper.key, keeper.cosigners, keeper.quorum)
    judge.inclusion(proof.leaf, proof.index, *tree_of(proof.note), proof.hashes)


def test_parents_saved_proofs_are_accepted(judge: Judge, shown: Shown) -> None:
    proofs = saved(shown)
    assert {each.key for _, each in proofs} == {shown.broker.key, shown.node.key}
    readme = (shown.proofs / "README.txt").read_text()
    for note, keeper in {proof.note: keeper for proof, keeper in proofs}.items():
        assert f"  {keeper.key}\n" in readme
        judge.checkpoint(note, keeper.key, keeper.cosigners, keeper.quorum)
    for proof, _ in proofs:
        judge.inclusion(proof.leaf, proof.index, *tree_of(proof.note), proof.hashes)


@pytest.mark.parametrize(
    "alter",
    [
        pytest.param(lambda proof: replace(proof, hashes=(bytes(32), *proof.hashes[1:])), id="hash"),
        pytest.param(lambda proof: replace(proof, hashes=proof.hashes[:-1]), id="one hash too few"),
        pytest.param(lambda proof: replace(proof, index=proof.index ^ 1), id="index"),
        pytest.param(lambda proof: replace(proof, leaf=proof.leaf + b"\x00"), id="entry"),
        pytest.param(lambda proof: replace(proof, note=resized(proof.note)), id="size"),
    ],
)
def test_parents_altered_proof_is_refused(judge: Judge, shown: Shown, alter: Callable[[Proof], Proof]) -> None:
    proof, keeper = saved(shown)[0]
    with pytest.raises(RefusedError):
        check(judge, alter(proof), keeper)


def test_parents_proof_with_an_altered_cosignature_is_refused(judge: Judge, shown: Shown) -> None:
    proof, keeper = next(each for each in saved(shown) if each[1].quorum)
    note = altered_line(with_cosignatures(proof.note, keeper.quorum), -1)
    with pytest.raises(RefusedError):
        check(judge, replace(proof, note=note), keeper)

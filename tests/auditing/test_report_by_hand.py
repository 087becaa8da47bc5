"""The report's «check it yourself»: the printed commands and the printed program, run as a reader would run them."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from permslip.auditing.entry_rows import EntryRow
from permslip.auditing.report_parts import Code, Section, Steps
from permslip.auditing.reporting import make_report
from permslip.checkpoints import Checkpoint, sign_checkpoint
from permslip.keys import SigningKey
from permslip.merkle import MemoryHashes, leaf_hash, root_at
from permslip.notes import Ed25519Signer
from permslip.quantities import Millis
from tests.auditing.report_bundles import START, HandMade
from tests.thirdparty.programs import install_go

ORIGIN = "fed.example/broker"
SIZE = 300
DRIVER = Path(__file__).resolve().parent.parent / "thirdparty" / "driver"


class ByHand:
    """A folder with a bundle, and a report whose steps are followed in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = Ed25519Signer(ORIGIN, SigningKey.from_seed(bytes(32)))
        leaves = [leaf_hash(b"entry %d" % number) for number in range(SIZE + 5)]
        root = root_at(MemoryHashes.of_leaves(leaves), SIZE)
        made = HandMade(folder / "the audit's.db").ledgers()
        made.bundle.add_entries(EntryRow(1, position, each) for position, each in enumerate(leaves))
        note = sign_checkpoint(Checkpoint(ORIGIN, SIZE, root), [self.log])
        made.bundle.add_checkpoint(1, SIZE, root, note, vkey=str(self.log.key), cosigners=[], visit=1, fetched_at=START)
        self.section: Section = next(
            each for each in make_report(made.bundle, now=Millis(START)).sections if each.name == "check"
        )
        made.bundle.close()
        (steps,) = (each for each in self.section.parts if isinstance(each, Steps))
        (program,) = (each for each in self.section.parts if isinstance(each, Code))
        self.take, self.build, self.expected = (lines for _, lines in steps.steps)
        (folder / "check.go").write_text(program.text, "utf-8")
        # The module as it is pinned for the other tests, so that nothing newer is fetched.
        for name in ("go.mod", "go.sum"):
            shutil.copy(DRIVER / name, folder / name)

    def shell(self, command: str) -> None:
        subprocess.run(["sh", "-c", command], cwd=self.folder, check=True, capture_output=True, timeout=120)

    def run(self, key: str = "") -> subprocess.CompletedProcess[str]:
        command = ["go", "run", "check.go", key or str(self.log.key)]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def by_hand(tmp_path: Path) -> ByHand:
    install_go()  # skips, and says why, where the module cannot be had
    if shutil.which("sqlite3") is None and os.environ.get("CI") != "true":
        pytest.skip("SQLite's shell (sqlite3) is not installed")
    found = ByHand(tmp_path)
    found.shell(found.take)
    return found


def test_the_printed_steps_give_the_printed_size_and_root(by_hand: ByHand) -> None:
    assert "go run check.go 'KEY OF THE BROKER'" in by_hand.build

    done = by_hand.run()

    assert (done.stderr, done.stdout.strip()) == ("", by_hand.expected)


def test_another_key_is_refused(by_hand: ByHand) -> None:
    other = Ed25519Signer(ORIGIN, SigningKey.from_seed(bytes([1] * 32)))

    assert "It does not hold" in by_hand.run(str(other.key)).stderr


def test_a_changed_hash_is_refused(by_hand: ByHand) -> None:
    leaves = by_hand.folder / "leaves.txt"
    lines = leaves.read_text("ascii").splitlines()
    lines[17] = lines[18]
    leaves.write_text("\n".join(lines) + "\n", "ascii")

    assert "It does not hold: the entries make" in by_hand.run().stderr


def test_a_missing_entry_is_refused(by_hand: ByHand) -> None:
    leaves = by_hand.folder / "leaves.txt"
    leaves.write_text("\n".join(leaves.read_text("ascii").splitlines()[:-1]) + "\n", "ascii")

    assert "It does not hold: the entries make 299" in by_hand.run().stderr


def test_a_changed_note_is_refused(by_hand: ByHand) -> None:
    note = by_hand.folder / "checkpoint.txt"
    note.write_text(note.read_text("utf-8").replace("\n300\n", "\n299\n"), "utf-8")

    assert "It does not hold" in by_hand.run().stderr


def test_the_bundles_name_is_quoted_for_the_shell(by_hand: ByHand) -> None:
    assert shlex.split(by_hand.take.splitlines()[0])[1] == "the audit's.db"

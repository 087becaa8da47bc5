"""``permslip operator witnesses`` and ``permslip keys cosign``: sets of witnesses, without any connection."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from permslip.armor import read_statements
from permslip.cli import main
from permslip.errors import SignatureError
from permslip.keyfile import PrincipalKind, StoredKeys, write_key_file
from permslip.keys import SealingKey, SigningKey
from permslip.witnesses import verify_witness_sets

FEDERATION = "fed.example"
OPERATOR = SigningKey.from_seed(bytes([1] * 32))
ROOTS = [SigningKey.from_seed(bytes([10 + number] * 32)) for number in range(4)]
DIDS = [each.public.did for each in ROOTS]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_key_file(tmp_path / "operator.key", StoredKeys(PrincipalKind.OPERATOR, OPERATOR, SealingKey.generate()))
    for number, root in enumerate(ROOTS):
        write_key_file(tmp_path / f"root{number}.key", StoredKeys(PrincipalKind.NODE, root, None))
    return tmp_path


def run(*words: object, code: int = 0) -> Any:
    done = CliRunner().invoke(main, [*map(str, words), "--json"])
    assert done.exit_code == code, done.output
    return json.loads(done.stdout) if code == 0 else done.stderr


def make(folder: Path, *words: object, out: str = "witnesses.txt", key: str = "operator.key", code: int = 0) -> Any:
    given = ("operator", "--federation", FEDERATION, "--key", folder / key, "witnesses", "--out", folder / out)
    return run(*given, *words, code=code)


def newest(path: Path) -> Any:
    return verify_witness_sets(read_statements(path), federation=FEDERATION, operator=OPERATOR.public.raw).payload


def test_the_first_set_needs_the_operator_alone(folder: Path) -> None:
    said = make(folder, *DIDS[:3])

    assert (said["seq"], said["quorum"], said["to_sign"]) == (1, 2, [])
    assert sorted(said["witnesses"]) == sorted(DIDS[:3])
    assert newest(folder / "witnesses.txt").witnesses == sorted(each.public.raw for each in ROOTS[:3])


def test_a_change_counts_once_the_old_quorum_has_signed(folder: Path) -> None:
    make(folder, *DIDS[:3])
    said = make(
        folder,
        *DIDS[1:],
        *("--quorum", 3, "--replaces", folder / "witnesses.txt"),
        *("--signed-by", DIDS[0], "--signed-by", DIDS[1]),
        out="new.txt",
    )
    assert sorted(said["to_sign"]) == sorted(DIDS[:2])

    half = run("keys", "cosign", folder / "new.txt", "--root", folder / "root1.key")
    assert half["to_sign"] == [DIDS[0]]
    with pytest.raises(SignatureError):
        newest(folder / "new.txt")
    whole = run("keys", "cosign", folder / "new.txt", "--root", folder / "root0.key")

    assert whole["to_sign"] == []
    assert (newest(folder / "new.txt").seq, newest(folder / "new.txt").quorum) == (2, 3)


def test_a_change_that_could_never_count_is_not_written(folder: Path) -> None:
    make(folder, *DIDS[:3])

    said = make(
        folder, *DIDS[1:], "--replaces", folder / "witnesses.txt", "--signed-by", DIDS[0], out="new.txt", code=1
    )

    assert "at least 2 witnesses of the set before" in said
    assert not (folder / "new.txt").exists()


def test_who_is_not_asked_to_sign_cannot(folder: Path) -> None:
    make(folder, *DIDS[:3])

    assert "names no signature of" in run(
        "keys", "cosign", folder / "witnesses.txt", "--root", folder / "root0.key", code=1
    )


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ([*DIDS[:2], "--quorum", 1], 1, "more than half of 2 witnesses"),
        ([DIDS[0], DIDS[0]], 2, "expected each node once"),
        (["did:key:nonsense"], 1, "DID"),
    ],
    ids=["half", "twice", "no key"],
)
def test_what_is_no_set_is_refused(folder: Path, words: list[object], code: int, says: str) -> None:
    assert says in make(folder, *words, code=code)


def test_only_the_operators_key_makes_a_set(folder: Path) -> None:
    assert "not of the operator" in make(folder, *DIDS[:3], key="root0.key", code=1)

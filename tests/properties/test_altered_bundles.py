"""Whatever byte of a bundle's evidence is altered, verifying says so, by a code that names what it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as some

from permslip.auditing.bundle import Bundle
from permslip.auditing.results import Trust
from permslip.auditing.verifying import verify
from tests.auditing.ledgers import Audited
from tests.auditing.signed_bundles import signed_bundle

LEAF = {"LEAF_HASH"}
STATEMENT = {"STATEMENT_SIGNATURE", "STATEMENT_MALFORMED", "STATEMENT_ID"}
CHECKPOINT = {"CHECKPOINT_MALFORMED", "CHECKPOINT_SIGNATURE", "CHECKPOINT_COLUMNS", "COSIGNATURE_INVALID"}


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trust]:
    """A small federation's bundle."""
    folder = tmp_path_factory.mktemp("evidence")
    fed = Audited()
    school, library = fed.node("school"), fed.node("library")
    tutor, mother = fed.provider("tutor"), fed.person("mother")
    grant = fed.consent(mother, school, tutor)
    fed.access(tutor, grant)
    fed.revoke(mother, grant, school)
    signed_bundle(fed, folder / "audit.db", witnesses=[school, library]).close()
    return folder / "audit.db", fed.trust


def codes_after(evidence: tuple[Path, Trust], table: str, column: str, row: int, at: int, bit: int) -> set[str]:
    """The faults that are found after one bit of one value was flipped."""
    source, trust = evidence
    path = source.with_name("altered.db")
    shutil.copy(source, path)
    with Bundle.open(path) as bundle:
        keys = {"entry": "ledger, position", "statement": "id", "checkpoint": "ledger, size, visit"}[table]
        rows = bundle.db.execute(f"SELECT {column}, {keys} FROM {table} ORDER BY {keys}").fetchall()
        value, *key = rows[row % len(rows)]
        altered = bytearray(value)
        altered[at % len(altered)] ^= 1 << bit
        where = " AND ".join(f"{name} = ?" for name in keys.split(", "))
        bundle.db.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", (bytes(altered), *key))
        verify(bundle, trust)
        return {code for (code,) in bundle.db.execute("SELECT code FROM finding WHERE severity = 'fault'")}


numbers = some.integers(0, 2**20)
bits = some.integers(0, 7)


@settings(max_examples=60)
@given(row=numbers, at=numbers, bit=bits)
def test_any_byte_of_any_leaf(evidence: tuple[Path, Trust], row: int, at: int, bit: int) -> None:
    assert codes_after(evidence, "entry", "leaf", row, at, bit) & LEAF


@settings(max_examples=60)
@given(row=numbers, at=numbers, bit=bits)
def test_any_byte_of_any_hash(evidence: tuple[Path, Trust], row: int, at: int, bit: int) -> None:
    found = codes_after(evidence, "entry", "leaf_hash", row, at, bit)

    assert found & LEAF
    assert found & {"CHECKPOINT_ROOT", "CHECKPOINT_FORK"}


@settings(max_examples=60)
@given(row=numbers, at=numbers, bit=bits)
def test_any_byte_of_any_statement(evidence: tuple[Path, Trust], row: int, at: int, bit: int) -> None:
    assert codes_after(evidence, "statement", "envelope", row, at, bit) & STATEMENT


@settings(max_examples=60)
@given(row=numbers, at=numbers, bit=bits)
def test_any_byte_of_any_checkpoint(evidence: tuple[Path, Trust], row: int, at: int, bit: int) -> None:
    assert codes_after(evidence, "checkpoint", "note", row, at, bit) & CHECKPOINT

"""SECURITY.md: each attacker meets each invariant, and every test that it names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ATTACKERS = [
    "The curious broker",
    "The lying broker",
    "The lying node",
    "The provider with a stale grant",
    "The thief of a phone",
    "The suspended parent",
    "The outsider",
]


@pytest.fixture(scope="module")
def page(repo_root: Path) -> str:
    return (repo_root / "SECURITY.md").read_text("utf-8")


@pytest.fixture(scope="module")
def existing(repo_root: Path) -> set[str]:
    """Names of all tests, also of the rules and invariants of state machines."""
    found = set()
    for path in (repo_root / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(node.name)
    return found


def rows(page: str, attacker: str) -> list[list[str]]:
    """The cells of an attacker's table, row by row."""
    section = page.partition(f"\n## {attacker}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if re.match(r"\| \d+ \|", line)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("attacker", ATTACKERS)
def test_each_attacker_meets_each_invariant(attacker: str, page: str) -> None:
    table = rows(page, attacker)

    assert [row[0] for row in table] == [str(number) for number in range(1, 13)]
    for number, holds, tests, _ in table:
        assert holds, f"{attacker}, {number}: says nothing"
        assert tests, f"{attacker}, {number}: names no test"


def test_every_test_that_is_named_exists(page: str, existing: set[str]) -> None:
    named = set(re.findall(r"`(test_\w+)`", page))

    assert sorted(named - existing) == []
    assert len(named) > 80

"""What the repository promises about itself: pins, targets, and nothing that belongs to one machine."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

PIN = re.compile(r"(?P<name>[A-Za-z0-9_.-]+)==(?P<version>[A-Za-z0-9_.+!-]+)")


def canonical(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def pins(repo_root: Path) -> set[str]:
    lines = (repo_root / "constraints.txt").read_text("utf-8").splitlines()
    matches = [PIN.fullmatch(line) for line in lines if not line.startswith("#")]
    assert all(matches), "every line pins one version, without host, hash or marker"
    return {canonical(match["name"]) for match in matches if match}


@pytest.fixture(scope="module")
def project(repo_root: Path) -> dict[str, object]:
    with (repo_root / "pyproject.toml").open("rb") as file:
        table: dict[str, object] = tomllib.load(file)["project"]
    return table


def test_every_dependency_is_pinned(pins: set[str], project: dict[str, object]) -> None:
    extras = project["optional-dependencies"]
    assert isinstance(extras, dict)
    base = project["dependencies"]
    assert isinstance(base, list)
    wanted = [*base, *(each for extra in extras.values() for each in extra)]
    names = {canonical(re.split(r"[\[<>=!~; ]", each, maxsplit=1)[0]) for each in wanted} - {"permslip"}

    assert names - pins == set()


def test_make_help_says_what_every_target_does(repo_root: Path) -> None:
    makefile = (repo_root / "Makefile").read_text("utf-8")
    declared = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert declared is not None

    shown = subprocess.run(["make", "help"], cwd=repo_root, capture_output=True, text=True, check=True).stdout

    targets = set(re.findall(r"^  make (\w+) +\S", shown, re.MULTILINE))
    assert targets == set(declared[1].split())


def test_no_committed_file_names_a_machine_or_an_index(repo_root: Path) -> None:
    if not (repo_root / ".git").exists():
        pytest.skip("not a git checkout: which files are committed is unknown")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=repo_root, capture_output=True, text=True, check=True).stdout
    # written in pieces, so that this file does not find itself
    forbidden = re.compile(
        "|".join(["/ro" + "ot/", "/wo" + "rk/", "/ho" + r"me/\w", "pypi" + r"\.org", "pythonhos" + "ted"])
    )

    found = []
    for name in filter(None, listed.split("\0")):
        path = repo_root / name
        if not path.is_file() or b"\0" in path.read_bytes():
            continue
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
            if forbidden.search(line):
                found.append(f"{name}:{number}: {line.strip()}")

    assert found == []

"""docs/design.md is kept true: its links lead somewhere, and what it counts is counted."""

from __future__ import annotations

import re
from pathlib import Path

from permslip.sections import LEAVES, SENSITIVE


def test_links_of_the_design_lead_to_files_that_exist(repo_root: Path) -> None:
    page = repo_root / "docs" / "design.md"
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8"))

    assert links
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_folders_that_the_layout_names_exist(repo_root: Path) -> None:
    layout = (repo_root / "docs" / "design.md").read_text("utf-8").partition("## Layout")[2].partition("## ")[0]
    named = re.findall(r"^([a-z_]+)/", layout, re.MULTILINE)

    assert named
    assert [folder for folder in named if not (repo_root / folder).is_dir()] == []


def test_the_design_counts_sections_and_invariants_rightly(repo_root: Path) -> None:
    page = (repo_root / "docs" / "design.md").read_text("utf-8")

    assert f"a fixed tree of {len(LEAVES)} leaves" in page
    assert re.findall(r"^(\d+)\. \*\*", page, re.MULTILINE) == [str(number) for number in range(1, 13)]
    assert len(SENSITIVE) == 8

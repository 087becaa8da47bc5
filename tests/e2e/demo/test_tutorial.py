"""The tutorial can be typed as it stands: every command, in its order, and what it shows is what is printed."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.docs import reader
from tests.docs.pages import ROOT, blocks
from tests.docs.reader import Reader

TUTORIAL = ROOT / "docs" / "tutorial.md"

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def test_the_tutorial_can_be_typed_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Its second command waits until the whole demo has played.
    monkeypatch.setattr(reader, "_PATIENCE", 400.0)
    folder = tmp_path / "page"
    folder.mkdir()

    with Reader(folder, {}) as typing:
        typing.read(TUTORIAL)

    assert ET.fromstring((folder / "rafael.svg").read_text("utf-8")).tag.endswith("svg")
    assert {each.name for each in (folder / "play").iterdir()} >= {"report.json", "profile.json", "jagged.svg"}


def test_everything_in_the_tutorial_is_typed() -> None:
    assert {block.language for block in blocks(TUTORIAL)} == {"console"}

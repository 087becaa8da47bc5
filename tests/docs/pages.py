"""The pages that people read, taken apart: fenced blocks, commands with the output that is shown, links.

Rules:

- What a reader may type stands in a ```console block, on lines that begin with ``$``. A command goes on after a
  backslash, and to the end of its here-document. Lines that are no command are output: a part of what is printed, in
  this order, where ``…`` stands for anything.
- What a reader may run in Python stands in a ```python block. Configuration stands in a ```toml block.
- A ```text block is never run. Commands in one are exceptions that a test lists by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["LANGUAGES", "ROOT", "Block", "Command", "anchors", "blocks", "commands", "links", "pages"]

ROOT: Final = Path(__file__).resolve().parents[2]
LANGUAGES: Final = frozenset({"console", "python", "toml", "text"})

_FENCE: Final = re.compile(r"^( *)(`{3,})(.*)$")
_HERE: Final = re.compile(r"<<-?\s*'?\"?(\w+)")
_LINK: Final = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)|<(?:img|source|a)\b[^>]*?(?:src|srcset|href)=\"([^\"]+)\"")
_CODE: Final = re.compile(r"`[^`]*`")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block: of which page, in which language, at which line, and what stands in it."""

    page: Path
    language: str
    line: int
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """What stands in it."""
        return "\n".join(self.lines) + "\n"

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a console block, and the output that the page shows."""

    text: str
    output: tuple[str, ...]


def pages() -> list[Path]:
    """Every page of the repository's own that a user reads."""
    top = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "protos/SPEC.md")]
    found = [*top, *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "deploy").rglob("*.md"))]
    return [each for each in found if each.exists()]


def blocks(page: Path) -> list[Block]:
    """The page's fenced blocks, in order.

    Raises:
        AssertionError: a block is not ended.
    """
    found: list[Block] = []
    opened: tuple[str, str, str, int] | None = None
    inside: list[str] = []
    for number, line in enumerate(page.read_text("utf-8").splitlines(), start=1):
        fence = _FENCE.match(line)
        if opened is None:
            if fence:
                opened, inside = (fence[1], fence[2], fence[3].strip(), number), []
        elif fence and fence[2] == opened[1] and not fence[3].strip():
            found.append(Block(page, opened[2], opened[3], tuple(inside)))
            opened = None
        else:
            inside.append(line.removeprefix(opened[0]))
    assert opened is None, f"{page}: a fenced block is not ended"
    return found


def commands(block: Block) -> list[Command]:
    """The commands of a console block."""
    found: list[tuple[list[str], list[str]]] = []
    until = ""
    continues = False
    for line in block.lines:
        if until or continues:
            found[-1][0].append(line)
            until = "" if line.strip() == until else until
            continues = not until and line.endswith("\\")
        elif line.startswith("$ "):
            found.append(([line[2:]], []))
            here = _HERE.search(line)
            until = here[1] if here else ""
            continues = not until and line.endswith("\\")
        else:
            assert found, f"{block}: output before any command"
            found[-1][1].append(line)
    return [Command("\n".join(typed), tuple(filter(None, shown))) for typed, shown in found]


def links(page: Path) -> Iterator[str]:
    """Where the page's links and pictures point."""
    for line in _prose(page):
        for match in _LINK.finditer(_CODE.sub("", line)):
            yield match[1] or match[2]


def anchors(page: Path) -> frozenset[str]:
    """The anchors of a page's headings, as they are shown on code forges."""
    found = set()
    for line in _prose(page):
        if line.startswith("#"):
            words = re.sub(r"[^\w\- ]", "", line.lstrip("#").strip().lower())
            found.add(words.replace(" ", "-"))
    return frozenset(found)


def _prose(page: Path) -> Iterator[str]:
    fence = ""
    for line in page.read_text("utf-8").splitlines():
        match = _FENCE.match(line)
        if match and not fence:
            fence = match[2]
        elif match and match[2] == fence and not match[3].strip():
            fence = ""
        elif not fence:
            yield line

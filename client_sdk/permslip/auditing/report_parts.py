"""What a report is made of, before anybody has decided how it looks: the page and the PDF are made from the same parts.

Rules:

- Parts hold text as it came from the data; who makes a document of them escapes it.
- Lists are short: what was cut says so in its own words.

Example::

    Section("findings", "Findings", (Paragraph("No fault was found."),))
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

__all__ = [
    "Chart",
    "Code",
    "Fact",
    "Facts",
    "Level",
    "Paragraph",
    "Part",
    "Report",
    "Section",
    "Steps",
    "Table",
    "Verdict",
]


class Level(StrEnum):
    """How bad it is."""

    GOOD = "good"
    NOTE = "note"
    WARNING = "warning"
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A paragraph.

    Args:
        text: its words.
        small: whether it only says how to read what stands above.
    """

    text: str
    small: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """A box that nobody overlooks: a finding, or the word on the whole.

    Args:
        level: how bad it is.
        title: in one sentence.
        mark: the code, or what else names it; may be empty.
        texts: what it means, what to do.
        examples: some of the places, in words.
        uncounted: how many places are not shown.
    """

    level: Level
    title: str
    mark: str = ""
    texts: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    uncounted: int = 0


@dataclass(frozen=True, slots=True)
class Fact:
    """One figure and what it counts."""

    figure: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Facts:
    """Figures side by side."""

    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Args:
        caption: what it shows.
        heads: of the columns.
        rows: cells as text.
        numbers: the columns to be set flush right.
        note: what was cut, or how to read it.
    """

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[int, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing, with its numbers as a table.

    Args:
        title: what it shows.
        svg: the drawing.
        table: the same in numbers.
        note: how to read it.
    """

    title: str
    svg: str
    table: Table
    note: str = ""


@dataclass(frozen=True, slots=True)
class Code:
    """Lines to be typed or compared, as they are.

    Args:
        label: what they are.
        text: the lines.
        long: whether a page may fold them away.
    """

    label: str
    text: str
    long: bool = False


@dataclass(frozen=True, slots=True)
class Steps:
    """What to do, in order: a sentence and the lines to type."""

    steps: tuple[tuple[str, str], ...]


Part: TypeAlias = Paragraph | Verdict | Facts | Table | Chart | Code | Steps


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands below it.

    Args:
        name: letters only; the address within the page.
        title: the heading.
        parts: in order; charts that follow each other may stand side by side.
    """

    name: str
    title: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """The whole.

    Args:
        title: of the document.
        about: whose ledgers, checked by whom, made when.
        verdict: the word on the whole.
        sections: in order.
    """

    title: str
    about: tuple[str, ...]
    verdict: Verdict
    sections: tuple[Section, ...]

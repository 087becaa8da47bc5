"""The jagged profile: a learner's dimensions, each on its own scale, drawn as a line that is never smoothed.

People differ along many dimensions that hang together weakly; a mean of them describes nobody. So each dimension keeps
its own row and its own printed scale, and what was observed stands where it was observed: by context, by date, by whom.

Rules:

- One row for each dimension and scale. A position on one row says nothing about a position on another.
- Values stand as the source wrote them. What is not a number is placed as a label; nothing is dropped.
- Bounds are those of the source. Where it gives none, the observed range is used and is named as such; where nothing is
  known, the mark is hollow and its place means nothing.
- The line joins the latest number of each row. There is no composite, no mean, no rank, no colour that is needed to
  read it: the drawing is legible in grey and repeats itself in words.

Example::

    jagged = profile.jagged(sections=["transcript.assessments", "variability"])
    Path("profile.svg").write_text(jagged.to_svg())
    print(jagged.to_text())
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from google.protobuf.message import Message

from permslip.entries import Entry, Fact, decimal_of

__all__ = ["Jagged", "JaggedRow", "Mark", "jagged_of"]


@dataclass(frozen=True, slots=True)
class Mark:
    """One observation.

    Attributes:
        fact: the value with its provenance.
        context: where, and under what conditions, as text.
    """

    fact: Fact
    context: str

    @property
    def text(self) -> str:
        """The value as the source wrote it."""
        return self.fact.text

    @property
    def number(self) -> Decimal | None:
        """The value as a number, where it is one."""
        return self.fact.number

    @property
    def observed_on(self) -> str:
        """The day, YYYY-MM-DD; empty when the source does not say."""
        return self.fact.entry.observed_on


@dataclass(frozen=True, slots=True)
class JaggedRow:
    """One dimension on one scale.

    Attributes:
        dimension: what it is about.
        scale: the scale's name; empty where the source names none.
        minimum, maximum: the scale's bounds; None where nothing is known.
        bounds_given: whether the source gave the bounds; otherwise they are the observed range.
        marks: the observations, oldest first.
    """

    dimension: str
    scale: str
    minimum: Decimal | None
    maximum: Decimal | None
    bounds_given: bool
    marks: tuple[Mark, ...]

    def position(self, mark: Mark) -> float | None:
        """Where a mark stands between the bounds, 0 to 1; None where that means nothing."""
        number = mark.number
        if number is None or self.minimum is None or self.maximum is None or self.minimum == self.maximum:
            return None
        place = (number - self.minimum) / (self.maximum - self.minimum)
        return float(min(max(place, Decimal(0)), Decimal(1)))

    @property
    def latest(self) -> Mark | None:
        """The latest number: where the line passes. None where the row holds labels only."""
        numbers = [each for each in self.marks if self.position(each) is not None]
        return numbers[-1] if numbers else None

    @property
    def scale_text(self) -> str:
        """The scale as it is printed."""
        name = self.scale or "scale not named"
        if self.minimum is None or self.maximum is None:
            return f"{name}, bounds not known"
        return f"{name}, {self.minimum} to {self.maximum}{'' if self.bounds_given else ' observed'}"

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        return {
            "dimension": self.dimension,
            "scale": self.scale,
            "minimum": None if self.minimum is None else str(self.minimum),
            "maximum": None if self.maximum is None else str(self.maximum),
            "bounds_given": self.bounds_given,
            "marks": [{**each.fact.to_dict(), "context": each.context} for each in self.marks],
        }


@dataclass(frozen=True, slots=True)
class Jagged:
    """Dimensions × contexts of dated observations."""

    rows: tuple[JaggedRow, ...]

    @property
    def contexts(self) -> tuple[str, ...]:
        """Every context in which something was observed, in alphabetical order."""
        return tuple(sorted({mark.context for row in self.rows for mark in row.marks}))

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        return {"contexts": list(self.contexts), "rows": [row.to_dict() for row in self.rows]}

    def to_text(self) -> str:
        """The same in words: what the drawing says to whoever cannot see it."""
        lines = []
        for row in self.rows:
            lines.append(f"{row.dimension} ({row.scale_text})")
            lines += [f"  {mark.observed_on or 'no date'}  {mark.text}  {mark.context}" for mark in row.marks]
        return "\n".join(lines) if lines else "Nothing was observed."

    def to_svg(self, *, title: str = "Jagged profile") -> str:
        """The drawing, as an SVG document of its own.

        Args:
            title: read first by a screen reader; say no more of the learner than the reader may know.
        """
        from permslip.jagged_drawing import draw

        return draw(self, title=title)


def jagged_of(entries: Iterable[Entry[Message]], *, sections: tuple[str, ...] = ()) -> Jagged:
    """Arrange observations by dimension and scale.

    An entry counts when it has a value of its own, or named scores, levels or marks. Its dimension is the record's own;
    failing that the subject, failing that what the record is about.

    Args:
        entries: of one learner.
        sections: only what is below these paths; empty is everything.
    """
    rows: dict[tuple[str, str], list[Mark]] = {}
    for entry in entries:
        if sections and not any(entry.section == path or entry.section.startswith(path + ".") for path in sections):
            continue
        for fact in entry.facts():
            if not _is_observation(fact):
                continue
            key = (_dimension(entry, fact), fact.scale.name if fact.scale is not None else "")
            rows.setdefault(key, []).append(Mark(fact, _context(entry)))
    drawn = [_row(dimension, scale, marks) for (dimension, scale), marks in rows.items()]
    # Rows through which the line passes come first, so that rows of labels do not break it.
    return Jagged(tuple(sorted(drawn, key=lambda row: (row.latest is None, row.dimension, row.scale))))


def _is_observation(fact: Fact) -> bool:
    """The record's own value, and what its body states on a scale: scores, levels, marks; not its names and dates."""
    if fact.name == "value" or fact.scale is not None:
        return True
    return fact.name.split(".")[0] in ("scores", "performance_levels", "marks", "level", "objectives", "totals")


def _dimension(entry: Entry[Message], fact: Fact) -> str:
    record = entry.record
    base = record.dimension or record.context.subject or " / ".join(entry.topic) or entry.section
    _, _, name = fact.name.partition(".")
    return f"{base}: {name}" if name else base


def _context(entry: Entry[Message]) -> str:
    context = entry.record.context
    return ", ".join(filter(None, (entry.place, context.with_whom, *context.conditions)))


def _row(dimension: str, scale: str, marks: list[Mark]) -> JaggedRow:
    ordered = tuple(sorted(marks, key=lambda mark: (mark.observed_on, mark.context, mark.text)))
    numbers = [number for mark in ordered if (number := mark.number) is not None]
    given = [(_bound(mark, "minimum"), _bound(mark, "maximum")) for mark in ordered]
    lows = {low for low, _ in given}
    highs = {high for _, high in given}
    if len(lows) == len(highs) == 1 and None not in lows | highs:
        low, high = lows.pop(), highs.pop()
        if low is not None and high is not None and low < high and all(low <= each <= high for each in numbers):
            return JaggedRow(dimension, scale, low, high, True, ordered)
    # Bounds that are missing, contradict one another or do not hold the numbers are no bounds.
    if len(set(numbers)) > 1:
        return JaggedRow(dimension, scale, min(numbers), max(numbers), False, ordered)
    return JaggedRow(dimension, scale, None, None, False, ordered)


def _bound(mark: Mark, name: str) -> Decimal | None:
    scale = mark.fact.scale
    return decimal_of(getattr(scale, name)) if scale is not None else None

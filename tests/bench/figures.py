"""Figures: what was measured, what it is compared with, and what was asked for.

A figure without a baseline from the same run says more about the machine than about the product, so nearly every target
here is a ratio. A figure is judged only where it has a target; the others are printed to make the judged ones readable.

Example::

    report = Report()
    report.add(Figure("query.1-node.p50", 4.1, "ms", baseline=3.2, against="floor", at_most=1.6))
    print(report.table())
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Figure", "Report", "percentile"]


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` of the values lie, by nearest rank: one that was really measured."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


@dataclass(frozen=True)
class Figure:
    """One measured value.

    Attributes:
        name: dotted, from the general to the particular.
        value: what was measured.
        unit: of value and baseline.
        baseline: the same of the thing it is compared with, measured in the same run.
        against: what the baseline is.
        at_most, at_least: bounds of ``value / baseline``.
        value_at_most: bound of the value itself, where the target is no ratio.
        note: how to read it.
    """

    name: str
    value: float
    unit: str
    baseline: float | None = None
    against: str = ""
    at_most: float | None = None
    at_least: float | None = None
    value_at_most: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Value by baseline."""
        return None if not self.baseline else self.value / self.baseline

    @property
    def target(self) -> str:
        """The target in words; empty where there is none."""
        if self.at_most is not None:
            return f"≤ {self.at_most:g} ×"
        if self.at_least is not None:
            return f"≥ {self.at_least:g} ×"
        if self.value_at_most is not None:
            return f"≤ {self.value_at_most:g} {self.unit}"
        return ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        if self.value_at_most is not None:
            return self.value <= self.value_at_most
        if self.at_most is None and self.at_least is None:
            return None
        if self.ratio is None:
            return False
        return self.ratio <= self.at_most if self.at_most is not None else self.ratio >= (self.at_least or 0.0)

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the JSON file."""
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "baseline": self.baseline,
            "against": self.against or None,
            "ratio": self.ratio,
            "target": self.target or None,
            "met": self.met,
            "note": self.note or None,
        }


@dataclass
class Report:
    """All figures of one run."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def add(self, *figures: Figure) -> None:
        """Take figures into the report."""
        self.figures.extend(figures)

    def leave_out(self, part: str, why: str) -> None:
        """Say that a part was not measured."""
        self.left_out[part] = why

    @property
    def missed(self) -> list[Figure]:
        """The figures that miss their target."""
        return [each for each in self.figures if each.met is False]

    def write(self, path: Path) -> None:
        """Write everything as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        document = {
            "machine": {
                "cores": os.cpu_count(),
                "python": platform.python_version(),
                "system": f"{platform.system()} {platform.machine()}",
            },
            "settings": dict(self.settings),
            "figures": [each.to_dict() for each in self.figures],
            "left_out": self.left_out,
            "missed": [each.name for each in self.missed],
        }
        path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def table(self) -> str:
        """The figures as text, one line each, judged ones marked."""
        head = ("figure", "value", "baseline", "against", "ratio", "target", "")
        rows = [head, *(_row(each) for each in self.figures)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        left = {0, 3, 5, 6}
        lines = [
            "  ".join(
                cell.ljust(width) if column in left else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        lines.insert(1, "-" * max(map(len, lines)))
        lines += [f"  {each.name}: {each.note}" for each in self.figures if each.note]
        lines += [f"not measured: {part}: {why}" for part, why in self.left_out.items()]
        judged = [each for each in self.figures if each.met is not None]
        lines.append(f"{sum(bool(each.met) for each in judged)} of {len(judged)} targets met")
        return "\n".join(lines)


def _row(figure: Figure) -> tuple[str, ...]:
    ratio = figure.ratio
    return (
        figure.name,
        f"{_number(figure.value)} {figure.unit}",
        "" if figure.baseline is None else _number(figure.baseline),
        figure.against,
        "" if ratio is None else f"{ratio:.2f} ×",
        figure.target,
        {True: "ok", False: "MISSED", None: ""}[figure.met],
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"

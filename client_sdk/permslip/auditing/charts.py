"""Small charts as SVG: bars over time, and bars beside each other; drawn for a phone's width first.

Rules:

- Every text of the data is escaped and stripped of what XML cannot hold.
- Shape and text carry the meaning, never colour alone: the second series is hatched, each bar says its number, and
  ``title`` and ``desc`` say in words what is drawn.
- Colours stand in attributes, so that the drawing is whole by itself (in a PDF); the classes let a page's style sheet
  choose others, for example in the dark.
- 360 units wide: a telephone shows the words in their full size, a wide page shows two charts side by side.

Example::

    rows = [Bar("Reading Tutors", (12, 3))]
    svg = bars(rows, series=("answered", "refused"), title="Accesses by provider", name="providers")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from permslip.markup import clean

__all__ = ["Bar", "bars", "columns", "grouped"]

_WIDTH: Final = 360
_INK: Final = "#1b1f24"
_MUTED: Final = "#57606a"
_GRID: Final = "#c9d1d9"
_FILLS: Final = ("#0b6e99", "#b3541e")
_LABEL_LENGTH: Final = 46
_ROW: Final = 42
_COLUMNS_HEIGHT: Final = 150
_COLUMNS_LEFT: Final = 44


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar.

    Args:
        label: what it is about.
        values: one number for each series; not negative.
    """

    label: str
    values: tuple[int, ...]

    @property
    def total(self) -> int:
        """All series together."""
        return sum(self.values)


def bars(rows: Sequence[Bar], *, series: Sequence[str], title: str, name: str) -> str:
    """Bars that lie beside their numbers, one under the other.

    Args:
        rows: in the order in which they are shown; as many as the reader can bear.
        series: what the values of each bar are called; one or two.
        title: of the chart.
        name: letters only; makes the ids inside a page its own.
    """
    top = _legend_height(series)
    height = top + _ROW * max(len(rows), 1) + 4
    widest = max((row.total for row in rows), default=0) or 1
    space = _WIDTH - 12 - 8 * max((len(_numbers(row)) for row in rows), default=0)
    parts = _head(height, title, _told(rows, series), name) + _legend(series, name)
    for number, row in enumerate(rows):
        y = top + _ROW * number
        parts.append(_text(0, y + 14, _short(row.label), full=row.label))
        x = 0.0
        for index, value in enumerate(row.values):
            width = space * value / widest
            if value:
                parts.append(
                    _box(x, y + 20, max(width, 1.5), 14, index, name, f"{row.label}: {grouped(value)} {series[index]}")
                )
                x += max(width, 1.5)
        parts.append(_text(x + 6, y + 32, _numbers(row), css="m"))
    if not rows:
        parts.append(_text(0, top + 20, "Nothing to show.", css="m"))
    return "\n".join([*parts, "</svg>"])


def columns(rows: Sequence[Bar], *, series: Sequence[str], title: str, name: str) -> str:
    """Bars that stand side by side along time; the first, the middle and the last one are labelled.

    Args: as of :func:`bars`.
    """
    top = _legend_height(series) + 12
    floor = top + _COLUMNS_HEIGHT
    highest = max((row.total for row in rows), default=0)
    ceiling = _round_up(highest)
    parts = _head(floor + 30, title, _told(rows, series), name) + _legend(series, name)
    for step in range(5) if ceiling >= 4 else (0, 4):
        y = floor - _COLUMNS_HEIGHT * step / 4
        parts.append(f'<path class="g" d="M{_COLUMNS_LEFT} {y:.1f}H{_WIDTH}" stroke="{_GRID}" stroke-width="1"/>')
        parts.append(_text(_COLUMNS_LEFT - 6, y + 4, grouped(ceiling * step // 4), css="m", anchor="end"))
    each = (_WIDTH - _COLUMNS_LEFT) / max(len(rows), 1)
    wide = min(each * 0.8, 40)
    for number, row in enumerate(rows):
        x = _COLUMNS_LEFT + each * number + (each - wide) / 2
        y = float(floor)
        for index, value in enumerate(row.values):
            tall = _COLUMNS_HEIGHT * value / (ceiling or 1)
            if value:
                tall = max(tall, 1.5)
                y -= tall
                parts.append(_box(x, y, wide, tall, index, name, f"{row.label}: {grouped(value)} {series[index]}"))
    for number, anchor in _labelled(len(rows)):
        x = {"start": float(_COLUMNS_LEFT), "middle": _COLUMNS_LEFT + each * (number + 0.5), "end": float(_WIDTH)}[
            anchor
        ]
        parts.append(_text(x, floor + 20, rows[number].label, css="m", anchor=anchor))
    if not rows:
        parts.append(_text(_COLUMNS_LEFT + 10, floor - 12, "Nothing to show.", css="m"))
    return "\n".join([*parts, "</svg>"])


def grouped(number: int) -> str:
    """A number for people: 12,345."""
    return f"{number:,}"


def _head(height: int, title: str, described: str, name: str) -> list[str]:
    hatch = (
        f'<defs><pattern id="{name}-hatch" width="6" height="6" patternUnits="userSpaceOnUse"'
        f' patternTransform="rotate(45)"><rect class="s1" width="6" height="6" fill="{_FILLS[1]}"/>'
        '<path class="h" d="M0 0V6" stroke="#ffffff" stroke-width="2"/></pattern></defs>'
    )
    size = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
    font = 'font-family="system-ui, sans-serif" font-size="13"'
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-labelledby="{name}-title {name}-desc" {size} {font}>',
        f'<title id="{name}-title">{clean(title)}</title>',
        f'<desc id="{name}-desc">{clean(described)}</desc>',
        hatch,
    ]


def _legend_height(series: Sequence[str]) -> int:
    return 26 if len(series) > 1 else 0


def _legend(series: Sequence[str], name: str) -> list[str]:
    if len(series) < 2:
        return []
    parts, x = [], 0.0
    for index, called in enumerate(series):
        parts.append(_box(x, 3, 14, 14, index, name, called))
        parts.append(_text(x + 20, 14, called))
        x += 40 + 7.2 * len(called)
    return parts


def _box(x: float, y: float, width: float, height: float, index: int, name: str, said: str) -> str:
    fill = f'class="s0" fill="{_FILLS[0]}"' if index == 0 else f'fill="url(#{name}-hatch)"'
    return (
        f'<rect {fill} x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}">'
        f"<title>{clean(said)}</title></rect>"
    )


def _text(x: float, y: float, text: str, *, css: str = "t", anchor: str = "", full: str = "") -> str:
    colour = _INK if css == "t" else _MUTED
    placed = f' text-anchor="{anchor}"' if anchor else ""
    inner = f"<title>{clean(full)}</title>" if full and full != text else ""
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" fill="{colour}"{placed}>{inner}{clean(text)}</text>'


def _numbers(row: Bar) -> str:
    if len(row.values) == 1:
        return grouped(row.values[0])
    return " + ".join(grouped(value) for value in row.values)


def _told(rows: Sequence[Bar], series: Sequence[str]) -> str:
    """The drawing in words; only what differs from nothing."""
    told = [
        f"{row.label}: "
        + ", ".join(f"{grouped(value)} {called}" for value, called in zip(row.values, series, strict=True))
        for row in rows
        if row.total
    ]
    return "; ".join(told) + "." if told else "Nothing to show."


def _labelled(count: int) -> list[tuple[int, str]]:
    if count == 0:
        return []
    if count == 1:
        return [(0, "middle")]
    middle = [(count // 2, "middle")] if count >= 5 and count % 2 else []
    return [(0, "start"), *middle, (count - 1, "end")]


def _round_up(number: int) -> int:
    """The next number that divides an axis well by four."""
    if number < 4:
        return max(number, 1)
    step = 1
    while True:
        for factor in (4, 8, 12, 20, 24, 32):
            if factor * step >= number:
                return factor * step
        step *= 10


def _short(text: str) -> str:
    return text if len(text) <= _LABEL_LENGTH else f"{text[: _LABEL_LENGTH - 1]}…"

"""Draws a jagged profile as SVG.

Rules:

- Every text of a record is escaped and stripped of what XML cannot hold: a record can never become markup.
- Shape and text carry the meaning, never colour alone. ``title`` and ``desc`` say in words what is drawn.
- Filled circle: the latest number of its row. Ring: an earlier number. Hollow diamond: a number whose place means
  nothing. A label that is no number stands right of its row as text.

Example::

    svg = draw(profile.jagged(), title="Jagged profile")
"""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, Final

from permslip.markup import clean

if TYPE_CHECKING:
    from permslip.jagged import Jagged, JaggedRow, Mark

__all__ = ["draw"]

_WIDTH: Final = 960
_LEFT: Final = 300  # where the axes begin; the dimension's name stands before
_RIGHT: Final = 700  # where they end; the words stand after
_TOP: Final = 84
_ROW: Final = 56
_NAME_LENGTH: Final = 44
_WORDS_LENGTH: Final = 44
_WORDS_LINES: Final = 3
_CAPTION: Final = "Each row has its own scale; places on different rows cannot be compared. No mean is drawn."
_KEY: Final = "● latest   ○ earlier   ◇ number without known bounds   beside the row: day and place of ●, then labels"


def draw(jagged: Jagged, *, title: str) -> str:
    """The drawing as a document of its own; see :meth:`permslip.jagged.Jagged.to_svg`."""
    height = _TOP + _ROW * max(len(jagged.rows), 1) + 40
    size = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
    font = 'font-family="system-ui, sans-serif" font-size="13" fill="#1a1a1a"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-labelledby="t d" {size} {font}>',
        f'<title id="t">{clean(title)}</title>',
        f'<desc id="d">{clean(_described(jagged))}</desc>',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(20, 30, title, size=18, weight="bold"),
        _text(20, 52, _CAPTION, size=12),
    ]
    parts += _line(jagged)
    for number, row in enumerate(jagged.rows):
        parts += _row(row, _TOP + _ROW * number + _ROW // 2)
    if not jagged.rows:
        parts.append(_text(20, _TOP + 20, "Nothing was observed."))
    parts.append(_text(20, height - 14, _KEY, size=11))
    return "\n".join([*parts, "</svg>", ""])


def _row(row: JaggedRow, y: int) -> list[str]:
    parts = [
        _text(20, y - 4, _short(row.dimension, _NAME_LENGTH), weight="bold", full=row.dimension),
        _text(20, y + 13, _short(row.scale_text, _NAME_LENGTH), size=11, full=row.scale_text),
        f'<line x1="{_LEFT}" y1="{y}" x2="{_RIGHT}" y2="{y}" stroke="#767676" stroke-width="1"{_dashes(row)}/>',
    ]
    if row.minimum is not None and row.maximum is not None:
        parts += [
            _text(_LEFT, y + 22, str(row.minimum), size=10, anchor="middle"),
            _text(_RIGHT, y + 22, str(row.maximum), size=10, anchor="middle"),
        ]
    latest, words = row.latest, []
    for mark in row.marks:
        place = row.position(mark)
        if place is not None:
            parts.append(_dot(_x(place), y, mark, is_latest=mark is latest))
        elif mark.number is not None:
            parts.append(_diamond(_LEFT + (_RIGHT - _LEFT) // 2, y, mark))
            words.append(f"{mark.text} ({mark.observed_on or 'no date'})")
        else:
            words.append(f"{mark.text} ({mark.observed_on or 'no date'})")
    if latest is not None:
        parts.append(_text(_x(row.position(latest) or 0.0), y - 10, latest.text, size=11, anchor="middle"))
        words.insert(0, f"{latest.observed_on or 'no date'}, {latest.context}")
    said = "; ".join(words)
    shown = wrap(said, _WORDS_LENGTH, max_lines=_WORDS_LINES, placeholder=" …")
    first = y + 4 - 7 * (len(shown) - 1)
    parts += [_text(_RIGHT + 24, first + 14 * line, text, size=11, full=said) for line, text in enumerate(shown)]
    return parts


def _line(jagged: Jagged) -> list[str]:
    """Through the latest number of each row; broken where a row has none, so that no gap is bridged."""
    runs: list[list[str]] = [[]]
    for number, row in enumerate(jagged.rows):
        latest = row.latest
        place = row.position(latest) if latest is not None else None
        if place is None:
            runs.append([])
        else:
            runs[-1].append(f"{_x(place):.1f},{_TOP + _ROW * number + _ROW // 2}")
    return [
        f'<polyline points="{" ".join(points)}" fill="none" stroke="#404040" stroke-width="2"/>'
        for points in runs
        if len(points) > 1
    ]


def _dot(x: float, y: int, mark: Mark, *, is_latest: bool) -> str:
    fill, radius = ("#1a1a1a", 6) if is_latest else ("#ffffff", 5)
    return (
        f'<circle cx="{x:.1f}" cy="{y}" r="{radius}" fill="{fill}" stroke="#1a1a1a" stroke-width="1.5">'
        f"<title>{clean(_told(mark))}</title></circle>"
    )


def _diamond(x: float, y: int, mark: Mark) -> str:
    return (
        f'<path d="M{x:.1f} {y - 6} l6 6 l-6 6 l-6 -6 z" fill="#ffffff" stroke="#1a1a1a" stroke-width="1.5">'
        f"<title>{clean(_told(mark))}</title></path>"
    )


def _text(x: float, y: float, text: str, *, size: int = 13, weight: str = "", anchor: str = "", full: str = "") -> str:
    attributes = f' font-weight="{weight}"' if weight else ""
    attributes += f' text-anchor="{anchor}"' if anchor else ""
    inner = f"<title>{clean(full)}</title>" if full and full != text else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}"{attributes}>{inner}{clean(text)}</text>'


def _described(jagged: Jagged) -> str:
    """What is drawn, in words; the oldest observation of each row first."""
    told = ((row, "; ".join(_told(each) for each in row.marks)) for row in jagged.rows)
    return " ".join(f"{row.dimension}, {row.scale_text}: {marks}." for row, marks in told) or "Nothing was observed."


def _told(mark: Mark) -> str:
    return f"{mark.text} on {mark.observed_on or 'an unknown day'} at {mark.context}"


def _dashes(row: JaggedRow) -> str:
    """An axis without bounds is dashed: there is no place on it."""
    return "" if row.minimum is not None else ' stroke-dasharray="2 6"'


def _x(place: float) -> float:
    return _LEFT + place * (_RIGHT - _LEFT)


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"

"""The school year of the sample district: terms, grading periods, school days.

Example::

    >>> TERMS[0].name, PERIODS[0].name, PERIODS[0].end
    ('Fall Semester', 'First Six Weeks', '2025-10-03')
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

__all__ = ["PERIODS", "TERMS", "Span", "school_day"]


@dataclass(frozen=True, slots=True)
class Span:
    """A part of the year; ``term`` is the number of the term it lies in."""

    name: str
    begin: str
    end: str
    term: int


TERMS: Final = (
    Span("Fall Semester", "2025-08-25", "2025-12-19", 0),
    Span("Spring Semester", "2026-01-05", "2026-05-29", 1),
)
PERIODS: Final = (
    Span("First Six Weeks", "2025-08-25", "2025-10-03", 0),
    Span("Second Six Weeks", "2025-10-06", "2025-11-07", 0),
    Span("Third Six Weeks", "2025-11-10", "2025-12-19", 0),
    Span("Fourth Six Weeks", "2026-01-05", "2026-02-13", 1),
    Span("Fifth Six Weeks", "2026-02-16", "2026-04-03", 1),
    Span("Sixth Six Weeks", "2026-04-06", "2026-05-29", 1),
)


def school_day(period: Span, number: int) -> str:
    """The ``number``-th weekday of a period, going round at its end."""
    first, last = date.fromisoformat(period.begin), date.fromisoformat(period.end)
    days = [first + timedelta(days=offset) for offset in range((last - first).days + 1)]
    weekdays = [day for day in days if day.weekday() < 5]
    return weekdays[number % len(weekdays)].isoformat()

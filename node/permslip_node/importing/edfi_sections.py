"""The parts that tables of Ed-Fi entities share: how a section, a session and a learner are named.

Example::

    >>> below("Session", ("SchoolYear", "Term|SessionName"))
    ('Session/SchoolYear', 'Session/Term|Session/SessionName')
"""

from __future__ import annotations

from typing import Final

from permslip_node.importing.mapping import Find, Take

__all__ = ["SESSION", "STUDENT", "below", "course_finds", "section_key", "where"]

STUDENT: Final = "Student/StudentUniqueStateId"
# The identity of a session (a term) below what refers to it.
SESSION: Final = ("StateOrganizationId", "SchoolYear", "Term|SessionName")


def below(prefix: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """Put a prefix before every path of every alternative."""
    return tuple("|".join(f"{prefix}/{name}" for name in group.split("|")) for group in names)


def section_key(section: str) -> tuple[str, ...]:
    """What identifies a section (a class), below ``section``."""
    names = ("StateOrganizationId", "LocalCourseCode|UniqueSectionCode", "SchoolYear", "Term", "ClassPeriodName")
    return below(section, (*names, "Location"))


def where(section: str, *, school: str = "", year: str = "") -> tuple[Take, ...]:
    """Place, year, term, period and room of a section; ``school`` and ``year`` may say the same again."""
    return (
        Take("context.place_id", f"{section}/StateOrganizationId" + school),
        Take("context.school_year", f"{section}/SchoolYear" + year),
        Take("context.term", f"{section}/Term"),
        Take("context.period", f"{section}/ClassPeriodName"),
        Take("context.room", f"{section}/Location"),
    )


def course_finds(section: str, title: str = "") -> tuple[Find, ...]:
    """The school, subject, teacher and, where ``title`` names a field, title of a section's course."""
    course = (f"{section}/StateOrganizationId", f"{section}/LocalCourseCode")
    found = (
        Find("context.place", "school", course[:1]),
        Find("context.subject", "course_subject", course),
        Find("dimension", "course_subject", course),
        Find("context.with_whom", "teacher", section_key(section)),
    )
    return (*found, Find(title, "course_title", course)) if title else found

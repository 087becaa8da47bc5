"""What of a source row goes where in a record: the words of the importers' tables.

A :class:`Mapping` says which paths of an entity fill which fields of ``permslip.v1.Record``. Both importers use it: the
XML reader and the CSV reader deliver the same kind of row, a dictionary path → text.

Rules:

- Texts go into the record verbatim. Nothing is computed, converted or rounded.
- Every text that no rule takes goes to ``source.further`` under its path, so nothing is lost without being named:
  what is to be left out stands in ``omit``, and only there.
- Of several paths for one field the first that is present wins; one that says the same is dropped, one that says
  something else goes to ``source.further``.
- ``finds`` look things up in other parts of the source (a course's title, the last day of a grading period). Where
  nothing is found the field stays empty.
- A row that lacks what is required, or holds a text that its field cannot take, raises
  :class:`permslip.errors.MalformedError` with the source's path as its field: the importer rejects that row alone.

Example::

    >>> attendance = Mapping(
    ...     "AttendanceEvent", "personal.attendance", "attendance", learner="Student/StudentUniqueStateId",
    ...     key=("EventDate", "AttendanceEventType"),
    ...     takes=(
    ...         Take("observed_on", "EventDate"),
    ...         Take("attendance.event", "AttendanceEventCategory", required=True),
    ...     ),
    ... )

:mod:`permslip_node.importing.record_building` carries them out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping as AnyMapping
from dataclasses import dataclass, field
from typing import Any, Literal

from permslip_node.importing.field_checks import Form

__all__ = ["Find", "Groups", "Many", "Mapping", "Score", "Tables", "Take", "Values"]

Values = AnyMapping[str, str]
Groups = AnyMapping[str, list[dict[str, str]]]
# What Find looks things up in: name of a table → key → text.
Tables = AnyMapping[str, AnyMapping[tuple[str, ...], str]]


@dataclass(frozen=True, slots=True)
class Take:
    """One text of the row into one field.

    Attributes:
        to: field of the record, e.g. ``"context.room"`` or ``"observed_on"``.
        paths: the path, or alternatives divided by ``|``.
        form: what else the source's schema says of it.
        required: a row without it is rejected.
        name: for a list of named values or texts, the element's name.
        day_of: take only the day of a moment such as ``2021-09-01 00:00:00``; a time other than midnight is
            kept whole in ``source.further``.
    """

    to: str
    paths: str
    form: Form = ""
    required: bool = False
    name: str = ""
    day_of: bool = False


@dataclass(frozen=True, slots=True)
class Score:
    """What was observed, on its own scale: one of a record's possible headline values.

    The first that is present becomes ``Record.value``. When a row has several, all of them stand in ``also`` too.
    """

    paths: str
    scale: str
    form: Form = ""
    maximum: str = ""  # path of the scale's upper bound


@dataclass(frozen=True, slots=True)
class Many:
    """The elements of a group into a list.

    Attributes:
        to: field of the record, e.g. ``"assessment.scores"``.
        group: the group's path.
        kind: ``values`` (named values), ``texts`` (named texts) or ``lines`` (plain strings).
        text: path below the group, or alternatives.
        name: the same, for named elements.
        headline: the element with this name, failing that the first, becomes ``Record.value``.
        unless: (path, text): elements that say so are not imported.
    """

    to: str
    group: str
    kind: Literal["values", "texts", "lines"]
    text: str
    name: str = ""
    headline: str = ""
    unless: tuple[str, str] = ("", "")


@dataclass(frozen=True, slots=True)
class Find:
    """A text that stands elsewhere in the source.

    Attributes:
        to: field of the record.
        table: name of the table to look in.
        by: paths (or alternatives) whose texts are the key.
    """

    to: str
    table: str
    by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Mapping:
    """How one entity becomes records.

    Attributes:
        entity: the element or table.
        section: leaf of ``permslip.sections``, or a function of the row and the tables that gives one.
        body: name of the record's body.
        learner: path (or alternatives) of the learner's native id.
        key: paths (or alternatives) that identify a row of a learner.
        part: tells apart the mappings of one entity; empty for the main one.
        each: a group; every element of it becomes one record, made of the group and ``carry`` alone.
        when: the mapping applies only to rows that have this path, and sees that path and ``carry`` alone.
        carry: see ``each`` and ``when``.
        unless: (path, text): the mapping does not apply to rows that say so.
        fixed: field → text that is the same in all records.
        omit: paths, with all below them, that are not to be imported.
        also: the list that :class:`Score` speaks of.
        drop_repeats: a row that is repeated identically gives one record, not several.
        finish: gives the finished body another shape, where the record's is deeper than a table can say.
    """

    entity: str
    section: str | Callable[[Values, Tables], str]
    body: str
    learner: str
    key: tuple[str, ...]
    takes: tuple[Take, ...] = ()
    scores: tuple[Score, ...] = ()
    many: tuple[Many, ...] = ()
    finds: tuple[Find, ...] = ()
    part: str = ""
    each: str = ""
    when: str = ""
    carry: tuple[str, ...] = ()
    unless: tuple[str, str] = ("", "")
    fixed: AnyMapping[str, str] = field(default_factory=dict)
    omit: tuple[str, ...] = ()
    also: str = ""
    drop_repeats: bool = False
    finish: Callable[[dict[str, Any]], None] | None = None

    @property
    def label(self) -> str:
        """The entity with its part, e.g. ``Student/StudentCharacteristics``."""
        return f"{self.entity}/{self.part}" if self.part else self.entity

"""Resolves references between the rows of one Ed-Fi file.

Ed-Fi 1.0 lets a row refer to another by its ``id`` (``<StudentReference ref="STUD_604822"/>``) or by its natural key.
Only a few entities are referred to in a way that matters; of those the few texts that matter are kept while the file
is read, and put into the rows that refer to them, under the path of the reference::

    <CourseTranscript> … <StudentAcademicRecordReference ref="SAR_2011_1_604821"/>
    → StudentAcademicRecord/Student/StudentUniqueStateId, StudentAcademicRecord/Session/Term, …

Rules:

- Ids hold within one file. The first row with an id keeps it.
- A reference that resolves is replaced by what it refers to; one that does not stays as it is, ``…@ref``.
- A row that says something itself is believed over what it refers to.

Example::

    >>> links = Links()
    >>> links.keep(student_row)          # <Student id="STUD_1"><StudentUniqueStateId>1</StudentUniqueStateId>…
    >>> links.resolve(association_row)   # <StudentReference ref="STUD_1"/>
    True
    >>> association_row.values["Student/StudentUniqueStateId"]
    '1'
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from permslip_node.importing.edfi_xml import Row

__all__ = ["KEPT", "Kept", "Links"]


class Kept(NamedTuple):
    """What is kept of an entity's rows.

    Attributes:
        paths: texts.
        groups: groups.
        natural_key: paths that identify a row where references give no id.
    """

    paths: tuple[str, ...]
    groups: tuple[str, ...] = ()
    natural_key: tuple[str, ...] = ()


_TEST: Final = tuple(
    f"Assessment/{name}" for name in ("AssessmentTitle", "AcademicSubject", "GradeLevelAssessed", "Version")
)

KEPT: Final[dict[str, Kept]] = {
    "StudentReference": Kept(("Student/StudentUniqueStateId",)),
    "AssessmentReference": Kept(_TEST),
    "School": Kept(("StateOrganizationId",)),
    "Student": Kept(("StudentUniqueStateId",)),
    "Parent": Kept(
        ("ParentUniqueStateId", "Name/FirstName", "Name/LastSurname", "Name/GenerationCodeSuffix"),
        natural_key=("ParentUniqueStateId",),
    ),
    "Session": Kept(("EducationOrganization/StateOrganizationId", "SchoolYear", "Term")),
    "StudentAcademicRecord": Kept(
        ("Student/StudentUniqueStateId", "Session/StateOrganizationId", "Session/SchoolYear", "Session/Term")
    ),
    "StudentAssessment": Kept(("Student/StudentUniqueStateId", *_TEST, "AdministrationDate")),
    "DisciplineIncident": Kept(
        (
            "IncidentIdentifier",
            "IncidentDate",
            "IncidentTime",
            "IncidentLocation",
            "ReporterDescription",
            "ReportedToLawEnforcement",
            "CaseNumber",
            "School/StateOrganizationId",
        ),
        groups=("Behaviors", "SecondaryBehaviors", "Weapons"),
        natural_key=("School/StateOrganizationId", "IncidentIdentifier"),
    ),
}

# Entity → (path of the reference, entity referred to, paths of the natural key in the reference).
_BY_NATURAL_KEY: Final = {
    "StudentParentAssociation": ("Parent", "Parent", ("Parent/ParentUniqueStateId",)),
    "StudentDisciplineIncidentAssociation": (
        "DisciplineIncident",
        "DisciplineIncident",
        ("DisciplineIncident/StateOrganizationId", "DisciplineIncident/IncidentIdentifier"),
    ),
}


class _Referred(NamedTuple):
    values: dict[str, str]
    groups: dict[str, list[dict[str, str]]]


class Links:
    """What the rows of the file read so far can be referred to by."""

    def __init__(self) -> None:
        self._by_id: dict[str, _Referred] = {}
        self._by_key: dict[tuple[str, ...], _Referred] = {}

    def begin_file(self) -> None:
        """Forget the ids: they hold within one file."""
        self._by_id.clear()
        self._by_key.clear()

    def keep(self, row: Row) -> None:
        """Keep what later rows may refer to; rows of entities that nobody refers to cost nothing."""
        kept = KEPT.get(row.entity)
        if kept is None:
            return
        values = row.values
        referred = _Referred(
            {path: values[path] for path in kept.paths if path in values},
            {group: row.groups[group] for group in kept.groups if group in row.groups},
        )
        if row.xml_id:
            self._by_id.setdefault(row.xml_id, referred)
        if kept.natural_key:
            key = (row.entity, *(values.get(path, "") for path in kept.natural_key))
            self._by_key.setdefault(key, referred)

    def resolve(self, row: Row) -> bool:
        """Put what the row refers to into the row; whether every id was known."""
        complete = True
        for ref in row.refs:
            target = row.values.get(ref)
            if target is None:
                continue  # resolved at an earlier attempt
            referred = self._by_id.get(target)
            if referred is None:
                complete = False
            else:
                del row.values[ref]
                _merge(row, ref[: -len("@ref")], referred)
        natural = _BY_NATURAL_KEY.get(row.entity)
        if natural is not None:
            path, entity, key = natural
            referred = self._by_key.get((entity, *(row.values.get(part, "") for part in key)))
            if referred is None:
                complete = False
            else:
                _merge(row, path, referred)
        return complete


def _merge(row: Row, path: str, referred: _Referred) -> None:
    for below, text in referred.values.items():
        row.values.setdefault(_joined(path, below), text)
    for below, members in referred.groups.items():
        row.groups.setdefault(_joined(path, below), members)


@lru_cache(maxsize=1024)
def _joined(path: str, below: str) -> str:
    """The path of a text below a reference: what is referred to may wrap itself in its own name."""
    first, _, rest = below.partition("/")
    return f"{path}/{rest}" if rest and first == path.rpartition("/")[2] else f"{path}/{below}"

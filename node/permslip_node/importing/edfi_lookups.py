"""Remembers what other parts of an Ed-Fi export say about what records refer to by code.

A grade names a course code and a grading period; that the course is «Algebra I» in mathematics and that the period
ended on 3 October stands in other files. They are read first, and what is needed of them is kept in *tables*, which
:class:`permslip_node.importing.mapping.Find` looks into. Where an export lacks those files, the fields stay empty.

======================  =====================================  ==================================
table                   key                                    text
======================  =====================================  ==================================
``school``              organization                           name
``course_title``        organization, course code              title
``course_subject``      organization, course code              subject area
``term_end``            organization, school year, term        last day
``period_end``          organization, school year, period      last day
``teacher``             section (all that identifies one)      name of its teacher
``assessment_category`` title, subject, grade level, version   category
``objective``           identification code                    the objective in words
======================  =====================================  ==================================

Example::

    >>> lookups = Lookups()
    >>> lookups.learn(school_row)
    >>> lookups.tables["school"][("255901001",)]
    'Grand Bend High School'
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from permslip_node.importing.edfi_sections import section_key
from permslip_node.importing.edfi_xml import Row

__all__ = ["GROUPS", "Lookups"]

GROUPS: Final = {"Session": frozenset({"GradingPeriod"}), "ObjectiveAssessment": frozenset({"LearningObjective"})}

_TABLES: Final = (
    "school",
    "course_title",
    "course_subject",
    "term_end",
    "period_end",
    "teacher",
    "assessment_category",
    "objective",
)
_TEST: Final = ("AssessmentTitle", "AcademicSubject", "GradeLevelAssessed", "Version")
_SECTION: Final = tuple(tuple(paths.split("|")) for paths in section_key("Section"))


class Lookups:
    """The tables, and what is still to be joined when the file that is being read comes to its end."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[tuple[str, ...], str]] = {name: {} for name in _TABLES}
        self._handlers: dict[str, Callable[[Row], None]] = {
            "School": self._school,
            "EducationOrganization": self._school,
            "Course": self._course,
            "Session": self._session,
            "GradingPeriod": self._grading_period,
            "Teacher": self._teacher,
            "TeacherSectionAssociation": self._teaching,
            "Assessment": self._assessment,
            "ObjectiveAssessment": self._objective_assessment,
            "LearningObjective": self._learning_objective,
        }
        # Joined at the end of the file.
        self._periods_of: list[tuple[str, str, list[str]]] = []
        self._period: dict[str, tuple[str, str]] = {}
        self._staff: dict[str, str] = {}
        self._objectives_of: list[tuple[str, list[str]]] = []
        self._objective: dict[str, str] = {}

    @property
    def entities(self) -> frozenset[str]:
        """The entities that are read for the tables."""
        return frozenset(self._handlers)

    def learn(self, row: Row) -> bool:
        """Take from a row what the tables need; whether its entity is one of those read for them."""
        handler = self._handlers.get(row.entity)
        if handler is None:
            return False
        handler(row)
        return True

    def name_school(self, organization: str, name: str) -> None:
        """Call a school so, unless the export has named it."""
        self._set("school", (organization,), name)

    def end_file(self) -> None:
        """Join what the rows of the file that ends say about each other."""
        for organization, year, periods in self._periods_of:
            for xml_id in periods:
                name, last_day = self._period.get(xml_id, ("", ""))
                self.tables["period_end"].setdefault((organization, year, name), last_day)
        for code, objectives in self._objectives_of:
            if len(objectives) == 1 and objectives[0] in self._objective:
                self.tables["objective"].setdefault((code,), self._objective[objectives[0]])
        self._periods_of.clear()
        self._period.clear()
        self._objectives_of.clear()
        self._objective.clear()
        self._staff.clear()

    def _school(self, row: Row) -> None:
        self._set("school", (row.values.get("StateOrganizationId", ""),), row.values.get("NameOfInstitution"))

    def _course(self, row: Row) -> None:
        values = row.values
        key = (values.get("EducationOrganization/StateOrganizationId", ""), values.get("CourseCode/ID", ""))
        self._set("course_title", key, values.get("CourseTitle"))
        self._set("course_subject", key, values.get("SubjectArea"))

    def _session(self, row: Row) -> None:
        values = row.values
        organization = values.get("EducationOrganization/StateOrganizationId", "")
        year = values.get("SchoolYear", "")
        term = values.get("Term") or values.get("SessionName", "")
        self._set("term_end", (organization, year, term), values.get("EndDate"))
        periods = [member["@ref"] for member in row.groups.get("GradingPeriod", ()) if "@ref" in member]
        self._periods_of.append((organization, year, periods))

    def _grading_period(self, row: Row) -> None:
        last_day = row.values.get("EndDate")
        if row.xml_id and last_day:
            self._period[row.xml_id] = (row.values.get("GradingPeriod", ""), last_day)

    def _teacher(self, row: Row) -> None:
        values = row.values
        name = " ".join(values[path] for path in ("Name/FirstName", "Name/LastSurname") if path in values)
        self._staff[values.get("StaffUniqueStateId", "")] = name

    def _teaching(self, row: Row) -> None:
        values = row.values
        key = tuple(next((values[path] for path in paths if path in values), "") for paths in _SECTION)
        self._set("teacher", key, self._staff.get(values.get("Teacher/Staff/StaffUniqueStateId", "")))

    def _assessment(self, row: Row) -> None:
        key = tuple(row.values.get(name, "") for name in _TEST)
        self._set("assessment_category", key, row.values.get("AssessmentCategory"))

    def _objective_assessment(self, row: Row) -> None:
        refs = [member["@ref"] for member in row.groups.get("LearningObjective", ()) if "@ref" in member]
        self._objectives_of.append((row.values.get("IdentificationCode", ""), refs))

    def _learning_objective(self, row: Row) -> None:
        if row.xml_id and "Objective" in row.values:
            self._objective[row.xml_id] = row.values["Objective"]

    def _set(self, table: str, key: tuple[str, ...], text: str | None) -> None:
        if text:
            self.tables[table].setdefault(key, text)

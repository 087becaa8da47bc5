"""Imports Ed-Fi Core 1.0 interchange files.

Rules:

- Files are read in the order in which they explain each other: organizations, calendar and schedule, then enrolment,
  then the rest. Each is read once, but for enrolment when only one school's learners are wanted.
- Every file's beginning is checked before anything is stored, so a folder that holds something that is no Ed-Fi 1.0
  interchange, or is unsafe, is refused whole. A file that turns out damaged further on ends the import there: what
  stood before is stored, and after the repair the import is run again.
- A row that cannot be read is rejected alone.
- Interrupted, the same import (the same files, the same options) continues where it stopped. Repeated, it changes
  nothing. A newer export makes new versions of what changed.

Example::

    >>> report = import_edfi([Path("EdFiSampleData.zip")], sink, only_school="255901001")
    >>> report.learners, report.exit_code
    (320, 0)
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Final

from permslip.errors import ImportFileError, MalformedError
from permslip_node.importing.delivery import Delivery
from permslip_node.importing.edfi_families import GUARDIAN_ENTITY, PARENT_ENTITY, guardian_of, name_of
from permslip_node.importing.edfi_links import KEPT, Links
from permslip_node.importing.edfi_lookups import GROUPS, Lookups
from permslip_node.importing.edfi_tables import MAPPINGS, SYSTEM
from permslip_node.importing.edfi_xml import MAX_ROW, Row, interchange_of, read_rows
from permslip_node.importing.record_building import Compiled
from permslip_node.importing.report import ImportReport, Rejects
from permslip_node.importing.sink import RecordSink
from permslip_node.importing.sources import SourceFile, Sources, open_sources

__all__ = ["OnProgress", "import_edfi", "import_families"]

# Called with the file's label, the bytes of it read so far, and its size.
OnProgress = Callable[[str, int, int], None]

# Stands for the tables: what an older version stored is not what this one resumes.
_MAPPING_VERSION: Final = b"1"
_ENROLMENT: Final = "StudentEnrollment"
_FAMILIES: Final = "StudentParent"
_ENROLLED: Final = "StudentSchoolAssociation"
_ORDER: Final = (
    "EducationOrganization",
    "EducationOrgCalendar",
    "AssessmentMetadata",
    "MasterSchedule",
    "StaffAssociation",
    _ENROLMENT,
    _FAMILIES,
)


def import_edfi(
    paths: Iterable[Path],
    sink: RecordSink,
    *,
    only_school: str | None = None,
    node_name: str = "",
    on_progress: OnProgress | None = None,
    rejects: Path | None = None,
) -> ImportReport:
    """Import Ed-Fi Core 1.0 files.

    Args:
        paths: ``.xml`` files, folders and ``.zip`` archives of them, in any order.
        sink: where to.
        only_school: keep only the learners who are enrolled at the school with this ``StateOrganizationId``.
        node_name: what to call ``only_school`` where the export does not name it.
        on_progress: called about four times a megabyte.
        rejects: file for what could not be read.

    Raises:
        ImportFileError: a file cannot be read at all, or no enrolment names ``only_school``.
    """
    started = time.perf_counter()
    with open_sources(paths) as sources:
        report = ImportReport(ignored_files=list(sources.ignored))
        ordered = sorted(sources.files, key=_rank)
        learners = None if only_school is None else _enrolled_at(only_school, ordered)
        delivery = Delivery(sink, SYSTEM, _run_digest(sources, only_school or ""), report)
        rejected = Rejects(rejects)
        try:
            importer = _Import(delivery, report, rejected, learners, records=True)
            for source in ordered:
                if only_school is not None and node_name and _rank(source)[0] >= _ORDER.index(_ENROLMENT):
                    importer.lookups.name_school(only_school, node_name)
                importer.file(source, on_progress)
            delivery.finish()
        finally:
            rejected.close()
            report.rejected = rejected.count
    report.seconds = time.perf_counter() - started
    return report


def import_families(
    paths: Iterable[Path],
    sink: RecordSink,
    *,
    learners: Collection[str],
    on_progress: OnProgress | None = None,
    rejects: Path | None = None,
) -> ImportReport:
    """Import the guardians of some learners from a school's ``StudentParent`` files, and nothing else.

    For a provider whose own system knows no guardians: the school tells it whose children its learners are.

    Args:
        paths: as for :func:`import_edfi`; files of other interchanges are ignored.
        sink: where to.
        learners: native ids (``StudentUniqueStateId``) of the learners whose guardians are wanted.
        on_progress: as for :func:`import_edfi`.
        rejects: as for :func:`import_edfi`.

    Raises:
        ImportFileError: a file cannot be read at all.
    """
    started = time.perf_counter()
    wanted = frozenset(learners)
    with open_sources(paths) as sources:
        report = ImportReport(ignored_files=list(sources.ignored))
        delivery = Delivery(sink, SYSTEM, _run_digest(sources, "families", *sorted(wanted)), report)
        rejected = Rejects(rejects)
        try:
            importer = _Import(delivery, report, rejected, wanted, records=False)
            for source in sources.files:
                if interchange_of(source) == _FAMILIES:
                    importer.file(source, on_progress)
                else:
                    report.ignored_files.append(source.label)
            delivery.finish()
        finally:
            rejected.close()
            report.rejected = rejected.count
    report.seconds = time.perf_counter() - started
    return report


class _Import:
    """The state of one import: what earlier rows said that later rows need."""

    def __init__(
        self,
        delivery: Delivery,
        report: ImportReport,
        rejects: Rejects,
        learners: frozenset[str] | None,
        *,
        records: bool,
    ) -> None:
        self.lookups = Lookups()
        self._delivery = delivery
        self._report = report
        self._rejects = rejects
        self._learners = learners
        self._links = Links()
        self._mappings: dict[str, list[Compiled]] = {}
        for mapping in MAPPINGS if records else ():
            self._mappings.setdefault(mapping.entity, []).append(Compiled(mapping))
        self._groups = _groups()
        # Rows that refer to a row further on; tried again at the end of their file.
        self._held: list[Row] = []

    def file(self, source: SourceFile, on_progress: OnProgress | None) -> None:
        """Import one file."""

        def parsed(size: int) -> None:
            if on_progress is not None:
                on_progress(source.label, size, source.size)

        self._report.files.append(source.label)
        self._links.begin_file()
        for rows in read_rows(source, self._groups, parsed):
            for row in rows:
                self._row(row, source)
        for row in self._held:
            self._import(row, source, may_hold=False)
            self._delivery.row_done()
        self._held = []
        self._delivery.may_checkpoint = True
        self.lookups.end_file()

    def _row(self, row: Row, source: SourceFile) -> None:
        delivery, entity, report = self._delivery, row.entity, self._report
        delivery.position += 1
        report.rows[entity] = report.rows.get(entity, 0) + 1
        if row.is_too_large:
            self._rejects.add(source.label, row.line, entity, _too_large(entity))
            return
        is_lookup = self.lookups.learn(row) if not row.refs else False
        if entity in self._mappings or entity == GUARDIAN_ENTITY:
            self._import(row, source, may_hold=True)
            delivery.row_done()
        else:
            if row.refs:
                self._links.resolve(row)
                is_lookup = self.lookups.learn(row)
            counts = report.lookups if is_lookup or entity in KEPT or entity == PARENT_ENTITY else report.unmapped
            counts[entity] = counts.get(entity, 0) + 1
        self._links.keep(row)

    def _import(self, row: Row, source: SourceFile, *, may_hold: bool) -> None:
        complete = self._links.resolve(row)
        try:
            if row.entity == GUARDIAN_ENTITY:
                self._guardian(row)
            else:
                self._records(row, source)
        except MalformedError as error:
            if complete or not may_hold:
                self._rejects.add(source.label, row.line, row.entity, error)
            else:
                self._held.append(row)
                self._delivery.may_checkpoint = False

    def _records(self, row: Row, source: SourceFile) -> None:
        delivery, tables = self._delivery, self.lookups.tables
        mappings = self._mappings[row.entity]
        learner = mappings[0].learner_of(row.values)
        if self._learners is not None and learner not in self._learners:
            self._report.elsewhere += 1
            return
        if len(mappings) == 1:
            delivery.put(mappings[0], row.values, row.groups, tables, source.name, learner)
            return
        # A row that gives several records loses only those of its parts that cannot be read.
        for compiled in mappings:
            for values, groups in compiled.parts(row.values, row.groups):
                try:
                    delivery.put(compiled, values, groups, tables, source.name, learner)
                except MalformedError as error:
                    self._rejects.add(source.label, row.line, row.entity, error)
        delivery.put_name(name_of(row))

    def _guardian(self, row: Row) -> None:
        learner = row.values.get("Student/StudentUniqueStateId")
        if not learner:
            raise MalformedError("the row names no learner that can be found.", field="Student/StudentUniqueStateId")
        if self._learners is not None and learner not in self._learners:
            self._report.elsewhere += 1
            return
        self._delivery.put_person(guardian_of(row))


def _too_large(entity: str) -> MalformedError:
    return MalformedError(f"expected at most {MAX_ROW} characters in a row, with its paths.", field=entity)


def _groups() -> dict[str, frozenset[str]]:
    groups: dict[str, set[str]] = {entity: set(paths) for entity, paths in GROUPS.items()}
    for mapping in MAPPINGS:
        wanted = groups.setdefault(mapping.entity, set())
        wanted.update(many.group for many in mapping.many)
        if mapping.each:
            wanted.add(mapping.each)
    for entity, kept in KEPT.items():
        groups.setdefault(entity, set()).update(kept.groups)
    return {entity: frozenset(paths) for entity, paths in groups.items()}


def _rank(source: SourceFile) -> tuple[int, str]:
    interchange = interchange_of(source)
    return (_ORDER.index(interchange) if interchange in _ORDER else len(_ORDER), source.label)


def _enrolled_at(school: str, sources: list[SourceFile]) -> frozenset[str]:
    """Everyone whom an enrolment places at this school."""
    found: set[str] = set()
    schools: set[str] = set()
    links = Links()
    for source in sources:
        if interchange_of(source) != _ENROLMENT:
            continue
        links.begin_file()
        for rows in read_rows(source, {}):
            for row in rows:
                if row.entity == _ENROLLED:
                    links.resolve(row)
                    place = row.values.get("School/StateOrganizationId", "")
                    schools.add(place)
                    if place == school:
                        found.add(row.values.get("Student/StudentUniqueStateId", ""))
                links.keep(row)
    if not found:
        named = ", ".join(sorted(schools)[:20]) or "none"
        of_enrolments = [source for source in sources if interchange_of(source) == _ENROLMENT]
        raise ImportFileError(
            f"no learner is enrolled at the school {school!r}; the enrolments name {named}.",
            file=", ".join(source.name for source in (of_enrolments or sources)[:3]),
            remedy="Give a StateOrganizationId that StudentSchoolAssociation names.",
        )
    return frozenset(found)


def _run_digest(sources: Sources, *options: str) -> bytes:
    parts = (SYSTEM.encode(), _MAPPING_VERSION, sources.digest, *(option.encode() for option in options))
    return hashlib.sha256(b"\0".join(parts)).digest()

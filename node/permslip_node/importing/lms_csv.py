"""Imports a learning platform's extract: a folder of CSV files as Canvas-style extractors write it.

::

    users/2021-07-01-00-00-00.csv
    sections/2021-07-01-00-00-00.csv
    section=123456780/section-associations/2021-07-01-00-00-00.csv
    section=123456780/assignments/2021-07-01-00-00-00.csv
    section=123456780/assignment=2942251001/submissions/2021-07-01-00-00-00.csv

Rules:

- Learners are known by ``SISUserIdentifier``, the school's own number. A user without one is rejected.
- Where a folder holds several extracts, the newest row of an id counts (files sort by their dated names).
- A record's source file is the folder, not the dated name: a new extract that says the same changes nothing.
- Blanks around a field are dropped; an empty field is an absent one.
- UTF-8 with or without a byte order mark. A line is at most :data:`MAX_LINE` characters. A row with too few or too
  many fields is rejected alone; a header without a needed column refuses the file.
- Other CSV folders of such extracts (attendance events, system activities …) are counted and reported as unmapped.

Example::

    >>> report = import_lms(Path("lms-canvas"), sink)
    >>> report.learners, report.records["personal.work_habits"]
    (49, 901)
"""

from __future__ import annotations

import csv
import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple, TextIO

from permslip.errors import ImportFileError, MalformedError
from permslip_node.importing.delivery import Delivery
from permslip_node.importing.field_checks import text_check
from permslip_node.importing.lms_tables import COLUMNS, MAPPINGS, STUDENT_ROLE, SYSTEM
from permslip_node.importing.record_building import Compiled
from permslip_node.importing.report import ImportReport, Rejects
from permslip_node.importing.sink import ImportedName, RecordSink

__all__ = ["MAX_LINE", "import_lms"]

MAX_LINE: Final = 1024 * 1024

_MAPPING_VERSION: Final = b"1"
_ID: Final = "SourceSystemIdentifier"
_NAME_CHECK: Final = text_check("author", "name")
# Tables that others refer to: (table, its prefix, the referring column), in the order in which they are joined.
_REFERENCES: Final = (
    ("assignments", "Assignment", "AssignmentSourceSystemIdentifier"),
    ("users", "User", "LMSUserSourceSystemIdentifier"),
    ("sections", "Section", "LMSSectionSourceSystemIdentifier"),
)


class _Table(NamedTuple):
    """A folder of extracts of one table."""

    kind: str
    # Path of the folder, relative to the extract.
    label: str
    # The newest first.
    files: list[Path]


class _CsvRow(NamedTuple):
    file: str
    line: int
    # Column → text; empty fields are absent.
    values: dict[str, str]


def import_lms(
    folder: Path,
    sink: RecordSink,
    *,
    node_name: str = "",
    on_progress: Callable[[str, int, int], None] | None = None,
    rejects: Path | None = None,
) -> ImportReport:
    """Import an extract.

    Args:
        folder: holds ``users/`` and the rest.
        sink: where to.
        node_name: what to call the platform as the place of its records; by default ``SourceSystem``, e.g. Canvas.
        on_progress: called with each file's path, its size once it is read, and its size.
        rejects: file for what could not be read.

    Raises:
        ImportFileError: the folder is no such extract, or a file in it cannot be read at all.
    """
    started = time.perf_counter()
    tables = _tables(folder)
    report = ImportReport()
    delivery = Delivery(sink, SYSTEM, _run_digest(tables, node_name), report)
    rejected = Rejects(rejects)
    try:
        importer = _Import(delivery, report, rejected, node_name)
        for table in tables:
            importer.table(table, on_progress)
        delivery.finish()
    finally:
        rejected.close()
        report.rejected = rejected.count
    report.seconds = time.perf_counter() - started
    return report


class _Import:
    """The state of one import: the rows that others refer to."""

    def __init__(self, delivery: Delivery, report: ImportReport, rejects: Rejects, node_name: str) -> None:
        self._delivery = delivery
        self._report = report
        self._rejects = rejects
        self._node_name = node_name
        self._referred: dict[str, dict[str, dict[str, str]]] = {kind: {} for kind, _, _ in _REFERENCES}
        self._mappings: dict[str, list[Compiled]] = {}
        for mapping in MAPPINGS:
            self._mappings.setdefault(mapping.entity, []).append(Compiled(mapping))

    def table(self, table: _Table, on_progress: Callable[[str, int, int], None] | None) -> None:
        """Import a folder's files."""
        seen: set[str] = set()
        for file in table.files:
            self._report.files.append(str(file))
            for row in _read(file, table.kind, self._reject):
                self._delivery.position += 1
                self._report.rows[table.kind] = self._report.rows.get(table.kind, 0) + 1
                if table.kind not in COLUMNS:
                    self._count(self._report.unmapped, table.kind)
                    continue
                identity = row.values.get(_ID, "")
                if identity in seen:
                    self._report.repeated += 1
                    continue
                seen.add(identity)
                self._row(table, row)
                self._delivery.row_done()
            if on_progress is not None:
                size = file.stat().st_size
                on_progress(str(file), size, size)

    def _row(self, table: _Table, row: _CsvRow) -> None:
        values = row.values
        if table.kind in self._referred:
            self._referred[table.kind][values.get(_ID, "")] = values
        mappings = self._mappings.get(table.kind)
        if mappings is None:
            self._count(self._report.lookups, table.kind)
            return
        if table.kind == "users" and values.get("UserRole") != STUDENT_ROLE:
            self._count(self._report.unmapped, f"users ({values.get('UserRole', 'no role')})")
            return
        joined = self._joined(values)
        for compiled in mappings:
            try:
                learner = compiled.learner_of(joined)
                for part, groups in compiled.parts(joined, {}):
                    self._delivery.put(compiled, part, groups, {}, table.label, learner)
                if table.kind == "users":
                    _NAME_CHECK(values["Name"], "Name")
                    self._delivery.put_name(ImportedName(learner, values["Name"]))
            except MalformedError as error:
                self._rejects.add(row.file, row.line, table.kind, error)
                return

    def _joined(self, values: dict[str, str]) -> dict[str, str]:
        """The row with what it refers to, and with the platform."""
        joined = dict(values)
        platform = self._node_name or values.get("SourceSystem")
        if platform:
            joined["Platform"] = platform
        for kind, prefix, column in _REFERENCES:
            # A submission names its section only through its assignment.
            identity = joined.get(column) or joined.get(f"Assignment/{column}", "")
            for name, text in self._referred[kind].get(identity, _NOTHING).items():
                joined[f"{prefix}/{name}"] = text
        return joined

    def _reject(self, file: str, line: int, kind: str, error: MalformedError) -> None:
        self._delivery.position += 1
        self._rejects.add(file, line, kind, error)

    @staticmethod
    def _count(counts: dict[str, int], kind: str) -> None:
        counts[kind] = counts.get(kind, 0) + 1


_NOTHING: Final[dict[str, str]] = {}


def _tables(folder: Path) -> list[_Table]:
    """The extract's folders, those that others refer to first."""
    found: dict[Path, list[Path]] = {}
    for file in sorted(folder.rglob("*.csv"), reverse=True):
        found.setdefault(file.parent, []).append(file)
    tables = [_Table(path.name, path.relative_to(folder).as_posix(), files) for path, files in found.items()]
    if not any(table.kind == "users" for table in tables):
        raise ImportFileError(
            "expected a folder with users/*.csv.",
            file=str(folder),
            remedy="Give the folder that a Canvas-style extractor wrote.",
        )
    order = list(COLUMNS)
    tables.sort(key=lambda table: (order.index(table.kind) if table.kind in order else len(order), table.label))
    return tables


def _read(file: Path, kind: str, reject: Callable[[str, int, str, MalformedError], None]) -> Iterator[_CsvRow]:
    line = 1
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(_lines(stream, file), strict=True)
            header = next(reader, None)
            if header is None:
                return
            _check_header(file, kind, header)
            line = reader.line_num + 1
            while True:
                try:
                    fields = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    reject(str(file), line, kind, MalformedError(f"is no CSV: {error}.", field=header[0]))
                    line = reader.line_num + 1
                    continue
                if len(fields) == len(header):
                    values = {name: text for name, field in zip(header, fields, strict=True) if (text := field.strip())}
                    if values:
                        yield _CsvRow(str(file), line, values)
                elif fields:
                    message = f"expected {len(header)} fields, got {len(fields)}."
                    at_fault = header[min(len(fields), len(header) - 1)]
                    reject(str(file), line, kind, MalformedError(message, field=at_fault))
                line = reader.line_num + 1
    except UnicodeDecodeError as error:
        raise ImportFileError("expected UTF-8.", file=str(file), line=line, remedy="Save it as UTF-8.") from error
    except (OSError, csv.Error) as error:  # csv.Error: in the header
        raise ImportFileError(f"cannot be read: {error}.", file=str(file), line=line) from error


def _check_header(file: Path, kind: str, header: list[str]) -> None:
    for column in COLUMNS.get(kind, ()):
        if column not in header:
            raise ImportFileError(
                f"the column {column} is missing.", file=str(file), line=1, remedy="Is this a Canvas-style extract?"
            )
    if len(set(header)) != len(header):
        raise ImportFileError("a column stands twice in the header.", file=str(file), line=1)


def _lines(stream: TextIO, file: Path) -> Iterator[str]:
    number = 0
    while line := stream.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise ImportFileError(f"a line longer than {MAX_LINE} characters.", file=str(file), line=number)
        yield line


def _run_digest(tables: list[_Table], node_name: str) -> bytes:
    digest = hashlib.sha256(b"\0".join((SYSTEM.encode(), _MAPPING_VERSION, node_name.encode())))
    for table in tables:
        for file in table.files:
            digest.update(f"\0{table.label}/{file.name}\0".encode())
            try:
                with file.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
            except OSError as error:
                raise ImportFileError(f"cannot be read: {error}.", file=str(file)) from error
    return digest.digest()

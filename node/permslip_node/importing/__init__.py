"""Importers: what a school already has becomes records, each value as its source wrote it.

- :func:`import_edfi` reads Ed-Fi Core 1.0 interchange files (``permslip_node.importing.edfi_tables`` says what becomes
  what), :func:`import_families` their guardians alone.
- :func:`import_lms` reads a learning platform's CSV extract (``permslip_node.importing.lms_tables``).
- Both stream, reject unreadable rows one by one, resume where they were interrupted, change nothing when repeated, and
  make new versions of what a newer export has changed.
- Where records go is a :class:`RecordSink`; the node's store is one, :class:`MemorySink` another.

Example::

    >>> sink = MemorySink()
    >>> report = import_edfi([Path("EdFiSampleData.zip")], sink, only_school="255901001")
    >>> report.learners, report.guardian_links, report.exit_code
    (320, 636, 0)
"""

from __future__ import annotations

from permslip_node.importing.edfi import OnProgress, import_edfi, import_families
from permslip_node.importing.lms_csv import import_lms
from permslip_node.importing.memory_sink import MemorySink
from permslip_node.importing.report import CLEAN, SOME_REJECTED, ImportReport
from permslip_node.importing.sink import (
    ImportedGuardian,
    ImportedName,
    ImportedRecord,
    PutCounts,
    RecordSink,
    record_id,
)

__all__ = [
    "CLEAN",
    "SOME_REJECTED",
    "ImportReport",
    "ImportedGuardian",
    "ImportedName",
    "ImportedRecord",
    "MemorySink",
    "OnProgress",
    "PutCounts",
    "RecordSink",
    "import_edfi",
    "import_families",
    "import_lms",
    "record_id",
]

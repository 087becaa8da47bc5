"""What an import did, and what it could not read.

:class:`ImportReport` is the result of an import. :class:`Rejects` writes one JSON object on a line for every source row
that could not be read: ``{"file", "line", "entity", "field", "reason"}``. The rest is imported all the same.

Rules:

- The rejects file is readable by its owner alone: a reason quotes the value, which may be a learner's.
- It is begun anew by every import; one that resumes reads all rows again, so it finds the same rejects.
- No rejects, no file.

Example of a line::

    {"file": "StudentGrade.xml", "line": 1204, "entity": "Grade", "field": "NumericGradeEarned",
     "reason": "expected a decimal number, got 'A?'."}
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

from permslip.errors import ImportFileError, MalformedError

__all__ = ["CLEAN", "SOME_REJECTED", "ImportReport", "Rejects"]

# Exit codes of a command that imports.
CLEAN: Final = 0
SOME_REJECTED: Final = 3


@dataclass(slots=True)
class ImportReport:
    """Counts of one import.

    Attributes:
        files: labels of the files read.
        ignored_files: labels of files that were found and are of no known kind.
        rows: entity or table → rows read.
        records: section → records that came out (new, changed or unchanged).
        records_by_entity: entity, with its part → records that came out.
        inserted: records that were new.
        versioned: records that had changed.
        unchanged: records that were already there, byte for byte.
        repeated: rows that say again, word for word, what another row of the same import said.
        rejected: rows (or parts of rows) that could not be read; see the rejects file.
        elsewhere: rows about learners who are not enrolled at the school that was asked for.
        unmapped: entity → rows that no importer maps.
        lookups: entity → rows that only serve to complete records of other entities.
        learners: learners with a record or a guardian from this import.
        guardian_links: links between a guardian and a learner.
        resumed_at: rows that an interrupted import had already stored: they are in ``rows``, but their records are in
            no count of records.
        seconds: wall clock.
    """

    files: list[str] = field(default_factory=list)
    ignored_files: list[str] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    records: dict[str, int] = field(default_factory=dict)
    records_by_entity: dict[str, int] = field(default_factory=dict)
    inserted: int = 0
    versioned: int = 0
    unchanged: int = 0
    repeated: int = 0
    rejected: int = 0
    elsewhere: int = 0
    unmapped: dict[str, int] = field(default_factory=dict)
    lookups: dict[str, int] = field(default_factory=dict)
    learners: int = 0
    guardian_links: int = 0
    resumed_at: int = 0
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """0 when every row was read, 3 when some were rejected."""
        return SOME_REJECTED if self.rejected else CLEAN

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``: every attribute, and the exit code."""
        return {name: getattr(self, name) for name in self.__slots__} | {"exit_code": self.exit_code}


class Rejects:
    """Writes the rejects file, when there is something to write and somewhere to write it.

    Args:
        path: the file; ``None`` to count only.

    Raises:
        ImportFileError: the file cannot be written.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stream: TextIO | None = None
        self.count = 0
        if path is not None:
            path.unlink(missing_ok=True)

    def add(self, file: str, line: int, entity: str, error: MalformedError) -> None:
        """Write one reject.

        Args:
            file: label of the source file.
            line: where the row begins.
            entity: the row's entity or table.
            error: its field is the source's path.
        """
        self.count += 1
        if self._path is None:
            return
        reason = error.message.removeprefix(f"{error.field}: ")
        reject = {"file": file, "line": line, "entity": entity, "field": error.field, "reason": reason}
        try:
            if self._stream is None:
                descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                self._stream = os.fdopen(descriptor, "a", encoding="utf-8")
            self._stream.write(json.dumps(reject, ensure_ascii=False) + "\n")
        except OSError as failure:
            raise ImportFileError(
                f"the rejects file cannot be written: {failure}.", file=str(self._path), remedy="Name another."
            ) from failure

    def close(self) -> None:
        """Close the file, if there is one."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

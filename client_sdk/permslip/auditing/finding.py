"""Collecting what a step finds, in the bundle itself: however much it is, memory does not grow.

Example::

    with bundle.findings("replay") as found:
        found.count("decisions")
        found.add(Code.LEAF_HASH, "expected …, got …", ledger=1, position=7, expected="…")
    found.result.faults
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias

from permslip.auditing.codes import Code
from permslip.auditing.results import Result
from permslip.clock import system_clock
from permslip.errors import ConfigurationError

__all__ = ["Findings", "Severity", "results_of", "utc_text"]

Severity: TypeAlias = Literal["fault", "warning", "note"]

_BATCH: Final = 500

_RESULTS: Final = """
    SELECT step,
        CASE WHEN started_at < (SELECT finished_at FROM run WHERE step = 'fetch') THEN 'outdated' ELSE result END
    FROM run WHERE step <> 'fetch'
"""


class Findings:
    """One step's findings; made by :meth:`permslip.auditing.bundle.Bundle.findings`."""

    def __init__(self, db: sqlite3.Connection, step: str) -> None:
        self._db, self._step = db, step
        self._waiting: list[tuple[Any, ...]] = []
        self._counts: Counter[str] = Counter()
        self._codes: Counter[str] = Counter()
        self._faults = 0
        self._unchecked = ""
        self._started_at = 0
        self._result: Result | None = None

    @property
    def result(self) -> Result:
        """What was found.

        Raises:
            ConfigurationError: the step has not ended.
        """
        if self._result is None:
            raise ConfigurationError("has not ended.", key=self._step)
        return self._result

    @property
    def faults(self) -> int:
        """How many faults were found so far."""
        return self._faults

    def add(
        self,
        code: Code,
        message: str,
        *,
        ledger: int | None = None,
        position: int | None = None,
        severity: Severity = "fault",
        **details: Any,
    ) -> None:
        """Note a finding.

        Args:
            code: what it is.
            message: what was expected and what came.
            ledger: the ledger's number in the bundle.
            position: the entry it is about.
            severity: a ``fault`` makes the result «findings»; a ``warning`` or a ``note`` does not.
            details: what JSON can hold; bytes become hexadecimal.
        """
        self._codes[str(code)] += 1
        self._faults += severity == "fault"
        told = json.dumps(details, default=_text, ensure_ascii=False, sort_keys=True)
        self._waiting.append((self._step, str(code), severity, ledger, position, message, told))
        if len(self._waiting) >= _BATCH:
            self._write()

    def leave_unchecked(self, why: str) -> None:
        """Say that a part could not be checked: the first reason is what the result says."""
        self._unchecked = self._unchecked or why

    def count(self, name: str, by: int = 1) -> None:
        """Count what was looked at."""
        self._counts[name] += by

    def begin(self) -> None:
        """Forget what this step found before."""
        self._started_at = system_clock()
        self._db.execute("DELETE FROM finding WHERE step = ?", (self._step,))
        self._db.execute("DELETE FROM run WHERE step = ?", (self._step,))

    def end(self) -> None:
        """Write the result."""
        self._write()
        self._result = Result(self._step, dict(self._counts), dict(self._codes), self._faults, self._unchecked)
        self._db.execute(
            "INSERT INTO run VALUES (?, ?, ?, ?, ?)",
            (self._step, self._started_at, system_clock(), self._result.word, json.dumps(self._counts)),
        )

    def _write(self) -> None:
        # One statement list, one transaction, unless the step is within one.
        begun = not self._db.in_transaction
        if begun:
            self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany(
            "INSERT INTO finding (step, code, severity, ledger, position, message, details)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            self._waiting,
        )
        if begun:
            self._db.execute("COMMIT")
        self._waiting.clear()


def _text(value: Any) -> str:
    return bytes(value).hex() if isinstance(value, (bytes, bytearray, memoryview)) else str(value)


def results_of(db: sqlite3.Connection) -> dict[str, str]:
    """Step → its last result in a bundle: ``clean``, ``findings``, ``unchecked``, or ``outdated`` where something was
    fetched since: what it said is not about what the bundle holds now."""
    return dict(db.execute(_RESULTS))


def utc_text(millis: int) -> str:
    """A time for people; the number where no calendar has it."""
    try:
        return datetime.fromtimestamp(millis / 1_000, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError, OSError):
        return str(millis)

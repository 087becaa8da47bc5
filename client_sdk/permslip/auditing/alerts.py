"""Alerts: what a watch finds, told to somebody at once.

Example::

    found = AlertingFindings(bundle.db, "replay", names=Names(bundle), tell=lambda alert: print(alert.line))
    found.add(Code.VERDICT_DIFFERS, "expected …, got …", ledger=1, position=17)
    # 2026-11-22T15:58:01Z FAULT VERDICT_DIFFERS entry 17 of grand-bend broker: expected …, got …
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from permslip.auditing.bundle import Bundle
from permslip.auditing.codes import Code
from permslip.auditing.finding import Findings, Severity
from permslip.clock import system_clock
from permslip.grant_views import time_text
from permslip.keys import did_text

__all__ = ["Alert", "AlertingFindings", "Names"]


@dataclass(frozen=True, slots=True)
class Alert:
    """One thing that somebody should know now.

    Attributes:
        at: when it was told, UTC.
        step: the check that found it.
        code: what it is.
        severity: ``fault``, ``warning`` or ``note``.
        ledger: whose ledger, by name; empty where it is about none.
        position: the entry it is about.
        message: what was expected and what came.
    """

    at: str
    step: str
    code: str
    severity: str
    ledger: str
    position: int | None
    message: str

    @classmethod
    def now(cls, step: str, code: str, severity: str, ledger: str, position: int | None, message: str) -> Self:
        """An alert of this moment; arguments as the attributes."""
        return cls(time_text(system_clock()), step, str(code), severity, ledger, position, message)

    @property
    def line(self) -> str:
        """The alert as one line."""
        entry = "" if self.position is None else f"entry {self.position} of "
        where = f" {entry}{self.ledger or 'a ledger'}" if entry or self.ledger else ""
        # What comes from a ledger must not move a terminal's cursor.
        said = "".join(each if each.isprintable() else " " for each in f"{where}: {self.message}")
        return f"{self.at} {self.severity.upper()} {self.code}{said}"

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        return asdict(self)


class Names:
    """What the ledgers of a bundle are called."""

    def __init__(self, bundle: Bundle) -> None:
        self._db = bundle.db

    def of(self, ledger: int | None) -> str:
        """By number; empty for none."""
        row = self._db.execute("SELECT name FROM ledger WHERE ledger = ?", (ledger,)).fetchone()
        return "" if row is None else str(row[0])

    def of_root(self, root: bytes) -> str:
        """By the root of its keeper, whether or not there is anything of it yet."""
        for table in ("ledger", "organization"):
            row = self._db.execute(f"SELECT name FROM {table} WHERE root = ?", (root,)).fetchone()  # noqa: S608 - two constants
            if row is not None:
                return str(row[0])
        return did_text(root) if root else ""


class AlertingFindings(Findings):
    """Findings that are told as they are added; notes are only kept.

    Args:
        db, step: as for :class:`~permslip.auditing.finding.Findings`.
        names: of ledgers.
        tell: called with each alert.

    Attributes:
        codes: how many of each code were found so far.
    """

    def __init__(self, db: sqlite3.Connection, step: str, *, names: Names, tell: Callable[[Alert], None]) -> None:
        super().__init__(db, step)
        self._names, self._tell = names, tell
        self.codes: Final[Counter[str]] = Counter()

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
        """Note a finding, and tell it; arguments as for :meth:`permslip.auditing.finding.Findings.add`."""
        self.codes[str(code)] += 1
        super().add(code, message, ledger=ledger, position=position, severity=severity, **details)
        if severity != "note":
            self._tell(Alert.now(self._step, code, severity, self._names.of(ledger), position, message))

    def flush(self) -> None:
        """Write what was found so far."""
        self._write()

    def end(self) -> None:
        """Write the result so far; there may be a later one."""
        self._db.execute("DELETE FROM run WHERE step = ?", (self._step,))
        super().end()

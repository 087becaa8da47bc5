"""Writes what an audit found as a report that a school board can read: one HTML file, and a PDF where it is wanted.

Rules:

- The report is made from the bundle alone; it checks nothing, and says which checks were made.
- Memory does not grow with the bundle: SQLite counts, and lists are cut with a word on how much was cut.
- The files are for their owner alone (mode 0600); they hold no learner's records, but who asked for whose.
- One state of the bundle is reported, even while somebody else writes to it.

Example::

    with Bundle.open("audit.db") as bundle:
        write_report(bundle, Path("report.html"), pdf=Path("report.pdf"))
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from permslip.auditing.bundle import Bundle
from permslip.auditing.figures import Figures, time_text
from permslip.auditing.report_figures import figures_section
from permslip.auditing.report_findings import findings_section, unchecked_section, verdict_of
from permslip.auditing.report_ledgers import ledger_sections
from permslip.auditing.report_page import page
from permslip.auditing.report_parts import Report
from permslip.clock import system_clock
from permslip.errors import ConfigurationError
from permslip.quantities import Millis

__all__ = ["make_report", "write_report"]


def write_report(
    bundle: Bundle, path: Path, *, pdf: Path | None = None, now: Callable[[], Millis] = system_clock
) -> Path:
    """Write the report.

    Args:
        bundle: what was fetched and found; it stays as it is.
        path: of the HTML file; a file that is there is replaced.
        pdf: of the PDF, if there is to be one.
        now: the clock.

    Returns:
        ``path``.

    Raises:
        ConfigurationError: a file cannot be written, or a PDF is wanted and the ``report`` extra is not installed.
    """
    if pdf is not None:
        from permslip.auditing.report_pdf import check_installed

        check_installed()
    report = make_report(bundle, now=now())
    _write(path, page(report).encode())
    if pdf is not None:
        from permslip.auditing.report_pdf import pdf_document

        _write(pdf, pdf_document(report, now=now()))
    return path


def make_report(bundle: Bundle, *, now: Millis) -> Report:
    """What the report says, before anybody has decided how it looks."""
    db = bundle.db
    # One reading transaction; its end takes the temporary tables with it.
    db.execute("BEGIN")
    try:
        figures = Figures(db)
        return Report(
            title=f"Audit report: {bundle.meta('federation') or 'unknown federation'}",
            about=tuple(_about(bundle, now)),
            verdict=verdict_of(db),
            sections=(
                findings_section(db),
                unchecked_section(db),
                figures_section(figures),
                *ledger_sections(db, file_name=bundle.path.name),
            ),
        )
    finally:
        db.execute("ROLLBACK")


def _about(bundle: Bundle, now: Millis) -> list[str]:
    visits = bundle.meta("visits") or "0"
    return [
        "Who opened what the schools keep about learners, and whether each opening was right.",
        f"Written on {time_text(now)} UTC from {bundle.path.name}, after {visits} visit{'' if visits == '1' else 's'}.",
        f"Scope of the audit: {_scope(bundle)}.",
    ]


def _scope(bundle: Bundle) -> str:
    """The scope in words; what cannot be read is shown as it stands."""
    text = bundle.meta("scope") or ""
    try:
        scope: Any = json.loads(text) if text else {}
    except ValueError:
        scope = None
    if not isinstance(scope, dict):
        return text
    nodes, first, last = scope.get("nodes"), scope.get("from"), scope.get("until")
    told = [f"{len(nodes)} named schools or providers" if isinstance(nodes, list) and nodes else "all schools"]
    told += [f"from {time_text(first)} UTC"] if isinstance(first, int) and first else []
    told += [f"until {time_text(last)} UTC"] if isinstance(last, int) and last else []
    return ", ".join(told) if len(told) > 1 else f"{told[0]}, all dates"


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all, for the owner alone."""
    beside: str | None = None
    try:
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        Path(beside).replace(path)
    except OSError as error:
        if beside is not None:
            Path(beside).unlink(missing_ok=True)
        raise ConfigurationError(f"cannot be written: {error.strerror}.", key=str(path)) from error

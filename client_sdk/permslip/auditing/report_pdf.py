"""A report as a PDF, typeset by Typst (the ``report`` extra): tagged for screen readers, with its fonts within.

Rules:

- The template is ours and fixed; what is said goes in as JSON and can never become markup or read a file.
- Nothing is fetched: the template imports no package, and the fonts come with the typesetter or the machine.

Example::

    check_installed()
    Path("report.pdf").write_bytes(pdf_document(report, now=system_clock()))
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import asdict
from importlib import resources
from itertools import groupby
from typing import Any, Final, Literal

from permslip.auditing.report_parts import Chart, Part, Report, Table
from permslip.errors import ConfigurationError
from permslip.quantities import Millis

__all__ = ["Paper", "check_installed", "pdf_document"]

Paper = Literal["a4", "us-letter"]

_STANDARD: Final = "ua-1"  # ISO 14289-1: readable by those who do not see it
# A column's share of a table's width: its longest cell, in letters, within these.
_LEAST: Final = 12
_MOST: Final = 36


def check_installed() -> None:
    """Say early what is missing.

    Raises:
        ConfigurationError: the ``report`` extra is not installed.
    """
    if importlib.util.find_spec("typst") is None:
        raise ConfigurationError(
            "a PDF needs the typesetter, which is not installed.",
            key="pdf",
            remedy="Install it with: pip install 'permslip[report]'. The HTML report needs nothing more.",
        )


def pdf_document(report: Report, *, now: Millis, paper: Paper = "us-letter") -> bytes:
    """The PDF.

    Args:
        report: what it says.
        now: the time of writing that stands in the file.
        paper: its size; the margins leave room to print one on the other.

    Raises:
        ConfigurationError: the ``report`` extra is not installed, or the typesetter refuses.
    """
    check_installed()
    import typst

    try:
        document: bytes = typst.compile(
            resources.files("permslip.auditing").joinpath("report.typ").read_bytes(),
            format="pdf",
            sys_inputs={"report": json.dumps(_told(report)), "paper": paper},
            pdf_standards=_STANDARD,
            timestamp=now // 1_000,
        )
    except typst.TypstError as error:
        raise ConfigurationError(f"the typesetter refused: {error}.", key="pdf") from error
    return document


def _told(report: Report) -> dict[str, Any]:
    return {
        "title": report.title,
        "about": report.about,
        "verdict": asdict(report.verdict),
        "sections": [{"title": each.title, "parts": _parts(each.parts)} for each in report.sections],
    }


def _parts(parts: tuple[Part, ...]) -> list[dict[str, Any]]:
    """Charts that follow each other are one part."""
    told: list[dict[str, Any]] = []
    for charts, run in groupby(parts, lambda each: isinstance(each, Chart)):
        if charts:
            told.append({"kind": "charts", "charts": [{**asdict(each), "said": _said(each)} for each in run]})
        else:
            told += [_part(each) for each in run]
    return told


def _part(part: Part) -> dict[str, Any]:
    told = {"kind": type(part).__name__.lower(), **asdict(part)}
    if isinstance(part, Table):
        columns = zip(part.heads, *part.rows, strict=True)
        told["widths"] = [max(_LEAST, min(_MOST, max(map(len, cells)))) for cells in columns]
    return told


def _said(part: Part) -> str:
    """A chart in words, for those who do not see it."""
    if not isinstance(part, Chart):
        return ""
    rows = (
        "; ".join((row[0], *map(" ".join, zip(row[1:], part.table.heads[1:], strict=True)))) for row in part.table.rows
    )
    return f"{part.title}. {'. '.join(rows) or 'Nothing to show'}."

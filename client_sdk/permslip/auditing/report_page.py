"""A report as one HTML file: no script, nothing from elsewhere, fit for a phone, for print and for the dark.

Rules:

- Every text of the data is escaped; the page's own policy forbids scripts, forms and everything from elsewhere, and
  allows exactly the one style sheet that stands in it, by its digest.
- Headings are in order, tables have captions and heads, drawings have a title, a description and a table.
- Colour never carries a meaning alone: the level of a finding is a word too.

Example::

    html = page(report)
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from importlib import resources
from itertools import groupby
from typing import Final

from permslip.auditing.charts import grouped
from permslip.auditing.report_parts import (
    Chart,
    Code,
    Facts,
    Level,
    Paragraph,
    Part,
    Report,
    Section,
    Steps,
    Table,
    Verdict,
)
from permslip.markup import clean

__all__ = ["page"]

_WORDS: Final = {Level.GOOD: "In order", Level.NOTE: "To know", Level.WARNING: "Attention", Level.FAULT: "Fault"}
_MARKS: Final = {Level.GOOD: "✓", Level.NOTE: "i", Level.WARNING: "!", Level.FAULT: "✗"}
# Tables with more columns become a list of rows on a phone.
_NARROW: Final = 3


def page(report: Report) -> str:
    """The whole document."""
    style = resources.files("permslip.auditing").joinpath("report.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    about = "".join(f'<p class="about">{clean(line)}</p>\n' for line in report.about)
    links = "".join(f'<li><a href="#{each.name}">{clean(each.title)}</a></li>' for each in report.sections)
    sections = "\n".join(_section(each) for each in report.sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<meta name="robots" content="noindex">
<title>{clean(report.title)}</title>
<style>{style}</style>
</head>
<body>
<a class="skip" href="#main">To the report</a>
<header>
<h1>{clean(report.title)}</h1>
{about}</header>
<main id="main">
{_whole(report.verdict)}
<nav aria-label="Sections"><ul>{links}</ul></nav>
{sections}
</main>
</body>
</html>
"""


def _section(section: Section) -> str:
    inner = "\n".join(_parts(section.parts))
    return (
        f'<section id="{section.name}" aria-labelledby="{section.name}-h">\n'
        f'<h2 id="{section.name}-h">{clean(section.title)}</h2>\n{inner}\n</section>'
    )


def _parts(parts: tuple[Part, ...]) -> Iterator[str]:
    """Charts that follow each other stand side by side."""
    for charts, run in groupby(parts, lambda each: isinstance(each, Chart)):
        inner = "\n".join(_part(each) for each in run)
        yield f'<div class="charts">\n{inner}\n</div>' if charts else inner


def _part(part: Part) -> str:
    match part:
        case Paragraph():
            small = ' class="small"' if part.small else ""
            return f"<p{small}>{clean(part.text)}</p>"
        case Verdict():
            return _verdict(part)
        case Facts():
            pairs = "".join(f"<div><dt>{clean(f.meaning)}</dt><dd>{clean(f.figure)}</dd></div>" for f in part.facts)
            return f'<dl class="facts">{pairs}</dl>'
        case Table():
            return _table(part)
        case Chart():
            note = f"<p>{clean(part.note)}</p>" if part.note else ""
            table = f"<details><summary>The numbers as a table</summary>{_table(part.table)}</details>"
            return f"<figure><figcaption>{clean(part.title)}</figcaption>\n{part.svg}\n{note}{table}</figure>"
        case Code():
            lines = f'<pre tabindex="0">{clean(part.text)}</pre>'
            if part.long:
                return f"<details><summary>{clean(part.label)}</summary>{lines}</details>"
            return f"<p>{clean(part.label)}</p>{lines}"
        case Steps():
            steps = "".join(f"<li>{clean(text)}<pre>{clean(lines)}</pre></li>" for text, lines in part.steps)
            return f"<ol>{steps}</ol>"


def _whole(verdict: Verdict) -> str:
    texts = "".join(f"<p>{clean(text)}</p>" for text in verdict.texts)
    return (
        f'<div class="verdict whole {verdict.level}" role="group" aria-labelledby="verdict">'
        f'<h2 id="verdict"><span class="level" aria-hidden="true">{_MARKS[verdict.level]}</span>'
        f" {clean(verdict.title)}</h2>{texts}</div>"
    )


def _verdict(verdict: Verdict) -> str:
    texts = "".join(f"<p>{clean(text)}</p>" for text in verdict.texts)
    examples = "".join(f"<li>{clean(text)}</li>" for text in verdict.examples)
    if verdict.uncounted:
        examples += f"<li>and {grouped(verdict.uncounted)} more; the audit file names each.</li>"
    listed = f"<ul>{examples}</ul>" if examples else ""
    mark = f' <span class="mark">{clean(verdict.mark)}</span>' if verdict.mark else ""
    level = f'<span class="level">{_MARKS[verdict.level]} {_WORDS[verdict.level]}:</span>'
    return f'<div class="verdict {verdict.level}"><h3>{level} {clean(verdict.title)}{mark}</h3>{texts}{listed}</div>'


def _table(table: Table) -> str:
    heads = "".join(
        f'<th scope="col"{_number(table, column)}>{clean(head)}</th>' for column, head in enumerate(table.heads)
    )
    rows = "\n".join(f"<tr>{_row(table, row)}</tr>" for row in table.rows)
    if not table.rows:
        rows = f'<tr><td colspan="{len(table.heads)}">Nothing to show.</td></tr>'
    note = f'<p class="small">{clean(table.note)}</p>' if table.note else ""
    wide = ' class="wide"' if len(table.heads) > _NARROW else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{clean(table.caption)}">'
        f"<table{wide}><caption>{clean(table.caption)}</caption><thead><tr>{heads}</tr></thead>\n"
        f"<tbody>{rows}</tbody></table></div>{note}"
    )


def _row(table: Table, row: tuple[str, ...]) -> str:
    first, *rest = row
    cells = "".join(
        f'<td data-head="{clean(table.heads[column])}"{_number(table, column)}>{clean(cell)}</td>'
        for column, cell in enumerate(rest, start=1)
    )
    return f'<th scope="row">{clean(first)}</th>{cells}'


def _number(table: Table, column: int) -> str:
    return ' class="n"' if column in table.numbers else ""

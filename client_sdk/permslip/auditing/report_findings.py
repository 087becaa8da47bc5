"""The report's first pages: the word on the whole, what was found and what to do, what could not be checked and why.

Rules:

- A word on the whole is only as good as the checks that were made: a check that was not made is never «no fault».
- A check that was made before the last fetch was not made of what the file holds now.
- Faults and warnings are findings. Notes say what could not be checked (erased, hidden, unknown).
- Each kind of finding is told once, in words, with some of its places and the number of all.

Example::

    verdict = verdict_of(bundle.db)
    sections = (findings_section(bundle.db), unchecked_section(bundle.db))
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from typing import Final, NamedTuple

from permslip.auditing.charts import grouped
from permslip.auditing.codes import Code
from permslip.auditing.figures import time_text
from permslip.auditing.finding import results_of
from permslip.auditing.report_parts import Level, Paragraph, Part, Section, Table, Verdict

__all__ = ["findings_section", "unchecked_section", "verdict_of"]

# Step → what a reader wants to know, and what «no fault» in it means.
_STEPS: Final[dict[str, tuple[str, str]]] = {
    "verify": (
        "Are the ledgers whole and genuine?",
        "Nothing was removed, altered, added or reordered since the ledgers were signed, and every signature holds.",
    ),
    "replay": (
        "Was every access rightly decided?",
        "Each decision was made once more from the consents and revocations of its moment, and came out the same.",
    ),
    "reconcile": (
        "Do schools and broker tell the same story?",
        "What the schools say they served is what the broker says it passed on.",
    ),
}
_BLAME: Final = (
    "A fault shows that something does not fit; it does not show by itself who is to blame. Each kind is told below,"
    " with what to do. Keep the audit file unchanged: it is the evidence."
)
_RESULTS: Final = {
    "clean": "no fault",
    "findings": "faults found",
    "unchecked": "could not be made",
    "outdated": "not made since the last fetch",
}
_ANSWERS: Final = ("clean", "findings")
_UNANSWERED: Final = {
    "": "This check was not made. Make it with",
    "unchecked": "This check could not be made. To see why, run it again",
    "outdated": "More was fetched since this check was made. Make it again with",
}
_LEVELS: Final = {"fault": Level.FAULT, "warning": Level.WARNING, "note": Level.NOTE}
_SHOWN_KINDS: Final = 100
_SHOWN_PLACES: Final = 4
_SHOWN_RULES: Final = 20
_MESSAGE_LENGTH: Final = 400


class _Kind(NamedTuple):
    step: str
    code: str
    severity: str
    times: int


def verdict_of(db: sqlite3.Connection) -> Verdict:
    """The word on the whole bundle."""
    results = results_of(db)
    faults, warnings = _counted(db, "fault"), _counted(db, "warning")
    entries, ledgers = db.execute("SELECT (SELECT count(*) FROM entry), (SELECT count(*) FROM ledger)").fetchone()
    looked = f"{_some(entries, 'entry', 'entries')} of {_some(ledgers, 'ledger', 'ledgers')} were looked at."
    missing = [question for step, (question, _) in _STEPS.items() if results.get(step) not in _ANSWERS]
    if faults:
        return Verdict(
            Level.FAULT,
            f"{_some(faults, 'fault was', 'faults were')} found.",
            texts=(
                looked,
                _BLAME,
                *([f"Besides, not everything was checked: {' '.join(missing)}"] if missing else []),
            ),
        )
    if missing or not entries:
        empty = ["The audit file holds no entries yet."] if not entries else []
        unsaid = [f"Not answered yet: {' '.join(missing)}"] if missing else []
        return Verdict(
            Level.WARNING,
            "Not everything was checked." if entries else "Nothing was checked.",
            texts=(looked, *empty, *unsaid, "No fault was found in what was checked; that does not clear the rest."),
        )
    texts = [looked, "Every check was made, and everything held together."]
    if _counted(db, "note"):
        texts.append("Some things cannot be known any more, or are outside this audit's scope: they are named below.")
    if warnings:
        texts.append(f"{_some(warnings, 'warning asks', 'warnings ask')} for attention.")
    return Verdict(Level.GOOD, "No fault was found.", texts=tuple(texts))


def findings_section(db: sqlite3.Connection) -> Section:
    """What was found, the gravest first, and which checks were made."""
    kinds = [kind for severity in ("fault", "warning") for kind in _kinds(db, severity)]
    parts: list[Part] = [_finding(db, kind) for kind in kinds[:_SHOWN_KINDS]]
    if not kinds:
        parts.append(Paragraph("Nothing was found that would be a fault or a warning."))
    if len(kinds) > _SHOWN_KINDS:
        parts.append(Paragraph(f"{grouped(len(kinds) - _SHOWN_KINDS)} more kinds of findings are in the audit file."))
    return Section("findings", "Findings", (*parts, _checks(db)))


def unchecked_section(db: sqlite3.Connection) -> Section:
    """What could not be checked, and why."""
    parts: list[Part] = []
    results = results_of(db)
    for step, (question, _) in _STEPS.items():
        result = results.get(step, "")
        if result not in _ANSWERS:
            text = f"{_UNANSWERED[result]}: permslip audit {step}"
            parts.append(Verdict(Level.WARNING, question, mark=step, texts=(text,)))
    parts += [_finding(db, kind) for kind in _kinds(db, "note")[:_SHOWN_KINDS]]
    parts += _hidden(db)
    parts += _erased(db)
    if not parts:
        parts.append(Paragraph("Everything that the audit file holds was checked; nothing was hidden or erased."))
    return Section("unchecked", "What could not be checked", tuple(parts))


def _finding(db: sqlite3.Connection, kind: _Kind) -> Verdict:
    meaning, remedy = _words(kind.code)
    count = "" if kind.times == 1 else f" ({grouped(kind.times)} times)"
    return Verdict(
        _LEVELS[kind.severity],
        f"{meaning}{count}",
        mark=kind.code,
        texts=(f"What to do: {remedy}",) if remedy else (),
        examples=tuple(_places(db, kind)),
        uncounted=max(kind.times - _SHOWN_PLACES, 0),
    )


def _words(code: str) -> tuple[str, str]:
    """A code's meaning and remedy; a code that a newer version wrote has none here."""
    try:
        known = Code(code)
    except ValueError:
        return "A finding that this version has no words for.", "Update Permslip and write the report again."
    return known.meaning, known.remedy


def _places(db: sqlite3.Connection, kind: _Kind) -> Iterator[str]:
    rows = db.execute(
        "SELECT f.ledger, l.kind, l.name, f.position, f.message"
        " FROM finding f LEFT JOIN ledger l ON l.ledger = f.ledger"
        " WHERE f.step = ? AND f.code = ? AND f.severity = ? ORDER BY f.finding LIMIT ?",
        (kind.step, kind.code, kind.severity, _SHOWN_PLACES),
    )
    for ledger, kept_by, name, position, message in rows:
        whose = "the broker's ledger" if kept_by == "broker" else f"the ledger of {name or f'number {ledger}'}"
        where = whose if ledger is not None else ""
        if position is not None:
            where = f"entry {grouped(position)} of {whose}" if where else f"entry {grouped(position)}"
        said = message if len(message) <= _MESSAGE_LENGTH else f"{message[: _MESSAGE_LENGTH - 1]}…"
        yield f"{where[:1].upper()}{where[1:]}: {said}" if where else said


def _checks(db: sqlite3.Connection) -> Table:
    rows = []
    results = results_of(db)
    for step, (question, means) in _STEPS.items():
        run = db.execute("SELECT finished_at, counts FROM run WHERE step = ?", (step,)).fetchone()
        finished, counts = run or (None, "{}")
        result = results.get(step, "")
        looked = ", ".join(f"{grouped(number)} {name.replace('_', ' ')}" for name, number in _counts(counts))
        when = f"{time_text(finished)} UTC" if run else "–"
        rows.append((question, _RESULTS.get(result, "not made"), means, looked or "–", when))
    return Table(
        "The three checks",
        ("Question", "Answer", "«No fault» means", "Looked at", "When"),
        tuple(rows),
    )


def _counts(text: str) -> list[tuple[str, int]]:
    """What a step says it looked at; the file may have been edited by anybody."""
    try:
        counts = json.loads(text)
    except ValueError:
        return []
    if not isinstance(counts, dict):
        return []
    return [(str(name), number) for name, number in counts.items() if isinstance(number, int)][:8]


def _hidden(db: sqlite3.Connection) -> Iterator[Part]:
    rows = db.execute(
        "SELECT l.kind, l.name, count(*), sum(e.leaf IS NULL) FROM entry e JOIN ledger l ON l.ledger = e.ledger"
        " GROUP BY e.ledger HAVING sum(e.leaf IS NULL) > 0 ORDER BY e.ledger LIMIT ?",
        (_SHOWN_KINDS,),
    ).fetchall()
    if rows:
        yield Table(
            "Entries that came as a hash alone",
            ("Ledger", "Entries", "Hash alone"),
            tuple((_ledger(kind, name), grouped(count), grouped(hidden)) for kind, name, count, hidden in rows),
            numbers=(1, 2),
            note="They are outside the scope that this auditor was admitted for, or their content was erased. The hash"
            " still proves that the ledger is whole; what stood in them was not checked.",
        )


def _erased(db: sqlite3.Connection) -> Iterator[Part]:
    rows = db.execute(
        "SELECT l.kind, l.name, x.rule, count(*), min(x.erased_at), max(x.erased_at) FROM erased x"
        " LEFT JOIN ledger l ON l.ledger = x.ledger GROUP BY x.ledger, x.rule ORDER BY x.ledger, x.rule LIMIT ?",
        (_SHOWN_RULES,),
    ).fetchall()
    if rows:
        yield Table(
            "Evidence erased at the end of its retention",
            ("Ledger", "Rule", "Statements", "Erased"),
            tuple(
                (
                    _ledger(kind, name),
                    rule,
                    grouped(count),
                    _between(time_text(first, "%d %b %Y"), time_text(last, "%d %b %Y")),
                )
                for kind, name, rule, count, first, last in rows
            ),
            numbers=(2,),
            note="What these statements said cannot be read any more. Decisions that rest on them are not «right», but"
            " «not to be checked any more».",
        )


def _kinds(db: sqlite3.Connection, severity: str) -> list[_Kind]:
    rows = db.execute(
        "SELECT step, code, severity, count(*) FROM finding WHERE severity = ? GROUP BY step, code"
        " ORDER BY min(finding) LIMIT ?",
        (severity, _SHOWN_KINDS + 1),
    )
    return [_Kind(*row) for row in rows]


def _counted(db: sqlite3.Connection, severity: str) -> int:
    (count,) = db.execute("SELECT count(*) FROM finding WHERE severity = ?", (severity,)).fetchone()
    return int(count)


def _ledger(kind: str | None, name: str | None) -> str:
    return "the broker" if kind == "broker" else name or "unknown"


def _some(number: int, one: str, many: str) -> str:
    return f"{grouped(number)} {one if number == 1 else many}"


def _between(first: str, last: str) -> str:
    return first if first == last else f"{first} to {last}"

"""The report's last pages: the checkpoints, how anybody can check them without this software, ledgers, words.

Rules:

- What is shown of a checkpoint is what was fetched and stands in the bundle; whether it holds is the findings' word.
- The hand check uses tools of others only: SQLite's shell and the Go project's own module log code.

Example::

    sections = ledger_sections(bundle.db, file_name="audit.db")
"""

from __future__ import annotations

import base64
import json
import sqlite3
from importlib import resources
from typing import Any, Final

from permslip.auditing.charts import grouped
from permslip.auditing.figures import time_text
from permslip.auditing.report_parts import Code, Paragraph, Part, Section, Steps, Table

__all__ = ["ledger_sections"]

_SHOWN: Final = 50
_SHOWN_NOTE: Final = 8_192
_TAKE_NOTE: Final = (
    "SELECT writefile('checkpoint.txt', note) FROM checkpoint WHERE ledger = 1 ORDER BY size DESC, visit DESC LIMIT 1"
)
_TAKE_LEAVES: Final = "SELECT lower(hex(leaf_hash)) FROM entry WHERE ledger = 1 AND position < {size} ORDER BY position"
_RUN: Final = (
    "Save the program below as check.go and run it beside them with the broker's key: the one above under «Signed by»"
    " or, better, the one that the broker gave you in person."
)
_EXPECT: Final = (
    "It has to print this size and root. With another key, and after any change to the note or a hash, it has to fail."
)
_KEYS: Final = (
    ("broker_root", "The broker's root"),
    ("operator", "The federation's operator"),
    ("auditor", "The auditor"),
)
_GLOSSARY: Final = (
    ("Access", "One question of one party for what one school keeps about one learner, whether allowed or refused."),
    ("Audit file, bundle", "The single file with everything that was fetched and found; any SQLite tool opens it."),
    ("Broker", "The centre that passes sealed questions and answers on. It cannot read what it passes on."),
    ("Checkpoint", "A signed note that says how many entries a ledger has and what fingerprint (root) they make."),
    ("Consent, grant", "What a parent signed: who may see what, for which purpose, until when."),
    ("Cosignature", "A witness's signature under a checkpoint: it saw this history and no other."),
    ("Entry", "One line of a ledger. Entries hold ids, keys, codes and times, never a learner's records."),
    ("Ledger", "A list to which lines can only be added. Broker and schools keep one each."),
    ("Node", "The computer of a school or provider that keeps its records and decides last."),
    ("Replay", "Making each decision once more from the facts of its moment, and comparing."),
    ("Revocation", "A parent takes a consent back. From then on it opens nothing."),
    ("Root", "The fingerprint of all entries together: one changed letter anywhere gives another root."),
    ("Slice", "What one school keeps about one learner, under a random number that means nothing elsewhere."),
    ("Witness", "An independent node that cosigns the broker's checkpoints, so that no second history can be shown."),
)


def ledger_sections(db: sqlite3.Connection, *, file_name: str) -> tuple[Section, ...]:
    """Checkpoints, hand check, ledgers, glossary.

    Args:
        db: the bundle's connection.
        file_name: what the bundle's file is called, for the commands.
    """
    return (_checkpoints(db), _by_hand(db, file_name), _ledgers(db), _glossary())


def _checkpoints(db: sqlite3.Connection) -> Section:
    rows = db.execute(
        "SELECT l.kind, l.name, l.origin, c.size, c.root, c.note, c.vkey, c.cosigners, c.fetched_at FROM checkpoint c"
        " JOIN ledger l ON l.ledger = c.ledger WHERE (c.size, c.visit) = (SELECT size, visit FROM checkpoint n"
        " WHERE n.ledger = c.ledger ORDER BY size DESC, visit DESC LIMIT 1) ORDER BY c.ledger LIMIT ?",
        (_SHOWN,),
    ).fetchall()
    if not rows:
        return Section("checkpoints", "Checkpoints", (Paragraph("The audit file holds no checkpoint."),))
    parts: list[Part] = [
        Paragraph(
            "Each ledger's keeper signed how many entries there are and which root they make. Compare size and root"
            " with what the keeper, a witness or another auditor shows you: two roots of one size are proof of a fraud."
        )
    ]
    for kind, name, origin, size, root, note, vkey, cosigners, fetched_at in rows:
        whose = "The broker's ledger" if kind == "broker" else f"The ledger of {name or origin}"
        signed = _cosigners(cosigners)
        parts.append(
            Table(
                whose,
                ("What", "Value"),
                (
                    ("Entries", grouped(size)),
                    ("Root", base64.b64encode(root).decode()),
                    ("Signed by", vkey),
                    ("Fetched", f"{time_text(fetched_at)} UTC"),
                    ("Cosigned by", "; ".join(signed) if signed else "nobody"),
                ),
            )
        )
        parts.append(Code(f"{whose}: the signed note", note[:_SHOWN_NOTE].decode("utf-8", "replace"), long=True))
    return Section("checkpoints", "Checkpoints", tuple(parts))


def _cosigners(text: str) -> list[str]:
    """Names and times; the file may have been edited by anybody."""
    try:
        listed: Any = json.loads(text)
    except ValueError:
        return []
    if not isinstance(listed, list):
        return []
    told = []
    for each in listed[:_SHOWN]:
        if isinstance(each, dict):
            seconds = each.get("timestamp")
            when = f"{time_text(seconds * 1000)} UTC" if isinstance(seconds, int) and seconds else "no time given"
            told.append(f"{each.get('name', 'unknown')} ({when})")
    return told


def _by_hand(db: sqlite3.Connection, file_name: str) -> Section:
    row = db.execute(
        "SELECT size, root FROM checkpoint WHERE ledger = 1 ORDER BY size DESC, visit DESC LIMIT 1"
    ).fetchone()
    title = "Check it yourself"
    if row is None:
        return Section("check", title, (Paragraph("Without a checkpoint of the broker there is nothing to check."),))
    size, root = row
    shell = f"sqlite3 {_quoted(file_name)}"
    take = f'{shell} "{_TAKE_NOTE}"\n{shell} "{_TAKE_LEAVES.format(size=size)}" > leaves.txt'
    build = "go mod init check && go get golang.org/x/mod@latest && go run check.go 'KEY OF THE BROKER'"
    return Section(
        "check",
        title,
        (
            Paragraph(
                "Trust neither this report nor the software that wrote it: SQLite's shell (sqlite3) and the Go language"
                " (go.dev) are enough. The code that judges is the one that Go itself trusts for its module log."
            ),
            Steps(
                (
                    ("Take the broker's signed note and the entries' hashes out of the audit file.", take),
                    (
                        _RUN,
                        build,
                    ),
                    (
                        _EXPECT,
                        f"{size} {base64.b64encode(root).decode()}",
                    ),
                )
            ),
            Code(
                "check.go", resources.files("permslip.auditing").joinpath("check.go.txt").read_text("utf-8"), long=True
            ),
        ),
    )


def _ledgers(db: sqlite3.Connection) -> Section:
    rows = db.execute(
        "SELECT l.kind, l.name, l.origin, l.did, l.head_size, (SELECT count(*) FROM entry e WHERE e.ledger = l.ledger),"
        " (SELECT count(*) FROM entry e WHERE e.ledger = l.ledger AND e.leaf IS NULL) FROM ledger l"
        " ORDER BY l.ledger LIMIT ?",
        (_SHOWN,),
    ).fetchall()
    (total,) = db.execute("SELECT count(*) FROM ledger").fetchone()
    table = Table(
        "The ledgers in the audit file",
        ("Kept by", "Kind", "Entries", "Hash alone", "Checkpoint of", "Name in checkpoints", "Key"),
        tuple(
            (
                name or ("the broker" if kind == "broker" else "unknown"),
                kind,
                grouped(count),
                grouped(hidden),
                grouped(head) if head is not None else "–",
                origin,
                did,
            )
            for kind, name, origin, did, head, count, hidden in rows
        ),
        numbers=(2, 3, 4),
        note=f"The first {len(rows)} of {grouped(total)} are shown." if total > len(rows) else "",
    )
    named = dict(db.execute("SELECT name, value FROM meta WHERE name IN ('broker_root', 'operator', 'auditor')"))
    keys = Table(
        "The keys that this audit trusts, and the auditor's own",
        ("Whose", "Key"),
        tuple((whose, named.get(name, "unknown")) for name, whose in _KEYS),
        note="They come from outside the audit. Compare them with what broker and operator publish.",
    )
    return Section("ledgers", "Ledgers", (table, keys))


def _glossary() -> Section:
    return Section("glossary", "Words", (Table("What the words mean", ("Word", "Meaning"), _GLOSSARY),))


def _quoted(name: str) -> str:
    """A file's name as a shell takes it."""
    return "'" + name.replace("'", "'\\''") + "'"

"""Verifying statements, slice chains and the table of what was erased: what is not seen leaf by leaf.

Rules:

- A statement is verified strictly and as a whole: envelope, payload, every signature; it is filed under its own id,
  and the bundle's columns are its own.
- Entries about one slice are numbered from 1 in each ledger and name the hash of the one before. A number may be
  missing only where the entry with the hash that the next one names is there as a hash alone, and the dates of the
  auditor's scope can hide it: an entry about a slice that she sees is about a node that she may see.
- «Erased» counts where a leaf says so.

Example::

    check_statements(bundle, trust, found, progress)
    check_slices(bundle, found, progress)
"""

from __future__ import annotations

import sqlite3
from hashlib import sha256
from typing import Final, NamedTuple

from permslip import statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.auditing.bundle import Bundle, StatementRow, first_signer
from permslip.auditing.codes import Code
from permslip.auditing.entry_rows import decode_entry
from permslip.auditing.finding import Findings
from permslip.auditing.results import Progress, Trust
from permslip.auditing.verify_scope import hides_between, scope_of_bundle
from permslip.errors import MalformedError, VerificationError

__all__ = ["check_erased", "check_links", "check_slices", "check_statements"]

_TELL_EVERY: Final = 4_096

_UNNAMED: Final = """
    SELECT s.id, s.kind FROM statement s
    WHERE s.kind <> 'key-cert'
        AND NOT EXISTS (SELECT 1 FROM entry e WHERE e.statement_id = s.id)
        AND NOT EXISTS (SELECT 1 FROM entry e WHERE e.query_id = s.id)
        AND NOT EXISTS (SELECT 1 FROM entry e WHERE e.manifest_sha256 = s.envelope_sha256)
"""
_LINK: Final = "SELECT node, handle, ledger, position, slice_seq, slice_prev, leaf_hash, recorded_at FROM entry"
_CHAINS: Final = f"{_LINK} WHERE node IS NOT NULL ORDER BY node, handle, ledger, position"
_NEW_LINKS: Final = f"{_LINK} WHERE ledger = ? AND position >= ? AND node IS NOT NULL ORDER BY position"
_LINK_BEFORE: Final = (
    f"{_LINK} WHERE node = ? AND handle = ? AND ledger = ? AND position < ? ORDER BY position DESC LIMIT 1"
)


def check_statements(bundle: Bundle, trust: Trust, found: Findings, progress: Progress) -> None:
    """Verify every statement of the bundle."""
    total = int(bundle.db.execute("SELECT count(*) FROM statement").fetchone()[0])
    for done, columns in enumerate(bundle.db.execute("SELECT * FROM statement ORDER BY rowid")):
        _check_statement(StatementRow(*columns), trust, found)
        if done % _TELL_EVERY == 0:
            progress("statements", done, total)
    progress("statements", total, total)
    found.count("statements", total)
    for identifier, kind in bundle.db.execute(_UNNAMED):
        found.add(
            Code.STATEMENT_UNNAMED,
            f"no leaf names the {kind} {identifier.hex()}.",
            severity="warning",
            statement=identifier,
        )


def _check_statement(row: StatementRow, trust: Trust, found: Findings) -> None:
    def add(code: Code, message: str) -> None:
        found.add(code, f"{row.kind or 'statement'} {row.id.hex()}: {message}", statement=row.id)

    try:
        envelope = st.parse_envelope(row.envelope)
        signed = st.verify(st.kind_of(envelope), envelope, federation=trust.federation)
    except MalformedError as error:
        add(Code.STATEMENT_MALFORMED, error.message)
        return
    except VerificationError as error:
        add(Code.STATEMENT_SIGNATURE, error.message)
        return
    if signed.id != row.id:
        add(Code.STATEMENT_ID, f"its own id is {signed.id.hex()}.")
    expected = (
        signed.kind.name,
        sha256(row.envelope).digest(),
        first_signer(signed),
        signed.payload.created_at,
    )
    if (row.kind, row.envelope_sha256, row.signer, row.created_at) != expected:
        add(Code.STATEMENT_COLUMNS, "its columns are not those of its envelope.")


class _Place(NamedTuple):
    """An entry of a slice's chain."""

    node: bytes
    handle: bytes
    ledger: int
    position: int
    seq: int
    prev: bytes | None
    leaf_hash: bytes
    recorded_at: int

    def is_after(self, other: _Place | None) -> bool:
        """Whether both are of one chain."""
        return other is not None and self[:3] == other[:3]


def check_slices(bundle: Bundle, found: Findings, progress: Progress) -> None:
    """Verify the chain of every slice in every ledger."""
    total = int(bundle.db.execute("SELECT count(*) FROM entry WHERE node IS NOT NULL").fetchone()[0])
    before: _Place | None = None
    slices = 0
    scope = scope_of_bundle(bundle)
    for done, columns in enumerate(bundle.db.execute(_CHAINS)):
        place = _Place(*columns)
        if not place.is_after(before):
            slices += 1
            before = None
        _check_link(bundle.db, place, before, scope, found)
        before = place
        if done % _TELL_EVERY == 0:
            progress("slice chains", done, total)
    progress("slice chains", total, total)
    found.count("slice entries", total)
    found.count("slice chains", slices)


def check_links(bundle: Bundle, ledger: int, since: int, found: Findings) -> None:
    """Verify that what came into a ledger from a position on continues the chains of its slices."""
    scope = scope_of_bundle(bundle)
    rows = bundle.db.execute(_NEW_LINKS, (ledger, since))
    for columns in rows:
        place = _Place(*columns)
        before = bundle.db.execute(_LINK_BEFORE, (place.node, place.handle, ledger, place.position)).fetchone()
        _check_link(bundle.db, place, None if before is None else _Place(*before), scope, found)


def _check_link(
    db: sqlite3.Connection, place: _Place, before: _Place | None, scope: pb.AuditScope, found: Findings
) -> None:
    if fault := _link_fault(db, place, before, scope):
        found.add(
            Code.SLICE_CHAIN,
            f"slice {place.handle.hex()}: entry {place.seq} {fault}",
            ledger=place.ledger,
            position=place.position,
            node=place.node,
            handle=place.handle,
        )


def _link_fault(db: sqlite3.Connection, place: _Place, before: _Place | None, scope: pb.AuditScope) -> str:
    """What is wrong with an entry as the one after ``before``; empty where nothing is."""
    seq, position = (before.seq, before.position) if before is not None else (0, -1)
    if place.seq <= seq:
        return f"comes after entry {seq}."
    if place.seq == seq + 1:
        expected = before.leaf_hash if before is not None else None
        return "" if place.prev == expected else "does not name the entry before it."
    hidden = db.execute(
        "SELECT 1 FROM entry WHERE leaf IS NULL AND leaf_hash = ? AND ledger = ? AND position > ? AND position < ?",
        (place.prev, place.ledger, position, place.position),
    ).fetchone()
    if hidden is None:
        return f"comes after entry {seq}: those between are missing."
    may_hide = hides_between(scope, before.recorded_at if before is not None else 0, place.recorded_at)
    return "" if may_hide else f"comes after entry {seq}: those between were withheld, though no scope hides them."


def check_erased(bundle: Bundle, found: Findings) -> None:
    """Whatever the bundle says was erased, a leaf says so."""
    rows = bundle.db.execute(
        "SELECT r.statement_id, r.ledger, r.position, r.erased_at, r.rule, e.leaf FROM erased r"
        " LEFT JOIN entry e ON e.ledger = r.ledger AND e.position = r.position ORDER BY r.ledger, r.position"
    )
    for identifier, ledger, position, erased_at, rule, leaf in rows:
        if (identifier, erased_at, rule) not in _erased_by(leaf):
            found.add(
                Code.ERASURE_UNRECORDED,
                f"leaf {position} does not say that statement {identifier.hex()} was erased.",
                ledger=ledger,
                position=position,
                statement=identifier,
            )


def _erased_by(leaf: bytes | None) -> list[tuple[bytes, int, str]]:
    try:
        entry = decode_entry(leaf or b"")
    except MalformedError:
        return []
    told = entry.statements_erased
    return [(each, entry.recorded_at, told.retention_rule) for each in told.statement_ids]

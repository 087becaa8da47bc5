"""A leaf as a row: every event's columns, and nothing that is not a strictly encoded entry of this ledger."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as some

from permslip._pb.permslip.v1 import ledger_pb2, statement_pb2 as pb
from permslip.auditing.bundle_schema import TABLES
from permslip.auditing.entry_rows import EntryRow, entry_row
from permslip.errors import MalformedError

FEDERATION, ROOT = "fed.example", b"r" * 32
ID, GRANT, NODE, HANDLE = b"i" * 32, b"g" * 32, b"n" * 32, b"h" * 16
PLACE: dict[str, Any] = {"slice": pb.Slice(node=NODE, handle=HANDLE), "slice_seq": 2, "slice_prev": b"p" * 32}


def leaf_of(**fields: Any) -> bytes:
    given = {"version": 1, "federation": FEDERATION, "ledger": ROOT, "nonce": bytes(15) + b"1", "recorded_at": 9}
    return ledger_pb2.LogEntry(**{**given, **fields}).SerializeToString(deterministic=True)


def decided(**changes: Any) -> ledger_pb2.AccessDecided:
    given: dict[str, Any] = {
        "query_id": ID,
        "envelope_sha256": ID,
        "requester": pb.Signer(root=b"a" * 32, key=b"b" * 32),
        "grant_id": GRANT,
        "action": pb.ACTION_READ,
        "purpose": pb.PURPOSE_TUTORING,
        "reason": pb.REASON_ALLOWED,
        "decided_at": 7,
        "facts_position": 5,
        "routed_position": 4,
    }
    return ledger_pb2.AccessDecided(**{**given, **changes})


def row_of(leaf: bytes | None) -> EntryRow:
    return entry_row(1, 3, b"d" * 32, leaf, federation=FEDERATION, root=ROOT)


def test_the_columns_are_those_of_the_table() -> None:
    [table] = [each for each in TABLES.split(";") if "CREATE TABLE entry " in each]
    names = [line.split()[0] for line in table.split("(", 1)[1].splitlines() if line.strip() and "PRIMARY" not in line]

    assert tuple(name for name in names if name.islower()) == EntryRow._fields


@pytest.mark.parametrize(
    ("event", "columns"),
    [
        (
            {"access_decided": decided()},
            {
                "query_id": ID,
                "requester": b"a" * 32,
                "grant_id": GRANT,
                "action": "READ",
                "purpose": "TUTORING",
                "reason": "ALLOWED",
                "decided_at": 7,
                "facts_position": 5,
                "routed_position": 4,
            },
        ),
        (
            {
                "access_answered": ledger_pb2.AccessAnswered(
                    query_id=ID, reason=pb.REASON_TIMED_OUT, manifest_sha256=GRANT, sealed_bytes=12
                )
            },
            {"query_id": ID, "reason": "TIMED_OUT", "manifest_sha256": GRANT, "sealed_bytes": 12},
        ),
        (
            {"request_refused": ledger_pb2.RequestRefused(reason=pb.REASON_MALFORMED, method="Admit")},
            {"reason": "MALFORMED"},
        ),
        (
            {
                "statement_recorded": ledger_pb2.StatementRecorded(
                    statement_id=ID, payload_type="x", envelope_sha256=ID, subject=GRANT
                )
            },
            {"statement_id": ID, "subject": GRANT, "payload_type": "x"},
        ),
        ({"ledger_opened": ledger_pb2.LedgerOpened(origin="fed.example/broker")}, {}),
    ],
)
def test_an_event_has_its_columns_and_no_others(event: dict[str, Any], columns: dict[str, Any]) -> None:
    [name] = event
    leaf = leaf_of(**PLACE, **event)

    head = {
        "event": name,
        "recorded_at": 9,
        "node": NODE,
        "handle": HANDLE,
        "slice_seq": 2,
        "slice_prev": b"p" * 32,
    }
    assert row_of(leaf) == EntryRow(1, 3, b"d" * 32, leaf, **{**head, **columns})


@pytest.mark.parametrize("leaf", [None, b""])
def test_a_leaf_that_was_not_given_is_position_and_hash(leaf: bytes | None) -> None:
    assert row_of(leaf) == EntryRow(1, 3, b"d" * 32)


@pytest.mark.parametrize(
    "fields",
    [
        {"federation": "fed.elsewhere"},
        {"ledger": b"x" * 32},
        {"version": 2},
        {"nonce": b"short"},
        {"slice": PLACE["slice"]},
        {"slice_seq": 1},
        {"slice": PLACE["slice"], "slice_seq": 2},
        {"slice": PLACE["slice"], "slice_seq": 1, "slice_prev": bytes(32)},
    ],
)
def test_an_entry_that_cannot_be_of_this_ledger_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        row_of(leaf_of(**{"access_decided": decided(), **fields}))


@given(at=some.integers(0, 2**16), bit=some.integers(0, 7), cut=some.booleans())
def test_an_altered_leaf_is_refused_or_another_leaf(at: int, bit: int, cut: bool) -> None:
    leaf = leaf_of(**PLACE, access_decided=decided())
    at %= len(leaf)
    altered = leaf[:at] if cut else leaf[:at] + bytes([leaf[at] ^ 1 << bit]) + leaf[at + 1 :]
    try:
        row = row_of(altered)
    except MalformedError:
        return
    assert row.leaf == (altered or None)
    assert not cut or at == 0

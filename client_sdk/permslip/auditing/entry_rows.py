"""A ledger's leaf as a row of the bundle's table ``entry``: decoded strictly, or refused.

Rules:

- The row is a function of the leaf's bytes alone, so that whoever holds a bundle can compare.
- A leaf that is absent (erased, or outside the auditor's scope) is a row with position and hash.
- Its federation and ledger must be those that it came for.

Example::

    row = entry_row(1, Position(4), leaf_hash, leaf, federation="grand-bend", root=broker_root)
    row.event, row.reason
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from permslip._pb.permslip.v1 import ledger_pb2, statement_pb2 as pb
from permslip.errors import MalformedError
from permslip.reasons import Reason
from permslip.statements import decode_strictly

__all__ = ["MAX_LEAF_BYTES", "EntryRow", "action_name", "decode_entry", "entry_row", "purpose_name", "row_of"]

MAX_LEAF_BYTES: Final = 65_536

_ACTIONS: Final[dict[int, str]] = {number: name.removeprefix("ACTION_") for name, number in pb.Action.items()}
_PURPOSES: Final[dict[int, str]] = {number: name.removeprefix("PURPOSE_") for name, number in pb.Purpose.items()}
_REASONS: Final[dict[int, str]] = {reason.wire: reason.name for reason in Reason}


class EntryRow(NamedTuple):
    """One row of ``entry``, in the order of its columns; what an event does not have is None."""

    ledger: int
    position: int
    leaf_hash: bytes
    leaf: bytes | None = None
    event: str | None = None
    recorded_at: int | None = None
    node: bytes | None = None
    handle: bytes | None = None
    slice_seq: int | None = None
    slice_prev: bytes | None = None
    query_id: bytes | None = None
    requester: bytes | None = None
    grant_id: bytes | None = None
    action: str | None = None
    purpose: str | None = None
    reason: str | None = None
    decided_at: int | None = None
    facts_position: int | None = None
    routed_position: int | None = None
    statement_id: bytes | None = None
    subject: bytes | None = None
    payload_type: str | None = None
    sealed_bytes: int | None = None
    manifest_sha256: bytes | None = None


_NO_SLICE: Final = (None, None, None, None)


def entry_row(
    ledger: int, position: int, leaf_hash: bytes, leaf: bytes | None, *, federation: str, root: bytes
) -> EntryRow:
    """The row of one leaf.

    Args:
        ledger: the ledger's number in the bundle.
        position: the leaf's, from 0.
        leaf_hash: its hash; that it is the leaf's own is for the caller to check.
        leaf: its bytes, as received; None or empty where they were not given.
        federation: the one that the leaf must name.
        root: the root key of the keeper that the leaf must name.

    Raises:
        MalformedError: not a strictly encoded entry of this ledger.
    """
    if not leaf:
        return EntryRow(ledger, position, leaf_hash)
    entry = decode_entry(leaf)
    if entry.federation != federation or entry.ledger != root:
        raise MalformedError(
            f"expected an entry of the ledger that {root.hex()} keeps in {federation!r}.", field="leaf.ledger"
        )
    return row_of(entry, ledger, position, leaf_hash, leaf)


def decode_entry(leaf: bytes) -> ledger_pb2.LogEntry:
    """A leaf's entry.

    Raises:
        MalformedError: not a strictly encoded one.
    """
    entry = decode_strictly(ledger_pb2.LogEntry, leaf, "leaf", max_bytes=MAX_LEAF_BYTES)
    if entry.version != 1:
        raise MalformedError(
            f"expected version 1, got {entry.version}.", field="leaf.version", remedy="Update this software."
        )
    if entry.HasField("slice") != bool(entry.slice_seq) or bool(entry.slice_prev) != (entry.slice_seq > 1):
        raise MalformedError("expected a number in the chain of its slice, and a link to the one before.", field="leaf")
    return entry


def row_of(entry: ledger_pb2.LogEntry, ledger: int, position: int, leaf_hash: bytes, leaf: bytes) -> EntryRow:
    """The row of an entry that :func:`decode_entry` gave; arguments as for :func:`entry_row`."""
    event = entry.WhichOneof("event") or ""
    where: tuple[Any, ...] = _NO_SLICE
    if entry.slice_seq:
        where = (entry.slice.node, entry.slice.handle, entry.slice_seq, entry.slice_prev or None)
    columns = _COLUMNS.get(event)
    head = (ledger, position, leaf_hash, leaf, event, entry.recorded_at, *where)
    return EntryRow(*head, *(columns(getattr(entry, event)) if columns is not None else ()))


def action_name(number: int) -> str | None:
    """``READ`` for ``ACTION_READ``; None for none."""
    return _ACTIONS.get(number) if number else None


def purpose_name(number: int) -> str | None:
    """``TUTORING`` for ``PURPOSE_TUTORING``; None for none."""
    return _PURPOSES.get(number) if number else None


# The columns from query_id on, by event. An event that is not here has none of them.


def _decided(event: ledger_pb2.AccessDecided) -> tuple[Any, ...]:
    return (
        event.query_id,
        event.requester.root,
        event.grant_id,
        action_name(event.action),
        purpose_name(event.purpose),
        _REASONS.get(event.reason),
        event.decided_at,
        event.facts_position,
        event.routed_position or None,
    )


def _answered(event: ledger_pb2.AccessAnswered) -> tuple[Any, ...]:
    return (
        event.query_id,
        *(None,) * 4,
        _REASONS.get(event.reason),
        *(None,) * 6,
        event.sealed_bytes,
        event.manifest_sha256 or None,
    )


def _refused(event: ledger_pb2.RequestRefused) -> tuple[Any, ...]:
    return (*(None,) * 5, _REASONS.get(event.reason))


def _recorded(event: ledger_pb2.StatementRecorded) -> tuple[Any, ...]:
    return (*(None,) * 9, event.statement_id, event.subject or None, event.payload_type)


_COLUMNS: Final[dict[str, Callable[[Any], tuple[Any, ...]]]] = {
    "access_decided": _decided,
    "access_answered": _answered,
    "request_refused": _refused,
    "statement_recorded": _recorded,
}

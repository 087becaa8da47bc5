"""What is asked of the ledger, and what it answers.

A :class:`Draft` is an entry that has no position yet. Whoever makes it says what the entry is about, which facts it was
decided by, and what else has to be written in the same transaction. A :class:`Recorded` is the same entry on the disk.

Rules for the callbacks, which run in the ledger's own thread while it holds the head's lock:

- They are quick, use only the connection they are given, and neither commit nor roll back.
- They may run again: a database that could not serialize a transaction has it done once more.
- If one raises, its whole call to ``append`` fails with that error and leaves nothing behind; others are untouched.

Example::

    >>> from permslip._pb.permslip.v1.ledger_pb2 import RequestRefused
    >>> draft = Draft("request_refused", RequestRefused(reason=10, method="Deposit"))
    >>> draft.slice is None
    True
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from google.protobuf.message import Message
from sqlalchemy import Connection

from permslip.quantities import Position

__all__ = ["Draft", "Recorded"]


@dataclass(slots=True)
class Draft:
    """An entry to be appended.

    Args:
        event: name of the member of ``LogEntry.event``, e.g. ``"access_decided"``.
        body: that member's message; not to be changed once submitted.
        slice: node root and handle of the slice it is about; gives the entry its number in that slice's chain.
        depends_on: subjects (ids, root keys) by whose facts it was decided.
        facts_position: size of the ledger whose facts were used; ``None`` asks for no check at commit.
        changes: subjects of which something else holds from this entry on.
        write: writes what the entry means into other tables, at the position it gets.
        redo: called where a subject of ``depends_on`` changed at or after ``facts_position``, with the size of the
            ledger then; returns the draft to append instead, decided by the facts of that size. Without it the call
            fails with :class:`~permslip.errors.UnavailableError`.
        evidence: the envelope that the entry names by its id and that no other table keeps (a query, a manifest): an
            auditor decides again by it. Kept beside the leaf, and erased apart from it.
        despite_clock: append it although the clock is far behind the ledger's last leaf, as for the very refusal that
            says so.
    """

    event: str
    body: Message
    slice: tuple[bytes, bytes] | None = None
    depends_on: tuple[bytes, ...] = ()
    facts_position: int | None = None
    changes: tuple[bytes, ...] = ()
    write: Callable[[Connection, Position], None] | None = None
    redo: Callable[[Connection, int], Draft] | None = None
    evidence: bytes = b""
    despite_clock: bool = False


class Recorded(NamedTuple):
    """An entry that is on the disk.

    ``draft`` is the one that was appended: after a ``redo`` not the one that was submitted. ``slice_seq`` is 0 where
    the entry is about no slice. ``recorded_at`` is UTC milliseconds.
    """

    position: Position
    leaf_hash: bytes
    recorded_at: int
    slice_seq: int
    draft: Draft

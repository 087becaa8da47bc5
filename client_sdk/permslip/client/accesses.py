"""Accesses: what the broker's and each school's own ledger say about one's children's data, joined.

An access is one query that was decided about one slice. Two keep a ledger of it, independently: the broker, which
routed or refused it, and the school's node, which released something or refused it. Each ledger's entries about the
slice form a numbered chain (:mod:`permslip.slice_chains`), so nothing in between can be left out, and what one of them
says alone is a finding.

Rules:

- Every entry is proved to be in its keeper's signed checkpoint; what is not proved is an error, not a warning.
- A school whose own count could not be had is said to be one; it is never skipped.
- How the two are joined, and what is a finding, is :mod:`permslip.client.access_joining`.

Example::

    report = await guardian.accesses()
    for access in report.accesses:
        print(access.decided_at, access.requester_name, access.reason.name, access.released)
    print(report.text)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.errors import PermslipError, RefusedError, UnavailableError
from permslip.grant_views import time_text
from permslip.keys import did_text
from permslip.reasons import Reason
from permslip.slice_chains import ChainEntry
from permslip.statements import Signed

__all__ = ["Access", "AccessReport", "LedgerSide", "SliceReport", "hidden_count"]


@dataclass(frozen=True, slots=True)
class LedgerSide:
    """What one ledger says of an access.

    Attributes:
        decided: its keeper's verdict.
        decided_at: the keeper's clock, UTC milliseconds.
        ended: how the answer ended; None while that is not recorded, and where there was none.
        sealed_bytes: how much left: at the school released, at the broker passed on.
        entries: which entries say so.
    """

    decided: Reason
    decided_at: int
    ended: Reason | None
    sealed_bytes: int
    entries: tuple[ChainEntry, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Access:
    """One query about one slice, as both ledgers tell it.

    Attributes:
        query_id: which.
        node, node_name, handle: the slice, and the school's public name.
        requester, requester_name: who asked.
        grant_id: under which consent.
        action, purpose: their names.
        sections: section → verdict: the school's, where it decided.
        broker, school: what each ledger says; None where it says nothing, or could not be had.
        difference: what the two say differently, in words; empty where they agree.
    """

    query_id: bytes
    node: bytes
    node_name: str
    handle: bytes
    requester: bytes
    requester_name: str
    grant_id: bytes
    action: str
    purpose: str
    sections: tuple[tuple[str, Reason], ...]
    broker: LedgerSide | None
    school: LedgerSide | None
    difference: str = ""

    @property
    def reason(self) -> Reason:
        """What came of it: ``ALLOWED``, or the reason of whoever refused it."""
        sides = [each.decided for each in (self.broker, self.school) if each is not None]
        return next((each for each in sides if each != Reason.ALLOWED), Reason.ALLOWED)

    @property
    def refused_by(self) -> str:
        """``broker``, ``school``, or empty where it was allowed."""
        if self.broker is not None and self.broker.decided != Reason.ALLOWED:
            return "broker"
        return "school" if self.reason != Reason.ALLOWED else ""

    @property
    def decided_at(self) -> int:
        """When, UTC milliseconds, by the clock of whoever heard of it first."""
        side = self.broker or self.school
        return side.decided_at if side is not None else 0

    @property
    def ended(self) -> Reason | None:
        """How the answer ended, as the school says, else the broker; None where that is not known."""
        sides = [each.ended for each in (self.school, self.broker) if each is not None and each.ended is not None]
        return sides[0] if sides else None

    @property
    def released(self) -> int | None:
        """Sealed bytes that left the school, as its own ledger says; None where that could not be had."""
        return None if self.school is None or self.school.ended is None else self.school.sealed_bytes

    @property
    def entries(self) -> tuple[ChainEntry, ...]:
        """The entries of both ledgers that say so, each with its proof."""
        return tuple(entry for side in (self.broker, self.school) if side is not None for entry in side.entries)

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        return {
            "decided_at": time_text(self.decided_at) if self.decided_at else "",
            "query_id": self.query_id.hex(),
            "node": did_text(self.node),
            "node_name": self.node_name,
            "handle": self.handle.hex(),
            "requester": did_text(self.requester) if self.requester else "",
            "requester_name": self.requester_name,
            "grant_id": self.grant_id.hex(),
            "action": self.action,
            "purpose": self.purpose,
            "reason": self.reason.name,
            "refused_by": self.refused_by,
            "sections": {path: reason.name for path, reason in self.sections},
            "ended": self.ended.name if self.ended is not None else "",
            "released": self.released,
            "broker": _side(self.broker),
            "school": _side(self.school),
            "difference": self.difference,
        }


@dataclass(frozen=True, slots=True)
class SliceReport:
    """How far the two chains about one slice could be read.

    Attributes:
        node, node_name, handle: the slice.
        broker: entries of the broker's chain, in order.
        broker_tells: False where the broker tells nothing: the caller has no confirmed consent on this slice.
        school: entries of the school's own chain, in order.
        end: the school's signed word on where its chain ends; None where it could not be had.
        error: why the school's own count could not be had, or cannot be believed; None where it was.
        unwitnessed: what the broker's checkpoint lacks of the cosignatures that are demanded; None where nothing.
    """

    node: bytes
    node_name: str
    handle: bytes
    broker: tuple[ChainEntry, ...] = field(default=(), repr=False)
    broker_tells: bool = True
    school: tuple[ChainEntry, ...] = field(default=(), repr=False)
    end: Signed[pb.ChainEnd] | None = None
    error: PermslipError | None = None
    unwitnessed: PermslipError | None = None

    @property
    def is_complete(self) -> bool:
        """Whether both chains were read to their ends."""
        return self.broker_tells and self.error is None

    @property
    def is_false(self) -> bool:
        """Whether what the school's node said cannot be believed; differs from an answer that could not be had."""
        return self.error is not None and not isinstance(self.error, (UnavailableError, RefusedError))

    @property
    def text(self) -> str:
        """The same in plain words."""
        if not self.broker_tells:
            broker = "the broker tells nothing: you have no confirmed consent there"
        else:
            broker = f"the broker's entries 1 to {len(self.broker)}, none missing" if self.broker else "no entry yet"
        if self.error is None:
            school = f"the school's own 1 to {len(self.school)}, none missing" if self.school else "no entry of its own"
        elif self.is_false:
            school = f"WHAT CAME AS THE SCHOOL'S OWN WORD CANNOT BE BELIEVED: {self.error}"
        else:
            school = f"the school's own count could not be had: {self.error}"
        return f"{self.node_name}: {broker}; {school}"

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        return {
            "node": did_text(self.node),
            "node_name": self.node_name,
            "handle": self.handle.hex(),
            "broker_tells": self.broker_tells,
            "broker_entries": len(self.broker),
            "broker_hidden": hidden_count(self.broker),
            "school_entries": len(self.school) if self.error is None else None,
            "school_hidden": hidden_count(self.school) if self.error is None else None,
            "school_ledger_size": self.end.payload.ledger_size if self.end is not None else None,
            "complete": self.is_complete,
            "error": str(self.error) if self.error is not None else "",
            "unwitnessed": str(self.unwitnessed) if self.unwitnessed is not None else "",
        }


@dataclass(frozen=True, slots=True)
class AccessReport:
    """Everything that broker and schools say about accesses to one's slices.

    Attributes:
        accesses: in the order in which they were decided.
        slices: how far each slice's chains could be read.
        certificates: of the broker and the nodes, by which the proofs are verified.
        witnesses: the sets of witnesses that were demanded; empty where none.
    """

    accesses: tuple[Access, ...]
    slices: tuple[SliceReport, ...]
    certificates: tuple[Signed[pb.KeyCert], ...] = field(default=(), repr=False)
    witnesses: tuple[pb.Envelope, ...] = field(default=(), repr=False)

    def __iter__(self) -> Iterator[Access]:
        return iter(self.accesses)

    def __len__(self) -> int:
        return len(self.accesses)

    @property
    def entries(self) -> tuple[ChainEntry, ...]:
        """Every entry of both ledgers, slice by slice, those that are not shown too."""
        return tuple(entry for each in self.slices for entry in (*each.broker, *each.school))

    @property
    def is_complete(self) -> bool:
        """Whether every chain was read to its end."""
        return all(each.is_complete for each in self.slices)

    @property
    def findings(self) -> tuple[str, ...]:
        """What must not be, in words; empty where both ledgers agree and everything is proved."""
        differing = [
            f"{each.node_name}, {time_text(each.decided_at)}, {each.requester_name}: {each.difference}"
            for each in self.accesses
            if each.difference
        ]
        false = [each.text for each in self.slices if each.is_false]
        unwitnessed = [
            f"{each.node_name}: not enough witnesses have cosigned the broker's ledger: {each.unwitnessed}"
            for each in self.slices
            if each.unwitnessed is not None
        ]
        return (*differing, *false, *unwitnessed)

    @property
    def text(self) -> str:
        """How complete it is, and what was found, in plain words."""
        lines = [each.text for each in self.slices] or ["No school is linked, and no consent was given."]
        return "\n".join([*lines, *(f"FOUND: {each}" for each in self.findings)])

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        return {
            "accesses": [each.to_dict() for each in self.accesses],
            "slices": [each.to_dict() for each in self.slices],
            "complete": self.is_complete,
            "findings": list(self.findings),
        }


def hidden_count(entries: Sequence[ChainEntry]) -> int:
    """How many entries of a chain are not shown."""
    return sum(each.entry is None for each in entries)


def _side(side: LedgerSide | None) -> dict[str, Any] | None:
    if side is None:
        return None
    return {
        "decided": side.decided.name,
        "decided_at": time_text(side.decided_at),
        "ended": side.ended.name if side.ended is not None else "",
        "sealed_bytes": side.sealed_bytes,
        "entries": [each.seq for each in side.entries],
    }

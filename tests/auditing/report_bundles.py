"""Bundles whose rows a test writes by hand: what a report shows, without ledgers, keys or servers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from permslip.auditing.bundle import Bundle
from permslip.auditing.codes import Code
from permslip.auditing.entry_rows import EntryRow
from permslip.auditing.finding import Severity
from permslip.keys import SigningKey, did_text

__all__ = ["DAY", "GRANT", "REVOCATION", "SCHOOL", "START", "STEPS", "HandMade", "key", "some_id"]

START: Final = 1_792_000_000_000
DAY: Final = 86_400_000
STEPS: Final = ("verify", "replay", "reconcile")
GRANT: Final = "application/vnd.permslip.grant.v1+protobuf"
REVOCATION: Final = "application/vnd.permslip.revocation.v1+protobuf"
SCHOOL: Final = "Grand Bend ISD"


def key(name: str) -> bytes:
    """A root key, the same for the same name."""
    return SigningKey.from_seed(hashlib.sha256(name.encode()).digest()).public.raw


def some_id(*parts: object) -> bytes:
    """32 bytes, the same for the same parts."""
    return hashlib.sha256(repr(parts).encode()).digest()


class HandMade:
    """A bundle that is filled row by row; ledger 1 is the broker's, ledger 2 a school's."""

    def __init__(self, path: Path, *, federation: str = "fed.example") -> None:
        meta = {
            "federation": federation,
            "broker_root": did_text(key("broker")),
            "operator": did_text(key("operator")),
            "auditor": did_text(key("auditor")),
            "visits": "1",
        }
        self.bundle = Bundle.create(path, meta)
        self._next: dict[int, int] = {}

    def ledgers(self, *, school: str = SCHOOL) -> HandMade:
        """The broker's ledger and a school's."""
        self.bundle.add_ledger(key("broker"), kind="broker", name="Broker", origin="fed.example/broker")
        self.bundle.add_ledger(key("school"), kind="node", name=school, origin="fed.example/node/1")
        self.bundle.add_organization(key("school"), school, "node")
        return self

    def provider(self, name: str) -> bytes:
        """An admitted provider; its root."""
        self.bundle.add_organization(key(name), name, "provider")
        return key(name)

    def add(self, ledger: int, event: str | None, **columns: Any) -> int:
        """One entry; its position."""
        position = self._next.get(ledger, 0)
        self._next[ledger] = position + 1
        row = EntryRow(ledger, position, some_id(ledger, position), b"leaf" if event else None, event)
        with self.bundle.transaction():
            self.bundle.add_entries([row._replace(**columns)])
        return position

    def access(
        self,
        name: object,
        *,
        at: int = START,
        requester: bytes = b"",
        broker: str = "ALLOWED",
        school: str | None = "ALLOWED",
        purpose: str | None = "TUTORING",
        grant: bytes = b"g" * 32,
        learner: object = "learner",
    ) -> None:
        """One access, as the broker and (unless ``school`` is None or the broker refused) the school logged it."""
        decided = {
            "recorded_at": at,
            "decided_at": at,
            "node": key("school"),
            "handle": some_id("handle", learner)[:16],
            "query_id": some_id("query", name),
            "requester": requester or key("somebody"),
            "grant_id": grant,
            "action": "READ",
            "purpose": purpose,
        }
        self.add(1, "access_decided", reason=broker, **decided)
        if broker == "ALLOWED" and school is not None:
            self.add(2, "access_decided", reason=school, **decided)

    def granted(self, grant: bytes, *, revoked_at: int) -> None:
        """A grant and its revocation, recorded by the broker."""
        self.add(1, "statement_recorded", recorded_at=START, statement_id=grant, payload_type=GRANT)
        self.add(
            1,
            "statement_recorded",
            recorded_at=revoked_at,
            statement_id=some_id("revocation", grant),
            subject=grant,
            payload_type=REVOCATION,
        )

    def checked(self, *steps: str) -> HandMade:
        """Steps that were made and found nothing; all three unless they are named."""
        for step in steps or STEPS:
            self.found(step, ())
        return self

    def found(self, step: str, codes: Iterable[tuple[Code, Severity]], message: str = "something differs.") -> None:
        """A step that was made, and what it found."""
        with self.bundle.findings(step) as findings:
            findings.count("entries", 3)
            for code, severity in codes:
                findings.add(code, message, ledger=1, position=7, severity=severity)

"""The evidence of one ledger: statements believed or reported, and what is said where some are gone.

Example::

    evidence.position = 17
    signed = evidence.believed(st.GRANT, body.statement_id, body.envelope_sha256, raw)
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from google.protobuf.message import DecodeError

from permslip import statements as st
from permslip._pb.permslip.v1 import ledger_pb2, statement_pb2 as pb
from permslip.auditing.bundle import Bundle, LedgerRow
from permslip.auditing.bundle_facts import Lost
from permslip.auditing.codes import Code
from permslip.auditing.finding import Findings, Severity, utc_text
from permslip.auditing.results import Trust
from permslip.dsse import SignedCache
from permslip.errors import KeyRejectedError, MalformedError, SignatureError
from permslip.statements import Signed

__all__ = ["Evidence"]


class Evidence:
    """Believes statements of one ledger, and tells what is wrong with it.

    Args:
        bundle: where they are.
        trust: names the federation.
        found: takes what is wrong.
        ledger: whose entries name them.
        cache: signatures that were verified before.

    Attributes:
        position: of the entry that is looked at.
    """

    def __init__(self, bundle: Bundle, trust: Trust, found: Findings, ledger: LedgerRow, *, cache: SignedCache) -> None:
        self._bundle, self._trust, self.found = bundle, trust, found
        self._ledger, self._cache = ledger, cache
        self.position = 0

    def fault(self, code: Code, message: str, *, severity: Severity = "fault", **details: Any) -> None:
        """Something is wrong with the entry that is looked at."""
        self.found.add(code, message, ledger=self._ledger.ledger, position=self.position, severity=severity, **details)

    def believed(self, kind: st.Kind[Any], identifier: bytes, digest: bytes, raw: bytes) -> Signed[Any] | None:
        """A statement, verified strictly; None where it was reported.

        Args:
            kind: as what the entry names it.
            identifier: as the entry names it.
            digest: of the envelope, as the entry names it.
            raw: the envelope.
        """
        try:
            envelope = pb.Envelope.FromString(raw)
            signed = st.verify(kind, envelope, federation=self._trust.federation, cache=self._cache)
        except (SignatureError, KeyRejectedError) as error:
            self.fault(Code.STATEMENT_SIGNATURE, f"the {kind.name} is not genuine: {error.message}", id=identifier)
            return None
        except MalformedError as error:
            self.fault(Code.STATEMENT_MALFORMED, f"the {kind.name} does not hold: {error.message}", id=identifier)
            return None
        except DecodeError:
            self.fault(Code.STATEMENT_MALFORMED, f"expected the envelope of a {kind.name}.", id=identifier)
            return None
        if signed.id != identifier:
            self.fault(
                Code.STATEMENT_ID,
                f"the entry names {identifier.hex()}, the {kind.name} that was given for it is {signed.id.hex()}.",
            )
            return None
        if sha256(raw).digest() != digest:
            # A bundle keeps one envelope of each statement, and a requester can sign the same query twice.
            self.fault(
                Code.ENVELOPE_DIGEST,
                f"the entry names the envelope {digest.hex()} of the {kind.name}, another one was given.",
                severity="warning" if kind is st.QUERY else "fault",
                id=identifier,
            )
        return signed

    def missing(self, kind: st.Kind[Any], identifier: bytes) -> int | None:
        """A statement is not there: says so, and returns when it was erased; None where nothing says that it was."""
        erased_at = self._bundle.erased_at(identifier)
        if erased_at is None:
            self.fault(Code.STATEMENT_MISSING, f"the {kind.name} was neither given nor erased.", id=identifier)
        else:
            self._note_erased(erased_at, f"the {kind.name}.", id=identifier)
        return erased_at

    def note_lost(self, lost: Lost, what: str) -> None:
        """Something cannot be checked, because evidence is gone."""
        if lost.erased_at is None:
            self.fault(
                Code.DECISION_UNCHECKED,
                f"cannot check {what}: the {lost.kind} of {lost.subject.hex()} is missing.",
                subject=lost.subject,
            )
        else:
            self._note_erased(
                lost.erased_at, f"{what} rests on the {lost.kind} of {lost.subject.hex()}.", subject=lost.subject
            )

    def check_place(self, entry: ledger_pb2.LogEntry, place: tuple[bytes, bytes] | None) -> None:
        """An entry about a slice stands in that slice's chain.

        Args:
            entry: any.
            place: node root and handle of what it is about; None where that is not known.
        """
        given = (entry.slice.node, entry.slice.handle) if entry.slice_seq else None
        if place is None or given == place:
            return
        where = "in no slice's chain" if given is None else f"in that of slice {given[1].hex()}"
        self.fault(
            Code.SLICE_DIFFERS,
            f"the entry is about slice {place[1].hex()} and stands {where}: who follows the chain does not see it.",
            node=place[0],
            handle=place[1],
        )

    def _note_erased(self, erased_at: int, what: str, **details: Any) -> None:
        self.found.count("erased")
        message = f"evidence erased on {utc_text(erased_at)[:10]}: {what}"
        self.fault(Code.EVIDENCE_ERASED, message, severity="note", erased_at=erased_at, **details)

"""May a ledger have recorded this statement at this position? The auditor's answer, by the same rules as the keeper's.

Rules:

- A broker recorded what :func:`permslip.admissible.check_admissible` allowed by its clock. The ledger says only when
  the entry was committed; the check came up to a minute before.
- A node judges what it is pushed by the time at which it was made, as the broker did that judged it first.
- A node records grants that come with a revocation or delegation without a look at their dates and at what they
  supersede: a grant without endorsement opens nothing.
- A node's own words (endorsements, acknowledgements) may be signed with a key whose certificate was not pushed to it
  yet: there it is enough that its root certified the key somewhere in the bundle. The broker's ledger is held to the
  current key.

Example::

    judge = Judge(bundle, trust, facts, root=node_root, is_broker=False, cache=cache)
    judge.check(signed, recorded_at=entry.recorded_at, push_number=7)
"""

from __future__ import annotations

from typing import Any, Final

from permslip import statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.admissible import check_admissible
from permslip.auditing.bundle import Bundle
from permslip.auditing.results import Trust
from permslip.capabilities import FactReader, chain_of
from permslip.decision import MAX_CLOCK_SKEW
from permslip.dsse import SignedCache
from permslip.errors import AuthorityError, MalformedError, PermslipError
from permslip.grants import check_delegation, check_endorsement, check_grant, delegation_terms, grant_terms, narrow
from permslip.quantities import Millis
from permslip.reasons import Reason
from permslip.statements import Signed

__all__ = ["Judge", "needs_of", "place_of", "subject_of"]

_DEAD: Final = (Reason.GRANT_REVOKED, Reason.DELEGATION_REVOKED)


def subject_of(signed: Signed[Any]) -> bytes:
    """What an entry that records this statement must name as its subject; empty for a grant."""
    payload = signed.payload
    if signed.kind is st.ENDORSEMENT:
        return bytes(payload.grant_id)
    if signed.kind in (st.REVOCATION, st.ACKNOWLEDGEMENT):
        return bytes(payload.target_id)
    if signed.kind is st.DELEGATION:
        return bytes(payload.parent_id)
    return b"" if signed.kind is st.GRANT else bytes(payload.root)


def place_of(reader: FactReader, signed: Signed[Any]) -> tuple[bytes, bytes] | None:
    """Node root and handle of the slice that a statement is about; None where it is about none that is known."""
    if signed.kind is st.GRANT:
        return signed.payload.slice.node, signed.payload.slice.handle
    if signed.kind not in (st.ENDORSEMENT, st.DELEGATION, st.REVOCATION, st.ACKNOWLEDGEMENT):
        return None
    subject = subject_of(signed)
    capability = reader.capability(subject)
    if capability is None and (delegated := reader.delegated(subject)) is not None:
        capability = reader.capability(delegated.grant_id)
    if capability is None:
        return None
    place = capability.grant.payload.slice
    return place.node, place.handle


def needs_of(signed: Signed[Any]) -> tuple[bytes, ...]:
    """The subjects whose facts decide whether a statement is admissible."""
    payload = signed.payload
    if signed.kind is st.GRANT:
        return (payload.slice.node, *payload.supersedes)
    subject = subject_of(signed)
    return (subject,) if signed.kind is st.KEY_CERT else (subject, payload.signer.root)


class Judge:
    """Judges the statements of one ledger.

    Args:
        bundle: where certificates are looked for.
        trust: whose word counts.
        reader: the facts before each statement.
        root: of the ledger's keeper.
        is_broker: whose ledger it is.
        cache: signatures that were verified before.
    """

    def __init__(
        self,
        bundle: Bundle,
        trust: Trust,
        reader: FactReader,
        *,
        root: bytes,
        is_broker: bool,
        cache: SignedCache,
    ) -> None:
        self._bundle, self._trust, self._reader = bundle, trust, reader
        self._root, self._is_broker, self._cache = root, is_broker, cache
        self._own_keys: frozenset[bytes] | None = None

    def check(self, signed: Signed[Any], *, recorded_at: int, push_number: int = 0) -> None:
        """Check that it was admissible.

        Args:
            signed: verified.
            recorded_at: the entry's time.
            push_number: as the entry names it.

        Raises:
            PermslipError: as :func:`permslip.admissible.check_admissible`.
        """
        if self._is_broker:
            self._check_at(signed, recorded_at)
        elif signed.kind is st.GRANT:
            self._check_own_grant(signed)
        elif signed.kind is st.ENDORSEMENT:
            self._check_own_endorsement(signed)
        elif signed.kind is st.ACKNOWLEDGEMENT:
            self._check_own_acknowledgement(signed)
        else:
            self._check_push(signed, min(recorded_at, signed.payload.created_at), push_number)

    def _check_at(self, signed: Signed[Any], recorded_at: int) -> None:
        operator = self._trust.operator
        try:
            check_admissible(self._reader, signed, operator=operator, now=Millis(recorded_at))
        except PermslipError:
            # What ended in the moment between check and commit was still good at the check.
            try:
                check_admissible(self._reader, signed, operator=operator, now=Millis(recorded_at - MAX_CLOCK_SKEW))
            except PermslipError as error:
                raise error from None

    def _check_push(self, signed: Signed[Any], at: int, push_number: int) -> None:
        if signed.kind is st.REVOCATION and signed.payload.node != self._root:
            raise AuthorityError("revocation: it is meant for another node.")
        try:
            check_admissible(self._reader, signed, operator=self._trust.operator, now=Millis(at))
        except AuthorityError:
            if signed.kind is not st.DELEGATION or push_number:
                raise
            # It came in the chain of another statement: its giver's key was current when the broker took it.
            self._check_chained(signed)

    def _check_chained(self, signed: Signed[pb.Delegation]) -> None:
        payload = signed.payload
        check_delegation(payload)
        capability = self._reader.capability(payload.parent_id)
        if capability is not None:
            parent = grant_terms(capability.grant.payload)
        else:
            parent = delegation_terms(chain_of(self._reader, payload.parent_id)[-1].payload)
        if payload.signer.root != parent.party:
            raise AuthorityError("delegation: the signer does not hold what it passes on.")
        narrow(parent, delegation_terms(payload))

    def _check_own_grant(self, signed: Signed[pb.Grant]) -> None:
        check_grant(signed.payload)
        if signed.payload.slice.node != self._root:
            raise AuthorityError("grant: it is another node's.")

    def _check_own_endorsement(self, signed: Signed[pb.Endorsement]) -> None:
        capability = self._reader.capability(signed.payload.grant_id)
        if capability is None:
            raise MalformedError("names a grant that is not known here.", field="endorsement.grant_id")
        check_endorsement(signed, capability.grant)
        self._check_own_key(signed)
        last = capability.endorsement
        if last is not None and signed.payload.created_at <= last.payload.created_at:
            raise MalformedError("expected one newer than the last.", field="endorsement.created_at")

    def _check_own_acknowledgement(self, signed: Signed[pb.Acknowledgement]) -> None:
        self._check_own_key(signed)
        target = signed.payload.target_id
        known = self._reader.capability(target) or self._reader.delegated(target)
        if known is None or known.ended not in _DEAD:
            raise MalformedError("names what was not revoked.", field="acknowledgement.target_id")

    def _check_own_key(self, signed: Signed[Any]) -> None:
        signer = signed.payload.signer
        if signer.root != self._root:
            raise AuthorityError(f"{signed.kind.name}: not by the node whose ledger this is.")
        if self._own_keys is None:
            self._own_keys = self._certified()
        if signer.key not in self._own_keys:
            raise AuthorityError(f"{signed.kind.name}: signed with a key that the node's root never certified.")

    def _certified(self) -> frozenset[bytes]:
        """Every key that this ledger's root certified, as far as the bundle knows."""
        rows = self._bundle.db.execute(
            "SELECT envelope FROM statement WHERE kind = ? AND signer = ?", (st.KEY_CERT.name, self._root)
        )
        keys: set[bytes] = set()
        for (raw,) in rows:
            try:
                envelope = st.parse_envelope(raw)
                cert = st.verify(st.KEY_CERT, envelope, federation=self._trust.federation, cache=self._cache)
            except PermslipError:
                continue
            if cert.payload.root == self._root:
                keys.add(cert.payload.signing_key)
        return frozenset(keys)

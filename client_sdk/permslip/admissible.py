"""What may be recorded: is this a guardian who may revoke this, is this endorsement newer than the last?

Rules:

- What was once recorded is never undone by something older: an admission, suspension, certificate or endorsement
  counts only when it is newer than the last one of its kind. So nobody gains by replaying an old one.
- What is dead is not endorsed any more.
- Only the node that a grant names acknowledges the grant's revocation.
- A signer is a person (root and key are the same, and nobody admitted it) or an organization that signs with the key
  of its current certificate.

Example::

    signed = verify(REVOCATION, envelope, federation="fed.example")
    check_admissible(facts, signed, operator=operator_key, now=now)
"""

from __future__ import annotations

from typing import Any, Final

from permslip import statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.capabilities import Capability, FactReader, chain_of
from permslip.decision import MAX_CLOCK_SKEW
from permslip.errors import AuthorityError, MalformedError
from permslip.grants import (
    check_delegation,
    check_endorsement,
    check_grant,
    check_revocation,
    delegation_terms,
    grant_terms,
    narrow,
)
from permslip.quantities import Millis
from permslip.reasons import Reason
from permslip.standing import check_key_cert, key_reason
from permslip.statements import Signed

__all__ = ["check_admissible"]


def check_admissible(reader: FactReader, signed: Signed[Any], *, operator: bytes, now: Millis) -> None:
    """Whether a verified statement may be recorded.

    Args:
        reader: the facts before it.
        signed: one of :data:`permslip.facts.RECORDED_KINDS`.
        operator: the pinned key of the federation's operator.
        now: the recorder's clock. A node that takes a push gives the time at which the statement was made, if that is
            earlier: the broker judged it then, and however late it comes the node must be able to hold it.

    Raises:
        MalformedError: a field does not hold, is out of date, or names something unknown.
        AuthorityError: the signer may not state this.
        AttenuationError: a delegation widens.
        KeyRejectedError: a certificate certifies its own root.
    """
    if signed.kind is not st.REVOCATION:
        _not_from_future(signed, now)
    if signed.kind in (st.ADMISSION, st.SUSPENSION):
        _by_operator(reader, signed, operator)
        return
    check = _ADMISSIBLE.get(signed.kind)
    if check is None:
        raise MalformedError(f"a {signed.kind.name} is not recorded here.", field="envelope.payload_type")
    check(reader, signed, now)


def _by_operator(reader: FactReader, signed: Signed[Any], operator: bytes) -> None:
    payload, name = signed.payload, signed.kind.name
    if payload.signer.key != operator or payload.signer.root != operator:
        raise AuthorityError(f"{name}: not by this federation's operator.", remedy="Sign with the operator's key.")
    known = reader.standing(payload.root)
    for earlier in (known.admission, known.suspension) if known is not None else ():
        if earlier is not None and payload.created_at <= earlier.payload.created_at:
            raise MalformedError("expected one newer than the last.", field=f"{name}.created_at")


def _key_cert(reader: FactReader, signed: Signed[pb.KeyCert], now: Millis) -> None:
    check_key_cert(signed.payload)
    known = reader.standing(signed.payload.root)
    if known is None or known.admission is None:
        raise AuthorityError(
            "key-cert: its root is not admitted.", remedy="Ask the federation's operator for admission."
        )
    if known.cert is not None and signed.payload.seq <= known.cert.payload.seq:
        raise MalformedError("expected a number higher than the last certificate's.", field="key-cert.seq")


def _grant(reader: FactReader, signed: Signed[pb.Grant], now: Millis) -> None:
    check_grant(signed.payload)
    if signed.payload.expires_at <= now:
        raise MalformedError("expected an end in the future.", field="grant.expires_at")
    node = reader.standing(signed.payload.slice.node)
    if node is None or node.admission is None or node.admission.payload.kind != pb.PRINCIPAL_KIND_NODE:
        raise MalformedError("names a node that was never admitted.", field="grant.slice.node")
    for number, identifier in enumerate(signed.payload.supersedes):
        earlier = reader.capability(identifier)
        if earlier is None or earlier.grant.payload.slice != signed.payload.slice:
            raise MalformedError("expected a known grant on the same slice.", field=f"grant.supersedes[{number}]")


def _endorsement(reader: FactReader, signed: Signed[pb.Endorsement], now: Millis) -> None:
    capability = reader.capability(signed.payload.grant_id)
    if capability is None:
        raise MalformedError("names a grant that is not known here.", field="endorsement.grant_id")
    check_endorsement(signed, capability.grant)
    _current_key(reader, signed, now)
    last = capability.endorsement
    if last is not None and signed.payload.created_at <= last.payload.created_at:
        raise MalformedError("expected one newer than the last.", field="endorsement.created_at")
    if capability.ended != Reason.ALLOWED and signed.payload.verdict == pb.ENDORSEMENT_VERDICT_ENDORSED:
        raise MalformedError("names a grant that has ended.", field="endorsement.grant_id")


def _delegation(reader: FactReader, signed: Signed[pb.Delegation], now: Millis) -> None:
    payload = signed.payload
    check_delegation(payload)
    _current_key(reader, signed, now)
    capability = reader.capability(payload.parent_id)
    if capability is not None:
        parent = grant_terms(capability.grant.payload)
    else:
        parent = delegation_terms(chain_of(reader, payload.parent_id)[-1].payload)
    if payload.signer.root != parent.party:
        raise AuthorityError("delegation: the signer does not hold what it passes on.")
    narrow(parent, delegation_terms(payload))


def _revocation(reader: FactReader, signed: Signed[pb.Revocation], now: Millis) -> None:
    payload = signed.payload
    capability, chain = _target(reader, payload.target_id, "revocation.target_id")
    check_revocation(signed, capability.grant, capability.approval, chain)
    if payload.signer.root != payload.signer.key:
        _current_key(reader, signed, now)
    elif (standing := reader.standing(payload.signer.root)) is not None and standing.admission is not None:
        raise AuthorityError("revocation: an organization signs with its online key.")


def _acknowledgement(reader: FactReader, signed: Signed[pb.Acknowledgement], now: Millis) -> None:
    payload = signed.payload
    standing = reader.standing(payload.signer.root)
    if standing is None or standing.admission is None or standing.admission.payload.kind != pb.PRINCIPAL_KIND_NODE:
        raise AuthorityError("acknowledgement: not by an admitted node.")
    _current_key(reader, signed, now)
    # Nearly always a grant, which was just read to be revoked: asked for first, it costs nothing.
    suspended = reader.standing(payload.target_id) if reader.capability(payload.target_id) is None else None
    if suspended is not None:
        if suspended.suspension is None or suspended.suspension.id != payload.statement_id:
            raise MalformedError("names no suspension in force.", field="acknowledgement.statement_id")
        return
    capability, chain = _target(reader, payload.target_id, "acknowledgement.target_id")
    if payload.signer.root != capability.grant.payload.slice.node:
        raise AuthorityError("acknowledgement: not by the node that must act on it.")
    delegated = reader.delegated(payload.target_id) if chain else None
    if (capability if delegated is None else delegated).ended not in _REVOKED:
        raise MalformedError("names what was not revoked.", field="acknowledgement.target_id")


_REVOKED: Final = frozenset({Reason.GRANT_REVOKED, Reason.DELEGATION_REVOKED})


def _target(reader: FactReader, target_id: bytes, field: str) -> tuple[Capability, tuple[Signed[pb.Delegation], ...]]:
    """The grant that is named, or from which the delegation that is named comes, with the chain down to it."""
    capability = reader.capability(target_id)
    if capability is not None:
        return capability, ()
    delegated = reader.delegated(target_id)
    capability = reader.capability(delegated.grant_id) if delegated is not None else None
    if capability is None:
        raise MalformedError("names a grant or delegation that is not known here.", field=field)
    return capability, chain_of(reader, target_id)


def _current_key(reader: FactReader, signed: Signed[Any], now: Millis) -> None:
    signer = signed.payload.signer
    reason = key_reason(reader.standing(signer.root), signer, now)
    if reason != Reason.ALLOWED:
        raise AuthorityError(f"{signed.kind.name}: {reason.meaning}", remedy=reason.remedy)


def _not_from_future(signed: Signed[Any], now: Millis) -> None:
    # A statement dated ahead would block every later one of its kind until that date.
    if signed.payload.created_at > now + MAX_CLOCK_SKEW:
        raise MalformedError(
            "is dated more than a minute ahead.",
            field=f"{signed.kind.name}.created_at",
            remedy="Set the signing machine's clock.",
        )


_ADMISSIBLE: Final[dict[st.Kind[Any], Any]] = {
    st.KEY_CERT: _key_cert,
    st.GRANT: _grant,
    st.ENDORSEMENT: _endorsement,
    st.DELEGATION: _delegation,
    st.REVOCATION: _revocation,
    st.ACKNOWLEDGEMENT: _acknowledgement,
}

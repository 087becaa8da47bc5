"""What counts: how recorded statements become the facts of a decision.

A broker, a node and a replaying auditor each record statements in the order of a ledger. :func:`check_admissible` says
whether a statement may be recorded (is this a guardian who may revoke this? is this endorsement newer than the last?);
recording changes the facts; :func:`gather` collects the facts for one query. Stores differ (memory here, SQL in
:mod:`permslip.hosting.facts_store`), the rules do not: both pass the same conformance suite.

Rules:

- What was once recorded is never undone by something older: an admission, suspension, certificate or endorsement
  counts only when it is newer than the last one of its kind. So nobody gains by replaying an old one.
- A revocation is final. So is being superseded.
- A grant supersedes others from the position at which it is endorsed, not before.

Example::

    facts = MemoryFacts()
    check_admissible(facts, signed, operator=operator_key, now=now)
    facts.record(signed)
    decision = decide(gather(facts, query), query, now=now)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, cast

from permslip import statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.decision import Facts
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
from permslip.standing import Standing, check_key_cert, key_reason
from permslip.statements import Signed

__all__ = [
    "RECORDED_KINDS",
    "Capability",
    "Delegated",
    "FactReader",
    "MemoryFacts",
    "chain_of",
    "check_admissible",
    "depends_on",
    "gather",
    "subjects",
]

# The statements that change facts, and that broker and node therefore record.
RECORDED_KINDS: Final[tuple[st.Kind[Any], ...]] = (
    st.GRANT,
    st.ENDORSEMENT,
    st.DELEGATION,
    st.REVOCATION,
    st.ACKNOWLEDGEMENT,
    st.KEY_CERT,
    st.ADMISSION,
    st.SUSPENSION,
)


@dataclass(frozen=True, slots=True)
class Capability:
    """A grant with what has become of it.

    Attributes:
        grant: as deposited.
        endorsement: the node's latest word.
        approval: the node's latest approval, also when the latest word is a refusal: it names who may revoke.
        ended: ``GRANT_REVOKED``, ``GRANT_SUPERSEDED``, or ``ALLOWED`` while it lives.
    """

    grant: Signed[pb.Grant]
    endorsement: Signed[pb.Endorsement] | None = None
    approval: Signed[pb.Endorsement] | None = None
    ended: Reason = Reason.ALLOWED


@dataclass(frozen=True, slots=True)
class Delegated:
    """A delegation, the grant it comes from, and whether it lives."""

    delegation: Signed[pb.Delegation]
    grant_id: bytes
    ended: Reason = Reason.ALLOWED


class FactReader(Protocol):
    """Facts as of one ledger position.

    Promises: the three reads see the same position; what they return is verified and immutable. Does not promise: that
    the position is the newest (a commit rechecks it).
    """

    @property
    def position(self) -> int:
        """Ledger size whose facts these are."""
        ...

    def capability(self, grant_id: bytes) -> Capability | None:
        """The grant with this id."""
        ...

    def delegated(self, delegation_id: bytes) -> Delegated | None:
        """The delegation with this id."""
        ...

    def standing(self, root: bytes) -> Standing | None:
        """The organization with this root."""
        ...


def gather(
    reader: FactReader,
    query: Signed[pb.Query],
    *,
    seen: bool = False,
    uses: tuple[int, ...] | None = None,
    use_cost: int = 1,
    unfit: Reason = Reason.ALLOWED,
    withheld: frozenset[str] = frozenset(),
) -> Facts:
    """Collect the facts for one query.

    Args:
        reader: where they stand.
        query: verified.
        seen, uses, use_cost, unfit, withheld: what only the caller knows; see :class:`permslip.decision.Facts`.
    """
    payload = query.payload
    capability = reader.capability(payload.grant_id)
    delegated = [reader.delegated(each) for each in payload.delegation_ids]
    ended: dict[bytes, Reason] = {}
    roots = {payload.signer.root}
    if capability is not None:
        roots.add(capability.grant.payload.slice.node)
        if capability.ended != Reason.ALLOWED:
            ended[capability.grant.id] = capability.ended
    for each in delegated:
        if each is not None:
            roots.add(each.delegation.payload.signer.root)
            if each.ended != Reason.ALLOWED:
                ended[each.delegation.id] = each.ended
    standings = {root: standing for root in roots if (standing := reader.standing(root)) is not None}
    return Facts(
        position=reader.position,
        grant=capability.grant if capability is not None else None,
        delegations=tuple(each.delegation if each is not None else None for each in delegated),
        endorsement=capability.endorsement if capability is not None else None,
        ended=ended,
        standings=standings,
        seen=seen,
        uses=uses,
        use_cost=use_cost,
        unfit=unfit,
        withheld=withheld,
    )


def depends_on(facts: Facts, query: Signed[pb.Query]) -> tuple[bytes, ...]:
    """The subjects whose change would make a decision on these facts stale; compare :func:`subjects`."""
    return (query.payload.grant_id, *query.payload.delegation_ids, *facts.standings)


def subjects(signed: Signed[Any]) -> tuple[bytes, ...]:
    """The subjects that recording a statement changes: ids of grants and delegations, roots of organizations."""
    payload = signed.payload
    if signed.kind is st.GRANT:
        return (signed.id, *payload.supersedes)
    if signed.kind is st.DELEGATION:
        return (signed.id,)
    if signed.kind is st.ENDORSEMENT:
        return (payload.grant_id,)
    if signed.kind is st.REVOCATION:
        return (payload.target_id,)
    if signed.kind in (st.KEY_CERT, st.ADMISSION, st.SUSPENSION):
        return (payload.root,)
    return ()


def check_admissible(reader: FactReader, signed: Signed[Any], *, operator: bytes, now: Millis) -> None:
    """Whether a verified statement may be recorded.

    Args:
        reader: the facts before it.
        signed: one of :data:`RECORDED_KINDS`.
        operator: the pinned key of the federation's operator.
        now: the recorder's clock.

    Raises:
        MalformedError: a field does not hold, is out of date, or names something unknown.
        AuthorityError: the signer may not state this.
        AttenuationError: a delegation widens.
        KeyRejectedError: a certificate certifies its own root.
    """
    if signed.kind in (st.ADMISSION, st.SUSPENSION):
        _by_operator(reader, signed, operator, now)
        return
    check = _ADMISSIBLE.get(signed.kind)
    if check is None:
        raise MalformedError(f"a {signed.kind.name} is not recorded here.", field="envelope.payload_type")
    check(reader, signed, now)


def chain_of(reader: FactReader, delegation_id: bytes) -> tuple[Signed[pb.Delegation], ...]:
    """The delegations from a grant down to this one, in order.

    Raises:
        MalformedError: it, or one above it, is not known.
    """
    chain: list[Signed[pb.Delegation]] = []
    while True:
        each = reader.delegated(delegation_id)
        if each is None:
            raise MalformedError("names a delegation that is not known here.", field="delegation.parent_id")
        chain.insert(0, each.delegation)
        delegation_id = each.delegation.payload.parent_id
        if delegation_id == each.grant_id:
            return tuple(chain)


def _by_operator(reader: FactReader, signed: Signed[Any], operator: bytes, now: Millis) -> None:
    payload, name = signed.payload, signed.kind.name
    if payload.signer.key != operator or payload.signer.root != operator:
        raise AuthorityError(f"{name}: not by this federation's operator.", remedy="Sign with the operator's key.")
    _not_from_future(signed, now)
    known = reader.standing(payload.root)
    for earlier in (known.admission, known.suspension) if known is not None else ():
        if earlier is not None and payload.created_at <= earlier.payload.created_at:
            raise MalformedError("expected one newer than the last.", field=f"{name}.created_at")


def _key_cert(reader: FactReader, signed: Signed[pb.KeyCert], now: Millis) -> None:
    check_key_cert(signed.payload)
    _not_from_future(signed, now)
    known = reader.standing(signed.payload.root)
    if known is None or known.admission is None:
        raise AuthorityError(
            "key-cert: its root is not admitted.", remedy="Ask the federation's operator for admission."
        )
    if known.cert is not None and signed.payload.seq <= known.cert.payload.seq:
        raise MalformedError("expected a number higher than the last certificate's.", field="key-cert.seq")


def _grant(reader: FactReader, signed: Signed[pb.Grant], now: Millis) -> None:
    check_grant(signed.payload)
    _not_from_future(signed, now)
    if signed.payload.expires_at <= now:
        raise MalformedError("expected an end in the future.", field="grant.expires_at")
    for number, identifier in enumerate(signed.payload.supersedes):
        earlier = reader.capability(identifier)
        if earlier is None or earlier.grant.payload.slice != signed.payload.slice:
            raise MalformedError("expected a known grant on the same slice.", field=f"grant.supersedes[{number}]")


def _endorsement(reader: FactReader, signed: Signed[pb.Endorsement], now: Millis) -> None:
    capability = reader.capability(signed.payload.grant_id)
    if capability is None:
        raise MalformedError("names a grant that is not known here.", field="endorsement.grant_id")
    check_endorsement(signed, capability.grant)
    _not_from_future(signed, now)
    _current_key(reader, signed, now)
    last = capability.endorsement
    if last is not None and signed.payload.created_at <= last.payload.created_at:
        raise MalformedError("expected one newer than the last.", field="endorsement.created_at")


def _delegation(reader: FactReader, signed: Signed[pb.Delegation], now: Millis) -> None:
    payload = signed.payload
    check_delegation(payload)
    _not_from_future(signed, now)
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
    chain: tuple[Signed[pb.Delegation], ...] = ()
    capability = reader.capability(payload.target_id)
    if capability is None:
        delegated = reader.delegated(payload.target_id)
        capability = reader.capability(delegated.grant_id) if delegated is not None else None
        if capability is None:
            raise MalformedError("names a grant or delegation that is not known here.", field="revocation.target_id")
        chain = chain_of(reader, payload.target_id)
    check_revocation(signed, capability.grant, capability.approval, chain)
    if payload.signer.root != payload.signer.key:
        _current_key(reader, signed, now)
    elif (standing := reader.standing(payload.signer.root)) is not None and standing.admission is not None:
        raise AuthorityError("revocation: an organization signs with its online key.")


def _acknowledgement(reader: FactReader, signed: Signed[pb.Acknowledgement], now: Millis) -> None:
    standing = reader.standing(signed.payload.signer.root)
    if standing is None or not standing.is_admitted(pb.PRINCIPAL_KIND_NODE, now):
        raise AuthorityError("acknowledgement: not by an admitted node.")
    _current_key(reader, signed, now)


def _current_key(reader: FactReader, signed: Signed[Any], now: Millis) -> None:
    signer = signed.payload.signer
    reason = key_reason(reader.standing(signer.root), signer, now)
    if reason != Reason.ALLOWED:
        raise AuthorityError(f"{signed.kind.name}: {reason.meaning}", remedy=reason.remedy)


def _not_from_future(signed: Signed[Any], now: Millis) -> None:
    # A statement dated ahead would block every later one of its kind until that date.
    if signed.payload.created_at > now + 60_000:
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


class MemoryFacts:
    """Facts in memory: for replay, and the reference for every other store. Not bounded: one entry a statement."""

    def __init__(self) -> None:
        self._position = 0
        self._capabilities: dict[bytes, Capability] = {}
        self._delegated: dict[bytes, Delegated] = {}
        self._standings: dict[bytes, Standing] = {}

    @property
    def position(self) -> int:
        """Ledger size whose facts these are."""
        return self._position

    def advance(self, position: int) -> None:
        """Entries that change no facts moved the ledger on to this size."""
        self._position = position

    def capability(self, grant_id: bytes) -> Capability | None:
        """See :class:`FactReader`."""
        return self._capabilities.get(grant_id)

    def delegated(self, delegation_id: bytes) -> Delegated | None:
        """See :class:`FactReader`."""
        return self._delegated.get(delegation_id)

    def standing(self, root: bytes) -> Standing | None:
        """See :class:`FactReader`."""
        return self._standings.get(root)

    def record(self, signed: Signed[Any]) -> None:
        """Record an admissible statement: the ledger is one longer now. Recording it again changes nothing more."""
        self._position += 1
        if signed.kind is st.GRANT:
            self._capabilities.setdefault(signed.id, Capability(signed))
        elif signed.kind is st.ENDORSEMENT:
            self._endorse(signed)
        elif signed.kind is st.DELEGATION:
            parent = signed.payload.parent_id
            above = self._delegated.get(parent)
            grant_id = parent if above is None else above.grant_id
            self._delegated.setdefault(signed.id, Delegated(signed, grant_id))
        elif signed.kind is st.REVOCATION:
            self._end(signed.payload.target_id, Reason.GRANT_REVOKED)
        elif signed.kind in (st.ADMISSION, st.SUSPENSION, st.KEY_CERT):
            self._stand(signed)

    def _endorse(self, signed: Signed[pb.Endorsement]) -> None:
        capability = self._capabilities[signed.payload.grant_id]
        approved = signed.payload.verdict == pb.ENDORSEMENT_VERDICT_ENDORSED
        approval = signed if approved else capability.approval
        self._capabilities[signed.payload.grant_id] = replace(capability, endorsement=signed, approval=approval)
        if approved:
            for identifier in capability.grant.payload.supersedes:
                self._end(identifier, Reason.GRANT_SUPERSEDED)

    def _end(self, identifier: bytes, reason: Reason) -> None:
        capability = self._capabilities.get(identifier)
        if capability is not None:
            # A revocation outlives being superseded; nothing outlives a revocation.
            if capability.ended != Reason.GRANT_REVOKED:
                self._capabilities[identifier] = replace(capability, ended=reason)
        elif (delegated := self._delegated.get(identifier)) is not None:
            self._delegated[identifier] = replace(delegated, ended=Reason.DELEGATION_REVOKED)

    def _stand(self, signed: Signed[Any]) -> None:
        root = signed.payload.root
        standing = self._standings.get(root, Standing(root))
        if signed.kind is st.ADMISSION:
            standing = standing.admitted(cast("Signed[pb.Admission]", signed))
        elif signed.kind is st.SUSPENSION:
            standing = standing.suspended(cast("Signed[pb.Suspension]", signed))
        else:
            standing = standing.certified(cast("Signed[pb.KeyCert]", signed))
        self._standings[root] = standing

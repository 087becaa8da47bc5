"""What counts: how recorded statements become the facts of a decision.

A broker, a node and a replaying auditor each record statements in the order of a ledger. :func:`check_admissible` says
whether a statement may be recorded (is this a guardian who may revoke this? is this endorsement newer than the last?);
recording changes the facts; :func:`gather` collects the facts for one query. Stores differ (memory here, SQL in
:mod:`permslip.hosting.facts_store`), the rules do not: both pass the same conformance suite.

Rules:

- What was once recorded is never undone by something older (:mod:`permslip.admissible`).
- A revocation is final. So is being superseded.
- A grant supersedes others from the position at which it is endorsed, not before.

Example::

    facts = MemoryFacts()
    check_admissible(facts, signed, operator=operator_key, now=now)
    facts.record(signed)
    decision = decide(gather(facts, query), query, now=now)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final, cast

from permslip import statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.admissible import check_admissible
from permslip.capabilities import Capability, Delegated, FactReader, chain_of
from permslip.decision import Facts
from permslip.reasons import Reason
from permslip.standing import Standing
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
    grant = capability.grant if capability is not None else None
    delegations = tuple(each.delegation if each is not None else None for each in delegated)
    if capability is not None and capability.ended != Reason.ALLOWED:
        ended[capability.grant.id] = capability.ended
    for each in delegated:
        if each is not None and each.ended != Reason.ALLOWED:
            ended[each.delegation.id] = each.ended
    roots = _roots(payload, grant, delegations)
    standings = {root: standing for root in roots if (standing := reader.standing(root)) is not None}
    return Facts(
        position=reader.position,
        grant=grant,
        delegations=delegations,
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
    """The subjects whose change would make a decision on these facts stale; compare :func:`subjects`.

    Also those of which nothing is known yet: an organization that is admitted or suspended meanwhile counts.
    """
    payload = query.payload
    return (payload.grant_id, *payload.delegation_ids, *sorted(_roots(payload, facts.grant, facts.delegations)))


def _roots(
    query: pb.Query, grant: Signed[pb.Grant] | None, delegations: Iterable[Signed[pb.Delegation] | None]
) -> set[bytes]:
    """Whose standing a decision looks at: the requester, the node, and whoever passed the grant on."""
    roots = {query.signer.root, *(each.payload.signer.root for each in delegations if each is not None)}
    return roots if grant is None else roots | {grant.payload.slice.node}


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

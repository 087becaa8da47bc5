"""The decision: may this requester have these sections of this slice, now?

:func:`decide` is pure. The broker calls it before it routes, the node before it releases, the auditor when she replays;
all three call this very code. Facts and ``now`` go in, a verdict with a reason for the slice and for every section
comes out. What a person can do about each reason stands in :mod:`permslip.reasons`.

Rules:

- The first reason that holds is the answer. Whoever is not the grantee learns nothing about the grant's state: who asks
  is decided before what was granted.
- A section that was not granted is refused by the grant alone, whatever is held.
- A query reads or watches. Appending is a contribution's business: a consent to append alone opens nothing.
- Broker and node differ only in their facts: only the node knows uses, its lease, its clock and its own rules.

Example::

    decision = decide(facts, query, now=Millis(1_790_000_000_000))
    if decision.reason == Reason.ALLOWED:
        release(decision.granted, decision.records_from, decision.records_until)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.errors import AttenuationError
from permslip.grants import PERSONAL_PURPOSES, Terms, delegation_terms, grant_terms, narrow
from permslip.quantities import Millis
from permslip.reasons import Reason
from permslip.sections import PATHS, SENSITIVE, covers, expand
from permslip.standing import Standing, key_reason
from permslip.statements import Signed

__all__ = ["MAX_CLOCK_SKEW", "MAX_QUERY_LIFETIME", "Decision", "Facts", "decide", "end_of_lease"]

MAX_QUERY_LIFETIME: Final = 120_000
MAX_CLOCK_SKEW: Final = 60_000


@dataclass(frozen=True, slots=True)
class Facts:
    """What the decider knows, as of one position of its ledger.

    Attributes:
        position: ledger size whose facts these are.
        grant: the grant that the query names; None when unknown.
        delegations: the delegations that the query names, in its order; None for one that is unknown.
        endorsement: the node's latest word about the grant.
        ended: ids among grant and delegations that are dead → ``GRANT_REVOKED`` or ``GRANT_SUPERSEDED``.
        standings: roots of requester, node, grantee and delegatees, as far as they are organizations.
        seen: this query was decided before.
        uses: how often the grant and each delegation were used so far; None where the decider does not count.
        use_cost: 0 when the query continues or freely retries an earlier one, else 1.
        unfit: why the decider may not answer anyone now (lease, clock), else ``ALLOWED``.
        withheld: leaves that the node keeps back by its own rule.
    """

    position: int
    grant: Signed[pb.Grant] | None = None
    delegations: tuple[Signed[pb.Delegation] | None, ...] = ()
    endorsement: Signed[pb.Endorsement] | None = None
    ended: Mapping[bytes, Reason] = field(default_factory=dict)
    standings: Mapping[bytes, Standing] = field(default_factory=dict)
    seen: bool = False
    uses: tuple[int, ...] | None = None
    use_cost: int = 1
    unfit: Reason = Reason.ALLOWED
    withheld: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict.

    Attributes:
        reason: ``ALLOWED`` when at least one section is allowed, else why not.
        sections: every leaf section that was asked for, ascending, with its own reason.
        records_from, records_until: the days that may be released, YYYY-MM-DD, inclusive; empty is unbounded.
        bounded: the grant's own dates keep back records that the query asked for.
    """

    reason: Reason
    sections: tuple[tuple[str, Reason], ...]
    records_from: str = ""
    records_until: str = ""
    bounded: bool = False

    @property
    def granted(self) -> tuple[str, ...]:
        """The leaf sections that may be released."""
        return tuple(path for path, reason in self.sections if reason == Reason.ALLOWED)


def decide(facts: Facts, query: Signed[pb.Query], *, now: Millis) -> Decision:
    """Decide one query.

    Args:
        facts: what is known as of one position.
        query: its signature was verified.
        now: the decider's own clock.
    """
    asked = expand(query.payload.sections)
    reason, terms = _slice_reason(facts, query.payload, now)
    if terms is None:
        return Decision(reason, tuple((path, reason) for path in asked))
    sections = tuple((path, _section_reason(terms, path, facts.withheld)) for path in asked)
    if not any(each == Reason.ALLOWED for _, each in sections):
        return Decision(sections[0][1], sections)
    first = max(terms.records_from, query.payload.records_from)
    last = _earlier(terms.records_until, query.payload.records_until)
    bounded = first != query.payload.records_from or last != query.payload.records_until
    return Decision(Reason.ALLOWED, sections, first, last, bounded)


def end_of_lease(facts: Facts, query: Signed[pb.Query]) -> int:
    """Until when (UTC milliseconds, exclusive) an allowed decision may go on being acted upon: the first end of
    grant, delegations, endorsement, the requester's key, and the admissions of all concerned. Long answers and watches
    stop there."""
    ends = [each.payload.expires_at for each in (facts.grant, *facts.delegations) if each is not None]
    if facts.endorsement is not None:
        ends.append(facts.endorsement.payload.valid_until)
    for root, standing in facts.standings.items():
        if standing.admission is not None and standing.admission.payload.valid_until:
            ends.append(standing.admission.payload.valid_until)
        if standing.cert is not None and root == query.payload.signer.root:
            ends.append(standing.cert.payload.valid_until)
    return min(ends, default=query.payload.created_at)


def _slice_reason(facts: Facts, query: pb.Query, now: Millis) -> tuple[Reason, Terms | None]:
    """The reason for the slice as a whole; the terms that hold, when it is allowed."""
    # (1) the decider itself
    if facts.unfit != Reason.ALLOWED:
        return facts.unfit, None
    # (2) the query
    reason = _query_reason(facts, query, now)
    if reason == Reason.ALLOWED:
        # (3) who asks
        reason = _requester_reason(facts, query, now)
    if reason != Reason.ALLOWED or facts.grant is None:
        return reason, None
    # (4) the chain from the grant down to the requester
    reason, terms = _chain_reason(facts, facts.grant, query)
    if terms is None:
        return reason, None
    # Every delegation is known now.
    links = [each for each in facts.delegations if each is not None]
    # (5) the node, (6) life and endorsement, (7) times, (8) action and dates, (9) uses
    for reason in (
        _node_reason(facts, facts.grant, now),
        _life_reason(facts, facts.grant, links, now),
        _time_reason(facts.grant, links, now),
        _terms_reason(terms, query),
        _use_reason(facts, facts.grant, links),
    ):
        if reason != Reason.ALLOWED:
            return reason, None
    return Reason.ALLOWED, terms


def _query_reason(facts: Facts, query: pb.Query, now: Millis) -> Reason:
    if query.created_at > now + MAX_CLOCK_SKEW:
        return Reason.QUERY_FROM_FUTURE
    if now >= query.expires_at or query.expires_at > query.created_at + MAX_QUERY_LIFETIME:
        return Reason.QUERY_EXPIRED
    if facts.seen:
        return Reason.QUERY_REPLAYED
    return Reason.ALLOWED


def _requester_reason(facts: Facts, query: pb.Query, now: Millis) -> Reason:
    """An organization must be admitted and sign with its current key; a person signs with her own."""
    signer = query.signer
    standing = facts.standings.get(signer.root)
    if standing is not None and standing.suspension is not None:
        return Reason.REQUESTER_SUSPENDED
    if standing is None or standing.admission is None:
        if signer.root != signer.key:
            return Reason.REQUESTER_UNKNOWN
    elif not standing.is_admitted(pb.PRINCIPAL_KIND_PROVIDER, now):
        return Reason.REQUESTER_UNKNOWN
    elif (reason := key_reason(standing, signer, now)) != Reason.ALLOWED:
        return reason
    return Reason.GRANT_UNKNOWN if facts.grant is None else Reason.ALLOWED


def _chain_reason(facts: Facts, grant: Signed[pb.Grant], query: pb.Query) -> tuple[Reason, Terms | None]:
    terms, parent = grant_terms(grant.payload), grant.id
    # Whoever the grant names neither as grantee nor as a party to pass it on to learns nothing about the chain.
    if query.signer.root != terms.party and query.signer.root not in terms.onward:
        return Reason.NOT_GRANTEE, None
    if len(facts.delegations) > terms.depth:
        return Reason.DELEGATION_TOO_DEEP, None
    for delegation in facts.delegations:
        if delegation is None:
            return Reason.DELEGATION_UNKNOWN, None
        if delegation.payload.parent_id != parent or delegation.payload.signer.root != terms.party:
            return Reason.DELEGATION_BROKEN, None
        try:
            terms, parent = narrow(terms, delegation_terms(delegation.payload)), delegation.id
        except AttenuationError as error:
            if error.dimension == "parties":
                return Reason.DELEGATION_PARTY_NOT_NAMED, None
            return Reason.DELEGATION_WIDENS, None
    if terms.party != query.signer.root:
        return Reason.NOT_GRANTEE, None
    # A key that nobody admitted reads only as family: a person whom the node itself knows and endorsed.
    if query.signer.root == query.signer.key and grant.payload.purpose not in PERSONAL_PURPOSES:
        return Reason.REQUESTER_UNKNOWN, None
    return Reason.ALLOWED, terms


def _node_reason(facts: Facts, grant: Signed[pb.Grant], now: Millis) -> Reason:
    standing = facts.standings.get(grant.payload.slice.node)
    if standing is not None and standing.suspension is not None:
        return Reason.NODE_SUSPENDED
    if standing is None or not standing.is_admitted(pb.PRINCIPAL_KIND_NODE, now):
        return Reason.NODE_UNKNOWN
    return Reason.ALLOWED


def _life_reason(facts: Facts, grant: Signed[pb.Grant], links: Sequence[Signed[pb.Delegation]], now: Millis) -> Reason:
    if (reason := facts.ended.get(grant.id, Reason.ALLOWED)) != Reason.ALLOWED:
        return reason
    for delegation in links:
        if delegation.id in facts.ended:
            return Reason.DELEGATION_REVOKED
        # A delegation is worth no more than the organization that gave it.
        giver = facts.standings.get(delegation.payload.signer.root)
        if giver is None or not giver.is_admitted(pb.PRINCIPAL_KIND_PROVIDER, now):
            return Reason.DELEGATION_REVOKED
    endorsement = facts.endorsement
    if endorsement is None:
        return Reason.GRANT_PENDING
    verdict = endorsement.payload.verdict
    if verdict != pb.ENDORSEMENT_VERDICT_ENDORSED:
        return _REFUSED.get(verdict, Reason.ENDORSEMENT_REFUSED)
    if now >= endorsement.payload.valid_until:
        return Reason.ENDORSEMENT_EXPIRED
    return Reason.ALLOWED


_REFUSED: Final[dict[int, Reason]] = {
    pb.ENDORSEMENT_VERDICT_AUTHORITY_ENDED: Reason.AUTHORITY_ENDED,
    pb.ENDORSEMENT_VERDICT_OBJECTED: Reason.OBJECTED,
}


def _time_reason(grant: Signed[pb.Grant], links: Sequence[Signed[pb.Delegation]], now: Millis) -> Reason:
    if now < grant.payload.not_before:
        return Reason.GRANT_NOT_YET
    if now >= grant.payload.expires_at:
        return Reason.GRANT_EXPIRED
    for delegation in links:
        if now < delegation.payload.not_before:
            return Reason.DELEGATION_NOT_YET
        if now >= delegation.payload.expires_at:
            return Reason.DELEGATION_EXPIRED
    return Reason.ALLOWED


def _terms_reason(terms: Terms, query: pb.Query) -> Reason:
    if query.action == pb.ACTION_APPEND or query.action not in terms.actions:
        return Reason.ACTION_NOT_GRANTED
    first = max(terms.records_from, query.records_from)
    last = _earlier(terms.records_until, query.records_until)
    if last and last < first:
        return Reason.DATES_NOT_GRANTED
    return Reason.ALLOWED


def _use_reason(facts: Facts, grant: Signed[pb.Grant], links: Sequence[Signed[pb.Delegation]]) -> Reason:
    if facts.uses is None:
        return Reason.ALLOWED
    limits = [grant.payload.max_uses, *(link.payload.max_uses for link in links)]
    for limit, used in zip(limits, facts.uses, strict=True):
        if limit and used + facts.use_cost > limit:
            return Reason.USES_EXHAUSTED
    return Reason.ALLOWED


def _section_reason(terms: Terms, path: str, withheld: frozenset[str]) -> Reason:
    if path not in PATHS:
        return Reason.SECTION_UNKNOWN
    if covers(terms.sections, path):
        return Reason.WITHHELD if path in withheld else Reason.ALLOWED
    above = path in SENSITIVE and any(path.startswith(granted + ".") for granted in terms.sections)
    return Reason.SECTION_SENSITIVE if above else Reason.SECTION_NOT_GRANTED


def _earlier(one: str, other: str) -> str:
    """The earlier of two last days, where empty is never."""
    return min(one, other) if one and other else one or other

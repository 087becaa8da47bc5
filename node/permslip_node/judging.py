"""Judging a grant by the roster: may these signers consent for this learner, alone?

Pure: authority and ``now`` go in, a verdict comes out. :mod:`permslip_node.endorsing` makes a signed statement of it.

Rules:

- A grant that was never endorsed is judged as a whole: *each* signer must hold authority now, with a key in use.
- A grant that was endorsed before is judged by who is left: a suspended signer does not count any more, but what the
  others signed with her stands if they alone meet the quorum. A key that was lost since still counts as its person.
- ``all`` counts persons with authority, also those who have no key yet: nobody is passed over because she was slow.
- What another guardian revoked for this grantee comes back only with everybody's signature, or once she gives it again
  herself (:mod:`permslip_node.vetoes`).
- Any guardian may revoke; but where this node does not let the guardians of a learner learn of one another, only those
  who signed: who may revoke is shown the grant, and with it who gave it (docs/adr/0012).
- A refused grant is never revived: whoever may sign now signs a new one.

Example::

    judge(grant, authority, provider_admitted=True, approved_before=False, now=now).verdict
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.grants import MAX_ENDORSEMENT_LIFETIME, PERSONAL_PURPOSES
from permslip.quantities import Millis
from permslip_node.roster import Authority, Guardian

__all__ = ["MAX_REVOKERS", "Judgement", "judge"]

MAX_REVOKERS: Final = 32
Verdict: TypeAlias = "pb.EndorsementVerdict.ValueType"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict on a grant.

    Attributes:
        verdict: ``ENDORSED`` or why not.
        rule: the quorum rule that was applied; empty where none was reached.
        revokers: keys that may revoke it, ascending; only where endorsed.
        valid_until: UTC milliseconds; only where endorsed.
    """

    verdict: Verdict
    rule: str = ""
    revokers: tuple[bytes, ...] = ()
    valid_until: int = 0


def judge(
    grant: pb.Grant, authority: Authority | None, *, provider_admitted: bool, approved_before: bool, now: Millis
) -> Judgement:
    """Judge a grant.

    Args:
        grant: verified and well formed.
        authority: over the handle that it names; None where this node has no such learner.
        provider_admitted: the grantee is an admitted provider now.
        approved_before: this node endorsed this very grant earlier.
        now: the node's clock.
    """
    # (1) the learner, and whether there is anything left to consent to
    if authority is None:
        return Judgement(pb.ENDORSEMENT_VERDICT_UNKNOWN_HANDLE)
    if now >= grant.expires_at:
        return Judgement(pb.ENDORSEMENT_VERDICT_TERMS_REFUSED)
    # (2) the signers
    signers, unfit = _signers(grant, authority, approved_before, now)
    if unfit and not (approved_before and signers):
        return Judgement(unfit[0])
    # (3) the grantee
    verdict = _grantee_verdict(grant, authority, provider_admitted)
    # A provider that is suspended for a while is the decision's business; its consents wait for it.
    stranger = approved_before and verdict == pb.ENDORSEMENT_VERDICT_TERMS_REFUSED
    if verdict != pb.ENDORSEMENT_VERDICT_ENDORSED and not stranger:
        return Judgement(verdict)
    # (4) the quorum
    signed = {each.person_id for each in signers}
    deciders = authority.deciders(now)
    missing = [each for each in deciders if each.person_id not in signed]
    if authority.quorum_rule == "all" and missing:
        return Judgement(pb.ENDORSEMENT_VERDICT_QUORUM_NOT_MET, authority.quorum_rule)
    # (5) what another guardian revoked
    if not approved_before and any((grant.grantee, each.person_id) in authority.vetoes for each in missing):
        return Judgement(pb.ENDORSEMENT_VERDICT_REVOKED_BEFORE, authority.quorum_rule)
    return Judgement(
        pb.ENDORSEMENT_VERDICT_ENDORSED,
        authority.quorum_rule,
        _revokers(grant, deciders if authority.visible else signers),
        _valid_until(grant, authority, now),
    )


def _signers(
    grant: pb.Grant, authority: Authority, approved_before: bool, now: Millis
) -> tuple[list[Guardian], list[Verdict]]:
    """The persons who signed and hold authority, and why each of the others does not."""
    deciders = authority.deciders(now)
    signers: list[Guardian] = []
    unfit: list[Verdict] = []
    for key in grant.granted_by:
        person = authority.person_of(key)
        if person is None and approved_before:
            person = next((each for each in authority.persons if key in each.retired_keys), None)
        if person in deciders and person is not None:
            signers.append(person)
        elif person is not None and person.suspended:
            unfit.append(pb.ENDORSEMENT_VERDICT_SUSPENDED)
        elif person is not None and person.holds_authority and authority.of_age(now):
            unfit.append(pb.ENDORSEMENT_VERDICT_AUTHORITY_ENDED)
        else:
            unfit.append(pb.ENDORSEMENT_VERDICT_NO_AUTHORITY)
    return signers, unfit


def _grantee_verdict(grant: pb.Grant, authority: Authority, provider_admitted: bool) -> Verdict:
    """A provider, or for a personal purpose a person of the family whom the node itself knows."""
    if provider_admitted:
        return pb.ENDORSEMENT_VERDICT_ENDORSED
    person = authority.person_of(grant.grantee)
    if person is None or grant.purpose not in PERSONAL_PURPOSES:
        return pb.ENDORSEMENT_VERDICT_TERMS_REFUSED
    if person.suspended:
        return pb.ENDORSEMENT_VERDICT_SUSPENDED
    if not person.holds_authority:
        return pb.ENDORSEMENT_VERDICT_NO_AUTHORITY
    if person.is_learner != (grant.purpose == pb.PURPOSE_SELF):
        return pb.ENDORSEMENT_VERDICT_TERMS_REFUSED
    return pb.ENDORSEMENT_VERDICT_ENDORSED


def _revokers(grant: pb.Grant, persons: Sequence[Guardian]) -> tuple[bytes, ...]:
    """Whoever signed, and these persons; signers first, should there ever be too many."""
    others = sorted({key for each in persons for key in each.keys} - set(grant.granted_by))
    return tuple(sorted([*grant.granted_by, *others][:MAX_REVOKERS]))


def _valid_until(grant: pb.Grant, authority: Authority, now: Millis) -> int:
    ends = [now + MAX_ENDORSEMENT_LIFETIME, grant.expires_at]
    if authority.majority_at and not authority.of_age(now):
        ends.append(authority.majority_at)
    return min(ends)

"""Grants: what makes one well formed, how a delegation narrows it, and who may revoke it.

Rules (SPEC.md §5):

- A grant without records, purpose, party, date or signature is refused by the field's name: 34 CFR 99.30(b) demands
  that a consent specifies each.
- A delegation may only narrow: sections, actions, time, dates of records, uses, depth and onward parties.
- A grant's lifetime is at most 400 days, and it begins at most 400 days after it was signed: consent is renewed each
  school year.
- A guardian signs with her own key, never as an organization.

Example::

    >>> parent = Terms(frozenset({1}), ("transcript",), 0, 100, "", "", 0, 1, frozenset({b"B"}), b"A")
    >>> narrow(parent, Terms(frozenset({1}), ("transcript.grades",), 0, 50, "", "", 5, 0, frozenset(), b"B")).max_uses
    5
    >>> narrow(parent, Terms(frozenset({1}), ("personal",), 0, 50, "", "", 5, 0, frozenset(), b"B"))
    Traceback (most recent call last):
    permslip.errors.AttenuationError: sections: ...
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.errors import AttenuationError, AuthorityError, MalformedError
from permslip.sections import check_paths, is_narrower
from permslip.statements import Signed

__all__ = [
    "MAX_ENDORSEMENT_LIFETIME",
    "MAX_GRANT_LIFETIME",
    "Terms",
    "check_delegation",
    "check_endorsement",
    "check_grant",
    "check_revocation",
    "delegation_terms",
    "grant_terms",
    "narrow",
    "revoker_hash",
]

DAY: Final = 86_400_000
MAX_GRANT_LIFETIME: Final = 400 * DAY
MAX_ENDORSEMENT_LIFETIME: Final = 30 * DAY

# Purposes for which the grantee is a person that the node knows, not an admitted organization.
PERSONAL_PURPOSES: Final = frozenset({pb.PURPOSE_FAMILY, pb.PURPOSE_SELF})


@dataclass(frozen=True, slots=True)
class Terms:
    """The dimensions in which a capability can be narrower than another.

    Attributes:
        actions: numbers of ``Action``.
        sections: section paths.
        not_before, expires_at: usable from … until before …, UTC milliseconds.
        records_from, records_until: days observed, YYYY-MM-DD; empty is unbounded.
        max_uses: 0 is unlimited.
        depth: how often it may be passed on.
        onward: root keys to whom it may be passed on.
        party: who holds it.
    """

    actions: frozenset[int]
    sections: tuple[str, ...]
    not_before: int
    expires_at: int
    records_from: str
    records_until: str
    max_uses: int
    depth: int
    onward: frozenset[bytes]
    party: bytes


def grant_terms(grant: pb.Grant) -> Terms:
    """The terms of a grant, held by its grantee."""
    return _terms(grant, grant.grantee)


def delegation_terms(delegation: pb.Delegation) -> Terms:
    """The terms of a delegation, held by its delegatee. They say nothing until :func:`narrow` accepted them."""
    return _terms(delegation, delegation.delegatee)


def narrow(parent: Terms, child: Terms) -> Terms:
    """The child's terms, when each dimension is within the parent's.

    Raises:
        AttenuationError: names the first dimension that is wider.
    """
    if not child.actions <= parent.actions:
        raise AttenuationError("an action that the parent does not allow.", dimension="actions")
    if not is_narrower(parent.sections, child.sections):
        raise AttenuationError("a section that the parent does not cover.", dimension="sections")
    if child.not_before < parent.not_before or child.expires_at > parent.expires_at:
        raise AttenuationError("begins before or ends after the parent.", dimension="time")
    if parent.records_from and child.records_from < parent.records_from:
        raise AttenuationError("records from before the parent's first day.", dimension="dates")
    if parent.records_until and not "" < child.records_until <= parent.records_until:
        raise AttenuationError("records from after the parent's last day.", dimension="dates")
    if parent.max_uses and not 0 < child.max_uses <= parent.max_uses:
        raise AttenuationError("more uses than the parent has.", dimension="uses")
    if child.depth >= parent.depth:
        raise AttenuationError("as deep as the parent, or deeper.", dimension="depth")
    if not child.onward <= parent.onward or child.party not in parent.onward:
        raise AttenuationError("a party that the parent does not name.", dimension="parties")
    return child


def check_grant(grant: pb.Grant) -> None:
    """Check what the bounds of the contract cannot say about a grant.

    Raises:
        MalformedError: names the field.
    """
    _check_capability(grant, "grant")
    check_paths(grant.sections, "grant.sections")
    if grant.expires_at - grant.not_before > MAX_GRANT_LIFETIME:
        raise MalformedError(
            "expected at most 400 days after not_before.",
            field="grant.expires_at",
            remedy="Choose an earlier end; a consent is renewed each year.",
        )
    if grant.not_before - grant.created_at > MAX_GRANT_LIFETIME:
        raise MalformedError("expected at most 400 days after created_at.", field="grant.not_before")
    recipients = [copy.recipient for copy in grant.private.copies]
    if recipients != sorted(set(recipients)):
        raise MalformedError("expected ascending recipients without repetition.", field="grant.private.copies")


def check_delegation(delegation: pb.Delegation) -> None:
    """Check what the bounds of the contract cannot say about a delegation.

    Raises:
        MalformedError: names the field.
    """
    _check_capability(delegation, "delegation")
    check_paths(delegation.sections, "delegation.sections")


def check_endorsement(endorsement: Signed[pb.Endorsement], grant: Signed[pb.Grant]) -> None:
    """Check that an endorsement is the node's word about this grant.

    That ``signer.key`` is the node's current key is checked by :func:`permslip.standing.key_reason`.

    Raises:
        MalformedError: an approval without revokers or end, or a longer one than 30 days.
        AuthorityError: it is about another grant, or not by the grant's node.
    """
    payload = endorsement.payload
    if payload.grant_id != grant.id or payload.signer.root != grant.payload.slice.node:
        raise AuthorityError("endorsement: not by the node that the grant names, or about another grant.")
    if payload.verdict != pb.ENDORSEMENT_VERDICT_ENDORSED:
        return
    if not payload.revokers:
        raise MalformedError("needs at least one element.", field="endorsement.revokers")
    if not payload.created_at < payload.valid_until <= payload.created_at + MAX_ENDORSEMENT_LIFETIME:
        raise MalformedError(
            "expected an end after created_at and at most 30 days later.", field="endorsement.valid_until"
        )


def revoker_hash(grant_id: bytes, key: bytes) -> bytes:
    """How an endorsement names a key that may revoke, without telling the broker who else is a guardian."""
    return sha256(b"permslip revoker v1\x00" + grant_id + key).digest()


def check_revocation(
    revocation: Signed[pb.Revocation],
    grant: Signed[pb.Grant],
    endorsement: Signed[pb.Endorsement] | None,
    chain: tuple[Signed[pb.Delegation], ...] = (),
) -> None:
    """Check that the signer may revoke the target.

    Args:
        revocation: the target is the grant, or the last delegation of ``chain``.
        grant: the target, or the grant from which the chain comes.
        endorsement: an approval of the grant by its node; any, also one that ended.
        chain: the delegations from the grant to the target, in order; empty when the grant is the target.

    Raises:
        AuthorityError: the signer may not revoke it, or it is about something else.
    """
    payload = revocation.payload
    target = chain[-1].id if chain else grant.id
    if payload.target_id != target or payload.node != grant.payload.slice.node:
        raise AuthorityError("revocation: it names another target or node.")
    if not _may_revoke(payload, grant, endorsement, chain):
        raise AuthorityError(
            "revocation: the signer holds no right to revoke this.",
            remedy="Sign as a guardian whom the school knows, as the grantee, or as the school.",
        )


def _may_revoke(
    payload: pb.Revocation,
    grant: Signed[pb.Grant],
    endorsement: Signed[pb.Endorsement] | None,
    chain: tuple[Signed[pb.Delegation], ...],
) -> bool:
    signer = payload.signer
    if payload.role == pb.REVOKER_ROLE_GUARDIAN:
        if signer.root != signer.key:
            return False
        if signer.key in grant.payload.granted_by:
            return True
        return endorsement is not None and revoker_hash(grant.id, signer.key) in endorsement.payload.revokers
    if payload.role == pb.REVOKER_ROLE_NODE:
        return signer.root == grant.payload.slice.node
    if payload.role == pb.REVOKER_ROLE_DELEGATOR:
        return any(signer.root == delegation.payload.signer.root for delegation in chain)
    holder = chain[-1].payload.delegatee if chain else grant.payload.grantee
    return signer.root == holder


def _terms(payload: pb.Grant | pb.Delegation, party: bytes) -> Terms:
    return Terms(
        actions=frozenset(payload.actions),
        sections=tuple(payload.sections),
        not_before=payload.not_before,
        expires_at=payload.expires_at,
        records_from=payload.records_from,
        records_until=payload.records_until,
        max_uses=payload.max_uses,
        depth=payload.delegation_depth,
        onward=frozenset(payload.onward_parties),
        party=party,
    )


def _check_capability(payload: pb.Grant | pb.Delegation, name: str) -> None:
    if payload.expires_at <= payload.not_before:
        raise MalformedError(
            "expected an end after not_before.", field=f"{name}.expires_at", remedy="Choose a later end."
        )
    if payload.records_until and payload.records_until < payload.records_from:
        raise MalformedError("expected a day not before records_from.", field=f"{name}.records_until")
    if bool(payload.delegation_depth) != bool(payload.onward_parties):
        raise MalformedError(
            "expected parties where delegation_depth is more than 0, and only there.", field=f"{name}.onward_parties"
        )
    if pb.ACTION_WATCH in payload.actions and pb.ACTION_READ not in payload.actions:
        raise MalformedError("watching needs reading.", field=f"{name}.actions")

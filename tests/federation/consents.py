"""The statements of a test's families and providers: grants, queries, delegations, revocations.

Example::

    grant = make_grant([mother], school.root, handle, tutor.root, ["transcript"], federation=federation, now=now)
    query = make_query(tutor, grant, ["transcript.grades"], now=now)
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from permslip import statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.grants import revoker_hash
from permslip.keys import SealingKey
from permslip.statements import Signed
from tests.federation.principals import DAY, Organization, Person

__all__ = ["Asked", "make_delegation", "make_endorsement", "make_grant", "make_query", "make_revocation"]

READ = (pb.ACTION_READ,)
Who = Person | Organization


@dataclass(frozen=True)
class Asked:
    """A query, and the key that opens its answer."""

    query: Signed[pb.Query]
    reply_key: SealingKey

    @property
    def id(self) -> bytes:
        """The query's."""
        return self.query.id

    @property
    def envelope(self) -> pb.Envelope:
        """The query's."""
        return self.query.envelope


def make_grant(
    signers: Sequence[Person],
    node: bytes,
    handle: bytes,
    grantee: bytes,
    sections: Sequence[str],
    *,
    federation: str,
    now: int,
    purpose: pb.Purpose.ValueType = pb.PURPOSE_TUTORING,
    lifetime: int = 30 * DAY,
    not_before: int | None = None,
    depth: int = 0,
    onward: Sequence[bytes] = (),
    supersedes: Sequence[bytes] = (),
    actions: Sequence[pb.Action.ValueType] = READ,
    max_uses: int = 0,
) -> Signed[pb.Grant]:
    """A grant, signed by all of ``signers``."""
    begins = now if not_before is None else not_before
    payload = pb.Grant(
        federation=federation,
        nonce=os.urandom(16),
        created_at=now,
        granted_by=sorted(each.public for each in signers),
        slice=pb.Slice(node=node, handle=handle),
        grantee=grantee,
        actions=sorted(actions),
        sections=sorted(sections),
        purpose=purpose,
        not_before=begins,
        expires_at=begins + lifetime,
        max_uses=max_uses,
        delegation_depth=depth,
        onward_parties=sorted(onward),
        notice=pb.Notice(template="consent.read", version="v1", language="en", salted_sha256=os.urandom(32)),
        supersedes=sorted(supersedes),
        private=pb.SealedPrivate(
            salted_sha256=os.urandom(32), copies=[pb.SealedCopy(recipient=os.urandom(32), sealed=os.urandom(160))]
        ),
    )
    return st.sign(st.GRANT, payload, [each.key for each in signers])


def make_endorsement(
    node: Organization,
    grant: Signed[pb.Grant],
    *,
    now: int,
    verdict: pb.EndorsementVerdict.ValueType = pb.ENDORSEMENT_VERDICT_ENDORSED,
    revokers: Sequence[bytes] = (),
    lifetime: int = 20 * DAY,
) -> Signed[pb.Endorsement]:
    """A node's word about a grant; the signers may revoke it, and ``revokers`` too."""
    endorsed = verdict == pb.ENDORSEMENT_VERDICT_ENDORSED
    keys = {*grant.payload.granted_by, *revokers}
    payload = pb.Endorsement(
        federation=grant.payload.federation,
        nonce=os.urandom(16),
        created_at=now,
        signer=node.signer,
        grant_id=grant.id,
        verdict=verdict,
        quorum_rule="any",
        revokers=sorted(revoker_hash(grant.id, key) for key in keys) if endorsed else [],
        valid_until=now + lifetime if endorsed else 0,
    )
    return st.sign(st.ENDORSEMENT, payload, [node.key])


def make_query(
    requester: Who,
    grant: Signed[pb.Grant] | bytes,
    sections: Sequence[str],
    *,
    federation: str,
    now: int,
    delegations: Sequence[bytes] = (),
    lifetime: int = 60_000,
    action: pb.Action.ValueType = pb.ACTION_READ,
    retry_of: bytes = b"",
    continues: bytes = b"",
) -> Asked:
    """A query under a grant."""
    reply_key = SealingKey.generate()
    payload = pb.Query(
        federation=federation,
        nonce=os.urandom(16),
        created_at=now,
        signer=requester.signer,
        expires_at=now + lifetime,
        grant_id=grant if isinstance(grant, bytes) else grant.id,
        delegation_ids=delegations,
        action=action,
        sections=sorted(sections),
        reply_key=reply_key.public,
        retry_of=retry_of,
        continues=continues,
    )
    return Asked(st.sign(st.QUERY, payload, [requester.key]), reply_key)


def make_delegation(
    giver: Organization,
    parent: Signed[pb.Grant] | Signed[pb.Delegation],
    receiver: bytes,
    sections: Sequence[str],
    *,
    now: int,
    lifetime: int = 10 * DAY,
) -> Signed[pb.Delegation]:
    """A part of what ``giver`` holds, passed on."""
    payload = pb.Delegation(
        federation=giver.federation,
        nonce=os.urandom(16),
        created_at=now,
        signer=giver.signer,
        parent_id=parent.id,
        delegatee=receiver,
        actions=READ,
        sections=sorted(sections),
        not_before=parent.payload.not_before,
        expires_at=parent.payload.not_before + lifetime,
    )
    return st.sign(st.DELEGATION, payload, [giver.key])


def make_revocation(
    who: Who,
    target: bytes,
    node: bytes,
    *,
    federation: str,
    now: int,
    role: pb.RevokerRole.ValueType = pb.REVOKER_ROLE_GUARDIAN,
) -> Signed[pb.Revocation]:
    """The end of a grant or delegation."""
    payload = pb.Revocation(
        federation=federation,
        nonce=os.urandom(16),
        created_at=now,
        signer=who.signer,
        target_id=target,
        node=node,
        role=role,
    )
    return st.sign(st.REVOCATION, payload, [who.key])

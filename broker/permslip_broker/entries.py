"""What the broker writes into its ledger about accesses and refusals.

Entries hold ids, keys, codes and times; the words a parent read and the records a school holds never come here.

Example::

    draft = decided(query, facts, decision, now=now)
    answered(query_id, Reason.ALLOWED, manifest_sha256=digest, sealed_bytes=18_000, slice_of=(node, handle))
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

from permslip._pb.permslip.v1 import ledger_pb2, statement_pb2 as pb
from permslip.decision import Decision, Facts
from permslip.facts import depends_on
from permslip.hosting.drafts import Draft
from permslip.quantities import Millis
from permslip.reasons import Reason
from permslip.statements import Signed

__all__ = ["answered", "decided", "refused", "slice_of_grant"]

_FIELD_BYTES = 128

Redo = Callable[[Connection, int], Draft]


def slice_of_grant(grant: Signed[pb.Grant] | None) -> tuple[bytes, bytes] | None:
    """Node root and handle, where the grant is known."""
    if grant is None:
        return None
    place = grant.payload.slice
    return place.node, place.handle


def decided(
    query: Signed[pb.Query], facts: Facts, decision: Decision, *, now: Millis, redo: Redo | None = None
) -> Draft:
    """An access was decided: routed (``ALLOWED``) or refused.

    Args:
        query: verified.
        facts: what the decision was made by.
        decision: the verdict.
        now: the ``now`` of the decision.
        redo: decides again where facts changed before the commit.
    """
    payload = query.payload
    body = ledger_pb2.AccessDecided(
        query_id=query.id,
        envelope_sha256=query.sha256,
        requester=payload.signer,
        grant_id=payload.grant_id,
        delegation_ids=payload.delegation_ids,
        action=payload.action,
        purpose=pb.PURPOSE_UNSPECIFIED if facts.grant is None else facts.grant.payload.purpose,
        reason=decision.reason.wire,
        sections=[
            ledger_pb2.SectionVerdict(section=section, reason=reason.wire) for section, reason in decision.sections
        ],
        decided_at=now,
        facts_position=facts.position,
    )
    return Draft(
        event="access_decided",
        body=body,
        slice=slice_of_grant(facts.grant),
        depends_on=depends_on(facts, query),
        facts_position=facts.position,
        evidence=query.raw,
        redo=redo,
    )


def answered(
    query_id: bytes,
    reason: Reason,
    *,
    manifest_sha256: bytes = b"",
    sealed_bytes: int = 0,
    slice_of: tuple[bytes, bytes] | None,
) -> Draft:
    """What became of an allowed access: answered whole (``ALLOWED``), or why it ended early."""
    body = ledger_pb2.AccessAnswered(
        query_id=query_id, reason=reason.wire, manifest_sha256=manifest_sha256, sealed_bytes=sealed_bytes
    )
    return Draft(event="access_answered", body=body, slice=slice_of)


def refused(reason: Reason, method: str, *, field: str = "", request_sha256: bytes = b"", caller: bytes = b"") -> Draft:
    """A request that never became a decision."""
    body = ledger_pb2.RequestRefused(
        reason=reason.wire,
        field=field.encode()[:_FIELD_BYTES].decode(errors="ignore"),
        method=method,
        request_sha256=request_sha256,
        caller=caller,
    )
    return Draft(event="request_refused", body=body)

"""What a requester is told when the broker itself ends an answer.

Example::

    reply = refused_answer(query_id, Reason.UNREACHABLE)
    assert reply.answer.outcome.said_by == b""      # the broker says so, not the node
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from permslip._pb.permslip.v1 import provider_pb2, session_pb2, statement_pb2 as pb
from permslip.errors import RefusedError
from permslip.reasons import Reason

__all__ = ["RETRY_AFTER", "allowed", "refusal", "refused_answer", "too_many"]

# Milliseconds after which trying again makes sense, for what passes by itself.
RETRY_AFTER: Final[dict[Reason, int]] = {
    Reason.BUSY: 250,
    Reason.DRAINING: 1_000,
    Reason.UNREACHABLE: 5_000,
    Reason.TIMED_OUT: 1_000,
    Reason.NO_LEASE: 2_000,
    Reason.INTERNAL: 1_000,
    Reason.GRANT_PENDING: 5_000,
    Reason.ENDORSEMENT_EXPIRED: 5_000,
    Reason.CLOCK: 60_000,
}


def refusal(reason: Reason, *, field: str = "", message: str = "") -> session_pb2.Refusal:
    """A refusal with the reason's own words, unless others are given."""
    return session_pb2.Refusal(
        code=reason.wire,
        field=field,
        retry_after=RETRY_AFTER.get(reason, 0),
        message=message or reason.meaning,
        remedy=reason.remedy,
    )


def allowed() -> session_pb2.Refusal:
    """No refusal: the thing was done."""
    return session_pb2.Refusal(code=Reason.ALLOWED.wire)


def refused_answer(
    query_id: bytes,
    reason: Reason | session_pb2.Refusal,
    sections: Iterable[tuple[str, Reason]] = (),
) -> provider_pb2.ExchangeReply:
    """The last piece of an answer that the broker ends.

    Args:
        query_id: of the query.
        reason: why, or the whole refusal.
        sections: each section's verdict, where one was made.
    """
    return provider_pb2.ExchangeReply(
        answer=provider_pb2.Answer(
            query_id=query_id,
            outcome=provider_pb2.Outcome(
                refusal=refusal(reason) if isinstance(reason, Reason) else reason,
                sections=[pb.SectionCoverage(section=path, reason=each.wire) for path, each in sections],
            ),
        )
    )


def too_many(field: str, count: int, *, most: int) -> RefusedError:
    """One message of a stream holds more than it may."""
    reason = Reason.TOO_LARGE
    words = f"expected at most {most} in one message, got {count}."
    return RefusedError(f"{field}: {words}", code=reason.name, field=field, remedy=reason.remedy)

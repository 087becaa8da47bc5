"""Pieces of answers on their way through: the broker looks at their size and at how they end, and at nothing else.

Everything else is for the requester to check, who alone can open them.

Example::

    check_piece(answer, sealed=sum(map(len, answer.chunks)))
"""

from __future__ import annotations

from typing import Final

from permslip._pb.permslip.v1 import provider_pb2
from permslip.errors import MalformedError
from permslip.reasons import Reason
from permslip_broker.credit import CHUNK

__all__ = ["check_piece", "outcome_reason"]

# Of the contract: chunks in one piece. And what opening and outcome may weigh together.
_MOST_CHUNKS: Final = 64
_MOST_BESIDE: Final = 128 << 10


def check_piece(answer: provider_pb2.Answer, sealed: int) -> None:
    """Check what would make the broker hold too much.

    Args:
        answer: as it came from the node.
        sealed: bytes of its chunks.

    Raises:
        MalformedError: names the field.
    """
    if len(answer.chunks) > _MOST_CHUNKS or any(len(chunk) > CHUNK for chunk in answer.chunks):
        raise MalformedError(f"expected at most {_MOST_CHUNKS} of {CHUNK} bytes.", field="answer.chunks")
    if answer.ByteSize() - sealed > _MOST_BESIDE:
        raise MalformedError(f"expected at most {_MOST_BESIDE} bytes beside the chunks.", field="answer")


def outcome_reason(outcome: provider_pb2.Outcome) -> Reason:
    """The reason that a node gives; ``INTERNAL`` for a number that is none."""
    try:
        return Reason(outcome.refusal.code)
    except ValueError:
        return Reason.INTERNAL

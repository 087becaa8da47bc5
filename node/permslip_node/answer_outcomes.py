"""How an answer's last piece says what became of it.

Example::

    refused(root, Reason.GRANT_REVOKED).refusal.remedy
"""

from __future__ import annotations

from typing import Final

from permslip._pb.permslip.v1 import provider_pb2
from permslip._pb.permslip.v1.session_pb2 import Refusal
from permslip.reasons import Reason
from permslip_node.open_answers import OpenAnswer

__all__ = ["refused", "whole"]

_RETRY_AFTER_MS: Final = 1_000


def whole(answer: OpenAnswer, sealed: int, *, said_by: bytes) -> provider_pb2.Outcome:
    """The answer is whole: so many sealed bytes, and this manifest."""
    return provider_pb2.Outcome(
        refusal=Refusal(code=Reason.ALLOWED.wire),
        manifest_sha256=answer.manifest_sha256,
        sealed_bytes=sealed,
        said_by=said_by,
    )


def refused(said_by: bytes, reason: Reason, *, field: str = "", message: str = "") -> provider_pb2.Outcome:
    """Nothing more comes, and why.

    Args:
        said_by: this node's root.
        reason: why.
        field: what was at fault, if one field was.
        message: in place of the reason's own words.
    """
    refusal = Refusal(
        code=reason.wire,
        field=field,
        retry_after=_RETRY_AFTER_MS if reason.may_pass else 0,
        message=message or reason.meaning,
        remedy=reason.remedy,
    )
    return provider_pb2.Outcome(refusal=refusal, said_by=said_by)

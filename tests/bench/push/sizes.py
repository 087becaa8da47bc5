"""Envelopes as long as those of a revocation: of a grant, the revocation, its acknowledgement. Nobody signed them."""

from __future__ import annotations

from typing import Any, Final

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.statements import ACKNOWLEDGEMENT, GRANT as GRANT_KIND, REVOCATION, Kind

__all__ = ["GRANT", "REVOKED", "acknowledgement"]

_SIGNATURE: Final = pb.Signature(key=bytes(32), signature=bytes(64))


def _envelope(kind: Kind[Any], payload: bytes) -> pb.Envelope:
    return pb.Envelope(payload_type=kind.payload_type, payload=payload, signatures=[_SIGNATURE])


GRANT: Final = _envelope(GRANT_KIND, bytes(1000))
REVOKED: Final = _envelope(REVOCATION, bytes(190))


def acknowledgement(number: int) -> pb.Envelope:
    """Of the push with this number."""
    return _envelope(ACKNOWLEDGEMENT, number.to_bytes(8, "big") + bytes(180))

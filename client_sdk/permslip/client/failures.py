"""What went wrong, as one of the product's own errors: a caller never sees gRPC's.

Rules:

- «No» is :class:`~permslip.errors.RefusedError` with its code; «no answer could be had» is
  :class:`~permslip.errors.UnavailableError`, in time :class:`~permslip.errors.TimedOutError`. A gRPC status without a
  ``Refusal`` in its details is nobody's decision, so it is never a «no».
- Words of a broker are shown as one printable line; the meaning and the remedy of a code are this library's own.

Example::

    try:
        response = await method(request, timeout=30)
    except grpc.aio.AioRpcError as failure:
        raise error_of(failure) from failure
"""

from __future__ import annotations

import re
from typing import Final

import grpc
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status

from permslip._pb.permslip.v1 import session_pb2
from permslip.coverage import UNANSWERED
from permslip.errors import PermslipError, RefusedError, TimedOutError, UnavailableError
from permslip.reasons import Reason

__all__ = ["error_of", "error_of_refusal", "is_unreached", "reason_of_code"]

_DETAILS: Final = "grpc-status-details-bin"
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
_MAX_WORDS: Final = 400
_TRY_AGAIN: Final = "Try again; if it lasts, check the broker's address and the network."


def error_of(failure: grpc.aio.AioRpcError) -> PermslipError:
    """The error that a failed call means."""
    refusal = _refusal_in(failure)
    if refusal is not None:
        return error_of_refusal(refusal)
    status = failure.code()
    words = _printable(failure.details() or "")
    if status == grpc.StatusCode.DEADLINE_EXCEEDED:
        return TimedOutError("the broker did not answer in time.", remedy="Try again, or allow more time.")
    if status == grpc.StatusCode.UNIMPLEMENTED:
        return UnavailableError(
            "the server does not speak this contract.",
            remedy="Check the broker's address, and update the older software.",
        )
    if status == grpc.StatusCode.UNAVAILABLE:
        return UnavailableError(f"the broker cannot be reached ({words}).", remedy=_TRY_AGAIN)
    return UnavailableError(f"the call failed ({status.name}: {words}).", remedy=_TRY_AGAIN)


def is_unreached(failure: grpc.aio.AioRpcError) -> bool:
    """Whether no broker answered at all, or one that is going away: the same call may succeed elsewhere, or soon."""
    if failure.code() != grpc.StatusCode.UNAVAILABLE:
        return False
    refusal = _refusal_in(failure)
    return refusal is None or refusal.code == Reason.DRAINING.wire


def error_of_refusal(refusal: session_pb2.Refusal, *, about: str = "") -> PermslipError:
    """The error that a refusal means.

    Args:
        refusal: as received; its code is not ``ALLOWED``.
        about: what was refused, at the message's beginning.
    """
    reason = reason_of_code(refusal.code)
    said = _printable(refusal.message)
    # A broker's own words name the field that was at fault; they add to the meaning, they do not replace it.
    detail = f" The broker says: {said}" if said and said != reason.meaning else ""
    message = f"{about}: {reason.meaning}{detail}" if about else f"{reason.meaning}{detail}"
    if reason == Reason.TIMED_OUT:
        return TimedOutError(message, remedy=reason.remedy)
    if reason in UNANSWERED:
        return UnavailableError(message, remedy=reason.remedy)
    return RefusedError(
        message,
        code=reason.name,
        field=_printable(refusal.field),
        remedy=reason.remedy,
        retry_after=max(refusal.retry_after, 0) / 1000,
    )


def reason_of_code(code: int) -> Reason:
    """The reason with this number; ``INTERNAL`` for one that this software does not know."""
    try:
        return Reason(code)
    except ValueError:
        return Reason.INTERNAL


def _refusal_in(failure: grpc.aio.AioRpcError) -> session_pb2.Refusal | None:
    for key, value in failure.trailing_metadata() or ():
        if key != _DETAILS or not isinstance(value, bytes):
            continue
        try:
            for detail in Status.FromString(value).details:
                refusal = session_pb2.Refusal()
                if detail.Unpack(refusal) and refusal.code:
                    return refusal
        except DecodeError:
            return None
    return None


def _printable(text: str) -> str:
    line = _UNPRINTABLE.sub(" ", text).strip()
    return line if len(line) <= _MAX_WORDS else f"{line[:_MAX_WORDS]}…"

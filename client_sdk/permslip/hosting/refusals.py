"""The one table from errors to what a caller gets: gRPC status, reason code, public text.

================================  =====================  ==================================  ==================
error                             status                 reason                              public text
================================  =====================  ==================================  ==================
``RefusedError``                  by its reason          its own                             its own
``MalformedError``                ``INVALID_ARGUMENT``   ``MALFORMED``                       its own
  of a field ``….federation``     ``INVALID_ARGUMENT``   ``WRONG_FEDERATION``                its own
``KeyRejectedError``              ``UNAUTHENTICATED``    ``KEY_NOT_CERTIFIED``               its own
``SealError``                     ``INVALID_ARGUMENT``   ``MALFORMED``                       its own
``ProofError``                    ``INVALID_ARGUMENT``   ``NOT_FOUND``                       its own
other ``VerificationError``       ``UNAUTHENTICATED``    ``BAD_SIGNATURE``                   its own
``TimedOutError``                 ``DEADLINE_EXCEEDED``  ``TIMED_OUT``                       the reason's words
``UnavailableError``              ``UNAVAILABLE``        ``UNREACHABLE``                     the reason's words
anything else                     ``INTERNAL``           ``INTERNAL``                        the reason's words
================================  =====================  ==================================  ==================

Rules:

- An error that the caller caused is told in its own words. Of one that it did not cause the caller gets the reason's
  words, and the log gets the detail: database errors, paths and stack traces are nobody else's business.
- Over a call's status the :class:`Refusal` travels in ``google.rpc.Status.details``; in a stream's frames as it is.

Example::

    >>> reason_of(RefusedError("It was revoked.", code="GRANT_REVOKED")).name
    'GRANT_REVOKED'
    >>> refusal_of(KeyError("id of a learner")).message
    "Something failed inside. It was logged under the query's id."
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from permslip._pb.permslip.v1.session_pb2 import Refusal
from permslip.errors import (
    KeyRejectedError,
    MalformedError,
    ProofError,
    RefusedError,
    SealError,
    TimedOutError,
    UnavailableError,
    VerificationError,
)
from permslip.reasons import Reason

__all__ = ["abort_with", "is_internal", "reason_of", "refusal_of", "status_of"]

_MAX_MESSAGE: Final = 1_024


class _Row(NamedTuple):
    reason: Reason
    own_words: bool


# The first row whose class fits.
_ERRORS: Final[tuple[tuple[type[Exception], _Row], ...]] = (
    (MalformedError, _Row(Reason.MALFORMED, own_words=True)),
    (KeyRejectedError, _Row(Reason.KEY_NOT_CERTIFIED, own_words=True)),
    (SealError, _Row(Reason.MALFORMED, own_words=True)),
    (ProofError, _Row(Reason.NOT_FOUND, own_words=True)),
    (VerificationError, _Row(Reason.BAD_SIGNATURE, own_words=True)),
    (TimedOutError, _Row(Reason.TIMED_OUT, own_words=False)),
    (UnavailableError, _Row(Reason.UNREACHABLE, own_words=False)),
)
_INTERNAL: Final = _Row(Reason.INTERNAL, own_words=False)

# Every other reason is a decision: PERMISSION_DENIED.
_STATUS: Final = {
    Reason.MALFORMED: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.WRONG_FEDERATION: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.VERSION_NOT_SPOKEN: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.TOO_LARGE: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.BAD_SIGNATURE: grpc.StatusCode.UNAUTHENTICATED,
    Reason.KEY_NOT_CERTIFIED: grpc.StatusCode.UNAUTHENTICATED,
    Reason.KEY_EXPIRED: grpc.StatusCode.UNAUTHENTICATED,
    Reason.HELLO_REFUSED: grpc.StatusCode.UNAUTHENTICATED,
    Reason.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.GRANT_UNKNOWN: grpc.StatusCode.NOT_FOUND,
    Reason.UNREACHABLE: grpc.StatusCode.UNAVAILABLE,
    Reason.NO_LEASE: grpc.StatusCode.UNAVAILABLE,
    Reason.CLOCK: grpc.StatusCode.UNAVAILABLE,
    Reason.DRAINING: grpc.StatusCode.UNAVAILABLE,
    Reason.BUSY: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.TIMED_OUT: grpc.StatusCode.DEADLINE_EXCEEDED,
    Reason.CANCELLED: grpc.StatusCode.CANCELLED,
    Reason.INTERNAL: grpc.StatusCode.INTERNAL,
}


def reason_of(error: BaseException) -> Reason:
    """The reason code of an error."""
    return _row(error).reason


def status_of(error: BaseException) -> grpc.StatusCode:
    """The gRPC status of an error."""
    reason = reason_of(error)
    if isinstance(error, ProofError):
        return grpc.StatusCode.INVALID_ARGUMENT
    return _STATUS.get(reason, grpc.StatusCode.PERMISSION_DENIED)


def is_internal(error: BaseException) -> bool:
    """Whether the detail of an error is for the log alone."""
    return not _row(error).own_words


def refusal_of(error: BaseException) -> Refusal:
    """What the caller gets to read."""
    reason, own_words = _row(error)
    message, remedy, field, retry_after = reason.meaning, reason.remedy, "", 0
    if own_words:
        message = str(getattr(error, "message", error)) or message
        remedy = str(getattr(error, "remedy", "")) or remedy
        field = str(getattr(error, "field", ""))
    if isinstance(error, RefusedError):
        retry_after = round(error.retry_after * 1_000)
    return Refusal(
        code=reason.wire, field=field, retry_after=retry_after, message=message[:_MAX_MESSAGE], remedy=remedy
    )


async def abort_with(context: grpc.aio.ServicerContext[Any, Any], error: BaseException) -> NoReturn:
    """End a call with the status of ``error``; the refusal travels in its details.

    Raises:
        grpc.aio.AbortError: always; gRPC catches it.
    """
    refusal = refusal_of(error)
    detail = AnyMessage()
    detail.Pack(refusal)
    status = Status(code=status_of(error).value[0], message=refusal.message, details=[detail])
    sent = rpc_status.to_status(status)
    await context.abort(sent.code, sent.details, sent.trailing_metadata)
    raise AssertionError("abort always raises")


def _row(error: BaseException) -> _Row:
    if isinstance(error, RefusedError):
        reason = Reason.__members__.get(error.code)
        return _INTERNAL if reason is None else _Row(reason, own_words=reason is not Reason.INTERNAL)
    if isinstance(error, MalformedError) and error.field.endswith(".federation"):
        return _Row(Reason.WRONG_FEDERATION, own_words=True)
    return next((row for kind, row in _ERRORS if isinstance(error, kind)), _INTERNAL)

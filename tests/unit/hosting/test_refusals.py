"""The table from errors to what a caller gets."""

from __future__ import annotations

import grpc
import pytest

from permslip.errors import (
    ConfigurationError,
    KeyRejectedError,
    MalformedError,
    PermslipError,
    ProofError,
    RefusedError,
    SealError,
    SignatureError,
    TimedOutError,
    UnavailableError,
    VerificationError,
)
from permslip.hosting.refusals import is_internal, reason_of, refusal_of, status_of
from permslip.reasons import Reason

OWN = "the words of the error"


@pytest.mark.parametrize(
    ("error", "status", "reason", "own_words"),
    [
        (MalformedError(OWN, field="grant.sections[2]"), "INVALID_ARGUMENT", Reason.MALFORMED, True),
        (SignatureError(OWN), "UNAUTHENTICATED", Reason.BAD_SIGNATURE, True),
        (VerificationError(OWN), "UNAUTHENTICATED", Reason.BAD_SIGNATURE, True),
        (KeyRejectedError(OWN), "UNAUTHENTICATED", Reason.KEY_NOT_CERTIFIED, True),
        (SealError(OWN), "INVALID_ARGUMENT", Reason.MALFORMED, True),
        (ProofError(OWN), "INVALID_ARGUMENT", Reason.NOT_FOUND, True),
        (TimedOutError(OWN), "DEADLINE_EXCEEDED", Reason.TIMED_OUT, False),
        (UnavailableError(OWN), "UNAVAILABLE", Reason.UNREACHABLE, False),
        (ConfigurationError(OWN, key="broker.listen"), "INTERNAL", Reason.INTERNAL, False),
        (PermslipError(OWN), "INTERNAL", Reason.INTERNAL, False),
        (KeyError(OWN), "INTERNAL", Reason.INTERNAL, False),
        (RefusedError(OWN, code="GRANT_REVOKED"), "PERMISSION_DENIED", Reason.GRANT_REVOKED, True),
        (RefusedError(OWN, code="HELLO_REFUSED"), "UNAUTHENTICATED", Reason.HELLO_REFUSED, True),
        (RefusedError(OWN, code="NOT_FOUND"), "NOT_FOUND", Reason.NOT_FOUND, True),
        (RefusedError(OWN, code="BUSY"), "RESOURCE_EXHAUSTED", Reason.BUSY, True),
        (RefusedError(OWN, code="DRAINING"), "UNAVAILABLE", Reason.DRAINING, True),
        (RefusedError(OWN, code="INTERNAL"), "INTERNAL", Reason.INTERNAL, False),
        (RefusedError(OWN, code="NO_SUCH_REASON"), "INTERNAL", Reason.INTERNAL, False),
    ],
)
def test_error_has_its_status_reason_and_words(error: Exception, status: str, reason: Reason, own_words: bool) -> None:
    refusal = refusal_of(error)

    assert status_of(error) is grpc.StatusCode[status]
    assert reason_of(error) is reason
    assert refusal.code == reason.wire
    assert is_internal(error) is not own_words
    assert (OWN in refusal.message) is own_words
    assert refusal.message
    assert refusal.remedy


def test_field_remedy_and_retry_reach_the_caller() -> None:
    error = RefusedError("Too many.", code="BUSY", field="queries[7]", remedy="Wait.", retry_after=1.5)

    refusal = refusal_of(error)

    assert (refusal.field, refusal.remedy, refusal.retry_after) == ("queries[7]", "Wait.", 1_500)


def test_long_message_is_cut() -> None:
    assert len(refusal_of(MalformedError("x" * 5_000)).message) == 1_024


def test_every_reason_has_a_status() -> None:
    for reason in Reason:
        assert status_of(RefusedError("", code=reason.name)) is not grpc.StatusCode.OK

"""What went wrong is one of the product's own errors, in words that nobody else chose alone."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.status_pb2 import Status

from permslip._pb.permslip.v1 import session_pb2
from permslip.client.failures import error_of, error_of_refusal, is_unreached, reason_of_code
from permslip.coverage import UNANSWERED
from permslip.errors import PermslipError, RefusedError, TimedOutError, UnavailableError
from permslip.reasons import Reason


def failure(code: grpc.StatusCode, details: str = "", raw: bytes | None = None) -> grpc.aio.AioRpcError:
    trailing = grpc.aio.Metadata() if raw is None else grpc.aio.Metadata(("grpc-status-details-bin", raw))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, details=details)


def with_refusal(code: grpc.StatusCode, reason: int) -> grpc.aio.AioRpcError:
    detail = AnyMessage()
    detail.Pack(session_pb2.Refusal(code=reason))  # type: ignore[arg-type]  # also numbers that are not known
    return failure(code, raw=Status(code=code.value[0], details=[detail]).SerializeToString())


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, UnavailableError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, TimedOutError),
        (grpc.StatusCode.UNIMPLEMENTED, UnavailableError),
        (grpc.StatusCode.INTERNAL, UnavailableError),
        (grpc.StatusCode.PERMISSION_DENIED, UnavailableError),
        (grpc.StatusCode.UNKNOWN, UnavailableError),
    ],
)
def test_a_status_without_refusal_is_nobodys_no(code: grpc.StatusCode, kind: type[PermslipError]) -> None:
    error = error_of(failure(code, "details"))

    assert type(error) is kind
    assert error.remedy


@pytest.mark.parametrize("reason", [each for each in Reason if each != Reason.ALLOWED])
def test_every_reason_is_a_no_or_an_unanswered_question_with_its_remedy(reason: Reason) -> None:
    error = error_of(with_refusal(grpc.StatusCode.PERMISSION_DENIED, reason.wire))

    assert isinstance(error, UnavailableError) == (reason in UNANSWERED)
    assert isinstance(error, TimedOutError) == (reason is Reason.TIMED_OUT)
    assert error.remedy == reason.remedy
    if isinstance(error, RefusedError):
        assert error.code == reason.name


@pytest.mark.parametrize("raw", [b"", b"\xff\xff", Status(code=7).SerializeToString()])
def test_details_that_hold_no_refusal_are_none(raw: bytes) -> None:
    assert isinstance(error_of(failure(grpc.StatusCode.PERMISSION_DENIED, raw=raw)), UnavailableError)


def test_only_a_broker_that_was_not_reached_is_asked_elsewhere() -> None:
    unavailable = grpc.StatusCode.UNAVAILABLE

    assert is_unreached(failure(unavailable))
    assert is_unreached(with_refusal(unavailable, Reason.DRAINING.wire))
    assert not is_unreached(with_refusal(unavailable, Reason.UNREACHABLE.wire))
    assert not is_unreached(failure(grpc.StatusCode.INTERNAL))


def test_a_code_that_is_not_known_is_internal() -> None:
    assert reason_of_code(9_999) is Reason.INTERNAL


def test_a_brokers_words_add_to_the_meaning_as_one_printable_line() -> None:
    refusal = session_pb2.Refusal(
        code=Reason.MALFORMED.wire,
        field="grant.expires_at\x1b[2J",
        message="grant.expires_at: expected\x1b[31m an end\nin the future \u202e!",
        retry_after=1_500,
    )

    error = error_of_refusal(refusal, about="grant")

    assert isinstance(error, RefusedError)
    assert error.message == (
        "grant: The message is not what the format says. "
        "The broker says: grant.expires_at: expected [31m an end in the future  !"
    )
    assert error.field == "grant.expires_at [2J"
    assert error.retry_after == 1.5


def test_a_brokers_words_are_cut_when_they_are_long() -> None:
    refusal = session_pb2.Refusal(code=Reason.MALFORMED.wire, message="x" * 10_000)

    assert len(error_of_refusal(refusal).message) < 600

"""What is refused before anything is decided: each with its reason, by real processes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from permslip import statements as st
from permslip._pb.permslip.v1 import (
    auditor_pb2,
    auditor_pb2_grpc,
    guardian_pb2,
    guardian_pb2_grpc,
    provider_pb2,
    session_pb2,
    session_pb2_grpc,
    statement_pb2 as pb,
)
from permslip.client.failures import error_of
from permslip.errors import RefusedError
from permslip.reasons import Reason
from permslip.slip import Slip
from tests.federation.district import ATTENDANCE, CHILD, District
from tests.federation.processes import now
from tests.federation.requester import failure_of, say_hello

pytestmark = pytest.mark.e2e


@asynccontextmanager
async def calling(district: District) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(district.address) as channel:
        yield channel


async def greeting(district: District, channel: grpc.aio.Channel, **changes: object) -> pb.Envelope:
    """The tutor's, with some fields changed."""
    stub = session_pb2_grpc.SessionServiceStub(channel)
    given = await stub.GetChallenge(session_pb2.GetChallengeRequest(federation=district.federation))
    hello = pb.Hello.FromString(say_hello(given.challenge, district.tutor, broker=district.root, now=now).payload)
    for name, value in changes.items():
        if isinstance(value, list):
            getattr(hello, name)[:] = value
        else:
            setattr(hello, name, value)
    return st.sign(st.HELLO, hello, [district.tutor.key]).envelope


def checkpoint_of(ledger: bytes, hello: pb.Envelope) -> auditor_pb2.GetCheckpointRequest:
    return auditor_pb2.GetCheckpointRequest(hello=hello, ledger=ledger)


async def refusal_of(failure: grpc.aio.AioRpcError) -> Reason:
    error = error_of(failure)
    assert isinstance(error, RefusedError)
    assert error.remedy
    return Reason[error.code]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"versions": [7]}, Reason.VERSION_NOT_SPOKEN),
        ({"server_nonce": bytes(48)}, Reason.HELLO_REFUSED),
        ({"broker": bytes(range(32))}, Reason.HELLO_REFUSED),
        ({"kind": pb.PRINCIPAL_KIND_OPERATOR}, Reason.NOT_ALLOWED),
    ],
)
async def test_a_greeting_that_does_not_hold_is_refused(
    district: District, changes: dict[str, object], reason: Reason
) -> None:
    async with calling(district) as channel:
        hello = await greeting(district, channel, **changes)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await auditor_pb2_grpc.AuditorServiceStub(channel).GetCheckpoint(checkpoint_of(district.root, hello))
    assert await refusal_of(refused.value) == reason


async def test_a_ledger_that_is_not_kept_here_is_not_found(district: District) -> None:
    async with calling(district) as channel:
        hello = await greeting(district, channel)
        stub = auditor_pb2_grpc.AuditorServiceStub(channel)
        assert (await stub.GetCheckpoint(checkpoint_of(district.root, hello))).checkpoint.note
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.GetCheckpoint(checkpoint_of(os.urandom(32), hello))
    assert await refusal_of(refused.value) == Reason.NOT_FOUND


async def test_a_message_with_too_many_calls_ends_the_stream(district: District) -> None:
    async with district.requester() as tutor:
        nothing = provider_pb2.ExchangeCall(cancel=provider_pb2.Cancel(query_id=bytes(32)))
        await tutor.send(*[nothing] * 1_025)
        assert await tutor.ended() == grpc.StatusCode.INVALID_ARGUMENT
        assert await refusal_of(await failure_of(tutor.call)) == Reason.TOO_LARGE


async def test_a_query_that_cannot_be_believed_is_told_so_and_the_stream_goes_on(district: District) -> None:
    [grant] = await district.consent(district.high, sections=[ATTENDANCE])
    good = district.query(grant, [ATTENDANCE]).envelope
    garbage = pb.Envelope(payload_type=good.payload_type, payload=b"\xff", signatures=good.signatures)
    unsigned = pb.Envelope(payload_type=good.payload_type, payload=good.payload)
    foreign = district.query(grant, [ATTENDANCE], federation="another.example").envelope
    stolen = district.query(grant, [ATTENDANCE], who=district.clinic).envelope
    async with district.requester() as tutor:
        answers = [await tutor.ask(each) for each in (garbage, foreign, stolen)]
        assert [each.reason for each in answers] == [
            Reason.MALFORMED,
            Reason.WRONG_FEDERATION,
            Reason.NOT_ALLOWED,
        ]
        [answer] = await tutor.ask_all([unsigned])
        assert answer.reason == Reason.BAD_SIGNATURE
        # It was not the query that was refused, but the bytes around it.
        del tutor.answers[next(iter(each for each, found in tutor.answers.items() if found is answer))]
        assert (await tutor.ask(good)).reason == Reason.ALLOWED


async def test_a_guessed_slip_is_refused_and_says_no_more(district: District) -> None:
    slip = district.high.slip(CHILD)
    guessed = Slip(slip.node, slip.selector, os.urandom(len(slip.secret)))
    async with district.guardian() as mother:
        with pytest.raises(RefusedError) as refused:
            await mother.link(guessed.text())
        assert refused.value.code == Reason.LINK_REFUSED.name
        assert (await mother.link(slip.text())).handle == district.handles[district.high.root]


async def test_a_guardian_sees_nothing_of_slices_that_are_not_hers(district: District) -> None:
    async with calling(district) as channel:
        stub = session_pb2_grpc.SessionServiceStub(channel)
        given = await stub.GetChallenge(session_pb2.GetChallengeRequest(federation=district.federation))
        hello = say_hello(given.challenge, district.mother, broker=district.root, now=now)
        request = guardian_pb2.ListAccessesRequest(
            hello=hello, slices=[pb.Slice(node=district.high.root, handle=os.urandom(16))]
        )
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await guardian_pb2_grpc.GuardianServiceStub(channel).ListAccesses(request)
    assert await refusal_of(refused.value) == Reason.NOT_ALLOWED

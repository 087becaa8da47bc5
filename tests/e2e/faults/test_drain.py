"""SIGTERM in the middle of an answer: the answer comes whole, nothing new begins, the process ends with exit code 0."""

from __future__ import annotations

import asyncio

import pytest

from permslip._pb.permslip.v1 import provider_pb2
from permslip.reasons import Reason
from tests.federation.consents import Asked
from tests.federation.district import ATTENDANCE, District
from tests.federation.requester import Answer, Requester, query_call
from tests.federation.school_process import until

pytestmark = pytest.mark.e2e

EVERYTHING = 1 << 30


async def stand_still(tutor: Requester, asked: Asked) -> Answer:
    """Ask, and give no credit: the answer stands still in its middle."""
    tutor.credits = False
    tutor.read_on()
    answer = tutor.expect(asked.id)
    await tutor.send(query_call(asked.envelope))
    await until(lambda: answer.sealed_bytes, "the answer begins")
    return answer


def credit(asked: Asked) -> provider_pb2.ExchangeCall:
    """Room for whatever is left of an answer."""
    return provider_pb2.ExchangeCall(credit=provider_pb2.Credit(query_id=asked.id, bytes=EVERYTHING))


async def test_a_draining_broker_finishes_what_is_open_and_takes_nothing_new(district: District) -> None:
    [grant] = await district.consent(district.high)
    before = [district.attachments(each) for each in district.schools]
    async with district.requester() as tutor:
        asked = district.query(grant)
        answer = await stand_still(tutor, asked)
        ending = asyncio.ensure_future(asyncio.to_thread(district.processes.broker.end))
        await tutor.draining.wait()
        assert (await tutor.ask(district.query(grant))).reason == Reason.DRAINING
        await tutor.send(credit(asked))
        await tutor.finished(answer)
        assert answer.reason == Reason.ALLOWED
        assert len(answer.records(asked, node=district.high.root)) == 530
        assert await ending == 0
    assert await district.endings(district.broker_ledger, asked.id) == [Reason.ALLOWED.wire]
    district.start_broker()
    for school, count in zip(district.schools, before, strict=True):
        await district.until_fit(school, attached=count)


async def test_a_draining_node_finishes_what_is_open_and_takes_nothing_new(district: District) -> None:
    high = district.high
    [grant] = await district.consent(high)
    async with district.requester() as tutor:
        asked = district.query(grant)
        answer = await stand_still(tutor, asked)
        ending = asyncio.ensure_future(asyncio.to_thread(high.end))
        # Small answers still come until the signal has arrived.
        while (other := await tutor.ask(district.query(grant, [ATTENDANCE]))).reason == Reason.ALLOWED:
            assert not ending.done()
        assert (other.reason, other.outcome.said_by) == (Reason.DRAINING, high.root)
        await tutor.send(credit(asked))
        await tutor.finished(answer)
        assert answer.reason == Reason.ALLOWED
        assert len(answer.records(asked, node=high.root)) == 530
        assert await ending == 0
        await district.until_detached(high)
        assert (await tutor.ask(district.query(grant))).reason == Reason.UNREACHABLE
    assert await district.endings(high.ledger, asked.id) == [Reason.ALLOWED.wire]
    assert await district.endings(district.broker_ledger, asked.id) == [Reason.ALLOWED.wire]

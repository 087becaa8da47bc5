"""The broker dies between its decision and the answer, and is started again.

The decision is in its ledger, the query cannot be sent again, and a retry is free exactly where nothing was released.
"""

from __future__ import annotations

import asyncio

import pytest

from permslip.reasons import Reason
from tests.federation.district import District
from tests.federation.requester import query_call
from tests.federation.school_process import until

pytestmark = pytest.mark.e2e


async def test_a_retry_is_free_when_the_node_never_heard_of_the_query(district: District) -> None:
    high = district.high
    [grant] = await district.consent(high, max_uses=1)
    before = district.attachments(high)
    async with district.requester() as tutor:
        asked = district.query(grant)
        high.cable.hold("down")
        await tutor.send(query_call(asked.envelope))
        await until(lambda: district.broker_ledger.decisions(asked.id), "the broker decides")
        district.kill_broker()
    high.cable.cut()
    district.start_broker()
    await district.until_fit(high, attached=before)
    assert district.broker_ledger.decisions(asked.id) == [Reason.ALLOWED.wire], "what was decided is not forgotten"
    assert high.ledger.decisions(asked.id) == []

    async with district.requester() as tutor:
        assert (await tutor.ask(asked)).reason == Reason.QUERY_REPLAYED
        retry = district.query(grant, retry_of=asked.id)
        assert (await tutor.ask(retry)).reason == Reason.ALLOWED
        assert (await tutor.ask(district.query(grant))).reason == Reason.USES_EXHAUSTED
    assert high.ledger.uses(grant.id) == 1


async def test_a_retry_costs_a_use_when_the_node_had_released_something(district: District) -> None:
    high = district.high
    [grant] = await district.consent(high, max_uses=2)
    before = district.attachments(high)
    async with district.requester() as tutor:
        asked = district.query(grant)
        # The beginning of the first chunk: nothing that the broker could pass on.
        high.cable.hold("up", after=20_000)
        await tutor.send(query_call(asked.envelope))
        await until(lambda: high.ledger.decisions(asked.id), "the node decides")
        await asyncio.to_thread(high.cable.until_held)
        district.kill_broker()
    high.cable.cut()
    [ended] = await until(lambda: high.ledger.events("access_answered", query_id=asked.id), "the answer ends")
    assert ended.reason == Reason.UNREACHABLE.wire
    district.start_broker()
    await district.until_fit(high, attached=before)
    assert district.is_logged(asked.id, high), "what was decided is not forgotten"

    async with district.requester() as tutor:
        assert (await tutor.ask(asked)).reason == Reason.QUERY_REPLAYED
        retry = district.query(grant, retry_of=asked.id)
        assert (await tutor.ask(retry)).reason == Reason.ALLOWED
        assert (await tutor.ask(district.query(grant))).reason == Reason.USES_EXHAUSTED
    assert ended.sealed_bytes > 0
    assert high.ledger.uses(grant.id) == 2

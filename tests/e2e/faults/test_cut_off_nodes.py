"""A node that is offline, cut off, or whose clock is wrong answers nobody; what it missed comes first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from permslip._pb.permslip.v1 import node_pb2
from permslip.hosting.logs import query_text
from permslip.quantities import Millis
from permslip.reasons import Reason
from permslip_node.app import RunningNode, open_node
from tests.federation.district import District
from tests.federation.lying_broker import Line
from tests.federation.processes import now
from tests.federation.requester import query_call
from tests.federation.school_process import SchoolProcess, until

pytestmark = pytest.mark.e2e


async def test_a_revocation_waits_for_an_offline_node_which_answers_nobody_before_it_has_it(
    district: District,
) -> None:
    high = district.high
    [revoked, other] = [*await district.consent(high), *await district.consent(high)]
    assert high.end() == 0
    await district.until_detached(high)
    revocation = district.revocation(revoked)
    state = await district.begin_to_revoke(revocation)
    assert state.position > 0
    assert not state.node_attached
    assert not state.HasField("acknowledgement")

    held: list[node_pb2.BrokerFrame] = []

    def slow(message: node_pb2.AttachResponse, _line: Line) -> node_pb2.AttachResponse | None:
        """Everything comes but the pushes, which come last."""
        held.extend(each for each in message.frames if each.HasField("push"))
        kept = [each for each in message.frames if not each.HasField("push")]
        return node_pb2.AttachResponse(frames=kept) if kept else None

    async with district.lying() as liar:
        liar.down["Attach"] = slow
        high.cable.target = liar.port
        before = len(high.said("attached"))
        high.start()
        await high.until_said("attached", more_than=before)
        await until(lambda: held, "the push is on its way")
        async with district.requester() as tutor:
            answer = await tutor.ask(district.query(other))
            assert (answer.reason, answer.outcome.said_by) == (Reason.NO_LEASE, high.root)
            liar.down.clear()
            await (await liar.line("Attach")).say_down(node_pb2.AttachResponse(frames=held))
            # The very same statement, once more: nothing new is recorded, and its state is told.
            state = await district.revoke(revocation)
            assert state.HasField("acknowledgement")
            await district.until_fit(high)
            assert (await tutor.ask(district.query(other))).reason == Reason.ALLOWED
            assert (await tutor.ask(district.query(revoked))).reason == Reason.GRANT_REVOKED
        await district.attach_through([high], district.port)


async def test_a_node_stops_in_the_middle_of_an_answer_when_the_broker_is_frozen(district: District) -> None:
    high = district.high
    [grant] = await district.consent(high)
    async with district.requester(patient=True) as tutor:
        tutor.credits = False
        tutor.read_on()
        asked = district.query(grant)
        answer = tutor.expect(asked.id)
        await tutor.send(query_call(asked.envelope))
        await until(lambda: answer.sealed_bytes, "the answer begins")
        district.freeze_broker()
        await high.until_said("answer_ended", query_id=query_text(asked.id), reason="NO_LEASE")
        district.thaw_broker()
        await tutor.finished(answer)
    assert await district.endings(high.ledger, asked.id) == [Reason.NO_LEASE.wire]
    # Its word reaches the broker unless the node took the frozen connection for dead before.
    assert answer.reason in {Reason.NO_LEASE, Reason.UNREACHABLE}
    assert await district.endings(district.broker_ledger, asked.id) == [answer.reason.wire]


async def test_a_node_whose_clock_is_behind_its_own_ledger_answers_nobody(district: District) -> None:
    high = district.high
    [grant] = await district.consent(high)
    behind = 0

    def clock() -> Millis:
        return Millis(now() - behind)

    high.end()
    async with in_this_process(district, high, clock), district.requester() as tutor:
        assert (await tutor.ask(district.query(grant))).reason == Reason.ALLOWED
        behind = 120_000
        asked = district.query(grant)
        answer = await tutor.ask(asked)
        behind = 0
        assert (await tutor.ask(district.query(grant))).reason == Reason.ALLOWED
    assert (answer.reason, answer.outcome.said_by) == (Reason.CLOCK, high.root)
    assert high.ledger.decisions(asked.id) == [Reason.CLOCK.wire], "the refusal is an entry as well"


@asynccontextmanager
async def in_this_process(
    district: District, school: SchoolProcess, clock: Callable[[], Millis]
) -> AsyncIterator[RunningNode]:
    """Run a school's node with another clock; its own process has ended."""
    async with open_node(school.settings, clock=clock) as node:
        async with asyncio.timeout(20):
            await node.fit.wait()
        yield node

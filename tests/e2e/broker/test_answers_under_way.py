"""What happens to an answer that is not whole yet: deadlines, cancelling, nodes that vanish or misbehave."""

from __future__ import annotations

import asyncio

import pytest

from permslip._pb.permslip.v1 import node_pb2, provider_pb2, session_pb2
from permslip.errors import UnavailableError
from permslip.reasons import Reason
from permslip_broker.routing_limits import RoutingLimits
from tests.e2e.broker.small_federation import SmallFederation
from tests.federation.consents import Asked
from tests.federation.requester import query_call


def cancel_call(asked: Asked) -> provider_pb2.ExchangeCall:
    return provider_pb2.ExchangeCall(cancel=provider_pb2.Cancel(query_id=asked.id))


async def ends_of(federation: SmallFederation, asked: Asked) -> list[Reason]:
    """What the ledger says became of a query."""
    found = await federation.events("access_answered")
    return [Reason(each.reason) for each in found if each.query_id == asked.id]


async def test_an_answer_that_does_not_come_in_time_is_told_so_and_the_node_stops(federation: SmallFederation) -> None:
    async with federation.attached() as node, federation.requester(federation.tutor) as tutor:
        asked = federation.query(federation.tutor, await federation.endorsed_grant())
        node.answers.clear()
        answer = await tutor.ask(asked, deadline=60)
        assert answer.reason == Reason.TIMED_OUT
        await node.until(lambda: node.cancelled == [asked.id])
    assert await ends_of(federation, asked) == [Reason.TIMED_OUT]


async def test_the_node_is_told_how_long_it_has(federation: SmallFederation) -> None:
    async with federation.attached() as node, federation.requester(federation.tutor) as tutor:
        await tutor.ask(federation.query(federation.tutor, await federation.endorsed_grant()), deadline=5_000)
    assert 0 < node.asked[0].deadline <= 5_000


async def test_a_node_that_vanishes_in_the_middle_of_an_answer_leaves_it_unreachable(
    federation: SmallFederation,
) -> None:
    async with federation.requester(federation.tutor) as tutor:
        tutor.credits = False
        async with federation.attached() as node:
            asked = federation.query(federation.tutor, await federation.endorsed_grant())
            node.records, node.body = 400, 4_000
            tutor.read_on()
            await tutor.send(query_call(asked.envelope))
            await node.stalled.wait()
        answer = await tutor.finished(tutor.expect(asked.id))
    assert answer.reason == Reason.UNREACHABLE
    assert answer.outcome.said_by == b""
    assert await ends_of(federation, asked) == [Reason.UNREACHABLE]


async def test_other_nodes_answers_are_not_touched_when_one_vanishes(federation: SmallFederation) -> None:
    async with federation.attached(federation.platform) as platform, federation.requester(federation.tutor) as tutor:
        async with federation.attached() as school:
            gone = federation.query(federation.tutor, await federation.endorsed_grant())
            stays = federation.query(federation.tutor, await federation.endorsed_grant(federation.platform))
            school.answers.clear()
            platform.answers.clear()
            tutor.read_on()
            await tutor.send(query_call(gone.envelope), query_call(stays.envelope))
            await school.until(lambda: bool(school.asked))
            await platform.until(lambda: bool(platform.asked))
        assert (await tutor.finished(tutor.expect(gone.id))).reason == Reason.UNREACHABLE
        platform.answers.set()
        assert (await tutor.finished(tutor.expect(stays.id))).reason == Reason.ALLOWED


async def test_a_cancelled_query_ends_at_the_node_too(federation: SmallFederation) -> None:
    async with federation.attached() as node, federation.requester(federation.tutor) as tutor:
        asked = federation.query(federation.tutor, await federation.endorsed_grant())
        node.answers.clear()
        tutor.read_on()
        await tutor.send(query_call(asked.envelope))
        await node.until(lambda: bool(node.asked))
        await tutor.send(cancel_call(asked))
        assert (await tutor.finished(tutor.expect(asked.id))).reason == Reason.CANCELLED
        await node.until(lambda: node.cancelled == [asked.id])
    assert await ends_of(federation, asked) == [Reason.CANCELLED]


async def test_a_query_cancelled_in_its_own_message_never_reaches_the_node(federation: SmallFederation) -> None:
    async with federation.attached() as node, federation.requester(federation.tutor) as tutor:
        grant = await federation.endorsed_grant()
        asked = federation.query(federation.tutor, grant)
        tutor.read_on()
        await tutor.send(query_call(asked.envelope), cancel_call(asked))
        assert (await tutor.finished(tutor.expect(asked.id))).reason == Reason.CANCELLED
        await tutor.ask(federation.query(federation.tutor, grant))
        assert [each.query.payload for each in node.asked] != [asked.envelope.payload]
        assert len(node.asked) == 1
    assert await ends_of(federation, asked) == [Reason.CANCELLED]


async def test_a_requester_that_hangs_up_ends_its_queries(federation: SmallFederation) -> None:
    async with federation.attached() as node:
        async with federation.requester(federation.tutor) as tutor:
            asked = federation.query(federation.tutor, await federation.endorsed_grant())
            node.answers.clear()
            await tutor.send(query_call(asked.envelope))
            await node.until(lambda: bool(node.asked))
        await node.until(lambda: node.cancelled == [asked.id])
        assert federation.broker.routing.open_queries == 0
    assert await ends_of(federation, asked) == [Reason.CANCELLED]


async def test_a_requester_that_has_said_all_still_gets_its_answers(federation: SmallFederation) -> None:
    async with federation.attached() as node, federation.requester(federation.tutor) as tutor:
        asked = federation.query(federation.tutor, await federation.endorsed_grant())
        node.answers.clear()
        tutor.read_on()
        await tutor.send(query_call(asked.envelope))
        await tutor.call.done_writing()
        await node.until(lambda: bool(node.asked))
        node.answers.set()
        assert (await tutor.finished(tutor.expect(asked.id))).reason == Reason.ALLOWED
        assert (await tutor.ended()).name == "OK"


async def test_a_node_cannot_answer_what_was_asked_of_another(federation: SmallFederation) -> None:
    async with (
        federation.attached() as school,
        federation.attached(federation.platform) as platform,
        federation.requester(federation.tutor) as tutor,
    ):
        asked = federation.query(federation.tutor, await federation.endorsed_grant())
        school.answers.clear()
        tutor.read_on()
        await tutor.send(query_call(asked.envelope))
        await school.until(lambda: bool(school.asked))
        stray = provider_pb2.Answer(
            query_id=asked.id,
            outcome=provider_pb2.Outcome(refusal=session_pb2.Refusal(code=Reason.GRANT_REVOKED.wire)),
        )
        platform.outbox.put(node_pb2.NodeFrame(answer=stray))
        await platform.lease()
        assert federation.broker.routing.tally.stray_answers == 1
        school.answers.set()
        assert (await tutor.finished(tutor.expect(asked.id))).reason == Reason.ALLOWED


async def test_a_node_cannot_speak_in_another_s_name(federation: SmallFederation) -> None:
    async with federation.attached() as node, federation.requester(federation.tutor) as tutor:
        asked = federation.query(federation.tutor, await federation.endorsed_grant())
        node.answers.clear()
        tutor.read_on()
        await tutor.send(query_call(asked.envelope))
        await node.until(lambda: bool(node.asked))
        outcome = provider_pb2.Outcome(
            refusal=session_pb2.Refusal(code=Reason.NO_LEASE.wire), said_by=federation.platform.root
        )
        node.outbox.put(node_pb2.NodeFrame(answer=provider_pb2.Answer(query_id=asked.id, outcome=outcome)))
        answer = await tutor.finished(tutor.expect(asked.id))
    assert answer.reason == Reason.NO_LEASE
    assert answer.outcome.said_by == federation.school.root
    assert await ends_of(federation, asked) == [Reason.NO_LEASE]


async def test_a_node_that_sends_more_than_its_credit_loses_the_answer(federation: SmallFederation) -> None:
    async with federation.attached() as node, federation.requester(federation.tutor) as tutor:
        tutor.credits = False
        asked = federation.query(federation.tutor, await federation.endorsed_grant())
        node.records, node.body, node.heeds_credit = 400, 4_000, False
        answer = await tutor.ask(asked)
    assert answer.reason == Reason.INTERNAL
    assert answer.sealed_bytes < 400 * 4_000


async def test_an_answer_with_an_oversized_piece_is_ended(federation: SmallFederation) -> None:
    async with federation.attached() as node, federation.requester(federation.tutor) as tutor:
        asked = federation.query(federation.tutor, await federation.endorsed_grant())
        node.answers.clear()
        tutor.read_on()
        await tutor.send(query_call(asked.envelope))
        await node.until(lambda: bool(node.asked))
        piece = provider_pb2.Answer(query_id=asked.id, chunks=[bytes(70_000)])
        node.outbox.put(node_pb2.NodeFrame(answer=piece))
        assert (await tutor.finished(tutor.expect(asked.id))).reason == Reason.INTERNAL


async def test_a_node_gets_no_more_queries_at_once_than_it_answers(federation: SmallFederation) -> None:
    async with federation.attached(max_open=2) as node, federation.requester(federation.tutor) as tutor:
        grant = await federation.endorsed_grant()
        node.answers.clear()
        asked = [federation.query(federation.tutor, grant) for _ in range(5)]
        tutor.read_on()
        await tutor.send(*[query_call(each.envelope) for each in asked])
        await node.until(lambda: len(node.asked) == 2)
        await node.lease()
        assert len(node.asked) == 2
        await tutor.send(cancel_call(asked[2]))
        await tutor.finished(tutor.expect(asked[2].id))
        node.answers.set()
        others = [each for number, each in enumerate(asked) if number != 2]
        answers = [await tutor.finished(tutor.expect(each.id)) for each in others]
        assert [each.reason for each in answers] == [Reason.ALLOWED] * 4
        assert len(node.asked) == 4, "the cancelled one was never sent"


async def test_more_queries_than_a_stream_may_have_open_are_told_busy(tmp_path: object) -> None:
    made = SmallFederation(tmp_path)  # type: ignore[arg-type] # a fixture's path
    async with made.running(RoutingLimits(max_open=2)):
        await made.admit_all()
        async with made.attached() as node, made.requester(made.tutor) as tutor:
            assert tutor.welcome.max_open == 2
            grant = await made.endorsed_grant()
            node.answers.clear()
            asked = [made.query(made.tutor, grant) for _ in range(3)]
            tutor.read_on()
            await tutor.send(*[query_call(each.envelope) for each in asked])
            busy = await tutor.finished(tutor.expect(asked[2].id))
            assert busy.reason == Reason.BUSY
            assert busy.outcome.refusal.retry_after > 0
            node.answers.set()
            await asyncio.gather(*[tutor.finished(tutor.expect(each.id)) for each in asked[:2]])
            tutor.answers.clear()
            assert (await tutor.ask(asked[2])).reason == Reason.ALLOWED, "the very same query may be sent again"


async def test_a_requester_that_leaves_with_its_answer_does_not_change_how_it_ended(
    federation: SmallFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last piece has arrived, and the stream is gone before the broker could note that it was written."""

    def gone(_requester: object) -> None:
        monkeypatch.undo()
        raise UnavailableError("the requester hung up.")

    async with federation.attached(), federation.requester(federation.tutor) as tutor:
        asked = federation.query(federation.tutor, await federation.endorsed_grant())
        await tutor.ask(federation.query(federation.tutor, await federation.endorsed_grant()))
        monkeypatch.setattr(federation.broker.routing, "written", gone)
        answer = await tutor.ask(asked)
        assert answer.reason == Reason.ALLOWED
    await federation.broker.routing.idle()
    assert await ends_of(federation, asked) == [Reason.ALLOWED]

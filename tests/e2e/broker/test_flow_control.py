"""A slow reader: what waits for it is bounded, and nobody else waits for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from permslip import statements as st
from permslip._pb.permslip.v1 import provider_pb2, statement_pb2 as pb
from permslip.reasons import Reason
from permslip_broker.credit import CHUNK
from permslip_broker.routing_limits import RoutingLimits
from tests.e2e.broker.small_federation import FEDERATION, SmallFederation
from tests.federation.consents import Asked
from tests.federation.requester import query_call
from tests.federation.simulated_node import SimulatedNode

LIMITS = RoutingLimits(high_water=128 << 10, first_credit=72 << 10, answer_credit=160 << 10)


@pytest.fixture
async def narrow(tmp_path: Path):  # type: ignore[no-untyped-def]
    """A broker with small bounds."""
    made = SmallFederation(tmp_path)
    async with made.running(LIMITS):
        await made.admit_all()
        yield made


def greed(asked: Asked) -> provider_pb2.ExchangeCall:
    """The claim to have room for everything, by somebody who takes nothing."""
    return provider_pb2.ExchangeCall(credit=provider_pb2.Credit(query_id=asked.id, bytes=1 << 40))


async def clogged(federation: SmallFederation, node: SimulatedNode, answers: int) -> None:
    """Wait until the network takes no more: the broker holds something, and round trips to the node change nothing."""
    routing = federation.broker.routing
    unchanged, before = 0, (0, 0)
    while unchanged < 20:
        await node.starved(answers)
        now = (routing.held_bytes, routing.tally.relayed_bytes)
        unchanged = unchanged + 1 if now == before and routing.held_bytes else 0
        before = now


async def test_what_waits_for_a_slow_reader_is_bounded_however_much_it_asks_for(narrow: SmallFederation) -> None:
    async with narrow.attached() as node, narrow.requester(narrow.tutor) as slow:
        grant = await narrow.endorsed_grant()
        node.records, node.body = 1_000, 4_000
        asked = [narrow.query(narrow.tutor, grant) for _ in range(8)]
        await slow.send(*[query_call(each.envelope) for each in asked])
        await slow.send(*[greed(each) for each in asked])
        await node.until(lambda: len(node.asked) == len(asked))
        await clogged(narrow, node, len(asked))
        bound = LIMITS.high_water + len(asked) * (LIMITS.first_credit + CHUNK + 1_024)
        assert narrow.broker.routing.held_bytes <= bound
        slow.read_on()
        answers = [await slow.finished(slow.expect(each.id)) for each in asked]
        assert [each.reason for each in answers] == [Reason.ALLOWED] * len(asked)
        assert len(answers[0].records(asked[0], node=narrow.school.root)) == 1_000


async def test_a_slow_reader_does_not_hold_up_another(narrow: SmallFederation) -> None:
    async with (
        narrow.attached() as node,
        narrow.requester(narrow.tutor) as slow,
        narrow.requester(narrow.mother) as quick,
    ):
        large = await narrow.endorsed_grant()
        own = await narrow.endorsed_grant(grantee=narrow.mother.root, purpose=9)
        node.records, node.body = 1_000, 4_000
        asked = narrow.query(narrow.tutor, large)
        await slow.send(query_call(asked.envelope))
        await node.starved(1)
        node.records, node.body = 50, 120
        assert (await quick.ask(narrow.query(narrow.mother, own))).reason == Reason.ALLOWED


async def test_another_school_cannot_cut_a_slow_reader_off_by_acknowledging_what_is_not_its_own(tmp_path: Path) -> None:
    narrow = SmallFederation(tmp_path)
    async with narrow.running(replace(LIMITS, quiet_within=0.1)):
        await narrow.admit_all()
        async with (
            narrow.attached() as node,
            narrow.attached(narrow.platform) as liar,
            narrow.requester(narrow.tutor) as slow,
        ):
            grant = await narrow.endorsed_grant()
            node.records, node.body = 1_000, 4_000
            asked = [narrow.query(narrow.tutor, grant) for _ in range(8)]
            await slow.send(*[query_call(each.envelope) for each in asked])
            await slow.send(*[greed(each) for each in asked])
            await node.until(lambda: len(node.asked) == len(asked))
            await clogged(narrow, node, len(asked))
            said = pb.Acknowledgement(
                federation=FEDERATION,
                nonce=bytes(16),
                created_at=narrow.now(),
                signer=narrow.platform.signer,
                statement_id=bytes(32),
                target_id=grant.id,
                ledger_size=1,
            )
            liar.say(st.sign(st.ACKNOWLEDGEMENT, said, [narrow.platform.key]))
            await liar.until(lambda: bool(liar.results))
            answers = [await slow.finished(slow.expect(each.id)) for each in asked]
    assert [each.reason for each in answers] == [Reason.ALLOWED] * len(asked)


async def test_a_large_answer_does_not_hold_up_a_small_one_on_the_same_stream(narrow: SmallFederation) -> None:
    async with narrow.attached() as node, narrow.requester(narrow.tutor) as tutor:
        tutor.credits = False
        grant = await narrow.endorsed_grant()
        node.records, node.body = 1_000, 4_000
        large = narrow.query(narrow.tutor, grant)
        tutor.read_on()
        await tutor.send(query_call(large.envelope))
        await node.starved(1)
        node.records, node.body = 50, 120
        assert (await tutor.ask(narrow.query(narrow.tutor, grant))).reason == Reason.ALLOWED
        assert not tutor.expect(large.id).whole.is_set()


async def test_the_whole_broker_has_a_bound_too(tmp_path: Path) -> None:
    made = SmallFederation(tmp_path)
    async with made.running(RoutingLimits(high_water=64 << 10, memory=1)):
        await made.admit_all()
        async with made.attached() as node, made.requester(made.tutor) as slow, made.requester(made.mother) as other:
            grant = await made.endorsed_grant()
            own = await made.endorsed_grant(grantee=made.mother.root, purpose=9)
            node.records, node.body = 1_000, 4_000
            asked = [made.query(made.tutor, grant) for _ in range(12)]
            await slow.send(*[query_call(each.envelope) for each in asked])
            await slow.send(*[greed(each) for each in asked])
            await clogged(made, node, len(asked))
            assert (await other.ask(made.query(made.mother, own))).reason == Reason.BUSY

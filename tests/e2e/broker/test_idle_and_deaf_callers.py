"""Callers that cost memory: streams on which nobody greets, and callers who talk and do not listen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from permslip._pb.permslip.v1 import node_pb2_grpc, provider_pb2, provider_pb2_grpc
from permslip.hosting.facts_store import FactStore
from permslip_broker import greetings
from permslip_broker.exchange import Exchange
from permslip_broker.greetings import Greetings
from permslip_broker.routing_limits import RoutingLimits
from tests.e2e.broker.small_federation import SmallFederation


@pytest.mark.parametrize("door", ["Exchange", "Attach"])
async def test_a_stream_on_which_nobody_greets_is_ended(
    federation: SmallFederation, door: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(greetings, "GREETING_WITHIN", 0.05)
    if door == "Exchange":
        call: Any = provider_pb2_grpc.ProviderServiceStub(federation.channel).Exchange()
    else:
        call = node_pb2_grpc.NodeServiceStub(federation.channel).Attach()

    assert await call.read() is not grpc.aio.EOF, "the broker's challenge"
    async with asyncio.timeout(20):
        assert await call.code() == grpc.StatusCode.DEADLINE_EXCEEDED


class DeafContext:
    """A caller's side of a stream on which the first message arrives, and nothing more is ever taken."""

    def __init__(self) -> None:
        self.challenged = False

    async def write(self, _message: Any) -> None:
        if self.challenged:
            await asyncio.get_running_loop().create_future()
        self.challenged = True


async def test_who_does_not_take_what_is_said_to_her_is_not_listened_to(federation: SmallFederation) -> None:
    """Each refusal costs an answer; the broker must not keep them all for a caller who reads none."""
    broker = federation.broker
    facts = FactStore.__new__(FactStore)  # a person's greeting needs no facts
    exchange = Exchange(Greetings(broker.identity, facts, federation.now), broker.routing, RoutingLimits())
    hello = await federation.hello(federation.stranger)
    listened = 0

    async def chatter() -> AsyncIterator[provider_pb2.ExchangeRequest]:
        nonlocal listened
        yield provider_pb2.ExchangeRequest(calls=[provider_pb2.ExchangeCall(hello=hello)])
        refused = provider_pb2.ExchangeCall(contribution=provider_pb2.ContributionCall())
        while True:
            listened += 1
            yield provider_pb2.ExchangeRequest(calls=[refused] * 1_000)

    conversation = asyncio.ensure_future(exchange.converse(chatter(), DeafContext()))  # type: ignore[arg-type]
    for _ in range(300):
        await asyncio.sleep(0)
    held = broker.routing.held_bytes
    conversation.cancel()
    await asyncio.gather(conversation, return_exceptions=True)

    assert listened < 50
    assert held < 2 * RoutingLimits().high_water

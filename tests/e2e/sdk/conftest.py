"""A world of three schools, a simulated broker, and a provider's client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from permslip.client.providing import AsyncClient
from permslip.client.timeouts import Timeout
from tests.e2e.sdk.simulated import SimulatedBroker, World


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def broker(world: World) -> AsyncIterator[SimulatedBroker]:
    async with SimulatedBroker(world) as running:
        yield running


@pytest.fixture
async def client(world: World, broker: SimulatedBroker) -> AsyncIterator[AsyncClient]:
    timeout = Timeout(connect=20, call=20, answer=20)
    provider = world.provider
    async with AsyncClient(**broker.trust(), keys=provider.keys, cert=provider.cert, timeout=timeout) as connected:
        yield connected

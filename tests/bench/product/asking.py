"""A provider's client, as the measured queries are made: the SDK's own, one profile from one grant of each node.

Example::

    async with asking(laid, address) as ask:
        profile = await ask()
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from permslip.client.providing import AsyncClient
from permslip.grant_views import GrantView
from permslip.keyfile import PrincipalKind, StoredKeys
from permslip.profile import Profile
from tests.bench.product.laying import Laid
from tests.bench.workload import FEDERATION, RECORDS, SECTION

__all__ = ["asking", "client_of", "views_of"]


def client_of(laid: Laid, address: str) -> AsyncClient:
    """The provider's client."""
    return AsyncClient(
        broker=address,
        broker_root=laid.broker.did,
        federation=FEDERATION,
        operator=laid.operator.did,
        keys=StoredKeys(PrincipalKind.PROVIDER, laid.provider.key, laid.provider.sealing),
        cert=laid.provider.cert.envelope,
    )


async def views_of(client: AsyncClient, grant_ids: Sequence[bytes]) -> list[GrantView]:
    """The grants with these ids, as the client sees them."""
    return [view async for view in client.grants(*grant_ids)]


@asynccontextmanager
async def asking(laid: Laid, address: str) -> AsyncIterator[Callable[[], Awaitable[Profile]]]:
    """A call that assembles one profile from the first grant of every node."""
    async with client_of(laid, address) as client:
        views = await views_of(client, [node.grant_ids[0] for node in laid.nodes])

        async def ask() -> Profile:
            return whole(await client.profile(views, sections=(SECTION,)), len(views))

        await ask()
        yield ask


def whole(profile: Profile, nodes: int) -> Profile:
    """The profile, if it holds every record of every node.

    Raises:
        RuntimeError: something is missing; a measurement of refusals would look fast.
    """
    found = sum(len(each.records) for each in profile.slices)
    if found != nodes * RECORDS:
        errors = [str(each.error) for each in profile.slices if each.error is not None]
        raise RuntimeError(f"expected {nodes * RECORDS} records, got {found}: {errors}")
    return profile

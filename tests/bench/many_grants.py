"""A broker with 100,000 grants against one with 1,000: what a query takes, and what memory the broker has.

Each has one real node that holds the same grants. Every query is made under another grant, taken from all over the
ledger, so that no cache helps the larger one more than it would in service. The broker's memory is read after its
queries.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from permslip.client.providing import AsyncClient
from permslip.grant_views import GrantView
from tests.bench.figures import Figure, Report
from tests.bench.load import Ask, in_turns_of_calls
from tests.bench.processes import Child, Processes, resident_mb
from tests.bench.product.asking import client_of, views_of, whole
from tests.bench.product.laying import lay_out
from tests.bench.product.running import start_broker, start_nodes
from tests.bench.scale import Scale
from tests.bench.workload import SECTION

__all__ = ["measure"]

_WARM_UP: Final = 10
_IN_ONE_CALL: Final = 200


async def measure(report: Report, scale: Scale, folder: Path) -> None:
    """Queries of both in turns, then memory."""
    queries = scale.rounds * scale.one_at_a_time
    async with AsyncExitStack() as stack:
        processes = stack.enter_context(Processes())
        few, few_broker = await _federation(stack, processes, folder / "few", scale.few_grants, queries)
        many, many_broker = await _federation(stack, processes, folder / "many", scale.many_grants, queries)
        measured = await in_turns_of_calls({"few": few, "many": many}, count=queries, warm_up=_WARM_UP)
        few_mb, many_mb = resident_mb(few_broker.pid), resident_mb(many_broker.pid)
    against = f"{scale.few_grants:,} grants"
    name = f"grants.{scale.many_grants:,}"
    report.add(
        Figure(
            f"{name}.query.p50",
            measured["many"].p50,
            "ms",
            baseline=measured["few"].p50,
            against=against,
            at_most=1.2,
            note="every query under another grant",
        ),
        Figure(f"{name}.query.p99", measured["many"].p99, "ms", baseline=measured["few"].p99, against=against),
        Figure(f"{name}.broker memory", many_mb, "MB", baseline=few_mb, against=against),
        Figure(f"{name}.broker memory added", many_mb - few_mb, "MB", value_at_most=100),
    )


async def _federation(
    stack: AsyncExitStack, processes: Processes, folder: Path, grants: int, queries: int
) -> tuple[Ask, Child]:
    laid = await lay_out(folder, nodes=1, grants=grants, learners=min(grants, 20))
    chance = random.Random(7)
    [node] = laid.nodes
    asked = [chance.choice(node.grant_ids) for _ in range(queries + _WARM_UP)]
    broker, address = start_broker(processes, laid)
    start_nodes(processes, laid, address)
    client = await stack.enter_async_context(client_of(laid, address))
    by_id = {view.id: view for view in await _views(client, sorted(set(asked)))}
    following = iter(asked)

    async def ask() -> None:
        whole(await client.profile(by_id[next(following)], sections=(SECTION,)), 1)

    return ask, broker


async def _views(client: AsyncClient, grant_ids: Sequence[bytes]) -> list[GrantView]:
    found: list[GrantView] = []
    for start in range(0, len(grant_ids), _IN_ONE_CALL):
        found += await views_of(client, grant_ids[start : start + _IN_ONE_CALL])
    return found

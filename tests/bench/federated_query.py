"""A federated query: one learner's 50 records from each of several nodes, decided and logged at every hop.

Floor and product are all up at once and asked in turns; what is idle costs next to nothing.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

from tests.bench.figures import Figure, Report
from tests.bench.floor.requester import Requester, start_floor
from tests.bench.load import Ask, Measured, in_turns
from tests.bench.processes import Processes
from tests.bench.scale import Scale
from tests.bench.workload import RECORDS

__all__ = ["measure"]


async def measure(report: Report, scale: Scale, folder: Path) -> None:
    """Latency and throughput of floor, bare relays and product, for each number of nodes."""
    for nodes in scale.nodes:
        await _measure(report, scale, folder / f"{nodes}-nodes", nodes)


async def _measure(report: Report, scale: Scale, folder: Path, nodes: int) -> None:
    async with AsyncExitStack() as stack:
        processes = stack.enter_context(Processes())
        candidates: dict[str, Ask] = {}
        for name, bare, unbatched in (
            ("floor", False, False),
            ("bare relay", True, False),
            ("bare relay, unbatched", True, True),
        ):
            port = start_floor(processes, folder / name, nodes=nodes, bare=bare, unbatched=unbatched)
            requester = Requester(port, nodes=nodes, bare=bare, unbatched=unbatched)
            candidates[name] = (await stack.enter_async_context(requester)).query
        measured = await in_turns(
            candidates,
            rounds=scale.rounds,
            one_at_a_time=scale.one_at_a_time,
            many=scale.many,
            in_flight=scale.in_flight,
        )
    report.add(*_figures(f"query.{nodes}-node{'s' if nodes > 1 else ''}", measured))


def _figures(name: str, measured: dict[str, Measured]) -> list[Figure]:
    floor = measured["floor"]
    figures = [
        Figure(f"{name}.floor.p50", floor.p50, "ms", note=f"{RECORDS} records a node; see tests/bench/floor"),
        Figure(f"{name}.floor.p99", floor.p99, "ms"),
        Figure(f"{name}.floor.throughput", floor.rate, "queries/s"),
    ]
    for other in ("bare relay", "bare relay, unbatched"):
        bare = measured[other]
        figures += [
            Figure(f"{name}.{other}.p50", bare.p50, "ms", baseline=floor.p50, against="floor"),
            Figure(f"{name}.{other}.throughput", bare.rate, "queries/s", baseline=floor.rate, against="floor"),
        ]
    return figures

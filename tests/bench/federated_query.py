"""A federated query: one learner's 50 records from each of several nodes, decided and logged at every hop.

The product's is asked through the SDK, and its answer is a whole profile: verified, parsed, assembled. Floor, bare
relays and product are all up at once and asked in turns; what is idle costs next to nothing. In flight at once are as
many queries as a teacher has learners, who asks for all of them in one call.

Beside the judged figures stands how much processor time a pipelined query costs each party, which shows where to look.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

from tests.bench.figures import Figure, Report
from tests.bench.floor.requester import Requester, start_floor
from tests.bench.load import Candidate, Measured, in_turns, throughput
from tests.bench.processes import Processes
from tests.bench.product.asking import asking
from tests.bench.product.laying import lay_out
from tests.bench.product.running import start_broker, start_nodes
from tests.bench.profiling import PROFILES, profiled
from tests.bench.scale import Scale

__all__ = ["measure", "profile"]


async def measure(report: Report, scale: Scale, folder: Path) -> None:
    """Latency and throughput of floor, bare relays and product, for each number of nodes."""
    for nodes in scale.nodes:
        await _measure(report, scale, folder / f"{nodes}-nodes", nodes)


async def profile(scale: Scale, folder: Path, target: Path) -> None:
    """Pipelined queries of the product alone; ``target`` gets a profile of requester, broker and each node."""
    async with AsyncExitStack() as stack:
        processes = stack.enter_context(Processes({PROFILES: str(target)}))
        product = await _product(stack, processes, folder / "product", max(scale.nodes))
        await throughput(product.ask, in_flight=scale.in_flight, count=scale.in_flight)
        with profiled(target, "requester"):
            await throughput(product.ask, in_flight=scale.in_flight, count=scale.rounds * scale.many)


async def _measure(report: Report, scale: Scale, folder: Path, nodes: int) -> None:
    async with AsyncExitStack() as stack:
        processes = stack.enter_context(Processes())
        candidates: dict[str, Candidate] = {}
        for name, bare, unbatched in (
            ("floor", False, False),
            ("bare relay", True, False),
            ("bare relay, unbatched", True, True),
        ):
            port, parties = start_floor(processes, folder / name, nodes=nodes, bare=bare, unbatched=unbatched)
            requester = Requester(port, nodes=nodes, bare=bare, unbatched=unbatched)
            candidates[name] = Candidate((await stack.enter_async_context(requester)).query, parties)
        candidates["product"] = await _product(stack, processes, folder / "product", nodes)
        measured = await in_turns(
            candidates,
            rounds=scale.rounds,
            one_at_a_time=scale.one_at_a_time,
            many=scale.many,
            in_flight=scale.in_flight,
        )
    report.add(*_figures(f"query.{nodes}-node{'s' if nodes > 1 else ''}", measured))


async def _product(stack: AsyncExitStack, processes: Processes, folder: Path, nodes: int) -> Candidate:
    laid = await lay_out(folder, nodes=nodes, grants=1)
    broker, address = start_broker(processes, laid)
    children = start_nodes(processes, laid, address)
    ask = await stack.enter_async_context(asking(laid, address))
    return Candidate(ask, {"relay": [broker.pid], "nodes": [each.pid for each in children]})


def _figures(name: str, measured: dict[str, Measured]) -> list[Figure]:
    floor, product = measured["floor"], measured["product"]
    figures = [
        Figure(f"{name}.p50", product.p50, "ms", baseline=floor.p50, against="floor", at_most=1.6),
        Figure(f"{name}.throughput", product.rate, "queries/s", baseline=floor.rate, against="floor", at_least=0.5),
        Figure(f"{name}.p99", product.p99, "ms", baseline=floor.p99, against="floor"),
    ]
    for other in ("bare relay", "bare relay, unbatched"):
        bare = measured[other]
        figures += [
            Figure(f"{name}.{other}.p50", bare.p50, "ms", baseline=floor.p50, against="floor"),
            Figure(f"{name}.{other}.throughput", bare.rate, "queries/s", baseline=floor.rate, against="floor"),
        ]
    return figures + [
        Figure(f"{name}.processor.{party}", used, "ms/query", baseline=floor.processor[party], against="floor")
        for party, used in product.processor.items()
    ]

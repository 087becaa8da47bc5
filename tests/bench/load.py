"""Load: one at a time for latency, many at once for throughput; two things measured in turns.

Machines are shared and warm up, so what is compared is never measured once and in one piece: rounds of the one
alternate with rounds of the other (:func:`in_turns`), and medians over the rounds are compared.

Example::

    async def ask() -> None:
        await client.query(grant)

    seconds = await latencies(ask, 200)
    per_second = await throughput(ask, in_flight=32, count=2000)
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from tests.bench.figures import percentile
from tests.bench.processes import processor_seconds

__all__ = [
    "Ask",
    "Candidate",
    "Measured",
    "in_turns",
    "in_turns_of_calls",
    "in_turns_of_rates",
    "latencies",
    "throughput",
]

Ask = Callable[[], Awaitable[object]]


async def latencies(ask: Ask, count: int) -> list[float]:
    """Seconds that each of ``count`` calls took, one after the other."""
    seconds = []
    for _ in range(count):
        started = time.perf_counter()
        await ask()
        seconds.append(time.perf_counter() - started)
    return seconds


async def throughput(ask: Ask, *, in_flight: int, count: int) -> float:
    """Calls a second, of ``count`` calls of which never more than ``in_flight`` are open."""
    remaining = count

    async def work() -> None:
        nonlocal remaining
        while remaining > 0:
            remaining -= 1
            await ask()

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(min(in_flight, count)):
            group.create_task(work())
    return count / (time.perf_counter() - started)


@dataclass(frozen=True)
class Candidate:
    """Something that is measured.

    Attributes:
        ask: one call.
        parties: the processes that work for it, by what they are; the measuring process itself asks.
    """

    ask: Ask
    parties: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def processor_seconds(self) -> dict[str, float]:
        """Processor time that each party has used so far."""
        used = {"requester": time.process_time()}
        used.update((party, sum(map(processor_seconds, pids))) for party, pids in self.parties.items())
        return used


@dataclass
class Measured:
    """What one candidate showed over all its rounds.

    Attributes:
        seconds: of each call that was made alone.
        rates: calls a second of each pipelined round.
        processor: party → milliseconds of processor time for each pipelined call.
    """

    seconds: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    processor: dict[str, float] = field(default_factory=dict)

    @property
    def p50(self) -> float:
        """Milliseconds."""
        return 1000 * percentile(self.seconds, 0.50)

    @property
    def p99(self) -> float:
        """Milliseconds."""
        return 1000 * percentile(self.seconds, 0.99)

    @property
    def rate(self) -> float:
        """Calls a second: the median of the rounds."""
        return median(self.rates)


async def in_turns(
    candidates: Mapping[str, Candidate], *, rounds: int, one_at_a_time: int, many: int, in_flight: int
) -> dict[str, Measured]:
    """Measure each candidate ``rounds`` times, by turns; the first calls of each, which set things up, do not count."""
    measured = {name: Measured() for name in candidates}
    for candidate in candidates.values():
        await latencies(candidate.ask, max(1, one_at_a_time // 5))
        await throughput(candidate.ask, in_flight=in_flight, count=max(1, many // 5))
    for _ in range(rounds):
        for name, candidate in candidates.items():
            result = measured[name]
            result.seconds += await latencies(candidate.ask, one_at_a_time)
            before = candidate.processor_seconds()
            result.rates.append(await throughput(candidate.ask, in_flight=in_flight, count=many))
            for party, seconds in candidate.processor_seconds().items():
                used = 1000 * (seconds - before[party]) / (many * rounds)
                result.processor[party] = result.processor.get(party, 0.0) + used
    return measured


async def in_turns_of_rates(
    candidates: Mapping[str, Callable[[], Awaitable[float]]], *, rounds: int
) -> dict[str, float]:
    """The median rate of each candidate over ``rounds`` turns, after one that does not count."""
    rates: dict[str, list[float]] = {name: [] for name in candidates}
    for measure in candidates.values():
        await measure()
    for _ in range(rounds):
        for name, measure in candidates.items():
            rates[name].append(await measure())
    return {name: median(values) for name, values in rates.items()}


async def in_turns_of_calls(candidates: Mapping[str, Ask], *, count: int, warm_up: int) -> dict[str, Measured]:
    """Seconds of ``count`` calls of each candidate, one call of each at a time; ``warm_up`` more do not count."""
    measured = {name: Measured() for name in candidates}
    for turn in range(warm_up + count):
        for name, ask in candidates.items():
            seconds = await latencies(ask, 1)
            if turn >= warm_up:
                measured[name].seconds += seconds
    return measured

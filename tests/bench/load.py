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
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from statistics import median

from tests.bench.figures import percentile

__all__ = ["Ask", "Measured", "in_turns", "in_turns_of_rates", "latencies", "throughput"]

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


@dataclass
class Measured:
    """What one candidate showed over all its rounds."""

    seconds: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

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
    candidates: Mapping[str, Ask], *, rounds: int, one_at_a_time: int, many: int, in_flight: int
) -> dict[str, Measured]:
    """Measure each candidate ``rounds`` times, by turns; the first calls of each, which set things up, do not count."""
    measured = {name: Measured() for name in candidates}
    for ask in candidates.values():
        await latencies(ask, max(1, one_at_a_time // 5))
        await throughput(ask, in_flight=in_flight, count=max(1, many // 5))
    for _ in range(rounds):
        for name, ask in candidates.items():
            measured[name].seconds += await latencies(ask, one_at_a_time)
            measured[name].rates.append(await throughput(ask, in_flight=in_flight, count=many))
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

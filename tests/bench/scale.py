"""How much is measured: enough to judge, a glance, or just so much that every line runs.

A full run takes a few minutes, a quick one about a minute; the tests use the smallest, and judge no time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["FULL", "QUICK", "SMALLEST", "Scale"]


@dataclass(frozen=True)
class Scale:
    """Counts of one run.

    Attributes:
        rounds: turns of each candidate.
        one_at_a_time: queries of a round that are asked one after the other.
        many: queries of a round that are pipelined.
        in_flight: how many of those are open at once.
        nodes: numbers of nodes that a query asks.
        rows: ledger entries of a round.
        writers: coroutines that append at once.
        starts: how often a command is started.
        learners: size of the generated school, where there is no real data.
        revocations_few, revocations_many: how often a consent at 4 nodes, and at 100, is revoked.
        few_nodes, many_nodes: how many nodes a revocation concerns; the many are simulated.
        few_grants, many_grants: sizes of the two federations whose queries are compared.
        decisions: of the ledger that an auditor replays.
        leaves: of the bundle that an auditor verifies; a tenth of them are fetched.
    """

    name: str
    rounds: int
    one_at_a_time: int
    many: int
    nodes: tuple[int, ...] = (1, 3)
    in_flight: int = 150
    rows: int = 20_000
    writers: int = 200
    starts: int = 11
    learners: int = 960
    revocations_few: int = 100
    revocations_many: int = 20
    few_nodes: int = 4
    many_nodes: int = 100
    few_grants: int = 1_000
    many_grants: int = 100_000
    decisions: int = 20_000
    leaves: int = 1_000_000


FULL: Final = Scale("full", rounds=5, one_at_a_time=60, many=750)
QUICK: Final = Scale(
    "quick",
    rounds=3,
    one_at_a_time=30,
    many=300,
    rows=8_000,
    starts=5,
    revocations_few=20,
    revocations_many=5,
    many_grants=10_000,
    decisions=4_000,
    leaves=50_000,
)
SMALLEST: Final = Scale(
    "smallest",
    rounds=1,
    one_at_a_time=2,
    many=8,
    nodes=(1,),
    in_flight=4,
    rows=40,
    writers=4,
    starts=1,
    learners=4,
    revocations_few=1,
    revocations_many=1,
    few_nodes=1,
    many_nodes=2,
    few_grants=2,
    many_grants=4,
    decisions=16,
    leaves=300,
)

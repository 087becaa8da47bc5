"""The demo's families: chosen from the schools' own rosters, each with a wallet for every guardian who links.

Rules:

- Learners whom the platform knows too come first, then learners of each school in turn: so the profiles of some are put
  together from two nodes, and every school has families.
- The first guardian of each family links, wherever a node knows her. In every third family that has a second guardian,
  he links as well.
- A slip is what a school prints: one for each guardian and learner, by ``permslip node slip --all-families``.

Example::

    families = choose_families(federation, nodes, count=24)
    await link_all(federation, families, advance)
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

from permslip.demo.children import in_parallel
from permslip.demo.federation import Federation, NodeParty
from permslip.wallet import Wallet

__all__ = ["Family", "Guardian", "choose_families", "link_all", "roster_of"]

_AT_ONCE: Final = 8
_BOTH_GUARDIANS_EVERY: Final = 3


@dataclass(slots=True)
class Guardian:
    """A guardian who links.

    Attributes:
        name: as the school prints it.
        relation: to the learner, in the school's words.
        wallet: her folder.
        slips: the texts of the slips that she was handed, one for each node.
    """

    name: str
    relation: str
    wallet: Path
    slips: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Family:
    """A learner and the guardians who link.

    Attributes:
        learner: the schools' number.
        name: the learner's, as the first node says it.
        nodes: where the learner is known; the school first.
        guardians: who link; the first of them grants.
        reference: how providers call the learner among themselves.
    """

    learner: str
    name: str
    nodes: list[NodeParty]
    guardians: list[Guardian]
    reference: str


def roster_of(federation: Federation, node: NodeParty) -> list[dict[str, Any]]:
    """Everybody whom a node knows as somebody's guardian."""
    lines: list[dict[str, Any]] = federation.run("node", "families", "--config", node.config)
    return lines


def choose_families(
    federation: Federation, rosters: Sequence[tuple[NodeParty, list[dict[str, Any]]]], *, count: int
) -> list[Family]:
    """Choose families, and have the schools print their slips.

    Args:
        federation: whose.
        rosters: each node with its roster.
        count: how many.
    """
    by_learner: dict[str, list[tuple[NodeParty, dict[str, Any]]]] = {}
    for node, lines in rosters:
        for line in lines:
            by_learner.setdefault(line["learner"], []).append((node, line))
    printed = in_parallel(lambda each: _print_slips(federation, each[0]), rosters)
    slips = {node.site.key: own for (node, _), own in zip(rosters, printed, strict=True)}
    families = []
    for number, learner in enumerate(_in_turn(by_learner)[:count]):
        found = by_learner[learner]
        nodes = list({node.site.key: node for node, _ in found}.values())
        persons = list(dict.fromkeys(line["person"] for _, line in found))
        linking = persons[: 2 if number % _BOTH_GUARDIANS_EVERY == 0 else 1]
        guardians = []
        for place, person in enumerate(linking):
            line = next(line for _, line in found if line["person"] == person)
            wallet = federation.folder / "families" / f"{number:03d}-{'ab'[place]}"
            own = [slips[node.site.key].get((learner, person), "") for node in nodes]
            guardians.append(Guardian(line["person_name"], line["relation"], wallet, [each for each in own if each]))
        reference = f"case {learner}-{number:03d}"
        families.append(Family(learner, found[0][1]["learner_name"], nodes, guardians, reference))
    return families


async def link_all(federation: Federation, families: Iterable[Family], advance: Callable[[], None]) -> int:
    """Every guardian makes a wallet and links by her slips; returns how many links were made."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def link(family: Family, guardian: Guardian) -> int:
        async with gate:
            Wallet.create(guardian.wallet)
            async with federation.guardian(guardian.wallet) as client:
                for slip in guardian.slips:
                    await client.link(slip, learner=family.name)
        advance()
        return len(guardian.slips)

    return sum(await asyncio.gather(*(link(family, guardian) for family in families for guardian in family.guardians)))


def _print_slips(federation: Federation, node: NodeParty) -> dict[tuple[str, str], str]:
    file = node.folder / "slips.jsonl"
    federation.run("node", "slip", "--all-families", str(file), "--config", node.config)
    lines = (json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())
    return {(line["learner"], line["person"]): line["slip"] for line in lines}


def _in_turn(by_learner: dict[str, list[tuple[NodeParty, dict[str, Any]]]]) -> list[str]:
    """One from each kind of place in turn: platform and school, then each school alone."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for learner, found in by_learner.items():
        groups.setdefault(tuple(dict.fromkeys(node.site.key for node, _ in found)), []).append(learner)
    ordered = sorted(groups, key=lambda places: (-len(places), places))
    rounds = zip_longest(*(groups[places] for places in ordered))
    return [learner for each in rounds for learner in each if learner is not None]

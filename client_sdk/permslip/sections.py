"""The tree of sections, what a grant on a path covers, and what it never covers by a prefix.

Rules (SPEC.md §6):

- Records stand in *leaf* sections only. A path names a leaf, or everything below it.
- A path that would cover nothing, because all below it is sensitive, is not in the tree.
- A **sensitive** leaf is covered only by its own path, never by a path above it: a parent who grants ``personal`` has
  not granted ``personal.discipline``.
- The tree is fixed for one version of the format. A path that is not in it is refused, not ignored.

Example::

    >>> expand(["transcript.assessments"])
    ('transcript.assessments.district', 'transcript.assessments.state')
    >>> covers(["personal"], "personal.attendance"), covers(["personal"], "personal.discipline")
    (True, False)
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from permslip.errors import MalformedError

__all__ = ["LEAVES", "PATHS", "SENSITIVE", "TOP", "check_paths", "condensed", "covers", "expand", "is_narrower"]

# Every leaf section → is it sensitive?
_TREE: Final[dict[str, bool]] = {
    # learning transcript
    "transcript.courses": False,
    "transcript.grades": False,
    "transcript.credits": False,
    "transcript.assessments.state": False,
    "transcript.assessments.district": False,
    # personalized learning information
    "personal.assessments": False,
    "personal.services": False,
    "personal.work_habits": False,
    "personal.activities": False,
    "personal.experience": False,
    "personal.attendance": False,
    "personal.mastery": False,
    "personal.plan": False,
    "personal.discipline": True,
    "personal.health": True,
    # portfolio
    "portfolio.works": False,
    # learner positioning
    "variability.background.context": False,
    "variability.background.adverse_experiences": True,
    "variability.background.safety": True,
    "variability.background.socioeconomic_status": True,
    "variability.social_emotional.skills": False,
    "variability.social_emotional.identity": True,
    "variability.social_emotional.stereotype_threat": True,
    "variability.cognition": False,
    "variability.content": False,
    # the learner's own voice
    "voice.goals": False,
    "voice.interests": False,
    "voice.reflections": False,
    # who the learner is
    "identity.demographics": True,
}

LEAVES: Final[tuple[str, ...]] = tuple(sorted(_TREE))
SENSITIVE: Final[frozenset[str]] = frozenset(path for path, sensitive in _TREE.items() if sensitive)


def _prefixes(path: str) -> list[str]:
    words = path.split(".")
    return [".".join(words[:count]) for count in range(1, len(words) + 1)]


def _covered_by(path: str) -> tuple[str, ...]:
    return tuple(leaf for leaf in LEAVES if leaf == path or (leaf not in SENSITIVE and leaf.startswith(path + ".")))


# Every path that may be named → the leaves that it covers, ascending.
_COVERED: Final[dict[str, tuple[str, ...]]] = {
    path: covered for leaf in LEAVES for path in _prefixes(leaf) if (covered := _covered_by(path))
}

PATHS: Final[frozenset[str]] = frozenset(_COVERED)
# The paths without a parent: asking for all of them asks for everything that is not sensitive.
TOP: Final[tuple[str, ...]] = tuple(sorted(path for path in PATHS if "." not in path))


def check_paths(paths: Iterable[str], field: str) -> None:
    """Check that every path is in the tree.

    Raises:
        MalformedError: names the first that is not.
    """
    for number, path in enumerate(paths):
        if path not in PATHS:
            raise MalformedError(
                f"there is no section {path!r}.",
                field=f"{field}[{number}]",
                remedy="The sections are listed in docs/reference/sections.md.",
            )


def expand(paths: Iterable[str]) -> tuple[str, ...]:
    """The leaves that are asked for by these paths, ascending: a sensitive leaf only by its own path.

    A path that is not in the tree stands for itself, so that the answer can say that it is unknown.
    """
    return _expanded(tuple(paths))


@lru_cache(maxsize=1024)
def _expanded(paths: tuple[str, ...]) -> tuple[str, ...]:
    # Every decision asks, and there are few ways of asking.
    return tuple(sorted({leaf for path in paths for leaf in _COVERED.get(path, (path,))}))


def condensed(leaves: Iterable[str]) -> tuple[str, ...]:
    """The fewest paths that ask for exactly these leaves, ascending: ``voice`` for all that stands below it."""
    left, found = set(leaves), []
    for path in sorted(PATHS, key=lambda each: (each.count("."), each)):
        covered = set(_COVERED[path])
        if len(covered) > 1 and covered <= left:
            found.append(path)
            left -= covered
    return tuple(sorted([*found, *left]))


def covers(granted: Iterable[str], leaf: str) -> bool:
    """Whether one of the granted paths covers this leaf."""
    for path in granted:  # noqa: SIM110  # twice as fast as any(…), and asked for each section of each decision
        if leaf in _COVERED.get(path, ()):
            return True
    return False


def is_narrower(parent: Iterable[str], child: Iterable[str]) -> bool:
    """Whether every leaf that ``child`` covers is covered by ``parent`` too, and every child path is in the tree."""
    granted = tuple(parent)
    return all(path in PATHS and all(covers(granted, leaf) for leaf in _COVERED[path]) for path in child)

"""Coverage: what is known of each section at each node, so that a gap is never mistaken for a fact.

Rules:

- Every leaf section that was asked of a node has exactly one state: returned *n*, none held, withheld, denied (with
  the reason), or unreachable.
- «None held» needs the node's signed manifest. Whatever kept a verified manifest from arriving is «denied» where it
  was decided, and «unreachable» where nothing was.

Example::

    uncovered(["transcript.grades"], Reason.UNREACHABLE, node=root, node_name="Lincoln Elementary")[0].state
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.keys import did_text
from permslip.reasons import Reason

__all__ = ["UNANSWERED", "Coverage", "Held", "coverage_of", "uncovered"]

# Reasons that say nothing about consent or holdings: no answer could be had.
UNANSWERED: Final = frozenset(
    {
        Reason.NO_LEASE,
        Reason.CLOCK,
        Reason.UNREACHABLE,
        Reason.TIMED_OUT,
        Reason.BUSY,
        Reason.DRAINING,
        Reason.INTERNAL,
        Reason.CANCELLED,
    }
)


class Held(StrEnum):
    """What is known of one section at one node."""

    RETURNED = "returned"
    NONE_HELD = "none held"
    WITHHELD = "withheld"
    DENIED = "denied"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Coverage:
    """What is known of one section at one node.

    Attributes:
        node, node_name: who was asked.
        section: a leaf section.
        state: what is known.
        returned: how many records came.
        reason: why, where none came; ``ALLOWED`` otherwise.
        partly_withheld: some records may have been kept back, by the grant's dates or the node's rule.
    """

    node: bytes
    node_name: str
    section: str
    state: Held
    returned: int = 0
    reason: Reason = Reason.ALLOWED
    partly_withheld: bool = False

    @property
    def is_gap(self) -> bool:
        """Whether something may be held that was not received."""
        return self.state not in (Held.RETURNED, Held.NONE_HELD) or self.partly_withheld

    @property
    def remedy(self) -> str:
        """What a person can do about the gap; empty where there is none."""
        if self.partly_withheld:
            return "Ask for the days that the consent covers, or ask the school."
        return self.reason.remedy if self.is_gap else ""

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        return {
            "node": did_text(self.node),
            "node_name": self.node_name,
            "section": self.section,
            "state": self.state.value,
            "returned": self.returned,
            "reason": self.reason.name,
            "partly_withheld": self.partly_withheld,
            "remedy": self.remedy,
        }


def coverage_of(manifest: Iterable[pb.SectionCoverage], *, node: bytes, node_name: str) -> tuple[Coverage, ...]:
    """What a verified manifest says of its sections."""
    return tuple(_cover(each, node, node_name) for each in manifest)


def uncovered(
    sections: Iterable[str],
    reason: Reason,
    *,
    node: bytes,
    node_name: str,
    known: Mapping[str, Reason] | None = None,
) -> tuple[Coverage, ...]:
    """The coverage of sections for which no slice came.

    Args:
        sections: the leaves that were asked for.
        reason: why nothing came.
        node, node_name: who was asked.
        known: a section's own reason, where it was told.
    """
    own = known or {}
    return tuple(_without(path, own.get(path, reason), node, node_name) for path in sections)


def _cover(each: pb.SectionCoverage, node: bytes, node_name: str) -> Coverage:
    reason = Reason(each.reason)
    if reason != Reason.ALLOWED:
        return _without(each.section, reason, node, node_name)
    state = Held.RETURNED if each.returned else Held.NONE_HELD
    return Coverage(node, node_name, each.section, state, each.returned, partly_withheld=each.withheld)


def _without(section: str, reason: Reason, node: bytes, node_name: str) -> Coverage:
    if reason == Reason.WITHHELD:
        return Coverage(node, node_name, section, Held.WITHHELD, reason=reason)
    state = Held.UNREACHABLE if reason in UNANSWERED else Held.DENIED
    return Coverage(node, node_name, section, state, reason=reason)

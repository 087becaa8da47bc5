"""What one requester and one answer may take of a broker, and what the broker counts of its routing.

Example::

    RoutingLimits(max_open=64, memory=64 << 20)
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from permslip.reasons import Reason

__all__ = ["RoutingLimits", "Tally"]


@dataclass(frozen=True, slots=True)
class RoutingLimits:
    """What one requester and one answer may take.

    Args:
        max_open: queries that may be open on one stream.
        default_deadline, max_deadline: milliseconds.
        high_water: bytes that may wait for one requester before its answers get no more credit.
        memory: bytes that may wait for all requesters before new queries are refused.
        first_credit, answer_credit: see :class:`permslip_broker.credit.CreditFlow`.
        quiet_within: seconds that :meth:`Routing.quiet` gives a requester to take what was already being written.
    """

    max_open: int = 512
    default_deadline: int = 30_000
    max_deadline: int = 120_000
    high_water: int = 4 << 20
    memory: int = 256 << 20
    first_credit: int = 72 << 10
    answer_credit: int = 256 << 10
    quiet_within: float = 2.0


@dataclass(slots=True)
class Tally:
    """What was routed since the start; read by the metrics."""

    decided: Counter[Reason] = field(default_factory=Counter)
    answered: Counter[Reason] = field(default_factory=Counter)
    relayed_bytes: int = 0
    stray_answers: int = 0

"""How long a client waits, for each kind of waiting.

Example::

    Client(..., timeout=Timeout(connect=3, answer=10))
    client.profile("learner-17", timeout=2.5)          # this answer alone
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from permslip.errors import ConfigurationError

__all__ = ["Timeout"]

# The longest that a broker waits for an answer, and that a query may live.
_MOST: Final = 120.0


@dataclass(frozen=True, slots=True)
class Timeout:
    """Seconds.

    Args:
        connect: until a broker has been found and has said who it is, attempts and back-off included.
        call: for each call that lists, deposits or relays.
        answer: for each answer to a query, from asking to its last byte; at most 120.

    Raises:
        ConfigurationError: not a positive number, or an answer longer than 120 s.
    """

    connect: float = 10.0
    call: float = 30.0
    answer: float = 60.0

    def __post_init__(self) -> None:
        for name in ("connect", "call", "answer"):
            if not getattr(self, name) > 0:
                raise ConfigurationError("expected more than 0 seconds.", key=f"timeout.{name}")
        if self.answer > _MOST:
            raise ConfigurationError(f"expected at most {_MOST:.0f} seconds.", key="timeout.answer")

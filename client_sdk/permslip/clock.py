"""This machine's clock, as everything that is not told another one reads it.

Example::

    signed_at = system_clock()
"""

from __future__ import annotations

import time

from permslip.quantities import Millis

__all__ = ["system_clock"]


def system_clock() -> Millis:
    """UTC milliseconds now."""
    return Millis(time.time_ns() // 1_000_000)

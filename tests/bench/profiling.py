"""Where the time goes: what the event loop's thread of a process spends it on, as text.

:mod:`tests.bench.product.serve` profiles the service that it runs where the environment names a folder; the services
themselves know nothing of it. The ledger's thread is not in it, and what is profiled is slower: read shares, not times.
"""

from __future__ import annotations

import cProfile
import pstats
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ["PROFILES", "profiled"]

PROFILES: Final = "PERMSLIP_BENCH_PROFILES"
_LINES: Final = 60


@contextmanager
def profiled(folder: Path, name: str) -> Iterator[None]:
    """Profile this thread while the block lasts; write the most costly functions, by own time and with callees."""
    profile = cProfile.Profile()
    profile.enable()
    try:
        yield
    finally:
        profile.disable()
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{name}.txt").open("w", encoding="utf-8") as out:
            stats = pstats.Stats(profile, stream=out)
            stats.sort_stats("tottime").print_stats(_LINES)
            stats.sort_stats("cumulative").print_stats(_LINES)

"""How long ``permslip --help`` takes, beside an interpreter that does nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tests.bench.figures import Figure, Report
from tests.bench.processes import ROOT
from tests.bench.scale import Scale

__all__ = ["measure"]


async def measure(report: Report, scale: Scale, folder: Path) -> None:
    """Milliseconds of both, by turns."""
    taken = _starts(scale.starts)
    report.add(
        Figure(
            "command.help",
            min(taken["help"]),
            "ms",
            baseline=min(taken["nothing"]),
            against="python -c pass",
            value_at_most=150,
            note=f"the fastest of {scale.starts} starts: whatever else the machine does only adds to it",
        )
    )


def _starts(count: int) -> dict[str, list[float]]:
    commands = {
        "help": [sys.executable, "-m", "permslip.cli", "--help"],
        "nothing": [sys.executable, "-c", "pass"],
    }
    script = Path(sys.executable).with_name("permslip")
    if script.exists():
        commands["help"] = [str(script), "--help"]
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(count + 1):
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
            if turn:  # the first fills the disk's cache
                taken[name].append(1000 * (time.perf_counter() - started))
    return taken

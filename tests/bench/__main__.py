"""Measure the product against floors and baselines of the same run.

Example::

    $ python -m tests.bench --output build/bench.json
    $ python -m tests.bench --quick --only query
    $ python -m tests.bench --quick --profile build/profiles
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

# Before gRPC is imported anywhere.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

from permslip.hosting.logs import configure
from tests.bench import (
    auditing,
    command_start,
    federated_query,
    importing,
    ledger_append,
    many_grants,
    replaying,
    revoking,
)
from tests.bench.figures import Report
from tests.bench.processes import ROOT
from tests.bench.scale import FULL, QUICK, Scale

PARTS: dict[str, Callable[[Report, Scale, Path], Awaitable[None]]] = {
    "query": federated_query.measure,
    "revoke": revoking.measure,
    "grants": many_grants.measure,
    "import": importing.measure,
    "ledger": ledger_append.measure,
    "command": command_start.measure,
    "replay": replaying.measure,
    "audit": auditing.measure,
}


async def run(scale: Scale, parts: list[str], folder: Path) -> Report:
    """Measure these parts, each in a folder of its own."""
    report = Report(settings={"scale": scale.name, "parts": parts})
    for part in parts:
        started = time.perf_counter()
        place = folder / part
        place.mkdir()
        await PARTS[part](report, scale, place)
        print(f"{part}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    return report


def main() -> None:
    """Read the command line, measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "bench.json", help="where the figures go")
    parser.add_argument("--quick", action="store_true", help="about a minute; for a glance, not for a judgement")
    parser.add_argument("--only", nargs="+", choices=sorted(PARTS), help="only these parts")
    parser.add_argument("--profile", type=Path, help="measure nothing; profile federated queries into this folder")
    options = parser.parse_args()

    # The broker that runs in this process for a moment, to admit everybody, has nothing to say.
    configure("bench", level="error")
    scale = QUICK if options.quick else FULL
    # On the disk that the product would use: a commit in a folder kept in memory would cost nothing.
    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=ROOT / "build") as folder:
        if options.profile is not None:
            asyncio.run(federated_query.profile(scale, Path(folder), options.profile))
            print(f"profiles written to {options.profile}")
            return
        report = asyncio.run(run(scale, options.only or list(PARTS), Path(folder)))
    report.write(options.output)
    print(report.table())
    print(f"figures written to {options.output}")


if __name__ == "__main__":
    main()

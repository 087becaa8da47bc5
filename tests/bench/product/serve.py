"""Runs one service as its command does: ``python -m tests.bench.product.serve broker|node CONFIG READY_FILE``.

Announces ``{"ready": …}`` with what stands in the ready file, and ends the service in order when standard input ends.
With ``PERMSLIP_BENCH_PROFILES`` naming a folder, it leaves there what the event loop's thread spent its time on; only
this launcher knows that variable.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import click

from tests.bench.processes import announce
from tests.bench.profiling import PROFILES, profiled


def _command(service: str) -> click.Command:
    if service == "broker":
        from permslip_broker.cli import broker

        return broker
    from permslip_node.cli import node

    return node


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _tell_ready(file: Path) -> None:
    while not file.exists():
        time.sleep(0.01)
    announce(ready=file.read_text(encoding="utf-8").strip())


def main() -> None:
    """Serve until the parent ends."""
    service, config, ready = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    ready.unlink(missing_ok=True)
    for watch in (_end_with_parent, lambda: _tell_ready(ready)):
        threading.Thread(target=watch, daemon=True).start()
    with ExitStack() as stack:
        if folder := os.environ.get(PROFILES):
            stack.enter_context(profiled(Path(folder), f"{service}-{Path(config).parent.name}"))
        _command(service).main(["run", "--config", config], standalone_mode=False)


if __name__ == "__main__":
    main()

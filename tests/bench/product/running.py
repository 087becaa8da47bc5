"""The processes of a federation that was laid out.

Example::

    laid = await lay_out(folder, nodes=3, grants=1)
    with Processes() as processes:
        address = start_broker(processes, laid)
        start_nodes(processes, laid, address)
"""

from __future__ import annotations

from tests.bench.processes import Child, Processes
from tests.bench.product.laying import Laid, write_node_config

__all__ = ["start_broker", "start_nodes"]

_LAUNCHER = "tests.bench.product.serve"


def start_broker(processes: Processes, laid: Laid) -> tuple[Child, str]:
    """Start it; the process, and where it listens."""
    ready = laid.broker_config.with_name("broker.ready")
    broker = processes.start(_LAUNCHER, "broker", str(laid.broker_config), str(ready), log=laid.folder / "broker.log")
    return broker, str(broker.say()["ready"])


def start_nodes(processes: Processes, laid: Laid, address: str) -> list[Child]:
    """Start all of them; returns once each is attached."""
    children = []
    for node in laid.nodes:
        write_node_config(laid, node, address)
        log = node.folder.with_suffix(".log")
        ready = str(node.folder / "node.ready")
        children.append(processes.start(_LAUNCHER, "node", str(node.config), ready, log=log))
    for child in children:
        child.say()
    return children

"""A stopped federation, or a forged copy of it, up again: the product's own broker and nodes in this process.

Example::

    async with Revived.running(honest, folder) as revived:
        told = await revived.audit("fetch", "verify")
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from permslip.demo.children import free_port
from permslip.hosting.logs import configure
from permslip.keys import did_text
from permslip_broker.app import Broker, open_broker
from permslip_broker.configuration import load_settings as load_broker
from permslip_node.app import RunningNode, boot_millis, open_node
from permslip_node.configuration import load_settings as load_node
from tests.e2e.planted.honest import NODES, Honest
from tests.federation.lying_broker import LyingBroker

__all__ = ["Audit", "Finding", "Revived", "audited"]

STEPS = ("fetch", "verify", "replay", "reconcile")
_COMMANDS = Path(__file__).with_name("commands.py")


class Finding(NamedTuple):
    """One finding of a bundle, where it is: the step, the code, whose ledger (by name), the position, the words."""

    step: str
    code: str
    ledger: str
    position: int | None
    severity: str
    message: str


@dataclass
class Audit:
    """What the commands said.

    Attributes:
        codes: each command's exit code.
        said: each command's JSON document.
        findings: all of the bundle.
    """

    codes: dict[str, int] = field(default_factory=dict)
    said: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def faults(self) -> set[tuple[str, str, str, int | None]]:
        """Step, code, ledger and position of each fault."""
        return {each[:4] for each in self.findings if each.severity == "fault"}


class Revived:
    """Made by :meth:`running`."""

    def __init__(self, honest: Honest, folder: Path) -> None:
        self.honest, self.folder = honest, folder
        self.broker: Broker
        self.liar: LyingBroker
        self.ahead = 0
        """Milliseconds by which the nodes' clocks that never jump are ahead."""
        self.nodes: dict[str, RunningNode] = {}

    @property
    def address(self) -> str:
        """Where the broker listens."""
        return f"127.0.0.1:{self.broker.port}"

    @classmethod
    @asynccontextmanager
    async def running(
        cls,
        honest: Honest,
        folder: Path,
        *,
        nodes: Collection[str] = NODES,
        lying: bool = False,
        patience: float = 10.0,
    ) -> AsyncIterator[Revived]:
        """Start the databases of ``folder``.

        Args:
            honest: whose keys and settings they have.
            folder: ``broker.db`` and each node's.
            nodes: which of them run.
            lying: a lying broker stands between the broker and the nodes; it lies when told to.
            patience: seconds that nodes get until they may answer; one that refuses this broker never may.
        """
        configure("planted", level="error")
        made = cls(honest, folder)
        settings = replace(
            load_broker(honest.processes.broker_config, {}),
            database=f"sqlite:///{folder / 'broker.db'}",
            listen=f"127.0.0.1:{free_port()}",
            ready_file=None,
        )
        async with AsyncExitStack() as stack:
            made.broker = await stack.enter_async_context(open_broker(settings))
            address = made.address
            if lying:
                liar = LyingBroker(made.address, honest.processes.broker_folder)
                made.liar = await stack.enter_async_context(liar)
                address = liar.address
            for school in honest.schools:
                if school.name in nodes:
                    own = replace(
                        load_node(school.config, {}),
                        database=f"sqlite:///{folder / f'{school.name}.db'}",
                        brokers=(f"{address}={did_text(honest.root)}",),
                        ready_file=None,
                    )
                    made.nodes[school.name] = await stack.enter_async_context(
                        open_node(own, monotonic=lambda: boot_millis() + made.ahead)
                    )
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await asyncio.gather(*(each.fit.wait() for each in made.nodes.values()))
            yield made

    async def audit(self, *steps: str, bundle: str = "audit.db", **settings: Path | str) -> Audit:
        """Run these commands, all four unless named, on one bundle."""
        file = self.honest.settings_file(self.folder, self.address, **settings)
        return await audited(self.honest, file, self.folder / bundle, *(steps or STEPS))


async def audited(honest: Honest, settings: Path, bundle: Path, *steps: str) -> Audit:
    """Run ``permslip audit`` commands one after the other, as a shell would, in one process."""
    lines = [["audit", "--config", str(settings), step, str(bundle), "--json"] for step in steps]
    audit = Audit()
    for step, (code, said, complained) in zip(steps, await asyncio.to_thread(_commanded, lines), strict=True):
        audit.codes[step] = code
        audit.said[step] = json.loads(said or complained)
    audit.findings = _findings(honest, bundle)
    return audit


def _commanded(lines: list[list[str]]) -> list[tuple[int, str, str]]:
    process = _shell()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(lines) + "\n")
    process.stdin.flush()
    said = process.stdout.readline()
    assert said, f"the commands' process ended with {process.wait()}"
    return [(code, output, errors) for code, output, errors in json.loads(said)]


@cache
def _shell() -> subprocess.Popen[str]:
    """The process that runs the commands; its input, and with it itself, ends with this one."""
    return subprocess.Popen([sys.executable, str(_COMMANDS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _findings(honest: Honest, bundle: Path) -> list[Finding]:
    names = {honest.ledger_root(name): name for name in ("broker", *NODES)}
    with closing(sqlite3.connect(bundle)) as connection:
        rows = connection.execute(
            "SELECT step, code, root, position, severity, message FROM finding LEFT JOIN ledger USING (ledger)"
        ).fetchall()
    return [Finding(step, code, names.get(root, ""), *rest) for step, code, root, *rest in rows]

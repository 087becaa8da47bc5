"""A stopped federation, or a forged copy of it, up again: the product's own broker and nodes in this process.

Example::

    async with Revived.running(honest, folder) as revived:
        told = await revived.audit("fetch", "verify")
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from permslip.demo.children import free_port
from permslip.hosting.logs import configure
from permslip.keys import did_text
from permslip_broker.app import Broker, open_broker
from permslip_broker.configuration import load_settings as load_broker
from permslip_node.app import RunningNode, open_node
from permslip_node.configuration import load_settings as load_node
from tests.e2e.planted.honest import NODES, Honest

__all__ = ["Audit", "Finding", "Revived", "audited"]

STEPS = ("fetch", "verify", "replay", "reconcile")
_COMMANDS = Path(__file__).with_name("commands.py")


@dataclass(frozen=True)
class Finding:
    """One finding, where it is."""

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
        errors: what each said on standard error.
        findings: all of the bundle.
    """

    codes: dict[str, int] = field(default_factory=dict)
    said: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


class Revived:
    """Made by :meth:`running`."""

    def __init__(self, honest: Honest, folder: Path) -> None:
        self.honest, self.folder = honest, folder
        self.broker: Broker
        self.nodes: dict[str, RunningNode] = {}

    @property
    def address(self) -> str:
        """Where the broker listens."""
        return f"127.0.0.1:{self.broker.port}"

    @classmethod
    @asynccontextmanager
    async def running(
        cls, honest: Honest, folder: Path, *, nodes: Collection[str] = NODES, broker: Any = None, patience: float = 10.0
    ) -> AsyncIterator[Revived]:
        """Start the databases of ``folder``.

        Args:
            honest: whose keys and settings they have.
            folder: ``broker.db`` and each node's.
            nodes: which of them run.
            broker: changes of the broker's settings.
            patience: seconds that nodes get until they may answer; one that refuses this broker never may.
        """
        configure("planted", level="critical")
        made = cls(honest, folder)
        settings = replace(
            load_broker(honest.processes.broker_config, {}),
            database=f"sqlite:///{folder / 'broker.db'}",
            listen=f"127.0.0.1:{free_port()}",
            ready_file=None,
            **(broker or {}),
        )
        async with AsyncExitStack() as stack:
            made.broker = await stack.enter_async_context(open_broker(settings))
            for school in honest.schools:
                if school.name in nodes:
                    own = replace(
                        load_node(school.config, {}),
                        database=f"sqlite:///{folder / f'{school.name}.db'}",
                        brokers=(f"{made.address}={did_text(honest.root)}",),
                        ready_file=None,
                    )
                    made.nodes[school.name] = await stack.enter_async_context(open_node(own))
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await asyncio.gather(*(each.fit.wait() for each in made.nodes.values()))
            yield made

    async def audit(self, *steps: str, bundle: str = "audit.db", **settings: Path | str) -> Audit:
        """Run these commands, all four unless named, on one bundle."""
        file = self.honest.settings_file(self.folder, self.address, **settings)
        return await audited(file, self.folder / bundle, *(steps or STEPS))


async def audited(settings: Path, bundle: Path, *steps: str) -> Audit:
    """Run ``permslip audit`` commands one after the other, as a shell would, in one process."""
    lines = [["audit", "--config", str(settings), step, str(bundle), "--json"] for step in steps]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *(str(_COMMANDS), json.dumps(lines)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    audit = Audit()
    for step, (code, said, complained) in zip(steps, json.loads(output), strict=True):
        audit.codes[step], audit.errors[step] = code, complained
        audit.said[step] = json.loads(said) if said.strip() else None
    return audit

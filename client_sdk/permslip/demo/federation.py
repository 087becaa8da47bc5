"""The demo's federation: a broker, its nodes and its providers, made and run by the commands that an operator types.

Rules:

- Everything lies in one folder: ``broker/``, one folder for each node and provider, ``logs/``.
- Each party has a ``permslip.toml``, so that every step can be repeated by hand while the demo is kept up.
- A server counts as started when it wrote its ready file, and as failed when its process ended before.

Example::

    federation = Federation(folder, children)
    federation.start_broker()
    high = federation.make_node(site)
    federation.admit(high.root, "node", site.name, high.cert)
    federation.start_node(high)
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from permslip.client.guarding import AsyncGuardianClient
from permslip.client.identity import identify
from permslip.client.providing import AsyncClient
from permslip.demo.children import Child, Children, free_port
from permslip.demo.raw_exchange import RawCaller
from permslip.demo.sources import Site
from permslip.errors import UnavailableError
from permslip.keys import PublicKey

__all__ = ["AGREEMENT", "Federation", "NodeParty", "ProviderParty"]

AGREEMENT: Final = "NDPA-2026-17"
_NAME: Final = "demo-district"
_PATIENCE: Final = 60.0


@dataclass(slots=True)
class NodeParty:
    """A node of the demo.

    Attributes:
        site: what it is.
        folder: its files.
        root: its root key, ``did:key:…``.
        process: while it runs.
    """

    site: Site
    folder: Path
    root: str
    process: Child | None = None

    @property
    def config(self) -> str:
        """Its configuration file."""
        return str(self.folder / "node.toml")

    @property
    def cert(self) -> Path:
        """Its certificate."""
        return self.folder / "node.cert"

    @property
    def root_key(self) -> bytes:
        """Its root key's bytes."""
        return PublicKey.from_did(self.root).raw


@dataclass(frozen=True, slots=True)
class ProviderParty:
    """A provider of the demo: its name and where its keys are."""

    name: str
    folder: Path
    root: str

    @property
    def config(self) -> Path:
        """Its ``permslip.toml``."""
        return self.folder / "permslip.toml"

    @property
    def root_key(self) -> bytes:
        """Its root key's bytes."""
        return PublicKey.from_did(self.root).raw


@dataclass(slots=True)
class Federation:
    """All parties; see the module's text.

    Attributes:
        folder: where everything lies.
        children: runs the commands.
        address: of the broker, HOST:PORT.
        root: the broker's root key, ``did:key:…``.
        operator: the federation operator's key, ``did:key:…``.
        broker: while it runs.
        broker_program: the module that runs it, with what stands before ``broker run``; another one is for tests.
    """

    folder: Path
    children: Children
    name: str = _NAME
    address: str = field(default_factory=lambda: f"127.0.0.1:{free_port()}")
    root: str = ""
    operator: str = ""
    broker: Child | None = None
    broker_program: tuple[str, ...] = ("permslip",)

    @property
    def broker_folder(self) -> Path:
        """The broker's files: all that it keeps on disk, but its log."""
        return self.folder / "broker"

    def start_broker(self) -> Child:
        """Make the broker where it does not exist, and start it."""
        config = self.broker_folder / "broker.toml"
        if not config.exists():
            made = self.run("broker", "init", str(self.broker_folder), "--federation", self.name,
                            "--listen", self.address)  # fmt: skip
            self.root, self.operator = made["root"], made["operator"]
            self.write_settings(self.folder / "operator", key=self.broker_folder / "operator.key")
        ready = self.broker_folder / "broker.ready"
        self.broker = self._serve(ready, "broker", *self.broker_program, "broker", "run", "--config", str(config))
        return self.broker

    def make_node(self, site: Site) -> NodeParty:
        """Make a node's keys and configuration."""
        folder = self.folder / site.key
        made = self.run(
            "node", "init", str(folder), "--name", site.name, "--federation", self.name,
            "--operator", self.operator, "--broker", f"{self.address}={self.root}",
        )  # fmt: skip
        return NodeParty(site, folder, made["root"])

    def start_node(self, node: NodeParty) -> None:
        """Start a node; returns when it is attached."""
        ready = node.folder / "node.ready"
        node.process = self._serve(ready, node.site.key, "permslip", "node", "run", "--config", node.config)

    def make_provider(self, key: str, name: str) -> ProviderParty:
        """Make a provider's keys and have it admitted."""
        return self._make_organization(key, name, "provider")

    def make_auditor(self, key: str, name: str, witnesses: Path) -> Path:
        """Make an auditor's keys and have them admitted for everything; her ``permslip.toml``."""
        auditor = self._make_organization(key, name, "auditor", witnesses=witnesses)
        return auditor.config

    def name_witnesses(self, nodes: Sequence[NodeParty]) -> Path:
        """The operator's word on whose cosignatures count: all of these, of whom a majority must have signed."""
        file = self.folder / "operator" / "witnesses.txt"
        self.run(
            "operator", "--config", str(self.folder / "operator" / "permslip.toml"),
            "witnesses", *(node.root for node in nodes), "--out", str(file),
        )  # fmt: skip
        return file

    def admit(self, did: str, kind: str, name: str, cert: Path) -> None:
        """The operator admits an organization and registers its certificate."""
        self.run(
            "operator", "--config", str(self.folder / "operator" / "permslip.toml"),
            "admit", did, "--kind", kind, "--name", name, "--agreement", AGREEMENT, "--cert", str(cert),
        )  # fmt: skip

    def broker_status(self) -> dict[str, Any]:
        """What the running broker tells the operator, with the signed checkpoint of its ledger."""
        told: dict[str, Any] = self.run(
            "broker", "status", "--config", str(self.broker_folder / "broker.toml"),
            "--operator-key", str(self.broker_folder / "operator.key"),
        )  # fmt: skip
        return told

    def client(self, provider: ProviderParty) -> AsyncClient:
        """A provider's client, as its own software would make it."""
        return AsyncClient(
            broker=self.address,
            broker_root=self.root,
            federation=self.name,
            operator=self.operator,
            keys=provider.folder / "online.key",
            cert=provider.folder / "online.cert",
        )

    def guardian(self, wallet: Path) -> AsyncGuardianClient:
        """A guardian's client, as the app on her phone would make it."""
        return AsyncGuardianClient(
            broker=self.address,
            broker_root=self.root,
            federation=self.name,
            operator=self.operator,
            wallet=wallet,
        )

    def raw_caller(self, provider: ProviderParty) -> RawCaller:
        """A provider that sends what it likes."""
        folder = provider.folder
        identity = identify(folder / "online.key", folder / "online.cert", federation=self.name)
        return RawCaller(self.name, PublicKey.from_did(self.root).raw, identity.signer, identity.keys.signing)

    def write_settings(self, folder: Path, **more: Path) -> None:
        """Write a party's ``permslip.toml``."""
        folder.mkdir(exist_ok=True)
        values = {
            "broker": self.address,
            "broker_root": self.root,
            "federation": self.name,
            "operator": self.operator,
            **{key: str(path.resolve()) for key, path in more.items()},
        }
        lines = [f"{key} = {json.dumps(value)}\n" for key, value in values.items()]  # a JSON string is a TOML string
        (folder / "permslip.toml").write_text("".join(lines), encoding="utf-8")

    def run(self, *arguments: str) -> Any:
        """Run a command with ``--json``; what it printed."""
        return self.children.run(*arguments, "--json").document()

    def _make_organization(self, key: str, name: str, kind: str, **more: Path) -> ProviderParty:
        """Make a root and an online key, certify the one by the other, and have the organization admitted."""
        folder = self.folder / key
        folder.mkdir(mode=0o700)
        root, online, cert = folder / "root.key", folder / "online.key", folder / "online.cert"
        did = self.run("keys", "new", str(root), "--kind", kind, "--root")["did"]
        self.run("keys", "new", str(online), "--kind", kind)
        self.run("keys", "certify", "--root", str(root), "--key", str(online), "--federation", self.name,
                 "--out", str(cert))  # fmt: skip
        self.admit(did, kind, name, cert)
        self.write_settings(folder, key=online, cert=cert, **more)
        return ProviderParty(name, folder, did)

    def _serve(self, ready: Path, name: str, module: str, *arguments: str) -> Child:
        ready.unlink(missing_ok=True)
        child = self.children.start_module(name, module, *arguments)
        ends_at = time.monotonic() + _PATIENCE
        while not ready.exists():
            if not child.is_running:
                raise UnavailableError(f"{name} ended before it served: {child.last_words()}")
            if time.monotonic() > ends_at:
                raise UnavailableError(f"{name} does not serve after {_PATIENCE:.0f} s: {child.last_words()}")
            time.sleep(0.02)
        return child

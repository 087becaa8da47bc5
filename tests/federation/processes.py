"""Brokers and nodes as processes, made and started by the ``permslip`` command.

Everything a federation needs is made in one folder: the broker's keys and configuration, the operator's key, and as
many nodes as are asked for. All of them listen on loopback and end with the block.

Example::

    with FederationProcesses(tmp_path) as federation:
        federation.start_broker()
        federation.admit([(school.root, school.cert)])
        federation.broker.kill()            # as a power cut would
        federation.start_broker()
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc

from permslip._pb.permslip.v1 import operator_pb2, operator_pb2_grpc
from permslip.demo.children import Child, Children, Finished, free_port
from permslip.keyfile import read_key_file
from permslip.keys import PublicKey, SealingKey
from permslip.quantities import Millis
from permslip.reasons import Reason
from permslip.statements import Signed
from tests.federation.principals import Organization, Person, admit

__all__ = ["FederationProcesses", "now"]

_PATIENCE = 30.0


def now() -> Millis:
    """UTC milliseconds."""
    return Millis(time.time_ns() // 1_000_000)


class FederationProcesses:
    """The processes of one federation.

    Args:
        folder: where everything is made; the broker's is ``folder/broker``.
        federation: its name.
    """

    def __init__(self, folder: Path, federation: str = "fed.test") -> None:
        self.folder, self.federation = folder, federation
        self._children = Children(folder / "logs")
        self.broker_folder = folder / "broker"
        self.address = f"127.0.0.1:{free_port()}"
        self.broker: Child
        made = self._children.run(
            "broker", "init", str(self.broker_folder), "--federation", federation, "--listen", self.address, "--json"
        ).document()
        self.root = PublicKey.from_did(made["root"]).raw
        operator = read_key_file(self.broker_folder / "operator.key")
        self.operator = Person(operator.signing, SealingKey.generate())

    def __enter__(self) -> FederationProcesses:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._children.__exit__(kind, error, trace)

    @property
    def broker_config(self) -> Path:
        """The broker's configuration file."""
        return self.broker_folder / "broker.toml"

    def command(self, *arguments: str) -> Any:
        """Run a ``permslip`` command to its end; what it printed as JSON."""
        return self._children.run(*arguments, "--json").document()

    def run_refused(self, *arguments: str) -> Finished:
        """Run a ``permslip`` command that is expected to fail."""
        finished = self._children.run(*arguments, accept=range(256))
        assert finished.code, finished.output
        return finished

    def start(self, name: str, *arguments: str) -> Child:
        """Start a server, such as a node."""
        return self._children.start(name, *arguments)

    def start_broker(self) -> Child:
        """Start the broker, or start it again; returns when it serves."""
        ready = self.broker_folder / "broker.ready"
        ready.unlink(missing_ok=True)
        self.broker = self._children.start("broker", "broker", "run", "--config", str(self.broker_config))
        self._until_ready(self.broker, ready)
        return self.broker

    def admit(self, organizations: Iterable[Organization]) -> None:
        """Admit organizations and register their certificates."""
        statements: list[Signed[Any]] = []
        for each in organizations:
            statements += [admit(self.operator, each, now=now()), each.cert]
        self.record(*statements)

    def record(self, *statements: Signed[Any]) -> None:
        """Bring statements to the operator's door; every one of them is taken."""
        with grpc.insecure_channel(self.address) as channel:
            response = operator_pb2_grpc.OperatorServiceStub(channel).Admit(
                operator_pb2.AdmitRequest(statements=[each.envelope for each in statements]),
                timeout=_PATIENCE,
                wait_for_ready=True,
            )
        for result in response.results:
            assert result.refusal.code == Reason.ALLOWED.wire, result.refusal

    @staticmethod
    def _until_ready(child: Child, ready: Path) -> None:
        ends = time.monotonic() + _PATIENCE
        while not ready.exists():
            assert child.is_running, child.last_words()
            assert time.monotonic() < ends, f"{child.name} does not serve: {child.last_words()}"
            time.sleep(0.02)

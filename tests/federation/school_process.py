"""One school's node as a process of its own, made by ``permslip node init`` and started by ``permslip node run``.

Between it and the broker is a :class:`~tests.federation.cable.Cable`. It is killed, frozen and thawed by its own pid.

Example::

    school = SchoolProcess(federation, "high")
    ada = school.learner("604822", grades=500)
    school.start()
    await school.until_fit()
    school.freeze()
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from permslip import statements as st
from permslip._pb.permslip.v1 import record_pb2, statement_pb2 as pb
from permslip.armor import read_statement
from permslip.demo.children import Child
from permslip.keyfile import read_key_file
from permslip.keys import did_text
from permslip.quantities import Handle
from permslip.slip import Slip
from permslip_node.app import open_store
from permslip_node.configuration import NodeSettings, load_settings
from permslip_node.importing.sink import ImportedGuardian, ImportedName, ImportedRecord
from permslip_node.slips import issue_slip
from permslip_node.sql_sink import SqlSink
from tests.federation.cable import Cable
from tests.federation.ledgers import LedgerOf
from tests.federation.principals import Organization
from tests.federation.processes import FederationProcesses, now

__all__ = ["LEASE_MS", "SchoolProcess", "until"]

LEASE_MS = 3_000
_PATIENCE = 20.0
# Quicker than by itself, so that tests need not wait; and the lease ends before a frozen broker is noticed otherwise.
_TIMING = f"""
[node.timing]
lease_interval_ms = 100
lease_ms = {LEASE_MS}
first_retry_ms = 20
longest_retry_ms = 200
keepalive_ms = 20_000
notice_ms = 20
"""


async def until(holds: Callable[[], Any], what: str, *, within: float = _PATIENCE) -> Any:
    """Wait until something outside of this process holds; returns what it then is.

    Raises:
        AssertionError: it does not come to hold; the message says ``what``.
    """
    ends = time.monotonic() + within
    while not (found := holds()):
        assert time.monotonic() < ends, f"this never came true: {what}"
        await asyncio.sleep(0.01)
    return found


class SchoolProcess:
    """A node's folder, its process, and its cable.

    Args:
        federation: whose broker it attaches to.
        name: as parents see it; the folder's too.
    """

    def __init__(self, federation: FederationProcesses, name: str) -> None:
        self._federation, self.name = federation, name
        self.folder = federation.folder / name
        self.cable = Cable(int(federation.address.rpartition(":")[2]))
        self.cable.__enter__()
        federation.command(
            "node",
            "init",
            str(self.folder),
            "--name",
            name,
            "--federation",
            federation.federation,
            "--operator",
            did_text(federation.operator.public),
            "--broker",
            f"{self.cable.address}={did_text(federation.root)}",
        )
        with self.config.open("a", encoding="utf-8") as file:
            file.write(_TIMING)
        self.organization = _organization(self.folder, name)
        self.ledger = LedgerOf(self.folder / "node.db")
        self.process: Child | None = None

    @property
    def config(self) -> Path:
        """Its configuration file."""
        return self.folder / "node.toml"

    @property
    def settings(self) -> NodeSettings:
        """The same, read."""
        return load_settings(self.config, {})

    @property
    def root(self) -> bytes:
        """The node's."""
        return self.organization.root

    # ------------------------------------------------------------------------------------- what it holds

    def learner(self, native_id: str, *, grades: int, attendance: int, size: int) -> Handle:
        """A learner with one guardian, so many records of each section, and so many bytes of text in each grade."""
        with open_store(self.settings) as engine:
            sink = SqlSink(engine, clock=now)
            handle = sink.learner(native_id)
            sink.put_names([ImportedName(native_id, "Ada")])
            guardian = ImportedGuardian(native_id, "P1", "Maria", "Maria", "", "Mother", None, None, None, None, "", "")
            sink.put_persons([guardian])
            sink.put_records([_grade(handle, each, size) for each in range(grades)])
            sink.put_records([_attendance(handle, each) for each in range(attendance)])
        return handle

    def slip(self, native_id: str) -> Slip:
        """Print the guardian's slip."""
        with open_store(self.settings) as engine:
            return issue_slip(engine, self.root, native_id, "P1", days=1, now=now()).slip

    # ------------------------------------------------------------------------------------- its process

    def start(self) -> Child:
        """Start it, or start it again."""
        self.ready_file.unlink(missing_ok=True)
        self.process = self._federation.start(self.name, "node", "run", "--config", str(self.config))
        return self.process

    @property
    def ready_file(self) -> Path:
        """Is there once the node may answer."""
        return self.folder / "node.ready"

    async def until_ready(self) -> None:
        """Wait until it may answer for the first time after :meth:`start`."""
        await until(self._ready_or_dead, f"{self.name} may answer: {self._running.last_words}")

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self._running.kill()

    def freeze(self) -> None:
        """Stop it where it stands (SIGSTOP); its connections stay."""
        os.kill(self._running.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on (SIGCONT)."""
        if self._running.is_running:
            os.kill(self._running.pid, signal.SIGCONT)

    def end(self) -> int:
        """Ask it to end in order (SIGTERM); returns its exit code."""
        return self._running.end()

    @property
    def is_running(self) -> bool:
        """Whether its process is there."""
        return self.process is not None and self.process.is_running

    @property
    def _running(self) -> Child:
        assert self.process is not None, f"{self.name} was not started"
        return self.process

    # ------------------------------------------------------------------------------------- what it says

    def said(self, event: str, **fields: object) -> list[dict[str, Any]]:
        """The lines of its log with this event and these fields, of all its processes so far."""
        return [
            each
            for each in self._lines()
            if each.get("event") == event and all(each.get(name) == value for name, value in fields.items())
        ]

    async def until_said(self, event: str, *, more_than: int = 0, **fields: object) -> list[dict[str, Any]]:
        """Wait until there are more than so many of these lines."""

        def enough() -> list[dict[str, Any]]:
            found = self.said(event, **fields)
            return found if len(found) > more_than else []

        found: list[dict[str, Any]] = await until(enough, f"{self.name} says {event} {fields}")
        return found

    def _lines(self) -> list[dict[str, Any]]:
        lines = self._running.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return [json.loads(each) for each in lines if each.startswith("{") and each.endswith("}")]

    def _ready_or_dead(self) -> bool:
        assert self._running.is_running, self._running.last_words()
        return self.ready_file.exists()


def _organization(folder: Path, name: str) -> Organization:
    """The keys that ``permslip node init`` made."""
    online = read_key_file(folder / "node.key")
    root = read_key_file(folder / "node-root.key")
    payload = pb.KeyCert.FromString(read_statement(folder / "node.cert", st.KEY_CERT).payload)
    cert = st.verify(st.KEY_CERT, read_statement(folder / "node.cert", st.KEY_CERT), federation=payload.federation)
    assert online.sealing is not None
    return Organization(
        name, pb.PRINCIPAL_KIND_NODE, payload.federation, root.signing, online.signing, online.sealing, cert
    )


def _grade(handle: Handle, number: int, size: int) -> ImportedRecord:
    record = record_pb2.Record(section="transcript.grades", observed_on="2026-03-02")
    record.value.text = f"{number} ".ljust(size, "x")
    record.grade.SetInParent()
    return _imported(handle, number, record)


def _attendance(handle: Handle, number: int) -> ImportedRecord:
    record = record_pb2.Record(section="personal.attendance", observed_on="2026-03-02")
    record.attendance.event = "In Attendance"
    return _imported(handle, number, record)


def _imported(handle: Handle, number: int, record: record_pb2.Record) -> ImportedRecord:
    content = record.SerializeToString(deterministic=True)
    return ImportedRecord(handle, number.to_bytes(16, "big"), record.section, record.observed_on, content)

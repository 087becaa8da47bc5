"""Processes of a measurement: started, waited for, ended by their own pid.

A child says what it has to say (its port, that a node attached) in JSON lines on its standard output, and ends when its
standard input does: a measurement that dies leaves nobody behind.

Example::

    with Processes() as processes:
        relay = processes.start("tests.bench.floor.relay", "--nodes", "3")
        port = relay.say()["port"]
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

__all__ = ["ROOT", "Child", "Processes", "announce", "peak_mb", "processor_seconds", "resident_mb", "until_parent_ends"]

ROOT = Path(__file__).resolve().parents[2]
_PATIENCE = 10.0


class Child:
    """One process that was started here."""

    def __init__(
        self, module: str, arguments: tuple[str, ...], environment: Mapping[str, str], log: Path | None
    ) -> None:
        self.module = module
        self._log = None if log is None else log.open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "GRPC_VERBOSITY": "ERROR", **environment},
            text=True,
        )

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def say(self) -> dict[str, Any]:
        """Wait for the next line that it announces."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.module} ended with code {self._process.wait()} before it was ready")
        message: dict[str, Any] = json.loads(line)
        return message

    def end(self) -> None:
        """Close its input, which ends it; kill it if it does not."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        if self._log is not None:
            self._log.close()


class Processes:
    """The processes of one measurement; all ended at the end of the block, the youngest first."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._children: list[Child] = []
        self._environment = environment or {}

    def start(self, module: str, *arguments: str, log: Path | None = None) -> Child:
        """Start ``python -m module`` with these arguments; ``log`` takes its standard error."""
        child = Child(module, arguments, self._environment, log)
        self._children.append(child)
        return child

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in reversed(self._children):
            child.end()
        self._children.clear()


def announce(**message: object) -> None:
    """In a child: say something to whoever started it."""
    print(json.dumps(message), flush=True)


async def until_parent_ends() -> None:
    """In a child: wait until standard input ends."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def read() -> None:
        if not os.read(0, 4096):
            loop.remove_reader(0)
            ended.set()

    loop.add_reader(0, read)
    await ended.wait()


def resident_mb(pid: int) -> float:
    """Resident memory of a process, in 10^6 bytes."""
    return _status(pid, "VmRSS")


def peak_mb(pid: int) -> float:
    """The most resident memory that a process had, in 10^6 bytes."""
    return _status(pid, "VmHWM")


def processor_seconds(pid: int) -> float:
    """Processor time that a process has used so far."""
    user, system = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _status(pid: int, key: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"the system does not say {key} of process {pid}")

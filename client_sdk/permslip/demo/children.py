"""The demo's processes: ``permslip`` commands, run to their end or kept running, and ended by their own pids.

Rules:

- A command is what a person would type, without ``permslip``: ``run("node", "report", "--config", path, "--json")``.
- A command that fails fails the demo, with its own words (:class:`~permslip.errors.UnavailableError`).
- Nothing outlives the demo: servers are ended youngest first (SIGTERM, then SIGKILL), and all of them are on a leash
  (:mod:`permslip.demo.leash`) in case the demo is killed.
- A child sees no environment but what it needs, so that no server's memory holds what the user's shell knows.
- What a server writes goes to ``<logs>/<name>.log``.

Example::

    with Children(folder / "logs") as children:
        children.run("broker", "init", str(folder))
        broker = children.start("broker", "broker", "run", "--config", str(folder / "broker.toml"))
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import Any, BinaryIO, Final, TypeVar

from permslip.errors import UnavailableError

__all__ = ["Child", "Children", "Finished", "free_port", "in_parallel"]

T = TypeVar("T")
R = TypeVar("R")

# Below the range from which Linux and others take the ports of outgoing connections.
_FIRST_PORT: Final = 20_000
_PORTS: Final = 12_000
_PATIENCE: Final = 15.0  # seconds for a server to drain before it is killed
_LEASH: Final = Path(__file__).with_name("leash.py")
_PASSED_ON: Final = ("PATH", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT")


def in_parallel(do: Callable[[T], R], things: Sequence[T]) -> list[R]:
    """Do the same with each, as many at once as there are processors; results in the order of ``things``."""
    with ThreadPoolExecutor(max(1, min(os.cpu_count() or 1, len(things)))) as pool:
        return list(pool.map(do, things))


def free_port() -> int:
    """A loopback port that nothing listens on now, of those that the system gives to nobody unasked."""
    while True:
        port = _FIRST_PORT + secrets.randbelow(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@dataclass(frozen=True, slots=True)
class Finished:
    """What a command that came to its end left behind.

    Attributes:
        code: its exit code.
        output: standard output.
        errors: standard error.
        peak_mb: the most resident memory it had, in 10^6 bytes.
        seconds: wall clock.
    """

    code: int
    output: str
    errors: str
    peak_mb: float
    seconds: float

    def document(self) -> Any:
        """Its standard output, read as JSON.

        Raises:
            UnavailableError: it is none.
        """
        try:
            return json.loads(self.output)
        except json.JSONDecodeError as error:
            raise UnavailableError(f"a command with --json printed no JSON: {self.output[:200]!r}.") from error


class Child:
    """A server that was started, and is running until it is ended."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name, self.log, self._process = name, log, process

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def last_words(self) -> str:
        """The end of its log, for an error message."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-2000:].strip()

    def end(self) -> int:
        """Ask it to drain and end; kill it when it does not. Returns its exit code."""
        if self.is_running:
            self._process.terminate()
            try:
                self._process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self.kill()
        return self._process.returncode

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()


class Children:
    """All processes of one demo. On leaving the block every one of them has ended.

    Args:
        logs: folder for the servers' logs; made if absent.
    """

    def __init__(self, logs: Path) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self._logs = logs
        self._running: list[Child] = []

    def __enter__(self) -> Children:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in reversed(self._running):
            child.end()

    def start(self, name: str, *arguments: str) -> Child:
        """Start ``permslip ARGUMENTS`` under this name; a second start under the same name adds to its log."""
        return self.start_module(name, "permslip", *arguments)

    def start_module(self, name: str, module: str, *arguments: str) -> Child:
        """The same for ``python -m module``."""
        log = self._logs / f"{name}.log"
        with log.open("ab") as stream:
            process = subprocess.Popen(  # noqa: S603 (our own command)
                _leashed(module, arguments),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=_environment(),
                start_new_session=True,  # Ctrl-C is for the demo, which then ends them in order
            )
        child = Child(name, process, log)
        self._running.append(child)
        return child

    def run(self, *arguments: str, accept: Iterable[int] = (0,)) -> Finished:
        """Run a ``permslip`` command to its end. May be called from several threads at once.

        Args:
            arguments: of ``permslip``.
            accept: exit codes that are no failure.

        Raises:
            UnavailableError: another exit code; the message holds the command and what it said.
        """
        return self.run_module("permslip", *arguments, accept=accept)

    def run_module(self, module: str, *arguments: str, accept: Iterable[int] = (0,)) -> Finished:
        """The same for ``python -m module``."""
        began = time.monotonic()
        with TemporaryFile() as output, TemporaryFile() as errors:
            process = subprocess.Popen(  # noqa: S603 (our own command)
                _leashed(module, arguments),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                env=_environment(),
                start_new_session=True,
            )
            try:
                peak_mb = _reap(process)
            except BaseException:
                process.kill()
                process.wait()
                raise
            said = [_text(output), _text(errors)]
        finished = Finished(process.returncode, said[0], said[1], peak_mb, time.monotonic() - began)
        if finished.code not in set(accept):
            words = (finished.errors or finished.output).strip()[-1500:]
            raise UnavailableError(
                f"'{module} {' '.join(arguments)}' ended with exit code {finished.code}: {words or 'it said nothing'}",
            )
        return finished


def _reap(process: subprocess.Popen[bytes]) -> float:
    """Wait for the end; returns the peak of resident memory, which only the call that reaps a process can tell."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    scale = 1 if sys.platform == "darwin" else 1024
    return usage.ru_maxrss * scale / 1e6


def _text(stream: BinaryIO) -> str:
    stream.seek(0)
    return stream.read().decode(errors="replace")


def _leashed(module: str, arguments: tuple[str, ...]) -> list[str]:
    leash = [sys.executable, "-I", "-S", str(_LEASH), str(os.getpid())]
    return [*leash, sys.executable, "-m", module, *arguments]


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return kept | {"PYTHONUNBUFFERED": "1", "GRPC_VERBOSITY": "ERROR", "NO_COLOR": "1"}

"""``permslip demo`` as a process of a test: what it says, and how it ends.

Example::

    demo = RunningDemo("--learners", "9", cwd=tmp_path)
    demo.until("broker listens on")
    assert demo.end(signal.SIGINT) == 130
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["PlayedDemo", "RunningDemo", "Tried", "has_ended", "try_commands"]

PATIENCE = 400.0


class RunningDemo:
    """``permslip demo --json`` as a process, with what it said so far; the report is in ``output`` once it ended."""

    def __init__(self, *arguments: str, cwd: Path) -> None:
        self.said: list[str] = []
        self._changed = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "permslip", "demo", "--json", *arguments],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(cwd)},
        )
        self.output = ""
        self._readers = [threading.Thread(target=self._read), threading.Thread(target=self._collect)]
        for reader in self._readers:
            reader.start()

    @property
    def text(self) -> str:
        """Everything that it said so far."""
        with self._changed:
            return "".join(self.said)

    def until(self, words: str) -> str:
        """Wait until it says these words; everything that it said so far."""
        with self._changed:
            came = self._changed.wait_for(
                lambda: words in "".join(self.said) or not self._readers[0].is_alive(), timeout=PATIENCE
            )
        assert came, f"{words!r} did not come: {self.text}"
        assert words in self.text, self.text
        return self.text

    def end(self, number: int) -> int:
        """Send a signal; returns the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE)
        for reader in self._readers:
            reader.join(PATIENCE)
        return code

    def _collect(self) -> None:
        assert self.process.stdout is not None
        self.output = self.process.stdout.read()
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self.said.append(line)
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()
        self.process.stderr.close()


@dataclass(frozen=True)
class Tried:
    """A command that the demo named, and what came of it while the demo was up."""

    command: str
    code: int
    output: str
    errors: str


@dataclass(frozen=True)
class PlayedDemo:
    """A demo that was played, kept up, used, and ended by Ctrl-C."""

    code: int
    said: str
    output: str
    keep: Path
    report: dict[str, Any]
    tried: list[Tried]


def try_commands(said: str) -> list[Tried]:
    """Run the commands that a demo names."""
    tried = []
    for command in re.findall(r"^ +(permslip .*)$", said, re.MULTILINE):
        own = command.replace("permslip", f"{sys.executable} -m permslip", 1)
        ran = subprocess.run(["bash", "-c", own], capture_output=True, text=True, check=False, timeout=100)
        tried.append(Tried(command, ran.returncode, ran.stdout, ran.stderr))
    return tried


def has_ended(pid: int) -> bool:
    """Whether a process is gone, within a short while."""
    ends_at = time.monotonic() + 20
    while time.monotonic() < ends_at:
        try:
            state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        os.sched_yield()
    return False

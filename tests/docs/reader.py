"""A reader who types what a page says: one shell in one folder, and the servers that the page starts.

Rules:

- One ``bash`` for each page, in a process group of its own; nothing outlives the page.
- Ports that pages name (7443, and 946x for metrics) are replaced by free ones, in what is typed and in the TOML files
  that come of it. Every server listens on loopback.
- A command that ends with ``&`` is started and left; ``permslip … run`` counts as started once its ready file is there.
- Output is compared loosely: the shown lines are parts of what was printed, in this order; ``…`` stands for anything.
- What Python prints is shown in comments that begin with ``# →``.

Example::

    with Reader(folder, {}) as reader:
        reader.read(page)
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from permslip.demo.children import free_port
from tests.docs.pages import Block, Command, blocks, commands
from tests.docs.sketches import Sketch

__all__ = ["Reader"]

_PATIENCE: Final = 60.0
_PRINTS: Final = "# → "
_SENTINEL: Final = "<<< typed, and ended with "
_SERVER: Final = re.compile(r"permslip (broker|node) run --config (\S+)")
_PORTS: Final = re.compile(r"(?<=:)(?:7443|946[0-9])\b")
# Stands in where a machine has no curl.
_CURL: Final = """\
#!{python}
import sys, urllib.request
print(urllib.request.urlopen(sys.argv[-1]).read().decode(), end="")
"""


class Reader:
    """Types commands into a shell.

    Args:
        folder: where the page is read.
        ports: the free port for each that pages name; gets those that are missing.
        more: the environment, beside what every shell has.
        program: one more that the page's reader has installed.
    """

    def __init__(
        self, folder: Path, ports: dict[str, int], more: dict[str, str] | None = None, *, program: Path | None = None
    ) -> None:
        self.folder, self._ports = folder, ports
        tools = folder.parent / "tools"
        tools.mkdir(exist_ok=True)
        if shutil.which("curl") is None:
            (tools / "curl").write_text(_CURL.format(python=sys.executable), "utf-8")
            (tools / "curl").chmod(0o755)
        if program is not None:
            (tools / program.name).symlink_to(program)
        self._environment = {
            "PATH": f"{Path(sys.executable).parent}:{tools}:{os.environ['PATH']}",
            "HOME": str(folder),
            "LC_ALL": "C.UTF-8",
            "TERM": "dumb",
            **(more or {}),
        }
        self._shell: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        # A shell that reads no start-up files; its children share its group, so that all of them can be ended.
        self._shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        # The shell itself tells its servers to end and waits for them; what did not obey is killed.
        self._shell.stdin.write(b"kill $(jobs -p) 2> /dev/null; wait; exit\n")
        self._shell.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._shell.wait(_PATIENCE)
        with suppress(ProcessLookupError):
            os.killpg(self._shell.pid, signal.SIGKILL)
        self._shell.wait()
        self._shell.stdout.close()

    def read(self, page: Path, sketch: Sketch | None = None) -> None:
        """Type every command of a page, run its Python, and compare what the page shows.

        Args:
            page: which.
            sketch: how its Python is made whole, where that is needed.
        """
        for text in sketch.before if sketch is not None else ():
            code, said = self.type(text)
            assert code == 0, said
        for block in blocks(page):
            self._type_block(block, sketch)

    def _type_block(self, block: Block, sketch: Sketch | None) -> None:
        if block.language == "python":
            script = self.folder / ".example.py"
            text = block.text if sketch is None else sketch.whole(block.text)
            script.write_text(self._with_ports(text), "utf-8")
            printed = tuple(line.strip().removeprefix(_PRINTS) for line in text.splitlines() if _PRINTS in line)
            self._typed(block, Command(f"{sys.executable} .example.py", printed))
        elif block.language == "console":
            for command in commands(block):
                self._typed(block, command)

    def type(self, text: str) -> tuple[int, str]:
        """Type one command; its exit code and what it printed."""
        assert self._shell.stdin is not None
        server = _SERVER.search(text) if text.endswith("&") else None
        ready = self.folder / Path(server[2]).with_name(f"{server[1]}.ready") if server else None
        if ready is not None:
            ready.unlink(missing_ok=True)
        self._shell.stdin.write(f"{self._with_ports(text)}\necho '{_SENTINEL}'$?\n".encode())
        self._shell.stdin.flush()
        said = self._until_sentinel(text)
        body, _, code = said.rpartition(_SENTINEL)
        self._move_ports()
        if ready is not None:
            self._until_ready(ready, text)
        return int(code), body

    def _typed(self, block: Block, command: Command) -> None:
        code, said = self.type(command.text)
        # A page that shows a command which does not end with 0 says so itself, with an `; echo $?` or `||`.
        assert code == 0, f"{block}: exit code {code} of\n{command.text}\n{said}"
        rest = said
        for line in command.output:
            pattern = ".*?".join(re.escape(part) for part in re.split(r"\s*…\s*", re.sub(r"\s+", " ", line.strip())))
            match = re.search(pattern.replace(r"\ ", r"\s+"), rest, re.DOTALL)
            assert match, f"{block}: expected «{line}» from\n{command.text}\ngot\n{said}"
            rest = rest[match.end() :]

    def _until_sentinel(self, text: str) -> str:
        assert self._shell.stdout is not None
        descriptor = self._shell.stdout.fileno()
        ends, said = time.monotonic() + _PATIENCE, b""
        while not re.search(re.escape(_SENTINEL).encode() + rb"\d+\n", said):
            ready, _, _ = select.select([descriptor], [], [], max(0.0, ends - time.monotonic()))
            assert ready, f"no end after {_PATIENCE:.0f} s:\n{text}\n{said.decode(errors='replace')}"
            part = os.read(descriptor, 65_536)
            assert part, f"the shell ended:\n{text}\n{said.decode(errors='replace')}"
            said += part
        return said.decode(errors="replace")

    def _until_ready(self, ready: Path, text: str) -> None:
        ends = time.monotonic() + _PATIENCE
        while not ready.exists():
            if time.monotonic() > ends:
                _, said = self.type("tail -n 5 *.log")
                raise AssertionError(f"not ready after {_PATIENCE:.0f} s: {text}\n{said}")
            select.select([], [], [], 0.02)

    def _with_ports(self, text: str) -> str:
        return _PORTS.sub(lambda match: str(self._ports.setdefault(match[0], free_port())), text)

    def _move_ports(self) -> None:
        for path in (*self.folder.glob("*.toml"), *self.folder.glob("*/*.toml")):
            before = path.read_text("utf-8")
            if (after := self._with_ports(before)) != before:
                path.write_text(after, "utf-8")

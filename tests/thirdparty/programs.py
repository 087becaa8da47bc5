"""The tools of others, installed for the tests that ask them.

==========  ==================================================================================================
``go``      ``golang.org/x/mod`` (``sumdb/note``, ``sumdb/tlog``), the code that guards Go's own module log,
            behind ``driver/main.go``
``aics``    ``aics-tlog``, a verifier of the C2SP formats in Python ≥ 3.12, by its own command line
==========  ==================================================================================================

Both verify with other cryptography than ours, and are pinned. Where one cannot be installed its tests are skipped, and
say why; with ``CI=true`` they fail instead.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol

import pytest

__all__ = ["Aics", "Go", "Judge", "RefusedError", "install_aics", "install_go"]

_HERE: Final = Path(__file__).resolve().parent
_BUILD: Final = _HERE.parent.parent / "build" / "thirdparty"
_AICS: Final = "aics-tlog==0.2.1"
_INSTALL_SECONDS: Final = 300


class RefusedError(Exception):
    """The tool did not accept it; says why in its own words."""


class Judge(Protocol):
    """What a tool can be asked; each method returns or raises :class:`RefusedError`."""

    def checkpoint(self, note: bytes, log_key: str, witnesses: Sequence[str], quorum: int) -> None:
        """A checkpoint is signed by the log and cosigned by ``quorum`` of the witnesses (vkeys)."""
        ...

    def inclusion(self, leaf: bytes, index: int, size: int, root: bytes, proof: Sequence[bytes]) -> None:
        """The leaf is in the tree of that size and root."""
        ...

    def consistency(self, old: tuple[int, bytes], new: tuple[int, bytes], proof: Sequence[bytes]) -> None:
        """The old (size, root) is a prefix of the new."""
        ...

    def tiles(self, source: Path | str, leaf: bytes, index: int, log_key: str, old: tuple[int, bytes]) -> None:
        """Tiles with their checkpoint, in a folder or at ``http://…``, hold that leaf, and grew from the old."""
        ...


@dataclass(frozen=True)
class Go:
    """The Go module, behind its driver."""

    program: Path

    def checkpoint(self, note: bytes, log_key: str, witnesses: Sequence[str], quorum: int) -> None:
        self._ask(op="checkpoint", note=_b64(note), log_key=log_key, witnesses=list(witnesses), quorum=quorum)

    def inclusion(self, leaf: bytes, index: int, size: int, root: bytes, proof: Sequence[bytes]) -> None:
        self._ask(
            op="inclusion",
            leaf=_b64(leaf),
            index=index,
            size=size,
            root=_b64(root),
            proof=[_b64(each) for each in proof],
        )

    def consistency(self, old: tuple[int, bytes], new: tuple[int, bytes], proof: Sequence[bytes]) -> None:
        self._ask(
            op="consistency",
            old_size=old[0],
            old_root=_b64(old[1]),
            size=new[0],
            root=_b64(new[1]),
            proof=[_b64(each) for each in proof],
        )

    def tiles(self, source: Path | str, leaf: bytes, index: int, log_key: str, old: tuple[int, bytes]) -> None:
        note = _read(source, "checkpoint")
        self.checkpoint(note, log_key, [], 0)
        _, size, root = note.decode().split("\n")[:3]
        self._ask(
            op="tiles",
            source=str(source),
            leaf=_b64(leaf),
            index=index,
            size=int(size),
            root=root,
            old_size=old[0],
            old_root=_b64(old[1]),
        )

    def _ask(self, **request: Any) -> None:
        _run([str(self.program)], stdin=json.dumps(request))


@dataclass(frozen=True)
class Aics:
    """The Python tool, by its command line."""

    program: Path
    folder: Path

    def checkpoint(self, note: bytes, log_key: str, witnesses: Sequence[str], quorum: int) -> None:
        witnessed = [word for each in witnesses for word in ("--witness-key", each)]
        file = self._file("note", note)
        self._ask("verify-checkpoint", "--note", file, "--log-key", log_key, *witnessed, "--quorum", str(quorum))

    def inclusion(self, leaf: bytes, index: int, size: int, root: bytes, proof: Sequence[bytes]) -> None:
        numbers = ("--index", str(index), "--size", str(size), "--root", _b64(root))
        self._ask("verify-inclusion", "--leaf", self._file("leaf", leaf), *numbers, "--proof", self._hashes(proof))

    def consistency(self, old: tuple[int, bytes], new: tuple[int, bytes], proof: Sequence[bytes]) -> None:
        trees = ("--old-size", str(old[0]), "--old-root", _b64(old[1]), "--new-size", str(new[0]))
        self._ask("verify-consistency", *trees, "--new-root", _b64(new[1]), "--proof", self._hashes(proof))

    def tiles(self, source: Path | str, leaf: bytes, index: int, log_key: str, old: tuple[int, bytes]) -> None:
        where = ("--tiles", str(source), "--log-key", log_key)
        self._ask("verify-inclusion", "--leaf", self._file("leaf", leaf), "--index", str(index), *where)
        self._ask("verify-consistency", "--old-size", str(old[0]), "--old-root", _b64(old[1]), *where)

    def entry(self, folder: Path, index: int, log_key: str) -> None:
        """The entry that the folder's own bundles hold at that index is in the tree."""
        self._ask("verify-inclusion", "--index", str(index), "--tiles", str(folder), "--log-key", log_key)

    # ------------------------------------------------------------------------------------- a log of its own

    def build(self, folder: Path, lines: bytes) -> None:
        """Begin a log: each line is an entry."""
        self._ask("build-tiles", "--leaves", self._file("leaves", lines), "--out", str(folder), "--zero")

    def append(self, folder: Path, size: int, lines: bytes) -> None:
        """Let a log of that size grow."""
        leaves = self._file("leaves", lines)
        self._ask("append-tiles", "--out", str(folder), "--size", str(size), "--leaves", leaves, "--zero", "--no-fsync")

    def run_script(self, script: str, **given: object) -> Any:
        """Run Python where the tool's package can be imported; ``given`` is on standard input as JSON, as is the
        answer on standard output."""
        return json.loads(_run([str(self.program.with_name("python")), "-c", script], stdin=json.dumps(given)))

    def _ask(self, *words: str) -> None:
        _run([str(self.program), *words])

    def _file(self, name: str, content: bytes) -> str:
        path = self.folder / name
        path.write_bytes(content)
        return str(path)

    def _hashes(self, proof: Sequence[bytes]) -> str:
        return self._file("proof", "".join(f"{_b64(each)}\n" for each in proof).encode())


def install_go() -> Go:
    """Build the driver; the module's code comes by its checksum in ``go.sum``."""
    compiler = shutil.which("go")
    if compiler is None:
        _cannot("no Go compiler")
    program = _BUILD / "driver"
    with _one_at_a_time():
        _install([compiler, "build", "-trimpath", "-o", str(program), "."], cwd=_HERE / "driver")
    return Go(program)


def install_aics(folder: Path) -> Aics:
    """Install the tool into an environment of its own; ``folder`` is for the files that it is shown."""
    home = _BUILD / "aics"
    program = home / "bin" / "aics-tlog"
    with _one_at_a_time():
        if not program.exists():
            shutil.rmtree(home, ignore_errors=True)
            _install([_newer_python(), "-m", "venv", str(home)])
            _install([str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", _AICS])
    return Aics(program, folder)


def _newer_python() -> str:
    """A Python ≥ 3.12: this one, one on the PATH, or one of pyenv's."""
    installed = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    candidates = [sys.executable, *(shutil.which(f"python3.{minor}") or "" for minor in (14, 13, 12))]
    candidates += [str(each) for each in sorted(installed.glob("3.*/bin/python3"))]
    for each in filter(None, candidates):
        code = "import sys; sys.exit(sys.version_info < (3, 12))"
        if subprocess.run([each, "-c", code], capture_output=True, check=False).returncode == 0:
            return each
    return _cannot("no Python 3.12 or newer")


def _install(command: list[str], cwd: Path | None = None) -> None:
    try:
        subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True, timeout=_INSTALL_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        _cannot(f"{command[0]} failed: {getattr(error, 'stderr', '') or error}")


def _cannot(why: str) -> NoReturn:
    message = f"a verifier by others could not be installed: {why}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Tests run in several processes, which must not install into one folder at once."""
    _BUILD.mkdir(parents=True, exist_ok=True)
    with (_BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read(source: Path | str, path: str) -> bytes:
    if isinstance(source, Path):
        return (source / path).read_bytes()
    with urllib.request.urlopen(f"{source}/{path}", timeout=20) as answer:
        content: bytes = answer.read()
    return content


def _run(command: list[str], stdin: str = "") -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode == 1:
        raise RefusedError((done.stderr or done.stdout).strip())
    if done.returncode:
        raise RuntimeError(f"{command[0]} could not be asked: {done.stderr}")
    return done.stdout


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()

"""Where a leak search looks: every file of a folder, and all that a running process can have in its memory.

Rules:

- A SQLite file is searched twice: as the bytes that lie on the disk (also what was deleted, and write-ahead logs), and
  value by value as SQL reads it, because a long value is cut up into pages.

- Whatever cannot be read is an error, never an empty result: a search that could not look has found nothing out.
- Of a process's memory everything is read but what the file system holds anyway and the process cannot have written
  to (program text, shared libraries), and the kernel's own pages.
- Reading a process's memory needs Linux and the right to trace the process: one's own child will do.

Example::

    search = LeakSearch(names)
    hits = [*search_folder(search, state_folder), *search_memory(search, broker.pid)]
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from permslip.demo.leak_search import Hit, LeakSearch
from permslip.errors import UnavailableError

__all__ = ["Looked", "search_folder", "search_memory"]

_BLOCK: Final = 1 << 20
_SQLITE: Final = b"SQLite format 3\x00"
_OF_THE_KERNEL: Final = frozenset({"[vvar]", "[vvar_vclock]", "[vsyscall]"})


@dataclass(slots=True)
class Looked:
    """How much was looked through, so that an empty result can be told from an empty search."""

    files: int = 0
    bytes: int = 0


def search_folder(search: LeakSearch, folder: Path, looked: Looked | None = None) -> Iterator[Hit]:
    """Search the content and the name of every file below a folder: databases with their write-ahead logs,
    configuration, logs.

    Raises:
        UnavailableError: something there cannot be read.
    """
    looked = looked if looked is not None else Looked()
    for path in sorted(folder.rglob("*")):
        yield from search.hits(str(path.relative_to(folder)).encode(), f"the name of {path.name}")
        if not path.is_file():
            continue
        try:
            with path.open("rb") as stream:
                yield from _stretch(search, stream, 0, None, path.name, looked)
        except FileNotFoundError:
            continue  # a write-ahead log or a socket may go while we look
        except OSError as error:
            raise _cannot(f"{path} cannot be read: {error.strerror}.") from error
        looked.files += 1
        if _is_database(path):
            yield from _values(search, path, looked)


def search_memory(search: LeakSearch, pid: int, looked: Looked | None = None) -> Iterator[Hit]:
    """Search what a running process has in its memory.

    Raises:
        UnavailableError: it may not be read, or there is no ``/proc``.
    """
    looked = looked if looked is not None else Looked()
    try:
        stretches = list(_stretches(Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace")))
        with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
            for start, end, name in stretches:
                yield from _stretch(search, memory, start, end, f"memory, {name}", looked)
    except OSError as error:
        raise _cannot(f"the memory of process {pid} cannot be read: {error.strerror}.") from error


def _is_database(path: Path) -> bool:
    with suppress(FileNotFoundError), path.open("rb") as stream:
        return stream.read(len(_SQLITE)) == _SQLITE
    return False


def _values(search: LeakSearch, path: Path, looked: Looked) -> Iterator[Hit]:
    """Search every value of every table."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            connection.text_factory = bytes
            tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
            for (name,) in tables:
                quoted = name.decode().replace('"', '""')
                for row in connection.execute(f'SELECT * FROM "{quoted}"'):  # noqa: S608 (a name of its own schema)
                    for value in row:
                        block = value if isinstance(value, bytes) else str(value).encode()
                        looked.bytes += len(block)
                        yield from search.hits(block, f"{path.name}, table {name.decode()}")
    except sqlite3.Error as error:
        raise _cannot(f"{path} cannot be read as a database: {error}.") from error


def _stretches(maps: str) -> Iterator[tuple[int, int, str]]:
    for line in maps.splitlines():
        span, rights, _, _, inode, *named = line.split(maxsplit=5)
        name = named[0] if named else "anonymous"
        if (
            "r" not in rights
            or (inode != "0" and "w" not in rights)
            or name in {"[vvar]", "[vvar_vclock]", "[vsyscall]"}
        ):
            continue
        start, _, end = span.partition("-")
        yield int(start, 16), int(end, 16), name if inode == "0" else Path(name).name


def _stretch(
    search: LeakSearch, stream: BinaryIO, start: int, end: int | None, place: str, looked: Looked
) -> Iterator[Hit]:
    """Search a stream from one offset to another, block by block."""
    at, kept = start, b""
    seen: set[tuple[str, str, int]] = set()
    stream.seek(start)
    while end is None or at < end:
        try:
            read = stream.read(_BLOCK if end is None else min(_BLOCK, end - at))
        except OSError:
            if end is None:
                raise
            read = b""  # the process gave this stretch back meanwhile
        if not read:
            return
        block = kept + read
        for hit in search.hits(block, place, at - len(kept)):
            key = (hit.needle, hit.form, hit.offset)
            if key not in seen:  # one that lies wholly within what blocks have in common
                seen.add(key)
                yield hit
        at += len(read)
        looked.bytes += len(read)
        kept = block[-search.overlap :] if search.overlap else b""


def _cannot(message: str) -> UnavailableError:
    return UnavailableError(message, remedy="Run it as the user who runs the broker, on Linux.")

"""Finds the files to import: plain files, folders and zip archives, without unpacking anything to disk.

Rules:

- A folder stands for every ``.xml`` below it, an archive for every ``.xml`` in it. Other files are named, not read.
- An archive is refused when what it claims to hold is more than :data:`MAX_RATIO` times its own size (deflate's limit
  is 1,032; the largest ratio seen in real exports is 93), or more than :data:`MAX_UNPACKED`, or uses encryption or a
  compression other than deflate. Overlapping entries, which multiply one compressed stream, fall to the ratio.
- Bytes come in chunks, so a file costs the memory of a chunk.
- Everything that can go wrong with a file is an :class:`permslip.errors.ImportFileError` that names it.

Example::

    >>> with open_sources([Path("EdFiSampleData.zip")]) as sources:
    ...     for source in sources.files:
    ...         print(source.name, source.size)
    AssessmentMetadata-EdFiConversion-AssessmentMetadata-ACT.xml 5568
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from permslip.errors import ImportFileError

__all__ = ["CHUNK_BYTES", "MAX_ENTRIES", "MAX_RATIO", "MAX_UNPACKED", "SourceFile", "Sources", "open_sources"]

CHUNK_BYTES: Final = 256 * 1024
MAX_RATIO: Final = 300
MAX_UNPACKED: Final = 16 * 1024**3
MAX_ENTRIES: Final = 10_000

_METHODS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_ENCRYPTED: Final = 0x1


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file to read.

    Attributes:
        name: base name; it stands in the records that come from the file.
        label: where it is, for messages, e.g. ``EdFiSampleData.zip/Sample Data/StudentGrade.xml``.
        size: bytes, unpacked.
    """

    name: str
    label: str
    size: int
    _open: Callable[[], BinaryIO]

    def chunks(self) -> Iterator[bytes]:
        """The file's bytes, from the beginning, :data:`CHUNK_BYTES` at a time.

        Raises:
            ImportFileError: the file cannot be read, or the archive is damaged.
        """
        try:
            with self._open() as stream:
                while chunk := stream.read(CHUNK_BYTES):
                    yield chunk
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ImportFileError(f"cannot be read: {error}.", file=self.label) from error


@dataclass(frozen=True, slots=True)
class Sources:
    """What was found.

    Attributes:
        files: in the order of their labels.
        ignored: labels of files that are no XML.
        digest: SHA-256 over every file's name and bytes (an archive counts as one file).
    """

    files: tuple[SourceFile, ...]
    ignored: tuple[str, ...]
    digest: bytes


@contextmanager
def open_sources(paths: Iterable[Path]) -> Iterator[Sources]:
    """Find the files; archives stay open until the context ends.

    Raises:
        ImportFileError: a path that does not exist, an archive that is damaged or refused, or nothing to read.
    """
    files: list[SourceFile] = []
    ignored: list[str] = []
    digest = hashlib.sha256()
    given = list(paths)
    with ExitStack() as stack:
        for path in given:
            for found in _below(path):
                is_archive = found.suffix.lower() == ".zip"
                if found.suffix.lower() != ".xml" and not is_archive:
                    ignored.append(str(found))
                    continue
                digest.update(_file_digest(found))
                if is_archive:
                    _add_archive(found, stack, files, ignored)
                else:
                    files.append(_plain(found))
        if not files:
            named = ", ".join(map(str, given)) or "no path"
            raise ImportFileError(
                "expected an .xml file, or a folder or .zip archive that holds some.",
                file=named,
                remedy="Give the path of an Ed-Fi Core 1.0 export; a Canvas-style extract needs --format lms.",
            )
        files.sort(key=lambda file: file.label)
        yield Sources(tuple(files), tuple(ignored), digest.digest())


def _below(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(found for found in path.rglob("*") if found.is_file())
    if not path.is_file():
        raise ImportFileError("there is no such file or folder.", file=str(path))
    return [path]


def _file_digest(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").digest()
    except OSError as error:
        raise ImportFileError(f"cannot be read: {error}.", file=str(path)) from error
    return hashlib.sha256(path.name.encode("utf-8", "surrogateescape") + b"\0" + content).digest()


def _plain(path: Path) -> SourceFile:
    return SourceFile(_base_name(path.name, str(path)), str(path), path.stat().st_size, lambda: path.open("rb"))


def _add_archive(path: Path, stack: ExitStack, files: list[SourceFile], ignored: list[str]) -> None:
    try:
        archive = stack.enter_context(zipfile.ZipFile(path))
    except (OSError, zipfile.BadZipFile) as error:
        raise ImportFileError(f"is no zip archive that can be read: {error}.", file=str(path)) from error
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    _refuse_bomb(path, entries)
    for entry in entries:
        label = f"{path}/{entry.filename}"
        if not entry.filename.lower().endswith(".xml"):
            ignored.append(label)
            continue
        if entry.flag_bits & _ENCRYPTED or entry.compress_type not in _METHODS:
            raise ImportFileError(
                "is encrypted or packed by a method other than deflate.",
                file=label,
                remedy="Pack it again without a password.",
            )
        name = _base_name(entry.filename.rpartition("/")[2], label)
        files.append(SourceFile(name, label, entry.file_size, _entry_opener(archive, entry)))


def _refuse_bomb(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    packed = path.stat().st_size
    unpacked = sum(entry.file_size for entry in entries)
    if len(entries) > MAX_ENTRIES or unpacked > MAX_UNPACKED or unpacked > packed * MAX_RATIO:
        raise ImportFileError(
            f"refused: {len(entries)} entries of {unpacked} bytes in an archive of {packed} bytes; expected at most "
            f"{MAX_ENTRIES} entries, {MAX_UNPACKED} bytes, and {MAX_RATIO} times its size.",
            file=str(path),
            remedy="If the export is genuine, unpack it and import the folder.",
        )


def _entry_opener(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Callable[[], BinaryIO]:
    # ZipExtFile is a readable binary stream; its declared type is the wider IO[bytes].
    return lambda: archive.open(entry)  # type: ignore[return-value]


def _base_name(name: str, label: str) -> str:
    if not name.isprintable() or len(name.encode()) > 256 or name != name.strip():
        raise ImportFileError("the file's name cannot be written on one line.", file=repr(label))
    return name

"""Finding the files: folders, archives, and archives that mean harm."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from permslip.errors import ImportFileError
from permslip_node.importing import MemorySink, import_edfi
from permslip_node.importing.sources import MAX_RATIO, open_sources

XML = b'<InterchangeStudentGrade xmlns="http://ed-fi.org/0100"/>'


def _zip(path: Path, entries: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def _refused(path: Path) -> ImportFileError:
    with pytest.raises(ImportFileError) as caught:
        import_edfi([path], MemorySink())
    return caught.value


def test_folders_archives_and_files_are_found_and_the_rest_is_named(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "B.xml").write_bytes(XML)
    (tmp_path / "notes.txt").write_text("hello")
    _zip(tmp_path / "A.zip", {"Sample Data/C.xml": XML, "Sample Data/readme.md": b"x"})
    with open_sources([tmp_path]) as sources:
        assert [(file.name, b"".join(file.chunks())) for file in sources.files] == [("C.xml", XML), ("B.xml", XML)]
        assert [Path(label).name for label in sources.ignored] == ["readme.md", "notes.txt"]


def test_the_digest_stands_for_names_and_bytes(tmp_path: Path) -> None:
    digests = set()
    for name, content in (("A.xml", XML), ("A.xml", XML + b"\n"), ("B.xml", XML)):
        path = tmp_path / name
        path.write_bytes(content)
        with open_sources([path]) as sources:
            digests.add(sources.digest)
    assert len(digests) == 3


def test_a_bomb_is_refused_without_being_unpacked(tmp_path: Path) -> None:
    bomb = _zip(tmp_path / "bomb.zip", {"StudentGrade.xml": XML + b" " * 30_000_000})
    assert f"{MAX_RATIO} times its size" in _refused(bomb).message


def test_many_entries_of_one_stream_are_refused_as_a_bomb(tmp_path: Path) -> None:
    """Overlapping entries: each is harmless by itself, all of them share the same compressed bytes."""
    path = _zip(tmp_path / "overlap.zip", {"0.xml": os.urandom(1000) + b" " * 100_000})
    with zipfile.ZipFile(path, "a") as archive:
        first = archive.infolist()[0]
        for number in range(1, 2000):
            again = zipfile.ZipInfo(f"{number}.xml")
            for attribute in ("header_offset", "file_size", "compress_size", "CRC", "compress_type", "flag_bits"):
                setattr(again, attribute, getattr(first, attribute))
            archive.filelist.append(again)
            archive.NameToInfo[again.filename] = again
        archive._didModify = True  # type: ignore[attr-defined]  # writes the directory anew
    assert "refused" in _refused(path).message


def test_an_archive_that_lies_about_a_size_is_refused(tmp_path: Path) -> None:
    path = _zip(tmp_path / "lie.zip", {"StudentGrade.xml": XML + b" " * 10_000})
    data = bytearray(path.read_bytes())
    size = len(XML) + 10_000
    place = data.rindex(size.to_bytes(4, "little"))
    data[place : place + 4] = len(XML).to_bytes(4, "little")
    path.write_bytes(data)
    assert "cannot be read" in _refused(path).message


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(tmp_path: Path, method: int) -> None:
    assert "deflate" in _refused(_zip(tmp_path / "other.zip", {"A.xml": XML}, method)).message


def test_an_encrypted_archive_is_refused(tmp_path: Path) -> None:
    path = _zip(tmp_path / "secret.zip", {"A.xml": XML})
    data = bytearray(path.read_bytes())
    directory = data.index(b"PK\x01\x02")
    data[directory + 8] |= 1
    path.write_bytes(data)
    assert "encrypted" in _refused(path).message


@pytest.mark.parametrize("damage", ["torn", "altered"])
def test_a_damaged_archive_is_refused(tmp_path: Path, damage: str) -> None:
    path = _zip(tmp_path / "A.zip", {"A.xml": XML + os.urandom(400).hex().encode()})
    data = bytearray(path.read_bytes())
    if damage == "torn":
        del data[len(data) // 2 :]
    else:
        data[120] ^= 0xFF
    path.write_bytes(data)
    assert "read" in _refused(path).message


def test_an_archive_in_an_archive_is_not_opened(tmp_path: Path) -> None:
    inner = _zip(tmp_path / "inner.zip", {"A.xml": XML}).read_bytes()
    (tmp_path / "inner.zip").unlink()
    path = _zip(tmp_path / "outer.zip", {"A.xml": XML, "inner.zip": inner})
    report = import_edfi([path], MemorySink())
    assert report.ignored_files == [f"{path}/inner.zip"]


@pytest.mark.parametrize("name", ["missing.xml", "empty"])
def test_nothing_to_read_is_an_error_that_says_what_to_give(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    assert name in _refused(tmp_path / name).file


def test_a_name_that_cannot_stand_on_a_line_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "Student\nGrade.xml"
    path.write_bytes(XML)
    assert "one line" in _refused(path).message

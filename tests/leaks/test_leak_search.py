"""The search that says «nothing leaked» finds what did leak, in every form, at every offset, across blocks."""

from __future__ import annotations

import base64
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, strategies as hs

from permslip.demo.leak_places import Looked, search_folder, search_memory
from permslip.demo.leak_search import LeakSearch, forms_of
from permslip.errors import MalformedError, UnavailableError

NEEDLES = ["Ada Lovelace", "STUD_604822", "1871-02-13", "José Núñez-Ávila", "Ωμέγα Ωνη", "12345678", "née 🦉 Owlet"]


@pytest.mark.parametrize("needle", NEEDLES)
def test_every_form_is_found_at_every_offset(needle: str) -> None:
    search = LeakSearch([needle])
    for _, raw in forms_of(needle):
        for before in range(17):
            for after in (0, 1, 7):
                block = os.urandom(before) + raw + os.urandom(after)
                assert before in {hit.offset for hit in search.hits(block, "block")}


@pytest.mark.parametrize("needle", NEEDLES)
@given(before=hs.binary(max_size=40), after=hs.binary(max_size=40))
def test_base64_is_found_wherever_among_other_bytes_it_was_encoded(needle: str, before: bytes, after: bytes) -> None:
    search = LeakSearch([needle])
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        encoded = encode(before + needle.encode() + after)
        assert {hit.needle for hit in search.hits(encoded, "block")} == {needle}


@pytest.mark.parametrize(
    "hide",
    [
        lambda text: text.encode(),
        lambda text: text.encode("utf-16-le"),
        lambda text: text.encode("utf-16-be"),
        lambda text: text.encode().hex().encode(),
        lambda text: text.encode().hex().upper().encode(),
        lambda text: sha256(text.encode()).digest(),
        lambda text: sha256(text.encode()).hexdigest().encode(),
        lambda text: base64.b64encode(sha256(text.encode()).digest()),
    ],
)
def test_one_needle_among_thousands_is_named(hide: object) -> None:
    needles = [f"Canary {number:05d} Bird" for number in range(3000)]
    block = os.urandom(5000) + hide(needles[1234]) + os.urandom(5000)  # type: ignore[operator]  # a lambda from above
    assert {hit.needle for hit in LeakSearch(needles).hits(block, "block")} == {needles[1234]}


def test_random_bytes_and_other_names_are_no_hits() -> None:
    search = LeakSearch(NEEDLES)
    assert list(search.hits(os.urandom(1 << 20) + b"Ada Loveless, STUD_604823, 1871-02-14", "block")) == []


def test_a_needle_that_chance_could_produce_is_refused() -> None:
    with pytest.raises(MalformedError, match="needle"):
        LeakSearch(["60482"])


def test_a_short_number_is_found_in_every_form_but_the_plain_one() -> None:
    search = LeakSearch(["604822"])
    assert list(search.hits(b"at 12:00:01.604822", "log")) == []
    hidden = b"604822".hex().encode() + b" " + base64.b64encode(b"id 604822!") + sha256(b"604822").digest()
    assert {hit.form for hit in search.hits(hidden, "log")} == {"hexadecimal", "base64", "SHA-256"}


def test_a_needle_that_lies_across_two_blocks_is_found_once(tmp_path: Path) -> None:
    edge = (1 << 20) - 5
    (tmp_path / "big.db").write_bytes(os.urandom(edge) + b"Ada Lovelace" + os.urandom(1 << 20))
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "wal").write_bytes("Ada Lovelace".encode("utf-16-le"))
    looked = Looked()
    hits = list(search_folder(LeakSearch(["Ada Lovelace"]), tmp_path, looked))
    assert [(hit.place, hit.form, hit.offset) for hit in hits] == [("big.db", "UTF-8", edge), ("wal", "UTF-16-LE", 0)]
    assert looked.files == 2
    assert looked.bytes == (1 << 21) - 5 + 12 + 24


def test_a_file_that_is_called_like_a_learner_is_a_hit(tmp_path: Path) -> None:
    (tmp_path / "Ada Lovelace.csv").touch()
    assert [hit.form for hit in search_folder(LeakSearch(["Ada Lovelace"]), tmp_path)] == ["UTF-8"]


@pytest.mark.skipif(sys.platform != "linux", reason="another process's memory is read through /proc")
def test_what_a_process_holds_in_memory_is_found() -> None:
    code = "import sys; held = 'Ada ' + 'Love' + sys.argv[1]; print('ready', flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "lace"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        looked = Looked()
        unmistakable = LeakSearch(["Ada Lovelace", "STUD_604822", "Ωμέγα Ωνη"])
        found = {hit.needle for hit in search_memory(unmistakable, process.pid, looked)}
        assert found == {"Ada Lovelace"}
        assert looked.bytes > 1 << 20
    finally:
        process.communicate("\n")


@pytest.mark.skipif(sys.platform != "linux", reason="another process's memory is read through /proc")
def test_memory_that_cannot_be_read_is_an_error_and_not_an_empty_result() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with pytest.raises(UnavailableError, match=str(process.pid)):
        list(search_memory(LeakSearch(NEEDLES), process.pid))


def test_a_long_value_of_a_database_is_found_although_its_pages_cut_it(tmp_path: Path) -> None:
    names = [f"Ada {number:04d} Lovelace" for number in range(2000)]
    with closing(sqlite3.connect(tmp_path / "node.db")) as connection, connection:
        connection.execute("PRAGMA page_size = 512")
        connection.execute("CREATE TABLE page (records BLOB)")
        connection.execute("INSERT INTO page VALUES (?)", ["\n".join(names).encode()])
    found = {hit.needle for hit in search_folder(LeakSearch(names), tmp_path)}
    assert found == set(names)

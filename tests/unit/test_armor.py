"""Armored statement files: what was written is read back, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, strategies as some

from permslip import statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.armor import armor, dearmor, read_statement, read_statements, write_statements
from permslip.errors import MalformedError
from permslip.keys import SealingKey, SigningKey

ROOT = SigningKey.from_seed(bytes(32))
ONLINE = SigningKey.from_seed(b"1" * 32)


def cert(seq: int = 1) -> pb.Envelope:
    payload = pb.KeyCert(
        federation="fed.example",
        nonce=bytes(15) + b"1",
        created_at=1_790_000_000_000,
        root=ROOT.public.raw,
        signing_key=ONLINE.public.raw,
        sealing_key=SealingKey.from_seed(b"2" * 32).public,
        seq=seq,
        valid_until=1_790_000_100_000,
    )
    return st.sign(st.KEY_CERT, payload, [ROOT]).envelope


def suspension() -> pb.Envelope:
    payload = pb.Suspension(
        federation="fed.example",
        nonce=bytes(15) + b"1",
        created_at=1_790_000_000_000,
        signer=pb.Signer(root=ROOT.public.raw, key=ROOT.public.raw),
        root=ONLINE.public.raw,
    )
    return st.sign(st.SUSPENSION, payload, [ROOT]).envelope


def test_a_statement_reads_back_as_the_same_bytes() -> None:
    assert dearmor(armor(cert())) == [cert()]


def test_the_kind_stands_in_the_first_and_last_line() -> None:
    lines = armor(cert()).splitlines()

    assert lines[0] == "-----BEGIN PERMSLIP KEY-CERT-----"
    assert lines[-1] == "-----END PERMSLIP KEY-CERT-----"
    assert max(map(len, lines[1:-1])) == 64


def test_a_file_holds_several_statements_in_order(tmp_path: Path) -> None:
    path = tmp_path / "statements"

    write_statements(path, [cert(1), suspension(), cert(2)])

    assert read_statements(path) == [cert(1), suspension(), cert(2)]


def test_lines_ended_by_carriage_return_and_line_feed_are_read() -> None:
    assert dearmor(armor(cert()).replace("\n", "\r\n")) == [cert()]


def test_writing_replaces_the_file_and_leaves_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "statements"
    write_statements(path, [cert(1)])

    write_statements(path, [cert(2)])

    assert read_statements(path) == [cert(2)]
    assert [each.name for each in tmp_path.iterdir()] == ["statements"]


def test_one_statement_of_the_expected_kind_is_read(tmp_path: Path) -> None:
    write_statements(tmp_path / "one", [cert()])

    assert read_statement(tmp_path / "one", st.KEY_CERT) == cert()


@pytest.mark.parametrize("written", [[suspension()], [cert(1), cert(2)]], ids=["another kind", "two of them"])
def test_a_file_that_should_hold_one_statement_holds_nothing_else(tmp_path: Path, written: list[pb.Envelope]) -> None:
    write_statements(tmp_path / "other", written)

    with pytest.raises(MalformedError, match="expected one key-cert, found: "):
        read_statement(tmp_path / "other", st.KEY_CERT)


def test_the_error_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "statements"
    path.write_text(armor(cert()) + "\nhello\n", encoding="ascii")

    with pytest.raises(MalformedError) as caught:
        read_statements(path)

    assert caught.value.field == f"{path}:{len(armor(cert()).splitlines()) + 2}"


TEXT = armor(cert())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "at least one", id="empty"),
        pytest.param("\n\n", "at least one", id="blank"),
        pytest.param("Dear school,\n" + TEXT, "BEGIN", id="text before"),
        pytest.param(" " + TEXT, "BEGIN", id="indented"),
        pytest.param(TEXT.replace("-----END PERMSLIP KEY-CERT-----\n", ""), "missing", id="no end"),
        pytest.param(TEXT.replace("END PERMSLIP KEY-CERT", "END PERMSLIP GRANT"), "missing", id="other end"),
        pytest.param(TEXT.replace("KEY-CERT", "GRANT"), "another kind", id="wrong label"),
        pytest.param(TEXT.replace("KEY-CERT", "key-cert"), "BEGIN", id="lower-case label"),
        pytest.param(TEXT[:100] + "\n" + TEXT[100:], "64 base64 characters", id="a line cut in two"),
        pytest.param(TEXT.replace("\n-----END", "\n\n-----END"), "64 base64 characters", id="blank line inside"),
        pytest.param(TEXT[:60] + "*" + TEXT[61:], "base64", id="a strange character"),
        pytest.param(TEXT[:60] + "é" + TEXT[61:], "base64", id="not ASCII"),
        pytest.param("-----BEGIN PERMSLIP GRANT-----\n-----END PERMSLIP GRANT-----\n", "required", id="no content"),
        pytest.param(
            "-----BEGIN PERMSLIP GRANT-----\nAAAB\n-----END PERMSLIP GRANT-----\n", "Envelope", id="no envelope"
        ),
        pytest.param(
            "-----BEGIN PERMSLIP GRANT-----\nAAF=\n-----END PERMSLIP GRANT-----\n", "one spelling", id="loose bits"
        ),
    ],
)
def test_anything_else_is_refused(text: str, message: str) -> None:
    with pytest.raises(MalformedError, match=message):
        dearmor(text)


@given(some.data())
def test_text_with_one_character_changed_never_reads_as_another_statement(data: some.DataObject) -> None:
    place = data.draw(some.integers(0, len(TEXT) - 1))
    character = data.draw(some.characters(max_codepoint=255).filter(lambda each: each != TEXT[place]))

    try:
        read = dearmor(TEXT[:place] + character + TEXT[place + 1 :])
    except MalformedError:
        return
    with pytest.raises(Exception, match=".") as caught:
        st.verify(st.KEY_CERT, read[0], federation="fed.example")
    assert caught.type.__module__ == "permslip.errors"


def test_an_envelope_of_no_known_kind_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(MalformedError, match="payload_type"):
        write_statements(tmp_path / "file", [pb.Envelope(payload_type="text/plain", payload=b"x")])

    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_read_or_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(MalformedError, match="cannot be read: No such file"):
        read_statements(tmp_path / "absent")
    with pytest.raises(MalformedError, match="cannot be written: No such file"):
        write_statements(tmp_path / "absent" / "file", [cert()])


def test_a_file_that_is_not_ascii_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\xff\xfe")

    with pytest.raises(MalformedError, match="ASCII"):
        read_statements(tmp_path / "file")

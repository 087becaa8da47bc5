"""Armored statement files: signed envelopes as text that survives mail, paper and a USB stick.

A certificate that a server is started with, a revocation that a parent carries straight to the school, an admission
that an operator mails: each is the deterministic bytes of one ``Envelope`` between two lines that name its kind.

Rules:

- ``-----BEGIN PERMSLIP KIND-----``, base64 (RFC 4648 §4) in lines of 64 characters, ``-----END PERMSLIP KIND-----``.
  The kind is the statement's name in capitals, e.g. ``KEY-CERT``, and is that of the payload type.
- A file holds one or several, with blank lines between them and nothing else. Lines end in LF; CRLF is read as well,
  because mail programs write it. Anything else is refused, never skipped.
- What is read is *unverified*: :func:`permslip.statements.verify` makes it believed.

Example::

    write_statements("school.cert", [cert.envelope])
    cert = verify(KEY_CERT, read_statement("school.cert", KEY_CERT), federation="fed.example")
"""

from __future__ import annotations

import binascii
import os
import re
import secrets
from base64 import b64encode
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from permslip import statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.errors import MalformedError

__all__ = ["MAX_FILE_BYTES", "armor", "dearmor", "read_statement", "read_statements", "write_statements"]

MAX_FILE_BYTES: Final = 16 << 20
_LINE: Final = 64
_BEGIN: Final = re.compile(r"-----BEGIN PERMSLIP ([A-Z]+(?:-[A-Z]+)*)-----\Z")
_COPY_WHOLE: Final = "Copy it whole, with its BEGIN and END lines."


def armor(envelope: pb.Envelope) -> str:
    """One statement as text, ended by a line feed.

    Raises:
        MalformedError: the envelope's payload type is not that of a statement.
    """
    kind = st.kind_of(envelope).name.upper()
    encoded = b64encode(envelope.SerializeToString(deterministic=True)).decode("ascii")
    lines = [encoded[start : start + _LINE] for start in range(0, len(encoded), _LINE)]
    return "\n".join([f"-----BEGIN PERMSLIP {kind}-----", *lines, f"-----END PERMSLIP {kind}-----", ""])


def dearmor(text: str, source: str = "armor") -> list[pb.Envelope]:
    """Read armored statements; at least one. What comes out is unverified.

    Args:
        text: the whole file.
        source: what it is called in errors, e.g. the file's name.

    Raises:
        MalformedError: names source and line of the first thing that is not as the format says.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    envelopes: list[pb.Envelope] = []
    number = 0
    while number < len(lines):
        if not lines[number]:
            number += 1
            continue
        found = _BEGIN.match(lines[number])
        if found is None:
            raise _error(source, number, "expected a line -----BEGIN PERMSLIP KIND-----.")
        end = f"-----END PERMSLIP {found[1]}-----"
        try:
            last = lines.index(end, number + 1)
        except ValueError:
            raise _error(source, number, f"the line {end} is missing.") from None
        envelopes.append(_block(found[1], lines[number + 1 : last], source, number))
        number = last + 1
    if not envelopes:
        raise _error(source, 0, "expected at least one statement, found none.")
    return envelopes


def write_statements(path: str | os.PathLike[str], envelopes: Iterable[pb.Envelope]) -> None:
    """Write statements to a file, whole or not at all; replaces what was there.

    Raises:
        MalformedError: an envelope is not a statement, or the file cannot be written.
    """
    target = Path(path)
    content = "".join(armor(each) for each in envelopes).encode("ascii")
    draft = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        try:
            with draft.open("xb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            draft.replace(target)
        finally:
            with suppress(FileNotFoundError):
                draft.unlink()
    except OSError as error:
        raise MalformedError(
            f"cannot be written: {error.strerror}.",
            field=str(target),
            remedy="Check that the folder exists and is yours.",
        ) from error


def read_statements(path: str | os.PathLike[str]) -> list[pb.Envelope]:
    """Read every statement of a file; at least one. What comes out is unverified.

    Raises:
        MalformedError: the file cannot be read, or is not as the format says.
    """
    try:
        with Path(path).open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise MalformedError(f"cannot be read: {error.strerror}.", field=str(path), remedy="Check the path.") from error
    if len(content) > MAX_FILE_BYTES:
        raise MalformedError(f"expected at most {MAX_FILE_BYTES} bytes.", field=str(path))
    try:
        text = content.decode("ascii")
    except UnicodeDecodeError:
        raise MalformedError("expected ASCII text.", field=str(path), remedy=_COPY_WHOLE) from None
    return dearmor(text, str(path))


def read_statement(path: str | os.PathLike[str], kind: st.Kind[Any]) -> pb.Envelope:
    """Read a file that holds exactly one statement of that kind. What comes out is unverified.

    Raises:
        MalformedError: as :func:`read_statements`, or another kind, or more than one.
    """
    envelopes = read_statements(path)
    if len(envelopes) != 1 or envelopes[0].payload_type != kind.payload_type:
        found = ", ".join(st.kind_of(each).name for each in envelopes[:8])
        raise MalformedError(f"expected one {kind.name}, found: {found}.", field=str(path))
    return envelopes[0]


def _block(label: str, lines: list[str], source: str, begin: int) -> pb.Envelope:
    for number, line in enumerate(lines, start=begin + 1):
        full = number < begin + len(lines)
        if len(line) != _LINE if full else not 0 < len(line) <= _LINE:
            raise _error(source, number, f"expected a line of {_LINE} base64 characters.")
    encoded = "".join(lines)
    try:
        raw = binascii.a2b_base64(encoded.encode("ascii"), strict_mode=True)
    except (ValueError, UnicodeEncodeError):
        raise _error(source, begin + 1, "expected base64.") from None
    if b64encode(raw).decode("ascii") != encoded:
        raise _error(source, begin + 1, "expected base64 in its one spelling.")
    envelope = st.parse_envelope(raw, f"{source}:{begin + 1}")
    if st.kind_of(envelope).name.upper() != label:
        raise _error(source, begin, f"the label says {label}, the statement is another kind.")
    return envelope


def _error(source: str, index: int, message: str) -> MalformedError:
    return MalformedError(message, field=f"{source}:{index + 1}", remedy=_COPY_WHOLE)

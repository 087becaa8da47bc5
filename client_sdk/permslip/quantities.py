"""Distinct types for bytes and integers that must not be confused.

A handle, a statement id and a ledger position are all «just» bytes or an integer on the wire. Each has a type
of its own here, so that a type checker refuses to pass one for another, and a small constructor that checks
length or range once, at the edge, and names the field that was wrong.

Rules:

- :data:`Handle`: 16 bytes, a random number that one node gives one learner. Two nodes never share one.
- :data:`StatementId`: 32 bytes, SHA-256 over the pre-authentication encoding (:mod:`permslip.dsse`).
- :data:`Position`: the number of an entry in one ledger, from 0.
- :data:`Millis`: UTC milliseconds since 1970-01-01, as an int64. Times before 1970 are negative.
- The text form of a handle or id is lower-case hexadecimal without prefix; there is exactly one. It is what
  an SQL tool prints with ``hex()``, but for the case.

Example::

    >>> learner = handle(bytes(range(16)), "query.handle")
    >>> handle_text(learner)
    '000102030405060708090a0b0c0d0e0f'
    >>> parse_handle('000102030405060708090a0b0c0d0e0f') == learner
    True
"""

from __future__ import annotations

import string
from typing import Final, NewType

from permslip.errors import MalformedError

__all__ = [
    "HANDLE_BYTES",
    "STATEMENT_ID_BYTES",
    "Handle",
    "Millis",
    "Position",
    "StatementId",
    "handle",
    "handle_text",
    "millis",
    "parse_handle",
    "parse_statement_id",
    "position",
    "statement_id",
    "statement_id_text",
]

Handle = NewType("Handle", bytes)
StatementId = NewType("StatementId", bytes)
Position = NewType("Position", int)
Millis = NewType("Millis", int)

HANDLE_BYTES: Final = 16
STATEMENT_ID_BYTES: Final = 32

_INT64_MIN: Final = -(2**63)
_INT64_MAX: Final = 2**63 - 1
_HEX_DIGITS: Final = frozenset(string.digits + "abcdef")


def handle(value: bytes, field: str) -> Handle:
    """Check the length of a handle.

    Args:
        value: 16 bytes.
        field: dotted path of the field, for the message.

    Raises:
        MalformedError: any other length.
    """
    if len(value) != HANDLE_BYTES:
        raise _wrong_length(value, HANDLE_BYTES, field)
    return Handle(value)


def statement_id(value: bytes, field: str) -> StatementId:
    """Check the length of a statement's id; arguments and errors as for :func:`handle`, with 32 bytes."""
    if len(value) != STATEMENT_ID_BYTES:
        raise _wrong_length(value, STATEMENT_ID_BYTES, field)
    return StatementId(value)


def position(value: int, field: str) -> Position:
    """Check that ``value`` can be the number of a ledger entry: 0 to 2^63 - 1.

    Raises:
        MalformedError: outside that range.
    """
    if not 0 <= value <= _INT64_MAX:
        raise MalformedError(f"expected a ledger position from 0 to 2^63 - 1, got {value}.", field=field)
    return Position(value)


def millis(value: int, field: str) -> Millis:
    """Check that ``value`` fits the wire's int64 milliseconds.

    Raises:
        MalformedError: outside that range.
    """
    if not _INT64_MIN <= value <= _INT64_MAX:
        raise MalformedError(f"expected UTC milliseconds as an int64, got {value}.", field=field)
    return Millis(value)


def handle_text(value: Handle) -> str:
    """The text form of a handle: 32 lower-case hexadecimal digits."""
    return value.hex()


def parse_handle(text: str, field: str = "handle") -> Handle:
    """Read back what :func:`handle_text` wrote.

    Raises:
        MalformedError: not exactly 32 lower-case hexadecimal digits.
    """
    return Handle(_parse_hex(text, HANDLE_BYTES, field))


def statement_id_text(value: StatementId) -> str:
    """The text form of a statement's id: 64 lower-case hexadecimal digits."""
    return value.hex()


def parse_statement_id(text: str, field: str = "id") -> StatementId:
    """Read back what :func:`statement_id_text` wrote.

    Raises:
        MalformedError: not exactly 64 lower-case hexadecimal digits.
    """
    return StatementId(_parse_hex(text, STATEMENT_ID_BYTES, field))


def _parse_hex(text: str, length: int, field: str) -> bytes:
    if len(text) != 2 * length or not _HEX_DIGITS.issuperset(text):
        shown = text if len(text) <= 2 * length else f"{text[: 2 * length]}…"
        raise MalformedError(
            f"expected {2 * length} lower-case hexadecimal digits, got {shown!r}.",
            field=field,
            remedy="Copy it whole, as it was printed.",
        )
    return bytes.fromhex(text)


def _wrong_length(value: bytes, expected: int, field: str) -> MalformedError:
    return MalformedError(f"expected {expected} bytes, got {len(value)}.", field=field)

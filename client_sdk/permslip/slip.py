"""Slips: what a school prints so that a parent can link, as text and as a QR code.

A slip holds the node's root key, a selector and a secret. Whoever scans it knows which node she speaks to, since the
root key came on paper and not through the broker; and the node knows that she has the paper (:mod:`permslip.linking`).

The text, byte-exact: ``PS1-`` and 14 groups of 7 characters, joined by dashes. It encodes 51 bytes::

    version 0x01 (1 byte)   node root key (32)   selector (8)   secret (10)

followed by the first 12 bits of ``SHA-256("permslip slip v1\\x00" + those 51 bytes)``: 420 bits, 84 digits of base32
with Crockford's alphabet (``0``-``9`` and ``A``-``Z`` without I, L, O and U), most significant first. Every 6 digits
are followed by a check digit of their own, so that a typing error is named by its group. The check of group *g* (from
0) is computed in GF(32) with the polynomial x^5 + x^2 + 1::

    c = g;  for each of the 6 digits d:  c = (c times x) xor d

It finds every single wrong digit, every swap of two neighbours, and groups in the wrong order.

Rules:

- Reading accepts lower case, missing or additional dashes and blanks, and takes ``O`` for 0, ``I`` and ``L`` for 1.
- The secret never appears in a ``repr``, log or error message.

Example::

    >>> slip = Slip(node=bytes(32), selector=b"selector", secret=b"ten bytes.")
    >>> text = slip.text()
    >>> text[:11], len(text)
    ('PS1-040000A', 115)
    >>> parse_slip(text.lower().replace("-", "")) == slip
    True
"""

from __future__ import annotations

import io
import secrets
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from permslip.errors import MalformedError
from permslip.keys import KEY_BYTES

__all__ = ["SECRET_BYTES", "SELECTOR_BYTES", "Slip", "new_slip", "parse_slip", "slip_svg", "slip_terminal"]

SELECTOR_BYTES: Final = 8
SECRET_BYTES: Final = 10

_VERSION: Final = b"\x01"
_PREFIX: Final = "PS1"
_BODY_BYTES: Final = 1 + KEY_BYTES + SELECTOR_BYTES + SECRET_BYTES
_CHECK_BITS: Final = 12
_GROUPS: Final = 14
_DIGITS: Final = 6  # of each group, before its check digit
_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_VALUES: Final = {digit: value for value, digit in enumerate(_ALPHABET)} | {"O": 0, "I": 1, "L": 1}
_SUM_DOMAIN: Final = b"permslip slip v1\x00"


@dataclass(frozen=True, slots=True, repr=False)
class Slip:
    """What stands on one slip.

    Attributes:
        node: root key of the node that printed it.
        selector: which slip it is; says nothing of the secret.
        secret: known to the node and to whoever holds the paper.
    """

    node: bytes
    selector: bytes
    secret: bytes

    def text(self) -> str:
        """The slip as it is printed: 115 characters."""
        body = _VERSION + self.node + self.selector + self.secret
        number = int.from_bytes(body, "big") << _CHECK_BITS | _checksum(body)
        digits = [number >> 5 * place & 31 for place in reversed(range(_GROUPS * _DIGITS))]
        groups = [digits[start : start + _DIGITS] for start in range(0, len(digits), _DIGITS)]
        words = ("".join(_ALPHABET[d] for d in (*group, _group_check(g, group))) for g, group in enumerate(groups))
        return "-".join((_PREFIX, *words))

    def __repr__(self) -> str:
        return f"<Slip {self.selector.hex()}>"


def new_slip(node: bytes) -> Slip:
    """A slip with a fresh selector and secret.

    Args:
        node: the node's root key.
    """
    return Slip(node, secrets.token_bytes(SELECTOR_BYTES), secrets.token_bytes(SECRET_BYTES))


def parse_slip(text: str) -> Slip:
    """Read a slip as it was scanned or typed.

    Raises:
        MalformedError: not a slip, or mistyped; names the group.
    """
    plain = "".join(each for each in text.upper() if not each.isspace() and each not in "-\u2010\u2011\u2013")
    if not plain.startswith((_PREFIX, "PSI", "PSL")):
        raise _wrong("expected a slip that begins with PS1-.")
    plain = plain[len(_PREFIX) :]
    size = _DIGITS + 1
    number = 0
    for group in range(_GROUPS):
        word = plain[group * size : (group + 1) * size]
        digits = [_VALUES.get(each, -1) for each in word]
        if len(digits) != size or -1 in digits or _group_check(group, digits[:-1]) != digits[-1]:
            short = "is missing or too short" if len(digits) != size else "has a typing error"
            raise _wrong(f"group {group + 1} of {_GROUPS} after PS1 {short}.")
        for digit in digits[:-1]:
            number = number << 5 | digit
    if len(plain) != _GROUPS * size:
        raise _wrong(f"expected {_GROUPS} groups of {size} characters after PS1, got more.")
    body = (number >> _CHECK_BITS).to_bytes(_BODY_BYTES + 1, "big")[1:]
    if number & (1 << _CHECK_BITS) - 1 != _checksum(body):
        raise _wrong("several groups have typing errors.")
    if body[:1] != _VERSION:
        raise MalformedError(
            f"expected version 1, got {body[0]}.", field="slip", remedy="Update this app, then scan the slip again."
        )
    node, rest = body[1 : 1 + KEY_BYTES], body[1 + KEY_BYTES :]
    return Slip(node, rest[:SELECTOR_BYTES], rest[SELECTOR_BYTES:])


def slip_svg(slip: Slip, *, scale: int = 4) -> str:
    """A QR code of the slip's text, as an SVG document of its own.

    Args:
        slip: what to show.
        scale: size of one module in pixels.
    """
    import segno

    out = io.BytesIO()
    segno.make(slip.text(), error="m", micro=False).save(out, kind="svg", scale=scale)
    return out.getvalue().decode()


def slip_terminal(slip: Slip) -> str:
    """A QR code of the slip's text for a terminal with Unicode's half blocks."""
    import segno

    out = io.StringIO()
    segno.make(slip.text(), error="l", micro=False).terminal(out, compact=True)
    return out.getvalue()


def _checksum(body: bytes) -> int:
    return int.from_bytes(sha256(_SUM_DOMAIN + body).digest()[:2], "big") >> 16 - _CHECK_BITS


def _group_check(group: int, digits: list[int]) -> int:
    check = group
    for digit in digits:
        check = (check << 1 ^ (0x25 if check & 16 else 0)) & 31 ^ digit
    return check


def _wrong(message: str) -> MalformedError:
    return MalformedError(message, field="slip", remedy="Compare it with the paper, or scan its QR code.")

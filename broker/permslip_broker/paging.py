"""Page tokens: where the next page of a listing begins, pinned to the ledger's size at the first page.

So a listing is of one moment: what is deposited while somebody turns the pages does not shift them. A token says
nothing that the caller does not know; it is checked, not trusted.

Example::

    >>> token = Token(after=41, until=100)
    >>> read_token(token.pack(), now_until=250)
    Token(after=41, until=100)
    >>> read_token(b"", now_until=250)
    Token(after=-1, until=250)
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from permslip._pb.permslip.v1 import session_pb2
from permslip.errors import MalformedError

__all__ = ["Token", "page_size", "read_token"]

DEFAULT_SIZE: Final = 100
MOST: Final = 500
_FORM: Final = struct.Struct(">qq")


@dataclass(frozen=True, slots=True)
class Token:
    """Everything after position ``after`` and before position ``until``."""

    after: int
    until: int

    def pack(self) -> bytes:
        """As it travels."""
        return _FORM.pack(self.after, self.until)


def read_token(token: bytes, *, now_until: int) -> Token:
    """The token of a request; a first page begins before everything, as of ``now_until``.

    Raises:
        MalformedError: not one of ours.
    """
    if not token:
        return Token(-1, now_until)
    if len(token) != _FORM.size:
        raise MalformedError("expected the token of the page before.", field="page.token")
    after, until = _FORM.unpack(token)
    if not -1 <= after <= until <= now_until:
        raise MalformedError("expected the token of the page before.", field="page.token")
    return Token(after, until)


def page_size(page: session_pb2.Page) -> int:
    """How many entries the caller gets."""
    return min(page.size or DEFAULT_SIZE, MOST)

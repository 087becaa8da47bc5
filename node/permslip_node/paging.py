"""Page tokens: where the next page of an answer begins, sealed by the node to itself.

A token is a secretbox (XSalsa20-Poly1305, random nonce) of a strictly fixed form, so that neither broker nor requester
can make, change or read one::

    version 0x01 ‖ id of the first query (32) ‖ ledger position (8) ‖ issued at (8) ‖ scope (32)
    ‖ page number (4) ‖ offset (4) ‖ section, UTF-8

``scope`` is the digest of what was asked for (:func:`scope_of`): a token is of no use for another grant, requester,
section or day. It is good for an hour after the first page, and all pages of it are one use.

Example::

    token = seal_token(key, PageToken(query.id, position, now, scope_of(query), place))
    open_token(key, token).place
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from nacl.bindings import crypto_secretbox, crypto_secretbox_NONCEBYTES, crypto_secretbox_open
from nacl.exceptions import CryptoError

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.errors import MalformedError
from permslip_node.records_store import Place

__all__ = ["PAGES_LAST", "PageToken", "open_token", "scope_of", "seal_token"]

# Milliseconds after the first page for which further pages, and resumes, belong to the same use.
PAGES_LAST: Final = 3_600_000
_VERSION: Final = b"\x01"
_FIXED: Final = 1 + 32 + 8 + 8 + 32 + 4 + 4


@dataclass(frozen=True, slots=True)
class PageToken:
    """What a token says.

    Attributes:
        first_id: the query whose use all pages are.
        position: ledger size at which the first page was decided.
        issued_at: of the first page, UTC milliseconds.
        scope: see :func:`scope_of`.
        place: where the page begins.
    """

    first_id: bytes
    position: int
    issued_at: int
    scope: bytes
    place: Place


def scope_of(query: pb.Query) -> bytes:
    """Digest of what a query asks for, whoever sends it how often: the pages of one answer share it."""
    parts = [query.signer.root, query.grant_id, *query.delegation_ids, bytes([query.action])]
    words = [*query.sections, query.records_from, query.records_until]
    return sha256(b"".join(parts) + b"\x00" + "\x00".join(words).encode()).digest()


def seal_token(key: bytes, token: PageToken) -> bytes:
    """The token as it travels in ``Manifest.next_page``."""
    plain = b"".join(
        (
            _VERSION,
            token.first_id,
            token.position.to_bytes(8, "big"),
            token.issued_at.to_bytes(8, "big"),
            token.scope,
            token.place.page_no.to_bytes(4, "big"),
            token.place.offset.to_bytes(4, "big"),
            token.place.section.encode(),
        )
    )
    nonce = os.urandom(crypto_secretbox_NONCEBYTES)
    return nonce + crypto_secretbox(plain, nonce, key)


def open_token(key: bytes, sealed: bytes) -> PageToken:
    """Read a token that this node sealed.

    Raises:
        MalformedError: it did not, or under a key that it no longer has.
    """
    nonce, box = sealed[:crypto_secretbox_NONCEBYTES], sealed[crypto_secretbox_NONCEBYTES:]
    try:
        plain = crypto_secretbox_open(box, nonce, key)
    except (CryptoError, ValueError):
        raise MalformedError(
            "is no page of this node.", field="query.page", remedy="Send next_page as it came, or begin again."
        ) from None
    place = Place(plain[_FIXED:].decode(), int.from_bytes(plain[81:85], "big"), int.from_bytes(plain[85:_FIXED], "big"))
    return PageToken(
        first_id=plain[1:33],
        position=int.from_bytes(plain[33:41], "big"),
        issued_at=int.from_bytes(plain[41:49], "big"),
        scope=plain[49:81],
        place=place,
    )

"""Sealing: what only the addressee can open, and slices cut into authenticated chunks.

Two forms, both libsodium's:

**A sealed message** (:func:`seal`, :func:`open_sealed`) is small and whole: private terms of a grant, a link
request, a contributed record. It is a SealedBox (X25519, XSalsa20-Poly1305) over::

    SHA-256("permslip/seal/v1\\n" + context)  (32 bytes)  +  plaintext

so it is 80 bytes longer than its plaintext. ``context`` says what the message is for, e.g.
``b"link-request"`` and the ids it belongs to; whoever opens it must say the same. A relay cannot therefore
present a message sealed for one purpose as one for another. A SealedBox is anonymous: who wrote it is told by
a signature, never by the seal.

**A sealed slice** (:class:`SliceSealer`, :class:`SliceOpener`) is an answer of any length:

- ``sealed_key`` (80 bytes): a SealedBox, to the query's ephemeral reply key, over a fresh 32-byte content
  key;
- ``header`` (24 bytes): of libsodium's ``secretstream_xchacha20poly1305`` under that content key;
- chunks: at most 64 KiB of plaintext each, 17 bytes longer than it. The additional data of each is
  ``binding``, the 32-byte id of the query, so that chunks cannot serve as the answer to another query. All
  but the last carry ``TAG_MESSAGE``, the last ``TAG_FINAL``; other tags are refused. An empty slice is one
  empty last chunk.

Altered, reordered, repeated, left out, appended, cut short: the opener refuses each, and after one refusal
everything. Cut short is known only at the end: what was opened is no whole slice until
:meth:`SliceOpener.finish` has returned. Anybody can seal to a reply key: that the *node* sealed is told by
its signed ``Opening`` over ``sealed_key``.

Keys are forgotten when they are done with: no object here keeps the content key, and libsodium replaces its
state by a one-way function at the last chunk. Python cannot erase ``bytes``, so a copy may stay in freed
memory.

Example::

    >>> from permslip.keys import SealingKey
    >>> reply, query = SealingKey.generate(), bytes(32)
    >>> sealer = SliceSealer(reply.public, query)
    >>> chunks = [sealer.chunk(b"first ", last=False), sealer.chunk(b"second", last=True)]
    >>> opener = SliceOpener(reply, sealer.sealed_key, sealer.header, query)
    >>> [opener.open(chunk) for chunk in chunks]
    [(b'first ', False), (b'second', True)]
    >>> opener.finish()
"""

from __future__ import annotations

import secrets
from hashlib import sha256
from hmac import compare_digest
from typing import Final

from nacl.bindings import (
    crypto_box_seal,
    crypto_box_SEALBYTES,
    crypto_secretstream_xchacha20poly1305_ABYTES,
    crypto_secretstream_xchacha20poly1305_HEADERBYTES,
    crypto_secretstream_xchacha20poly1305_init_pull,
    crypto_secretstream_xchacha20poly1305_init_push,
    crypto_secretstream_xchacha20poly1305_KEYBYTES,
    crypto_secretstream_xchacha20poly1305_pull,
    crypto_secretstream_xchacha20poly1305_push,
    crypto_secretstream_xchacha20poly1305_state,
    crypto_secretstream_xchacha20poly1305_TAG_FINAL,
    crypto_secretstream_xchacha20poly1305_TAG_MESSAGE,
)
from nacl.exceptions import CryptoError

from permslip.errors import MalformedError, SealError
from permslip.keys import SealingKey, parse_sealing_key

__all__ = [
    "BINDING_BYTES",
    "CHUNK_OVERHEAD",
    "HEADER_BYTES",
    "MAX_CHUNK_BYTES",
    "SALT_BYTES",
    "SEALED_KEY_BYTES",
    "SEAL_OVERHEAD",
    "SliceOpener",
    "SliceSealer",
    "open_sealed",
    "padme",
    "salted_digest",
    "seal",
]

SALT_BYTES: Final = 16
BINDING_BYTES: Final = 32
HEADER_BYTES: Final = crypto_secretstream_xchacha20poly1305_HEADERBYTES  # 24
MAX_CHUNK_BYTES: Final = 64 * 1024
CHUNK_OVERHEAD: Final = crypto_secretstream_xchacha20poly1305_ABYTES  # 17
SEALED_KEY_BYTES: Final = crypto_box_SEALBYTES + crypto_secretstream_xchacha20poly1305_KEYBYTES  # 80

_CONTEXT_PREFIX: Final = b"permslip/seal/v1\n"
_CONTEXT_BYTES: Final = 32
_SALTED_PREFIX: Final = b"permslip/salted/v1\n"

SEAL_OVERHEAD: Final = crypto_box_SEALBYTES + _CONTEXT_BYTES  # 80


def seal(recipient_public: bytes, plaintext: bytes, *, context: bytes) -> bytes:
    """Seal a small message to an X25519 key.

    Args:
        recipient_public: the addressee's sealing key.
        plaintext: what only the addressee may read.
        context: what the message is for; not secret, of any length, and the same when it is opened.

    Raises:
        KeyRejectedError: the addressee's key must not be used.
    """
    key = parse_sealing_key(recipient_public, "recipient_public")
    return crypto_box_seal(_context_digest(context) + plaintext, key)


def open_sealed(key: SealingKey, sealed: bytes, *, context: bytes) -> bytes:
    """Open what :func:`seal` made.

    Raises:
        SealError: altered, cut short, sealed to another key or for another context.
    """
    if len(sealed) < SEAL_OVERHEAD:
        raise SealError(f"expected a sealed message of at least {SEAL_OVERHEAD} bytes, got {len(sealed)}.")
    opened = key.unseal(sealed)
    if not compare_digest(opened[:_CONTEXT_BYTES], _context_digest(context)):
        raise SealError("the message was sealed for another purpose than the one it is presented for.")
    return opened[_CONTEXT_BYTES:]


class SliceSealer:
    """Seals one slice, chunk by chunk, to the reply key of one query.

    Args:
        reply_key: the query's ephemeral X25519 public key.
        binding: the query's id, 32 bytes.

    Raises:
        KeyRejectedError: the reply key must not be used.
        MalformedError: ``binding`` has another length.
    """

    __slots__ = ("_binding", "_state", "header", "sealed_key")

    sealed_key: bytes
    header: bytes

    def __init__(self, reply_key: bytes, binding: bytes) -> None:
        recipient = parse_sealing_key(reply_key, "reply_key")
        self._binding = _checked_binding(binding)
        content_key = secrets.token_bytes(crypto_secretstream_xchacha20poly1305_KEYBYTES)
        self.sealed_key = crypto_box_seal(content_key, recipient)
        state = crypto_secretstream_xchacha20poly1305_state()
        self.header = crypto_secretstream_xchacha20poly1305_init_push(state, content_key)
        self._state: crypto_secretstream_xchacha20poly1305_state | None = state

    def chunk(self, plaintext: bytes, last: bool) -> bytes:
        """Seal the next chunk.

        Args:
            plaintext: at most :data:`MAX_CHUNK_BYTES`; may be empty.
            last: True for the one that ends the slice.

        Raises:
            MalformedError: the chunk is too long.
            SealError: the last chunk has been sealed already.
        """
        if len(plaintext) > MAX_CHUNK_BYTES:
            raise MalformedError(
                f"expected at most {MAX_CHUNK_BYTES} bytes, got {len(plaintext)}.",
                field="chunk",
                remedy="Cut it into several chunks.",
            )
        state = self._state
        if state is None:
            raise SealError("the slice has ended: its last chunk has been sealed.")
        if not last:
            return crypto_secretstream_xchacha20poly1305_push(
                state, plaintext, self._binding, crypto_secretstream_xchacha20poly1305_TAG_MESSAGE
            )
        self._state = None
        return crypto_secretstream_xchacha20poly1305_push(
            state, plaintext, self._binding, crypto_secretstream_xchacha20poly1305_TAG_FINAL
        )


class SliceOpener:
    """Opens one slice, chunk by chunk; the counterpart of :class:`SliceSealer`.

    Args:
        reply_key: the query's ephemeral pair.
        sealed_key: as received and named by the node's opening.
        header: as received.
        binding: the query's id, 32 bytes.

    Raises:
        SealError: the content key was altered or sealed to another key; the header has a wrong length.
        MalformedError: ``binding`` has another length.
    """

    __slots__ = ("_binding", "_ended", "_state")

    def __init__(self, reply_key: SealingKey, sealed_key: bytes, header: bytes, binding: bytes) -> None:
        self._binding = _checked_binding(binding)
        if len(sealed_key) != SEALED_KEY_BYTES:
            raise SealError(f"expected a sealed content key of {SEALED_KEY_BYTES} bytes, got {len(sealed_key)}.")
        if len(header) != HEADER_BYTES:
            raise SealError(f"expected a stream header of {HEADER_BYTES} bytes, got {len(header)}.")
        state = crypto_secretstream_xchacha20poly1305_state()
        crypto_secretstream_xchacha20poly1305_init_pull(state, header, reply_key.unseal(sealed_key))
        self._state: crypto_secretstream_xchacha20poly1305_state | None = state
        self._ended = False

    def open(self, chunk: bytes) -> tuple[bytes, bool]:
        """Open the next chunk; returns its plaintext and whether it was the last.

        Raises:
            SealError: the chunk is not the next one of this slice, unaltered; or it comes after the last; or
                an earlier one has been refused.
        """
        # Taken out, and put back only by a chunk that holds and is not the last: a refusal is final.
        state, self._state = self._state, None
        if self._ended:
            self._ended = False
            raise SealError("a chunk came after the last one of its slice.")
        if state is None:
            raise SealError("an earlier chunk of this slice was refused, so nothing more of it can be opened.")
        if not CHUNK_OVERHEAD <= len(chunk) <= MAX_CHUNK_BYTES + CHUNK_OVERHEAD:
            raise SealError(
                f"expected a chunk of {CHUNK_OVERHEAD} to {MAX_CHUNK_BYTES + CHUNK_OVERHEAD} bytes, got {len(chunk)}."
            )
        try:
            plaintext, tag = crypto_secretstream_xchacha20poly1305_pull(state, chunk, self._binding)
        except CryptoError:
            raise SealError(
                "a chunk was altered, is out of order, or belongs to another slice.", remedy="Query again."
            ) from None
        if tag == crypto_secretstream_xchacha20poly1305_TAG_MESSAGE:
            self._state = state
            return plaintext, False
        if tag != crypto_secretstream_xchacha20poly1305_TAG_FINAL:
            raise SealError(f"expected a chunk tagged as message or final, got tag {tag}.")
        self._ended = True
        return plaintext, True

    def finish(self) -> None:
        """Say that no more chunks come.

        Raises:
            SealError: the last chunk was never opened, or a chunk was refused: nothing opened may be used as
                whole.
        """
        if not self._ended:
            raise SealError(
                "the slice is not whole: its last chunk never came, or a chunk was refused.",
                remedy="Query again.",
            )


def padme(length: int) -> int:
    """The length to which ``length`` bytes are padded, so that the size tells little: Padmé.

    The result has a floating-point number's form: its mantissa is no longer than its exponent. So a size of
    up to M bytes leaks O(log log M) bits, and the padding is at most 12 % of the length, less as it grows.
    (Nikitin et al., «Reducing Metadata Leakage from Encrypted Files and Communication with PURBs», PoPETs
    2019, §4, algorithm 1.)

    Args:
        length: bytes, 0 or more; 0 and 1 stay what they are.

    Raises:
        MalformedError: negative.
    """
    if length < 0:
        raise MalformedError(f"expected a length of 0 or more, got {length}.", field="length")
    if length < 2:
        return length
    exponent = length.bit_length() - 1
    mantissa_bits = exponent.bit_length()
    mask = (1 << (exponent - mantissa_bits)) - 1
    return (length + mask) & ~mask


def salted_digest(salt: bytes, data: bytes) -> bytes:
    """Commit to data that only those who are given the salt can check.

    The digest is ``SHA-256("permslip/salted/v1\\n" + salt + data)``.

    Args:
        salt: 16 random bytes, fresh for each digest; without them, short data could be found by trying.
        data: what is committed to.

    Raises:
        MalformedError: ``salt`` has another length.
    """
    if len(salt) != SALT_BYTES:
        raise MalformedError(f"expected {SALT_BYTES} bytes, got {len(salt)}.", field="salt")
    return sha256(_SALTED_PREFIX + salt + data).digest()


def _context_digest(context: bytes) -> bytes:
    return sha256(_CONTEXT_PREFIX + context).digest()


def _checked_binding(binding: bytes) -> bytes:
    if len(binding) != BINDING_BYTES:
        raise MalformedError(f"expected the id of a query, {BINDING_BYTES} bytes, got {len(binding)}.", field="binding")
    return binding

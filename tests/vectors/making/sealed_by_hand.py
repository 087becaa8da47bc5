"""Sealing with chosen randomness, so that vectors come out the same every time.

libsodium chooses the ephemeral key of a sealed box and the header of a secretstream itself. Both can be made by hand
from the same primitives, as their definitions say:

- a sealed box is ``epk ‖ crypto_box(message, nonce = BLAKE2b-192(epk ‖ recipient), recipient, esk)``;
- pushing and pulling a secretstream begin in the same state, which key and header alone determine.

Only vectors are made so. What they hold is opened by the product's own code.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b, sha256

from nacl.bindings import (
    crypto_box,
    crypto_box_seed_keypair,
    crypto_secretstream_xchacha20poly1305_init_pull,
    crypto_secretstream_xchacha20poly1305_push,
    crypto_secretstream_xchacha20poly1305_state,
    crypto_secretstream_xchacha20poly1305_TAG_FINAL,
    crypto_secretstream_xchacha20poly1305_TAG_MESSAGE,
)


def sealed_box(recipient: bytes, message: bytes, ephemeral_seed: bytes) -> bytes:
    """A libsodium sealed box whose ephemeral pair is that of a seed."""
    public, secret = crypto_box_seed_keypair(ephemeral_seed)
    nonce = blake2b(public + recipient, digest_size=24).digest()
    return public + crypto_box(message, nonce, recipient, secret)


def sealed_message(recipient: bytes, plaintext: bytes, context: bytes, ephemeral_seed: bytes) -> bytes:
    """What :func:`permslip.sealing.seal` makes."""
    return sealed_box(recipient, sha256(b"permslip/seal/v1\n" + context).digest() + plaintext, ephemeral_seed)


def sealed_chunks(plaintexts: Sequence[bytes], content_key: bytes, header: bytes, binding: bytes) -> list[bytes]:
    """What :class:`permslip.sealing.SliceSealer` makes of these plaintexts; the last ends the slice."""
    state = crypto_secretstream_xchacha20poly1305_state()
    crypto_secretstream_xchacha20poly1305_init_pull(state, header, content_key)
    tags = [crypto_secretstream_xchacha20poly1305_TAG_MESSAGE] * (len(plaintexts) - 1)
    tags.append(crypto_secretstream_xchacha20poly1305_TAG_FINAL)
    return [
        crypto_secretstream_xchacha20poly1305_push(state, plaintext, binding, tag)
        for plaintext, tag in zip(plaintexts, tags, strict=True)
    ]

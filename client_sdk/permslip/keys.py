"""Keys: who signs, and to whom something is sealed.

A principal *is* an Ed25519 public key, written ``did:key:z6Mk…`` (W3C did:key, Ed25519 multikey: base58btc of
``0xed01`` and the 32 bytes). Sealing uses a separate X25519 pair. libsodium alone signs, verifies and checks
points, so that no two parts of the product can disagree about a signature.

Rules:

- A :class:`PublicKey` that exists is usable: it is 32 bytes, the canonical encoding of a point on the curve,
  of the prime-order subgroup and not of small order. libsodium's own verification refuses non-canonical and
  small-order keys; keys with a small-order *component* are refused here in addition, so that one signature
  cannot be valid for one verifier and invalid for another that multiplies by the cofactor.
- An X25519 key must be canonical (below 2^255 - 19, top bit clear) and not of small order, for which every
  shared secret would be zero.
- Verifying returns or raises; there is no boolean to forget.
- Secret keys have no readable ``repr`` and refuse to be pickled or copied. Python cannot erase ``bytes``:
  what holds is that nothing here keeps a second copy.

Example::

    >>> key = SigningKey.from_seed(bytes(32))
    >>> key.public.did
    'did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp'
    >>> key.public.verify(b"yes", key.sign(b"yes"))
    >>> key
    SigningKey(did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp)
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NoReturn

from nacl.bindings import (
    crypto_box_seal_open,
    crypto_box_SEALBYTES,
    crypto_box_seed_keypair,
    crypto_core_ed25519_is_valid_point,
    crypto_sign,
    crypto_sign_keypair,
    crypto_sign_open,
    crypto_sign_seed_keypair,
)
from nacl.exceptions import CryptoError

from permslip.errors import KeyRejectedError, MalformedError, SealError, SignatureError

__all__ = [
    "KEY_BYTES",
    "SEED_BYTES",
    "SIGNATURE_BYTES",
    "PublicKey",
    "SealingKey",
    "SigningKey",
    "did_text",
    "parse_sealing_key",
]

KEY_BYTES: Final = 32
SEED_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64

_KNOWN_KEYS: Final = 8192  # about 1 MB when full

_DID_PREFIX: Final = "did:key:z"
_ED25519_MULTICODEC: Final = b"\xed\x01"
_BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE58_VALUE: Final = {digit: value for value, digit in enumerate(_BASE58)}
_BASE58_DIGITS: Final = 47  # every 34-byte number that begins with 0xed01 has exactly so many base58 digits

_FIELD_25519: Final = 2**255 - 19
# u-coordinates of the points of order 1, 2, 4 and 8 on Curve25519 and its twist, in canonical form
# (RFC 7748 §6.1; https://cr.yp.to/ecdh.html#validate). libsodium refuses them later; here they get a name.
_SMALL_ORDER_U: Final = frozenset(
    {
        0,
        1,
        _FIELD_25519 - 1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    }
)


@dataclass(frozen=True, slots=True, repr=False)
class PublicKey:
    """An Ed25519 public key that has been checked; build it with :meth:`parse`.

    Args:
        raw: the 32 bytes of RFC 8032 §5.1.2.

    Raises:
        KeyRejectedError: as :meth:`parse`.
    """

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != KEY_BYTES:
            raise KeyRejectedError(f"expected an Ed25519 public key of {KEY_BYTES} bytes, got {len(self.raw)}.")
        if not crypto_core_ed25519_is_valid_point(self.raw):
            raise KeyRejectedError(
                f"{self.raw.hex()} is not a usable Ed25519 public key: not canonical, not on the curve, "
                "or of small or mixed order.",
                remedy="Make a new key; no correct software produces such a one.",
            )

    @staticmethod
    def parse(raw: bytes, *, field: str = "key") -> PublicKey:
        """Check 32 bytes and return the key. A key seen before costs a dictionary look-up.

        Args:
            raw: what came.
            field: dotted path of the field, for the message.

        Raises:
            KeyRejectedError: wrong length, not canonical, not on the curve, or of small or mixed order.
        """
        try:
            return _known_key(raw)
        except KeyRejectedError as error:
            raise KeyRejectedError(f"{field}: {error.message}", remedy=error.remedy) from None

    @staticmethod
    def from_did(text: str, *, field: str = "did") -> PublicKey:
        """Read ``did:key:z6Mk…``.

        Raises:
            MalformedError: not a did:key of an Ed25519 key in its one spelling.
            KeyRejectedError: as :meth:`parse`.
        """
        if not text.startswith(_DID_PREFIX) or len(text) != len(_DID_PREFIX) + _BASE58_DIGITS:
            raise _not_a_did(text, field)
        number = 0
        for digit in text[len(_DID_PREFIX) :]:
            value = _BASE58_VALUE.get(digit)
            if value is None:
                raise _not_a_did(text, field)
            number = number * 58 + value
        if number >> (8 * KEY_BYTES) != int.from_bytes(_ED25519_MULTICODEC, "big"):
            raise _not_a_did(text, field)
        try:
            return PublicKey.parse((number & (2**256 - 1)).to_bytes(KEY_BYTES, "big"), field=field)
        except KeyRejectedError as error:
            raise KeyRejectedError(
                error.message, remedy="Compare it, letter by letter, with what was printed; a letter may be wrong."
            ) from None

    @property
    def did(self) -> str:
        """``did:key:z6Mk…``, the key's name."""
        return did_text(self.raw)

    def verify(self, message: bytes, signature: bytes) -> None:
        """Check an Ed25519 signature (RFC 8032, as libsodium verifies: canonical S, no small-order R or key).

        Raises:
            SignatureError: the signature is not 64 bytes long or does not hold.
        """
        if len(signature) != SIGNATURE_BYTES:
            raise SignatureError(
                f"expected a signature of {SIGNATURE_BYTES} bytes by {self.did}, got {len(signature)}."
            )
        try:
            crypto_sign_open(signature + message, self.raw)
        except CryptoError:
            raise SignatureError(f"invalid signature: not made by {self.did} over these bytes.") from None

    def __repr__(self) -> str:
        return f"PublicKey({self.did})"

    def __str__(self) -> str:
        return self.did


class SigningKey:
    """An Ed25519 secret key. Make one with :meth:`generate` or :meth:`from_seed`."""

    __slots__ = ("_secret", "public")

    public: PublicKey

    def __init__(self, public: bytes, secret: bytes) -> None:
        self.public = PublicKey.parse(public)
        self._secret = secret  # libsodium's form: seed and public key

    @classmethod
    def generate(cls) -> SigningKey:
        """A new key from the operating system's random numbers."""
        return cls(*crypto_sign_keypair())

    @classmethod
    def from_seed(cls, seed: bytes, *, field: str = "seed") -> SigningKey:
        """The key of a 32-byte seed (the «private key» of RFC 8032 §5.1.5).

        Raises:
            MalformedError: any other length.
        """
        return cls(*crypto_sign_seed_keypair(_checked_seed(seed, field)))

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature over ``message``. The same message always gives the same signature."""
        return crypto_sign(message, self._secret)[:SIGNATURE_BYTES]

    def secret_seed(self) -> bytes:
        """The 32 bytes from which the key can be made again: for a key file and nothing else."""
        return self._secret[:SEED_BYTES]

    def __repr__(self) -> str:
        return f"SigningKey({self.public.did})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a SigningKey is neither pickled nor copied; write a key file")


class SealingKey:
    """An X25519 pair to which others seal. Make one with :meth:`generate` or :meth:`from_seed`."""

    __slots__ = ("_secret", "_seed", "public")

    public: bytes

    def __init__(self, seed: bytes) -> None:
        self.public, self._secret = crypto_box_seed_keypair(seed)
        self._seed = seed

    @classmethod
    def generate(cls) -> SealingKey:
        """A new pair from the operating system's random numbers, e.g. the reply key of one query."""
        return cls(secrets.token_bytes(SEED_BYTES))

    @classmethod
    def from_seed(cls, seed: bytes, *, field: str = "seed") -> SealingKey:
        """The pair of a 32-byte seed: libsodium's ``crypto_box_seed_keypair`` (secret = SHA-512(seed)[:32]).

        Raises:
            MalformedError: any other length.
        """
        return cls(_checked_seed(seed, field))

    def unseal(self, sealed: bytes) -> bytes:
        """Open one libsodium SealedBox (ephemeral key, 32 bytes; tag, 16; ciphertext).

        Raises:
            SealError: too short, altered, or sealed to another key.
        """
        if len(sealed) < crypto_box_SEALBYTES:
            raise SealError(f"expected a sealed box of at least {crypto_box_SEALBYTES} bytes, got {len(sealed)}.")
        try:
            return crypto_box_seal_open(sealed, self.public, self._secret)
        except CryptoError:
            raise SealError(
                f"the sealed box was altered or is not for the key {self.public.hex()}.",
                remedy="Ask the sender to seal it again to this key.",
            ) from None

    def secret_seed(self) -> bytes:
        """The 32 bytes from which the pair can be made again: for a key file and nothing else."""
        return self._seed

    def __repr__(self) -> str:
        return f"SealingKey({self.public.hex()})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a SealingKey is neither pickled nor copied; write a key file")


def parse_sealing_key(raw: bytes, field: str) -> bytes:
    """Check an X25519 public key and return it.

    Args:
        raw: what came.
        field: dotted path of the field, for the message.

    Raises:
        KeyRejectedError: wrong length, not canonical (RFC 7748 §5 would reduce it, but one key has one
            spelling), or of small order.
    """
    if len(raw) != KEY_BYTES:
        raise KeyRejectedError(f"{field}: expected an X25519 public key of 32 bytes, got {len(raw)}.")
    u = int.from_bytes(raw, "little")
    if u >= _FIELD_25519 or u in _SMALL_ORDER_U:
        raise KeyRejectedError(
            f"{field}: {raw.hex()} is not a usable X25519 public key: not canonical, or of small order.",
            remedy="Make a new key; no correct software produces such a one.",
        )
    return raw


@lru_cache(maxsize=_KNOWN_KEYS)
def did_text(raw: bytes) -> str:
    """The did:key form of 32 bytes, **whether or not** they are a usable key: for messages and listings.

    Raises:
        MalformedError: any other length.
    """
    if len(raw) != KEY_BYTES:
        raise MalformedError(f"expected 32 bytes, got {len(raw)}.", field="key")
    number = int.from_bytes(_ED25519_MULTICODEC + raw, "big")
    digits = []
    for _ in range(_BASE58_DIGITS):
        number, value = divmod(number, 58)
        digits.append(_BASE58[value])
    return _DID_PREFIX + "".join(reversed(digits))


@lru_cache(maxsize=_KNOWN_KEYS)
def _known_key(raw: bytes) -> PublicKey:
    return PublicKey(raw)


def _checked_seed(seed: bytes, field: str) -> bytes:
    if len(seed) != SEED_BYTES:
        raise MalformedError(f"expected a seed of {SEED_BYTES} bytes, got {len(seed)}.", field=field)
    return seed


def _not_a_did(text: str, field: str) -> MalformedError:
    shown = text if len(text) <= 80 else f"{text[:80]}…"
    return MalformedError(
        f"expected an Ed25519 key written did:key:z6Mk… ({len(_DID_PREFIX) + _BASE58_DIGITS} characters), "
        f"got {shown!r}.",
        field=field,
        remedy="Copy it whole, as it was printed.",
    )

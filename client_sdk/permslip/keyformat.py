"""The text of a private key file: bytes in, keys out.

A key file is ASCII text of at most 2048 bytes: lines in this order, each ``name: value``, ended by one LF
(0x0A), with nothing before, between or after them. Hexadecimal is lower case. ``[ ]`` marks what only some
files have::

    permslip-key: v1
    kind: KIND                      guardian, learner, provider, node, broker, auditor or operator
    public: DID                     did:key:z6Mk… of the Ed25519 key
    [sealing-public: 64 HEX]        the X25519 public key

and then, in an unprotected file::

    signing-seed: 64 HEX            the Ed25519 seed (RFC 8032 §5.1.5)
    [sealing-seed: 64 HEX]          the X25519 seed (crypto_box_seed_keypair); there if sealing-public is

or, in one that a passphrase protects::

    kdf: argon2id OPSLIMIT MEMLIMIT SALT     decimal, decimal bytes, 32 HEX
    sealed: HEX                     24-byte nonce, then crypto_secretbox_easy (XSalsa20-Poly1305)

The box's key is ``crypto_pwhash`` (Argon2id 1.3, 32 bytes) of the passphrase. Its plaintext is SHA-256 of all
bytes before the ``sealed:`` line, then the signing seed, then the sealing seed if there is one; so that
nothing in the file can be altered without the passphrase, the kind included.

Rules:

- Refused when a public key does not belong to its seed, or when anything differs from the above by a byte.
- The cost of the key derivation is read from the file and capped first: at most 1 GiB and 16 passes.
- A passphrase comes as bytes (UTF-8, NFC) or from a callable that asks for it; never from the command line.

Example, byte-exact: the seeds are 32 bytes 00 and 32 bytes 01::

    permslip-key: v1
    kind: guardian
    public: did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp
    sealing-public: 1b1b58dd50ea14b60da17b790cd02754d970c9bab864ebb3c0f3016fe51d3f57
    signing-seed: 0000000000000000000000000000000000000000000000000000000000000000
    sealing-seed: 0101010101010101010101010101010101010101010101010101010101010101

and the signing key alone, protected by the passphrase ``correct horse``, the salt 16 bytes 02, the nonce 24
bytes 03::

    permslip-key: v1
    kind: guardian
    public: did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp
    kdf: argon2id 1 8192 02020202020202020202020202020202
    sealed: \
030303030303030303030303030303030303030303030303f3fab542c6da0d1ae8bb868cf7b3dc199d6eecdb62b8f927\
4ebc14eed64f87c466bcae5c6d4e9ebb9aa5b2e9be3a5a821c75515da125876b4645dc69a2a7313f17d38e33cffe8367\
74274ffc73acdc0b
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from hmac import compare_digest
from typing import Final, TypeAlias

from nacl import pwhash
from nacl.bindings import (
    crypto_secretbox_easy,
    crypto_secretbox_KEYBYTES,
    crypto_secretbox_NONCEBYTES,
    crypto_secretbox_open_easy,
)
from nacl.exceptions import CryptoError

from permslip.errors import KeyFileError, PermslipError
from permslip.keys import SEED_BYTES, PublicKey, SealingKey, SigningKey

__all__ = [
    "FIRST_LINE",
    "MAX_FILE_BYTES",
    "KdfCost",
    "KeyFileSummary",
    "Passphrase",
    "PrincipalKind",
    "StoredKeys",
    "describe_keys",
    "format_keys",
    "parse_keys",
]

Passphrase: TypeAlias = bytes | Callable[[], bytes]

MAX_FILE_BYTES: Final = 2048
FIRST_LINE: Final = b"permslip-key: "  # with what every key file begins
_COPY: Final = "Restore the file from where you keep a copy."
_RIGHT_FILE: Final = f"Give the path of a key file, or restore it: it begins with {FIRST_LINE.decode()!r}."
_MAX_OPSLIMIT: Final = 16
_MAX_MEMLIMIT: Final = 1 << 30
_MIN_MEMLIMIT: Final = pwhash.argon2id.MEMLIMIT_MIN
_SALT_BYTES: Final = 16
_DIGEST_BYTES: Final = 32

_KDF: Final = re.compile(r"argon2id ([1-9][0-9]{0,9}) ([1-9][0-9]{0,11}) ([0-9a-f]{32})")
_SEED: Final = re.compile(r"[0-9a-f]{64}")
# nonce 24, tag 16, digest 32, then one seed or two of 32 bytes each
_BOX: Final = {1: re.compile(r"[0-9a-f]{208}"), 2: re.compile(r"[0-9a-f]{272}")}


class PrincipalKind(StrEnum):
    """What a key's holder is."""

    GUARDIAN = "guardian"
    LEARNER = "learner"
    PROVIDER = "provider"
    NODE = "node"
    BROKER = "broker"
    AUDITOR = "auditor"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class KdfCost:
    """What one guess at a passphrase costs.

    Args:
        opslimit: passes over the memory, 1 to 16.
        memlimit: bytes of memory, 8 KiB to 1 GiB.

    Raises:
        KeyFileError: outside these bounds.
    """

    opslimit: int = pwhash.argon2id.OPSLIMIT_MODERATE  # 3
    memlimit: int = pwhash.argon2id.MEMLIMIT_MODERATE  # 256 MiB

    def __post_init__(self) -> None:
        if not (1 <= self.opslimit <= _MAX_OPSLIMIT and _MIN_MEMLIMIT <= self.memlimit <= _MAX_MEMLIMIT):
            raise KeyFileError(
                f"expected a key derivation of 1 to {_MAX_OPSLIMIT} passes over {_MIN_MEMLIMIT} to "
                f"{_MAX_MEMLIMIT} bytes, got {self.opslimit} over {self.memlimit}."
            )


@dataclass(frozen=True, slots=True)
class StoredKeys:
    """What a key file holds.

    Args:
        kind: what the holder is.
        signing: the principal's Ed25519 key.
        sealing: the X25519 pair to which others seal, where the kind needs one.
    """

    kind: PrincipalKind
    signing: SigningKey
    sealing: SealingKey | None = None


@dataclass(frozen=True, slots=True)
class KeyFileSummary:
    """What a key file says of itself without its passphrase; nothing of it is authenticated."""

    kind: PrincipalKind
    public: PublicKey
    sealing_public: bytes | None
    protected: bool


def format_keys(keys: StoredKeys, passphrase: Passphrase | None, cost: KdfCost) -> bytes:
    """Write the text of a key file; protected by a passphrase, if one is given.

    Raises:
        KeyFileError: the passphrase is empty, or the memory for the key derivation could not be had.
    """
    head = ["permslip-key: v1", f"kind: {keys.kind.value}", f"public: {keys.signing.public.did}"]
    seeds = [keys.signing.secret_seed()]
    if keys.sealing is not None:
        head.append(f"sealing-public: {keys.sealing.public.hex()}")
        seeds.append(keys.sealing.secret_seed())
    if passphrase is None:
        names = ("signing-seed", "sealing-seed")
        return _lines(*head, *(f"{name}: {seed.hex()}" for name, seed in zip(names, seeds, strict=False)))
    salt, nonce = secrets.token_bytes(_SALT_BYTES), secrets.token_bytes(crypto_secretbox_NONCEBYTES)
    open_part = _lines(*head, f"kdf: argon2id {cost.opslimit} {cost.memlimit} {salt.hex()}")
    plaintext = sha256(open_part).digest() + b"".join(seeds)
    box = crypto_secretbox_easy(plaintext, nonce, _derive(_ask(passphrase), salt, cost))
    return open_part + _lines(f"sealed: {(nonce + box).hex()}")


def parse_keys(content: bytes, source: str, passphrase: Passphrase | None) -> StoredKeys:
    """Read the text of a key file.

    Args:
        content: the whole file.
        source: its name, for messages.
        passphrase: of a protected file; a callable is called only if the file is protected.

    Raises:
        KeyFileError: not what the format says, or another passphrase is needed.
    """
    fields = _Fields(content, source)
    summary = fields.summary()
    if summary.protected:
        if passphrase is None:
            raise fields.error("protected by a passphrase.", remedy="Give its passphrase.")
        seeds = fields.open_seeds(passphrase)
    else:
        seeds = fields.plain_seeds()
    signing = SigningKey.from_seed(seeds[0])
    sealing = SealingKey.from_seed(seeds[1]) if len(seeds) == 2 else None
    if signing.public != summary.public or (sealing.public if sealing else None) != summary.sealing_public:
        raise fields.error("expected the public keys of the seeds, got others.")
    return StoredKeys(summary.kind, signing, sealing)


def describe_keys(content: bytes, source: str) -> KeyFileSummary:
    """What a key file says of itself; asks for no passphrase and checks nothing against the seeds.

    Raises:
        KeyFileError: as :func:`parse_keys`, but for the passphrase.
    """
    return _Fields(content, source).summary()


class _Fields:
    """The lines of one file, checked against the format's order."""

    def __init__(self, content: bytes, source: str) -> None:
        self._source = source
        self._content = content
        if not 0 < len(content) <= MAX_FILE_BYTES:
            raise self.error(f"expected a key file of 1 to {MAX_FILE_BYTES} bytes.")
        if not content.isascii() or not content.endswith(b"\n"):
            raise self.error("expected ASCII text that ends with a line feed.")
        self._values: dict[str, str] = {}
        for number, line in enumerate(content.decode("ascii")[:-1].split("\n"), start=1):
            name, separator, value = line.partition(": ")
            if not separator or name in self._values:
                raise self.error(f"line {number}: expected «name: value», each name once.")
            self._values[name] = value
        has_sealing = "sealing-public" in self._values
        self._seed_names = ["signing-seed", "sealing-seed"] if has_sealing else ["signing-seed"]
        self._protected = "kdf" in self._values
        expected = [
            *["permslip-key", "kind", "public"],
            *(["sealing-public"] if has_sealing else []),
            *(["kdf", "sealed"] if self._protected else self._seed_names),
        ]
        if list(self._values) != expected:
            raise self.error(f"expected the lines {', '.join(expected)}, in this order and no others.")

    def summary(self) -> KeyFileSummary:
        if self._values["permslip-key"] != "v1":
            raise self.error("permslip-key: expected v1.", remedy="Use the version that wrote the file.")
        try:
            kind = PrincipalKind(self._values["kind"])
        except ValueError:
            raise self.error(f"kind: expected one of {', '.join(PrincipalKind)}.") from None
        try:
            public = PublicKey.from_did(self._values["public"], field="public")
        except PermslipError as error:
            raise self.error(error.message) from None
        sealing_public = self._hex("sealing-public", _SEED) if "sealing-public" in self._values else None
        return KeyFileSummary(kind, public, sealing_public, self._protected)

    def plain_seeds(self) -> list[bytes]:
        return [self._hex(name, _SEED) for name in self._seed_names]

    def open_seeds(self, passphrase: Passphrase) -> list[bytes]:
        # (1) the cost, capped before any memory is taken
        found = _KDF.fullmatch(self._values["kdf"])
        if found is None:
            raise self.error("kdf: expected «argon2id OPSLIMIT MEMLIMIT SALT».")
        try:
            cost = KdfCost(int(found[1]), int(found[2]))
        except KeyFileError as error:
            raise self.error(
                f"kdf: {error.message}", remedy="Do not use this file unless you know who wrote it."
            ) from None
        # (2) the box
        sealed = self._hex("sealed", _BOX[len(self._seed_names)])
        nonce, box = sealed[:crypto_secretbox_NONCEBYTES], sealed[crypto_secretbox_NONCEBYTES:]
        key = _derive(_ask(passphrase), bytes.fromhex(found[3]), cost)
        try:
            opened = crypto_secretbox_open_easy(box, nonce, key)
        except CryptoError:
            raise self.error(
                "the passphrase is wrong, or the file was altered.", remedy="Try the passphrase again."
            ) from None
        # (3) what stands in clear before it
        digest, seeds = opened[:_DIGEST_BYTES], opened[_DIGEST_BYTES:]
        if not compare_digest(digest, sha256(self._content[: self._content.rindex(b"sealed: ")]).digest()):
            raise self.error("altered after it was written.")
        return [seeds[start : start + SEED_BYTES] for start in range(0, len(seeds), SEED_BYTES)]

    def error(self, message: str, *, remedy: str = "") -> KeyFileError:
        """Names the file; never shows a value, for it may be secret."""
        usual = _COPY if self._content.startswith(FIRST_LINE) else _RIGHT_FILE
        return KeyFileError(f"{self._source}: {message}", remedy=remedy or usual)

    def _hex(self, name: str, pattern: re.Pattern[str]) -> bytes:
        value = self._values[name]
        if not pattern.fullmatch(value):
            raise self.error(f"{name}: expected lower-case hexadecimal of the right length.")
        return bytes.fromhex(value)


def _lines(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode("ascii")


def _derive(passphrase: bytes, salt: bytes, cost: KdfCost) -> bytes:
    try:
        return pwhash.argon2id.kdf(
            crypto_secretbox_KEYBYTES, passphrase, salt, opslimit=cost.opslimit, memlimit=cost.memlimit
        )
    except CryptoError:
        raise KeyFileError(
            f"the key derivation needs {cost.memlimit >> 20} MiB of memory, which could not be had.",
            remedy="Try on a machine with more free memory.",
        ) from None


def _ask(passphrase: Passphrase) -> bytes:
    answer = passphrase if isinstance(passphrase, bytes) else passphrase()
    if not answer:
        raise KeyFileError("the passphrase is empty.", remedy="Give one, or leave it out altogether.")
    return answer

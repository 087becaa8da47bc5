"""C2SP signed notes: text with signature lines, as transparency logs and their witnesses exchange it.

By c2sp.org/signed-note. A note is text that ends in a newline, an empty line, and a line for each signature
(an em dash, the key's name, base64 of key id and signature)::

    Term begins.

    — log.example 2F9odJF4B60nN+KXsNjYgS9sSoWcQNFQdRqKnQq5hOR+oJWcj7B+Ics2H2n6DPTjbMLlHw0nZxcm0MCpc1HPlTosgAM=

It is verified by a *verifier key*: the key's name, its id in hexadecimal, and base64 of signature type and
public key, as in ``log.example+d85f6874+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop``.

Rules:

* A note's text is to be ignored until a signature by a known key was verified. :func:`parse_note` gives an
  :class:`UnverifiedNote` with its ``untrusted_text``; only :func:`open_note` gives a :class:`VerifiedNote`.
* Name *and* key id identify a key. Signatures by unknown keys are ignored; every signature by a known key is
  verified, repeated ones too, and one that does not hold refuses the whole note.
* One encoding: UTF-8 without control characters, canonical base64, lower-case hexadecimal.
* Caps: 1 MB, 10,000 lines, 100 signatures, names of 255 bytes.

Example:
    >>> from permslip.keys import SigningKey
    >>> signer = Ed25519Signer("log.example", SigningKey.from_seed(bytes(32)))
    >>> raw = sign_note("Term begins.\\n", [signer])
    >>> open_note(raw, [signer.verifier]).text
    'Term begins.\\n'
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import sha256
from typing import Protocol

from permslip.errors import KeyRejectedError, MalformedError, SignatureError
from permslip.keys import PublicKey, SigningKey

__all__ = [
    "MAX_LINES",
    "MAX_NAME_BYTES",
    "MAX_NOTE_BYTES",
    "MAX_SIGNATURES",
    "Ed25519Signer",
    "Ed25519Verifier",
    "NoteSignature",
    "NoteSigner",
    "NoteVerifier",
    "SignatureType",
    "UnverifiedNote",
    "VerifiedNote",
    "VerifierKey",
    "append_signatures",
    "decode_base64",
    "open_note",
    "parse_note",
    "parse_signature_lines",
    "sign_note",
]

MAX_NOTE_BYTES = 1_000_000
MAX_LINES = 10_000
MAX_SIGNATURES = 100
MAX_NAME_BYTES = 255

_KEY_ID_BYTES = 4
_EM_DASH = "\u2014 "
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\ud800-\udfff]")  # with the surrogates, which UTF-8 cannot carry
_KEY_ID_HEX = re.compile("[0-9a-f]{8}")


class SignatureType(IntEnum):
    """The signature types of signed-note that are used here."""

    ED25519 = 0x01
    COSIGNATURE_V1 = 0x04


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A key's name, type and public key: what a verifier must have been given by a trusted way.

    Raises:
        MalformedError: the name is empty, too long, or holds a space, a plus sign or a control character.
    """

    name: str
    type: SignatureType
    public: PublicKey
    key_id: bytes = field(init=False)

    def __post_init__(self) -> None:
        _check_name(self.name)
        hashed = sha256(self.name.encode() + b"\n" + bytes([self.type]) + self.public.raw).digest()
        object.__setattr__(self, "key_id", hashed[:_KEY_ID_BYTES])

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Parse ``name+keyid+base64``.

        Raises:
            MalformedError: not a verifier key, of a type that is not supported, or its id does not match.
            KeyRejectedError: a public key that must not be used.
        """
        parts = text.split("+", 2)
        if len(text) > 2 * MAX_NAME_BYTES or len(parts) != 3 or not _KEY_ID_HEX.fullmatch(parts[1]):
            raise MalformedError(f"expected name+8 hexadecimal digits+base64, got {_shown(text)}", field="vkey")
        name, key_id, encoded = parts
        material = decode_base64(encoded, field="vkey")
        if not material or material[0] not in SignatureType.__members__.values():
            raise MalformedError(f"expected signature type 1 or 4, got {material[:1].hex() or 'none'}", field="vkey")
        key = cls(name, SignatureType(material[0]), PublicKey.parse(material[1:], field="vkey"))
        if key.key_id.hex() != key_id:
            raise MalformedError(
                f"expected key id {key.key_id.hex()} for this name and key, got {key_id}", field="vkey"
            )
        return key

    def __str__(self) -> str:
        material = base64.b64encode(bytes([self.type]) + self.public.raw).decode()
        return f"{self.name}+{self.key_id.hex()}+{material}"

    def expect_type(self, expected: SignatureType) -> None:
        """Refuse a key of another type.

        Raises:
            KeyRejectedError: it is one.
        """
        if self.type is not expected:
            raise KeyRejectedError(f"expected {self.name} to be a key of type {expected.name}, got {self.type.name}")


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line; says nothing until it is verified."""

    name: str
    key_id: bytes
    signature: bytes

    def is_by(self, key: VerifierKey) -> bool:
        """Whether the line claims to be by ``key``: by its name and its key id."""
        return (self.name, self.key_id) == (key.name, key.key_id)

    def line(self) -> str:
        """The line as it stands in a note, newline included."""
        return f"{_EM_DASH}{self.name} {base64.b64encode(self.key_id + self.signature).decode()}\n"


class NoteVerifier(Protocol):
    """Checks signatures of one type by one key."""

    @property
    def key(self) -> VerifierKey:
        """Whose signatures these are."""
        ...

    def verify(self, text: str, signature: bytes) -> None:
        """Raise SignatureError unless ``signature`` (without its key id) is by this key over ``text``."""
        ...


class NoteSigner(Protocol):
    """Makes signatures of one type with one key."""

    @property
    def key(self) -> VerifierKey:
        """Whose signatures these are."""
        ...

    def sign(self, text: str) -> bytes:
        """The signature over ``text``, without its key id."""
        ...


@dataclass(frozen=True, slots=True)
class Ed25519Verifier:
    """Plain Ed25519 over the text (signed-note, type 0x01).

    Raises:
        KeyRejectedError: the key is of another type.
    """

    key: VerifierKey

    def __post_init__(self) -> None:
        self.key.expect_type(SignatureType.ED25519)

    def verify(self, text: str, signature: bytes) -> None:
        self.key.public.verify(text.encode(), signature)


class Ed25519Signer:
    """Signs text with plain Ed25519 (signed-note, type 0x01) under a key name."""

    def __init__(self, name: str, signing_key: SigningKey) -> None:
        self.key = VerifierKey(name, SignatureType.ED25519, signing_key.public)
        self._signing_key = signing_key

    @property
    def verifier(self) -> Ed25519Verifier:
        """What verifies these signatures."""
        return Ed25519Verifier(self.key)

    def sign(self, text: str) -> bytes:
        return self._signing_key.sign(text.encode())


@dataclass(frozen=True, slots=True)
class UnverifiedNote:
    """A well-formed note of which nothing is to be believed."""

    raw: bytes
    untrusted_text: str
    signatures: tuple[NoteSignature, ...]


@dataclass(frozen=True, slots=True)
class VerifiedNote:
    """A note signed by at least one known key; made by :func:`open_note`.

    Attributes:
        raw: the bytes as they came.
        signatures: by known keys, verified, without repetitions.
        unverified: by unknown keys, without repetitions.
    """

    raw: bytes
    text: str
    signatures: tuple[NoteSignature, ...]
    unverified: tuple[NoteSignature, ...]


def parse_note(raw: bytes) -> UnverifiedNote:
    """Parse a signed note without verifying anything.

    Raises:
        MalformedError: not a signed note, or beyond the caps.
    """
    if len(raw) > MAX_NOTE_BYTES:
        raise MalformedError(f"expected at most {MAX_NOTE_BYTES} bytes, got {len(raw)}", field="note")
    content = _decode_text(raw)
    text, separator, lines = content.rpartition("\n\n")
    if not separator:
        raise MalformedError("expected text, an empty line and signature lines, got no empty line", field="note")
    return UnverifiedNote(raw, f"{text}\n", _parse_lines(lines))


def parse_signature_lines(raw: bytes) -> tuple[NoteSignature, ...]:
    """Parse signature lines alone, as a witness returns them.

    Raises:
        MalformedError: not one or more signature lines, or beyond the caps.
    """
    if len(raw) > MAX_NOTE_BYTES:
        raise MalformedError(f"expected at most {MAX_NOTE_BYTES} bytes, got {len(raw)}", field="note.signatures")
    return _parse_lines(_decode_text(raw))


def open_note(raw: bytes, verifiers: Iterable[NoteVerifier]) -> VerifiedNote:
    """Parse a signed note and verify every signature by a known key.

    Raises:
        MalformedError: not a signed note, or beyond the caps.
        SignatureError: a signature by a known key does not verify, or there is none by a known key.
        KeyRejectedError: two verifiers have the same name and key id.
    """
    known: dict[tuple[str, bytes], NoteVerifier] = {}
    for verifier in verifiers:
        if known.setdefault((verifier.key.name, verifier.key.key_id), verifier) is not verifier:
            raise KeyRejectedError(f"two verifiers have the name and key id of {_shown(str(verifier.key))}")
    note = parse_note(raw)
    verified: dict[NoteSignature, None] = {}
    unverified: dict[NoteSignature, None] = {}
    for signature in dict.fromkeys(note.signatures):
        known_verifier = known.get((signature.name, signature.key_id))
        if known_verifier is None:
            unverified[signature] = None
        else:
            known_verifier.verify(note.untrusted_text, signature.signature)
            verified[signature] = None
    if not verified:
        names = ", ".join(sorted({name for name, _ in known})) or "nobody"
        raise SignatureError(f"expected a signature by a known key of {names}, got none in the note")
    return VerifiedNote(raw, note.untrusted_text, tuple(verified), tuple(unverified))


def sign_note(text: str, signers: Sequence[NoteSigner]) -> bytes:
    """A note of ``text`` with one signature line for each signer, in their order.

    Raises:
        MalformedError: the text does not end in a newline or holds control characters, the note is beyond the
            caps, there is no signer, or one twice.
    """
    if not text.endswith("\n") or _CONTROL.search(text):
        raise MalformedError("expected text that ends in a newline, without control characters", field="note")
    signatures = [NoteSignature(each.key.name, each.key.key_id, each.sign(text)) for each in signers]
    if len(set(signatures)) != len(signatures):
        raise MalformedError("expected each signer once", field="note.signatures")
    return _checked(f"{text}\n{''.join(each.line() for each in signatures)}")


def append_signatures(raw: bytes, signatures: Iterable[NoteSignature]) -> bytes:
    """The note with signature lines added that it does not have yet; what is there stays as it is.

    Raises:
        MalformedError: not a signed note, or the result would be beyond the caps.
    """
    present = dict.fromkeys(parse_note(raw).signatures)
    added = [each.line() for each in dict.fromkeys(signatures) if each not in present]
    return _checked(raw.decode() + "".join(added))


def decode_base64(text: str, *, field: str) -> bytes:
    """Decode standard base64 (RFC 4648, section 4) in its one canonical form.

    Raises:
        MalformedError: anything else: spaces, missing padding, stray bits in the last character.
    """
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except ValueError:  # binascii.Error and UnicodeEncodeError are both of this kind
        raise MalformedError(f"expected base64, got {_shown(text)}", field=field) from None
    if base64.b64encode(raw).decode() != text:
        raise MalformedError(f"expected canonical base64, got {_shown(text)}", field=field)
    return raw


def _checked(content: str) -> bytes:
    raw = content.encode()
    parse_note(raw)
    return raw


def _decode_text(raw: bytes) -> str:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedError(f"expected UTF-8, got a bad byte at {error.start}", field="note") from None
    control = _CONTROL.search(text)
    if control:
        raise MalformedError(f"expected no control characters, got U+{ord(control[0]):04X}", field="note")
    if text.count("\n") > MAX_LINES:
        raise MalformedError(f"expected at most {MAX_LINES} lines, got {text.count(chr(10))}", field="note")
    return text


def _parse_lines(text: str) -> tuple[NoteSignature, ...]:
    if not text.endswith("\n"):
        raise MalformedError("expected signature lines that end in a newline", field="note.signatures")
    lines = text[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise MalformedError(f"expected at most {MAX_SIGNATURES} signatures, got {len(lines)}", field="note.signatures")
    return tuple(_parse_line(line, f"note.signatures[{number}]") for number, line in enumerate(lines))


def _parse_line(line: str, where: str) -> NoteSignature:
    parts = line.removeprefix(_EM_DASH).split(" ")
    if not line.startswith(_EM_DASH) or len(parts) != 2:
        raise MalformedError(f"expected em dash, name and base64, got {_shown(line)}", field=where)
    name, encoded = parts
    _check_name(name, field=where)
    material = decode_base64(encoded, field=where)
    if len(material) <= _KEY_ID_BYTES:
        raise MalformedError(f"expected a key id and a signature, got {len(material)} bytes", field=where)
    return NoteSignature(name, material[:_KEY_ID_BYTES], material[_KEY_ID_BYTES:])


def _check_name(name: str, *, field: str = "name") -> None:
    if not name or "+" in name or any(each.isspace() for each in name) or _CONTROL.search(name):
        raise MalformedError(
            f"expected a key name without spaces, plus signs and control characters, got {_shown(name)}",
            field=field,
        )
    if len(name.encode()) > MAX_NAME_BYTES:
        raise MalformedError(f"expected a key name of at most {MAX_NAME_BYTES} bytes, got {_shown(name)}", field=field)


def _shown(text: str) -> str:
    return repr(text) if len(text) <= 80 else f"{text[:80]!r}…"

"""Signed envelopes: DSSE v1 with Ed25519, held to one encoding.

A signature is over ``PAE(type, payload)``, the pre-authentication encoding of the Dead Simple Signing
Envelope (protocol 1.0.2)::

    PAE(type, payload) = "DSSEv1" SP LEN(type) SP type SP LEN(payload) SP payload

and a statement's id is ``SHA-256(PAE)``. DSSE leaves open how many signatures are enough; here it is settled:

Rules:

- The signatures are by exactly the keys that the payload requires: none missing, none unnamed, none twice.
- They stand in ascending order of the key's bytes, so that an envelope has one encoding.
- Nobody required is an error, not a success.
- All of this is checked before the first, costly, signature check.
- The id covers type and payload. It does not cover the signatures, and no signature is ever an identifier:
  the holder of a key can make many valid ones over the same bytes.

Example::

    >>> from permslip.keys import SigningKey
    >>> key = SigningKey.from_seed(bytes(32))
    >>> pae("text/plain", b"yes")
    b'DSSEv1 10 text/plain 3 yes'
    >>> signatures = sign("text/plain", b"yes", [key])
    >>> verify_signatures("text/plain", b"yes", signatures, [key.public.raw]).hex()[:8]
    'f921c5ad'
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from permslip.errors import MalformedError, SignatureError
from permslip.keys import PublicKey, SigningKey, did_text
from permslip.quantities import StatementId

__all__ = ["MAX_SIGNERS", "SignedCache", "pae", "sign", "statement_id", "verify_signatures"]

MAX_SIGNERS: Final = 32


def pae(payload_type: str, payload: bytes) -> bytes:
    """The bytes that are signed: DSSE v1 pre-authentication encoding.

    Raises:
        MalformedError: ``payload_type`` cannot be written as UTF-8.
    """
    try:
        encoded_type = payload_type.encode()
    except UnicodeEncodeError:
        raise MalformedError("expected text that UTF-8 can carry.", field="payload_type") from None
    return b"DSSEv1 %d %b %d %b" % (len(encoded_type), encoded_type, len(payload), payload)


def statement_id(payload_type: str, payload: bytes) -> StatementId:
    """SHA-256 over :func:`pae`: what grants, queries and ledger entries name one another by."""
    return StatementId(sha256(pae(payload_type, payload)).digest())


def sign(payload_type: str, payload: bytes, keys: Sequence[SigningKey]) -> list[tuple[bytes, bytes]]:
    """Sign with each key; returns ``(public key, signature)`` in the order an envelope must have.

    Raises:
        SignatureError: no key, too many, or one twice.
    """
    _check_signers([key.public.raw for key in keys], "signing")
    message = pae(payload_type, payload)
    return [(key.public.raw, key.sign(message)) for key in sorted(keys, key=lambda key: key.public.raw)]


class SignedCache:
    """Remembers what has been verified: a statement seen again costs a hash and not a signature check.

    An entry says only: «this key signed the statement with this id, *by these very signature bytes*». It is
    looked up by SHA-256 of id, key and signature together. Were it looked up by id and key alone, an envelope
    whose signature had been replaced by garbage would pass after the genuine one had been seen, be stored and
    logged, and fail in an auditor's replay. Nothing else is remembered: neither quorum, time, endorsement nor
    revocation, and no failure.

    It never holds more than ``max_entries`` of about 100 bytes (two at the least). It keeps two generations:
    when the younger is full, the older is forgotten and the younger becomes the older; an entry that is used
    moves to the younger. It can be shared between threads: a race can at worst forget an entry.

    Args:
        max_entries: how many signatures may be remembered.
    """

    __slots__ = ("_old", "_per_generation", "_young")

    def __init__(self, max_entries: int) -> None:
        self._per_generation = max(1, max_entries // 2)
        self._young: set[bytes] = set()
        self._old: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._young | self._old)

    def verify(self, identifier: StatementId, message: bytes, key: PublicKey, signature: bytes) -> None:
        """:meth:`permslip.keys.PublicKey.verify`, unless the same has been verified before.

        Args:
            identifier: SHA-256 of ``message``; the caller computed it from these bytes.
            message: the pre-authentication encoding.
            key: the signer.
            signature: as received.

        Raises:
            SignatureError: as :meth:`permslip.keys.PublicKey.verify`.
        """
        entry = sha256(b"%b%b%b" % (identifier, key.raw, signature)).digest()
        if entry in self._young:
            return
        if entry not in self._old:
            key.verify(message, signature)
        if len(self._young) >= self._per_generation:
            self._old, self._young = self._young, set()
        self._young.add(entry)


def verify_signatures(
    payload_type: str,
    payload: bytes,
    signatures: Sequence[tuple[bytes, bytes]],
    required: Sequence[bytes],
    *,
    cache: SignedCache | None = None,
) -> StatementId:
    """Check that exactly the required keys signed; returns the id of what they signed.

    Args:
        payload_type: the envelope's type.
        payload: the envelope's payload, as received.
        signatures: ``(public key, signature)`` pairs, as received.
        required: the public keys that must sign, as the payload names them; in any order.
        cache: what has been verified before, if anything is to be remembered.

    Raises:
        SignatureError: a signature is missing, unnamed, duplicate, out of order or invalid, or nobody is
            required.
        KeyRejectedError: a required key must not be used.
    """
    # (1) who must sign
    _check_signers(required, "required")
    # (2) exactly those, each once, in order
    if [key for key, _ in signatures] != sorted(required):
        raise _mismatch([key for key, _ in signatures], required)
    # (3) every signature holds
    message = pae(payload_type, payload)
    identifier = StatementId(sha256(message).digest())
    for raw, signature in signatures:
        key = PublicKey.parse(raw, field="signatures.key")
        if cache is None:
            key.verify(message, signature)
        else:
            cache.verify(identifier, message, key, signature)
    return identifier


def _check_signers(keys: Sequence[bytes], role: str) -> None:
    if not 1 <= len(keys) <= MAX_SIGNERS:
        raise SignatureError(f"expected 1 to {MAX_SIGNERS} {role} keys, got {len(keys)}.")
    if len(set(keys)) != len(keys):
        raise SignatureError(f"duplicate: {_name(_first_repeated(keys))} stands twice among the {role} keys.")


def _mismatch(given: Sequence[bytes], required: Sequence[bytes]) -> SignatureError:
    if len(given) > MAX_SIGNERS:
        return SignatureError(f"expected {len(required)} signatures, got {len(given)}.")
    if unnamed := sorted(set(given) - set(required)):
        return SignatureError(f"unnamed: {_name(unnamed[0])} signed, but the payload does not name it.")
    if len(set(given)) != len(given):
        return SignatureError(f"duplicate: {_name(_first_repeated(given))} signed more than once.")
    if missing := sorted(set(required) - set(given)):
        return SignatureError(f"missing: no signature by {_name(missing[0])}, which the payload names.")
    return SignatureError("out of order: signatures must stand in ascending order of the key's bytes.")


def _first_repeated(keys: Sequence[bytes]) -> bytes:
    return next(key for number, key in enumerate(keys) if key in keys[:number])


def _name(raw: bytes) -> str:
    return did_text(raw) if len(raw) == 32 else f"a key of {len(raw)} bytes"

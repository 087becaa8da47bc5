"""Checkpoints: a log's signed size and root, its witnesses' cosignatures, and what a witness may accept next.

By c2sp.org/tlog-checkpoint, tlog-cosignature (Ed25519, ``cosignature/v1``) and tlog-witness. The text of a
checkpoint's note (:mod:`permslip.notes`) is the log's origin, its tree's size and root
(:mod:`permslip.merkle`)::

    example.com/behind-the-sofa
    20852163
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

Rules:

* A checkpoint is believed only from :func:`open_checkpoint` or :func:`verify_cosigned`, which return a
  :class:`VerifiedCheckpoint`. The origin must be the log key's name, unless another is expected by name.
* A quorum counts public keys, never names, signatures or lines: an Ed25519 cosignature does not commit to
  its signer's name, so one key under two names is one witness. The log's own key is no witness. ``k`` is more
  than half of the set, so that any two quorums share a witness.
* A witness cosigns only after :func:`check_update` against the last checkpoint it cosigned; reading that,
  checking and storing the new one are one transaction of the caller's.
* Cosignature times are POSIX seconds, as the format has it.

Example:
    >>> from permslip.keys import SigningKey
    >>> from permslip.merkle import empty_root
    >>> from permslip.notes import Ed25519Signer, append_signatures
    >>> log = Ed25519Signer("broker.example/ledger", SigningKey.from_seed(bytes(32)))
    >>> witness = CosignatureSigner("node.example", SigningKey.generate(), timestamp=1800000000)
    >>> raw = sign_checkpoint(Checkpoint("broker.example/ledger", 0, empty_root()), [log])
    >>> line = cosign(open_checkpoint(raw, log.verifier), witness)
    >>> raw = append_signatures(raw, [line])
    >>> verify_cosigned(raw, log.verifier, [witness.verifier], 1).cosignatures[0].timestamp
    1800000000
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from permslip.errors import ConfigurationError, MalformedError, ProofError, SignatureError
from permslip.keys import SIGNATURE_BYTES, SigningKey
from permslip.merkle import HASH_BYTES, MAX_SIZE, empty_root, verify_consistency
from permslip.notes import (
    NoteSignature,
    NoteSigner,
    NoteVerifier,
    SignatureType,
    VerifiedNote,
    VerifierKey,
    decode_base64,
    open_note,
    sign_note,
)

__all__ = [
    "MAX_EXTENSIONS",
    "MAX_ORIGIN_BYTES",
    "Checkpoint",
    "Cosignature",
    "CosignatureSigner",
    "CosignatureVerifier",
    "UpdateOutcome",
    "UpdateRefusedError",
    "VerifiedCheckpoint",
    "check_update",
    "cosign",
    "open_checkpoint",
    "sign_checkpoint",
    "verify_cosigned",
]

MAX_ORIGIN_BYTES = 255
MAX_EXTENSIONS = 100

_TIMESTAMP_BYTES = 8
_DECIMAL = re.compile("0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log's size and root, as a claim: whether it is signed is another type's business.

    Args:
        origin: the log's name.
        size: leaves in the tree.
        root: 32 bytes.
        extensions: further lines, opaque, not empty; this product writes none.

    Raises:
        MalformedError: a field is not what the format can carry.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_line(self.origin, "checkpoint.origin")
        if len(self.origin.encode()) > MAX_ORIGIN_BYTES:
            raise MalformedError(f"expected at most {MAX_ORIGIN_BYTES} bytes", field="checkpoint.origin")
        if not 0 <= self.size <= MAX_SIZE:
            raise MalformedError(f"expected 0 to {MAX_SIZE}, got {self.size}", field="checkpoint.size")
        if len(self.root) != HASH_BYTES:
            raise MalformedError(f"expected {HASH_BYTES} bytes, got {len(self.root)}", field="checkpoint.root")
        if len(self.extensions) > MAX_EXTENSIONS:
            raise MalformedError(
                f"expected at most {MAX_EXTENSIONS} lines, got {len(self.extensions)}",
                field="checkpoint.extensions",
            )
        for number, line in enumerate(self.extensions):
            _check_line(line, f"checkpoint.extensions[{number}]")

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Parse a checkpoint's note text.

        Raises:
            MalformedError: not the text of a checkpoint in its one form.
        """
        lines = text.split("\n")
        if len(lines) < 4 or lines.pop() != "":
            raise MalformedError("expected lines of origin, size and root, each ended by a newline", field="checkpoint")
        origin, size, root, *extensions = lines
        if not _DECIMAL.fullmatch(size):
            raise MalformedError("expected a decimal number without leading zeroes", field="checkpoint.size")
        return cls(origin, int(size), decode_base64(root, field="checkpoint.root"), tuple(extensions))

    def text(self) -> str:
        """The note text; what is signed."""
        root = base64.b64encode(self.root).decode()
        return "".join(f"{line}\n" for line in (self.origin, str(self.size), root, *self.extensions))


@dataclass(frozen=True, slots=True)
class CosignatureVerifier:
    """Checks timestamped Ed25519 cosignatures of checkpoints (tlog-cosignature, type 0x04).

    Raises:
        KeyRejectedError: the key is of another type.
    """

    key: VerifierKey

    def __post_init__(self) -> None:
        self.key.expect_type(SignatureType.COSIGNATURE_V1)

    def verify(self, text: str, signature: bytes) -> None:
        """Verify over a checkpoint's text.

        Raises:
            MalformedError: the text is no checkpoint.
            SignatureError: not a timestamp and signature by this key over this checkpoint.
        """
        Checkpoint.parse(text)
        self.key.public.verify(_cosigned_message(text, _timestamp(signature)), signature[_TIMESTAMP_BYTES:])


class CosignatureSigner:
    """Cosigns checkpoints under a witness's name, as of one time.

    Args:
        timestamp: POSIX seconds, when the witness knew of no larger tree of this log.

    Raises:
        MalformedError: the name cannot stand in a note, or the time is not from 1 to 2**63 - 1.
    """

    def __init__(self, name: str, signing_key: SigningKey, *, timestamp: int) -> None:
        if not 0 < timestamp <= MAX_SIZE:
            raise MalformedError(f"expected POSIX seconds from 1 to {MAX_SIZE}, got {timestamp}", field="timestamp")
        self.key = VerifierKey(name, SignatureType.COSIGNATURE_V1, signing_key.public)
        self._signing_key = signing_key
        self._timestamp = timestamp

    @property
    def verifier(self) -> CosignatureVerifier:
        """What verifies these cosignatures."""
        return CosignatureVerifier(self.key)

    def sign(self, text: str) -> bytes:
        """Timestamp and signature over a checkpoint's text.

        Raises:
            MalformedError: the text is no checkpoint.
        """
        Checkpoint.parse(text)
        signature = self._signing_key.sign(_cosigned_message(text, self._timestamp))
        return self._timestamp.to_bytes(_TIMESTAMP_BYTES, "big") + signature


@dataclass(frozen=True, slots=True)
class Cosignature:
    """A verified cosignature: which witness saw no larger tree of the log, and when (POSIX seconds)."""

    witness: VerifierKey
    timestamp: int


@dataclass(frozen=True, slots=True)
class VerifiedCheckpoint:
    """A checkpoint whose log's signature holds, with cosignatures by the witnesses that were asked for."""

    checkpoint: Checkpoint
    note: VerifiedNote
    cosignatures: tuple[Cosignature, ...] = ()


def sign_checkpoint(checkpoint: Checkpoint, signers: Sequence[NoteSigner]) -> bytes:
    """The checkpoint as a signed note. A log must never sign two that are not consistent."""
    return sign_note(checkpoint.text(), signers)


def open_checkpoint(raw: bytes, log: NoteVerifier, *, origin: str | None = None) -> VerifiedCheckpoint:
    """Verify the log's own signature on a checkpoint; cosignatures are ignored.

    Args:
        origin: the expected origin; the log key's name if not given.

    Raises:
        MalformedError: not a signed checkpoint.
        SignatureError: not signed by the log's key.
        ProofError: a checkpoint of another log.
    """
    return _opened(open_note(raw, [log]), log, origin)


def cosign(verified: VerifiedCheckpoint, signer: CosignatureSigner) -> NoteSignature:
    """A witness's cosignature; only after :func:`check_update` accepted the checkpoint."""
    return NoteSignature(signer.key.name, signer.key.key_id, signer.sign(verified.note.text))


def verify_cosigned(
    raw: bytes,
    log: NoteVerifier,
    witnesses: Sequence[CosignatureVerifier],
    k: int,
    *,
    origin: str | None = None,
) -> VerifiedCheckpoint:
    """Verify a checkpoint that at least ``k`` of the pinned witnesses cosigned.

    One false signature by a known key refuses the whole note, so whoever collects cosignatures verifies each
    before adding it.

    Returns:
        the checkpoint with one cosignature, the latest, for each witness that gave one, in the set's order.

    Raises:
        ConfigurationError: the set is unfit: a public key twice, the log's key in it, or not n/2 < k <= n.
        MalformedError: not a signed checkpoint.
        SignatureError: a known key's signature does not hold, or the log's is missing.
        ProofError: a checkpoint of another log, or fewer than ``k`` cosignatures.
    """
    publics = {witness.key.public for witness in witnesses}
    if len(publics) != len(witnesses) or log.key.public in publics:
        raise ConfigurationError(
            "expected each witness to have a public key of its own, and not the log's", key="witnesses"
        )
    if not len(witnesses) < 2 * k <= 2 * len(witnesses):
        raise ConfigurationError(
            f"expected k above half of {len(witnesses)} witnesses and at most all, got {k}", key="witnesses"
        )
    note = open_note(raw, [log, *witnesses])
    opened = _opened(note, log, origin)
    cosignatures: list[Cosignature] = []
    for witness in witnesses:
        times = [_timestamp(each.signature) for each in note.signatures if each.is_by(witness.key)]
        if times:
            cosignatures.append(Cosignature(witness.key, max(times)))
    if len(cosignatures) < k:
        raise ProofError(
            f"expected cosignatures by {k} of {len(witnesses)} witnesses on {_described(opened.checkpoint)}, "
            f"got {len(cosignatures)}"
        )
    return VerifiedCheckpoint(opened.checkpoint, note, tuple(cosignatures))


class UpdateOutcome(Enum):
    """What a checkpoint is to a witness that knows an earlier one. The first three may be cosigned."""

    FIRST = "no earlier checkpoint of this log was known"
    SAME = "same size, same root"
    GROWN = "proved an extension of the earlier one"
    FORK = "same size, different root"
    ROLLBACK = "smaller than the earlier one"
    INCONSISTENT = "not proved an extension of the earlier one"
    OTHER_LOG = "another origin"

    @property
    def may_be_cosigned(self) -> bool:
        """Whether a witness may cosign."""
        return self in {UpdateOutcome.FIRST, UpdateOutcome.SAME, UpdateOutcome.GROWN}


class UpdateRefusedError(ProofError):
    """A checkpoint must not follow the known one; holds both, which with their notes are the evidence."""

    def __init__(self, message: str, outcome: UpdateOutcome, old: Checkpoint | None, new: Checkpoint) -> None:
        super().__init__(message, remedy="Keep both signed checkpoints and alert the log's operator and auditors.")
        self.outcome = outcome
        self.old = old
        self.new = new


def check_update(old: Checkpoint | None, new: Checkpoint, proof: Sequence[bytes]) -> UpdateOutcome:
    """The rules of tlog-witness's add-checkpoint, in its order, after ``new``'s signature was verified.

    Args:
        old: the last checkpoint that was cosigned for this log; None if there was none.
        proof: consistency proof from ``old`` to ``new``; empty without ``old`` or for equal sizes.

    Returns:
        FIRST, SAME or GROWN.

    Raises:
        UpdateRefusedError: with its outcome FORK, ROLLBACK, INCONSISTENT or OTHER_LOG.
    """
    known = old or Checkpoint(new.origin, 0, empty_root())

    def refused(outcome: UpdateOutcome, why: str) -> UpdateRefusedError:
        message = f"{_described(new)} after {_described(known)} is {why}"
        return UpdateRefusedError(message, outcome, old, new)

    # (1) The checkpoint is of the log that the known one is of.
    if new.origin != known.origin:
        raise refused(UpdateOutcome.OTHER_LOG, "of another log")
    # (2) The old size is at most the new one.
    if new.size < known.size:
        raise refused(UpdateOutcome.ROLLBACK, "a rollback: expected no smaller size")
    # (3) Equal sizes have equal roots.
    if old is not None and new.size == old.size and new.root != old.root:
        raise refused(UpdateOutcome.FORK, "a fork: two roots at one size")
    # (4) A tree of size zero has the empty root; from it, the proof is empty; else a consistency proof holds.
    try:
        verify_consistency(known.size, new.size, known.root, new.root, proof)
    except ProofError as error:
        raise refused(UpdateOutcome.INCONSISTENT, f"not proved consistent: {error.message}") from error
    if old is None:
        return UpdateOutcome.FIRST
    return UpdateOutcome.SAME if new.size == known.size else UpdateOutcome.GROWN


def _described(checkpoint: Checkpoint) -> str:
    return f"{checkpoint.origin} at size {checkpoint.size} with root {checkpoint.root.hex()}"


def _opened(note: VerifiedNote, log: NoteVerifier, origin: str | None) -> VerifiedCheckpoint:
    if not any(each.is_by(log.key) for each in note.signatures):
        raise SignatureError(f"expected a signature by the log {log.key.name}, got none in the checkpoint")
    checkpoint = Checkpoint.parse(note.text)
    expected = log.key.name if origin is None else origin
    if checkpoint.origin != expected:
        raise ProofError(f"expected a checkpoint of {expected}, got one of {checkpoint.origin}")
    return VerifiedCheckpoint(checkpoint, note)


def _cosigned_message(text: str, timestamp: int) -> bytes:
    return f"cosignature/v1\ntime {timestamp}\n{text}".encode()


def _timestamp(signature: bytes) -> int:
    timestamp = int.from_bytes(signature[:_TIMESTAMP_BYTES], "big")
    if len(signature) != _TIMESTAMP_BYTES + SIGNATURE_BYTES or not 0 < timestamp <= MAX_SIZE:
        raise SignatureError(
            f"expected a cosignature of {_TIMESTAMP_BYTES} + {SIGNATURE_BYTES} bytes with a time from 1 to "
            f"{MAX_SIZE}, got {len(signature)} bytes with time {timestamp}"
        )
    return timestamp


def _check_line(line: str, where: str) -> None:
    if not line or any(ord(each) < 0x20 or 0xD800 <= ord(each) < 0xE000 for each in line):
        raise MalformedError("expected a line that is not empty, without control characters", field=where)

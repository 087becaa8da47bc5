"""Who cosigned a checkpoint: one reading of its note for fetching and for verifying.

Rules:

- The log's own signature must hold, and every line by a key that is known here; lines by others count for nothing.
- With a pinned witness set its quorum must have cosigned (:mod:`permslip.witnesses`).

Example::

    log = Ed25519Verifier(key)
    names = cosigners(note, log, [witness_key(federation, root, cert.signing_key)])
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from permslip.checkpoints import CosignatureVerifier, open_checkpoint, verify_cosigned
from permslip.errors import KeyRejectedError, ProofError, SignatureError
from permslip.notes import NoteVerifier, VerifierKey, parse_note

__all__ = ["cosigners"]


def cosigners(note: bytes, log: NoteVerifier, keys: Iterable[VerifierKey]) -> list[dict[str, Any]]:
    """Name, verifier key and POSIX time of each cosignature by one of these keys, in the order of the note's lines.

    Args:
        note: the signed checkpoint.
        log: verifies the log's own signature.
        keys: of whoever may have cosigned.

    Raises:
        MalformedError: not a signed checkpoint.
        SignatureError: the log's signature or a cosignature does not hold.
        ProofError: a checkpoint of another log.
    """
    open_checkpoint(note, log)
    lines = parse_note(note).signatures
    known = {str(key): key for key in keys}.values()
    given = {str(key): key for line in lines for key in known if line.is_by(key)}
    found = []
    for key in given.values():
        try:
            verified = verify_cosigned(note, log, [CosignatureVerifier(key)], 1)
        except (KeyRejectedError, ProofError) as error:
            raise SignatureError(f"the cosignature of {key.name} does not count: {error.message}") from error
        found += [{"name": key.name, "vkey": str(key), "timestamp": each.timestamp} for each in verified.cosignatures]
    return found

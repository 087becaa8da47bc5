"""Who cosigned a checkpoint: one reading of its note for fetching and for verifying.

Rules:

- The log's own signature must hold, and every line by a key that is known here; lines by others count for nothing.
- With a pinned witness set its quorum must have cosigned (:mod:`permslip.witnesses`).
- They must have done so lately: a broker that shows an auditor the checkpoint of last month hides what came since, and
  nothing in it is false. A broker has an idle ledger cosigned anew whenever an auditor asks.

Example::

    log = Ed25519Verifier(key)
    names = cosigners(note, log, [witness_key(federation, root, cert.signing_key)])
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from permslip.checkpoints import Cosignature, CosignatureVerifier, open_checkpoint, verify_cosigned
from permslip.errors import KeyRejectedError, ProofError, SignatureError
from permslip.notes import NoteVerifier, VerifierKey, parse_note

__all__ = ["cosigners", "too_old"]

# Milliseconds by which a quorum's cosignatures may be older than the fetch of their checkpoint.
_OLDEST: Final = 10 * 60_000


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


def too_old(cosignatures: Iterable[Cosignature], quorum: int, fetched_at: int) -> str | None:
    """What to say of a checkpoint that a quorum has not cosigned lately; None where it has.

    Args:
        cosignatures: verified, by witnesses of the pinned set; a quorum at least.
        quorum: how many must have cosigned lately.
        fetched_at: by the auditor's clock, UTC milliseconds.
    """
    newest = sorted((1_000 * each.timestamp for each in cosignatures), reverse=True)
    age = fetched_at - newest[quorum - 1]
    if age <= _OLDEST:
        return None
    return (
        f"a quorum cosigned it {age // 60_000} minutes before it was fetched: what the ledger holds since is not known."
        " Fetch again when enough witnesses are connected to the broker; if that does not help, ask them what they"
        " cosigned last."
    )

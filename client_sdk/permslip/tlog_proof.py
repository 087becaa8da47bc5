"""C2SP tlog-proof files: one entry of a log, proved to be in it by what the file holds, without asking anybody.

By c2sp.org/tlog-proof. A file holds the entry's index, the hashes that lead from it to the root, and a checkpoint that
the log signed and witnesses may have cosigned (:mod:`permslip.checkpoints`)::

    c2sp.org/tlog-proof@v1
    extra AAECAw==
    index 1
    47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=

    example.com/log
    2
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

    — example.com/log 2F9odJF4B60nN+KXsNjYgS9sSoWcQNFQdRqKnQq5…

Rules:

* One form, so that :meth:`TlogProof.parse` and :meth:`TlogProof.raw` are each other's inverse; anything else is
  refused.
* ``extra`` is, in this product, the entry's very bytes: whoever has the file computes the leaf's hash from them.
  Nothing signs ``extra`` itself: the bytes are believed because their hash leads to the signed root. Where an entry is
  another person's business there is no ``extra``, and its hash must be known from elsewhere.
* What is in the file says nothing until :func:`verify_proof` has returned.
* Caps: 64 hashes; ``extra`` as large as a leaf can be; the checkpoint as large as a note.

Example:
    >>> from permslip.checkpoints import Checkpoint, sign_checkpoint
    >>> from permslip.keys import SigningKey
    >>> from permslip.merkle import MemoryHashes, inclusion_proof, leaf_hash, root_at
    >>> from permslip.notes import Ed25519Signer
    >>> tree = MemoryHashes.of_leaves([leaf_hash(b"asked"), leaf_hash(b"answered")])
    >>> log = Ed25519Signer("school.example/log", SigningKey.from_seed(bytes(32)))
    >>> note = sign_checkpoint(Checkpoint("school.example/log", 2, root_at(tree, 2)), [log])
    >>> proof = TlogProof(1, tuple(inclusion_proof(tree, 1, 2)), note, b"answered")
    >>> verify_proof(TlogProof.parse(proof.raw()), log.verifier).checkpoint.size
    2
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass

from permslip.checkpoints import VerifiedCheckpoint, open_checkpoint
from permslip.errors import MalformedError, ProofError
from permslip.merkle import HASH_BYTES, MAX_PROOF_HASHES, MAX_SIZE, leaf_hash as hash_of_leaf, verify_inclusion
from permslip.notes import MAX_NOTE_BYTES, NoteVerifier, decode_base64, parse_note
from permslip.witnesses import WitnessPolicy

__all__ = ["MAX_EXTRA_BYTES", "MAX_PROOF_BYTES", "SUFFIX", "TlogProof", "verify_proof"]

SUFFIX = ".tlog-proof"
MAX_EXTRA_BYTES = 65_536
MAX_PROOF_BYTES = MAX_NOTE_BYTES + 2 * MAX_EXTRA_BYTES

_FIRST_LINE = "c2sp.org/tlog-proof@v1"
_INDEX = re.compile("0|[1-9][0-9]{0,18}")
_ORIGIN_LINE = re.compile("[^\x00-\x1f\ud800-\udfff]+")


@dataclass(frozen=True, slots=True)
class TlogProof:
    """One proof, as a claim.

    Args:
        index: of the entry in the log, from 0.
        hashes: from the leaf's sibling up to the root's child, 32 bytes each.
        checkpoint: the signed note, verbatim.
        extra: the entry's bytes; None where the file does not hold them.

    Raises:
        MalformedError: a field is not what the format can carry.
    """

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.index < MAX_SIZE:
            raise MalformedError(f"expected 0 to {MAX_SIZE - 1}, got {self.index}.", field="proof.index")
        if len(self.hashes) > MAX_PROOF_HASHES:
            raise MalformedError(
                f"expected at most {MAX_PROOF_HASHES} hashes, got {len(self.hashes)}.", field="proof.hashes"
            )
        for number, each in enumerate(self.hashes):
            if len(each) != HASH_BYTES:
                raise MalformedError(f"expected {HASH_BYTES} bytes, got {len(each)}.", field=f"proof.hashes[{number}]")
        if self.extra is not None and not 0 < len(self.extra) <= MAX_EXTRA_BYTES:
            raise MalformedError(f"expected 1 to {MAX_EXTRA_BYTES} bytes, got {len(self.extra)}.", field="proof.extra")
        parse_note(self.checkpoint)

    @classmethod
    def parse(cls, raw: bytes) -> TlogProof:
        """Parse a file's bytes; nothing is verified.

        Raises:
            MalformedError: not a proof in its one form, or beyond the caps.
        """
        if len(raw) > MAX_PROOF_BYTES:
            raise MalformedError(f"expected at most {MAX_PROOF_BYTES} bytes, got {len(raw)}.", field="proof")
        # The first empty line ends the proof; what follows it is the checkpoint, verbatim.
        head, separator, checkpoint = raw.partition(b"\n\n")
        if not separator:
            raise MalformedError("expected an empty line before the checkpoint.", field="proof")
        try:
            lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError:
            raise MalformedError("expected ASCII lines before the checkpoint.", field="proof") from None
        # (1) The first line names the format.
        if lines.pop(0) != _FIRST_LINE:
            raise MalformedError(f"expected the first line {_FIRST_LINE!r}.", field="proof")
        # (2) The second may hold extra data in base64; without any, there is no such line.
        extra = None
        if lines and lines[0].startswith("extra "):
            encoded = lines.pop(0).removeprefix("extra ")
            if len(encoded) > 2 * MAX_EXTRA_BYTES:
                raise MalformedError(f"expected at most {MAX_EXTRA_BYTES} bytes.", field="proof.extra")
            extra = decode_base64(encoded, field="proof.extra")
        # (3) The next holds the index, zero-based, in decimal without leading zeroes.
        if not lines or not lines[0].startswith("index "):
            raise MalformedError("expected a line with the index.", field="proof.index")
        index = lines.pop(0).removeprefix("index ")
        if not _INDEX.fullmatch(index):
            raise MalformedError("expected a decimal number without leading zeroes.", field="proof.index")
        # (4) Each of the rest holds one hash of the inclusion proof, from the leaf's sibling up.
        if len(lines) > MAX_PROOF_HASHES:
            raise MalformedError(f"expected at most {MAX_PROOF_HASHES} hashes, got {len(lines)}.", field="proof.hashes")
        hashes = tuple(decode_base64(line, field=f"proof.hashes[{number}]") for number, line in enumerate(lines))
        # (5) Behind an empty line stands the checkpoint, verbatim.
        return cls(int(index), hashes, checkpoint, extra)

    @property
    def origin(self) -> str:
        """The log's name, as the unverified checkpoint says it: to find the key by.

        Raises:
            MalformedError: it says none.
        """
        origin = parse_note(self.checkpoint).untrusted_text.split("\n", 1)[0]
        if not _ORIGIN_LINE.fullmatch(origin):
            raise MalformedError("expected a log's name.", field="checkpoint.origin")
        return origin

    def raw(self) -> bytes:
        """The file's bytes."""
        lines = [_FIRST_LINE]
        if self.extra is not None:
            lines.append(f"extra {_text(self.extra)}")
        lines += [f"index {self.index}", *map(_text, self.hashes)]
        return "".join(f"{line}\n" for line in lines).encode() + b"\n" + self.checkpoint


def verify_proof(
    proof: TlogProof,
    log: NoteVerifier,
    *,
    policy: WitnessPolicy | None = None,
    leaf_hash: bytes | None = None,
    origin: str | None = None,
) -> VerifiedCheckpoint:
    """Verify a proof by the steps of the specification, in its order.

    Args:
        proof: as it was parsed.
        log: the log's key, known from elsewhere.
        policy: whose cosignatures count, and how many are needed; None where none are demanded.
        leaf_hash: the entry's hash, for a proof that does not hold the entry; else computed from ``extra``, and
            compared when given.
        origin: the log's expected name; its key's name unless given.

    Returns:
        the checkpoint in which the entry is, with the cosignatures that count.

    Raises:
        ConfigurationError: the set of witnesses is unfit.
        MalformedError: the checkpoint is none.
        SignatureError: the log's key, or that of a witness that is known, did not sign what it seems to have signed.
        ProofError: another log, too few witnesses, or the entry is not in the signed tree.
    """
    # (1) Compute the leaf hash: that of the extra data, which here are the entry's bytes.
    found = None if proof.extra is None else hash_of_leaf(proof.extra)
    if found is None and leaf_hash is None:
        raise ProofError(
            "the proof does not hold the entry that it is about.",
            remedy="Give the entry's hash: it is known from the list that the proof was saved with.",
        )
    if found is not None and leaf_hash is not None and found != leaf_hash:
        raise ProofError("the proof is about another entry than the one whose hash is given.")
    digest = found or leaf_hash or b""
    # (2) The checkpoint's origin is the expected one, and the log's key signed it.
    # (3) Enough of the pinned witnesses cosigned it, where that is demanded.
    if policy is not None:
        opened = policy.verify(proof.checkpoint, log, origin=origin)
    else:
        opened = open_checkpoint(proof.checkpoint, log, origin=origin)
    # (4) The inclusion proof leads from the leaf's hash to the checkpoint's root.
    checkpoint = opened.checkpoint
    verify_inclusion(digest, proof.index, checkpoint.size, list(proof.hashes), checkpoint.root)
    return opened


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")

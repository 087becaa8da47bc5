"""Checks saved proofs without network: each file by itself, and whether a folder's chains are whole.

What is trusted are root keys, pinned elsewhere: the broker's in the settings, the schools' in the wallet, where the
slips put them. ``certificates.txt`` beside the files leads from a root to the key that signed a ledger.

Rules:

- A proof is verified by the steps of the C2SP text (:mod:`permslip.tlog_proof`), and the entry in it must name the very
  ledger whose key signed it.
- Which key signed is found by the checkpoint's own signature lines; one by an unknown root is refused.
- A folder is whole when the numbers of a slice go from 1, without a hole, to what the school's signed ``chain-end``
  says.

Example::

    checker = ProofChecker(read_statements("proofs/certificates.txt"), roots={broker, school}, federation="fed.example")
    checked = checker.check(Path("proofs/2026….tlog-proof"))
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from permslip import statements as st
from permslip._pb.permslip.v1 import ledger_pb2, statement_pb2 as pb
from permslip.client.failures import reason_of_code
from permslip.client.proof_files import EVENT_WORDS
from permslip.errors import AuthorityError, KeyRejectedError, MalformedError, ProofError
from permslip.grant_views import time_text
from permslip.keys import did_text
from permslip.merkle import leaf_hash
from permslip.notes import Ed25519Verifier, parse_note
from permslip.slice_chains import ledger_verifier
from permslip.standing import check_key_cert
from permslip.statements import Signed
from permslip.tlog_proof import MAX_PROOF_BYTES, TlogProof, verify_proof
from permslip.witnesses import WitnessPolicy, witness_policy

__all__ = ["CheckedProof", "ProofChecker", "missing_numbers"]

_HIDDEN: Final = re.compile(r"-hidden-([0-9a-f]{64})\.")


@dataclass(frozen=True, slots=True)
class CheckedProof:
    """A proof that holds.

    Attributes:
        name: of the file.
        ledger: root key of whose ledger the entry is in.
        position, size: where in it, and how many entries the signed ledger has.
        leaf_hash: of the entry.
        entry: what it says; None where the file does not hold it.
        cosignatures: how many witnesses cosigned.
    """

    name: str
    ledger: bytes
    position: int
    size: int
    leaf_hash: bytes
    entry: ledger_pb2.LogEntry | None
    cosignatures: int

    @property
    def text(self) -> str:
        """What it proves, in one line."""
        if self.entry is None:
            return f"an entry that is not shown is entry {self.position} of {self.size}"
        event = self.entry.WhichOneof("event") or ""
        about = getattr(self.entry, event) if event else None
        verdict = f" ({reason_of_code(about.reason).name})" if event.startswith("access_") and about is not None else ""
        words = f"{EVENT_WORDS.get(event, event)}{verdict} on {time_text(self.entry.recorded_at)}"
        number = f", number {self.entry.slice_seq} of its slice" if self.entry.slice_seq else ""
        return f"{words} is entry {self.position} of {self.size}{number}"

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        entry = self.entry
        return {
            "file": self.name,
            "ledger": did_text(self.ledger),
            "position": self.position,
            "ledger_size": self.size,
            "leaf_hash": self.leaf_hash.hex(),
            "event": "" if entry is None else entry.WhichOneof("event") or "",
            "recorded_at": "" if entry is None else time_text(entry.recorded_at),
            "handle": "" if entry is None else entry.slice.handle.hex(),
            "slice_seq": 0 if entry is None else entry.slice_seq,
            "cosignatures": self.cosignatures,
        }


class ProofChecker:
    """Checks proofs by pinned roots.

    Args:
        certificates: as read from the file beside the proofs.
        roots: root keys of the broker and schools that are trusted.
        federation: its name.

    Raises:
        SignatureError: a certificate is not by the root that it names.
        MalformedError: not certificates.
    """

    def __init__(
        self,
        certificates: Sequence[pb.Envelope],
        *,
        roots: Collection[bytes],
        federation: str,
    ) -> None:
        self._federation, self._roots = federation, frozenset(roots)
        self._witnessed = b""
        self._policy: WitnessPolicy | None = None
        self._keys: dict[bytes, list[bytes]] = defaultdict(list)
        self._newest: dict[bytes, pb.KeyCert] = {}
        for envelope in certificates:
            cert = st.verify(st.KEY_CERT, envelope, federation=federation)
            check_key_cert(cert.payload)
            self._keys[cert.payload.root].append(cert.payload.signing_key)
            known = self._newest.setdefault(cert.payload.root, cert.payload)
            if cert.payload.seq > known.seq:
                self._newest[cert.payload.root] = cert.payload

    def demand_witnesses(self, newest: Signed[pb.WitnessSet], *, of: bytes) -> None:
        """From now on, proofs of one ledger must be cosigned by a quorum.

        Args:
            newest: the set of witnesses, believed.
            of: root key of the ledger's keeper, the broker.

        Raises:
            KeyRejectedError: a witness's key must not be used.
        """

        def signing_key(root: bytes) -> bytes | None:
            cert = self._newest.get(root)
            return None if cert is None else bytes(cert.signing_key)

        self._policy, self._witnessed = witness_policy(newest, signing_key=signing_key), of

    def check(self, path: Path) -> CheckedProof:
        """Check one file.

        Raises:
            MalformedError: it cannot be read, or is no proof.
            KeyRejectedError: no trusted root certified the key that signed it.
            VerificationError: it proves nothing.
        """
        proof = TlogProof.parse(_read(path))
        root, verifier = self._signer(proof)
        named = _HIDDEN.search(path.name)
        opened = verify_proof(
            proof,
            verifier,
            policy=self._policy if root == self._witnessed else None,
            leaf_hash=bytes.fromhex(named[1]) if named and proof.extra is None else None,
        )
        entry = None
        if proof.extra is not None:
            entry = st.decode_strictly(ledger_pb2.LogEntry, proof.extra, "ledger.leaf")
            if entry.ledger != root or entry.federation != self._federation:
                raise ProofError("the entry belongs to another ledger than the one that it was signed in.")
        digest = leaf_hash(proof.extra) if proof.extra is not None else bytes.fromhex(named[1] if named else "")
        cosignatures = len(opened.cosignatures)
        return CheckedProof(path.name, root, proof.index, opened.checkpoint.size, digest, entry, cosignatures)

    def check_end(self, envelope: pb.Envelope) -> Signed[pb.ChainEnd]:
        """Believe a school's saved word on where a chain ended.

        Raises:
            SignatureError: not signed by the key that it names.
            AuthorityError: that key is not the school's, or the school is not trusted.
        """
        signed = st.verify(st.CHAIN_END, envelope, federation=self._federation)
        signer = signed.payload.signer
        if signer.root != signed.payload.slice.node or signer.root not in self._roots:
            raise AuthorityError("chain-end: not by the school that holds the slice, or one that is not trusted.")
        if signer.key not in self._keys.get(signer.root, ()):
            raise AuthorityError("chain-end: by a key that no certificate here names.")
        return signed

    def _signer(self, proof: TlogProof) -> tuple[bytes, Ed25519Verifier]:
        signatures = parse_note(proof.checkpoint).signatures
        for root, keys in self._keys.items():
            for key in keys:
                verifier = ledger_verifier(proof.checkpoint, key)
                if not any(each.is_by(verifier.key) for each in signatures):
                    continue
                if root not in self._roots:
                    raise KeyRejectedError(
                        f"signed in the name of {did_text(root)}, which is not among the roots that are trusted here.",
                        remedy="If you know it to be the broker's or the school's, give it with --root.",
                    )
                return root, verifier
        raise KeyRejectedError(
            "no certificate here names the key that signed it.",
            remedy="Keep the file beside the certificates.txt that it was saved with.",
        )


def missing_numbers(ends: Sequence[pb.ChainEnd], proofs: Sequence[CheckedProof]) -> list[tuple[int, ...]]:
    """For each school's word on a chain's end: the numbers of that chain of which no proof was given.

    Args:
        ends: believed, each about another slice.
        proofs: that hold.

    Raises:
        ProofError: two entries contradict one another, or an end.
    """
    hidden = {(each.ledger, each.leaf_hash) for each in proofs if each.entry is None}
    chains = [_Chain(end, proofs) for end in ends]
    # Those whose hash is told by the entry behind them, or by the end; then those that stand behind one another.
    for chain in chains:
        chain.find(hidden)
    return [chain.fill(hidden) for chain in chains]


class _Chain:
    """One slice's chain, as far as the given proofs tell it."""

    def __init__(self, end: pb.ChainEnd, proofs: Sequence[CheckedProof]) -> None:
        self._node = bytes(end.slice.node)
        hashes = {end.slice_seq: bytes(end.leaf_hash)} if end.slice_seq else {}
        shown: set[int] = set()
        for each in proofs:
            entry = each.entry
            if entry is None or each.ledger != self._node or entry.slice != end.slice:
                continue
            shown.add(entry.slice_seq)
            for seq, digest in ((entry.slice_seq, each.leaf_hash), (entry.slice_seq - 1, bytes(entry.slice_prev))):
                if seq and hashes.setdefault(seq, digest) != digest:
                    raise ProofError(f"two entries stand at number {seq} of one slice.")
        self._hashes = hashes
        self._missing = [seq for seq in range(1, end.slice_seq + 1) if seq not in shown]

    def find(self, hidden: set[tuple[bytes, bytes]]) -> None:
        """Take out those that are not shown and whose hash is known."""
        for seq in list(self._missing):
            known = self._node, self._hashes.get(seq, b"")
            if known in hidden:
                hidden.discard(known)
                self._missing.remove(seq)

    def fill(self, hidden: set[tuple[bytes, bytes]]) -> tuple[int, ...]:
        """Take any others of this ledger for those whose hash nothing tells; what is left is missing."""
        for seq in list(self._missing):
            other = next((each for each in hidden if each[0] == self._node), None)
            if seq not in self._hashes and other is not None:
                hidden.discard(other)
                self._missing.remove(seq)
        return tuple(self._missing)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_PROOF_BYTES + 1)
    except OSError as error:
        raise MalformedError(f"cannot be read: {error.strerror}.", field=str(path), remedy="Check the path.") from error

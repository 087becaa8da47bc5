"""One slice's chain, as a ledger tells it: every entry proved to be in the ledger, in its place, and none left out.

Entries about one slice are numbered from 1, and each names the leaf hash of the one before. So who knows the last
number and its hash knows that nothing in between was left out; broker and node each keep such a chain of every slice.

Rules:

- Each entry is proved against the checkpoint that comes with its page: signed by the ledger's keeper, and cosigned by
  enough witnesses where a policy demands it.
- An entry that is not for this reader shows number and hash alone, so that its place is not empty.
- The chain's end is told apart: by the broker beside its first page, by a node in a signed ``ChainEnd`` about the very
  greeting that asked (SPEC.md §8). :meth:`ChainChecker.finish` holds the chain to it.

Example::

    checker = ChainChecker(place, federation=federation, ledger=node_root, key=node_key)
    for page in pages:
        entries += checker.check(page.entries, page.proofs, page.checkpoint.note)
    checker.finish(end.slice_seq, end.leaf_hash)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from permslip import statements as st
from permslip._pb.permslip.v1 import ledger_pb2, statement_pb2 as pb
from permslip.checkpoints import VerifiedCheckpoint, open_checkpoint
from permslip.errors import AuthorityError, MalformedError, ProofError
from permslip.keys import PublicKey
from permslip.merkle import leaf_hash
from permslip.notes import Ed25519Verifier, SignatureType, VerifierKey
from permslip.statements import Signed
from permslip.tlog_proof import TlogProof, verify_proof
from permslip.witnesses import WitnessPolicy

__all__ = ["ChainChecker", "ChainEntry", "chain_context", "check_chain_end", "ledger_verifier"]


def chain_context(hello_id: bytes) -> bytes:
    """What a node's answer about a slice's chain is sealed for (SPEC.md §3.1)."""
    return b"chain-end" + hello_id


def ledger_verifier(note: bytes, key: bytes) -> Ed25519Verifier:
    """What verifies the checkpoints of a ledger: its keeper's key, under the name that the checkpoint gives the ledger.

    The name is the keeper's to choose; whose ledger it is says the key, and each entry.

    Args:
        note: a checkpoint, unverified.
        key: the online key that the keeper's certificate names.

    Raises:
        MalformedError: the checkpoint does not begin with a name, or the key is none.
        KeyRejectedError: the key must not be used.
    """
    try:
        origin = note.split(b"\n", 1)[0].decode("ascii")
    except UnicodeDecodeError:
        raise MalformedError("expected a log's name.", field="checkpoint") from None
    public = PublicKey.parse(key, field="key-cert.signing_key")
    return Ed25519Verifier(VerifierKey(origin, SignatureType.ED25519, public))


@dataclass(frozen=True, slots=True)
class ChainEntry:
    """One entry of a slice's chain, proved to be in its ledger.

    Attributes:
        ledger: root key of the broker or node whose ledger it is.
        place: the slice.
        position: in the ledger.
        seq: its number in the chain.
        leaf_hash: of its bytes.
        entry: what it says; None where it is not for this reader, or was erased.
        proof: as a file that anybody can check.
        cosignatures: how many witnesses are known to have cosigned the proof's checkpoint.
    """

    ledger: bytes
    place: pb.Slice
    position: int
    seq: int
    leaf_hash: bytes
    entry: ledger_pb2.LogEntry | None
    proof: TlogProof
    cosignatures: int = 0

    @property
    def event(self) -> str:
        """``access_decided``, ``statement_recorded`` …; empty where the entry is not shown."""
        return "" if self.entry is None else self.entry.WhichOneof("event") or ""

    @property
    def recorded_at(self) -> int:
        """The keeper's clock, UTC milliseconds; 0 where the entry is not shown."""
        return 0 if self.entry is None else self.entry.recorded_at


class ChainChecker:
    """Checks one slice's chain, page after page.

    What the policy demands and a checkpoint lacks makes the chain no less whole, and its keeper no less bound by its
    own signature: it is kept in :attr:`unwitnessed`, for the reader to be told.

    Args:
        place: the slice.
        federation: its name.
        ledger: root key of the ledger's keeper, pinned.
        key: the online key that its certificate names, which signs checkpoints.
        policy: whose cosignatures a checkpoint must have; None where none are demanded.
    """

    def __init__(
        self,
        place: pb.Slice,
        *,
        federation: str,
        ledger: bytes,
        key: bytes,
        policy: WitnessPolicy | None = None,
    ) -> None:
        self._place, self._federation, self._ledger = place, federation, ledger
        self._key, self._policy = key, policy
        self.seq, self._last = 0, b""
        self.unwitnessed: ProofError | None = None

    def check(
        self,
        leaves: Sequence[ledger_pb2.LedgerLeaf],
        proofs: Sequence[ledger_pb2.InclusionProof],
        note: bytes,
    ) -> list[ChainEntry]:
        """The entries of a page, each proved to be in its checkpoint and to follow the one before.

        Raises:
            ProofError: an entry is not in the ledger, or one before it is missing.
            SignatureError: the checkpoint is not the keeper's, or a cosignature on it is forged.
            MalformedError: an entry is not what the format says.
        """
        if not leaves:
            return []
        verifier = ledger_verifier(note, self._key)
        opened = self._opened(note, verifier)
        if len(proofs) != len(leaves):
            raise ProofError("expected one proof for each entry.")
        found = []
        for leaf, given in zip(leaves, proofs, strict=True):
            if given.position != leaf.position or given.size != opened.checkpoint.size:
                raise ProofError("a proof is about another entry or checkpoint.")
            proof = TlogProof(leaf.position, tuple(given.hashes), note, leaf.leaf or None)
            if leaf.leaf and leaf_hash(leaf.leaf) != leaf.leaf_hash:
                raise ProofError("an entry is not the one whose hash is given.")
            verify_proof(proof, verifier, leaf_hash=leaf.leaf_hash)
            found.append(self._next(leaf, proof, len(opened.cosignatures)))
        return found

    def finish(self, seq: int, last: bytes) -> None:
        """Check that the entries reach as far as the keeper said the chain does.

        Args:
            seq: the last number as the keeper told it; 0 where there is no entry.
            last: its leaf hash.

        Raises:
            ProofError: they end earlier, or elsewhere.
        """
        if self.seq < seq or (self.seq == seq and self._last != last):
            raise _left_out("the last entries about this slice were left out.")

    def _opened(self, note: bytes, verifier: Ed25519Verifier) -> VerifiedCheckpoint:
        if self._policy is not None:
            try:
                return self._policy.verify(note, verifier)
            except ProofError as error:
                self.unwitnessed = error
        return open_checkpoint(note, verifier)

    def _next(self, leaf: ledger_pb2.LedgerLeaf, proof: TlogProof, cosignatures: int) -> ChainEntry:
        before, self.seq, self._last = self._last, self.seq + 1, leaf.leaf_hash
        entry = None
        if leaf.leaf:
            entry = st.decode_strictly(ledger_pb2.LogEntry, leaf.leaf, "ledger.leaf")
            if entry.federation != self._federation or entry.ledger != self._ledger or entry.slice != self._place:
                raise ProofError("an entry belongs to another ledger or slice.")
            if entry.slice_seq != self.seq or entry.slice_prev != before:
                raise _left_out("an entry about this slice was left out.")
        # Where it is another person's business, the next entry that is shown names this one's hash.
        return ChainEntry(
            self._ledger, self._place, leaf.position, self.seq, leaf.leaf_hash, entry, proof, cosignatures
        )


def check_chain_end(
    envelope: pb.Envelope, *, federation: str, node: bytes, key: bytes, hello_id: bytes, place: pb.Slice
) -> Signed[pb.ChainEnd]:
    """Believe a node's word on where a slice's chain ends in its ledger.

    Args:
        envelope: as received.
        federation: its name.
        node: root key of the node that holds the slice.
        key: the online key that its certificate names.
        hello_id: id of the greeting that asked: an old answer is about another one.
        place: the slice.

    Raises:
        MalformedError: not such a statement.
        SignatureError: not signed by the key that it names.
        AuthorityError: by somebody else than the node, or about another greeting or slice.
    """
    signed = st.verify(st.CHAIN_END, envelope, federation=federation)
    payload = signed.payload
    if (payload.signer.root, payload.signer.key) != (node, key):
        raise AuthorityError("chain-end: not signed by the node that holds the slice.")
    if payload.hello_id != hello_id:
        raise AuthorityError("chain-end: an answer to another question, perhaps an old one.", remedy="Ask again.")
    if payload.slice != place:
        raise AuthorityError("chain-end: about another slice.")
    if bool(payload.slice_seq) != bool(payload.leaf_hash) or payload.slice_seq > payload.ledger_size:
        raise MalformedError("expected a number and a hash, or neither.", field="chain-end.slice_seq")
    return signed


def _left_out(message: str) -> ProofError:
    return ProofError(message, remedy="Ask the ledger's keeper why; an auditor can find out.")

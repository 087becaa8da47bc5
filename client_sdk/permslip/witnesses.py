"""Witnesses: which nodes must have cosigned the broker's checkpoint, said by the operator and by nobody else.

A broker that showed two histories to two people would be caught by nobody who sees only one. So a set of nodes, chosen
by the federation's operator and pinned by whoever checks, cosigns each checkpoint after a proof that it continues the
one before; more than half of them must have done so.

Rules (SPEC.md §8):

- A ``WitnessSet`` is signed by the operator. The first has ``seq`` 1; each later one names the one before it, has the
  next number, and is signed by the *roots* of at least the old quorum as well.
- It travels as an armored file that holds every set from the first to the newest, in order: so a file alone proves that
  no set was put in place behind the old witnesses' backs.
- A witness cosigns under the name that :func:`witness_name` makes of its root, with the online key that its current
  certificate names. Two roots that name one key count as no witness at all: whose signature it is cannot be told.
- A set says nothing of keys. Who checks brings the certificates, and leaves out organizations that are suspended.

Example::

    newest = verify_witness_sets(read_statements("witnesses.txt"), federation="fed.example", operator=operator)
    policy = witness_policy(newest, signing_key=certified.get)
    policy.verify(note, log).cosignatures
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from permslip import dsse, statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.bounds import check_strictly
from permslip.checkpoints import CosignatureVerifier, VerifiedCheckpoint, open_checkpoint, verify_cosigned
from permslip.errors import AuthorityError, MalformedError, ProofError
from permslip.keys import PublicKey, SigningKey, did_text
from permslip.notes import NoteVerifier, SignatureType, VerifierKey
from permslip.statements import Signed

__all__ = [
    "WitnessPolicy",
    "add_signature",
    "begin_witness_set",
    "check_witness_set",
    "missing_signatures",
    "verify_witness_sets",
    "witness_key",
    "witness_name",
    "witness_policy",
]


def witness_name(federation: str, root: bytes) -> str:
    """The name under which a node cosigns: the origin that its own ledger has unless configured otherwise."""
    return f"{federation}/node/{root.hex()[:16]}"


def witness_key(federation: str, root: bytes, signing_key: bytes) -> VerifierKey:
    """The verifier key of a node's cosignatures.

    Args:
        signing_key: that its current certificate names.

    Raises:
        MalformedError: not a public key.
        KeyRejectedError: one that must not be used.
    """
    public = PublicKey.parse(signing_key, field="key-cert.signing_key")
    return VerifierKey(witness_name(federation, root), SignatureType.COSIGNATURE_V1, public)


def check_witness_set(
    signed: Signed[pb.WitnessSet], previous: Signed[pb.WitnessSet] | None = None, *, operator: bytes
) -> None:
    """Check what the signatures of a set do not say: that those who signed it may.

    Args:
        signed: verified: its signatures are those of exactly the keys that it names.
        previous: the set before, which was checked itself; None for the first.
        operator: public key of the federation's operator.

    Raises:
        AuthorityError: not by the operator, or not by enough of the witnesses before.
        MalformedError: names the field that cannot be.
    """
    _check(signed.payload, previous, operator)


def verify_witness_sets(envelopes: Sequence[pb.Envelope], *, federation: str, operator: bytes) -> Signed[pb.WitnessSet]:
    """Believe a file of witness sets: all from the first to the newest, in order.

    Args:
        envelopes: as read from the file.
        federation: the only one whose sets count.
        operator: public key of its operator.

    Returns:
        the newest, which alone counts.

    Raises:
        MalformedError: not witness sets, or one is missing.
        SignatureError: signatures are missing or do not hold.
        AuthorityError: as :func:`check_witness_set`.
    """
    newest: Signed[pb.WitnessSet] | None = None
    for envelope in envelopes:
        signed = st.verify(st.WITNESS_SET, envelope, federation=federation)
        check_witness_set(signed, newest, operator=operator)
        newest = signed
    if newest is None:
        raise MalformedError("expected at least one witness set, got none.", field="witness-set")
    return newest


class WitnessPolicy(NamedTuple):
    """Whose cosignatures count, and how many are needed.

    Attributes:
        verifiers: one for each witness whose key is known, in the order of the set.
        k: how many of them must have cosigned.
    """

    verifiers: tuple[CosignatureVerifier, ...]
    k: int

    def verify(self, raw: bytes, log: NoteVerifier, *, origin: str | None = None) -> VerifiedCheckpoint:
        """Verify a checkpoint that ``k`` of the witnesses cosigned; see :func:`~permslip.checkpoints.verify_cosigned`.

        Raises:
            MalformedError: not a signed checkpoint.
            SignatureError: a known key's signature does not hold, or the log's is missing.
            ProofError: a checkpoint of another log, or fewer than ``k`` cosignatures.
        """
        # A node that names the log's key as its own must not be able to end all checking: it is no witness, no more.
        usable = [each for each in self.verifiers if each.key.public != log.key.public]
        if len(usable) < self.k:
            opened = open_checkpoint(raw, log, origin=origin).checkpoint
            raise ProofError(
                f"expected cosignatures by {self.k} witnesses on {opened.origin} at size {opened.size}, and only "
                f"{len(usable)} of them have a certified key of their own.",
                remedy="Fetch the federation's certificates again, or ask its operator.",
            )
        return verify_cosigned(raw, log, usable, self.k, origin=origin)


def witness_policy(
    witness_set: Signed[pb.WitnessSet], *, signing_key: Callable[[bytes], bytes | None]
) -> WitnessPolicy:
    """What a set demands of a checkpoint, with the witnesses' keys as of now.

    Args:
        witness_set: checked.
        signing_key: root of a node → the online key of its newest certificate; None where it has none that counts.

    Raises:
        MalformedError: a key is none.
        KeyRejectedError: a key must not be used.
    """
    payload = witness_set.payload
    keys = {root: key for root in payload.witnesses if (key := signing_key(root)) is not None}
    named = Counter(keys.values())
    verifiers = tuple(
        CosignatureVerifier(witness_key(payload.federation, root, key)) for root, key in keys.items() if named[key] == 1
    )
    return WitnessPolicy(verifiers, payload.quorum)


def begin_witness_set(
    payload: pb.WitnessSet, operator: SigningKey, previous: Signed[pb.WitnessSet] | None = None
) -> pb.Envelope:
    """A set with the operator's signature alone; those of the witnesses before are added with :func:`add_signature`.

    Args:
        payload: complete; names in ``old_witnesses`` who will sign.
        operator: the operator's private key.
        previous: the set before, checked; None for the first.

    Raises:
        AuthorityError: too few of the old witnesses are named, or others.
        MalformedError: names the field that cannot be.
    """
    check_strictly(payload, st.WITNESS_SET.name)
    _check(payload, previous, operator.public.raw)
    begun = pb.Envelope(payload_type=st.WITNESS_SET.payload_type, payload=payload.SerializeToString(deterministic=True))
    return add_signature(begun, operator)


def missing_signatures(envelope: pb.Envelope) -> list[bytes]:
    """The keys that a set names and that have not signed it yet; what is there already is not verified here.

    Raises:
        MalformedError: not a witness set.
    """
    st.kind_of(envelope, among=(st.WITNESS_SET,))
    payload = st.decode_strictly(pb.WitnessSet, envelope.payload, "witness-set")
    signed = {each.key for each in envelope.signatures}
    return [key for key in st.WITNESS_SET.required(payload) if key not in signed]


def add_signature(envelope: pb.Envelope, key: SigningKey) -> pb.Envelope:
    """The set with one more of the signatures that it names; the whole is believed only once all are there.

    Raises:
        MalformedError: not a witness set.
        AuthorityError: it does not name this key, or has its signature already.
    """
    if key.public.raw not in missing_signatures(envelope):
        raise AuthorityError(
            f"witness-set: names no signature of {did_text(key.public.raw)}, or has it already.",
            remedy="Sign with the root key of a node that the set names among those who sign.",
        )
    [(public, signature)] = dsse.sign(envelope.payload_type, envelope.payload, [key])
    signatures = [*envelope.signatures, pb.Signature(key=public, signature=signature)]
    return pb.Envelope(
        payload_type=envelope.payload_type,
        payload=envelope.payload,
        signatures=sorted(signatures, key=lambda each: each.key),
    )


def _check(payload: pb.WitnessSet, previous: Signed[pb.WitnessSet] | None, operator: bytes) -> None:
    # (1) the operator signed it
    if payload.signer.root != operator or payload.signer.key != operator:
        raise AuthorityError(
            "witness-set: not signed by the federation's operator.",
            remedy="Check the operator's key in the configuration.",
        )
    # (2) any two quorums share a witness
    count = len(payload.witnesses)
    if not count < 2 * payload.quorum <= 2 * count:
        raise MalformedError(
            f"expected more than half of {count} witnesses and at most all, got {payload.quorum}.",
            field="witness-set.quorum",
        )
    # (3) it is the first, or the next one after the one before
    expected = (1, b"") if previous is None else (previous.payload.seq + 1, previous.id)
    if (payload.seq, payload.replaces) != expected:
        raise MalformedError(
            f"expected set number {expected[0]}"
            + (f", replacing {previous.id.hex()}" if previous is not None else ", replacing none")
            + f"; got number {payload.seq}, replacing {payload.replaces.hex() or 'none'}.",
            field="witness-set.seq",
            remedy="Give all sets from the first to the newest, in order.",
        )
    # (4) a change is signed by the roots of at least the quorum before
    if previous is None:
        if payload.old_witnesses:
            raise MalformedError("expected none in the first set.", field="witness-set.old_witnesses")
        return
    strangers = set(payload.old_witnesses) - set(previous.payload.witnesses)
    if strangers or len(payload.old_witnesses) < previous.payload.quorum:
        raise AuthorityError(
            f"witness-set: expected the signatures of at least {previous.payload.quorum} witnesses of the set before, "
            f"got {len(payload.old_witnesses) - len(strangers)} of them and {len(strangers)} of others."
        )

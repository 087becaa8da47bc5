"""The library calls that a query requires, and the few bytes around them.

Keys come from fixed seeds, so that every process knows everybody's without a word on the wire.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import sha256

from nacl.bindings import (
    crypto_box_keypair,
    crypto_box_seal,
    crypto_box_seal_open,
    crypto_secretstream_xchacha20poly1305_init_pull,
    crypto_secretstream_xchacha20poly1305_init_push,
    crypto_secretstream_xchacha20poly1305_pull,
    crypto_secretstream_xchacha20poly1305_push,
    crypto_secretstream_xchacha20poly1305_state,
    crypto_secretstream_xchacha20poly1305_TAG_FINAL,
    crypto_sign,
    crypto_sign_open,
    crypto_sign_seed_keypair,
)

from permslip._pb.permslip.v1 import provider_pb2, statement_pb2 as pb
from permslip.sealing import padme
from permslip.statements import MANIFEST, OPENING, QUERY
from tests.bench.workload import FEDERATION, RECORDS, SECTION, grades, page_of

__all__ = ["Answering", "Asking", "envelope_id", "grant_id", "node_keys", "open_answer", "requester_keys", "verify"]

Keys = tuple[bytes, bytes]
_LIFETIME = 60_000
_NOW = 1_790_000_000_000
_PADDED = 4096


def requester_keys() -> Keys:
    """Public and secret signing key of the one requester."""
    return crypto_sign_seed_keypair(sha256(b"bench requester").digest())


def node_keys(number: int) -> Keys:
    """Public and secret signing key of a node."""
    return crypto_sign_seed_keypair(sha256(b"bench node %d" % number).digest())


def grant_id(number: int) -> bytes:
    """Id of the one grant on the slice of a node."""
    return sha256(b"bench grant %d" % number).digest()


def _pae(payload_type: str, payload: bytes) -> bytes:
    return b"DSSEv1 %d %b %d %b" % (len(payload_type), payload_type.encode(), len(payload), payload)


def _signed(payload_type: str, payload: bytes, keys: Keys) -> tuple[pb.Envelope, bytes]:
    message = _pae(payload_type, payload)
    signature = pb.Signature(key=keys[0], signature=crypto_sign(message, keys[1])[:64])
    return pb.Envelope(payload_type=payload_type, payload=payload, signatures=[signature]), sha256(message).digest()


def verify(envelope: pb.Envelope) -> bytes:
    """Verify the signature; the statement's id."""
    message = _pae(envelope.payload_type, envelope.payload)
    signature = envelope.signatures[0]
    crypto_sign_open(signature.signature + message, signature.key)
    return sha256(message).digest()


def envelope_id(envelope: pb.Envelope) -> bytes:
    """The statement's id, nothing verified."""
    return sha256(_pae(envelope.payload_type, envelope.payload)).digest()


@dataclass
class Asking:
    """One query of the requester: what is sent, and what is kept to open the answer."""

    envelope: pb.Envelope
    id: bytes
    reply: Keys

    @classmethod
    def make(cls, number: int, keys: Keys) -> Asking:
        """A fresh query to one node."""
        reply = crypto_box_keypair()
        query = pb.Query(
            federation=FEDERATION,
            nonce=os.urandom(16),
            created_at=_NOW,
            signer=pb.Signer(root=keys[0], key=keys[0]),
            expires_at=_NOW + _LIFETIME,
            grant_id=grant_id(number),
            action=pb.ACTION_READ,
            sections=[SECTION],
            reply_key=reply[0],
        )
        envelope, identifier = _signed(QUERY.payload_type, query.SerializeToString(), keys)
        return cls(envelope, identifier, reply)

    @classmethod
    def bare(cls, number: int) -> Asking:
        """A query of the same size that nobody signed."""
        query = pb.Query(
            federation=FEDERATION,
            nonce=os.urandom(16),
            created_at=_NOW,
            signer=pb.Signer(root=bytes(32), key=bytes(32)),
            expires_at=_NOW + _LIFETIME,
            grant_id=grant_id(number),
            action=pb.ACTION_READ,
            sections=[SECTION],
            reply_key=bytes(32),
        )
        envelope = pb.Envelope(
            payload_type=QUERY.payload_type,
            payload=query.SerializeToString(),
            signatures=[pb.Signature(key=bytes(32), signature=bytes(64))],
        )
        return cls(envelope, envelope_id(envelope), (b"", b""))


def open_answer(asking: Asking, answer: provider_pb2.Answer) -> bytes:
    """Verify the opening, open the chunk, verify the manifest; the records' bytes."""
    verify(answer.opening)
    opening = pb.Opening.FromString(answer.opening.payload)
    content_key = crypto_box_seal_open(opening.sealed_key, *asking.reply)
    state = crypto_secretstream_xchacha20poly1305_state()
    crypto_secretstream_xchacha20poly1305_init_pull(state, opening.header, content_key)
    plaintext, _ = crypto_secretstream_xchacha20poly1305_pull(state, answer.chunks[0], asking.id)
    end = 4 + int.from_bytes(plaintext[:4], "big")
    manifest = int.from_bytes(plaintext[end : end + 4], "big")
    verify(pb.Envelope.FromString(plaintext[end - manifest : end]))
    return plaintext[4 : end - manifest]


class Answering:
    """A node's answers: the same 50 records again and again, sealed anew each time."""

    def __init__(self, number: int) -> None:
        self._keys = node_keys(number)
        self._signer = pb.Signer(root=self._keys[0], key=self._keys[0])
        self._page = page_of(grades(b"node %d" % number))
        self._digest = sha256(self._page).digest()
        self._chunk = bytes(padme(max(_PADDED, len(self._page) + 600)) + 17)

    def answer(self, query: pb.Query, query_id: bytes) -> provider_pb2.Answer:
        """Sign, seal, sign; the answer's one frame."""
        content_key = os.urandom(32)
        sealed_key = crypto_box_seal(content_key, query.reply_key)
        state = crypto_secretstream_xchacha20poly1305_state()
        header = crypto_secretstream_xchacha20poly1305_init_push(state, content_key)
        opening = pb.Opening(
            federation=FEDERATION,
            nonce=os.urandom(16),
            created_at=_NOW,
            signer=self._signer,
            query_id=query_id,
            grant_id=query.grant_id,
            sealed_key=sealed_key,
            header=header,
        )
        opened, _ = _signed(OPENING.payload_type, opening.SerializeToString(), self._keys)
        manifest = pb.Manifest(
            federation=FEDERATION,
            nonce=os.urandom(16),
            created_at=_NOW,
            signer=self._signer,
            query_id=query_id,
            grant_id=query.grant_id,
            coverage=[pb.SectionCoverage(section=SECTION, reason=pb.REASON_ALLOWED, returned=RECORDS)],
            records=RECORDS,
            records_sha256=self._digest,
            slice_seq=1,
        )
        envelope, manifest_id = _signed(MANIFEST.payload_type, manifest.SerializeToString(), self._keys)
        tail = envelope.SerializeToString()
        whole = 4 + len(self._page) + len(tail)
        plaintext = b"".join(
            (
                (whole - 4).to_bytes(4, "big"),
                self._page,
                tail,
                len(tail).to_bytes(4, "big"),
                bytes(padme(max(_PADDED, whole + 4)) - whole - 4),
            )
        )
        chunk = crypto_secretstream_xchacha20poly1305_push(
            state, plaintext, query_id, crypto_secretstream_xchacha20poly1305_TAG_FINAL
        )
        return provider_pb2.Answer(
            query_id=query_id, opening=opened, chunks=[chunk], outcome=self._outcome(manifest_id, len(chunk))
        )

    def bare(self, query_id: bytes) -> provider_pb2.Answer:
        """An answer of the same size that nobody sealed."""
        opening = pb.Envelope(
            payload_type=OPENING.payload_type,
            payload=bytes(330),
            signatures=[pb.Signature(key=bytes(32), signature=bytes(64))],
        )
        return provider_pb2.Answer(
            query_id=query_id,
            opening=opening,
            chunks=[self._chunk],
            outcome=self._outcome(query_id, len(self._chunk)),
        )

    def _outcome(self, manifest_sha256: bytes, sealed_bytes: int) -> provider_pb2.Outcome:
        outcome = provider_pb2.Outcome(
            manifest_sha256=manifest_sha256, sealed_bytes=sealed_bytes, said_by=self._keys[0]
        )
        outcome.refusal.code = pb.REASON_ALLOWED
        return outcome

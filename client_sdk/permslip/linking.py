"""Linking: how a parent's key becomes known to a node, through a broker that must neither read nor redirect it.

The operator prints a slip (:mod:`permslip.slip`): the node's root key, a selector, a secret. The guardian's device
answers with a signed ``LinkRequest``, sealed to the sealing key that the node's root certified; the node answers with a
signed ``LinkResponse``, sealed to the request's ephemeral key. Each side proves to the other that it knows the secret,
which itself is never sent (SPEC.md §7).

The transcript, byte-exact (``‖`` joins)::

    "permslip link v1" ‖ 0x00 ‖ length of federation (1 byte) ‖ federation ‖ node root (32) ‖ selector (8)
    ‖ guardian key (32) ‖ guardian sealing key (32) ‖ reply key (32) ‖ nonce of the request (16)

    LinkRequest.mac  = HMAC-SHA-256(secret, "request"  ‖ transcript)
    LinkResponse.mac = HMAC-SHA-256(secret, "response" ‖ transcript ‖ slice handle (16) ‖ node root (32))

The seals' contexts (:func:`permslip.sealing.seal`) are ``"link-request" ‖ node root`` and
``"link-response" ‖ id of the request``.

Rules:

- The guardian's device believes only a sealing key that the root on the slip certified. A broker that supplies a key of
  its own in place of the node's is refused (``KeyRejectedError``) before anything is sealed.
- The mac binds every key: nothing of a request can be exchanged for something else, and no request can be replayed with
  another key.
- A wrong secret, an unknown selector, a slip that is used, expired or out of tries: all are one and the same refusal.

Example::

    slip = parse_slip(scanned)
    sealed, pending = make_link_request(slip, "fed.example", keys, node_cert, now)
    response = pending.open_response(relay(slip.node, sealed))
    print(response.payload.learner_name, response.payload.slice.handle.hex())
"""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass, field
from typing import Final

from permslip import statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.errors import AuthorityError, KeyRejectedError, MalformedError, SignatureError
from permslip.keyformat import StoredKeys
from permslip.keys import SealingKey, SigningKey, parse_sealing_key
from permslip.quantities import Millis
from permslip.sealing import open_sealed, seal
from permslip.slip import Slip
from permslip.standing import check_key_cert
from permslip.statements import Signed

__all__ = [
    "LearnerCard",
    "PendingLink",
    "check_link_mac",
    "check_node_cert",
    "make_link_request",
    "make_link_response",
    "open_link_request",
    "transcript",
]

MAX_SEALED: Final = 8192
_DOMAIN: Final = b"permslip link v1\x00"
_REQUEST: Final = b"request"
_RESPONSE: Final = b"response"


@dataclass(frozen=True, slots=True)
class LearnerCard:
    """What a node tells a guardian it has linked; it never leaves her device.

    Attributes:
        handle: of the learner at this node.
        learner_name, node_name, relationship: to be shown.
        quorum_rule: which rule holds for this learner, e.g. ``any``.
        other_guardians: how many other persons hold authority.
        majority_at: when authority passes to the learner, UTC milliseconds; 0 when unknown.
    """

    handle: bytes
    learner_name: str
    node_name: str
    quorum_rule: str
    relationship: str = ""
    other_guardians: int = 0
    majority_at: int = 0


@dataclass(frozen=True, slots=True, repr=False)
class PendingLink:
    """A link request that was sent and not answered yet. Made by :func:`make_link_request`."""

    request: Signed[pb.LinkRequest]
    slip: Slip
    cert: Signed[pb.KeyCert]
    reply_key: SealingKey = field(repr=False)

    def open_response(self, sealed: bytes) -> Signed[pb.LinkResponse]:
        """Believe the node's answer, or raise.

        Args:
            sealed: what the broker brought back.

        Raises:
            SealError: altered, or not for this request.
            MalformedError: not a link response, or of another federation.
            SignatureError: not signed by the key it names.
            AuthorityError: not by the node on the slip, about another request, or by one that does not know the secret.
        """
        raw = open_sealed(self.reply_key, sealed, context=b"link-response" + self.request.id)
        signed = st.verify(
            st.LINK_RESPONSE,
            st.parse_envelope(raw, "link-response"),
            federation=self.request.payload.federation,
        )
        payload = signed.payload
        if payload.signer.root != self.slip.node or payload.signer.key != self.cert.payload.signing_key:
            raise AuthorityError("link-response: not by the node on the slip.")
        if payload.request_id != self.request.id or payload.slice.node != self.slip.node:
            raise AuthorityError("link-response: it answers another request, or names another node.")
        expected = _response_mac(self.slip.secret, self.request.payload, payload.slice.handle)
        if not hmac.compare_digest(payload.mac, expected):
            raise AuthorityError(
                "link-response: whoever answered does not know the secret on the slip.",
                remedy="Tell the school, and ask for a new slip.",
            )
        return signed


def check_node_cert(envelope: pb.Envelope, *, federation: str, node: bytes, now: Millis) -> Signed[pb.KeyCert]:
    """Believe the certificate of the node whose root key stands on the slip.

    Raises:
        KeyRejectedError: the certificate is not by that root, does not hold, or is out of date.
        MalformedError: not a certificate, or of another federation.
    """
    try:
        cert = st.verify(st.KEY_CERT, envelope, federation=federation)
    except SignatureError as error:
        raise _other_key(f"its signature does not hold ({error.message})") from error
    check_key_cert(cert.payload)
    if cert.payload.root != node:
        raise _other_key("it is certified by another root")
    if now >= cert.payload.valid_until:
        raise _other_key("its certificate has ended")
    return cert


def make_link_request(
    slip: Slip, federation: str, keys: StoredKeys, node_cert: pb.Envelope, now: Millis
) -> tuple[bytes, PendingLink]:
    """Make a request to be carried to the node; returns it sealed, and what is needed to open the answer.

    Args:
        slip: as scanned.
        federation: the federation's name.
        keys: the guardian's, with a sealing key.
        node_cert: the node's key certificate as the broker's directory gives it.
        now: the device's clock.

    Raises:
        KeyRejectedError: the certificate is not by the root on the slip, or the guardian has no sealing key.
        MalformedError: the certificate is not well formed.
    """
    cert = check_node_cert(node_cert, federation=federation, node=slip.node, now=now)
    if keys.sealing is None:
        raise KeyRejectedError(
            "a guardian needs a sealing key, and this key file holds none.", remedy="Make a new guardian key."
        )
    reply_key = SealingKey.generate()
    key = keys.signing.public.raw
    payload = pb.LinkRequest(
        federation=federation,
        nonce=os.urandom(16),
        created_at=now,
        signer=pb.Signer(root=key, key=key),
        node=slip.node,
        selector=slip.selector,
        reply_key=reply_key.public,
        sealing_key=keys.sealing.public,
    )
    payload.mac = _request_mac(slip.secret, payload)
    request = st.sign(st.LINK_REQUEST, payload, [keys.signing])
    sealed = seal(cert.payload.sealing_key, request.raw, context=b"link-request" + slip.node)
    return sealed, PendingLink(request, slip, cert, reply_key)


def open_link_request(
    sealed: bytes, *, sealing_key: SealingKey, federation: str, node: bytes
) -> Signed[pb.LinkRequest]:
    """At the node: open a request. That its mac holds is checked by :func:`check_link_mac`, with the slip's secret.

    Raises:
        SealError: not for this node.
        MalformedError: not a link request, too long, or for another federation or node.
        SignatureError: not signed by the guardian's key.
        KeyRejectedError: a key in it must not be used.
    """
    if len(sealed) > MAX_SEALED:
        raise MalformedError(f"expected at most {MAX_SEALED} bytes, got {len(sealed)}.", field="sealed_request")
    raw = open_sealed(sealing_key, sealed, context=b"link-request" + node)
    request = st.verify(st.LINK_REQUEST, st.parse_envelope(raw, "link-request"), federation=federation)
    payload = request.payload
    if payload.node != node:
        raise MalformedError("it is meant for another node.", field="link-request.node")
    if payload.signer.root != payload.signer.key:
        raise MalformedError("a person's root is her key.", field="link-request.signer")
    parse_sealing_key(payload.reply_key, "link-request.reply_key")
    parse_sealing_key(payload.sealing_key, "link-request.sealing_key")
    return request


def check_link_mac(request: Signed[pb.LinkRequest], secret: bytes) -> None:
    """Check that the sender of a request knows the slip's secret.

    Raises:
        AuthorityError: she does not.
    """
    if not hmac.compare_digest(request.payload.mac, _request_mac(secret, request.payload)):
        raise AuthorityError("link-request: the sender does not know the secret on the slip.")


def make_link_response(
    request: Signed[pb.LinkRequest],
    secret: bytes,
    card: LearnerCard,
    *,
    signer: pb.Signer,
    key: SigningKey,
    now: Millis,
) -> bytes:
    """At the node: the answer to a request whose mac held, sealed to its reply key.

    Args:
        request: from :func:`open_link_request`.
        secret: the slip's.
        card: what the guardian's device is told.
        signer: the node's root and current online key.
        key: private key of ``signer.key``.
        now: the node's clock.
    """
    payload = pb.LinkResponse(
        federation=request.payload.federation,
        nonce=os.urandom(16),
        created_at=now,
        signer=signer,
        request_id=request.id,
        slice=pb.Slice(node=signer.root, handle=card.handle),
        mac=_response_mac(secret, request.payload, card.handle),
        learner_name=card.learner_name,
        node_name=card.node_name,
        relationship=card.relationship,
        quorum_rule=card.quorum_rule,
        other_guardians=card.other_guardians,
        majority_at=card.majority_at,
    )
    signed = st.sign(st.LINK_RESPONSE, payload, [key])
    return seal(request.payload.reply_key, signed.raw, context=b"link-response" + request.id)


def transcript(request: pb.LinkRequest) -> bytes:
    """The bytes that both macs cover: every key that takes part, the selector and the request's nonce."""
    federation = request.federation.encode()
    return b"".join(
        (
            _DOMAIN,
            bytes([len(federation)]),
            federation,
            request.node,
            request.selector,
            request.signer.key,
            request.sealing_key,
            request.reply_key,
            request.nonce,
        )
    )


def _request_mac(secret: bytes, request: pb.LinkRequest) -> bytes:
    return hmac.digest(secret, _REQUEST + transcript(request), "sha256")


def _response_mac(secret: bytes, request: pb.LinkRequest, handle: bytes) -> bytes:
    return hmac.digest(secret, _RESPONSE + transcript(request) + handle + request.node, "sha256")


def _other_key(why: str) -> KeyRejectedError:
    return KeyRejectedError(
        f"the key that was offered as the school's is not the one on the slip: {why}.",
        remedy="Do not go on: somebody may stand between you and the school. Tell the school.",
    )

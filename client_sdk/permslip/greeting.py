"""Greetings: how a caller shows who it is, once for a stream or with a read of its own things.

Rules (SPEC.md §4):

- The server gives a nonce; the caller signs a whole ``Hello`` that holds it, together with federation, broker and an
  end at most 60 s away. Bytes that a server chose alone are never signed.
- The nonce is ``expiry ‖ random ‖ HMAC-SHA-256(secret, expiry ‖ random)``: any replica that knows the broker's secret
  can check it, none has to remember it.
- A greeting may accompany several reads while it is fresh. It authorizes nothing but reading what is the caller's.

Example::

    nonce = make_server_nonce(secret, now=now)
    hello = make_hello(challenge, signer=signer, kind=pb.PRINCIPAL_KIND_PROVIDER, key=key, now=now)
    caller = check_hello(hello.envelope, secret=secret, broker=root, federation="fed.example", now=now).payload.signer
"""

from __future__ import annotations

import hmac
import os
from typing import Final

from permslip import statements as st
from permslip._pb.permslip.v1 import session_pb2, statement_pb2 as pb
from permslip.dsse import SignedCache
from permslip.errors import AuthorityError, KeyRejectedError, MalformedError
from permslip.keys import SigningKey
from permslip.quantities import Millis
from permslip.statements import Signed

__all__ = [
    "CONTRACT_VERSION",
    "HELLO_LIFETIME",
    "check_hello",
    "check_relayed_hello",
    "make_hello",
    "make_server_nonce",
]

CONTRACT_VERSION: Final = 1
HELLO_LIFETIME: Final = 60_000
_PREFIX: Final = b"permslip hello v1\x00"


def make_server_nonce(secret: bytes, *, now: Millis) -> bytes:
    """A nonce of 48 bytes that :func:`check_hello` accepts for 60 s.

    Args:
        secret: 32 bytes that all replicas of one broker share, and nobody else knows.
        now: the server's clock.
    """
    head = (now + HELLO_LIFETIME).to_bytes(8, "big") + os.urandom(8)
    return head + hmac.digest(secret, _PREFIX + head, "sha256")


def make_hello(
    challenge: session_pb2.Challenge,
    *,
    broker: bytes,
    signer: pb.Signer,
    kind: pb.PrincipalKind.ValueType,
    key: SigningKey,
    now: Millis,
    node: bytes = b"",
    reply_key: bytes = b"",
) -> Signed[pb.Hello]:
    """Answer a challenge.

    Args:
        challenge: from the server.
        broker: the root key of the broker that the caller means to speak to.
        signer: the caller.
        kind: as which principal it calls.
        key: private key of ``signer.key``.
        now: the caller's clock.
        node: for a read that a node answers through the broker: that node's root, which the greeting then names in the
            broker's place.
        reply_key: with it, the X25519 key to which the node seals its answer.

    Raises:
        KeyRejectedError: the server's certificate is not the pinned broker's, or has ended.
        MalformedError: the challenge is not well formed.
    """
    cert = st.verify(st.KEY_CERT, challenge.broker_cert, federation=challenge.federation)
    if cert.payload.root != broker:
        raise KeyRejectedError(
            "the server is another broker than the one that was expected.",
            remedy="Check the broker's address and key in the configuration.",
        )
    if now >= cert.payload.valid_until:
        raise KeyRejectedError(
            "the broker's certificate has ended.", remedy="Check this machine's clock, or ask the broker's operator."
        )
    hello = pb.Hello(
        federation=challenge.federation,
        nonce=os.urandom(16),
        created_at=now,
        signer=signer,
        kind=kind,
        broker=node or broker,
        server_nonce=challenge.server_nonce,
        expires_at=now + HELLO_LIFETIME,
        versions=[CONTRACT_VERSION],
        reply_key=reply_key,
    )
    return st.sign(st.HELLO, hello, [key])


def check_hello(
    envelope: pb.Envelope,
    *,
    secret: bytes,
    broker: bytes,
    federation: str,
    now: Millis,
    cache: SignedCache | None = None,
) -> Signed[pb.Hello]:
    """Believe a greeting; that ``signer.key`` is certified by ``signer.root`` is for the caller to check.

    Raises:
        MalformedError: not a greeting, or out of date.
        AuthorityError: for another broker, or its nonce is not one of ours.
        SignatureError: not signed by the key it names.
    """
    signed = st.verify(st.HELLO, envelope, federation=federation, cache=cache)
    hello = signed.payload
    if hello.broker != broker:
        raise AuthorityError("hello: meant for another broker.", remedy="Check the broker's key in the configuration.")
    head, mac = hello.server_nonce[:16], hello.server_nonce[16:]
    if not hmac.compare_digest(mac, hmac.digest(secret, _PREFIX + head, "sha256")):
        raise AuthorityError("hello: its nonce was not given by this broker.", remedy="Ask for a new challenge.")
    if now >= int.from_bytes(head[:8], "big"):
        raise MalformedError("is older than 60 s.", field="hello.server_nonce", remedy="Ask for a new challenge.")
    # The server's own nonce bounds the age; the caller's clock may be off by a minute either way.
    _check_life(hello)
    return signed


def check_relayed_hello(envelope: pb.Envelope, *, node: bytes, federation: str, now: Millis) -> Signed[pb.Hello]:
    """At a node: believe a greeting that a broker passed on; whether its signer may ask is for the caller to check.

    The nonce in it is the broker's own affair, so this node's clock bounds the greeting's age. A broker can bring it
    again within that minute: what it gains is an answer sealed to the reply key that stands under the signature.

    Raises:
        MalformedError: not a greeting, or out of date by this node's clock.
        AuthorityError: for a broker or another node.
        SignatureError: not signed by the key it names.
    """
    signed = st.verify(st.HELLO, envelope, federation=federation)
    hello = signed.payload
    if hello.broker != node:
        raise AuthorityError("hello: not meant for this node.", remedy="Name the node whose ledger is read.")
    _check_life(hello)
    if not hello.created_at <= now + HELLO_LIFETIME or now >= hello.expires_at:
        raise MalformedError("is out of date here.", field="hello.expires_at", remedy="Greet anew; check both clocks.")
    return signed


def _check_life(hello: pb.Hello) -> None:
    if not hello.created_at < hello.expires_at <= hello.created_at + HELLO_LIFETIME:
        raise MalformedError("expected at most 60 s after created_at.", field="hello.expires_at")
    if CONTRACT_VERSION not in hello.versions:
        raise MalformedError(
            f"expected version {CONTRACT_VERSION} among them.",
            field="hello.versions",
            remedy="Update the older software.",
        )

"""Who this broker is, and what it signs.

A broker is an offline root key; what it signs with is the online key that its certificate names. It signs ticks and the
checkpoints of its ledger, and nothing that could create consent.

Rules:

- The certificate is by the root that is configured, names this very key, and has not run out.
- The secret behind server nonces is derived from the online key, so that all replicas of one broker share it and
  nothing more has to be kept.

Example::

    identity = load_identity(settings, now=now)
    envelope = identity.tick(node=root, lease_nonce=nonce, size=size, root_hash=digest, push_count=7, now=now)
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from permslip import statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.checkpoints import Checkpoint, sign_checkpoint
from permslip.errors import ConfigurationError
from permslip.keys import PublicKey, SealingKey, SigningKey
from permslip.notes import Ed25519Signer
from permslip.quantities import Millis
from permslip.standing import check_key_cert
from permslip.statements import Signed

__all__ = ["Identity", "make_identity"]

_NONCE_SECRET: Final = b"permslip server nonce v1\x00"


@dataclass(frozen=True, slots=True)
class Identity:
    """The broker's names and keys.

    Attributes:
        federation: the only one whose statements count here.
        operator: public key of the federation's operator.
        cert: this broker's certificate.
        key: the private key that it names.
        origin: name of the ledger in checkpoints.
        nonce_secret: behind server nonces; 32 bytes.
    """

    federation: str
    operator: bytes
    cert: Signed[pb.KeyCert]
    key: SigningKey
    origin: str
    nonce_secret: bytes

    @property
    def root(self) -> bytes:
        """The key that clients pin."""
        return self.cert.payload.root

    @property
    def signer(self) -> pb.Signer:
        """Root and online key."""
        return pb.Signer(root=self.cert.payload.root, key=self.cert.payload.signing_key)

    def tick(
        self, *, node: bytes, lease_nonce: bytes, size: int, root_hash: bytes, push_count: int, now: Millis
    ) -> pb.Envelope:
        """The signed answer to a node's lease nonce; ``size`` and ``root_hash`` were read after it arrived."""
        payload = pb.Tick(
            federation=self.federation,
            nonce=os.urandom(16),
            created_at=now,
            signer=self.signer,
            node=node,
            lease_nonce=lease_nonce,
            ledger_size=size,
            root_hash=root_hash,
            push_count=push_count,
        )
        return st.sign(st.TICK, payload, [self.key]).envelope

    def checkpoint(self, size: int, root_hash: bytes) -> bytes:
        """The ledger's checkpoint at this head: a C2SP signed note under the ledger's origin."""
        return sign_checkpoint(Checkpoint(self.origin, size, root_hash), [Ed25519Signer(self.origin, self.key)])


def make_identity(
    *,
    federation: str,
    operator: PublicKey,
    cert: Signed[pb.KeyCert],
    key: SigningKey,
    sealing: SealingKey | None,
    origin: str,
    now: Millis,
) -> Identity:
    """The identity, when certificate and key belong together.

    Raises:
        ConfigurationError: the certificate names another key, or has run out.
        MalformedError: it is not a sound certificate.
        KeyRejectedError: it certifies its own root.
    """
    check_key_cert(cert.payload)
    if cert.payload.signing_key != key.public.raw:
        raise ConfigurationError(
            "names another key than the one in broker.key_file.",
            key="broker.cert_file",
            remedy="Certify this key: permslip keys certify.",
        )
    if sealing is not None and cert.payload.sealing_key != sealing.public:
        raise ConfigurationError("names another sealing key than broker.key_file holds.", key="broker.cert_file")
    if now >= cert.payload.valid_until:
        raise ConfigurationError(
            "has run out.", key="broker.cert_file", remedy="Make a new one with the broker's root key."
        )
    secret = sha256(_NONCE_SECRET + key.sign(_NONCE_SECRET)).digest()
    return Identity(federation, operator.raw, cert, key, origin, secret)

"""Principals of a measured federation, the same in every process: their keys come from their names.

Never do this outside of a measurement: whoever knows the name knows the key.

Example::

    node = organization("node 7", FEDERATION)
    signed = sign(ACKNOWLEDGEMENT, payload, [node.key])
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from permslip import statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.keys import SealingKey, SigningKey
from permslip.quantities import Millis
from permslip.statements import Signed

__all__ = ["DAY", "Organization", "now", "organization", "person", "signer_of"]

DAY: Final = 86_400_000


def now() -> Millis:
    """UTC milliseconds."""
    return Millis(time.time_ns() // 1_000_000)


def signer_of(key: SigningKey) -> pb.Signer:
    """A person as she signs: root and key are one."""
    return pb.Signer(root=key.public.raw, key=key.public.raw)


def person(name: str) -> SigningKey:
    """The key of a guardian, or of the operator."""
    return SigningKey.from_seed(_seed(name, "key"))


@dataclass(frozen=True)
class Organization:
    """A node or provider: its offline root, its online keys and the certificate that binds them."""

    root: SigningKey
    key: SigningKey
    sealing: SealingKey
    cert: Signed[pb.KeyCert]

    @property
    def signer(self) -> pb.Signer:
        """Root and online key."""
        return pb.Signer(root=self.root.public.raw, key=self.key.public.raw)


def organization(name: str, federation: str, *, at: Millis) -> Organization:
    """The organization of this name.

    Args:
        name: decides all keys.
        federation: of the certificate.
        at: when the certificate was made; the same ``at`` gives the same certificate.
    """
    root, key = SigningKey.from_seed(_seed(name, "root")), SigningKey.from_seed(_seed(name, "key"))
    sealing = SealingKey.from_seed(_seed(name, "sealing"))
    cert = pb.KeyCert(
        federation=federation,
        nonce=_seed(name, "nonce")[:16],
        created_at=at,
        root=root.public.raw,
        signing_key=key.public.raw,
        sealing_key=sealing.public,
        seq=1,
        valid_until=at + 90 * DAY,
    )
    return Organization(root, key, sealing, st.sign(st.KEY_CERT, cert, [root]))


def _seed(name: str, what: str) -> bytes:
    return sha256(f"permslip bench\0{name}\0{what}".encode()).digest()

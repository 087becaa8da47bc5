"""Principals of a test's federation: real keys, made anew each time.

Example::

    operator = Person.new()
    school = Organization.new("Grand Bend High", pb.PRINCIPAL_KIND_NODE, "fed.example", now=now)
    admissions = [admit(operator, school, now=now), school.cert]
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from permslip import statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.keys import SealingKey, SigningKey
from permslip.statements import Signed

__all__ = ["DAY", "Organization", "Person", "admit", "suspend"]

DAY = 86_400_000


@dataclass(frozen=True)
class Person:
    """A guardian, a learner or the operator: root and key are one."""

    key: SigningKey
    sealing: SealingKey

    @classmethod
    def new(cls) -> Person:
        """Somebody new."""
        return cls(SigningKey.generate(), SealingKey.generate())

    @property
    def public(self) -> bytes:
        """What she is known by."""
        return self.key.public.raw

    @property
    def root(self) -> bytes:
        """The same: for whoever asks organizations and persons alike."""
        return self.key.public.raw

    @property
    def signer(self) -> pb.Signer:
        """As she signs."""
        return pb.Signer(root=self.public, key=self.public)


@dataclass(frozen=True)
class Organization:
    """A node, provider, broker or auditor: offline root, online keys, and the certificate that binds them."""

    name: str
    kind: pb.PrincipalKind.ValueType
    federation: str
    root_key: SigningKey
    key: SigningKey
    sealing: SealingKey
    cert: Signed[pb.KeyCert]

    @classmethod
    def new(cls, name: str, kind: pb.PrincipalKind.ValueType, federation: str, *, now: int) -> Organization:
        """A new one, with a certificate of number 1."""
        root_key = SigningKey.generate()
        return _certified(name, kind, federation, root_key, seq=1, now=now)

    @property
    def root(self) -> bytes:
        """What it is known by."""
        return self.root_key.public.raw

    @property
    def signer(self) -> pb.Signer:
        """Root and online key."""
        return pb.Signer(root=self.root, key=self.key.public.raw)

    def rotated(self, *, now: int) -> Organization:
        """The same organization with new online keys."""
        seq = self.cert.payload.seq + 1
        return _certified(self.name, self.kind, self.federation, self.root_key, seq=seq, now=now)

    def with_cert(self, cert: Signed[pb.KeyCert]) -> Organization:
        """The same keys under another certificate."""
        return replace(self, cert=cert)


def admit(
    operator: Person, organization: Organization, *, now: int, audit_scope: pb.AuditScope | None = None
) -> Signed[pb.Admission]:
    """The operator's admission of an organization; of an auditor with a scope."""
    payload = pb.Admission(
        federation=organization.federation,
        nonce=os.urandom(16),
        created_at=now,
        signer=operator.signer,
        root=organization.root,
        kind=organization.kind,
        name=organization.name,
        agreement_id="NDPA-2026-001",
        audit_scope=audit_scope,
    )
    return st.sign(st.ADMISSION, payload, [operator.key])


def suspend(operator: Person, organization: Organization, *, now: int) -> Signed[pb.Suspension]:
    """The operator's suspension of an organization."""
    payload = pb.Suspension(
        federation=organization.federation,
        nonce=os.urandom(16),
        created_at=now,
        signer=operator.signer,
        root=organization.root,
        agreement_id="NDPA-2026-001",
    )
    return st.sign(st.SUSPENSION, payload, [operator.key])


def _certified(
    name: str, kind: pb.PrincipalKind.ValueType, federation: str, root_key: SigningKey, *, seq: int, now: int
) -> Organization:
    key, sealing = SigningKey.generate(), SealingKey.generate()
    payload = pb.KeyCert(
        federation=federation,
        nonce=os.urandom(16),
        created_at=now,
        root=root_key.public.raw,
        signing_key=key.public.raw,
        sealing_key=sealing.public,
        seq=seq,
        valid_until=now + 90 * DAY,
    )
    return Organization(name, kind, federation, root_key, key, sealing, st.sign(st.KEY_CERT, payload, [root_key]))

"""As whom a client calls: keys, and for an organization the certificate that its root gave them.

Rules:

- A person (guardian, learner) and the operator sign with the key that they are.
- An organization signs with an online key; its certificate must name this very key, and its root signed it.

Example::

    identity = identify("provider.key", "provider.cert", federation="fed.example", passphrase=ask)
    identity.signer.root
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final, TypeAlias

from permslip import statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.armor import read_statement
from permslip.errors import ConfigurationError
from permslip.keyfile import Passphrase, StoredKeys, read_key_file
from permslip.keyformat import PrincipalKind
from permslip.standing import check_key_cert

__all__ = ["CertSource", "Identity", "KeySource", "identify"]

KeySource: TypeAlias = StoredKeys | str | os.PathLike[str]
CertSource: TypeAlias = pb.Envelope | str | os.PathLike[str]

_KINDS: Final[dict[PrincipalKind, pb.PrincipalKind.ValueType]] = {
    each: pb.PrincipalKind.Value(f"PRINCIPAL_KIND_{each.name}") for each in PrincipalKind
}
_ORGANIZATIONS: Final = frozenset(
    {PrincipalKind.PROVIDER, PrincipalKind.NODE, PrincipalKind.BROKER, PrincipalKind.AUDITOR}
)


@dataclass(frozen=True, slots=True)
class Identity:
    """As whom a client calls.

    Attributes:
        keys: what signs and opens.
        signer: root and signing key, as statements name them.
        kind: as which principal.
        cert: the organization's certificate; None for a person and the operator.
    """

    keys: StoredKeys
    signer: pb.Signer
    kind: pb.PrincipalKind.ValueType
    cert: st.Signed[pb.KeyCert] | None = None

    @property
    def root(self) -> bytes:
        """Who it is: the key that grants name."""
        return self.signer.root


def identify(
    keys: KeySource, cert: CertSource | None, *, federation: str, passphrase: Passphrase | None = None
) -> Identity:
    """Read keys and certificate, and check that they belong together.

    Args:
        keys: keys, or the path of their file.
        cert: the certificate, or the path of its armored file; for organizations alone.
        federation: its name.
        passphrase: of a protected key file.

    Raises:
        KeyFileError: the key file cannot be used.
        ConfigurationError: the certificate is missing, or is for another key.
        MalformedError: the certificate's file is not what the format says.
    """
    stored = keys if isinstance(keys, StoredKeys) else read_key_file(keys, passphrase=passphrase)
    public = stored.signing.public.raw
    kind = _KINDS[stored.kind]
    if stored.kind not in _ORGANIZATIONS:
        return Identity(stored, pb.Signer(root=public, key=public), kind)
    if cert is None:
        raise ConfigurationError(
            f"a {stored.kind} needs the certificate that its root key gave this key.",
            key="cert",
            remedy="Make one with: permslip keys certify.",
        )
    envelope = cert if isinstance(cert, pb.Envelope) else read_statement(cert, st.KEY_CERT)
    signed = st.verify(st.KEY_CERT, envelope, federation=federation)
    check_key_cert(signed.payload)
    sealing = stored.sealing.public if stored.sealing is not None else b""
    if signed.payload.signing_key != public or signed.payload.sealing_key != sealing:
        raise ConfigurationError(
            "the certificate is for other keys than those of the key file.",
            key="cert",
            remedy="Use the certificate that was made for these keys, or make a new one: permslip keys certify.",
        )
    return Identity(stored, pb.Signer(root=signed.payload.root, key=public), kind, signed)

"""Who this node is, and with which keys it signs and opens.

A node is an offline root key; what it signs with is the online key that its certificate names. Its sealing key opens
link requests; nothing else of it is secret.

Example::

    identity = load_identity(settings, now=now)
    identity.sign(st.ENDORSEMENT, payload)
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

from permslip import statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.armor import read_statement
from permslip.errors import ConfigurationError, KeyFileError, PermslipError
from permslip.keyfile import read_key_file
from permslip.keyformat import StoredKeys
from permslip.keys import PublicKey, SealingKey, SigningKey
from permslip.quantities import Millis
from permslip.standing import check_key_cert
from permslip.statements import Kind, Signed
from permslip_node.configuration import NodeSettings

__all__ = ["Identity", "load_identity", "make_identity"]

P = TypeVar("P", bound=Any)


@dataclass(frozen=True, slots=True)
class Identity:
    """The node's names and keys.

    Attributes:
        name: as parents see it.
        federation: the only one whose statements count here.
        operator: public key of the federation's operator.
        cert: this node's certificate.
        key: the private key that it names.
        sealing: the pair to which others seal.
        signer: root and online key.
    """

    name: str
    federation: str
    operator: bytes
    cert: Signed[pb.KeyCert]
    key: SigningKey
    sealing: SealingKey
    signer: pb.Signer

    @property
    def root(self) -> bytes:
        """The key that slips and grants name."""
        return self.cert.payload.root

    @property
    def page_key(self) -> bytes:
        """32 bytes with which the node seals page tokens to itself."""
        return blake2b(self.sealing.secret_seed(), digest_size=32, person=b"permslip-pages-1").digest()

    def sign(self, kind: Kind[P], payload: P) -> Signed[P]:
        """Sign a statement of this node."""
        return st.sign(kind, payload, [self.key])


def load_identity(settings: NodeSettings, *, now: Millis) -> Identity:
    """Read key file and certificate.

    Raises:
        ConfigurationError: they cannot be read, or do not belong together.
    """
    try:
        passphrase = None if settings.passphrase_file is None else _passphrase(settings.passphrase_file)
        keys = read_key_file(settings.key_file, passphrase=passphrase)
    except KeyFileError as error:
        raise ConfigurationError(error.message, key="node.key_file", remedy=error.remedy) from error
    try:
        envelope = read_statement(settings.cert_file, st.KEY_CERT)
        cert = st.verify(st.KEY_CERT, envelope, federation=settings.federation)
        check_key_cert(cert.payload)
    except PermslipError as error:
        raise ConfigurationError(error.message, key="node.cert_file", remedy=error.remedy) from error
    if settings.root is not None and PublicKey.from_did(settings.root).raw != cert.payload.root:
        raise ConfigurationError("the certificate is by another root than node.root.", key="node.cert_file")
    operator = PublicKey.from_did(settings.operator)
    return make_identity(settings.name, settings.federation, operator.raw, cert, keys, now=now)


def make_identity(
    name: str, federation: str, operator: bytes, cert: Signed[pb.KeyCert], keys: StoredKeys, *, now: Millis
) -> Identity:
    """The identity, when certificate and keys belong together.

    Raises:
        ConfigurationError: the certificate names other keys, or has run out.
    """
    if keys.sealing is None:
        raise ConfigurationError(
            "holds no sealing key.", key="node.key_file", remedy="Make it with: permslip node init."
        )
    payload = cert.payload
    if (payload.signing_key, payload.sealing_key) != (keys.signing.public.raw, keys.sealing.public):
        raise ConfigurationError(
            "names other keys than those in node.key_file.",
            key="node.cert_file",
            remedy="Certify these keys: permslip keys certify.",
        )
    if now >= payload.valid_until:
        raise ConfigurationError(
            "has run out.", key="node.cert_file", remedy="Make a new one with the node's root key."
        )
    signer = pb.Signer(root=payload.root, key=payload.signing_key)
    return Identity(name, federation, operator, cert, keys.signing, keys.sealing, signer)


def _passphrase(path: Path) -> bytes:
    try:
        return path.read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read: {error.strerror}.", key="node.passphrase_file", remedy="Name a readable file."
        ) from error

"""A node for development: keys, certificate and configuration made in one folder.

For a school that means to stay, make the root key on a machine of its own (``permslip keys``) and bring only the online
key and its certificate here.

Example::

    made = make_development_node(Path("high"), name="High School", federation="dev", operator=did, brokers=[…], now=now)
    made.cert                     # high/node.cert, to be registered with the federation's operator
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from permslip import statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.armor import write_statements
from permslip.client.settings import load_settings
from permslip.errors import ConfigurationError
from permslip.keyfile import PrincipalKind, StoredKeys, write_key_file
from permslip.keys import PublicKey, SealingKey, SigningKey
from permslip.quantities import Millis

__all__ = ["DevelopmentNode", "Joining", "make_development_node", "read_joining"]

_CERT_LIFETIME: Final = 365 * 86_400_000

# A JSON string is a TOML string, too.
_CONFIG: Final = """\
[node]
name = {name}
federation = {federation}
operator = {operator}
root = {root}
key_file = "node.key"
cert_file = "node.cert"
database = {database}
brokers = {brokers}
{broker_ca}ready_file = "node.ready"
"""


@dataclass(frozen=True, slots=True)
class DevelopmentNode:
    """What was made.

    Attributes:
        config: its configuration file.
        cert: the armored certificate of its online key.
        root: the node's root key, which slips and grants name.
    """

    config: Path
    cert: Path
    root: PublicKey


@dataclass(frozen=True, slots=True)
class Joining:
    """What a federation's ``permslip.toml`` says to a node that joins.

    Attributes:
        federation: its name.
        operator: did:key of its operator.
        brokers: ``ADDRESS=DID`` each.
        broker_ca: PEM of the authority that signed the brokers' TLS certificates, where one is named.
    """

    federation: str
    operator: str
    brokers: tuple[str, ...]
    broker_ca: Path | None


def read_joining(file: Path) -> Joining:
    """Read what a federation hands out to those who join it.

    Raises:
        ConfigurationError: it cannot be read, or names the key that is missing or wrong.
    """
    server = load_settings(file=file, given={}).server()
    root = PublicKey(server.broker_root).did
    return Joining(
        server.federation,
        PublicKey(server.operator).did,
        tuple(f"{address}={root}" for address in server.addresses),
        server.tls_ca,
    )


def make_development_node(
    folder: Path,
    *,
    name: str,
    federation: str,
    operator: PublicKey,
    brokers: Sequence[str],
    now: Millis,
    broker_ca: Path | None = None,
) -> DevelopmentNode:
    """Make everything that a node needs to start.

    Args:
        folder: is made if it is missing; must not hold a node.
        name: as parents see it.
        federation: its name.
        operator: the federation's operator.
        brokers: ``ADDRESS=DID`` each.
        now: when the certificate begins.
        broker_ca: PEM of the authority that signed the brokers' TLS certificates, if it is not loopback.

    Raises:
        ConfigurationError: there is a node in the folder.
        KeyFileError: a key file cannot be written.
    """
    config = folder / "node.toml"
    if config.exists():
        raise ConfigurationError(f"{config} exists.", key="node", remedy="Name an empty folder.")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    root, online, sealing = SigningKey.generate(), SigningKey.generate(), SealingKey.generate()
    write_key_file(folder / "node-root.key", StoredKeys(PrincipalKind.NODE, root))
    write_key_file(folder / "node.key", StoredKeys(PrincipalKind.NODE, online, sealing))
    cert = pb.KeyCert(
        federation=federation,
        nonce=os.urandom(16),
        created_at=now,
        root=root.public.raw,
        signing_key=online.public.raw,
        sealing_key=sealing.public,
        seq=1,
        valid_until=now + _CERT_LIFETIME,
    )
    write_statements(folder / "node.cert", [st.sign(st.KEY_CERT, cert, [root]).envelope])
    values = {
        "name": name,
        "federation": federation,
        "operator": operator.did,
        "root": root.public.did,
        "database": f"sqlite:///{(folder / 'node.db').resolve()}",
        "brokers": list(brokers),
    }
    ca_line = f"broker_ca_file = {json.dumps(str(broker_ca.resolve()))}\n" if broker_ca is not None else ""
    quoted = {key: json.dumps(value) for key, value in values.items()}
    config.write_text(_CONFIG.format(**quoted, broker_ca=ca_line), encoding="utf-8")
    return DevelopmentNode(config, folder / "node.cert", root.public)

"""A broker for development: keys, certificate and configuration made in one folder.

For a federation that is meant to last, make the operator's and the broker's root keys on a machine of their own
(``permslip keys``) and bring only the online key and its certificate here.

Example::

    made = make_development_broker(Path("dev"), federation="dev", listen="127.0.0.1:7443", now=now)
    made.config                     # dev/broker.toml
    made.joining                    # dev/permslip.toml
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from permslip import statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.armor import write_statements
from permslip.errors import ConfigurationError
from permslip.keyfile import PrincipalKind, StoredKeys, write_key_file
from permslip.keys import PublicKey, SealingKey, SigningKey
from permslip.quantities import Millis

__all__ = ["DevelopmentBroker", "make_development_broker"]

_CERT_LIFETIME: Final = 365 * 86_400_000

_CONFIG: Final = """\
[broker]
federation = "{federation}"
operator = "{operator}"
root = "{root}"
listen = "{listen}"
key_file = "broker.key"
cert_file = "broker.cert"
database = "sqlite:///{database}"
ready_file = "broker.ready"
"""


# For everybody who joins: nothing in it is secret. See permslip.client.settings.
_JOINING: Final = """\
broker = "{address}"
broker_root = "{root}"
federation = "{federation}"
operator = "{operator}"
"""


@dataclass(frozen=True, slots=True)
class DevelopmentBroker:
    """What was made.

    Attributes:
        config: its configuration file.
        joining: the ``permslip.toml`` to hand out to nodes, providers and guardians.
        root: the broker's root key, which clients pin.
        operator: the federation's operator.
        operator_key_file: None where the operator was given.
    """

    config: Path
    joining: Path
    root: PublicKey
    operator: PublicKey
    operator_key_file: Path | None


def make_development_broker(
    folder: Path,
    *,
    federation: str,
    listen: str,
    now: Millis,
    address: str | None = None,
    operator: PublicKey | None = None,
) -> DevelopmentBroker:
    """Make everything that a broker needs to start.

    Args:
        folder: is made if it is missing; must not hold a broker.
        federation: its name.
        listen: HOST:PORT.
        now: when the certificate begins.
        address: HOST:PORT that others dial; as ``listen`` unless given.
        operator: the federation's operator; a key is made unless given.

    Raises:
        ConfigurationError: there is a broker in the folder.
        KeyFileError: a key file cannot be written.
    """
    config = folder / "broker.toml"
    if config.exists():
        raise ConfigurationError(f"{config} exists.", key="broker", remedy="Name an empty folder.")
    folder.mkdir(parents=True, exist_ok=True)
    operator_key_file = None
    if operator is None:
        operator_key = SigningKey.generate()
        operator, operator_key_file = operator_key.public, folder / "operator.key"
        write_key_file(operator_key_file, StoredKeys(PrincipalKind.OPERATOR, operator_key))
    root, online, sealing = SigningKey.generate(), SigningKey.generate(), SealingKey.generate()
    write_key_file(folder / "broker-root.key", StoredKeys(PrincipalKind.BROKER, root))
    write_key_file(folder / "broker.key", StoredKeys(PrincipalKind.BROKER, online, sealing))
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
    write_statements(folder / "broker.cert", [st.sign(st.KEY_CERT, cert, [root]).envelope])
    content = _CONFIG.format(
        federation=federation,
        operator=operator.did,
        root=root.public.did,
        listen=listen,
        database=(folder / "broker.db").resolve(),
    )
    config.write_text(content, encoding="utf-8")
    joining = folder / "permslip.toml"
    told = _JOINING.format(
        address=address or listen, root=root.public.did, federation=federation, operator=operator.did
    )
    joining.write_text(told, encoding="utf-8")
    return DevelopmentBroker(config, joining, root.public, operator, operator_key_file)

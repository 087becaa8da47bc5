"""Where the broker is and whom to trust: from arguments, the environment, or a ``permslip.toml``.

The file, every key optional there, paths relative to the file itself::

    broker = "broker.example:7443"        # or several, separated by commas
    broker_root = "did:key:z6Mk…"         # the broker's root key, pinned
    federation = "grand-bend"
    operator = "did:key:z6Mk…"            # the federation operator's key, pinned
    tls_ca = "ca.pem"                     # certificates to trust instead of the system's
    key = "provider.key"
    cert = "provider.cert"
    wallet = "wallet"                     # a guardian's folder
    witnesses = "witnesses.txt"           # the federation's witness sets: who must have cosigned the broker's ledger

Rules:

- What is given directly wins over ``PERMSLIP_<KEY>`` in the environment, and that over the file.
- An unknown key, a wrong type or a missing value is an error that names the key.
- Nothing secret stands here: keys stay in key files, slips in the wallet.

Example::

    settings = load_settings(file="permslip.toml", given={"broker": "127.0.0.1:7443"})
    settings.server().federation
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from permslip.errors import ConfigurationError, PermslipError
from permslip.keys import PublicKey

__all__ = ["KEYS", "Server", "Settings", "load_settings", "server_of"]

KEYS: Final = ("broker", "broker_root", "federation", "operator", "tls_ca", "key", "cert", "wallet", "witnesses")
_PATHS: Final = frozenset({"tls_ca", "key", "cert", "wallet", "witnesses"})
_FILE: Final = "permslip.toml"


@dataclass(frozen=True, slots=True)
class Server:
    """A broker, and whom to trust about it.

    Attributes:
        addresses: ``host:port`` of each replica, in the order in which they are tried.
        broker_root: the broker's root key.
        federation: the federation's name.
        operator: the key of the federation's operator.
        tls_ca: PEM file of the certificates to trust; None: the system's, and no TLS on loopback.
    """

    addresses: tuple[str, ...]
    broker_root: bytes
    federation: str
    operator: bytes
    tls_ca: Path | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, by key; see the module's text."""

    values: Mapping[str, str]

    def get(self, key: str) -> str | None:
        """The value of a key, if it was set."""
        return self.values.get(key)

    def need(self, key: str) -> str:
        """The value of a key.

        Raises:
            ConfigurationError: it was not set.
        """
        value = self.values.get(key)
        if not value:
            raise ConfigurationError(
                "is not set.",
                key=key,
                remedy=f"Give --{key.replace('_', '-')}, set PERMSLIP_{key.upper()}, or write it in {_FILE}.",
            )
        return value

    def server(self) -> Server:
        """The broker to call.

        Raises:
            ConfigurationError: names the key that is missing or wrong.
        """
        return server_of(
            self.need("broker"),
            self.need("broker_root"),
            self.need("federation"),
            self.need("operator"),
            self.get("tls_ca"),
        )


def load_settings(*, file: str | os.PathLike[str] | None = None, given: Mapping[str, str | None]) -> Settings:
    """Gather the settings.

    Args:
        file: a ``permslip.toml``; without it that of ``PERMSLIP_CONFIG``, else one in the working directory, if any.
        given: what wins over everything else; None and empty values do not count.

    Raises:
        ConfigurationError: the file cannot be read, or holds something else than settings.
    """
    named = file or os.environ.get("PERMSLIP_CONFIG")
    path = Path(named) if named else Path(_FILE)
    values = _read(path) if named or path.is_file() else {}
    for key in KEYS:
        if value := given.get(key) or os.environ.get(f"PERMSLIP_{key.upper()}"):
            values[key] = value
    return Settings(values)


def server_of(broker: str, broker_root: str, federation: str, operator: str, tls_ca: str | Path | None) -> Server:
    """Check and collect what a connection needs; arguments as in the module's text.

    Raises:
        ConfigurationError: names the key that is wrong.
    """
    addresses = tuple(each.strip() for each in broker.split(","))
    for each in addresses:
        host, _, port = each.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise ConfigurationError(f"expected host:port, got {each!r}.", key="broker")
    return Server(
        addresses,
        _public_key(broker_root, "broker_root"),
        federation,
        _public_key(operator, "operator"),
        Path(tls_ca) if tls_ca else None,
    )


def _public_key(text: str, key: str) -> bytes:
    try:
        return PublicKey.from_did(text).raw
    except PermslipError as error:
        raise ConfigurationError(error.message, key=key, remedy=error.remedy) from error


def _read(path: Path) -> dict[str, str]:
    try:
        with path.open("rb") as stream:
            table: dict[str, Any] = tomllib.load(stream)
    except OSError as error:
        raise ConfigurationError(
            f"cannot be read: {error.strerror}.",
            key=str(path),
            remedy=f"Name the federation's {_FILE}; its operator hands it out.",
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"is not TOML: {error}.", key=str(path)) from error
    values: dict[str, str] = {}
    for key, value in table.items():
        if key not in KEYS:
            raise ConfigurationError(
                "there is no such key.",
                key=key,
                remedy=f"The keys are: {', '.join(KEYS)}. It stands in {path}; is that the federation's {_FILE}?",
            )
        if not isinstance(value, str):
            raise ConfigurationError(f"expected text, got {type(value).__name__}.", key=key)
        values[key] = str(path.parent / Path(value).expanduser()) if key in _PATHS else value
    return values

"""What a broker is told at its start: the ``[broker]`` table of a TOML file, overlaid by ``PERMSLIP_BROKER__…``.

Rules:

- No secret stands here: keys are in the key file that is named.
- Without TLS a broker listens on loopback only.

Example (``deploy/broker.toml`` shows every key)::

    [broker]
    federation = "grand-bend"
    listen = "127.0.0.1:7443"
    operator = "did:key:z6Mk…"
    key_file = "broker.key"
    cert_file = "broker.cert"
    database = "sqlite:///broker.db"
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from permslip.errors import PermslipError
from permslip.hosting.configuration import load, setting
from permslip.hosting.database import url_problem
from permslip.hosting.logs import Level
from permslip.keys import PublicKey
from permslip_broker.credit import CHUNK

__all__ = [
    "BrokerSettings",
    "LedgerSettings",
    "LimitSettings",
    "LogSettings",
    "MetricsSettings",
    "TlsSettings",
    "load_settings",
]


def _did_problem(text: str) -> str:
    try:
        PublicKey.from_did(text)
    except PermslipError as error:
        return error.message
    return ""


def _name_problem(text: str) -> str:
    if not text or len(text) > 64 or not text[0].isalpha() or set(text) - set("abcdefghijklmnopqrstuvwxyz0123456789-."):
        return "expected at most 64 lower-case letters, digits, '-' and '.', beginning with a letter"
    return ""


def _address_problem(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65_535:
        return "expected HOST:PORT, e.g. 127.0.0.1:7443 or [::1]:7443"
    return ""


@dataclass(frozen=True)
class TlsSettings:
    """Files of the server's certificate chain and its private key (PEM); none: plaintext, on loopback alone.

    Attributes:
        certificate_file: chain, the server's own first.
        key_file: its private key.
        client_ca_file: demands a client certificate that this authority signed.
    """

    certificate_file: Path | None = None
    key_file: Path | None = None
    client_ca_file: Path | None = None


@dataclass(frozen=True)
class LimitSettings:
    """What callers may take.

    Attributes:
        open_queries: that may be open on one stream.
        default_deadline_ms, max_deadline_ms: how long an answer may take.
        requester_bytes: that may wait for one requester before its answers get no more credit.
        memory_bytes: that may wait for all requesters before new queries are refused.
        first_credit_bytes: of an answer that a node may send unasked.
        answer_credit_bytes: of an answer that may be ahead of what its requester has taken.
        refusals_per_second: refused requests that are recorded in the ledger.
        waiting_grants_per_signer: grants of one key that may wait for their schools' word.
        waiting_grants_per_node: grants that may wait for one school's word; who has an endorsed one there passes.
        drain_seconds: that open answers get when the broker stops.
        link_seconds: that a node gets to answer a link request.
    """

    open_queries: int = setting(512, minimum=1, maximum=65_536)
    default_deadline_ms: int = setting(30_000, minimum=1, maximum=600_000)
    max_deadline_ms: int = setting(120_000, minimum=1, maximum=600_000)
    requester_bytes: int = setting(4 << 20, minimum=65_536)
    memory_bytes: int = setting(256 << 20, minimum=1 << 20)
    first_credit_bytes: int = setting(72 << 10, minimum=CHUNK)
    answer_credit_bytes: int = setting(256 << 10, minimum=2 * CHUNK)
    refusals_per_second: int = setting(50, minimum=0)
    # A family of five children at six schools each, and a few grantees for all of them; four whole calls.
    waiting_grants_per_signer: int = setting(256, minimum=1)
    # Every family of a large district on the day that its school is off line, at some 2 KB each.
    waiting_grants_per_node: int = setting(50_000, minimum=1)
    drain_seconds: float = setting(10.0, minimum=0.0)
    link_seconds: float = setting(10.0, minimum=0.1)


@dataclass(frozen=True)
class LedgerSettings:
    """How the ledger is shown to be the same for everybody.

    Attributes:
        checkpoint_ms: between two checkpoints that are offered to the witnesses because the ledger grew.
        node_checkpoint_s: after which an attached node is asked for a checkpoint of its own ledger again.
    """

    checkpoint_ms: int = setting(1_000, minimum=10, maximum=3_600_000)
    node_checkpoint_s: float = setting(60.0, minimum=0.05)


@dataclass(frozen=True)
class LogSettings:
    """How much is logged, to standard error.

    Attributes:
        level: the least grave line that is written.
    """

    level: Level = "info"


@dataclass(frozen=True)
class MetricsSettings:
    """Where Prometheus reads.

    Attributes:
        listen: HOST:PORT; empty: nowhere.
    """

    listen: str = ""


@dataclass(frozen=True)
class BrokerSettings:
    """One broker.

    Attributes:
        federation: its name.
        operator: did:key of the federation's operator.
        key_file: of the online key.
        cert_file: the armored certificate of that key, by the broker's root.
        database: URL.
        root: did:key of the broker's own root; where given, the certificate must be by it.
        listen: HOST:PORT; port 0 takes a free one.
        origin: name of the ledger in checkpoints; ``<federation>/broker`` unless given.
        witness_set_file: the operator's set of witnesses; without it all admitted nodes are asked to cosign.
        passphrase_file: of a protected key file.
        ready_file: written with the address listened on, once the broker serves.
    """

    key_file: Path
    cert_file: Path
    federation: str = setting(check=_name_problem)
    operator: str = setting(check=_did_problem)
    database: str = setting(check=url_problem)
    root: str | None = setting(None, check=_did_problem)
    listen: str = setting("127.0.0.1:7443", check=_address_problem)
    origin: str = ""
    witness_set_file: Path | None = None
    passphrase_file: Path | None = None
    ready_file: Path | None = None
    tls: TlsSettings = TlsSettings()
    limits: LimitSettings = LimitSettings()
    ledger: LedgerSettings = LedgerSettings()
    log: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()

    @property
    def ledger_origin(self) -> str:
        """The checkpoint's origin line."""
        return self.origin or f"{self.federation}/broker"


def load_settings(path: Path | None, environ: Mapping[str, str]) -> BrokerSettings:
    """Read and check a broker's configuration.

    Raises:
        ConfigurationError: names the key.
    """
    return load(BrokerSettings, path, environ, "broker")

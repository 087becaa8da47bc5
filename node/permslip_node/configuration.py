"""What a node is told at its start: the ``[node]`` table of a TOML file, overlaid by ``PERMSLIP_NODE__…``.

Rules:

- No secret stands here: keys are in the key file that is named.
- A broker is ``ADDRESS=DID``: the DID pins the broker's root key, whatever the address answers.
- Without a certificate authority the node dials brokers on loopback only.

Example (``deploy/node.toml`` shows every key)::

    [node]
    name = "Grand Bend High School"
    federation = "grand-bend"
    operator = "did:key:z6Mk…"
    key_file = "node.key"
    cert_file = "node.cert"
    database = "sqlite:///node.db"
    brokers = ["broker.example:7443=did:key:z6Mk…"]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from permslip.errors import PermslipError
from permslip.hosting.configuration import load, setting
from permslip.hosting.database import url_problem
from permslip.hosting.logs import Level
from permslip.keys import PublicKey

__all__ = [
    "BrokerAddress",
    "LimitSettings",
    "LogSettings",
    "MetricsSettings",
    "NodeSettings",
    "TimingSettings",
    "load_settings",
    "parse_broker",
]

_NAME: frozenset[str] = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-.")


class BrokerAddress(NamedTuple):
    """Where a broker is dialled, and the root key that it must prove to have."""

    address: str
    root: bytes


def parse_broker(text: str) -> BrokerAddress:
    """Read ``ADDRESS=DID``.

    Raises:
        MalformedError: the DID is not one.
        KeyRejectedError: its key must not be used.
    """
    address, _, did = text.partition("=")
    return BrokerAddress(address, PublicKey.from_did(did, field=f"broker {address}").raw)


def _did_problem(text: str) -> str:
    try:
        PublicKey.from_did(text)
    except PermslipError as error:
        return error.message
    return ""


def _federation_problem(text: str) -> str:
    if not text or len(text) > 64 or not text[0].isalpha() or set(text) - _NAME:
        return "expected at most 64 lower-case letters, digits, '-' and '.', beginning with a letter"
    return ""


def _brokers_problem(brokers: tuple[str, ...]) -> str:
    for text in brokers:
        host, _, port = text.partition("=")[0].rpartition(":")
        if not host or not port.isdigit() or int(port) > 65_535:
            return f"expected HOST:PORT=did:key:z6Mk…, got {text!r}"
        if problem := _did_problem(text.partition("=")[2]):
            return f"{text!r}: {problem}"
    return ""


def _name_problem(text: str) -> str:
    if not text or len(text.encode()) > 128 or text != text.strip() or not text.isprintable():
        return "expected one printed line of at most 128 bytes"
    return ""


@dataclass(frozen=True)
class TimingSettings:
    """How often, and for how long.

    Attributes:
        lease_interval_ms: between two lease requests.
        lease_ms: age of the newest answered lease request from which on nobody is answered any more.
        first_retry_ms, longest_retry_ms: before a broken stream is dialled again; grows between the two, with jitter.
        keepalive_ms: after which silence the broker is asked for a sign of life; it has the same time to give one.
        notice_ms: between two looks for what other processes wrote into the database.
        renew_s: between two looks for endorsements that end soon.
        drain_s: that open answers get when the node stops.
    """

    lease_interval_ms: int = setting(1_000, minimum=10, maximum=2_000)
    lease_ms: int = setting(5_000, minimum=50, maximum=5_000)
    first_retry_ms: int = setting(200, minimum=1, maximum=60_000)
    longest_retry_ms: int = setting(15_000, minimum=1, maximum=600_000)
    keepalive_ms: int = setting(2_000, minimum=100, maximum=60_000)
    notice_ms: int = setting(100, minimum=10, maximum=1_000)
    renew_s: float = setting(3_600.0, minimum=0.05)
    drain_s: float = setting(10.0, minimum=0.0)


@dataclass(frozen=True)
class LimitSettings:
    """What brokers and requesters may take.

    Attributes:
        open_queries: that are answered at once, all brokers together.
        waiting_bytes: of answers that may wait for one broker's stream.
        deadline_ms: that an answer may take at most, whatever the broker allows.
        slip_days: that a printed slip is good for.
        slip_tries: wrong answers after which a slip is dead.
    """

    open_queries: int = setting(1_024, minimum=1, maximum=65_536)
    waiting_bytes: int = setting(1 << 20, minimum=65_536)
    deadline_ms: int = setting(120_000, minimum=1, maximum=600_000)
    slip_days: int = setting(14, minimum=1, maximum=60)
    slip_tries: int = setting(5, minimum=1, maximum=20)


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
class NodeSettings:
    """One node.

    Attributes:
        name: as parents see it.
        federation: its name.
        operator: did:key of the federation's operator.
        key_file: of the online key.
        cert_file: the armored certificate of that key, by the node's root.
        database: URL.
        brokers: ``ADDRESS=DID`` each.
        root: did:key of the node's own root; where given, the certificate must be by it.
        broker_ca_file: PEM of the authority that signed the brokers' certificates; none: plaintext, loopback alone.
        quorum: the rule where a learner has none of her own: ``any`` guardian, or ``all`` of them.
        majority_age: in years; where given, an import says by the birth date when a learner comes of age and decides
            herself, but for those of whom ``permslip node majority`` has said it.
        origin: name of the node's ledger in checkpoints; ``<federation>/node/<root>`` unless given.
        passphrase_file: of a protected key file.
        ready_file: written once the node may answer for the first time: attached, caught up, with a fresh lease.
    """

    key_file: Path
    cert_file: Path
    name: str = setting(check=_name_problem)
    federation: str = setting(check=_federation_problem)
    operator: str = setting(check=_did_problem)
    database: str = setting(check=url_problem)
    brokers: tuple[str, ...] = setting((), check=_brokers_problem)
    root: str | None = setting(None, check=_did_problem)
    broker_ca_file: Path | None = None
    quorum: Literal["any", "all"] = "any"
    majority_age: int | None = setting(None, minimum=1, maximum=30)
    origin: str = ""
    passphrase_file: Path | None = None
    ready_file: Path | None = None
    timing: TimingSettings = TimingSettings()
    limits: LimitSettings = LimitSettings()
    log: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()

    @property
    def broker_addresses(self) -> tuple[BrokerAddress, ...]:
        """The brokers to dial."""
        return tuple(parse_broker(each) for each in self.brokers)


def load_settings(path: Path | None, environ: Mapping[str, str]) -> NodeSettings:
    """Read and check a node's configuration.

    Paths in the file are relative to its folder. ``database`` is a URL and no path: a relative SQLite file is looked
    for where the node runs, so ``permslip node init`` writes the full path.

    Raises:
        ConfigurationError: names the key.
    """
    return load(NodeSettings, path, environ, "node")

"""Configuration: what is read, what overrides what, and how each mistake is named."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from permslip.errors import ConfigurationError
from permslip.hosting.configuration import environment_name, load, setting
from permslip.hosting.database import url_problem


@dataclass(frozen=True)
class Limits:
    open_queries: int = setting(1_000, minimum=1, maximum=100_000)
    grace_seconds: float = setting(10.0, minimum=0)


@dataclass(frozen=True)
class Tls:
    certificate: Path
    client_authorities: Path | None = None


@dataclass(frozen=True)
class Peer:
    address: str
    key_file: Path


@dataclass(frozen=True)
class Broker:
    federation: str = setting(minimum=1, maximum=64)
    database: str = setting("sqlite:///broker.db", check=url_problem)
    key_file: Path = Path("broker.key")
    passphrase_file: Path | None = None
    reflection: bool = True
    log_level: Literal["debug", "info", "warning"] = "info"
    witnesses: tuple[str, ...] = setting((), maximum=3)
    limits: Limits = Limits()
    tls: Tls | None = None
    peers: tuple[Peer, ...] = ()


MINIMAL = '[broker]\nfederation = "grand-bend"\n'


@pytest.fixture
def read(tmp_path: Path) -> Any:
    def read(text: str, **environ: str) -> Broker:
        file = tmp_path / "permslip.toml"
        file.write_text(text)
        return load(Broker, file, environ, "broker")

    return read


def test_defaults_stand_where_the_file_says_nothing(read: Any) -> None:
    assert read(MINIMAL) == Broker("grand-bend")


def test_every_type_is_read_from_a_file(read: Any, tmp_path: Path) -> None:
    broker = read("""
        [broker]
        federation = "grand-bend"
        key_file = "keys/broker.key"
        passphrase_file = "/run/secrets/passphrase"
        reflection = false
        log_level = "warning"
        witnesses = ["a", "b"]
        [broker.limits]
        open_queries = 5
        grace_seconds = 3
        [broker.tls]
        certificate = "tls.pem"
        [[broker.peers]]
        address = "other:7443"
        key_file = "peer.key"
        [node]
        anything = "is not this service's"
        """)

    assert broker == Broker(
        federation="grand-bend",
        key_file=tmp_path / "keys/broker.key",
        passphrase_file=Path("/run/secrets/passphrase"),
        reflection=False,
        log_level="warning",
        witnesses=("a", "b"),
        limits=Limits(5, 3.0),
        tls=Tls(tmp_path / "tls.pem"),
        peers=(Peer("other:7443", tmp_path / "peer.key"),),
    )
    assert isinstance(broker.limits.grace_seconds, float)


def test_environment_overrides_the_file(read: Any) -> None:
    broker = read(
        MINIMAL + 'witnesses = ["a"]\n[broker.limits]\nopen_queries = 5\n',
        PERMSLIP_BROKER__WITNESSES="b, c",
        PERMSLIP_BROKER__REFLECTION="False",
        PERMSLIP_BROKER__KEY_FILE="there.key",
        PERMSLIP_BROKER__LIMITS__GRACE_SECONDS="0.5",
        PERMSLIP_BROKER__TLS__CERTIFICATE="tls.pem",
        PERMSLIP_BROKER__PASSPHRASE_FILE="",
        PERMSLIP_NODE__LISTEN="not this service's",
        PATH="/bin",
    )

    assert broker == Broker(
        federation="grand-bend",
        key_file=Path("there.key"),
        reflection=False,
        witnesses=("b", "c"),
        limits=Limits(5, 0.5),
        tls=Tls(Path("tls.pem")),
    )


def test_environment_alone_is_enough() -> None:
    assert load(Broker, None, {"PERMSLIP_BROKER__FEDERATION": "x"}, "broker") == Broker("x")


def test_name_of_a_variable_is_the_dotted_key() -> None:
    assert environment_name("broker.limits.open_queries") == "PERMSLIP_BROKER__LIMITS__OPEN_QUERIES"


@pytest.mark.parametrize(
    ("text", "key", "says"),
    [
        ("[broker]\n", "broker.federation", "expected text in"),
        (
            "[broker]\nfederation = 7\n",
            "broker.federation",
            "got 7. Put it between quotation marks.",
        ),
        ('[broker]\nfederation = ""\n', "broker.federation", "expected at least 1"),
        (MINIMAL + "reflection = 1\n", "broker.reflection", "expected true or false"),
        (MINIMAL + 'reflexion = "x"\n', "broker.reflexion", "Did you mean reflection?"),
        (MINIMAL + "zzz = 1\n", "broker.zzz", "It may be one of federation"),
        (MINIMAL + 'passphrase = "x"\n', "broker.passphrase", "passphrase_file"),
        (MINIMAL + 'admin_token = "x"\n', "broker.admin_token", "must not hold a secret"),
        (MINIMAL + 'log_level = "warn"\n', "broker.log_level", "expected one of 'debug'.*Did you mean warning?"),
        (MINIMAL + 'witnesses = "a"\n', "broker.witnesses", "expected a list"),
        (MINIMAL + 'witnesses = ["a", 2]\n', "broker.witnesses[1]", "expected text"),
        (MINIMAL + 'witnesses = ["a", "b", "c", "d"]\n', "broker.witnesses", "at most 3"),
        (MINIMAL + 'key_file = ""\n', "broker.key_file", "expected a path"),
        (MINIMAL + "limits = 5\n", "broker.limits", "expected a table"),
        (MINIMAL + "[broker.limits]\nopen_queries = 0\n", "broker.limits.open_queries", "at least 1 in .* got 0"),
        (MINIMAL + "[broker.limits]\nopen_queries = true\n", "broker.limits.open_queries", "a whole number"),
        (MINIMAL + "[broker.limits]\nopen_queries = 1.5\n", "broker.limits.open_queries", "a whole number"),
        (MINIMAL + "[broker.limits]\nopen_querys = 1\n", "broker.limits.open_querys", "Did you mean open_queries?"),
        (MINIMAL + "[broker.tls]\n[broker.tls.more]\n", "broker.tls.more", "not known"),
        (MINIMAL + "[[broker.peers]]\naddress = 'x'\n", "broker.peers[0].key_file", "expected a path"),
        (MINIMAL + "peers = [1]\n", "broker.peers[0]", "expected a table"),
        (MINIMAL + 'database = "postgresql+psycopg://u:pw@h/d"\n', "broker.database", "pgpass"),
        ("[brooker]\n", "broker", r"expected a table \[broker\].*Did you mean brooker?"),
        ("broker = 1\n", "broker", "expected a table"),
        ("[broker\n", "broker", "is not TOML"),
    ],
)
def test_mistake_in_the_file_is_named_by_its_key(read: Any, tmp_path: Path, text: str, key: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=f"(?s){says}") as raised:
        read(text)

    assert raised.value.key == key
    assert str(tmp_path / "permslip.toml") in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("LIMITS__OPEN_QUERIES", "many", "expected a whole number in the environment variable PERMSLIP_BROKER__LIMITS"),
        ("LIMITS__OPEN_QUERIES", "0", "at least 1"),
        ("LIMITS__GRACE_SECONDS", "soon", "expected a number"),
        ("REFLECTION", "yes", "expected true or false"),
        ("KEY_FILE", "", "expected a path"),
        ("LISTEM", "x", "PERMSLIP_BROKER__LISTEM: there is no such key"),
        ("DATABASES", "x", "Did you mean PERMSLIP_BROKER__DATABASE?"),
        ("PEERS", "x", "expected a table"),
    ],
)
def test_mistake_in_the_environment_is_named_by_its_variable(read: Any, name: str, value: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        read(MINIMAL, **{f"PERMSLIP_BROKER__{name}": value})


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        load(Broker, tmp_path / "none.toml", {}, "broker")


def test_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "latin.toml"
    file.write_bytes(b'[broker]\nfederation = "caf\xe9"\n')

    with pytest.raises(ConfigurationError, match="not UTF-8"):
        load(Broker, file, {}, "broker")


def test_endless_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "large.toml"
    file.write_text("#" * (1 << 20) + "\n")

    with pytest.raises(ConfigurationError, match="larger than"):
        load(Broker, file, {}, "broker")

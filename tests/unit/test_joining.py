"""A federation is joined by the file that its operator hands out, and an organization admitted by its certificate."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from permslip.cli import main
from permslip.client.settings import KEYS
from permslip_node.configuration import load_settings


def typed(*words: str) -> Result:
    return CliRunner().invoke(main, words)


@pytest.fixture
def federation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which a broker's keys and files were made, and which commands run in."""
    monkeypatch.chdir(tmp_path)
    made = typed("broker", "init", "centre", "--federation", "maple", "--address", "broker.example:7443")
    assert made.exit_code == 0, made.output
    return tmp_path


def test_what_is_handed_out_says_where_the_broker_is_dialled_and_holds_no_path(federation: Path) -> None:
    told = tomllib.loads((federation / "centre" / "permslip.toml").read_text("utf-8"))

    assert set(told) == {"broker", "broker_root", "federation", "operator"} < set(KEYS)
    assert told["broker"] == "broker.example:7443"
    assert told["federation"] == "maple"


def test_a_node_that_joins_trusts_what_the_federation_handed_out(federation: Path) -> None:
    handed_out = federation / "centre" / "permslip.toml"
    with handed_out.open("a", encoding="utf-8") as file:
        file.write('tls_ca = "ca.pem"\n')

    made = typed("node", "init", "high", "--name", "High School", "--join", str(handed_out))

    assert made.exit_code == 0, made.output
    settings, told = load_settings(federation / "high" / "node.toml", {}), tomllib.loads(handed_out.read_text("utf-8"))
    assert settings.federation == "maple"
    assert settings.operator == told["operator"]
    assert settings.brokers == (f"broker.example:7443={told['broker_root']}",)
    assert settings.broker_ca_file == federation / "centre" / "ca.pem"


@pytest.mark.parametrize("more", [("--federation", "maple"), ("--broker", "127.0.0.1:1=did:key:z")])
def test_a_node_that_joins_is_told_nothing_twice(federation: Path, more: tuple[str, str]) -> None:
    made = typed("node", "init", "high", "--name", "High School", "--join", "centre/permslip.toml", *more)

    assert made.exit_code == 2
    assert not (federation / "high").exists()


def test_a_node_without_a_federation_is_not_made(federation: Path) -> None:
    made = typed("node", "init", "high", "--name", "High School")

    assert made.exit_code == 2
    assert "--join" in made.output


def test_a_certificate_of_another_root_is_not_taken_for_the_one_that_is_named(federation: Path) -> None:
    typed("node", "init", "high", "--name", "High School", "--join", "centre/permslip.toml")
    stranger = "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp"

    refused = typed(
        *("operator", "--config", "centre/permslip.toml", "--key", "centre/operator.key", "admit", stranger),
        *("--kind", "node", "--name", "High School", "--agreement", "NDPA-1", "--cert", "high/node.cert"),
    )

    assert refused.exit_code == 1
    assert "is a certificate of did:key:" in refused.output


def test_somebody_must_be_named_to_be_admitted(federation: Path) -> None:
    refused = typed(
        *("operator", "--config", "centre/permslip.toml", "--key", "centre/operator.key", "admit"),
        *("--kind", "node", "--name", "High School", "--agreement", "NDPA-1"),
    )

    assert refused.exit_code == 2

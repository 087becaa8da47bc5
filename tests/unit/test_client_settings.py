"""Settings come from what is given, the environment and a file, in this order, and an error names the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from permslip.client.settings import KEYS, load_settings
from permslip.errors import ConfigurationError
from permslip.keys import SigningKey

DID = SigningKey.from_seed(bytes(32)).public.did


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for key in (*KEYS, "config"):
        monkeypatch.delenv(f"PERMSLIP_{key.upper()}", raising=False)
    monkeypatch.chdir(tmp_path)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_what_is_given_wins_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "p.toml", 'broker = "file:1"\nfederation = "file"\noperator = "file"\n')
    monkeypatch.setenv("PERMSLIP_BROKER", "environment:1")
    monkeypatch.setenv("PERMSLIP_FEDERATION", "environment")

    settings = load_settings(file=file, given={"broker": "given:1", "federation": None})

    assert [settings.get(key) for key in ("broker", "federation", "operator", "key")] == [
        "given:1",
        "environment",
        "file",
        None,
    ]


def test_paths_in_the_file_are_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    file = write(tmp_path / "sub" / "p.toml", 'key = "provider.key"\nwallet = "/family"\n')

    settings = load_settings(file=file, given={})

    assert settings.need("key") == str(tmp_path / "sub" / "provider.key")
    assert settings.need("wallet") == "/family"


def test_a_file_in_the_working_directory_is_read(tmp_path: Path) -> None:
    write(tmp_path / "permslip.toml", 'federation = "here"\n')

    assert load_settings(given={}).get("federation") == "here"


def test_a_file_that_the_environment_names_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERMSLIP_CONFIG", str(write(tmp_path / "other.toml", 'federation = "there"\n')))

    assert load_settings(given={}).get("federation") == "there"


def test_without_anything_nothing_is_set_and_a_needed_key_is_named() -> None:
    with pytest.raises(ConfigurationError, match="broker: is not set. Give --broker, set PERMSLIP_BROKER"):
        load_settings(given={}).server()


def test_the_broker_to_call_is_collected_and_checked() -> None:
    given = {"broker": "a.example:1, b.example:2", "broker_root": DID, "federation": "fed", "operator": DID}

    server = load_settings(given={**given, "tls_ca": "ca.pem"}).server()

    assert server.addresses == ("a.example:1", "b.example:2")
    assert server.tls_ca == Path("ca.pem")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("broker = 7", "broker: expected text, got int"),
        ('colour = "red"', "colour: there is no such key. The keys are: broker"),
        ("broker", "is not TOML"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_named(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_settings(file=write(tmp_path / "p.toml", content), given={})


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        load_settings(file=tmp_path / "absent.toml", given={})


def test_a_key_that_does_not_belong_there_is_said_to_stand_in_which_file(tmp_path: Path) -> None:
    path = write(tmp_path / "node.toml", '[node]\nname = "High"\n')

    with pytest.raises(ConfigurationError, match=f"node: there is no such key.*It stands in {path}"):
        load_settings(file=path, given={})

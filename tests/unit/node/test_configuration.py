"""A node's configuration: the example is complete, and what is wrong is named by its key."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from permslip.errors import ConfigurationError
from permslip.keys import SigningKey
from permslip_node.configuration import NodeSettings, load_settings, parse_broker

DID = SigningKey.from_seed(bytes(32)).public.did


def write(folder: Path, **changes: Any) -> Path:
    values = {
        "name": "Grand Bend High School",
        "federation": "grand-bend",
        "operator": DID,
        "key_file": "node.key",
        "cert_file": "node.cert",
        "database": "sqlite:///node.db",
        "brokers": [f"127.0.0.1:7443={DID}"],
    } | changes
    path = folder / "node.toml"
    path.write_text(
        "[node]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in values.items()), encoding="utf-8"
    )
    return path


def test_example_shows_every_setting_and_is_one(repo_root: Path) -> None:
    example = repo_root / "deploy" / "node.toml"
    settings = load_settings(example, {})
    text = example.read_text(encoding="utf-8")

    def names(cls: Any) -> set[str]:
        found: set[str] = set()
        for field in dataclasses.fields(cls):
            value = getattr(settings, field.name, None)
            if dataclasses.is_dataclass(value):
                assert f"[node.{field.name}]" in text
                found |= {each.name for each in dataclasses.fields(value)}
            else:
                found.add(field.name)
        return found

    shown = set(re.findall(r"^(?:# )?([a-z_]+) = ", text, re.MULTILINE))
    assert shown == names(NodeSettings)


def test_commented_defaults_of_the_example_are_the_defaults(repo_root: Path, tmp_path: Path) -> None:
    text = (repo_root / "deploy" / "node.toml").read_text(encoding="utf-8")
    numbers = re.sub(r"^# ([a-z_]+ = [0-9.]+)$", r"\1", text, flags=re.MULTILINE)
    path = tmp_path / "node.toml"
    path.write_text(numbers, encoding="utf-8")
    given = load_settings(path, {})
    assert (given.timing, given.limits) == (NodeSettings.timing, NodeSettings.limits)


def test_files_are_beside_the_configuration_and_the_environment_overrides(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path), {"PERMSLIP_NODE__LIMITS__OPEN_QUERIES": "7"})
    assert settings.key_file == tmp_path / "node.key"
    assert settings.limits.open_queries == 7
    assert settings.broker_addresses == (parse_broker(f"127.0.0.1:7443={DID}"),)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", ""),
        ("name", " High"),
        ("name", "High\tSchool"),
        ("federation", "Grand Bend"),
        ("operator", "did:key:nobody"),
        ("database", "postgresql://me:secret@host/name"),
        ("brokers", ["127.0.0.1=x"]),
        ("brokers", [f"127.0.0.1:99999={DID}"]),
        ("brokers", ["127.0.0.1:7443=did:key:nobody"]),
        ("quorum", "most"),
        ("password", "secret"),
    ],
)
def test_what_is_wrong_is_named_by_its_key(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"node.{key}"):
        load_settings(write(tmp_path, **{key: value}), {})


def test_lease_is_never_longer_than_five_seconds(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="node.timing.lease_ms"):
        load_settings(write(tmp_path), {"PERMSLIP_NODE__TIMING__LEASE_MS": "5001"})

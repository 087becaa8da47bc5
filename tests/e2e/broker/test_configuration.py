"""The example configuration, the defaults in it, and the schema that a migrated database has."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import MetaData

from permslip.hosting.database import migrate, open_engine
from permslip_broker.configuration import BrokerSettings, load_settings
from permslip_broker.schema import broker_tables

# Without a default that could be written, or only meaningful with a value of one's own.
_SHOWN_OTHERWISE = {
    "root",
    "witness_set_file",
    "passphrase_file",
    "ready_file",
    "certificate_file",
    "key_file",
    "client_ca_file",
}


def test_the_example_configuration_is_accepted(repo_root: Path) -> None:
    settings = load_settings(repo_root / "deploy" / "broker.toml", {})
    assert settings.federation == "grand-bend"
    assert settings.ledger_origin == "grand-bend/broker"


def test_the_example_shows_every_setting_with_its_default(repo_root: Path) -> None:
    text = (repo_root / "deploy" / "broker.toml").read_text(encoding="utf-8")
    shown = tomllib.loads(re.sub(r"^# (?=[a-z_]+ = )", "", text, flags=re.MULTILINE))["broker"]

    def compare(cls: Any, table: dict[str, Any]) -> None:
        fields = {field.name: field for field in dataclasses.fields(cls)}
        assert set(table) == set(fields)
        for name, field in fields.items():
            if dataclasses.is_dataclass(field.default):
                compare(type(field.default), table[name])
            elif field.default is not dataclasses.MISSING and name not in _SHOWN_OTHERWISE | {"listen"}:
                assert table[name] == field.default, name

    compare(BrokerSettings, shown)


def test_a_migrated_database_has_the_schema_that_the_software_declares(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'broker.db'}")
    migrate(engine, "permslip_broker")
    metadata = MetaData()
    broker_tables(metadata)
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    engine.dispose()
    assert [each for each in differences if "alembic_version" not in str(each)] == []

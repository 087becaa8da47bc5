"""Opening databases: what is promised of the file, of transactions and of migrations."""

from __future__ import annotations

import importlib
import sqlite3
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, inspect, text
from sqlalchemy.exc import OperationalError

from permslip.errors import ConfigurationError
from permslip.hosting.database import migrate, open_engine, reading, url_problem, writing


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine(f"sqlite:///{tmp_path / 'test.db'}")
    with writing(engine) as connection:
        connection.execute(text("CREATE TABLE word (word TEXT PRIMARY KEY)"))
    yield engine
    engine.dispose()


def words(engine: Engine) -> list[str]:
    with reading(engine) as connection:
        return list(connection.execute(text("SELECT word FROM word ORDER BY word")).scalars())


def test_file_and_its_companions_are_the_owners_alone(engine: Engine, tmp_path: Path) -> None:
    with writing(engine) as connection:
        connection.execute(text("INSERT INTO word VALUES ('a')"))

    files = list(tmp_path.iterdir())
    assert {file.name for file in files} >= {"test.db", "test.db-wal"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_file_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    file = tmp_path / "open.db"
    sqlite3.connect(file).close()
    file.touch(0o644)
    file.chmod(0o644)

    open_engine(f"sqlite:///{file}").dispose()

    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_opening_a_file_twice_does_not_take_its_locks_away_from_those_who_use_it(
    engine: Engine, tmp_path: Path
) -> None:
    file = tmp_path / "test.db"
    with writing(engine) as connection:
        connection.execute(text("INSERT INTO word VALUES ('before')"))
    open_engine(f"sqlite:///{file}").dispose()
    # Another process that believed to be the last one would take the write-ahead log away.
    other = f"import sqlite3; c = sqlite3.connect({str(file)!r}); c.execute('SELECT * FROM word').fetchall(); c.close()"
    subprocess.run([sys.executable, "-c", other], check=True)

    with writing(engine) as connection:
        connection.execute(text("INSERT INTO word VALUES ('after')"))

    assert (tmp_path / "test.db-wal").exists()
    read = sqlite3.connect(file)
    assert read.execute("SELECT count(*) FROM word").fetchone() == (2,)
    read.close()


@pytest.mark.parametrize(
    ("pragma", "value"),
    [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1), ("secure_delete", 1), ("busy_timeout", 15_000)],
)
def test_sqlite_is_durable_and_strict(engine: Engine, pragma: str, value: object) -> None:
    with reading(engine) as connection:
        assert connection.execute(text(f"PRAGMA {pragma}")).scalar() == value


def test_writing_commits_at_the_end_and_rolls_back_on_error(engine: Engine) -> None:
    with writing(engine) as connection:
        connection.execute(text("INSERT INTO word VALUES ('kept')"))

    def fail() -> None:
        with writing(engine) as connection:
            connection.execute(text("INSERT INTO word VALUES ('lost')"))
            raise KeyError

    with pytest.raises(KeyError):
        fail()

    assert words(engine) == ["kept"]


def test_reading_sees_one_moment(engine: Engine) -> None:
    with reading(engine) as connection:
        count = text("SELECT count(*) FROM word")
        before = connection.execute(count).scalar()
        with writing(engine) as other:
            other.execute(text("INSERT INTO word VALUES ('new')"))

        assert connection.execute(count).scalar() == before == 0


def test_writing_takes_the_lock_before_it_reads(engine: Engine) -> None:
    with writing(engine), engine.connect() as other:
        other.execute(text("PRAGMA busy_timeout = 0"))
        other.rollback()

        with pytest.raises(OperationalError, match="locked"):
            other.execution_options(permslip_begin="IMMEDIATE").begin()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("no url", "expected a database URL"),
        ("sqlite://", "expected a file"),
        ("sqlite:///:memory:", "expected a file"),
        ("sqlite:////no/such/folder/x.db", "No such file or directory"),
        ("mysql://localhost/x", "expected a SQLite or PostgreSQL database, got mysql"),
        ("postgresql+psycopg2://localhost/x", "psycopg2 is not installed"),
        ("postgresql+nodriver://localhost/x", "expected a database URL"),
    ],
)
def test_url_that_cannot_be_used_is_refused_by_its_key(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as raised:
        open_engine(url, key="broker.database")
    assert raised.value.key == "broker.database"
    assert raised.value.remedy


def test_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "letter.txt"
    file.write_text("Dear parent, " * 200)

    with pytest.raises(ConfigurationError, match="file is not a database"):
        open_engine(f"sqlite:///{file}")


def test_password_has_no_place_in_a_url() -> None:
    assert url_problem("sqlite:///state/broker.db") == ""
    assert url_problem("postgresql+psycopg://permslip@db/permslip") == ""
    assert "pgpass" in url_problem("postgresql+psycopg://permslip:hunter2@db/permslip")
    assert "sqlite:///FILE" in url_problem("state/broker.db")


REVISION = """
from alembic import op
import sqlalchemy as sa

revision, down_revision = {revision!r}, {down!r}

def upgrade() -> None:
    op.create_table({table!r}, sa.Column("id", sa.Integer, primary_key=True))
    {more}
"""


class Scripts:
    """A package with migrations, as broker and node have one."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.versions = folder / name / "migrations" / "versions"
        self.versions.mkdir(parents=True)
        (folder / name / "__init__.py").touch()
        env = """
            from sqlalchemy import MetaData
            from permslip.hosting.database import run_migrations
            run_migrations(MetaData())
        """
        (self.versions.parent / "env.py").write_text(textwrap.dedent(env))

    def add(self, revision: str, down: str | None, table: str, more: str = "") -> None:
        script = REVISION.format(revision=revision, down=down, table=table, more=more)
        (self.versions / f"{revision}.py").write_text(script)


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripts]:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    scripts = Scripts(tmp_path, "permslip_testing_scripts")
    scripts.add("0001", None, "grants")
    importlib.invalidate_caches()
    yield scripts
    sys.modules.pop(scripts.name, None)


def tables(engine: Engine) -> set[str]:
    return set(inspect(engine).get_table_names()) - {"word"}


def test_migrations_run_once_and_go_on_from_where_they_were(engine: Engine, scripts: Scripts) -> None:
    migrate(engine, scripts.name)
    migrate(engine, scripts.name)
    assert tables(engine) == {"alembic_version", "grants"}

    scripts.add("0002", "0001", "devices")
    migrate(engine, scripts.name)

    assert tables(engine) == {"alembic_version", "grants", "devices"}


def test_failing_migration_leaves_the_database_as_it_was(engine: Engine, scripts: Scripts) -> None:
    scripts.add("0002", "0001", "devices", more='op.execute("SELECT no_such_column FROM grants")')

    with pytest.raises(ConfigurationError, match="cannot be migrated: no such column"):
        migrate(engine, scripts.name)

    assert tables(engine) == set()


def test_database_newer_than_the_software_is_refused(engine: Engine, scripts: Scripts) -> None:
    scripts.add("0002", "0001", "devices")
    migrate(engine, scripts.name)
    (scripts.versions / "0002.py").unlink()

    with pytest.raises(ConfigurationError, match="0002, newer than this software knows"):
        migrate(engine, scripts.name)

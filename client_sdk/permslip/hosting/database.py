"""Databases: an engine from a URL, transactions that say what they are for, and migrations.

=====================================  =================================================================
``sqlite:///state/broker.db``          one machine: a file beside the service (relative to where it runs)
``postgresql+psycopg://host/name``     several replicas; the password comes from a pgpass file
=====================================  =================================================================

Rules:

- SQLite runs in WAL mode with ``synchronous=FULL``: a commit that returned is on the disk. Freed bytes are overwritten
  (``secure_delete``), so that what was erased is not left lying in the file. The file is readable by its owner alone.
- :func:`writing` takes SQLite's only write lock at once. A transaction that reads first and writes later would fail
  with «database is locked» as soon as another one got between; waiting at the door cannot.
- :func:`reading` sees one moment of the database, however many statements it runs.
- A database whose schema is newer than this software is refused, never guessed at.

Example::

    >>> engine = open_engine("sqlite:////var/lib/permslip/broker.db")       # doctest: +SKIP
    >>> migrate(engine, "permslip_broker")                                   # doctest: +SKIP
    >>> with writing(engine) as connection:                                  # doctest: +SKIP
    ...     connection.execute(grants.insert(), rows)
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, MetaData, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from permslip.errors import ConfigurationError, UnavailableError

__all__ = [
    "as_unavailable",
    "is_serialization_failure",
    "migrate",
    "open_engine",
    "reading",
    "run_migrations",
    "url_problem",
    "writing",
]

BUSY_TIMEOUT_MS: Final = 15_000

_WRITE: Final = "Write sqlite:///FILE or postgresql+psycopg://HOST/NAME."

_BEGIN: Final = "permslip_begin"  # execution option: how a SQLite transaction begins

_PRAGMAS: Final = (
    f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA secure_delete = ON",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA cache_size = -8000",
)

# SQLSTATE of PostgreSQL's family: serialization failure, deadlock.
_SERIALIZATION_FAILURES: Final = frozenset({"40001", "40P01"})

# Two services that start at once on one PostgreSQL database migrate one after the other: any constant will do.
_MIGRATION_LOCK: Final = 0x7065726D


def open_engine(url: str, *, key: str = "database") -> Engine:
    """An engine for the database at ``url``; a SQLite file is made if it is missing.

    Args:
        url: as in the table above.
        key: dotted configuration key that the URL came from, for the message.

    Raises:
        ConfigurationError: the URL cannot be used, its driver is not installed, or its file cannot be opened.
    """
    driver = url.partition(":")[0]
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
        if backend == "sqlite":
            return _open_sqlite(parsed, key)
        if backend == "postgresql":
            return create_engine(parsed, pool_pre_ping=True, pool_size=8, max_overflow=8, hide_parameters=True)
    except ArgumentError as error:
        raise ConfigurationError(f"expected a database URL, got {url!r}.", key=key, remedy=_WRITE) from error
    except ImportError as error:
        raise ConfigurationError(
            f"the driver {driver} is not installed ({error}).",
            key=key,
            remedy="Install permslip[postgres] and write postgresql+psycopg://HOST/NAME.",
        ) from error
    raise ConfigurationError(f"expected a SQLite or PostgreSQL database, got {backend}.", key=key, remedy=_WRITE)


def url_problem(url: str) -> str:
    """What keeps ``url`` out of a configuration file, or nothing: a password belongs in a file of its own."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        return "expected a database URL such as sqlite:///FILE or postgresql+psycopg://HOST/NAME"
    if parsed.password is not None:
        return "expected a URL without a password: put it into a pgpass file and name that in PGPASSFILE"
    return ""


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that only reads, and sees one moment of the database."""
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        with connection.begin():
            yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that may write: it commits at the end of the block, and rolls back if the block raises."""
    with engine.connect() as connection, connection.execution_options(**{_BEGIN: "IMMEDIATE"}).begin():
        yield connection


def migrate(engine: Engine, script_package: str) -> None:
    """Bring the database to the schema of this software, in one transaction.

    Args:
        engine: the database.
        script_package: import name of the package whose ``migrations`` folder holds the Alembic scripts; that folder's
            ``env.py`` calls :func:`run_migrations`.

    Raises:
        ConfigurationError: the database was migrated by a newer version of the software, or cannot be reached.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", f"{script_package}:migrations")
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    try:
        with writing(engine) as connection:
            if engine.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
            current = MigrationContext.configure(connection).get_current_heads()
            if unknown := sorted(set(current) - known):
                raise ConfigurationError(
                    f"the database's schema is at revision {', '.join(unknown)}, newer than this software knows.",
                    key="database",
                    remedy=f"Install the version of permslip that wrote it, or a later one; {script_package} here "
                    "is older.",
                )
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except SQLAlchemyError as error:
        raise ConfigurationError(
            f"the database cannot be migrated: {_first_line(error)}.",
            key="database",
            remedy="Check that it can be reached and that this service may change its schema.",
        ) from error


def run_migrations(metadata: MetaData) -> None:
    """What the ``env.py`` of a ``migrations`` folder does: run the scripts on the connection of :func:`migrate`.

    Args:
        metadata: the tables as the software has them, for Alembic's comparison.

    Raises:
        ConfigurationError: Alembic was started by hand, without that connection.
    """
    from alembic import context

    connection = context.config.attributes.get("connection")
    if connection is None:
        raise ConfigurationError(
            "migrations run inside the service, on its own connection.",
            key="database",
            remedy="Start the service: it migrates its database by itself.",
        )
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


def is_serialization_failure(error: Exception) -> bool:
    """Did the database give this transaction up in favour of another, so that doing it again is the remedy?"""
    return getattr(getattr(error, "orig", error), "sqlstate", None) in _SERIALIZATION_FAILURES


def as_unavailable(error: Exception, what: str) -> UnavailableError:
    """An error of the database as the rest of the product knows it; the original is its cause."""
    unavailable = UnavailableError(
        f"{what}: {_first_line(error)}.", remedy="Look at the service's log, then try again."
    )
    unavailable.__cause__ = error
    return unavailable


def _open_sqlite(url: URL, key: str) -> Engine:
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise ConfigurationError(
            "expected a file: a ledger must outlive its process.", key=key, remedy="Write sqlite:///FILE."
        )
    path = Path(url.database)
    try:
        _make_private(path)
    except OSError as error:
        raise ConfigurationError(
            f"the database file {path} cannot be opened: {error.strerror}.",
            key=key,
            remedy="Its folder must exist, and the service's user must be allowed to write there.",
        ) from error
    engine = create_engine(
        url, connect_args={"check_same_thread": False}, pool_size=8, max_overflow=8, hide_parameters=True
    )
    event.listen(engine, "connect", _settle_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("SELECT count(*) FROM sqlite_master")
    except SQLAlchemyError as error:
        engine.dispose()
        raise ConfigurationError(
            f"the database file {path} cannot be used: {_first_line(error)}.",
            key=key,
            remedy="Name a SQLite database of this service, or a file that does not exist yet.",
        ) from error
    return engine


def _make_private(path: Path) -> None:
    """Make the file if it is missing, and let nobody but its owner read it.

    Made here and not by SQLite, so that it is never readable by others, not even for a moment; SQLite gives its
    companions (-wal, -shm) the same mode. A file that exists is not opened: closing it would give up the locks that
    SQLite holds on it elsewhere in this process, and another process could then take away the log under its feet.

    Raises:
        OSError: it cannot be made, or this process may not read and write it.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:  # another process was quicker
            pass
        else:
            return
        mode = stat.S_IMODE(path.stat().st_mode)
    if not os.access(path, os.R_OK | os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    if mode & 0o077:
        path.chmod(0o600)


def _settle_sqlite(connection: Any, _entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # SQLAlchemy begins transactions, through _begin_sqlite
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(pragma)
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get(_BEGIN, 'DEFERRED')}")


def _first_line(error: Exception) -> str:
    """What the database itself said, without SQLAlchemy's statement and links."""
    return str(getattr(error, "orig", None) or error).strip().split("\n", 1)[0].rstrip(".")

"""Which process runs this node, and what it has noticed of others' doing.

Any number of processes may use a node's database at once (imports, slips, a revocation brought by hand), but only one
may answer for it: uses and replays are its memory's business. On SQLite it holds a lock on a file beside the database,
on PostgreSQL an advisory lock named by the node's root; both end with the process, however it ends.

Example::

    with claim(engine, identity.root):
        serve()
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, insert, select, text, update

from permslip.errors import ConfigurationError
from permslip.hosting.database import reading, writing
from permslip_node import schema

__all__ = ["claim", "is_running", "note_noticed", "noticed"]


@contextmanager
def claim(engine: Engine, root: bytes) -> Iterator[None]:
    """Be the one process that answers for this node.

    Args:
        engine: the node's database.
        root: the node.

    Raises:
        ConfigurationError: another one does.
    """
    if engine.dialect.name == "postgresql":
        lock = {"lock": int.from_bytes(root[:8], "big", signed=True)}
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            if not connection.execute(text("SELECT pg_try_advisory_lock(:lock)"), lock).scalar():
                raise _running()
            try:
                yield
            finally:
                connection.execute(text("SELECT pg_advisory_unlock(:lock)"), lock)
        return
    descriptor = os.open(_lock_path(engine), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _running() from None
        yield
    finally:
        os.close(descriptor)


def is_running(engine: Engine, root: bytes) -> bool:
    """Whether some process answers for this node now."""
    try:
        with claim(engine, root):
            return False
    except ConfigurationError:
        return True


def noticed(engine: Engine) -> int:
    """Up to which ledger size the running node has noticed what other processes appended."""
    with reading(engine) as connection:
        return int(connection.execute(select(schema.instance.c.noticed)).scalar() or 0)


def note_noticed(engine: Engine, size: int) -> None:
    """The running node has noticed everything up to this ledger size, and acted on it."""
    table = schema.instance
    with writing(engine) as connection:
        if not connection.execute(update(table).where(table.c.id == 1).values(noticed=size)).rowcount:
            connection.execute(insert(table).values(id=1, noticed=size))


def _lock_path(engine: Engine) -> str:
    return f"{engine.url.database}.lock"


def _running() -> ConfigurationError:
    return ConfigurationError(
        "another process is running this node.", key="node.database", remedy="End it first; one database is one node."
    )

"""The databases that every stored interface is tried on.

SQLite always; PostgreSQL where ``PERMSLIP_TEST_POSTGRES`` holds the URL of a database in which the tests may make and
drop schemas, e.g. ``postgresql+psycopg://permslip@127.0.0.1:5432/permslip_test``.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import Connection, Engine, MetaData, make_url, text

from permslip._pb.permslip.v1.ledger_pb2 import LogEntry, RequestRefused
from permslip._pb.permslip.v1.statement_pb2 import REASON_MALFORMED
from permslip.hosting.database import open_engine, writing
from permslip.hosting.ledger import Draft, Leaf, Ledger
from permslip.hosting.schema import LedgerTables, ledger_tables
from permslip.merkle import Frontier, leaf_hash, verify_inclusion

POSTGRES = os.environ.get("PERMSLIP_TEST_POSTGRES", "")
KEEPER = bytes(range(32))
ORIGIN = "grand-bend/broker"


@pytest.fixture(params=["sqlite", "postgresql"] if POSTGRES else ["sqlite"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database, one for each backend there is."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'test.db'}"
        return
    schema = f"test_{token_hex(8)}"
    server = open_engine(POSTGRES)
    with writing(server) as connection:
        connection.execute(text(f"CREATE SCHEMA {schema}"))
    url = make_url(POSTGRES).update_query_dict({"options": f"-csearch_path={schema}"})
    yield url.render_as_string(hide_password=False)
    with writing(server) as connection:
        connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
    server.dispose()


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1_790_000_000_000

    def __call__(self) -> int:
        return self.now


class Gate:
    """Holds the ledger's thread inside a transaction, so that what follows piles up behind it."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self._open = threading.Event()

    def __call__(self, _connection: Connection, _position: int) -> None:
        self.entered.set()
        assert self._open.wait(60)

    async def wait_until_held(self) -> None:
        assert await asyncio.to_thread(self.entered.wait, 60)

    def open(self) -> None:
        self._open.set()


class Database:
    """One database, and the ledgers that tests open in it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.clock = Clock()
        metadata = MetaData()
        self.tables: LedgerTables = ledger_tables(metadata)
        self.engine = self.new_engine()
        with writing(self.engine) as connection:
            metadata.create_all(connection)
            connection.execute(text("CREATE TABLE noted (position BIGINT PRIMARY KEY, word TEXT NOT NULL)"))
        self.ledgers: list[Ledger] = []
        self._engines: list[Engine] = [self.engine]

    def new_engine(self) -> Engine:
        return open_engine(self.url)

    def open(self, *, own_engine: bool = False, **options: Any) -> Ledger:
        """Open the ledger; with an engine of its own as another process would."""
        engine = self.new_engine() if own_engine else self.engine
        self._engines.append(engine)
        settings: dict[str, Any] = {
            "federation": "grand-bend",
            "keeper": KEEPER,
            "origin": ORIGIN,
            "clock": self.clock,
        } | options
        ledger = Ledger.open(engine, self.tables, **settings)
        self.ledgers.append(ledger)
        return ledger

    async def close(self) -> None:
        for ledger in self.ledgers:
            await ledger.close()
        for engine in self._engines:
            engine.dispose()

    def noted(self) -> list[tuple[int, str]]:
        with self.engine.connect() as connection:
            rows = connection.execute(text("SELECT position, word FROM noted ORDER BY position"))
            return [(position, word) for position, word in rows]

    def leaves(self) -> list[Leaf]:
        """All leaves, after checking that they have no gap and make exactly the tree that is stored."""
        ledger = self.ledgers[-1]
        head = ledger.read_head()
        leaves = list(ledger.leaves(0, head.size + 1))
        assert [leaf.position for leaf in leaves] == list(range(head.size))
        frontier = Frontier()
        frontier.extend([leaf.leaf_hash for leaf in leaves])
        assert frontier.root() == head.root
        for leaf in leaves[:: max(1, len(leaves) // 20)]:
            assert leaf.leaf is None or leaf_hash(leaf.leaf) == leaf.leaf_hash
            proof = ledger.inclusion_proof(leaf.position, head.size)
            verify_inclusion(leaf.leaf_hash, leaf.position, head.size, proof, head.root)
        return leaves

    def entries(self) -> list[LogEntry]:
        """All leaves decoded, after the checks of :meth:`leaves`."""
        return [LogEntry.FromString(leaf.leaf or b"") for leaf in self.leaves()]


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An empty database with the ledger's tables, and one of the tests' own: ``noted``."""
    database = Database(database_url)
    yield database
    await database.close()


def refused(method: str = "Deposit", **options: Any) -> Draft:
    """A draft that the tests know again by its method."""
    return Draft("request_refused", RequestRefused(reason=REASON_MALFORMED, method=method), **options)


def note(word: str) -> Callable[[Connection, int], None]:
    """A draft's ``write`` that leaves a row in ``noted``."""

    def write(connection: Connection, position: int) -> None:
        row = {"position": position, "word": word}
        connection.execute(text("INSERT INTO noted (position, word) VALUES (:position, :word)"), row)

    return write

"""A school's real node with sockets and SQLite, and a broker that does what the test says."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
from sqlalchemy import make_url, text

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.hosting.database import open_engine, writing
from permslip.hosting.logs import configure
from permslip.quantities import Handle, Millis
from permslip.statements import Signed
from permslip_node.app import RunningNode
from tests.federation.consents import Asked, make_grant, make_query
from tests.federation.principals import Organization, Person, admit
from tests.federation.school import GRADES, School
from tests.federation.simulated_broker import AttachedNode, SimulatedBroker

FEDERATION = "fed.example"
# A database in which the tests may make and drop schemas; see tests/conformance/conftest.py.
POSTGRES = os.environ.get("PERMSLIP_TEST_POSTGRES", "")


@pytest.fixture(autouse=True)
def quiet() -> None:
    """Logs go to standard error as in a service: a command that is run in this process prints on standard output."""
    configure("node", level="warning")


class Clock:
    """UTC milliseconds that a test may move."""

    def __init__(self) -> None:
        self.offset = 0

    def __call__(self) -> Millis:
        return Millis(time.time_ns() // 1_000_000 + self.offset)


@dataclass
class World:
    """One school, one broker, one tutor."""

    operator: Person
    broker: SimulatedBroker
    tutor: Organization
    school: School
    clock: Clock

    def admit_all(self) -> None:
        """Push what stands: operator's admissions and everybody's certificates."""
        now = self.clock()
        for each in (self.broker.organization, self.school.organization, self.tutor):
            self.broker.push(admit(self.operator, each, now=now))
            self.broker.push(each.cert)

    @asynccontextmanager
    async def attached(self) -> AsyncIterator[tuple[RunningNode, AttachedNode]]:
        """Run the node, admitted and with a fresh lease."""
        if not self.broker.pushes:
            self.admit_all()
        before = len(self.broker.streams)
        async with self.school.running() as node:
            stream = await self.broker.attached(before + 1)
            await self.broker.fresh()
            yield node, stream

    def grant(
        self, *signers: Person, handle: Handle, sections: list[str] | None = None, **changes: Any
    ) -> Signed[pb.Grant]:
        """A grant to the tutor."""
        grantee = changes.pop("grantee", self.tutor.root)
        return make_grant(
            signers,
            self.school.root,
            handle,
            grantee,
            sections or [GRADES],
            federation=FEDERATION,
            now=self.clock(),
            **changes,
        )

    def query(self, grant: Signed[pb.Grant] | bytes, sections: list[str] | None = None, **changes: Any) -> Asked:
        """The tutor's query."""
        requester = changes.pop("requester", self.tutor)
        return make_query(requester, grant, sections or [GRADES], federation=FEDERATION, now=self.clock(), **changes)


@pytest.fixture(params=["sqlite", "postgresql"] if POSTGRES else ["sqlite"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database, one for each backend there is."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'node.db'}"
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


@pytest.fixture
async def world(tmp_path: Path, database: str) -> AsyncIterator[World]:
    """Everything but a running node."""
    clock = Clock()
    operator = Person.new()
    async with SimulatedBroker.served(operator, FEDERATION, now=clock) as broker:
        tutor = Organization.new("Tutor", pb.PRINCIPAL_KIND_PROVIDER, FEDERATION, now=clock())
        school = School.made(
            tmp_path / "school",
            operator,
            [(broker.address, broker.organization.root)],
            federation=FEDERATION,
            now=clock,
            database=database,
        )
        yield World(operator, broker, tutor, school, clock)


@pytest.fixture
def now() -> Callable[[], Millis]:
    """The wall clock."""
    return Clock()

"""A broker and two schools as processes, a tutor and a clinic, and a mother who is linked at both schools.

The child is the same at both: 500 grades of 4 kB each (too much for any credit, so that an answer can be stopped in its
middle) and 30 days of attendance. Everything listens on loopback and ends with the block.

Example::

    with District(folder) as district:
        [grant] = await district.consent(district.high)
        async with district.client() as client:
            profile = await client.profile(grant.id)
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc

from permslip._pb.permslip.v1 import (
    guardian_pb2,
    guardian_pb2_grpc,
    operator_pb2,
    operator_pb2_grpc,
    session_pb2,
    session_pb2_grpc,
    statement_pb2 as pb,
)
from permslip.client.guarding import AsyncGuardianClient
from permslip.client.providing import AsyncClient
from permslip.client.timeouts import Timeout
from permslip.keyfile import PrincipalKind, StoredKeys
from permslip.keys import did_text
from permslip.linking import make_link_request
from permslip.reasons import Reason
from permslip.statements import Signed
from tests.federation.consents import Asked, make_grant, make_query, make_revocation
from tests.federation.ledgers import LedgerOf
from tests.federation.lying_broker import LyingBroker
from tests.federation.principals import Organization, Person
from tests.federation.processes import FederationProcesses, now
from tests.federation.requester import Requester, open_requester, say_hello
from tests.federation.school_process import SchoolProcess, until

__all__ = ["ATTENDANCE", "CHILD", "GRADES", "District"]

GRADES, ATTENDANCE = "transcript.grades", "personal.attendance"
SECTIONS = (ATTENDANCE, GRADES)
CHILD = "604822"
_PATIENCE = 20.0


class District:
    """Everybody, running.

    Args:
        folder: where everything is made.
    """

    def __init__(self, folder: Path) -> None:
        self.processes = FederationProcesses(folder)
        self.federation, self.root = self.processes.federation, self.processes.root
        self.address = self.processes.address
        self.broker_ledger = LedgerOf(self.processes.broker_folder / "broker.db")
        self.tutor = Organization.new("Tutors", pb.PRINCIPAL_KIND_PROVIDER, self.federation, now=now())
        self.clinic = Organization.new("Clinic", pb.PRINCIPAL_KIND_PROVIDER, self.federation, now=now())
        self.mother = Person.new()
        self.schools: tuple[SchoolProcess, ...] = ()
        self.handles: dict[bytes, bytes] = {}
        try:
            self._make()
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def _make(self) -> None:
        self.processes.start_broker()
        with ThreadPoolExecutor(2) as side_by_side:
            names = ("high", "platform")
            self.schools = tuple(side_by_side.map(lambda name: SchoolProcess(self.processes, name), names))
        for each in self.schools:
            self.handles[each.root] = each.learner(CHILD, grades=500, attendance=30, size=4_000)
        self.processes.admit([*(each.organization for each in self.schools), self.tutor, self.clinic])
        # Not in a thread: the kernel ends them with the thread that started them.
        for each in self.schools:
            each.start()
        asyncio.run(self._settle_in())

    @property
    def high(self) -> SchoolProcess:
        """One school."""
        return self.schools[0]

    @property
    def platform(self) -> SchoolProcess:
        """The other."""
        return self.schools[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thaw()
        for each in self.schools:
            if each.is_running:
                each.end()
            each.cable.__exit__(None, None, None)
        self.processes.__exit__(kind, error, trace)

    async def _settle_in(self) -> None:
        for each in self.schools:
            await each.until_ready()
            await self.link(each, self.mother)

    @property
    def port(self) -> int:
        """Where the broker listens."""
        return int(self.address.rpartition(":")[2])

    # ------------------------------------------------------------------------------------- the broker's process

    def kill_broker(self) -> None:
        """End it at once, as a power cut would."""
        self.processes.broker.kill()

    def freeze_broker(self) -> None:
        """Stop it where it stands (SIGSTOP)."""
        os.kill(self.processes.broker.pid, signal.SIGSTOP)

    def thaw_broker(self) -> None:
        """Let it go on (SIGCONT)."""
        broker = getattr(self.processes, "broker", None)
        if broker is not None and broker.is_running:
            os.kill(broker.pid, signal.SIGCONT)

    def start_broker(self) -> None:
        """Start it again; returns when it serves."""
        self.processes.start_broker()

    async def heal(self) -> None:
        """Whatever a test did to processes and cables: all run, all are attached, all may answer."""
        self._thaw()
        for each in self.schools:
            each.cable.release()
            each.cable.plug()
            each.cable.target = self.port
        if not self.processes.broker.is_running:
            self.start_broker()
        for each in self.schools:
            if not each.is_running:
                each.start()
        for each in self.schools:
            await self.until_fit(each)

    def _thaw(self) -> None:
        self.thaw_broker()
        for each in self.schools:
            if each.process is not None:
                each.thaw()

    # ------------------------------------------------------------------------------------- what the operator sees

    async def status(self, school: SchoolProcess) -> operator_pb2.NodeStatus:
        """What the broker says of a node."""
        async with grpc.aio.insecure_channel(self.address) as channel:
            given = await session_pb2_grpc.SessionServiceStub(channel).GetChallenge(
                session_pb2.GetChallengeRequest(federation=self.federation), wait_for_ready=True, timeout=_PATIENCE
            )
            kind = pb.PRINCIPAL_KIND_OPERATOR
            hello = say_hello(given.challenge, self.processes.operator, broker=self.root, now=now, kind=kind)
            said = await operator_pb2_grpc.OperatorServiceStub(channel).GetStatus(
                operator_pb2.GetStatusRequest(hello=hello), timeout=_PATIENCE
            )
        return next(each for each in said.nodes if each.root == school.root)

    async def until_fit(self, school: SchoolProcess, *, attached: int = 0) -> None:
        """Wait until a node is attached, holds every push and has a lease.

        Args:
            school: which.
            attached: it must have attached more often than that, see :meth:`attachments`.
        """
        await until(lambda: self.attachments(school) > attached, f"{school.name} attaches again")
        since = now()
        async with asyncio.timeout(_PATIENCE):
            while True:
                said = await self.status(school)
                if said.attached and said.last_tick_at > since and said.pushes_held == said.pushes_due:
                    return
                await asyncio.sleep(0.02)

    def attachments(self, school: SchoolProcess) -> int:
        """How often a node has attached so far."""
        return len(school.said("attached"))

    async def until_detached(self, school: SchoolProcess) -> None:
        """Wait until the broker has noticed that a node is gone."""
        async with asyncio.timeout(_PATIENCE):
            while True:
                if not (await self.status(school)).attached:
                    return
                await asyncio.sleep(0.02)

    # ------------------------------------------------------------------------------------- families

    async def link(self, school: SchoolProcess, person: Person) -> None:
        """Link a person's key by a slip, through the broker."""
        keys = StoredKeys(PrincipalKind.GUARDIAN, person.key, person.sealing)
        cert = school.organization.cert.envelope
        sealed, pending = make_link_request(school.slip(CHILD), self.federation, keys, cert, now())
        async with grpc.aio.insecure_channel(self.address) as channel:
            answer = await guardian_pb2_grpc.GuardianServiceStub(channel).RelayLink(
                guardian_pb2.RelayLinkRequest(federation=self.federation, node=school.root, sealed_request=sealed)
            )
        assert not answer.HasField("refusal"), answer.refusal
        assert pending.open_response(answer.sealed_response).payload.slice.handle == self.handles[school.root]

    async def consent(
        self, *schools: SchoolProcess, sections: Sequence[str] = SECTIONS, max_uses: int = 0, **changes: Any
    ) -> list[Signed[pb.Grant]]:
        """The mother's consent to the tutor, endorsed by each school: one grant for each."""
        grants = [
            make_grant(
                [self.mother],
                school.root,
                self.handles[school.root],
                changes.get("grantee", self.tutor.root),
                sections,
                federation=self.federation,
                now=now() - 1_000,
                max_uses=max_uses,
            )
            for school in schools
        ]
        async with grpc.aio.insecure_channel(self.address) as channel:
            response = await guardian_pb2_grpc.GuardianServiceStub(channel).DepositConsent(
                guardian_pb2.DepositConsentRequest(statements=[each.envelope for each in grants], wait=20_000)
            )
        for each in response.results:
            assert each.grant.status == session_pb2.GRANT_STATUS_ACTIVE, each
        return grants

    def revocation(self, grant: Signed[pb.Grant]) -> Signed[pb.Revocation]:
        """The mother's."""
        return make_revocation(self.mother, grant.id, grant.payload.slice.node, federation=self.federation, now=now())

    async def revoking(
        self, *revocations: Signed[pb.Revocation], within: float = 20.0
    ) -> AsyncGenerator[guardian_pb2.RevocationState, None]:
        """Revoke, and tell each change until all nodes acknowledged, or the time is over."""
        async with grpc.aio.insecure_channel(self.address) as channel:
            request = guardian_pb2.RevokeRequest(revocations=[each.envelope for each in revocations])
            call = guardian_pb2_grpc.GuardianServiceStub(channel).Revoke(request, timeout=within)
            async for response in call:
                for state in response.states:
                    yield state

    async def begin_to_revoke(self, revocation: Signed[pb.Revocation]) -> guardian_pb2.RevocationState:
        """The first state that is told: recorded, and not acknowledged unless the node was very quick."""
        async with aclosing(self.revoking(revocation)) as states:
            return await anext(states)

    async def revoke(self, revocation: Signed[pb.Revocation], *, within: float = 20.0) -> guardian_pb2.RevocationState:
        """The last state that is told."""
        states = [each async for each in self.revoking(revocation, within=within)]
        return states[-1]

    # ------------------------------------------------------------------------------------- requesters

    def client(self, *, address: str = "", timeout: Timeout | None = None) -> AsyncClient:
        """The tutor's, by the SDK."""
        return AsyncClient(
            broker=address or self.address,
            broker_root=did_text(self.root),
            federation=self.federation,
            operator=did_text(self.processes.operator.public),
            keys=StoredKeys(PrincipalKind.PROVIDER, self.tutor.key, self.tutor.sealing),
            cert=self.tutor.cert.envelope,
            timeout=timeout or Timeout(),
        )

    def guardian(self, *, address: str = "", timeout: Timeout | None = None) -> AsyncGuardianClient:
        """The mother's, by the SDK."""
        return AsyncGuardianClient(
            broker=address or self.address,
            broker_root=did_text(self.root),
            federation=self.federation,
            operator=did_text(self.processes.operator.public),
            keys=StoredKeys(PrincipalKind.GUARDIAN, self.mother.key, self.mother.sealing),
            timeout=timeout or Timeout(),
        )

    def requester(
        self, who: Organization | Person | None = None, *, address: str = "", patient: bool = False
    ) -> AbstractAsyncContextManager[Requester]:
        """A stream of queries, spoken by hand; the tutor's unless somebody else's.

        Args:
            who: greets.
            address: HOST:PORT, the broker's own unless given.
            patient: a frozen broker does not break the stream.
        """
        names = ("grpc.keepalive_time_ms", "grpc.keepalive_timeout_ms", "grpc.http2.ping_timeout_ms")
        options = [(name, 60_000) for name in names] if patient else []
        return open_requester(address or self.address, who or self.tutor, broker=self.root, now=now, options=options)

    def query(
        self, grant: Signed[pb.Grant], sections: Sequence[str] = SECTIONS, *, who: Any = None, **changes: Any
    ) -> Asked:
        """A query now; the tutor's unless somebody else's."""
        given = {"federation": self.federation, "now": now(), **changes}
        return make_query(who or self.tutor, grant, sections, **given)

    # ------------------------------------------------------------------------------------- lies

    def lying(self) -> LyingBroker:
        """A lying broker in front of the real one; nobody is attached through it yet."""
        return LyingBroker(self.address, self.processes.broker_folder)

    @asynccontextmanager
    async def lied_to(self, *schools: SchoolProcess) -> AsyncIterator[LyingBroker]:
        """Put a lying broker between these schools and the broker while the block lasts. It lies when told to."""
        async with self.lying() as liar:
            await self.attach_through(schools, liar.port)
            try:
                yield liar
            finally:
                liar.up.clear()
                liar.down.clear()
                await self.attach_through(schools, self.port)

    async def attach_through(self, schools: Sequence[SchoolProcess], port: int) -> None:
        """Let schools attach through another port of this machine; returns when they may answer again."""
        before = [self.attachments(each) for each in schools]
        for each in schools:
            each.cable.target = port
            each.cable.cut()
        for each, count in zip(schools, before, strict=True):
            await self.until_fit(each, attached=count)

    # ------------------------------------------------------------------------------------- ledgers

    def ledgers(self) -> Iterator[LedgerOf]:
        """The broker's and every node's."""
        yield self.broker_ledger
        for each in self.schools:
            yield each.ledger

    def verify_ledgers(self) -> None:
        """Every hash, root and chain of all of them, computed anew."""
        for each in self.ledgers():
            each.verify()

    @staticmethod
    async def endings(ledger: LedgerOf, query_id: bytes) -> list[int]:
        """Wait until a ledger says how the answer to a query ended: such entries come behind the answer."""
        found: list[int] = await until(lambda: ledger.endings(query_id), "the end of the answer is recorded")
        return found

    def is_logged(self, query_id: bytes, school: SchoolProcess) -> bool:
        """Whether broker and node both hold that this query was allowed."""
        allowed = [Reason.ALLOWED.wire]
        return self.broker_ledger.decisions(query_id) == allowed and school.ledger.decisions(query_id) == allowed

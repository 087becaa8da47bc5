"""A small federation around one broker: who is in it, and what they say to it.

Example::

    async with SmallFederation(tmp_path).running() as federation:
        await federation.admit_all()
        async with federation.attached(federation.school) as node, federation.requester(federation.tutor) as tutor:
            grant = await federation.endorsed_grant(node)
            answer = await tutor.ask(federation.query(federation.tutor, grant))
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from permslip._pb.permslip.v1 import (
    guardian_pb2,
    guardian_pb2_grpc,
    ledger_pb2,
    operator_pb2,
    operator_pb2_grpc,
    provider_pb2_grpc,
    session_pb2,
    session_pb2_grpc,
    statement_pb2 as pb,
)
from permslip.armor import write_statements
from permslip.hosting.leaves import decode_leaf
from permslip.keyfile import PrincipalKind, StoredKeys, write_key_file
from permslip.quantities import Millis
from permslip.reasons import Reason
from permslip.statements import Signed
from permslip_broker.app import Broker, open_broker
from permslip_broker.configuration import BrokerSettings
from permslip_broker.routing_limits import RoutingLimits
from tests.federation.consents import Asked, make_grant, make_query, make_revocation
from tests.federation.principals import Organization, Person, admit
from tests.federation.requester import Requester, open_requester, say_hello
from tests.federation.simulated_node import SimulatedNode

__all__ = ["FEDERATION", "SmallFederation"]

FEDERATION = "fed.test"
SECTIONS = ("transcript.grades", "personal.attendance")


class SmallFederation:
    """Keys, statements and calls of a test."""

    def __init__(self, folder: Path, *, ahead: int = 0) -> None:
        self.folder = folder
        self.ahead = ahead
        now = self.now()
        self.operator = Person.new()
        self.mother, self.father, self.stranger = Person.new(), Person.new(), Person.new()
        self.broker_keys = Organization.new("Broker", pb.PRINCIPAL_KIND_BROKER, FEDERATION, now=now)
        self.school = Organization.new("Grand Bend High", pb.PRINCIPAL_KIND_NODE, FEDERATION, now=now)
        self.platform = Organization.new("Learning Platform", pb.PRINCIPAL_KIND_NODE, FEDERATION, now=now)
        self.tutor = Organization.new("Tutors", pb.PRINCIPAL_KIND_PROVIDER, FEDERATION, now=now)
        self.clinic = Organization.new("Clinic", pb.PRINCIPAL_KIND_PROVIDER, FEDERATION, now=now)
        self.handle = os.urandom(16)
        self.settings = self._settings()
        self.port = 0
        self.broker: Broker
        self.channel: grpc.aio.Channel

    def now(self) -> Millis:
        """The broker's and everybody's clock; a test sets it ahead by :attr:`ahead`."""
        return Millis(time.time_ns() // 1_000_000 + self.ahead)

    @property
    def address(self) -> str:
        """Where the broker listens."""
        return f"127.0.0.1:{self.port}"

    @property
    def root(self) -> bytes:
        """The broker's root key."""
        return self.broker_keys.root

    @asynccontextmanager
    async def running(self, limits: RoutingLimits | None = None) -> AsyncIterator[SmallFederation]:
        """Run the broker while the block lasts; a second time it is a restart on the same database."""
        async with AsyncExitStack() as stack:
            self.broker = await stack.enter_async_context(
                open_broker(self.settings, clock=self.now, routing_limits=limits)
            )
            self.port = self.broker.port
            self.channel = await stack.enter_async_context(grpc.aio.insecure_channel(self.address))
            yield self

    # ------------------------------------------------------------------------------------- the operator

    async def admit(self, *statements: Signed[Any]) -> list[session_pb2.DepositResult]:
        """Bring statements to the operator's door."""
        stub = operator_pb2_grpc.OperatorServiceStub(self.channel)
        response = await stub.Admit(operator_pb2.AdmitRequest(statements=[each.envelope for each in statements]))
        return list(response.results)

    async def admit_all(self) -> None:
        """Admit every organization and register its certificate."""
        now = self.now()
        organizations = (self.school, self.platform, self.tutor, self.clinic)
        results = await self.admit(
            *[statement for each in organizations for statement in (admit(self.operator, each, now=now), each.cert)]
        )
        assert all(each.refusal.code == Reason.ALLOWED.wire for each in results), results

    # ------------------------------------------------------------------------------------- families

    def grant(self, node: Organization | None = None, **changes: Any) -> Signed[pb.Grant]:
        """A grant by the mother to the tutor, unless changed."""
        given: dict[str, Any] = {
            "signers": [self.mother],
            "node": (node or self.school).root,
            "handle": self.handle,
            "grantee": self.tutor.root,
            "sections": SECTIONS,
            "federation": FEDERATION,
            "now": self.now(),
            **changes,
        }
        return make_grant(
            given.pop("signers"),
            given.pop("node"),
            given.pop("handle"),
            given.pop("grantee"),
            given.pop("sections"),
            **given,
        )

    async def deposit(self, *grants: Signed[Any], wait: int = 0) -> guardian_pb2.DepositConsentResponse:
        """Deposit grants as one consent."""
        stub = guardian_pb2_grpc.GuardianServiceStub(self.channel)
        request = guardian_pb2.DepositConsentRequest(statements=[each.envelope for each in grants], wait=wait)
        response: guardian_pb2.DepositConsentResponse = await stub.DepositConsent(request)
        return response

    async def endorsed_grant(self, node: Organization | None = None, **changes: Any) -> Signed[pb.Grant]:
        """Deposit a grant and wait for its (attached) node's endorsement."""
        grant = self.grant(node, **changes)
        response = await self.deposit(grant, wait=20_000)
        assert response.results[0].grant.status == session_pb2.GRANT_STATUS_ACTIVE, response
        return grant

    def revocation(self, grant: Signed[pb.Grant], who: Person | None = None) -> Signed[pb.Revocation]:
        """The end of a grant, by the mother unless somebody else."""
        return make_revocation(
            who or self.mother, grant.id, grant.payload.slice.node, federation=FEDERATION, now=self.now()
        )

    async def revoke(
        self, *revocations: Signed[pb.Revocation], within: float = 20
    ) -> list[guardian_pb2.RevocationState]:
        """Revoke and wait for all acknowledgements (or the end of the time); the last state of each."""
        states: dict[bytes, guardian_pb2.RevocationState] = {}
        async for response in self.revoking(*revocations, within=within):
            states.update((each.revocation_id, each) for each in response.states)
        return [states[each.id] for each in revocations]

    def revoking(
        self, *revocations: Signed[pb.Revocation], within: float = 20
    ) -> grpc.aio.UnaryStreamCall[guardian_pb2.RevokeRequest, guardian_pb2.RevokeResponse]:
        """The stream of states."""
        stub = guardian_pb2_grpc.GuardianServiceStub(self.channel)
        request = guardian_pb2.RevokeRequest(revocations=[each.envelope for each in revocations])
        return stub.Revoke(request, timeout=within)

    # ------------------------------------------------------------------------------------- requesters, nodes

    def query(
        self,
        requester: Person | Organization,
        grant: Signed[pb.Grant] | bytes,
        sections: Sequence[str] = SECTIONS,
        **changes: Any,
    ) -> Asked:
        """A query now."""
        given = {"federation": FEDERATION, "now": self.now(), **changes}
        return make_query(requester, grant, sections, **given)

    def requester(self, who: Person | Organization, **changes: Any) -> AbstractAsyncContextManager[Requester]:
        """A stream of queries."""
        return open_requester(self.address, who, broker=self.root, now=self.now, **changes)

    def node(self, organization: Organization | None = None, **changes: Any) -> SimulatedNode:
        """A node, not attached yet."""
        return SimulatedNode(organization or self.school, broker=self.root, now=self.now, **changes)

    def attached(
        self, organization: Organization | None = None, **changes: Any
    ) -> AbstractAsyncContextManager[SimulatedNode]:
        """A node, attached while the block lasts."""
        return self.node(organization, **changes).attached(self.address)

    async def hello(self, who: Person | Organization, kind: pb.PrincipalKind.ValueType | None = None) -> pb.Envelope:
        """A greeting for reads of one's own things."""
        stub = session_pb2_grpc.SessionServiceStub(self.channel)
        given = await stub.GetChallenge(session_pb2.GetChallengeRequest(federation=FEDERATION))
        return say_hello(given.challenge, who, broker=self.root, now=self.now, kind=kind)

    @property
    def provider_calls(self) -> provider_pb2_grpc.ProviderServiceAsyncStub:
        """Calls of a provider."""
        return provider_pb2_grpc.ProviderServiceStub(self.channel)

    @property
    def guardian_calls(self) -> guardian_pb2_grpc.GuardianServiceAsyncStub:
        """Calls of a guardian."""
        return guardian_pb2_grpc.GuardianServiceStub(self.channel)

    # ------------------------------------------------------------------------------------- the ledger

    async def entries(self) -> list[ledger_pb2.LogEntry]:
        """Everything that is in the ledger, once what is under way was written."""
        await self.broker.recorder.settle()
        return [decode_leaf(each.leaf or b"") for each in self.broker.ledger.leaves(0, self.broker.ledger.size)]

    async def events(self, name: str) -> list[Any]:
        """The entries of one kind."""
        return [getattr(each, name) for each in await self.entries() if each.WhichOneof("event") == name]

    def _settings(self) -> BrokerSettings:
        keys = self.broker_keys
        key_file, cert_file = self.folder / "broker.key", self.folder / "broker.cert"
        write_key_file(key_file, StoredKeys(PrincipalKind.BROKER, keys.key, keys.sealing))
        write_statements(cert_file, [keys.cert.envelope])
        return BrokerSettings(
            key_file=key_file,
            cert_file=cert_file,
            federation=FEDERATION,
            operator=self.operator.key.public.did,
            database=f"sqlite:///{self.folder / 'broker.db'}",
            listen="127.0.0.1:0",
        )

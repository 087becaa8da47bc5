"""A broker without a database: it speaks ``Attach`` with real keys, and lies where a test tells it to.

What it sends is whatever the test gives it; what comes is kept. By itself it greets, sends every push that the node
does not hold, answers lease requests with honest ticks, gives credit, and confirms statements. A test changes how it
behaves by its attributes:

======================  ==================================================================================
``ticks``               False: lease requests are not answered
``tick_counts``         pushes that ticks count; None: as many as were made (also those that were withheld)
``withheld``            numbers of pushes that are made and never sent
``alter_tick``          changes a tick's payload before it is signed
``confirms``            False: statements are not answered
``first_credit``        of each answer, and whether more is given as bytes come (``gives_credit``)
======================  ==================================================================================

Example::

    async with SimulatedBroker.served(operator, federation, now=now) as broker:
        broker.push_standing(operator_admissions)
        node = await broker.attached()
        answer = await node.ask(asked)
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from typing import Any

import grpc

from permslip import statements as st
from permslip._pb.permslip.v1 import node_pb2, node_pb2_grpc, provider_pb2, session_pb2, statement_pb2 as pb
from permslip.dsse import statement_id
from permslip.greeting import check_hello, make_server_nonce
from permslip.hosting.serving import server_options
from permslip.outbox import Outbox
from permslip.quantities import Millis
from permslip.reasons import Reason
from permslip.statements import Signed
from tests.federation.consents import Asked
from tests.federation.principals import Organization, Person
from tests.federation.requester import Answer

__all__ = ["AttachedNode", "SimulatedBroker"]

_SECRET = b"s" * 32


class AttachedNode:
    """One stream of a node, from the broker's side.

    Args:
        hello: as the node said it.
        broker: whose stream it is.
    """

    def __init__(self, hello: node_pb2.NodeHello, broker: SimulatedBroker) -> None:
        self.hello, self._broker = hello, broker
        self.outbox: Outbox[node_pb2.BrokerFrame] = Outbox()
        self.answers: dict[bytes, Answer] = {}
        self.order: list[node_pb2.NodeFrame] = []
        self.ended = asyncio.Event()

    def send(self, *frames: node_pb2.BrokerFrame) -> None:
        """Send frames as they are."""
        for frame in frames:
            self.outbox.put(frame, frame.ByteSize())

    def route(self, *asked: Asked | pb.Envelope, position: int = 7, deadline: int = 30_000) -> list[Answer]:
        """Send queries as one message; returns where their answers are collected."""
        answers = []
        for each in asked:
            envelope = each.envelope if isinstance(each, Asked) else each
            answers.append(self.expect(statement_id(envelope.payload_type, envelope.payload)))
            routed = node_pb2.RoutedQuery(query=envelope, position=position, deadline=deadline)
            self.send(node_pb2.BrokerFrame(query=routed))
        return answers

    async def ask(self, asked: Asked | pb.Envelope, *, deadline: int = 30_000) -> Answer:
        """Send one query and wait for its answer."""
        [answer] = self.route(asked, deadline=deadline)
        await answer.whole.wait()
        return answer

    def expect(self, query_id: bytes) -> Answer:
        """Where the answer of a query is collected."""
        return self.answers.setdefault(query_id, Answer())

    def credit(self, query_id: bytes, amount: int) -> None:
        """Give credit."""
        self.send(node_pb2.BrokerFrame(credit=provider_pb2.Credit(query_id=query_id, bytes=amount)))

    def cancel(self, query_id: bytes) -> None:
        """Nobody waits for this answer any more."""
        self.send(node_pb2.BrokerFrame(cancel=provider_pb2.Cancel(query_id=query_id)))

    async def endorse(self, grant: Signed[pb.Grant], *, renewal: bool = False) -> pb.Endorsement:
        """Ask for an endorsement and wait for it."""
        before = len(self._broker.endorsements_of(grant.id))
        call = node_pb2.EndorsementCall(grant=grant.envelope, renewal=renewal)
        self.send(node_pb2.BrokerFrame(endorsement=call))
        await self._broker.until(lambda: len(self._broker.endorsements_of(grant.id)) > before)
        return self._broker.endorsements_of(grant.id)[-1].payload

    async def link(self, sealed: bytes) -> node_pb2.LinkResult:
        """Forward a link request and wait for what the node says."""
        call_id = os.urandom(16)
        self.send(node_pb2.BrokerFrame(link=node_pb2.LinkForward(call_id=call_id, sealed_request=sealed)))
        await self._broker.until(lambda: call_id in self._broker.links)
        return self._broker.links[call_id]

    def end(self) -> None:
        """End the stream after what waits."""
        self.outbox.close()


class SimulatedBroker:
    """One broker; any number of streams, of one node.

    Args:
        operator: of the federation.
        organization: its keys.
        now: UTC milliseconds.
    """

    def __init__(self, operator: Person, organization: Organization, *, now: Callable[[], Millis]) -> None:
        self.operator, self.organization, self.now = operator, organization, now
        self.federation = organization.federation
        self.address = ""
        self.presents = organization.cert.envelope

        self.ticks = True
        self.tick_counts: int | None = None
        self.withheld: set[int] = set()
        self.alter_tick: Callable[[pb.Tick], None] | None = None
        self.tick_key = organization.key
        self.confirms = True
        self.first_credit = 256 * 1024
        self.gives_credit = True
        self.recorded = 100

        self.pushes: list[node_pb2.Push] = []
        self.statements: list[Signed[Any]] = []
        self.links: dict[bytes, node_pb2.LinkResult] = {}
        self.leases: list[node_pb2.LeaseRequest] = []
        self.streams: list[AttachedNode] = []
        self.dials = 0
        self.failure: Exception | None = None
        self.replies: list[node_pb2.NodeFrame] = []
        self._changed = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def served(
        cls, operator: Person, federation: str, *, now: Callable[[], Millis], port: int = 0
    ) -> AsyncIterator[SimulatedBroker]:
        """Serve on loopback while the block lasts."""
        organization = Organization.new("Broker", pb.PRINCIPAL_KIND_BROKER, federation, now=now())
        broker = cls(operator, organization, now=now)
        async with broker.serving(port):
            yield broker

    @asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator[None]:
        """Serve; may be done again on the same port after an end."""
        server = grpc.aio.server(options=server_options())
        node_pb2_grpc.add_NodeServiceServicer_to_server(self, server)  # type: ignore[arg-type]  # it is one in shape
        port = server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        self.address = f"127.0.0.1:{port}"
        try:
            yield
        finally:
            await server.stop(0)

    # ------------------------------------------------------------------------------- what a test does

    def shows(self, organization: Organization) -> None:
        """Greet and sign ticks with these keys from now on."""
        self.organization, self.presents, self.tick_key = organization, organization.cert.envelope, organization.key

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait until something holds; looked at whenever anything arrives."""
        while not holds():
            self._changed.clear()
            await self._changed.wait()
            if self.failure is not None:
                raise self.failure

    async def attached(self, count: int = 1) -> AttachedNode:
        """Wait for the node's stream number ``count``."""
        await self.until(lambda: len(self.streams) >= count)
        return self.streams[count - 1]

    async def dialled(self, count: int) -> None:
        """Wait until the node has dialled so often, whatever came of it."""
        await self.until(lambda: self.dials >= count)

    async def fresh(self) -> None:
        """Wait until a lease request says that every push is held, and one more has been answered since."""
        await self.until(lambda: self.leases and self.leases[-1].pushes_held >= len(self.pushes))
        seen = len(self.leases)
        await self.until(lambda: len(self.leases) > seen)

    def push(self, signed: Signed[Any], *, chain: Sequence[Signed[Any]] = ()) -> int:
        """Make the next push and send it, unless it is withheld; returns its number."""
        return self.push_raw(signed.envelope, chain=[each.envelope for each in chain])

    def push_raw(self, envelope: pb.Envelope, *, chain: Sequence[pb.Envelope] = (), number: int = 0) -> int:
        """The same with whatever envelope and number."""
        push = node_pb2.Push(
            number=number or len(self.pushes) + 1, position=self.recorded, statement=envelope, chain=chain
        )
        self.recorded += 1
        self.pushes.append(push)
        for stream in self.streams:
            if not stream.ended.is_set() and push.number not in self.withheld:
                stream.send(node_pb2.BrokerFrame(push=push))
        return push.number

    def endorsements_of(self, grant_id: bytes) -> list[Signed[pb.Endorsement]]:
        """What the node said about a grant."""
        return [each for each in self.statements if each.kind is st.ENDORSEMENT and each.payload.grant_id == grant_id]

    async def acknowledgement_of(self, revocation_id: bytes) -> Signed[pb.Acknowledgement]:
        """Wait for the node's acknowledgement."""

        def found() -> list[Signed[Any]]:
            return [
                each
                for each in self.statements
                if each.kind is st.ACKNOWLEDGEMENT and each.payload.statement_id == revocation_id
            ]

        await self.until(found)
        return found()[0]

    # ------------------------------------------------------------------------------- NodeService

    async def Attach(self, requests: AsyncIterator[node_pb2.AttachRequest], context: Any) -> None:  # noqa: N802 (the contract's)
        """One stream of the node."""
        self.dials += 1
        self._changed.set()
        challenge = session_pb2.Challenge(
            federation=self.federation,
            broker_cert=self.presents,
            server_nonce=make_server_nonce(_SECRET, now=self.now()),
            versions=[1],
            server_time=self.now(),
        )
        await context.write(node_pb2.AttachResponse(frames=[node_pb2.BrokerFrame(challenge=challenge)]))
        first = await anext(requests, None)
        if first is None:
            return
        hello = first.frames[0].hello
        check_hello(
            hello.hello,
            secret=_SECRET,
            broker=self.organization.root,
            federation=self.federation,
            now=self.now(),
        )
        stream = AttachedNode(hello, self)
        welcome = node_pb2.AttachWelcome(version=1, push_count=len(self.pushes), initial_credit=self.first_credit)
        stream.send(node_pb2.BrokerFrame(welcome=welcome))
        for push in self.pushes:
            if push.number > hello.pushes_held and push.number not in self.withheld:
                stream.send(node_pb2.BrokerFrame(push=push))
        self.streams.append(stream)
        self._changed.set()
        reading = asyncio.ensure_future(self._read(stream, requests))
        try:
            async for frames in stream.outbox.batches():
                await context.write(node_pb2.AttachResponse(frames=frames))
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading
            stream.ended.set()
            self._changed.set()

    async def _read(self, stream: AttachedNode, requests: AsyncIterator[node_pb2.AttachRequest]) -> None:
        try:
            async for request in requests:
                for frame in request.frames:
                    stream.order.append(frame)
                    self._take(stream, frame)
                self._changed.set()
        except Exception as error:
            self.failure = error
            self._changed.set()
            raise
        stream.outbox.close()

    def _take(self, stream: AttachedNode, frame: node_pb2.NodeFrame) -> None:
        which = frame.WhichOneof("frame")
        if which == "lease":
            self.leases.append(frame.lease)
            if self.ticks:
                stream.send(node_pb2.BrokerFrame(tick=self.tick(frame.lease, stream.hello)))
        elif which == "answer":
            answer = stream.expect(frame.answer.query_id)
            answer.pieces.append(frame.answer)
            sealed = sum(map(len, frame.answer.chunks))
            if frame.answer.HasField("outcome"):
                answer.whole.set()
            elif sealed and self.gives_credit:
                stream.credit(frame.answer.query_id, sealed)
        elif which == "statement":
            self._take_statement(stream, frame.statement)
        elif which == "link":
            self.links[frame.link.call_id] = frame.link
        else:
            self.replies.append(frame)

    def _take_statement(self, stream: AttachedNode, envelope: pb.Envelope) -> None:
        signed = st.verify(st.KINDS[envelope.payload_type], envelope, federation=self.federation)
        self.statements.append(signed)
        if self.confirms:
            result = session_pb2.DepositResult(
                statement_id=signed.id, refusal=session_pb2.Refusal(code=Reason.ALLOWED.wire)
            )
            stream.send(node_pb2.BrokerFrame(statement_result=result))

    def tick(self, lease: node_pb2.LeaseRequest, hello: node_pb2.NodeHello) -> pb.Envelope:
        """The answer to a lease request."""
        node = pb.KeyCert.FromString(hello.key_cert.payload).root
        payload = pb.Tick(
            federation=self.federation,
            nonce=os.urandom(16),
            created_at=self.now(),
            signer=self.organization.signer,
            node=node,
            lease_nonce=lease.lease_nonce,
            ledger_size=self.recorded,
            root_hash=sha256(str(self.recorded).encode()).digest(),
            push_count=len(self.pushes) if self.tick_counts is None else self.tick_counts,
        )
        if self.alter_tick is not None:
            self.alter_tick(payload)
        return st.sign(st.TICK, payload, [self.tick_key]).envelope

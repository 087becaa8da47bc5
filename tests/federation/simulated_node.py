"""A node without a database: it speaks ``Attach`` with real keys, endorses, acknowledges, answers invented records.

What it says is signed, sealed and bounded by credit like a real node's; what it does not do is decide. A test changes
how it behaves by its attributes:

======================  ==================================================================================
``verdict``             what it says about grants; None: nothing at all
``records``, ``body``   how many records an answer has, and how many bytes of text each
``answers``             an event: while it is clear, queries are taken and not answered
``acknowledges``        an event: while it is clear, revocations are taken and not acknowledged
``heeds_credit``        whether it waits for credit, and then sets ``stalled``
======================  ==================================================================================

Example::

    async with SimulatedNode(school, broker=broker.identity.root, now=now).attached(address) as node:
        await node.welcomed.wait()
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import grpc

from permslip import statements as st
from permslip._pb.permslip.v1 import node_pb2, node_pb2_grpc, provider_pb2, record_pb2, session_pb2, statement_pb2 as pb
from permslip.greeting import make_hello
from permslip.hosting.serving import channel_options
from permslip.outbox import Outbox
from permslip.quantities import Millis
from permslip.reasons import Reason
from permslip.sections import expand
from permslip.slices import SliceWriter
from permslip.statements import Signed
from tests.federation.consents import make_endorsement
from tests.federation.principals import Organization

__all__ = ["SimulatedNode"]

_CHUNK = 60_000


@dataclass(eq=False)
class _Answer:
    """An answer under way."""

    query: Signed[pb.Query]
    credit: int
    more: asyncio.Event
    stalled: bool = False
    task: asyncio.Task[None] | None = None


class SimulatedNode:
    """One node.

    Args:
        organization: its keys.
        broker: root key of the broker that it means to speak to.
        now: UTC milliseconds.
        max_open: queries it answers at once.
    """

    def __init__(
        self, organization: Organization, *, broker: bytes, now: Callable[[], Millis], max_open: int = 512
    ) -> None:
        self.organization, self._broker, self._now, self._max_open = organization, broker, now, max_open
        self.verdict: pb.EndorsementVerdict.ValueType | None = pb.ENDORSEMENT_VERDICT_ENDORSED
        self.records, self.body = 50, 120
        self.heeds_credit = True
        self.answers, self.acknowledges = asyncio.Event(), asyncio.Event()
        self.answers.set()
        self.acknowledges.set()
        self.revokers: list[bytes] = []

        self.welcome = node_pb2.AttachWelcome()
        self.welcomed = asyncio.Event()
        self.pushes: list[node_pb2.Push] = []
        self.ticks: list[pb.Envelope] = []
        self.results: list[session_pb2.DepositResult] = []
        self.asked: list[node_pb2.RoutedQuery] = []
        self.endorsement_calls: list[node_pb2.EndorsementCall] = []
        self.cancelled: list[bytes] = []
        self.links: list[node_pb2.LinkForward] = []
        self.draining = asyncio.Event()
        self.stalled = asyncio.Event()
        self.heard: Counter[str] = Counter()
        self._changed = asyncio.Event()
        self.outbox: Outbox[node_pb2.NodeFrame] = Outbox()
        self._open: dict[bytes, _Answer] = {}
        self._revoked: set[bytes] = set()

    @asynccontextmanager
    async def attached(self, address: str) -> AsyncIterator[SimulatedNode]:
        """Attach while the block lasts."""
        task = asyncio.ensure_future(self.run(address))
        try:
            waiting = asyncio.ensure_future(self.welcomed.wait())
            await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                waiting.cancel()
                task.result()
            yield self
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
                await task

    async def run(self, address: str) -> None:
        """Attach once, until the stream ends.

        Raises:
            grpc.aio.AioRpcError: how the broker ended it.
        """
        self.outbox = Outbox()
        options = [*channel_options(), ("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            call = node_pb2_grpc.NodeServiceStub(channel).Attach()
            greeting = await call.read()
            assert isinstance(greeting, node_pb2.AttachResponse)
            hello = self.hello(greeting.frames[0].challenge)
            await call.write(node_pb2.AttachRequest(frames=[node_pb2.NodeFrame(hello=hello)]))
            writing = asyncio.ensure_future(self._write(call))
            try:
                while isinstance(response := await call.read(), node_pb2.AttachResponse):
                    for frame in response.frames:
                        self._take(frame)
                    self._changed.set()
            finally:
                writing.cancel()
                for answer in self._open.values():
                    if answer.task is not None:
                        answer.task.cancel()
                self._open.clear()

    def hello(self, challenge: session_pb2.Challenge) -> node_pb2.NodeHello:
        """How it greets."""
        signed = make_hello(
            challenge,
            broker=self._broker,
            signer=self.organization.signer,
            kind=pb.PRINCIPAL_KIND_NODE,
            key=self.organization.key,
            now=self._now(),
        )
        return node_pb2.NodeHello(
            hello=signed.envelope,
            key_cert=self.organization.cert.envelope,
            pushes_held=len(self.pushes),
            max_open=self._max_open,
        )

    @property
    def stalled_answers(self) -> int:
        """Answers that wait for credit now."""
        return sum(each.stalled for each in self._open.values())

    async def starved(self, answers: int) -> None:
        """Wait until so many answers wait for credit, and a round trip to the broker brings no more of it."""
        heard = -1
        while self.stalled_answers < answers or heard != self.heard["credit"]:
            heard = self.heard["credit"]
            await self.until(lambda: self.stalled_answers >= answers)
            await self.lease()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something that came makes this true."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def lease(self) -> pb.Tick:
        """Ask for a tick and wait for it."""
        before = len(self.ticks)
        lease = node_pb2.LeaseRequest(lease_nonce=os.urandom(16), pushes_held=len(self.pushes))
        self.outbox.put(node_pb2.NodeFrame(lease=lease))
        await self.until(lambda: len(self.ticks) > before)
        return st.verify(st.TICK, self.ticks[-1], federation=self.organization.federation).payload

    def say(self, signed: Signed[pb.Endorsement] | Signed[pb.Acknowledgement] | Signed[pb.Revocation]) -> None:
        """Send a statement up."""
        self.outbox.put(node_pb2.NodeFrame(statement=signed.envelope))

    # ------------------------------------------------------------------------------------- what comes

    async def _write(self, call: grpc.aio.StreamStreamCall[node_pb2.AttachRequest, node_pb2.AttachResponse]) -> None:
        async for frames in self.outbox.batches():
            await call.write(node_pb2.AttachRequest(frames=frames))

    def _take(self, frame: node_pb2.BrokerFrame) -> None:
        which = frame.WhichOneof("frame")
        assert which is not None
        self.heard[which] += 1
        if which == "welcome":
            self.welcome = frame.welcome
            self.welcomed.set()
        elif which == "query":
            self._ask(frame.query)
        elif which == "credit":
            if (answer := self._open.get(frame.credit.query_id)) is not None:
                answer.credit += frame.credit.bytes
                answer.more.set()
        elif which == "cancel":
            self.cancelled.append(frame.cancel.query_id)
            self._stop(frame.cancel.query_id)
        elif which == "push":
            self._hold(frame.push)
        elif which == "tick":
            self.ticks.append(frame.tick)
        elif which == "endorsement":
            self._endorse(frame.endorsement)
        elif which == "link":
            self.links.append(frame.link)
        elif which == "statement_result":
            self.results.append(frame.statement_result)
        elif which == "draining":
            self.draining.set()

    def _endorse(self, call: node_pb2.EndorsementCall) -> None:
        self.endorsement_calls.append(call)
        if self.verdict is not None:
            grant = st.verify(st.GRANT, call.grant, federation=self.organization.federation)
            self.say(
                make_endorsement(
                    self.organization, grant, now=self._now(), verdict=self.verdict, revokers=self.revokers
                )
            )

    def _hold(self, push: node_pb2.Push) -> None:
        assert push.number == len(self.pushes) + 1, "pushes have no gap"
        self.pushes.append(push)
        if push.statement.payload_type == st.REVOCATION.payload_type:
            revocation = st.verify(st.REVOCATION, push.statement, federation=self.organization.federation)
            target = revocation.payload.target_id
            self._revoked.add(target)
            for query_id, answer in list(self._open.items()):
                payload = answer.query.payload
                if payload.grant_id == target or target in payload.delegation_ids:
                    self._stop(query_id)
            task = asyncio.ensure_future(self._acknowledge(revocation))
            task.add_done_callback(lambda done: done.result())

    async def _acknowledge(self, revocation: Signed[pb.Revocation]) -> None:
        await self.acknowledges.wait()
        payload = pb.Acknowledgement(
            federation=self.organization.federation,
            nonce=os.urandom(16),
            created_at=self._now(),
            signer=self.organization.signer,
            statement_id=revocation.id,
            target_id=revocation.payload.target_id,
            ledger_size=len(self.pushes),
        )
        self.say(st.sign(st.ACKNOWLEDGEMENT, payload, [self.organization.key]))

    def _stop(self, query_id: bytes) -> None:
        answer = self._open.pop(query_id, None)
        if answer is not None and answer.task is not None:
            answer.task.cancel()
        self.outbox.discard(lambda frame: frame.answer.query_id == query_id)

    # ------------------------------------------------------------------------------------- answering

    def _ask(self, routed: node_pb2.RoutedQuery) -> None:
        self.asked.append(routed)
        query = st.verify(st.QUERY, routed.query, federation=self.organization.federation)
        answer = _Answer(query, self.welcome.initial_credit, asyncio.Event())
        self._open[query.id] = answer
        answer.task = asyncio.ensure_future(self._answer(answer))

    async def _answer(self, answer: _Answer) -> None:
        await self.answers.wait()
        query = answer.query
        if query.payload.grant_id in self._revoked:
            refusal = session_pb2.Refusal(code=Reason.GRANT_REVOKED.wire)
            self._piece(query.id, outcome=provider_pb2.Outcome(refusal=refusal))
            return
        writer = SliceWriter(query, signer=self.organization.signer, key=self.organization.key, now=self._now())
        asked = expand(query.payload.sections)
        opening: pb.Envelope | None = writer.opening
        sealed = 0
        pages = list(self._pages(asked[0]))
        for page, count in pages[:-1]:
            for chunk in writer.add(page, count):
                await self._room(answer, len(chunk))
                self._piece(query.id, opening=opening, chunks=[chunk])
                opening = None
                sealed += len(chunk)
        held = [*writer.add(*pages[-1])]
        coverage = [
            pb.SectionCoverage(
                section=path, reason=Reason.ALLOWED.wire, returned=self.records if path == asked[0] else 0
            )
            for path in asked
        ]
        rest, manifest = writer.finish(coverage, slice_seq=1, now=self._now())
        held += rest
        for chunk in held[:-1]:
            await self._room(answer, len(chunk))
            self._piece(query.id, opening=opening, chunks=[chunk])
            opening = None
        await self._room(answer, len(held[-1]))
        outcome = provider_pb2.Outcome(
            refusal=session_pb2.Refusal(code=Reason.ALLOWED.wire),
            manifest_sha256=manifest.sha256,
            sealed_bytes=sealed + sum(map(len, held)),
            said_by=self.organization.root,
        )
        self._piece(query.id, opening=opening, chunks=[held[-1]], outcome=outcome)
        self._open.pop(query.id, None)

    async def _room(self, answer: _Answer, size: int) -> None:
        while self.heeds_credit and answer.credit < size:
            answer.stalled = True
            self.stalled.set()
            self._changed.set()
            answer.more.clear()
            await answer.more.wait()
            answer.stalled = False
        answer.credit -= size

    def _piece(
        self,
        query_id: bytes,
        *,
        opening: pb.Envelope | None = None,
        chunks: list[bytes] | None = None,
        outcome: provider_pb2.Outcome | None = None,
    ) -> None:
        piece = provider_pb2.Answer(query_id=query_id, opening=opening, chunks=chunks, outcome=outcome)
        self.outbox.put(node_pb2.NodeFrame(answer=piece), piece.ByteSize())

    def _pages(self, section: str) -> list[tuple[bytes, int]]:
        """Records of one section, in pages that fit a chunk."""
        pages: list[tuple[bytes, int]] = []
        part, count, size = record_pb2.SlicePart(), 0, 0
        for number in range(self.records):
            record = part.records.add(
                record_id=number.to_bytes(16, "big"),
                section=section,
                observed_on="2026-03-01",
                recorded_at=self._now(),
                version=1,
                value=record_pb2.Value(text="x" * self.body),
                voice=record_pb2.Voice(text="invented"),
            )
            count, size = count + 1, size + record.ByteSize() + 4
            if size > _CHUNK - self.body:
                pages.append((part.SerializeToString(deterministic=True), count))
                part, count, size = record_pb2.SlicePart(), 0, 0
        pages.append((part.SerializeToString(deterministic=True), count))
        return pages

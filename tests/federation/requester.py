"""A requester's stream, spoken by hand: whatever a test gives goes out as it is, whatever comes is kept.

Example::

    async with open_requester(address, tutor, broker=root, now=now) as requester:
        answer = await requester.ask(asked)
        assert answer.reason == Reason.ALLOWED
        records = answer.records(asked, node=school.root)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import grpc

from permslip._pb.permslip.v1 import provider_pb2, provider_pb2_grpc, record_pb2, session_pb2, statement_pb2 as pb
from permslip.dsse import statement_id
from permslip.greeting import make_hello
from permslip.hosting.serving import channel_options
from permslip.quantities import Millis
from permslip.reasons import Reason
from permslip.slices import SliceReader
from tests.federation.consents import Asked
from tests.federation.principals import Organization, Person

__all__ = ["Answer", "Requester", "open_requester", "say_hello"]

Who = Person | Organization
Call = grpc.aio.StreamStreamCall[provider_pb2.ExchangeRequest, provider_pb2.ExchangeResponse]


@dataclass
class Answer:
    """What came of one query."""

    pieces: list[provider_pb2.Answer] = field(default_factory=list)
    whole: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def outcome(self) -> provider_pb2.Outcome:
        """The last piece's."""
        return self.pieces[-1].outcome

    @property
    def reason(self) -> Reason:
        """Why it ended."""
        return Reason(self.outcome.refusal.code)

    @property
    def sealed_bytes(self) -> int:
        """How much came."""
        return sum(len(chunk) for piece in self.pieces for chunk in piece.chunks)

    def records(self, asked: Asked, *, node: bytes) -> list[record_pb2.Record]:
        """Open the answer, believing only what the node signed."""
        reader = SliceReader(asked.query, asked.reply_key, node=node, check_signer=lambda _signer: None)
        found: list[record_pb2.Record] = []
        for piece in self.pieces:
            if piece.HasField("opening"):
                reader.open_with(piece.opening)
            for chunk in piece.chunks:
                found += reader.read(chunk)
        reader.finish()
        return found


class Requester:
    """An open stream.

    Args:
        call: greeted and welcomed.
        welcome: what the broker said.
        channel: that the call is made on.
    """

    def __init__(self, call: Call, welcome: provider_pb2.Welcome, channel: grpc.aio.Channel) -> None:
        self.call, self.welcome, self.channel = call, welcome, channel
        self.answers: dict[bytes, Answer] = {}
        self.contributions: list[provider_pb2.ContributionReply] = []
        self.draining = asyncio.Event()
        self.credits = True
        self._sending = asyncio.Lock()
        self._reading: asyncio.Task[None] | None = None

    def read_on(self) -> None:
        """Begin, or go on, to read what comes."""
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._read())

    async def stop_reading(self) -> None:
        """Take nothing more, as a slow reader does. Reading cannot be taken up again."""
        if self._reading is not None:
            self._reading.cancel()
            with suppress(asyncio.CancelledError):
                await self._reading

    def expect(self, query_id: bytes) -> Answer:
        """Where the answer of a query is collected."""
        return self.answers.setdefault(query_id, Answer())

    async def send(self, *calls: provider_pb2.ExchangeCall) -> None:
        """Send calls as one message; gRPC takes one at a time."""
        async with self._sending:
            await self.call.write(provider_pb2.ExchangeRequest(calls=calls))

    async def ask_all(self, envelopes: Sequence[pb.Envelope], *, deadline: int = 0) -> list[Answer]:
        """Send queries as one message and wait for all answers."""
        self.read_on()
        answers = [self.expect(statement_id(each.payload_type, each.payload)) for each in envelopes]
        await self.send(*[query_call(each, deadline=deadline) for each in envelopes])
        for answer in answers:
            await self._or_end(answer.whole)
        return answers

    async def ask(self, asked: Asked | pb.Envelope, *, deadline: int = 0) -> Answer:
        """Send one query and wait for its answer."""
        envelope = asked.envelope if isinstance(asked, Asked) else asked
        [answer] = await self.ask_all([envelope], deadline=deadline)
        return answer

    async def finished(self, answer: Answer) -> Answer:
        """Wait until an answer is whole."""
        self.read_on()
        await self._or_end(answer.whole)
        return answer

    async def ended(self) -> grpc.StatusCode:
        """Wait until the broker ends the stream; how it did."""
        self.read_on()
        assert self._reading is not None
        await self._reading
        return await self.call.code()

    async def _or_end(self, event: asyncio.Event) -> None:
        waiting = asyncio.ensure_future(event.wait())
        assert self._reading is not None
        await asyncio.wait({waiting, self._reading}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            waiting.cancel()
            raise AssertionError(f"the stream ended: {await self.call.code()} {await self.call.details()}")

    async def _read(self) -> None:
        with suppress(grpc.aio.AioRpcError):
            while isinstance(response := await self.call.read(), provider_pb2.ExchangeResponse):
                for reply in response.replies:
                    await self._take(reply)

    async def _take(self, reply: provider_pb2.ExchangeReply) -> None:
        which = reply.WhichOneof("reply")
        if which == "draining":
            self.draining.set()
        elif which == "contribution":
            self.contributions.append(reply.contribution)
        elif which == "answer":
            answer = self.expect(reply.answer.query_id)
            answer.pieces.append(reply.answer)
            sealed = sum(map(len, reply.answer.chunks))
            if reply.answer.HasField("outcome"):
                answer.whole.set()
            elif self.credits and sealed:
                credit = provider_pb2.Credit(query_id=reply.answer.query_id, bytes=sealed)
                await self.send(provider_pb2.ExchangeCall(credit=credit))


def query_call(envelope: pb.Envelope, *, deadline: int = 0) -> provider_pb2.ExchangeCall:
    """A query as it travels."""
    return provider_pb2.ExchangeCall(query=provider_pb2.QueryCall(query=envelope, deadline=deadline))


def say_hello(
    challenge: session_pb2.Challenge,
    who: Who,
    *,
    broker: bytes,
    now: Callable[[], Millis],
    kind: pb.PrincipalKind.ValueType | None = None,
) -> pb.Envelope:
    """A greeting, as what ``who`` is."""
    own = who.kind if isinstance(who, Organization) else pb.PRINCIPAL_KIND_GUARDIAN
    signed = make_hello(
        challenge,
        broker=broker,
        signer=who.signer,
        kind=own if kind is None else kind,
        key=who.key,
        now=now(),
    )
    return signed.envelope


@asynccontextmanager
async def open_requester(
    address: str,
    who: Who,
    *,
    broker: bytes,
    now: Callable[[], Millis],
    kind: pb.PrincipalKind.ValueType | None = None,
    options: Sequence[tuple[str, int]] = (),
) -> AsyncIterator[Requester]:
    """Open a stream and greet.

    Args:
        address: HOST:PORT.
        who: greets.
        broker: root key of the broker meant.
        now: UTC milliseconds.
        kind: as what; what ``who`` is unless given.
        options: of the channel, beside or in place of the usual ones.

    Raises:
        grpc.aio.AioRpcError: the broker did not let it in.
    """
    wanted = {**dict(channel_options()), "grpc.use_local_subchannel_pool": 1, **dict(options)}
    async with grpc.aio.insecure_channel(address, options=list(wanted.items())) as channel:
        call = provider_pb2_grpc.ProviderServiceStub(channel).Exchange()
        greeting = await call.read()
        if not isinstance(greeting, provider_pb2.ExchangeResponse):
            raise await failure_of(call)
        hello = say_hello(greeting.replies[0].challenge, who, broker=broker, now=now, kind=kind)
        await call.write(provider_pb2.ExchangeRequest(calls=[provider_pb2.ExchangeCall(hello=hello)]))
        answer = await call.read()
        if not isinstance(answer, provider_pb2.ExchangeResponse):
            raise await failure_of(call)
        requester = Requester(call, answer.replies[0].welcome, channel)
        try:
            yield requester
        finally:
            call.cancel()
            await requester.stop_reading()


async def failure_of(call: Call) -> grpc.aio.AioRpcError:
    """How the broker ended a stream, as an error."""
    return grpc.aio.AioRpcError(
        await call.code(), await call.initial_metadata(), await call.trailing_metadata(), details=await call.details()
    )

"""Attaching: the node dials out, keeps one stream to each broker, and comes back whenever it breaks.

In order, on each stream: the broker's challenge; this node's hello, alone; the broker's welcome; what this node has to
say and the broker has not confirmed; lease requests, once a second; then whatever comes. Nobody is answered before the
lease is fresh, which it cannot be before every push is held.

Rules:

- The broker proves to have the root key that the configuration pins. A server that cannot is left at once.
- One task reads, one writes, one asks for leases; pushes, calls for endorsement and confirmations are worked on beside
  them, each in its own order, so that none of them holds up a tick.
- A tick that does not hold is dropped and logged; without ticks the lease runs out by itself.
- A push that does not hold ends the stream: it would be of no use, since no lease can be fresh any more.
- After a break the next dial waits: from ``first_retry_ms``, doubling up to ``longest_retry_ms``, each time anywhere
  between half of it and the whole. A stream that lasted begins at the first again.

Example::

    await Attachment(address, node).keep()
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import grpc

from permslip import dsse, statements as st
from permslip._pb.permslip.v1 import node_pb2, node_pb2_grpc, provider_pb2, statement_pb2 as pb
from permslip.bounds import check_bounds
from permslip.errors import (
    AuthorityError,
    ConfigurationError,
    MalformedError,
    PermslipError,
    RefusedError,
    UnavailableError,
)
from permslip.greeting import CONTRACT_VERSION, make_hello
from permslip.hosting.logs import get_log
from permslip.hosting.refusals import refusal_of
from permslip.hosting.serving import channel_options, is_loopback
from permslip.reasons import Reason
from permslip.standing import check_key_cert
from permslip.statements import Signed
from permslip_node.configuration import BrokerAddress
from permslip_node.lease import Lease
from permslip_node.streams import BrokerStream

if TYPE_CHECKING:
    from permslip_node.app import RunningNode

__all__ = ["Attachment"]

_log = get_log(__name__)

Call = grpc.aio.StreamStreamCall[node_pb2.AttachRequest, node_pb2.AttachResponse]
_T = TypeVar("_T")

# A stream that lasted so long was no failure: the next dial waits as briefly as the first.
_LASTED_MS: Final = 10_000
# Messages of one kind that may wait while others are worked on; beyond them the stream is not read on.
_WAITING: Final = 256


class Attachment:
    """One broker, attached to again and again.

    Args:
        broker: where it is, and who it must be.
        node: what is attached.
    """

    def __init__(self, broker: BrokerAddress, node: RunningNode) -> None:
        self._broker, self._node = broker, node
        self._timing = node.settings.timing
        self._ending = asyncio.Event()
        self.stream: BrokerStream | None = None

    def end(self) -> None:
        """Let the stream end after what waits, and do not come back."""
        self._ending.set()
        if self.stream is not None:
            self.stream.outbox.close()

    async def keep(self) -> None:
        """Attach, and attach again, until told to end."""
        delay = self._timing.first_retry_ms
        while not self._ending.is_set():
            began = self._node.monotonic()
            try:
                await self._attach()
            except grpc.aio.AioRpcError as error:
                self._say_broken(str(error.code().name), error.details() or "")
            except PermslipError as error:
                self._say_broken(type(error).__name__, str(error))
            except Exception as error:  # noqa: BLE001 (whatever it is: a node that does not come back answers nobody)
                _log.error("broker_stream_failed", address=self._broker.address, exc_info=error)
            if self._node.monotonic() - began >= _LASTED_MS:
                delay = self._timing.first_retry_ms
            if not self._ending.is_set():
                await self._pause(delay * random.uniform(0.5, 1.0))  # noqa: S311 (jitter, no secret)
                delay = min(delay * 2, self._timing.longest_retry_ms)

    def _say_broken(self, why: str, detail: str) -> None:
        if not self._ending.is_set():
            _log.warning("broker_stream_broken", address=self._broker.address, why=why, detail=detail)

    async def _pause(self, milliseconds: float) -> None:
        try:
            await asyncio.wait_for(self._ending.wait(), milliseconds / 1_000)
        except TimeoutError:
            return

    async def _attach(self) -> None:
        """One stream, from dial to end."""
        async with self._channel() as channel:
            call: Call = node_pb2_grpc.NodeServiceStub(channel).Attach()
            try:
                cert = await self._greet(call)
                frames = await _frames(call)
                if not frames or frames[0].WhichOneof("frame") != "welcome":
                    raise MalformedError("expected a welcome.", field="frames[0]")
                stream = self._welcomed(frames[0].welcome)
                await self._converse(call, stream, cert, frames[1:])
            finally:
                call.cancel()

    def _channel(self) -> grpc.aio.Channel:
        quiet = self._timing.keepalive_ms
        overridden = {
            "grpc.keepalive_time_ms": quiet,
            "grpc.keepalive_timeout_ms": quiet,
            "grpc.http2.ping_timeout_ms": quiet,
        }
        options = [(name, overridden.get(name, value)) for name, value in channel_options()]
        # A channel of its own: a broken connection must not be shared with the next attempt.
        options.append(("grpc.use_local_subchannel_pool", 1))
        authority = self._node.settings.broker_ca_file
        address = self._broker.address
        if authority is not None:
            return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(_read(authority)), options=options)
        if not is_loopback(address.rpartition(":")[0].strip("[]")):
            raise ConfigurationError(
                f"{address} is not this machine, and there is no certificate authority.",
                key="node.broker_ca_file",
                remedy="Name the PEM file of the authority that signed the broker's certificate.",
            )
        return grpc.aio.insecure_channel(address, options=options)

    async def _greet(self, call: Call) -> Signed[pb.KeyCert]:
        """Answer the challenge; returns the broker's certificate, which is by the pinned root."""
        frames = await _frames(call)
        if not frames or frames[0].WhichOneof("frame") != "challenge":
            raise MalformedError("expected a challenge.", field="frames[0]")
        challenge, identity = frames[0].challenge, self._node.identity
        if challenge.federation != identity.federation:
            raise MalformedError(
                f"expected {identity.federation!r}, got {challenge.federation!r}.", field="challenge.federation"
            )
        hello = make_hello(
            challenge,
            broker=self._broker.root,
            signer=identity.signer,
            kind=pb.PRINCIPAL_KIND_NODE,
            key=identity.key,
            now=self._node.clock(),
        )
        cert = st.verify(st.KEY_CERT, challenge.broker_cert, federation=identity.federation)
        check_key_cert(cert.payload)
        if self._node.clock() >= cert.payload.valid_until:
            raise AuthorityError("the broker's certificate has ended.", remedy="Tell the broker's operator.")
        own = node_pb2.NodeHello(
            hello=hello.envelope,
            key_cert=identity.cert.envelope,
            pushes_held=self._node.pushes.held(self._broker.root),
            max_open=self._node.settings.limits.open_queries,
        )
        await call.write(node_pb2.AttachRequest(frames=[node_pb2.NodeFrame(hello=own)]))
        return cert

    def _welcomed(self, welcome: node_pb2.AttachWelcome) -> BrokerStream:
        if welcome.version != CONTRACT_VERSION:
            raise MalformedError(
                f"expected version {CONTRACT_VERSION}, got {welcome.version}.",
                field="welcome.version",
                remedy="Update the older software.",
            )
        stream = BrokerStream(
            self._broker.root,
            lease=Lease(lifetime=self._timing.lease_ms),
            pushes_held=lambda: self._node.pushes.held(self._broker.root),
            monotonic=self._node.monotonic,
            high_water=self._node.settings.limits.waiting_bytes,
        )
        stream.first_credit = welcome.initial_credit
        return stream

    async def _converse(
        self, call: Call, stream: BrokerStream, cert: Signed[pb.KeyCert], first: Sequence[node_pb2.BrokerFrame]
    ) -> None:
        node = self._node
        _log.info("attached", address=self._broker.address, pushes_held=node.pushes.held(stream.broker))
        reader = _Reader(stream, cert, node)
        self.stream = stream
        node.streams.append(stream)
        if self._ending.is_set():
            stream.outbox.close()
        node.send_unconfirmed(stream)
        try:
            await _until_first(
                self._write(call, stream),
                reader.read(call, first),
                self._ask_for_leases(stream),
                *reader.works(),
            )
        finally:
            self.stream = None
            node.streams.remove(stream)
            stream.close()
            node.answerer.detached(stream)
            _log.info("detached", address=self._broker.address)

    async def _write(self, call: Call, stream: BrokerStream) -> None:
        try:
            async for items in stream.outbox.batches():
                self._node.answerer.leaving(items)
                stream.begin_writing(items)
                await call.write(node_pb2.AttachRequest(frames=[item.frame for item in items]))
                stream.end_writing()
                self._node.answerer.left(items)
            await call.done_writing()
        except asyncio.InvalidStateError:
            # What gRPC says of a call that ended while something was about to be written.
            raise UnavailableError(f"the stream ended: {(await call.code()).name} {await call.details()}.") from None
        finally:
            stream.end_writing()

    async def _ask_for_leases(self, stream: BrokerStream) -> None:
        while stream.is_open:
            request = node_pb2.LeaseRequest(
                lease_nonce=stream.lease.ask(self._node.monotonic()),
                pushes_held=self._node.pushes.held(stream.broker),
            )
            stream.put(node_pb2.NodeFrame(lease=request))
            await asyncio.sleep(self._timing.lease_interval_ms / 1_000)


class _Reader:
    """Reads one stream, and works on what comes."""

    def __init__(self, stream: BrokerStream, cert: Signed[pb.KeyCert], node: RunningNode) -> None:
        self._stream, self._cert, self._node = stream, cert, node
        # Pushes and, behind them, ticks: a tick that counts a push must not be heard before that push is held.
        self._pushes: asyncio.Queue[list[node_pb2.Push | pb.Envelope]] = asyncio.Queue(_WAITING)
        self._taking_pushes = False
        self._calls: asyncio.Queue[list[node_pb2.EndorsementCall]] = asyncio.Queue(_WAITING)
        self._confirmed: asyncio.Queue[list[bytes]] = asyncio.Queue()
        self._links: asyncio.Queue[list[node_pb2.LinkForward]] = asyncio.Queue(_WAITING)

    def works(self) -> list[Coroutine[Any, Any, None]]:
        """What must run beside :meth:`read`."""
        node, stream = self._node, self._stream
        return [
            _each(self._pushes, self._take_pushes),
            _each(self._calls, self._endorse),
            _each(self._confirmed, lambda batch: node.recording.confirmed(stream.broker, batch)),
            _each(self._links, self._link),
        ]

    async def read(self, call: Call, first: Sequence[node_pb2.BrokerFrame]) -> None:
        """Read until the broker ends the stream."""
        await self._take(first)
        while frames := await _frames(call):
            await self._take(frames)

    async def _take(self, frames: Sequence[node_pb2.BrokerFrame]) -> None:
        queries: list[node_pb2.RoutedQuery] = []
        pushes: list[node_pb2.Push | pb.Envelope] = []
        calls: list[node_pb2.EndorsementCall] = []
        confirmed: list[bytes] = []
        links: list[node_pb2.LinkForward] = []
        answerer = self._node.answerer
        for frame in frames:
            which = frame.WhichOneof("frame")
            if which == "query":
                queries.append(frame.query)
            elif which == "credit":
                answerer.credit(frame.credit)
            elif which == "push":
                pushes.append(frame.push)
            elif which == "tick":
                if pushes or self._taking_pushes or not self._pushes.empty():
                    pushes.append(frame.tick)
                else:
                    self._tick(frame.tick)
            elif which == "cancel":
                answerer.cancel(frame.cancel.query_id)
            elif which == "endorsement":
                calls.append(frame.endorsement)
            elif which == "statement_result":
                if not Reason(frame.statement_result.refusal.code or Reason.INTERNAL).may_pass:
                    confirmed.append(frame.statement_result.statement_id)
            elif which == "link":
                links.append(frame.link)
            else:
                self._decline(frame, which)
        if queries:
            answerer.take(self._stream, queries)
        if pushes:
            await self._pushes.put(pushes)
        if calls:
            await self._calls.put(calls)
        if confirmed:
            await self._confirmed.put(confirmed)
        if links:
            await self._links.put(links)

    def _tick(self, envelope: pb.Envelope) -> None:
        try:
            tick = st.verify(st.TICK, envelope, federation=self._node.identity.federation).payload
            signer = tick.signer
            if (signer.root, signer.key) != (self._stream.broker, self._cert.payload.signing_key):
                raise AuthorityError("tick: not by the broker of this stream.")
            if tick.node != self._node.identity.root:
                raise AuthorityError("tick: for another node.")
            self._stream.lease.accept(tick)
        except PermslipError as error:
            _log.error("tick_refused", why=error.message)
            return
        if self._stream.is_fit():
            self._node.became_fit()

    async def _take_pushes(self, items: list[node_pb2.Push | pb.Envelope]) -> None:
        self._taking_pushes = True
        try:
            await self._node.pushes.take(
                self._stream.broker, [each for each in items if isinstance(each, node_pb2.Push)]
            )
        except PermslipError as error:
            _log.error("push_refused", why=f"{type(error).__name__}: {error.message}")
            raise
        finally:
            self._taking_pushes = False
        for each in items:
            if isinstance(each, pb.Envelope):
                self._tick(each)
        if self._stream.is_fit():
            self._node.became_fit()

    async def _endorse(self, calls: list[node_pb2.EndorsementCall]) -> None:
        for envelope in await self._node.endorser.endorse(calls):
            self._stream.put(node_pb2.NodeFrame(statement=envelope))

    async def _link(self, forwards: list[node_pb2.LinkForward]) -> None:
        for forward in forwards:
            check_bounds(forward, "link")
            self._stream.put(node_pb2.NodeFrame(link=await self._node.slips.answer(forward)))

    def _decline(self, frame: node_pb2.BrokerFrame, which: str | None) -> None:
        """What this node does not do is said, not ignored, where somebody waits for it."""
        refusal = refusal_of(RefusedError(Reason.NOT_ALLOWED.meaning, code=Reason.NOT_ALLOWED.name))
        if which == "contribution":
            envelope = frame.contribution.contribution
            identifier = dsse.statement_id(envelope.payload_type, envelope.payload)
            reply = provider_pb2.ContributionReply(statement_id=identifier, refusal=refusal)
            self._stream.put(node_pb2.NodeFrame(contribution=reply))
        elif which == "ledger":
            answer = node_pb2.LedgerReply(call_id=frame.ledger.call_id, refusal=refusal, last=True)
            self._stream.put(node_pb2.NodeFrame(ledger=answer))
        elif which == "draining":
            _log.info("broker_draining")
        else:
            _log.info("frame_not_known", frame=which)


async def _frames(call: Call) -> Sequence[node_pb2.BrokerFrame]:
    """The next message's frames; empty at the end of the stream."""
    while True:
        response = await call.read()
        if not isinstance(response, node_pb2.AttachResponse):
            code = await call.code()
            if code != grpc.StatusCode.OK:
                raise UnavailableError(f"the broker ended the stream: {code.name} {await call.details()}.")
            return ()
        if response.frames:
            return response.frames


async def _each(queue: asyncio.Queue[list[_T]], work: Callable[[list[_T]], Awaitable[None]]) -> None:
    """Work on what is in the queue, everything that is there at once."""
    while True:
        batch = await queue.get()
        while not queue.empty():
            batch = [*batch, *queue.get_nowait()]
        await work(batch)


async def _until_first(*works: Coroutine[Any, Any, None]) -> None:
    """Run all until the first one ends; then the others are cancelled.

    Raises:
        Exception: what it raised.
    """
    tasks = [asyncio.ensure_future(each) for each in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read: {error.strerror}.", key="node.broker_ca_file", remedy="Name a readable PEM file."
        ) from error

"""Attaching: the node dials out, keeps one stream to each broker, and comes back whenever it breaks.

In order, on each stream: the broker's challenge; this node's hello, alone; the broker's welcome; what this node has to
say and the broker has not confirmed; lease requests, once a second; then whatever comes. Nobody is answered before the
lease is fresh, which it cannot be before every push is held.

Rules:

- The broker proves to have the root key that the configuration pins. A server that cannot is left at once, and so is
  one that shows an earlier certificate than this broker has shown before: its key may have been stolen.
- One task reads, one writes, one asks for leases; pushes, calls for endorsement and confirmations are worked on beside
  them, each in its own order, so that none of them holds up a tick.
- A tick that does not hold is dropped and logged; without ticks the lease runs out by itself.
- The last push that is held is asked for once more, and must be the same as before.
- A push that does not hold ends the stream: it would be of no use, since no lease can be fresh any more.
- After a break the next dial waits: from ``first_retry_ms``, doubling up to ``longest_retry_ms``, each time anywhere
  between half of it and the whole. A stream that lasted begins at the first again.

Example::

    await Attachment(address, node).keep()
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc

from permslip import statements as st
from permslip._pb.permslip.v1 import node_pb2, node_pb2_grpc, statement_pb2 as pb
from permslip.errors import ConfigurationError, MalformedError, PermslipError, UnavailableError
from permslip.greeting import CONTRACT_VERSION, make_hello
from permslip.hosting.logs import get_log
from permslip.hosting.serving import channel_options, is_loopback
from permslip.standing import check_key_cert
from permslip.statements import Signed
from permslip_node.attach_frames import Call, FrameReader, next_frames
from permslip_node.configuration import BrokerAddress
from permslip_node.lease import Lease
from permslip_node.streams import BrokerStream

if TYPE_CHECKING:
    from permslip_node.app import RunningNode

__all__ = ["Attachment"]

_log = get_log(__name__)

# A stream that lasted so long was no failure: the next dial waits as briefly as the first.
_LASTED_MS: Final = 10_000


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
        self._node.pushes.memory.read_again(self._broker.root)
        async with self._channel() as channel:
            call: Call = node_pb2_grpc.NodeServiceStub(channel).Attach()
            try:
                cert = await self._greet(call)
                frames = await next_frames(call)
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
        frames = await next_frames(call)
        if not frames or frames[0].WhichOneof("frame") != "challenge":
            raise MalformedError("expected a challenge.", field="frames[0]")
        challenge, identity = frames[0].challenge, self._node.identity
        if challenge.federation != identity.federation:
            raise MalformedError(
                f"expected {identity.federation!r}, got {challenge.federation!r}.", field="challenge.federation"
            )
        # Raises unless the certificate is by the pinned root, and in time.
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
        await self._check_newest(cert.payload)
        known = self._node.pushes.memory.of(self._broker.root)
        own = node_pb2.NodeHello(
            hello=hello.envelope,
            key_cert=identity.cert.envelope,
            pushes_held=known.pushes_held - bool(known.asked_again),
            max_open=self._node.settings.limits.open_queries,
        )
        await call.write(node_pb2.AttachRequest(frames=[node_pb2.NodeFrame(hello=own)]))
        return cert

    async def _check_newest(self, cert: pb.KeyCert) -> None:
        memory, root = self._node.pushes.memory, self._broker.root
        memory.of(root).check_cert(cert)
        if cert.seq > memory.of(root).cert_seq:
            await self._node.recording.aside(memory.write_cert, root, cert.seq)
            memory.note_cert(root, cert.seq)

    def _welcomed(self, welcome: node_pb2.AttachWelcome) -> BrokerStream:
        if welcome.version != CONTRACT_VERSION:
            raise MalformedError(
                f"expected version {CONTRACT_VERSION}, got {welcome.version}.",
                field="welcome.version",
                remedy="Update the older software.",
            )
        known = self._node.pushes.memory.of(self._broker.root)
        stream = BrokerStream(
            self._broker.root,
            lease=Lease(
                lifetime=self._timing.lease_ms,
                push_count=known.pushes_held,
                ledger_size=known.ledger_size,
                root_hash=known.root_hash,
            ),
            pushes_held=lambda: self._node.pushes.held(self._broker.root),
            asked_again=known.asked_again,
            monotonic=self._node.monotonic,
            high_water=self._node.settings.limits.waiting_bytes,
        )
        stream.first_credit = welcome.initial_credit
        return stream

    async def _converse(
        self, call: Call, stream: BrokerStream, cert: Signed[pb.KeyCert], first: Sequence[node_pb2.BrokerFrame]
    ) -> None:
        node = self._node
        await node.rotation.say_anew()
        _log.info("attached", address=self._broker.address, pushes_held=node.pushes.held(stream.broker))
        reader = FrameReader(stream, cert, node)
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
            node.ledger_answers.detached(stream)
            _log.info("detached", address=self._broker.address)

    async def _write(self, call: Call, stream: BrokerStream) -> None:
        try:
            async for waited in stream.outbox.batches():
                items = self._node.answerer.leaving(waited)
                if not items:
                    continue
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
                pushes_held=stream.pushes_held(),
            )
            stream.put(node_pb2.NodeFrame(lease=request))
            await asyncio.sleep(self._timing.lease_interval_ms / 1_000)


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

"""What a broker sends down a node's stream, frame by frame, and who in the node works on each.

Rules:

- Queries, credits, cancellations and auditors' calls go straight to who answers. Pushes, calls for endorsement, link
  requests, guardians' calls and confirmations each have a queue and a worker of their own, in order.
- What this node does not do is declined where somebody waits for it, and otherwise ignored with a word in the log.

Example::

    reader = FrameReader(stream, cert, node)
    await asyncio.gather(reader.read(call, first), *reader.works())
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import grpc

from permslip import dsse, statements as st
from permslip._pb.permslip.v1 import node_pb2, provider_pb2, statement_pb2 as pb
from permslip.bounds import check_bounds
from permslip.errors import AuthorityError, PermslipError, RefusedError, UnavailableError
from permslip.hosting.logs import get_log
from permslip.hosting.refusals import refusal_of
from permslip.reasons import Reason
from permslip.statements import Signed
from permslip_node.ledger_answers import CALL_ID_BYTES
from permslip_node.streams import BrokerStream

if TYPE_CHECKING:
    from permslip_node.app import RunningNode

__all__ = ["Call", "FrameReader", "next_frames"]

_log = get_log(__name__)

Call = grpc.aio.StreamStreamCall[node_pb2.AttachRequest, node_pb2.AttachResponse]
_T = TypeVar("_T")

# Messages of one kind that may wait while others are worked on; beyond them the stream is not read on.
_WAITING: Final = 256
# So many confirmations are one entry of their queue.
_TOGETHER: Final = 64
MOST_CONFIRMED: Final = _WAITING * _TOGETHER
"""Confirmations that may wait to be written down."""
_ID_BYTES: Final = 32
# A confirmation that is not written down yet costs one more sending after a restart. Written one by one, each would
# flush the disk in the way of the next revocation.
_GATHER_CONFIRMED_S: Final = 0.25


class FrameReader:
    """Reads one stream, and works on what comes.

    Args:
        stream: which.
        cert: the broker's.
        node: whose stream it is.
    """

    def __init__(self, stream: BrokerStream, cert: Signed[pb.KeyCert], node: RunningNode) -> None:
        self._stream, self._cert, self._node = stream, cert, node
        # Pushes and, behind them, ticks: a tick that counts a push must not be heard before that push is held.
        self._pushes: asyncio.Queue[list[node_pb2.Push | pb.Envelope]] = asyncio.Queue(_WAITING)
        self._taking_pushes = False
        self._calls: asyncio.Queue[list[node_pb2.EndorsementCall]] = asyncio.Queue(_WAITING)
        self._confirmed: asyncio.Queue[list[bytes]] = asyncio.Queue(_WAITING)
        self._links: asyncio.Queue[list[node_pb2.LinkForward]] = asyncio.Queue(_WAITING)
        self._slices: asyncio.Queue[list[node_pb2.LedgerCall]] = asyncio.Queue(_WAITING)
        # Offered checkpoints, with the times at which they came.
        self._offers: asyncio.Queue[list[tuple[node_pb2.CheckpointOffer, int]]] = asyncio.Queue(_WAITING)

    def works(self) -> list[Coroutine[Any, Any, None]]:
        """What must run beside :meth:`read`."""
        return [
            _each(self._pushes, self._take_pushes),
            _each(self._calls, self._endorse),
            _each(self._confirmed, self._forget_confirmed, gather_for=_GATHER_CONFIRMED_S),
            _each(self._links, self._link),
            _each(self._slices, self._tell_slices),
            _each(self._offers, self._witness),
        ]

    async def read(self, call: Call, first: Sequence[node_pb2.BrokerFrame]) -> None:
        """Read until the broker ends the stream."""
        await self._take(first)
        while frames := await next_frames(call):
            await self._take(frames)

    async def _take(self, frames: Sequence[node_pb2.BrokerFrame]) -> None:
        queries: list[node_pb2.RoutedQuery] = []
        pushes: list[node_pb2.Push | pb.Envelope] = []
        calls: list[node_pb2.EndorsementCall] = []
        confirmed: list[bytes] = []
        links: list[node_pb2.LinkForward] = []
        slices: list[node_pb2.LedgerCall] = []
        offers: list[tuple[node_pb2.CheckpointOffer, int]] = []
        answerer = self._node.answerer
        for frame in frames:
            which = frame.WhichOneof("frame")
            if which == "query":
                queries.append(frame.query)
            elif which == "credit":
                self._credit(frame.credit)
            elif which == "push":
                pushes.append(frame.push)
            elif which == "tick":
                if pushes or self._taking_pushes or not self._pushes.empty():
                    pushes.append(frame.tick)
                else:
                    self._tick(frame.tick)
            elif which == "cancel":
                self._cancel(frame.cancel.query_id)
            elif which == "endorsement":
                calls.append(frame.endorsement)
            elif which == "statement_result":
                result = frame.statement_result
                known = len(result.statement_id) == _ID_BYTES
                if known and not Reason(result.refusal.code or Reason.INTERNAL).may_pass:
                    confirmed.append(result.statement_id)
            elif which == "link":
                links.append(frame.link)
            elif which == "checkpoint":
                offers.append((frame.checkpoint, self._node.monotonic()))
            elif which == "ledger" and frame.ledger.HasField("slice"):
                slices.append(frame.ledger)
            elif which == "ledger":
                self._node.ledger_answers.take(self._stream, self._cert, frame.ledger)
            else:
                self._decline(frame, which)
        if queries:
            answerer.take(self._stream, queries)
        if pushes:
            await self._pushes.put(pushes)
        if calls:
            await self._calls.put(calls)
        for start in range(0, len(confirmed), _TOGETHER):
            await self._confirmed.put(confirmed[start : start + _TOGETHER])
        if links:
            await self._links.put(links)
        if offers:
            await self._offers.put(offers)
        if slices:
            await self._slices.put(slices)

    def _credit(self, credit: provider_pb2.Credit) -> None:
        if len(credit.query_id) == CALL_ID_BYTES:
            self._node.ledger_answers.credit(self._stream, credit)
        else:
            self._node.answerer.credit(credit)

    def _cancel(self, number: bytes) -> None:
        if len(number) == CALL_ID_BYTES:
            self._node.ledger_answers.cancel(self._stream, number)
        else:
            self._node.answerer.cancel(number)

    def _tick(self, envelope: pb.Envelope) -> None:
        try:
            signed = st.verify(st.TICK, envelope, federation=self._node.identity.federation)
            tick, signer = signed.payload, signed.payload.signer
            if (signer.root, signer.key) != (self._stream.broker, self._cert.payload.signing_key):
                raise AuthorityError("tick: not by the broker of this stream.")
            if tick.node != self._node.identity.root:
                raise AuthorityError("tick: for another node.")
            self._node.witness.saw_tick(self._stream.broker, signed)
            self._stream.lease.accept(tick)
        except PermslipError as error:
            _log.error("tick_refused", why=str(error))
            return
        self._node.pushes.memory.saw_ledger(self._stream.broker, tick.ledger_size, tick.root_hash)
        if self._stream.is_fit():
            self._node.became_fit()

    async def _take_pushes(self, items: list[node_pb2.Push | pb.Envelope]) -> None:
        self._taking_pushes = True
        pushes = [each for each in items if isinstance(each, node_pb2.Push)]
        try:
            await self._node.pushes.take(self._stream.broker, pushes)
        except PermslipError as error:
            _log.error("push_refused", why=f"{type(error).__name__}: {error}")
            raise
        finally:
            self._taking_pushes = False
        for push in pushes:
            self._stream.came_again(push.number)
        for each in items:
            if isinstance(each, pb.Envelope):
                self._tick(each)
        if self._stream.is_fit():
            self._node.became_fit()

    async def _forget_confirmed(self, ids: list[bytes]) -> None:
        await self._node.recording.confirmed(self._stream.broker, ids)

    async def _endorse(self, calls: list[node_pb2.EndorsementCall]) -> None:
        for envelope in await self._node.endorser.endorse(calls):
            self._stream.put(node_pb2.NodeFrame(statement=envelope))

    async def _link(self, forwards: list[node_pb2.LinkForward]) -> None:
        for forward in forwards:
            check_bounds(forward, "link")
            self._stream.put(node_pb2.NodeFrame(link=await self._node.slips.answer(forward)))

    async def _tell_slices(self, calls: list[node_pb2.LedgerCall]) -> None:
        for call in calls:
            await self._stream.outbox.room()
            reply = await self._node.slice_answers.answer(call)
            self._stream.put(node_pb2.NodeFrame(ledger=reply), sealed=len(reply.sealed_slice))

    async def _witness(self, offers: list[tuple[node_pb2.CheckpointOffer, int]]) -> None:
        key = self._cert.payload.signing_key
        for offer, arrived in offers:
            cosignature = await self._node.witness.answer(self._stream.broker, key, offer, arrived=arrived)
            self._stream.put(node_pb2.NodeFrame(cosignature=cosignature))

    def _decline(self, frame: node_pb2.BrokerFrame, which: str | None) -> None:
        """What this node does not do is said, not ignored, where somebody waits for it."""
        refusal = refusal_of(RefusedError(Reason.NOT_ALLOWED.meaning, code=Reason.NOT_ALLOWED.name))
        if which == "contribution":
            envelope = frame.contribution.contribution
            identifier = dsse.statement_id(envelope.payload_type, envelope.payload)
            reply = provider_pb2.ContributionReply(statement_id=identifier, refusal=refusal)
            self._stream.put(node_pb2.NodeFrame(contribution=reply))
        elif which == "draining":
            _log.info("broker_draining")
        else:
            _log.info("frame_not_known", frame=which)


async def next_frames(call: Call) -> Sequence[node_pb2.BrokerFrame]:
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


async def _each(
    queue: asyncio.Queue[list[_T]], work: Callable[[list[_T]], Awaitable[None]], *, gather_for: float = 0.0
) -> None:
    """Work on what is in the queue, everything that is there at once; after ``gather_for`` seconds, if told."""
    while True:
        batch = await queue.get()
        if gather_for:
            await asyncio.sleep(gather_for)
        while not queue.empty():
            batch = [*batch, *queue.get_nowait()]
        await work(batch)

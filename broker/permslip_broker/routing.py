"""Routing: allowed queries to the nodes, sealed answers back, each within its time and its share of memory.

An answer ends once: by its node's last piece, by its deadline, because the requester cancelled or went away, because
the node detached, or because what it was decided by no longer holds. In that last case what waits is thrown away, and
:meth:`Routing.quiet` waits until what is just being written has left: only then is a node's acknowledgement recorded
and passed on.

Bounds: a requester has at most ``max_open`` queries open; beyond them, and while the whole broker holds more than
``memory`` bytes for requesters, it is told ``BUSY`` (:mod:`permslip_broker.credit` bounds each answer).

Example::

    routing.accept(requester, [provider_pb2.QueryCall(query=envelope, deadline=5_000)])
    routing.relay(node, answer)
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final

from permslip._pb.permslip.v1 import node_pb2, provider_pb2, session_pb2, statement_pb2 as pb
from permslip.dsse import statement_id
from permslip.errors import MalformedError, PermslipError, RefusedError
from permslip.hosting.ledger import Recorded
from permslip.hosting.logs import get_log, query_text
from permslip.hosting.refusals import refusal_of
from permslip.reasons import Reason
from permslip_broker.attachments import AttachedNode, Attachments
from permslip_broker.credit import CreditFlow
from permslip_broker.deciding import Deciding
from permslip_broker.entries import answered
from permslip_broker.joining import answer_reply
from permslip_broker.open_queries import OpenQueries, OpenQuery, Relayed, Requester
from permslip_broker.outcomes import refusal, refused_answer
from permslip_broker.pieces import check_piece, outcome_reason
from permslip_broker.recording import Recorder
from permslip_broker.refused_requests import RefusedRequests
from permslip_broker.routing_limits import RoutingLimits, Tally

__all__ = ["Routing"]

_log = get_log(__name__)

_DIGEST_BYTES: Final = 32


class Routing:
    """Routes queries and relays answers. Belongs to the event loop.

    Args:
        deciding: says what is allowed.
        recorder: the way into the ledger.
        attachments: the attached nodes.
        refusals: logs what never became a decision.
        limits: see there.
    """

    def __init__(
        self,
        deciding: Deciding,
        recorder: Recorder,
        attachments: Attachments,
        refusals: RefusedRequests,
        limits: RoutingLimits,
    ) -> None:
        self._deciding, self._recorder, self._attachments = deciding, recorder, attachments
        self._refusals, self._limits = refusals, limits
        self._flow = CreditFlow(limits.first_credit, limits.answer_credit)
        self._open = OpenQueries()
        self._requesters: set[Requester] = set()
        self._recording = 0
        self._draining = False
        self._idle = asyncio.Event()
        self.tally = Tally()
        attachments.on_detach(self._node_detached)

    # ------------------------------------------------------------------------------------- what it holds

    @property
    def open_queries(self) -> int:
        """Queries under way."""
        return len(self._open)

    @property
    def held_bytes(self) -> int:
        """Bytes that wait for requesters or are being written to them, all streams together."""
        return sum(each.held_bytes for each in self._requesters)

    # ------------------------------------------------------------------------------------- requesters

    def enter(self, root: bytes) -> Requester:
        """A requester's stream begins."""
        requester = Requester(root, high_water=self._limits.high_water)
        self._requesters.add(requester)
        return requester

    def leave(self, requester: Requester) -> None:
        """The stream is over: its queries are cancelled."""
        requester.gone = True
        requester.outbox.close()
        # What was just being written may have arrived: an answer that is whole ended as its node ended it.
        self.written(requester)
        self._end_all([(entry, Reason.CANCELLED) for entry in requester.open.values()])
        self._requesters.discard(requester)
        self._idle.set()

    def accept(self, requester: Requester, calls: Sequence[provider_pb2.QueryCall]) -> None:
        """Decide a batch of queries, record all decisions with one append, then route or refuse each."""
        arrived = asyncio.get_running_loop().time()
        busy = self.held_bytes >= self._limits.memory
        entries: list[OpenQuery] = []
        self._deciding.expect([each.query for each in calls])
        for call in calls:
            try:
                if (reason := self._turned_away(requester, busy)) != Reason.ALLOWED:
                    requester.say(refused_answer(_id_of(call.query), reason))
                    continue
                entry = self._deciding.open(call.query, requester, ends_at=arrived + self._deadline(call.deadline))
            except PermslipError as error:
                why = self._refusals.refuse(
                    error, "Exchange.query", request=call.query.SerializeToString(), caller=requester.root
                )
                requester.say(refused_answer(_id_of(call.query), why))
                continue
            if entry.is_outsiders and not self._refusals.may_record():
                # Not decided, so that every decision is an entry, and an outsider cannot fill the disk with them.
                self._deciding.undecided(entry)
                requester.say(refused_answer(entry.query.id, Reason.BUSY))
                continue
            entries.append(entry)
            self._register(entry)
        if entries:
            # Log before release: nothing is routed before its decision is on the disk.
            self._recording += 1
            requester.recording += len(entries)
            self._recorder.begin(
                [self._deciding.draft(each) for each in entries],
                partial(self._all_recorded, requester, entries),
                partial(self._none_recorded, requester, entries),
            )

    def cancel(self, requester: Requester, query_id: bytes) -> None:
        """The requester gave up on one query."""
        entry = requester.open.get(query_id)
        if entry is not None:
            self._end(entry, Reason.CANCELLED)

    def credit(self, requester: Requester, credit: provider_pb2.Credit) -> None:
        """The requester has room for more of one answer."""
        entry = requester.open.get(credit.query_id)
        if entry is not None:
            self._flow.ask(entry, credit.bytes)

    def written(self, requester: Requester) -> None:
        """What is in ``requester.writing`` has left."""
        batch, requester.writing = requester.writing, []
        self._flow.written(requester, batch)
        requester.written.set()
        requester.written = asyncio.Event()
        whole: list[str] = []
        for _, entry, _, last in batch:
            # An answer that the broker ended meanwhile was logged as that.
            if last and entry is not None and requester.open.get(entry.query.id) is entry:
                self._forget(entry)
                if entry.ended == Reason.ALLOWED:
                    self._record_answer(entry, Reason.ALLOWED, entry.drained)
                    whole.append(query_text(entry.query.id))
                else:
                    self._ended_early(entry, entry.ended or Reason.INTERNAL, entry.drained)
        if whole:
            # One line for all: a line for each would cost as much as deciding them.
            _log.info("answers_passed_on", query_ids=whole)
        self._idle.set()

    # ------------------------------------------------------------------------------------- nodes

    def relay(self, node: AttachedNode, answer: provider_pb2.Answer) -> None:
        """Pass a piece of an answer on, untouched; only the node that was asked can answer."""
        entry = node.open.get(answer.query_id)
        if entry is None:
            self.tally.stray_answers += 1
            _log.debug("stray_answer", query_id=query_text(answer.query_id), node=node.root.hex())
            return
        last = answer.HasField("outcome")
        sealed = sum(map(len, answer.chunks))
        try:
            check_piece(answer, sealed)
            if answer.HasField("opening"):
                if entry.opened:
                    raise MalformedError("came twice.", field="answer.opening")
                entry.opened = True
            elif not (answer.chunks or last):
                raise MalformedError("holds nothing.", field="answer")
            if not self._flow.relayed(entry, sealed):
                raise MalformedError("more bytes than the node has credit for.", field="answer.chunks")
        except MalformedError as error:
            _log.warning("answer_refused", query_id=query_text(entry.query.id), node=node.root.hex(), detail=str(error))
            self._end(entry, Reason.INTERNAL)
            return
        if last:
            answer.outcome.said_by = node.root
        self.tally.relayed_bytes += sealed
        reply = answer_reply(answer)
        entry.requester.outbox.put(Relayed(reply, entry, sealed, last), len(reply))
        if last:
            # Still registered until it is written: a revocation must find what waits.
            entry.ended = outcome_reason(answer.outcome)
            digest = answer.outcome.manifest_sha256
            entry.manifest_sha256 = digest if len(digest) == _DIGEST_BYTES else b""
            self._release(entry)

    # ------------------------------------------------------------------------------------- changes

    def recheck(self, subjects: Iterable[bytes]) -> None:
        """What was recorded about these changed: answers that would not be allowed any more end now."""
        ends: list[tuple[OpenQuery, Reason]] = []
        for entry in self._open.concerned_by(subjects):
            if entry.position < 0:
                entry.stale = True
            elif (reason := self._deciding.still_holds(entry)) != Reason.ALLOWED:
                ends.append((entry, reason))
        self._end_all(ends)

    async def quiet(self, target_id: bytes) -> None:
        """Wait until nothing of an ended answer under this grant or delegation is being written any more.

        A requester that does not take it within ``quiet_within`` seconds loses its stream.
        """
        for requester in [each for each in self._requesters if each.is_writing(target_id)]:
            try:
                async with asyncio.timeout(self._limits.quiet_within):
                    while requester.is_writing(target_id):
                        await requester.written.wait()
            except TimeoutError:
                _log.warning("slow_reader_cut_off", requester=requester.root.hex())
                requester.cut_off.set()

    def drain(self) -> None:
        """Take no new queries; tell every requester to ask another replica."""
        self._draining = True
        draining = provider_pb2.ExchangeReply(draining=provider_pb2.Draining())
        for requester in self._requesters:
            requester.say(draining)

    def close(self) -> None:
        """Let every requester's stream end after what waits."""
        self._draining = True
        for requester in self._requesters:
            requester.outbox.close()

    async def idle(self) -> None:
        """Wait until no query is under way and nothing waits for a requester."""
        while self._recording or len(self._open) or any(len(each.outbox) or each.writing for each in self._requesters):
            self._idle.clear()
            await self._idle.wait()

    # ------------------------------------------------------------------------------------- one query's way

    def _turned_away(self, requester: Requester, busy: bool) -> Reason:
        if self._draining:
            return Reason.DRAINING
        if busy or len(requester.open) >= self._limits.max_open:
            return Reason.BUSY
        return Reason.ALLOWED

    def _deadline(self, asked: int) -> float:
        """Seconds that an answer may take."""
        return min(asked or self._limits.default_deadline, self._limits.max_deadline) / 1_000

    def _register(self, entry: OpenQuery) -> None:
        # A replay must not take the place of the query that it repeats.
        if entry.seen:
            return
        entry.requester.open[entry.query.id] = entry
        self._open.add(entry)
        loop = asyncio.get_running_loop()
        entry.timer = loop.call_at(entry.ends_at, self._end, entry, Reason.TIMED_OUT)

    def _all_recorded(self, requester: Requester, entries: Sequence[OpenQuery], recorded: Sequence[Recorded]) -> None:
        self._recording -= 1
        requester.recording -= len(entries)
        for entry, each in zip(entries, recorded, strict=True):
            entry.position = each.position
            self._recorded(entry)
        self._idle.set()

    def _none_recorded(self, requester: Requester, entries: Sequence[OpenQuery], error: PermslipError) -> None:
        self._recording -= 1
        requester.recording -= len(entries)
        _log.error("decisions_not_recorded", queries=len(entries), detail=str(error))
        # Only a clock that is behind is a reason of its own; what else failed is in the log.
        why = refusal_of(error) if isinstance(error, RefusedError) else refusal(Reason.INTERNAL)
        for entry in entries:
            self._not_recorded(entry, why)
        self._idle.set()

    def _not_recorded(self, entry: OpenQuery, why: session_pb2.Refusal) -> None:
        self._deciding.undecided(entry)
        if entry.ended is None:
            entry.ended = Reason.INTERNAL
            self._forget(entry)
            entry.requester.say(refused_answer(entry.query.id, why))

    def _recorded(self, entry: OpenQuery) -> None:
        verdict = entry.decision.reason
        self.tally.decided[verdict] += 1
        if verdict != Reason.ALLOWED:
            if entry.ended is None:
                entry.ended = verdict
                self._forget(entry)
                entry.requester.say(refused_answer(entry.query.id, verdict, entry.decision.sections))
            _log.info("query_refused", query_id=query_text(entry.query.id), reason=verdict.name)
        elif entry.ended is not None:
            self._ended_early(entry, entry.ended, 0)
        elif entry.stale and (reason := self._deciding.still_holds(entry)) != Reason.ALLOWED:
            self._end(entry, reason)
        else:
            self._dispatch(entry)

    def _dispatch(self, entry: OpenQuery) -> None:
        place = entry.slice_of
        node = self._attachments.get(place[0]) if place is not None else None
        if node is None:
            self._end(entry, Reason.UNREACHABLE)
            return
        entry.node = node
        if len(node.open) < node.max_open:
            self._send(entry, node)
        else:
            node.waiting[entry] = None

    def _send(self, entry: OpenQuery, node: AttachedNode) -> None:
        left = entry.ends_at - asyncio.get_running_loop().time()
        routed = node_pb2.RoutedQuery(
            query=entry.query.envelope, position=entry.position, deadline=max(1, int(left * 1_000))
        )
        node.open[entry.query.id] = entry
        self._flow.start(entry)
        node.outbox.put(node_pb2.BrokerFrame(query=routed), routed.ByteSize())

    def _end_all(self, ends: Sequence[tuple[OpenQuery, Reason]]) -> None:
        # Those that wait for their node first: the place of one that ends must not go to another that ends.
        for entry, _ in ends:
            if entry.node is not None:
                entry.node.waiting.pop(entry, None)
        for entry, reason in ends:
            self._end(entry, reason)

    def _end(self, entry: OpenQuery, reason: Reason) -> None:
        """The broker ends an answer: nothing more of it leaves."""
        requester, node = entry.requester, entry.node
        if requester.open.get(entry.query.id) is not entry or requester.is_finishing(entry):
            return
        whole, entry.ended = entry.ended, reason
        if entry.relayed:
            requester.outbox.discard(lambda each: each.entry is entry)
        if node is not None and whole is None and entry.query.id in node.open:
            node.outbox.put(node_pb2.BrokerFrame(cancel=provider_pb2.Cancel(query_id=entry.query.id)))
        self._forget(entry)
        requester.say(refused_answer(entry.query.id, reason))
        if entry.position >= 0:
            self._ended_early(entry, reason, entry.drained + requester.being_written(entry))

    def _forget(self, entry: OpenQuery) -> None:
        """Nothing is to be done for it any more."""
        if entry.timer is not None:
            entry.timer.cancel()
        self._open.remove(entry)
        entry.requester.starved.discard(entry)
        if entry.requester.open.get(entry.query.id) is entry:
            del entry.requester.open[entry.query.id]
        self._release(entry)
        self._idle.set()

    def _release(self, entry: OpenQuery) -> None:
        """Its node has a place free."""
        node = entry.node
        if node is None:
            return
        node.waiting.pop(entry, None)
        if node.open.get(entry.query.id) is entry:
            del node.open[entry.query.id]
        while node.waiting and len(node.open) < node.max_open:
            following = next(iter(node.waiting))
            del node.waiting[following]
            self._send(following, node)

    def _record_answer(self, entry: OpenQuery, reason: Reason, sealed_bytes: int) -> None:
        self.tally.answered[reason] += 1
        self._recorder.append_soon(
            answered(
                entry.query.id,
                reason,
                manifest_sha256=entry.manifest_sha256,
                sealed_bytes=sealed_bytes,
                slice_of=entry.slice_of,
            )
        )

    def _ended_early(self, entry: OpenQuery, reason: Reason, sealed_bytes: int) -> None:
        self._record_answer(entry, reason, sealed_bytes)
        _log.info("answer_ended", query_id=query_text(entry.query.id), reason=reason.name, sealed_bytes=sealed_bytes)

    def _node_detached(self, node: AttachedNode) -> None:
        self._end_all([(entry, Reason.UNREACHABLE) for entry in (*node.open.values(), *node.waiting)])


def _id_of(envelope: pb.Envelope) -> bytes:
    """What a query is called even if it cannot be believed: the digest of what would be signed."""
    return statement_id(envelope.payload_type, envelope.payload)

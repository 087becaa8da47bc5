"""Answering: decide, log, read and seal meanwhile, look again, release.

The order of one query, and what may go wrong between its steps:

1. It is verified and decided by the node's own facts (:mod:`permslip_node.deciding`).
2. The decision is appended to the ledger. While that is written to the disk, the first records are read and sealed.
3. Only after the commit, and after another look at lease, clock, revocations and deadline, the first byte leaves.
4. A small answer is one frame. A large one goes out chunk by chunk, against credit, each chunk after the same look;
   chunks of several answers take turns.
5. What became of it is appended as well.

Rules:

- Queries of one message are decided and appended together.
- A revocation stops every answer that depends on it in the very turn of the event loop in which it arrived: frames that
  wait are taken out, and what is told to the broker afterwards comes behind everything that left before.
- ``released`` counts bytes from the moment at which they are given to the stream; a query for which it is 0 may be
  retried for nothing.

Example::

    answerer.take(stream, [routed])
    answerer.stop_under([grant_id], Reason.GRANT_REVOKED)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from typing import Any, Final

from prometheus_client import Counter

from permslip import dsse, statements as st
from permslip._pb.permslip.v1 import node_pb2, provider_pb2, statement_pb2 as pb
from permslip._pb.permslip.v1.session_pb2 import Refusal
from permslip.decision import end_of_lease
from permslip.errors import MalformedError, PermslipError, UnavailableError
from permslip.hosting.drafts import Recorded
from permslip.hosting.logs import get_log, query_text
from permslip.hosting.metrics import Metrics
from permslip.hosting.refusals import reason_of
from permslip.keys import parse_sealing_key
from permslip.quantities import Millis
from permslip.reasons import Reason
from permslip.slices import SliceWriter
from permslip_node.answer_entries import AnswerEntries
from permslip_node.configuration import LimitSettings
from permslip_node.deciding import Decider
from permslip_node.identity import Identity
from permslip_node.open_answers import OpenAnswer, OpenAnswers, Sending
from permslip_node.paging import PAGES_LAST, PageToken, open_token, scope_of, seal_token
from permslip_node.recording import Recording
from permslip_node.records_store import START, RecordsStore
from permslip_node.streams import BrokerStream

__all__ = ["Answerer"]

_log = get_log(__name__)

# Queries that are decided and appended together; after so many others get their turn.
_TOGETHER: Final = 32
_YIELD_AFTER: Final = 8
_RETRY_AFTER_MS: Final = 1_000
_LAST_WORDS_S: Final = 2.0


class Answerer:
    """Answers queries. Belongs to one event loop.

    Args:
        identity: who signs.
        store: where records are read.
        recording: where decisions are appended.
        decider: makes them.
        limits: what brokers and requesters may take.
        clock: UTC milliseconds now.
        monotonic: milliseconds of a clock that also runs while the machine sleeps.
        metrics: where answers are counted.
    """

    def __init__(
        self,
        identity: Identity,
        store: RecordsStore,
        recording: Recording,
        decider: Decider,
        *,
        limits: LimitSettings,
        clock: Callable[[], Millis],
        monotonic: Callable[[], int],
        metrics: Metrics,
    ) -> None:
        self._identity, self._store, self._recording = identity, store, recording
        self._decider, self._limits = decider, limits
        self._clock, self._monotonic, self._metrics = clock, monotonic, metrics
        self._entries = AnswerEntries(recording, identity.root)
        self._answers = OpenAnswers()
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._counts: dict[Reason, Counter] = {}
        self._seconds = metrics.request_seconds.labels(method="Query")
        metrics.open_queries.set_function(lambda: len(self._answers))
        recording.on_change(self._changed)

    # --------------------------------------------------------------------------------- what comes from outside

    def take(self, stream: BrokerStream, routed: Sequence[node_pb2.RoutedQuery]) -> None:
        """Queries came in one message."""
        for start in range(0, len(routed), _TOGETHER):
            self._spawn(self._answer(stream, routed[start : start + _TOGETHER]))

    def credit(self, credit: provider_pb2.Credit) -> None:
        """The reader of an answer has room for more."""
        self._answers.credit(credit.query_id, credit.bytes)

    def cancel(self, query_id: bytes) -> None:
        """Nobody waits for this answer any more."""
        answer = self._answers.get(query_id)
        if answer is not None:
            self._stop(answer, Reason.CANCELLED)
        else:
            self._answers.cancelled_early(query_id)

    def stop_under(self, targets: Iterable[bytes], reason: Reason) -> int:
        """Stop every answer that depends on any of these, now; returns how many."""
        found = self._answers.under(targets)
        for answer in found:
            self._stop(answer, reason)
        return len(found)

    def detached(self, stream: BrokerStream) -> None:
        """A stream ended: what was to leave through it never will."""
        for answer in self._answers.on(stream):
            answer.stop(Reason.UNREACHABLE)
            self._close(answer)

    def leaving(self, items: Sequence[Sending]) -> None:
        """These are about to be given to the stream."""
        for item in items:
            if item.answer is not None:
                item.answer.released += item.sealed

    def left(self, items: Sequence[Sending]) -> None:
        """These were given to the stream."""
        for item in items:
            if item.last and item.answer is not None:
                self._close(item.answer)

    async def drain(self, seconds: float) -> None:
        """Take no new queries; let those that are open end, or end them."""
        self._draining = True
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except TimeoutError:
            for answer in self._answers:
                self._stop(answer, Reason.DRAINING)
        if self._tasks:
            # What was stopped still has to be told.
            await asyncio.wait(self._tasks, timeout=_LAST_WORDS_S)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._entries.settled()

    # --------------------------------------------------------------------------------- one message's queries

    async def _answer(self, stream: BrokerStream, routed: Sequence[node_pb2.RoutedQuery]) -> None:
        opened: list[OpenAnswer] = []
        for number, each in enumerate(routed, start=1):
            answer = self._opened(stream, each)
            if answer is not None:
                self._note_resumed(answer)
                opened.append(answer)
            if not number % _YIELD_AFTER:
                await asyncio.sleep(0)
        if not opened:
            return
        # (1) decide, (2) append
        drafts = [self._decider.draft(answer, unfit=self._unfit(stream)) for answer in opened]
        for answer in opened:
            self._register(answer)
        try:
            appended = self._recording.ledger.submit(*drafts)
            for number, answer in enumerate(opened, start=1):
                if answer.decision.reason == Reason.ALLOWED:
                    self._prepare(answer)
                if not number % _YIELD_AFTER:
                    await asyncio.sleep(0)
            recorded = await appended
        except Exception as error:  # noqa: BLE001 (whatever it is, who waits must hear of an end)
            _log.error("decisions_not_recorded", queries=len(opened), exc_info=error)
            busy = isinstance(error, UnavailableError)
            for answer in opened:
                self._end_unrecorded(answer, Reason.BUSY if busy else Reason.INTERNAL)
            return
        self._recording.committed(recorded)
        # (3) look again, release
        for answer, entry in zip(opened, recorded, strict=True):
            self._decided(answer, entry)

    def _opened(self, stream: BrokerStream, routed: node_pb2.RoutedQuery) -> OpenAnswer | None:
        """The query, verified; what is not even a query is refused here."""
        now, received_at = self._clock(), self._monotonic()
        try:
            query = st.verify(st.QUERY, routed.query, federation=self._identity.federation)
            parse_sealing_key(query.payload.reply_key, "query.reply_key")
            page = self._page(query.payload, now) if query.payload.page else None
        except PermslipError as error:
            reason = reason_of(error)
            self._entries.refused_request(routed.query, error)
            identifier = dsse.statement_id(routed.query.payload_type, routed.query.payload)
            field = getattr(error, "field", "")
            outcome = self._outcome(reason, field=field, message=error.message)
            stream.put(node_pb2.NodeFrame(answer=provider_pb2.Answer(query_id=identifier, outcome=outcome)))
            _log.warning("query_not_believed", query_id=query_text(identifier), why=error.message)
            return None
        patience = min(routed.deadline or self._limits.deadline_ms, self._limits.deadline_ms)
        return OpenAnswer(
            query=query,
            stream=stream,
            routed_position=routed.position,
            received_at=received_at,
            until=received_at + patience,
            credit=stream.first_credit,
            seen=self._decider.see(query.id),
            page=page,
            place=page.place if page is not None else START,
        )

    def _note_resumed(self, answer: OpenAnswer) -> None:
        """Who resumes an answer that is still open has lost it: the connection broke, and nobody told this node yet."""
        query = answer.query.payload
        if not query.continues or answer.page is not None:
            return
        earlier = self._answers.get(query.continues)
        if earlier is not None and earlier.query.payload.signer.root == query.signer.root:
            self._stop(earlier, Reason.CANCELLED)
            answer.resumes = True
        elif self._entries.broke_off(query.continues):
            answer.resumes = True

    def _page(self, query: pb.Query, now: Millis) -> PageToken:
        token = open_token(self._identity.page_key, query.page)
        if token.scope != scope_of(query) or token.first_id != query.continues:
            raise MalformedError(
                "is the page of another question.",
                field="query.page",
                remedy="Ask for the same sections and days, and name the first query in continues.",
            )
        if now >= token.issued_at + PAGES_LAST:
            raise MalformedError("is older than an hour.", field="query.page", remedy="Begin again without it.")
        return token

    def _unfit(self, stream: BrokerStream) -> Reason:
        """Why nobody is answered now, or ``ALLOWED``."""
        if self._draining:
            return Reason.DRAINING
        if self._recording.ledger.clock_is_behind():
            return Reason.CLOCK
        if not stream.is_fit():
            return Reason.NO_LEASE
        if len(self._answers) >= self._limits.open_queries:
            return Reason.BUSY
        return Reason.ALLOWED

    def _register(self, answer: OpenAnswer) -> None:
        # A query that came twice at once: the second is refused as seen and never registered.
        if self._answers.get(answer.query.id) is None:
            self._answers.add(answer)
            self._idle.clear()

    # --------------------------------------------------------------------------------- reading and sealing

    def _prepare(self, answer: OpenAnswer) -> None:
        """Seal the first records while the decision is being written."""
        answer.writer = SliceWriter(
            answer.query, signer=self._identity.signer, key=self._identity.key, now=self._clock()
        )
        answer.chunks, answer.counts, answer.records = [], {}, 0
        answer.place = answer.page.place if answer.page is not None else START
        answer.end = None
        self._read_on(answer)

    def _read_on(self, answer: OpenAnswer) -> None:
        """Read and seal the next records; sets ``place`` to None when everything asked for was read."""
        query, decision, grant = answer.query.payload, answer.decision, answer.facts.grant
        if answer.writer is None or answer.place is None or grant is None:
            return
        handle = grant.payload.slice.handle
        portions, place = self._store.read(
            handle,
            decision.granted,
            records_from=decision.records_from,
            records_until=decision.records_until,
            start=answer.place,
            most_records=query.page_size - answer.records if query.page_size else 0,
        )
        for portion in portions:
            answer.chunks += answer.writer.add(portion.records, portion.number)
            answer.counts[portion.section] = answer.counts.get(portion.section, 0) + portion.number
            answer.records += portion.number
        answer.place = place
        if place is not None and query.page_size and answer.records >= query.page_size:
            answer.place = None
            bounds = (decision.records_from, decision.records_until)
            if self._store.is_more(handle, decision.granted, bounds, place):
                answer.end = place

    def _seal_end(self, answer: OpenAnswer, writer: SliceWriter) -> None:
        decision, now = answer.decision, self._clock()
        coverage = [
            pb.SectionCoverage(
                section=section,
                reason=reason.wire,
                returned=answer.counts.get(section, 0),
                withheld=decision.bounded and reason == Reason.ALLOWED,
            )
            for section, reason in decision.sections
        ]
        next_page = b""
        if answer.end is not None:
            first = answer.page
            token = PageToken(
                first_id=first.first_id if first is not None else answer.query.id,
                position=first.position if first is not None else answer.facts.position,
                issued_at=first.issued_at if first is not None else now,
                scope=scope_of(answer.query.payload),
                place=answer.end,
            )
            next_page = seal_token(self._identity.page_key, token)
        chunks, manifest = writer.finish(coverage, slice_seq=answer.slice_seq, now=now, next_page=next_page)
        answer.chunks += chunks
        answer.manifest_sha256 = manifest.sha256

    # --------------------------------------------------------------------------------- after the commit

    def _decided(self, answer: OpenAnswer, entry: Recorded) -> None:
        answer.committed = True
        answer.slice_seq = entry.slice_seq
        if answer.again is not None:
            registered = self._answers.get(answer.query.id) is answer
            self._answers.remove(answer)
            answer.facts, answer.decision = answer.again
            answer.writer = None
            if registered:
                self._answers.add(answer)
        reason = answer.decision.reason
        if reason != Reason.ALLOWED:
            _log.info("query_refused", query_id=query_text(answer.query.id), reason=reason.name)
            outcome = self._outcome(reason)
            outcome.sections.extend(
                pb.SectionCoverage(section=section, reason=each.wire) for section, each in answer.decision.sections
            )
            self._put(answer, outcome=outcome)
            self._forget(answer)
            return
        if answer.writer is None:
            self._prepare(answer)
        if not self._may_go_on(answer):
            self._cut(answer)
            return
        if answer.place is None and answer.writer is not None:
            self._seal_end(answer, answer.writer)
            sealed = sum(map(len, answer.chunks))
            if len(answer.chunks) == 1 or sealed <= answer.credit:
                self._put(answer, chunks=answer.chunks, sealed=sealed, outcome=self._whole(answer, sealed))
                return
        self._spawn(self._stream(answer))

    async def _stream(self, answer: OpenAnswer) -> None:
        """Send a large answer chunk by chunk, whatever happens to its end."""
        try:
            await self._send_pieces(answer)
        except Exception as error:  # noqa: BLE001 (whatever it is, who waits must hear of an end)
            _log.error("answer_failed", query_id=query_text(answer.query.id), exc_info=error)
            self._stop(answer, Reason.INTERNAL)

    async def _send_pieces(self, answer: OpenAnswer) -> None:
        sealed = 0
        async for chunk, is_last in self._pieces(answer):
            while answer.credit <= 0 and self._may_go_on(answer):
                await self._more_credit(answer)
            await answer.stream.outbox.room()
            if not self._may_go_on(answer):
                self._cut(answer)
                return
            answer.credit -= len(chunk)
            sealed += len(chunk)
            self._put(
                answer, chunks=[chunk], sealed=len(chunk), outcome=self._whole(answer, sealed) if is_last else None
            )
            # Others take their turn.
            await asyncio.sleep(0)

    async def _pieces(self, answer: OpenAnswer) -> AsyncIterator[tuple[bytes, bool]]:
        """Chunks as they are sealed, each with whether it is the last."""
        ended = bool(answer.manifest_sha256)
        while True:
            while len(answer.chunks) > (0 if ended else 1):
                chunk = answer.chunks.pop(0)
                yield chunk, ended and not answer.chunks
            if ended or answer.writer is None:
                return
            if answer.place is None:
                self._seal_end(answer, answer.writer)
                ended = True
            else:
                self._read_on(answer)

    async def _more_credit(self, answer: OpenAnswer) -> None:
        """Wait for credit or an end; look at the lease now and then."""
        answer.wake.clear()
        left = max(answer.until - self._monotonic(), 0) / 1_000
        try:
            await asyncio.wait_for(answer.wake.wait(), min(left, 0.25))
        except TimeoutError:
            return

    def _may_go_on(self, answer: OpenAnswer) -> bool:
        """Another look, before anything leaves."""
        if answer.stopped != Reason.ALLOWED:
            return False
        if self._monotonic() >= answer.until:
            answer.stop(Reason.TIMED_OUT)
        elif not answer.stream.is_open:
            answer.stop(Reason.UNREACHABLE)
        elif not answer.stream.is_fit():
            answer.stop(Reason.NO_LEASE)
        elif self._recording.ledger.clock_is_behind():
            answer.stop(Reason.CLOCK)
        elif self._clock() >= end_of_lease(answer.facts, answer.query):
            reason = self._decider.reconsider(answer)
            answer.stop(reason if reason != Reason.ALLOWED else Reason.GRANT_EXPIRED)
        return answer.stopped == Reason.ALLOWED

    def _changed(self, subjects: frozenset[bytes] | None) -> None:
        """Facts changed: what would not be allowed any more stops."""
        for answer in self._answers if subjects is None else self._answers.under(subjects):
            if answer.stopped == Reason.ALLOWED and (reason := self._decider.reconsider(answer)) != Reason.ALLOWED:
                self._stop(answer, reason)

    def _stop(self, answer: OpenAnswer, reason: Reason) -> None:
        answer.stop(reason)
        # Before the commit there is nothing to take back: what was decided is looked at again after it.
        if answer.committed:
            self._cut(answer)

    def _cut(self, answer: OpenAnswer) -> None:
        """End an answer early: what waits is taken out, and the broker is told why."""
        if answer.closed or answer.told:
            return
        answer.told = True
        answer.stream.discard(answer)
        self._put(answer, outcome=self._outcome(answer.stopped))
        if not answer.stream.is_open:
            self._close(answer)

    def _end_unrecorded(self, answer: OpenAnswer, reason: Reason) -> None:
        """It could not be decided durably, so nothing leaves."""
        answer.stop(reason)
        frame = provider_pb2.Answer(query_id=answer.query.id, outcome=self._outcome(reason))
        answer.stream.put(node_pb2.NodeFrame(answer=frame))
        self._forget(answer)

    # --------------------------------------------------------------------------------- frames

    def _put(
        self,
        answer: OpenAnswer,
        *,
        chunks: Sequence[bytes] = (),
        sealed: int = 0,
        outcome: provider_pb2.Outcome | None = None,
    ) -> None:
        piece = provider_pb2.Answer(query_id=answer.query.id, chunks=chunks, outcome=outcome)
        if chunks and not answer.opened and answer.writer is not None:
            piece.opening.CopyFrom(answer.writer.opening)
            answer.opened = True
        last = outcome is not None and answer.decision.reason == Reason.ALLOWED
        answer.stream.put(node_pb2.NodeFrame(answer=piece), answer, sealed=sealed, last=last)

    def _whole(self, answer: OpenAnswer, sealed: int) -> provider_pb2.Outcome:
        return provider_pb2.Outcome(
            refusal=Refusal(code=Reason.ALLOWED.wire),
            manifest_sha256=answer.manifest_sha256,
            sealed_bytes=sealed,
            said_by=self._identity.root,
        )

    def _outcome(self, reason: Reason, *, field: str = "", message: str = "") -> provider_pb2.Outcome:
        refusal = Refusal(
            code=reason.wire,
            field=field,
            retry_after=_RETRY_AFTER_MS if reason.may_pass else 0,
            message=message or reason.meaning,
            remedy=reason.remedy,
        )
        return provider_pb2.Outcome(refusal=refusal, said_by=self._identity.root)

    # --------------------------------------------------------------------------------- the end

    def _close(self, answer: OpenAnswer) -> None:
        """Its last byte left, or never will: record what became of it."""
        if answer.closed:
            return
        answer.closed = True
        self._forget(answer)
        if not answer.committed or answer.decision.reason != Reason.ALLOWED:
            return
        reason = answer.stopped
        _log.info(
            "query_answered",
            query_id=query_text(answer.query.id),
            reason=reason.name,
            records=answer.records if reason == Reason.ALLOWED else 0,
            sealed_bytes=answer.released,
        )
        self._entries.answered(answer, reason)

    def _forget(self, answer: OpenAnswer) -> None:
        if self._answers.get(answer.query.id) is answer:
            self._answers.remove(answer)
        if not len(self._answers):
            self._idle.set()
        reason = answer.stopped if answer.stopped != Reason.ALLOWED else answer.decision.reason
        count = self._counts.get(reason)
        if count is None:
            count = self._counts[reason] = self._metrics.requests.labels(method="Query", code=reason.name)
        count.inc()
        self._seconds.observe((self._monotonic() - answer.received_at) / 1_000)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("answering_failed", error=type(error).__name__, exc_info=error)

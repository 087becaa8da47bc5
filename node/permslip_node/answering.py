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
- Every decision is an entry; so those refusals that a broker can cause by itself, with what it repeats or signs by
  keys that it made up, are limited (:mod:`permslip_node.refusal_budget`).
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
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from permslip import dsse, statements as st
from permslip._pb.permslip.v1 import node_pb2, provider_pb2
from permslip.errors import PermslipError, UnavailableError
from permslip.hosting.drafts import Recorded
from permslip.hosting.logs import get_log
from permslip.hosting.metrics import Metrics
from permslip.hosting.refusals import reason_of
from permslip.keys import parse_sealing_key
from permslip.quantities import Millis
from permslip.reasons import Reason
from permslip_node.answer_entries import AnswerEntries
from permslip_node.answer_outcomes import refused
from permslip_node.answer_slices import SliceMaker
from permslip_node.configuration import LimitSettings
from permslip_node.deciding import Decider
from permslip_node.identity import Identity
from permslip_node.open_answers import OpenAnswer, OpenAnswers
from permslip_node.recording import Recording
from permslip_node.records_store import START, RecordsStore
from permslip_node.releasing import Releaser, Work
from permslip_node.streams import BrokerStream

__all__ = ["Answerer"]

_log = get_log(__name__)

# Queries that are decided and appended together; after so many others get their turn.
_TOGETHER: Final = 32
_YIELD_AFTER: Final = 8
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
        self._identity, self._recording = identity, recording
        self._decider, self._limits, self._monotonic = decider, limits, monotonic
        self._slices = SliceMaker(identity, store, clock=clock)
        self._entries = AnswerEntries(recording, identity.root)
        self._answers = OpenAnswers()
        self._work = Work()
        self._releaser = Releaser(
            identity.root,
            recording.ledger,
            decider,
            self._slices,
            self._answers,
            self._entries,
            self._work,
            clock=clock,
            monotonic=monotonic,
            metrics=metrics,
        )
        self.leaving, self.left = self._releaser.leaving, self._releaser.left
        self._draining = False
        recording.on_change(self._changed)

    # --------------------------------------------------------------------------------- what comes from outside

    def take(self, stream: BrokerStream, routed: Sequence[node_pb2.RoutedQuery]) -> None:
        """Queries came in one message."""
        for start in range(0, len(routed), _TOGETHER):
            self._work.begin(self._answer(stream, routed[start : start + _TOGETHER]))

    def credit(self, credit: provider_pb2.Credit) -> None:
        """The reader of an answer has room for more."""
        self._answers.credit(credit.query_id, credit.bytes)

    def cancel(self, query_id: bytes) -> None:
        """Nobody waits for this answer any more."""
        answer = self._answers.get(query_id)
        if answer is not None:
            self._releaser.stop(answer, Reason.CANCELLED)
        else:
            self._answers.cancelled_early(query_id)

    def stop_under(self, targets: Iterable[bytes], reason: Reason) -> int:
        """Stop every answer that depends on any of these, now; returns how many."""
        found = self._answers.under(targets)
        for answer in found:
            self._releaser.stop(answer, reason)
        return len(found)

    def detached(self, stream: BrokerStream) -> None:
        """A stream ended: what was to leave through it never will."""
        for answer in self._answers.on(stream):
            answer.stop(Reason.UNREACHABLE)
            self._releaser.close(answer)

    async def drain(self, seconds: float) -> None:
        """Take no new queries; let those that are open end, or end them."""
        self._draining = True
        try:
            await asyncio.wait_for(self._releaser.idle.wait(), seconds)
        except TimeoutError:
            for answer in self._answers:
                self._releaser.stop(answer, Reason.DRAINING)
        # What was stopped still has to be told.
        await self._work.ended(_LAST_WORDS_S)
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
        if left_out := {answer for answer in opened if self._is_too_much(answer)}:
            drafts = [draft for draft, answer in zip(drafts, opened, strict=True) if answer not in left_out]
            opened = [answer for answer in opened if answer not in left_out]
            if not opened:
                return
        for answer in opened:
            self._register(answer)
        try:
            appended = self._recording.ledger.submit(*drafts)
            self._entries.append_gathered()
            for number, answer in enumerate(opened, start=1):
                if answer.decision.reason == Reason.ALLOWED:
                    self._slices.begin(answer)
                if not number % _YIELD_AFTER:
                    await asyncio.sleep(0)
            recorded = await appended
        except Exception as error:  # noqa: BLE001 (whatever it is, who waits must hear of an end)
            _log.error("decisions_not_recorded", queries=len(opened), exc_info=error)
            busy = isinstance(error, UnavailableError)
            for answer in opened:
                self._releaser.end_unrecorded(answer, Reason.BUSY if busy else Reason.INTERNAL)
            return
        self._recording.committed(recorded)
        # (3) look again, release
        for answer, entry in zip(opened, recorded, strict=True):
            self._decided(answer, entry)

    def _opened(self, stream: BrokerStream, routed: node_pb2.RoutedQuery) -> OpenAnswer | None:
        """The query, verified; what is not even a query is refused here."""
        received_at = self._monotonic()
        try:
            query = st.verify(st.QUERY, routed.query, federation=self._identity.federation)
            parse_sealing_key(query.payload.reply_key, "query.reply_key")
            page = self._slices.page(query.payload) if query.payload.page else None
        except PermslipError as error:
            reason = reason_of(error)
            self._entries.refused_request(routed.query, error)
            identifier = dsse.statement_id(routed.query.payload_type, routed.query.payload)
            field = getattr(error, "field", "")
            outcome = refused(self._identity.root, reason, field=field, message=error.message)
            stream.put(node_pb2.NodeFrame(answer=provider_pb2.Answer(query_id=identifier, outcome=outcome)))
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

    def _is_too_much(self, answer: OpenAnswer) -> bool:
        """Refuse, without deciding, one query too many of those that whoever relays them could have caused alone."""
        if not self._decider.may_be_relayers(answer) or self._entries.refusals.may_record():
            return False
        self._decider.undecided(answer)
        outcome = refused(self._identity.root, Reason.BUSY)
        frame = node_pb2.NodeFrame(answer=provider_pb2.Answer(query_id=answer.query.id, outcome=outcome))
        answer.stream.put(frame)
        return True

    def _note_resumed(self, answer: OpenAnswer) -> None:
        """Who resumes an answer that is still open has lost it: the connection broke, and nobody told this node yet."""
        query = answer.query.payload
        if not query.continues or answer.page is not None:
            return
        earlier = self._answers.get(query.continues)
        if earlier is not None and not earlier.left_whole and earlier.query.payload.signer.root == query.signer.root:
            self._releaser.stop(earlier, Reason.CANCELLED)
            answer.resumes = True
        elif self._entries.broke_off(query.continues):
            answer.resumes = True

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
            self._releaser.opened()

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
        if answer.decision.reason != Reason.ALLOWED:
            self._releaser.refuse(answer)
        else:
            self._releaser.release(answer)

    def _changed(self, subjects: frozenset[bytes] | None) -> None:
        """Facts changed: what would not be allowed any more stops."""
        for answer in self._answers if subjects is None else self._answers.under(subjects):
            if answer.stopped == Reason.ALLOWED and (reason := self._decider.reconsider(answer)) != Reason.ALLOWED:
                self._releaser.stop(answer, reason)

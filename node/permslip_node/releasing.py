"""Releasing: what leaves of an answer, when, and how it ends.

Rules:

- Before each piece another look, and a last one when it is given to the stream: is the answer stopped, late, its stream
  gone, the lease stale, the clock behind, the consent over?
- A small answer is one frame. A large one goes out chunk by chunk against credit; answers take turns.
- Stopping an answer takes out what of it waits for its stream, and tells the broker why.
- ``released`` counts bytes from the moment at which they are given to the stream.

Example::

    releaser.release(answer)                              # decided, in the ledger
    releaser.stop(answer, Reason.GRANT_REVOKED)           # not one byte more
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

from prometheus_client import Counter

from permslip._pb.permslip.v1 import node_pb2, provider_pb2, statement_pb2 as pb
from permslip.decision import end_of_lease
from permslip.hosting.ledger import Ledger
from permslip.hosting.logs import get_log, query_text
from permslip.hosting.metrics import Metrics
from permslip.quantities import Millis
from permslip.reasons import Reason
from permslip_node.answer_entries import AnswerEntries
from permslip_node.answer_outcomes import refused, whole
from permslip_node.answer_slices import SliceMaker
from permslip_node.deciding import Decider
from permslip_node.open_answers import OpenAnswer, OpenAnswers, Sending

__all__ = ["Releaser", "Work"]

_log = get_log(__name__)


class Work:
    """Tasks that run until they are done; nobody waits for one of them, but whoever ends waits for all."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    async def ended(self, seconds: float) -> None:
        """Wait until all are done, at most so long; then end the rest."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("answering_failed", error=type(error).__name__, exc_info=error)


class Releaser:
    """Lets answers leave. Belongs to one event loop.

    Args:
        root: this node's.
        ledger: asked whether the clock is behind.
        decider: asked again when a consent's time is over.
        slices: seals.
        answers: what is open.
        entries: where ends are recorded.
        work: where long answers run.
        clock: UTC milliseconds now.
        monotonic: milliseconds of a clock that also runs while the machine sleeps.
        metrics: where answers are counted.
    """

    def __init__(
        self,
        root: bytes,
        ledger: Ledger,
        decider: Decider,
        slices: SliceMaker,
        answers: OpenAnswers,
        entries: AnswerEntries,
        work: Work,
        *,
        clock: Callable[[], Millis],
        monotonic: Callable[[], int],
        metrics: Metrics,
    ) -> None:
        self._root, self._ledger, self._decider = root, ledger, decider
        self._slices, self._answers, self._entries, self._work = slices, answers, entries, work
        self._clock, self._monotonic, self._metrics = clock, monotonic, metrics
        self.idle = asyncio.Event()
        """Set while no answer is open."""
        self.idle.set()
        self._counts: dict[Reason, Counter] = {}
        self._seconds = metrics.request_seconds.labels(method="Query")
        metrics.open_queries.set_function(lambda: len(answers))

    def opened(self) -> None:
        """An answer is open."""
        self.idle.clear()

    def refuse(self, answer: OpenAnswer) -> None:
        """The decision, which is in the ledger, says no."""
        reason = answer.decision.reason
        _log.info("query_refused", query_id=query_text(answer.query.id), reason=reason.name)
        outcome = refused(self._root, reason)
        outcome.sections.extend(
            pb.SectionCoverage(section=section, reason=each.wire) for section, each in answer.decision.sections
        )
        self._put(answer, outcome=outcome)
        self._forget(answer)

    def release(self, answer: OpenAnswer) -> None:
        """The decision, which is in the ledger, says yes: send the answer, or begin to."""
        if answer.writer is None:
            self._slices.begin(answer)
        if not self._may_go_on(answer):
            self._cut(answer)
            return
        if answer.place is None:
            self._slices.end(answer)
            sealed = sum(map(len, answer.chunks))
            if len(answer.chunks) == 1 or sealed <= answer.credit:
                outcome = whole(answer, sealed, said_by=self._root)
                self._put(answer, chunks=answer.chunks, sealed=sealed, outcome=outcome)
                return
        self._work.begin(self._stream(answer))

    def leaving(self, items: Sequence[Sending]) -> list[Sending]:
        """These waited for the stream: take out what may not leave any more; the rest is about to be given to it."""
        leaving: list[Sending] = []
        for item in items:
            answer = item.answer
            if answer is not None:
                # A connection that stood still may have kept it until after the lease, or the consent, was over.
                if item.sealed and not self._may_go_on(answer):
                    self._cut(answer)
                    continue
                answer.released += item.sealed
                answer.left_whole = item.last and answer.stopped == Reason.ALLOWED
            leaving.append(item)
        return leaving

    def left(self, items: Sequence[Sending]) -> None:
        """These were given to the stream."""
        ended = [item.answer for item in items if item.last and item.answer is not None]
        whole_ids = [query_text(each.query.id) for each in ended if each.left_whole and not each.closed]
        for answer in ended:
            self.close(answer)
        if whole_ids:
            # One line for all: a line for each would cost as much as deciding them.
            _log.info("answers_released", query_ids=whole_ids)

    async def _stream(self, answer: OpenAnswer) -> None:
        """Send a large answer chunk by chunk, whatever happens to its end."""
        try:
            await self._send_pieces(answer)
        except Exception as error:  # noqa: BLE001 (whatever it is, who waits must hear of an end)
            _log.error("answer_failed", query_id=query_text(answer.query.id), exc_info=error)
            self.stop(answer, Reason.INTERNAL)

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
                answer,
                chunks=[chunk],
                sealed=len(chunk),
                outcome=whole(answer, sealed, said_by=self._root) if is_last else None,
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
                self._slices.end(answer)
                ended = True
            else:
                self._slices.read_on(answer)

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
        elif self._ledger.clock_is_behind():
            answer.stop(Reason.CLOCK)
        elif self._clock() >= end_of_lease(answer.facts, answer.query):
            reason = self._decider.reconsider(answer)
            answer.stop(reason if reason != Reason.ALLOWED else Reason.GRANT_EXPIRED)
        return answer.stopped == Reason.ALLOWED

    def stop(self, answer: OpenAnswer, reason: Reason) -> None:
        """Nothing more of it leaves, from this turn of the event loop on."""
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
        self._put(answer, outcome=refused(self._root, answer.stopped))
        if not answer.stream.is_open:
            self.close(answer)

    def end_unrecorded(self, answer: OpenAnswer, reason: Reason) -> None:
        """It could not be decided durably, so nothing leaves."""
        answer.stop(reason)
        frame = provider_pb2.Answer(query_id=answer.query.id, outcome=refused(self._root, reason))
        answer.stream.put(node_pb2.NodeFrame(answer=frame))
        self._forget(answer)

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

    def close(self, answer: OpenAnswer) -> None:
        """Its last byte left, or never will: record what became of it."""
        if answer.closed:
            return
        answer.closed = True
        self._forget(answer)
        if not answer.committed or answer.decision.reason != Reason.ALLOWED:
            return
        reason = answer.stopped
        if reason != Reason.ALLOWED:
            _log.info(
                "answer_ended",
                query_id=query_text(answer.query.id),
                reason=reason.name,
                sealed_bytes=answer.released,
            )
        self._entries.answered(answer, reason)

    def _forget(self, answer: OpenAnswer) -> None:
        if self._answers.get(answer.query.id) is answer:
            self._answers.remove(answer)
        if not len(self._answers):
            self.idle.set()
        reason = answer.stopped if answer.stopped != Reason.ALLOWED else answer.decision.reason
        count = self._counts.get(reason)
        if count is None:
            count = self._counts[reason] = self._metrics.requests.labels(method="Query", code=reason.name)
        count.inc()
        self._seconds.observe((self._monotonic() - answer.received_at) / 1_000)

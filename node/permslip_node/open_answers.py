"""The answers that are being given now: by query, by stream, by what they depend on.

Everything here changes in one turn of the event loop. That is what makes a revocation immediate:
:meth:`OpenAnswer.stop` takes effect before anything else runs, and whoever works on the answer looks at ``stopped``
before each piece.

Example::

    for answer in answers.under(target_id):
        answer.stop(Reason.GRANT_REVOKED)
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from permslip._pb.permslip.v1 import node_pb2, statement_pb2 as pb
from permslip.decision import Decision, Facts
from permslip.reasons import Reason
from permslip.slices import SliceWriter
from permslip.statements import Signed
from permslip_node.paging import PageToken
from permslip_node.records_store import START, Place

if TYPE_CHECKING:
    from permslip_node.streams import BrokerStream

__all__ = ["OpenAnswer", "OpenAnswers", "Sending"]

_MOST_EARLY: Final = 4_096
# Stands for a cancellation among early credits, which are positive and less than 2^62.
_CANCELLED: Final = -(1 << 63)


class Sending(NamedTuple):
    """A frame that waits for a stream, and the answer that it is a piece of, if it is one."""

    frame: node_pb2.NodeFrame
    answer: OpenAnswer | None = None
    # Sealed bytes in it; whether it is the answer's last.
    sealed: int = 0
    last: bool = False


@dataclass(slots=True, eq=False)
class OpenAnswer:
    """One query on its way from decision to last byte.

    Attributes:
        query: verified.
        stream: over which it came, and over which it is answered.
        routed_position: of the broker's decision.
        received_at: monotonic milliseconds.
        until: monotonic milliseconds by which it must be answered.
        seen: this query was decided before.
        page: its page token, opened.
        resumes: it continues an answer that broke off so lately that the ledger does not say so yet.
        facts, decision: as of the last decision.
        again: facts and decision made again under the head's lock, if they were; taken over after the commit.
        writer: seals the slice, once the query is allowed.
        chunks: sealed and not sent.
        manifest: its envelope, once the last piece is sealed.
        counts: records returned, by section.
        place: where reading goes on; None when everything was read.
        end: where the page ends that was asked for, if more is held.
        committed: the decision is in the ledger.
        credit: sealed bytes that may still be sent.
        stopped: why nothing more may leave; ``ALLOWED`` while it may.
        released: sealed bytes that may have left this process.
        opened: the opening has been sent.
        told: the broker was told that it ends early.
        left_whole: its last piece was given to the stream.
        closed: its end is in the ledger, or about to be.
    """

    query: Signed[pb.Query]
    stream: BrokerStream
    routed_position: int
    received_at: int
    until: int
    credit: int
    seen: bool = False
    page: PageToken | None = None
    resumes: bool = False
    facts: Facts = field(default_factory=lambda: Facts(0))
    decision: Decision = field(default_factory=lambda: Decision(Reason.INTERNAL, ()))
    again: tuple[Facts, Decision] | None = None
    is_counted: bool = False
    slice_seq: int = 0
    committed: bool = False
    writer: SliceWriter | None = None
    chunks: list[bytes] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    records: int = 0
    place: Place | None = START
    end: Place | None = None
    stopped: Reason = Reason.ALLOWED
    released: int = 0
    manifest: bytes = b""
    manifest_sha256: bytes = b""
    opened: bool = False
    told: bool = False
    left_whole: bool = False
    closed: bool = False
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def subjects(self) -> tuple[bytes, ...]:
        """What the decision depends on: grant, delegations, organizations."""
        payload = self.query.payload
        return (payload.grant_id, *payload.delegation_ids, *self.facts.standings)

    def stop(self, reason: Reason) -> None:
        """Nothing more of it may leave. The first reason stays."""
        if self.stopped == Reason.ALLOWED:
            self.stopped = reason
        self.wake.set()


class OpenAnswers:
    """Every answer that is open. Belongs to the event loop.

    Credit and cancellations may come right behind their query, before it was even looked at: those of queries that are
    not open are kept a while, the newest of them.
    """

    def __init__(self) -> None:
        self._by_query: dict[bytes, OpenAnswer] = {}
        self._early: dict[bytes, int] = {}
        self._by_subject: dict[bytes, set[OpenAnswer]] = {}

    def __len__(self) -> int:
        return len(self._by_query)

    def __iter__(self) -> Iterator[OpenAnswer]:
        return iter(list(self._by_query.values()))

    def get(self, query_id: bytes) -> OpenAnswer | None:
        """The answer to a query, while it is open."""
        return self._by_query.get(query_id)

    def credit(self, query_id: bytes, amount: int) -> None:
        """The reader of an answer has room for so many bytes more."""
        answer = self._by_query.get(query_id)
        if answer is None:
            self._keep(query_id, self._early.get(query_id, 0) + amount)
            return
        answer.credit += amount
        answer.wake.set()

    def cancelled_early(self, query_id: bytes) -> None:
        """A query that is not open was cancelled."""
        self._keep(query_id, _CANCELLED)

    def _keep(self, query_id: bytes, amount: int) -> None:
        self._early[query_id] = amount
        if len(self._early) > _MOST_EARLY:
            del self._early[next(iter(self._early))]

    def add(self, answer: OpenAnswer) -> None:
        """A query was decided upon; its facts are known."""
        self._by_query[answer.query.id] = answer
        early = self._early.pop(answer.query.id, 0)
        if early <= _CANCELLED // 2:
            answer.stop(Reason.CANCELLED)
        else:
            answer.credit += early
        for subject in answer.subjects:
            self._by_subject.setdefault(subject, set()).add(answer)

    def remove(self, answer: OpenAnswer) -> None:
        """Its last byte left, or never will."""
        if self._by_query.get(answer.query.id) is answer:
            del self._by_query[answer.query.id]
        for subject in answer.subjects:
            those = self._by_subject.get(subject)
            if those is not None:
                those.discard(answer)
                if not those:
                    del self._by_subject[subject]

    def under(self, subjects: Iterable[bytes]) -> list[OpenAnswer]:
        """Those that depend on any of these."""
        found = {answer for subject in subjects for answer in self._by_subject.get(subject, ())}
        return sorted(found, key=lambda answer: answer.received_at)

    def on(self, stream: BrokerStream) -> list[OpenAnswer]:
        """Those of one stream."""
        return [answer for answer in self if answer.stream is stream]

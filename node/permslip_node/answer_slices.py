"""From records to sealed chunks: what an allowed query gets to read, and the manifest that says so.

Rules:

- Records are read in portions while they are sealed; a large slice never stands in memory whole.
- A section that was not granted is in the manifest with its reason, whether or not anything is held.
- A page ends after as many records as were asked for; the manifest then names where the next one begins, but only if
  there is another record.

Example::

    slices.begin(answer)                  # while the decision is being written
    while answer.place is not None:
        slices.read_on(answer)
    slices.end(answer)                    # once the entry's number in the slice is known
"""

from __future__ import annotations

from collections.abc import Callable

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.errors import MalformedError
from permslip.quantities import Millis
from permslip.reasons import Reason
from permslip.slices import SliceWriter
from permslip_node.identity import Identity
from permslip_node.open_answers import OpenAnswer
from permslip_node.paging import PAGES_LAST, PageToken, open_token, scope_of, seal_token
from permslip_node.records_store import START, RecordsStore

__all__ = ["SliceMaker"]


class SliceMaker:
    """Reads and seals. Belongs to one event loop.

    Args:
        identity: who signs, and seals page tokens.
        store: where records are read.
        clock: UTC milliseconds now.
    """

    def __init__(self, identity: Identity, store: RecordsStore, *, clock: Callable[[], Millis]) -> None:
        self._identity, self._store, self._clock = identity, store, clock

    def page(self, query: pb.Query) -> PageToken:
        """The page token of a query, opened.

        Raises:
            MalformedError: not one of this node's, of another question, or too old.
        """
        token = open_token(self._identity.page_key, query.page)
        if token.scope != scope_of(query) or token.first_id != query.continues:
            raise MalformedError(
                "is the page of another question.",
                field="query.page",
                remedy="Ask for the same sections and days, and name the first query in continues.",
            )
        if self._clock() >= token.issued_at + PAGES_LAST:
            raise MalformedError("is older than an hour.", field="query.page", remedy="Begin again without it.")
        return token

    def begin(self, answer: OpenAnswer) -> None:
        """Make the opening, and seal the first records. Begins anew where that was done before."""
        answer.writer = SliceWriter(
            answer.query, signer=self._identity.signer, key=self._identity.key, now=self._clock()
        )
        answer.chunks, answer.counts, answer.records = [], {}, 0
        answer.place = answer.page.place if answer.page is not None else START
        answer.end = None
        self.read_on(answer)

    def read_on(self, answer: OpenAnswer) -> None:
        """Read and seal the next records; sets ``place`` to None when everything that was asked for was read."""
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

    def end(self, answer: OpenAnswer) -> None:
        """Seal what is left, with the manifest."""
        if answer.writer is None:
            return
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
        chunks, manifest = answer.writer.finish(
            coverage, slice_seq=answer.slice_seq, now=now, next_page=self._next_page(answer, now)
        )
        answer.chunks += chunks
        answer.manifest, answer.manifest_sha256 = manifest.raw, manifest.sha256

    def _next_page(self, answer: OpenAnswer, now: Millis) -> bytes:
        if answer.end is None:
            return b""
        first = answer.page
        token = PageToken(
            first_id=first.first_id if first is not None else answer.query.id,
            position=first.position if first is not None else answer.facts.position,
            issued_at=first.issued_at if first is not None else now,
            scope=scope_of(answer.query.payload),
            place=answer.end,
        )
        return seal_token(self._identity.page_key, token)

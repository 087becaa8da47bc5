"""Asking one node through the stream: queries made and signed, asked again where that is right, page after page.

Rules:

- Each query has a nonce, a reply key and an end of its own; nothing of an earlier one is used again.
- When the stream broke, the same is asked again while there is time: as ``retry_of`` when nothing had arrived, as
  ``continues`` when something had, so that it counts as one use. When the broker is busy or going away, it is asked
  again after the time that it names. A node that is unreachable is not asked again: what is missing is said instead.
- One node's answer is held in memory up to ``max_answer_bytes``, over all pages; a stream of records is not held.
- What was collected before a break is thrown away: a slice is whole or it is nothing.

Example::

    answer = await Asking(session, exchange).ask(ask, until=loop.time() + 10)
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Final

from permslip import statements as st
from permslip._pb.permslip.v1 import record_pb2, statement_pb2 as pb
from permslip.client.answers import Ending, OpenAnswer
from permslip.client.exchange import Exchange
from permslip.client.selection import Ask
from permslip.client.session import Session, backoff
from permslip.coverage import Coverage, Held, coverage_of, uncovered
from permslip.decision import MAX_QUERY_LIFETIME
from permslip.errors import ConfigurationError, PermslipError, SealError, TimedOutError
from permslip.keys import SealingKey
from permslip.profile import SliceAnswer
from permslip.reasons import Reason
from permslip.statements import Signed

__all__ = ["DEFAULT_MAX_ANSWER", "Asking", "make_query"]

DEFAULT_MAX_ANSWER: Final = 64 << 20
"""Sealed bytes that one node's answer may have, all pages together, where it is held in memory."""

_TRIES: Final = 4
_AGAIN: Final = frozenset({Reason.BUSY, Reason.DRAINING})
# A node would have to page forever to get past this; a lying one must not.
_MOST_PAGES: Final = 10_000


def make_query(session: Session, ask: Ask, *, lifetime: float) -> tuple[Signed[pb.Query], SealingKey]:
    """A signed query, and the pair to which its answer is sealed.

    Args:
        session: who asks, and by which clock.
        ask: what is asked.
        lifetime: seconds for which the query may be decided; at most two minutes.
    """
    now = session.now()
    reply_key = SealingKey.generate()
    payload = pb.Query(
        federation=session.server.federation,
        nonce=os.urandom(16),
        created_at=now,
        signer=session.identity.signer,
        expires_at=now + min(max(int(lifetime * 1_000), 1_000), MAX_QUERY_LIFETIME),
        grant_id=ask.view.id,
        delegation_ids=ask.delegation_ids,
        action=pb.ACTION_READ,
        sections=ask.sections,
        records_from=ask.records_from,
        records_until=ask.records_until,
        page_size=ask.page_size,
        page=ask.page,
        continues=ask.continues,
        reply_key=reply_key.public,
        retry_of=ask.retry_of,
    )
    return st.sign(st.QUERY, payload, [session.identity.keys.signing]), reply_key


class Asking:
    """Asks; belongs to one client.

    Args:
        session: with the broker.
        exchange: its stream.
        max_answer_bytes: sealed bytes that an answer may have that is held in memory.
    """

    def __init__(self, session: Session, exchange: Exchange, *, max_answer_bytes: int = DEFAULT_MAX_ANSWER) -> None:
        if max_answer_bytes < 1:
            raise ConfigurationError("expected more than 0 bytes.", key="max_answer_bytes")
        self._session, self._exchange, self._most = session, exchange, max_answer_bytes

    async def ask(self, ask: Ask, *, until: float) -> SliceAnswer:
        """Everything that one node answers, as one slice.

        Args:
            ask: what to ask.
            until: the event loop's time at which it is given up.

        Raises:
            UnavailableError: no broker can be reached.
            RefusedError: the broker does not take this caller.
        """
        records: list[record_pb2.Record] = []
        covered: dict[str, Coverage] = {}
        first, tries, most = b"", 0, self._most
        while True:
            answer = await self._open(ask, until, most=most)
            if answer is None:
                return self._silent(ask, Ending(Reason.TIMED_OUT))
            try:
                # Shielded: a caller who is cancelled must not end the answer before it can be cancelled at the node.
                ending = await asyncio.shield(answer.ending)
            finally:
                answer.cancel()  # does nothing once it ended
            if ending.manifest is None:
                tries += 1
                again = self._again(ask, answer.query.id, ending)
                if again is None or tries >= _TRIES or not await _wait(ending, tries, until):
                    return self._silent(ask, ending)
                ask = again
                continue
            first = first or answer.query.id
            records += ending.records
            most -= answer.received
            manifest = ending.manifest.payload
            for cover in coverage_of(manifest.coverage, node=ask.view.node, node_name=ask.view.node_name):
                covered[cover.section] = _added(covered.get(cover.section), cover)
            if not manifest.next_page:
                return self._whole(ask, covered, records, manifest.slice_seq)
            if len(records) >= _MOST_PAGES * max(ask.page_size, 1) or manifest.next_page == ask.page:
                fault = SealError("the node's pages do not end.", remedy="Tell the node's operator.")
                return self._silent(ask, Ending(Reason.INTERNAL, error=fault, is_fault=True))
            ask = ask.next_page(manifest.next_page, first)

    async def stream(self, ask: Ask, *, until: float) -> AsyncGenerator[record_pb2.Record | SliceAnswer, None]:
        """The records as they arrive, each verified to be the node's; at the end what became of the slice.

        Nothing is asked again once a record was handed out, because it would be handed out twice.

        Args:
            ask, until: as for :meth:`ask`.
        """
        covered: dict[str, Coverage] = {}
        first = b""
        while True:
            answer = await self._open(ask, until, streaming=True)
            if answer is None:
                yield self._silent(ask, Ending(Reason.TIMED_OUT))
                return
            try:
                async for record in answer.records():
                    yield record
                ending = answer.ending.result()
            finally:
                answer.cancel()
            if ending.manifest is None:
                yield self._silent(ask, ending)
                return
            first = first or answer.query.id
            manifest = ending.manifest.payload
            for cover in coverage_of(manifest.coverage, node=ask.view.node, node_name=ask.view.node_name):
                covered[cover.section] = _added(covered.get(cover.section), cover)
            if not manifest.next_page or manifest.next_page == ask.page:
                yield self._whole(ask, covered, (), manifest.slice_seq)
                return
            ask = ask.next_page(manifest.next_page, first)

    async def _open(
        self, ask: Ask, until: float, *, streaming: bool = False, most: int | None = None
    ) -> OpenAnswer | None:
        """Send the query; None when its time was over before there was a place for it."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(until):
                stream = await self._exchange.stream()
        except TimeoutError:
            return None
        left = until - loop.time()
        try:
            query, reply_key = make_query(self._session, ask, lifetime=left)
        except PermslipError:
            stream.give_back()
            raise
        return stream.ask(
            query,
            reply_key,
            node=ask.view.node,
            granted=[leaf for leaf in ask.leaves if ask.view.covers(leaf)],
            deadline=max(left, 0.001),
            streaming=streaming,
            most=most,
        )

    def _again(self, ask: Ask, query_id: bytes, ending: Ending) -> Ask | None:
        """What to ask instead, when asking again is right."""
        if ending.lost and ending.released:
            return replace(ask, continues=ask.continues or query_id, retry_of=b"")
        if ending.lost:
            return replace(ask, retry_of=query_id)
        if ending.reason in _AGAIN and not ending.is_fault:
            return ask
        return None

    def _whole(
        self,
        ask: Ask,
        covered: dict[str, Coverage],
        records: tuple[record_pb2.Record, ...] | list[record_pb2.Record],
        slice_seq: int,
    ) -> SliceAnswer:
        view = ask.view
        return SliceAnswer(
            node=view.node,
            node_name=view.node_name,
            handle=view.slice.handle,
            grant_id=view.id,
            coverage=tuple(covered[leaf] for leaf in ask.leaves),
            records=tuple(records),
            slice_seq=slice_seq,
        )

    def _silent(self, ask: Ask, ending: Ending) -> SliceAnswer:
        """No slice, and why."""
        view = ask.view
        error = ending.error
        if error is None and ending.reason == Reason.TIMED_OUT:
            error = TimedOutError(ending.reason.meaning, remedy=ending.reason.remedy)
        return SliceAnswer(
            node=view.node,
            node_name=view.node_name,
            handle=view.slice.handle,
            grant_id=view.id,
            coverage=uncovered(
                ask.leaves, ending.reason, node=view.node, node_name=view.node_name, known=ending.sections
            ),
            fault=error if ending.is_fault else None,
            error=error,
        )


async def _wait(ending: Ending, tries: int, until: float) -> bool:
    """Wait before asking again; False when there is no time for it."""
    loop = asyncio.get_running_loop()
    pause = backoff(tries, least=ending.retry_after)
    if loop.time() + pause >= until:
        return False
    await asyncio.sleep(pause)
    return True


def _added(known: Coverage | None, cover: Coverage) -> Coverage:
    """Coverage of one section over several pages."""
    if known is None:
        return cover
    returned = known.returned + cover.returned
    state = Held.RETURNED if returned and cover.state in (Held.RETURNED, Held.NONE_HELD) else cover.state
    return replace(
        cover, returned=returned, state=state, partly_withheld=known.partly_withheld or cover.partly_withheld
    )

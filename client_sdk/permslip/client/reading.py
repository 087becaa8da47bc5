"""Reading under the grants of one identity: what providers, guardians and learners have in common.

Example::

    reader = Reader(session, max_open=512)
    views = await reader.choose("learner-17")
    profile = await reader.profile(views, Wanted(sections=("transcript",)))
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self

from google.protobuf.message import DecodeError, Message

from permslip._pb.permslip.v1 import provider_pb2, provider_pb2_grpc, session_pb2, statement_pb2 as pb
from permslip.client.asking import DEFAULT_MAX_ANSWER, Asking
from permslip.client.exchange import Exchange
from permslip.client.selection import Ask, Selector, choose, plan
from permslip.client.session import Session
from permslip.coverage import Coverage
from permslip.entries import Entry
from permslip.errors import PermslipError
from permslip.grant_views import GrantView, view_of
from permslip.profile import Profile, SliceAnswer

__all__ = ["Reader", "RecordStream", "Wanted"]

_GRANTS_FRESH: Final = 30.0
_KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for, of every node alike.

    Attributes:
        sections: paths; None is everything that is not sensitive, and the sensitive leaves that the grants name.
        records_from, records_until: days, YYYY-MM-DD; empty is unbounded.
        timeout: seconds for each answer; None is the client's own.
    """

    sections: tuple[str, ...] | None = None
    records_from: str = ""
    records_until: str = ""
    timeout: float | None = None


class Reader:
    """Lists grants and reads under them.

    Args:
        session: with the broker.
        max_open: queries that may be open at once.
        max_answer_bytes: sealed bytes that one node's answer to a profile may have.
    """

    def __init__(self, session: Session, *, max_open: int, max_answer_bytes: int = DEFAULT_MAX_ANSWER) -> None:
        self.session = session
        self._max_open = max_open
        self._exchange = Exchange(session, max_open=max_open)
        self._asking = Asking(session, self._exchange, max_answer_bytes=max_answer_bytes)
        self._known: list[GrantView] = []
        self._known_at = float("-inf")
        self._listing = asyncio.Lock()

    async def close(self) -> None:
        """End the stream."""
        await self._exchange.close()

    async def grants(self, grant_ids: Sequence[bytes] = ()) -> AsyncIterator[GrantView]:
        """The grants made out to this identity, verified.

        Args:
            grant_ids: only these; also such as were passed on to this identity.
        """
        pages = self.session.pages(
            provider_pb2_grpc.ProviderServiceStub,
            "ListGrants",
            lambda hello, page: provider_pb2.ListGrantsRequest(hello=hello, page=page, grant_ids=grant_ids),
        )
        async for response in pages:
            for view in await self.views(response.grants):
                yield view

    async def views(self, states: Sequence[session_pb2.GrantState]) -> list[GrantView]:
        """What a broker says of grants, verified, with the names of the organizations in them."""
        session = self.session
        directory = await session.know({root for each in states for root in _roots_in(each)})
        now = session.now()
        return [
            view_of(
                each,
                federation=session.server.federation,
                directory=directory,
                sealing=session.identity.keys.sealing,
                now=now,
            )
            for each in states
        ]

    async def choose(self, selector: Selector) -> tuple[GrantView, ...]:
        """The grants that a selector means; see :func:`permslip.client.selection.choose`."""
        if not isinstance(selector, str | bytes):
            return choose((), selector)
        async with self._listing:
            loop = asyncio.get_running_loop()
            if loop.time() - self._known_at > _GRANTS_FRESH:
                self._known = [view async for view in self.grants()]
                self._known_at = loop.time()
        return choose(self._known, selector)

    def forget_grants(self) -> None:
        """List the grants anew when they are needed next."""
        self._known_at = float("-inf")

    async def profile(self, views: Sequence[GrantView], wanted: Wanted) -> Profile:
        """Assemble one profile."""
        asks = self._plan(views, wanted)
        until = asyncio.get_running_loop().time() + (wanted.timeout or self.session.timeout.answer)
        answers = await _all(self._asking.ask(ask, until=until) for ask in asks)
        reference = next((view.reference for view in views if view.reference), "")
        return Profile(reference, tuple(answers), self.session.now())

    async def profiles(self, groups: Iterable[Sequence[GrantView]], wanted: Wanted) -> AsyncIterator[Profile]:
        """Assemble many profiles at once, in the order in which they complete."""
        waiting = iter(groups)
        finished: asyncio.Queue[asyncio.Task[Profile]] = asyncio.Queue()
        running: set[asyncio.Task[Profile]] = set()
        try:
            while True:
                while len(running) < self._max_open and (views := next(waiting, None)) is not None:
                    task = asyncio.ensure_future(self.profile(views, wanted))
                    running.add(task)
                    task.add_done_callback(finished.put_nowait)
                if not running:
                    return
                task = await finished.get()
                running.discard(task)
                yield task.result()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def records(self, views: Sequence[GrantView], wanted: Wanted) -> RecordStream:
        """Stream records one by one."""
        return RecordStream(self._asking, self._plan(views, wanted), wanted.timeout or self.session.timeout.answer)

    def _plan(self, views: Sequence[GrantView], wanted: Wanted) -> tuple[Ask, ...]:
        return plan(
            views,
            party=self.session.identity.root,
            sections=wanted.sections,
            records_from=wanted.records_from,
            records_until=wanted.records_until,
        )


class RecordStream:
    """Records as they arrive: an asynchronous iterator that raises at its end if anything is missing.

    Each entry is verified to be its node's before it is handed out. Whether *all* are there is known at the end only:
    then :attr:`coverage` says what each section holds, and what was cut short or refused is raised.
    """

    def __init__(self, asking: Asking, asks: Sequence[Ask], timeout: float) -> None:
        self._asking, self._asks, self._timeout = asking, asks, timeout
        self._slices: list[SliceAnswer] = []
        self._iterator = self._run()

    @property
    def coverage(self) -> tuple[Coverage, ...]:
        """What is known so far of each node and section; complete at the end."""
        return tuple(cover for each in self._slices for cover in each.coverage)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Entry[Message]:
        return await self._iterator.__anext__()

    async def aclose(self) -> None:
        """Stop; what is under way is cancelled at the node."""
        await self._iterator.aclose()

    async def _run(self) -> AsyncGenerator[Entry[Message], None]:
        error: PermslipError | None = None
        for ask in self._asks:
            until = asyncio.get_running_loop().time() + self._timeout
            view = ask.view
            stream = self._asking.stream(ask, until=until)
            try:
                async for each in stream:
                    if isinstance(each, SliceAnswer):
                        self._slices.append(each)
                        error = error or each.error
                    else:
                        yield Entry.of(each, node=view.node, node_name=view.node_name, grant_id=view.id)
            finally:
                await stream.aclose()
        if error is not None:
            raise error


async def _all(coroutines: Iterable[Coroutine[None, None, SliceAnswer]]) -> list[SliceAnswer]:
    """Run them together; the first error ends the others."""
    tasks = [asyncio.ensure_future(each) for each in coroutines]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def _roots_in(state: session_pb2.GrantState) -> tuple[bytes, ...]:
    """Whose names a grant needs; read before it is verified, so it is good for looking up and nothing else."""
    try:
        grant = pb.Grant.FromString(state.grant.payload)
    except DecodeError:
        return ()
    return tuple(each for each in (grant.slice.node, grant.grantee) if len(each) == _KEY_BYTES)

"""The one pipelined stream on which queries go out and answers come back.

Rules:

- One background task reads, one writes; whatever is ready goes out as one message, with no added waiting.
- At most ``max_open`` queries are open at once; the next one waits for a place.
- When the stream breaks, its open answers are told, and the next query opens a new one: after jittered back-off, to the
  next replica. When the broker is going away (``Draining``) the old stream finishes what is open, while new queries
  already take a new one.

Example::

    exchange = Exchange(session, max_open=512)
    answer = await exchange.open(lambda stream: stream.ask(query, reply_key, node=root, granted=leaves, deadline=5))
    ending = await answer.ending
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any, Final

import grpc

from permslip._pb.permslip.v1 import provider_pb2, provider_pb2_grpc, statement_pb2 as pb
from permslip.client.answers import OpenAnswer
from permslip.client.failures import error_of
from permslip.client.session import Session, backoff
from permslip.errors import PermslipError, RefusedError, TimedOutError, UnavailableError
from permslip.keys import SealingKey
from permslip.outbox import Outbox
from permslip.reasons import Reason
from permslip.statements import Signed

__all__ = ["Exchange", "Stream"]

_LOCAL_GRACE: Final = 1.0  # seconds that the broker's own word about a deadline may be late
_DRAIN_GRACE: Final = 130.0  # longer than any answer may take


class Stream:
    """One ``Exchange`` stream, from its greeting to its end. Made by :class:`Exchange`.

    Args:
        session: whose it is.
        call: the open call, after the broker's welcome.
        welcome: what the broker allows.
        max_open: what the caller allows.
        ended: told once, when it is over.
    """

    def __init__(
        self,
        session: Session,
        call: Any,
        welcome: provider_pb2.Welcome,
        *,
        max_open: int,
        ended: Callable[[Stream], None],
    ) -> None:
        self._session, self._call, self._ended = session, call, ended
        self._window = welcome.initial_credit
        self._places = asyncio.Semaphore(min(max_open, welcome.max_open or max_open))
        self._outbox: Outbox[provider_pb2.ExchangeCall] = Outbox()
        self._open: dict[bytes, OpenAnswer] = {}
        self._timers: dict[bytes, asyncio.TimerHandle] = {}
        self._failure: PermslipError | None = None
        self.is_draining = False
        self._writer = asyncio.ensure_future(self._write())
        self._reader = asyncio.ensure_future(self._read())

    @property
    def is_usable(self) -> bool:
        """Whether new queries can go out on it."""
        return self._failure is None and not self.is_draining

    async def place(self) -> None:
        """Wait until one more query may be open. :meth:`ask` takes the place; :meth:`give_back` gives it up."""
        await self._places.acquire()

    def give_back(self) -> None:
        """The place is not needed after all."""
        self._places.release()

    def ask(
        self,
        query: Signed[pb.Query],
        reply_key: SealingKey,
        *,
        node: bytes,
        granted: Collection[str],
        deadline: float,
        streaming: bool = False,
        most: int | None = None,
    ) -> OpenAnswer:
        """Send a query; the answer's ending is done after ``deadline`` seconds at the latest.

        Args:
            query: signed by the session's identity.
            reply_key: the pair of its reply key.
            node: root key of the node that its grant names.
            granted: the leaves that its grant covers.
            deadline: seconds.
            streaming, most: see :class:`~permslip.client.answers.OpenAnswer`.
        """
        answer = OpenAnswer(
            query,
            reply_key,
            node=node,
            directory=self._session.directory,
            learn=self._session.learn_anew,
            now=self._session.now,
            window=self._window,
            give_room=self._give_room,
            gone=self._gone,
            granted=granted,
            streaming=streaming,
            most=most,
        )
        self._open[query.id] = answer
        if self._failure is not None:
            answer.lose(self._failure)
            return answer
        milliseconds = max(1, int(deadline * 1_000))
        call = provider_pb2.QueryCall(query=query.envelope, deadline=milliseconds)
        self._outbox.put(provider_pb2.ExchangeCall(query=call), len(query.envelope.payload))
        loop = asyncio.get_running_loop()
        self._timers[query.id] = loop.call_later(deadline + _LOCAL_GRACE, answer.time_out)
        return answer

    async def close(self) -> None:
        """End the stream; open answers are told so."""
        self._fail(UnavailableError("the client was closed.", remedy="Make a new one."))
        self._call.cancel()
        await asyncio.gather(self._writer, self._reader, return_exceptions=True)

    async def _write(self) -> None:
        try:
            async for batch in self._outbox.batches():
                await self._call.write(provider_pb2.ExchangeRequest(calls=batch))
            await self._call.done_writing()
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
            return  # the reader learns why

    async def _read(self) -> None:
        try:
            while (message := await self._call.read()) is not grpc.aio.EOF:
                for reply in message.replies:
                    self._take(reply)
            self._fail(UnavailableError("the broker ended the stream.", remedy="Try again."))
        except grpc.aio.AioRpcError as failure:
            self._fail(error_of(failure))
        except asyncio.CancelledError:
            self._fail(UnavailableError("the stream was cancelled.", remedy="Try again."))

    def _take(self, reply: provider_pb2.ExchangeReply) -> None:
        kind = reply.WhichOneof("reply")
        if kind == "answer":
            answer = self._open.get(reply.answer.query_id)
            if answer is not None:  # else it ended here, and the broker has not heard of that yet
                answer.feed(reply.answer)
        elif kind == "draining":
            self.is_draining = True
            self._close_when_drained()

    def _give_room(self, answer: OpenAnswer, more: int) -> None:
        credit = provider_pb2.Credit(query_id=answer.query.id, bytes=more)
        self._outbox.put(provider_pb2.ExchangeCall(credit=credit))

    def _gone(self, answer: OpenAnswer, tell: bool) -> None:
        query_id = answer.query.id
        if self._open.pop(query_id, None) is None:
            return
        self._places.release()
        if (timer := self._timers.pop(query_id, None)) is not None:
            timer.cancel()
        if tell:
            cancel = provider_pb2.Cancel(query_id=query_id)
            self._outbox.put(provider_pb2.ExchangeCall(cancel=cancel))
        self._close_when_drained()

    def _close_when_drained(self) -> None:
        if self.is_draining and not self._open:
            self._outbox.close()

    def _fail(self, error: PermslipError) -> None:
        if self._failure is not None:
            return
        self._failure = error
        self._outbox.close()
        for answer in list(self._open.values()):
            answer.lose(error)
        self._ended(self)


class Exchange:
    """Keeps one stream open and opens another when it must.

    Args:
        session: with the broker.
        max_open: queries that may be open at once.
    """

    def __init__(self, session: Session, *, max_open: int) -> None:
        self._session, self._max_open = session, max_open
        self._current: Stream | None = None
        self._streams: set[Stream] = set()
        self._connecting: asyncio.Task[Stream] | None = None

    async def stream(self) -> Stream:
        """A stream on which one more query may be asked: the place is the caller's, for :meth:`Stream.ask`.

        Raises:
            UnavailableError: no broker could be reached in time.
            RefusedError: the broker does not take this caller.
        """
        while True:
            stream = self._current
            if stream is None or not stream.is_usable:
                # All who wait are woken together, so that their queries go out as one message.
                if self._connecting is None:
                    self._connecting = asyncio.ensure_future(self._connect())
                    self._connecting.add_done_callback(self._connected)
                stream = await asyncio.shield(self._connecting)
            await stream.place()
            if stream.is_usable:
                return stream
            stream.give_back()

    async def close(self) -> None:
        """End every stream; those who wait for one are told that the client was closed."""
        if self._connecting is not None:
            self._connecting.cancel()
        for stream in list(self._streams):
            await stream.close()

    def _connected(self, connecting: asyncio.Task[Stream]) -> None:
        self._connecting = None
        if not connecting.cancelled() and connecting.exception() is None:
            self._current = connecting.result()

    async def _connect(self) -> Stream:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._session.timeout.connect
        attempt = 0
        while True:
            try:
                return await self._greet(give_up - loop.time())
            except (UnavailableError, RefusedError) as error:
                # A greeting can be a moment too old; everything else that is refused stays refused.
                if isinstance(error, RefusedError) and (error.code != "HELLO_REFUSED" or attempt):
                    raise
                wait = backoff(attempt)
                if self._session.is_closed or loop.time() + wait >= give_up:
                    raise
                attempt += 1
                await asyncio.sleep(wait)

    async def _greet(self, within: float) -> Stream:
        """Open a call, greet, and wait for the welcome."""
        hello = await self._session.greet(fresh=True)
        channel = self._session.open_channel()
        call: Any = provider_pb2_grpc.ProviderServiceStub(channel).Exchange()
        try:
            async with asyncio.timeout(max(within, 0.001)):
                await call.write(provider_pb2.ExchangeRequest(calls=[provider_pb2.ExchangeCall(hello=hello)]))
                welcome = await _welcome(call)
        except grpc.aio.AioRpcError as failure:
            self._session.channels.leave(channel, grace=self._session.timeout.call)
            raise error_of(failure) from failure
        except TimeoutError:
            call.cancel()
            self._session.channels.leave(channel, grace=self._session.timeout.call)
            reason = Reason.TIMED_OUT
            raise TimedOutError("the broker did not welcome the stream in time.", remedy=reason.remedy) from None
        except BaseException:
            call.cancel()
            raise
        stream = Stream(self._session, call, welcome, max_open=self._max_open, ended=self._ended)
        self._streams.add(stream)
        return stream

    def _ended(self, stream: Stream) -> None:
        self._streams.discard(stream)
        if self._current is stream:
            self._current = None


async def _welcome(call: Any) -> provider_pb2.Welcome:
    while (message := await call.read()) is not grpc.aio.EOF:
        for reply in message.replies:
            if reply.HasField("welcome"):
                return reply.welcome  # type: ignore[no-any-return]  # the call is untyped
            if reply.HasField("draining"):
                raise UnavailableError(Reason.DRAINING.meaning, remedy=Reason.DRAINING.remedy)
    raise UnavailableError("the broker ended the stream before it said anything.", remedy="Try again.")

"""The append-only ledger of a broker or node: group commit behind asyncio futures.

Any number of coroutines append; one thread writes. Whatever waits when that thread wakes goes into one transaction, so
that a hundred decisions cost one flush of the disk. A future resolves after the commit: what it answers is durable
(«log before release»).

Rules:

- Positions have no gap and never change. The first leaf, ``ledger_opened``, says whose ledger it is.
- One call to :meth:`Ledger.append` is one unit: all its drafts, in order, or none of them.
- What was decided by facts that changed before the commit is decided again (:class:`Draft`).
- Several processes may keep one ledger in one database; each finds what the others appended.
- Waiting is bounded: beyond ``max_pending`` drafts :meth:`Ledger.append` waits and :meth:`Ledger.submit` refuses.
- A caller that stops waiting (is cancelled) does not take its drafts back.

Example::

    >>> ledger = Ledger.open(engine, tables, federation="grand-bend", keeper=root,      # doctest: +SKIP
    ...                      origin="grand-bend/broker", clock=utc_millis)
    >>> [recorded] = await ledger.append(                                                # doctest: +SKIP
    ...     Draft("access_decided", decision, slice=(node, handle),
    ...           depends_on=(grant_id, requester), facts_position=facts.size, redo=decide_again))
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

from sqlalchemy import Engine

from permslip._pb.permslip.v1.ledger_pb2 import LedgerOpened
from permslip.errors import ConfigurationError, UnavailableError
from permslip.hosting.appending import Appender
from permslip.hosting.batch import Outcome
from permslip.hosting.drafts import Draft, Recorded
from permslip.hosting.leaves import LeafEncoder, decode_leaf
from permslip.hosting.ledger_reading import Head, Leaf, LedgerReader, SliceEntry, read_head
from permslip.hosting.schema import LedgerTables

__all__ = ["Draft", "Head", "Leaf", "Ledger", "LedgerReader", "Recorded", "SliceEntry", "read_head"]

_Answer = asyncio.Future[list[Recorded]]
_Call = tuple[tuple[Draft, ...], _Answer]


class Ledger(LedgerReader):
    """One ledger, open for appending. Made by :meth:`open`, ended by :meth:`close`."""

    def __init__(
        self,
        engine: Engine,
        tables: LedgerTables,
        appender: Appender,
        *,
        clock: Callable[[], int],
        max_pending: int,
        max_batch: int,
        on_batch: Callable[[int, float], None] | None,
    ) -> None:
        super().__init__(engine, tables)
        self._appender = appender
        self._clock = clock
        self._max_pending = max_pending
        self._max_batch = max_batch
        self._on_batch = on_batch
        self._queue: SimpleQueue[_Call | None] = SimpleQueue()
        # Everything below belongs to the event loop's thread.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pending = 0
        self._waiting: list[asyncio.Future[None]] = []
        self._closing = False
        self._thread = threading.Thread(target=self._write, name="ledger", daemon=True)
        self._thread.start()

    @classmethod
    def open(
        cls,
        engine: Engine,
        tables: LedgerTables,
        *,
        federation: str,
        keeper: bytes,
        origin: str,
        clock: Callable[[], int],
        entropy: Callable[[int], bytes] = os.urandom,
        max_clock_lag: int | None = 60_000,
        max_pending: int = 16_384,
        max_batch: int = 4_096,
        on_batch: Callable[[int, float], None] | None = None,
    ) -> Ledger:
        """Open the ledger in a database; a new one gets its first leaf. Waits for the database.

        Args:
            engine: the database, its schema up to date.
            tables: the ledger's tables in it.
            federation: name of the federation.
            keeper: root key of the broker or node whose ledger it is.
            origin: the checkpoint's origin line.
            clock: UTC milliseconds now.
            entropy: makes that many random bytes.
            max_clock_lag: milliseconds by which the clock may be behind the last leaf before every draft is refused
                with reason ``CLOCK`` (but those ``despite_clock``); ``None`` never refuses.
            max_pending: drafts that may wait for their commit.
            max_batch: drafts that one transaction takes, or one call's if those are more.
            on_batch: told of every commit how many leaves it added and how many seconds it took; in the event loop.

        Raises:
            ConfigurationError: the database holds the ledger of somebody else.
            UnavailableError: the database does not answer, or lacks the ledger's tables.
        """
        encoder = LeafEncoder(federation, keeper)
        appender = Appender(engine, tables, encoder, clock=clock, entropy=entropy, max_clock_lag=max_clock_lag)
        appender.open(Draft("ledger_opened", LedgerOpened(origin=origin)))
        [first] = LedgerReader(engine, tables).leaves(0, 1)
        entry = decode_leaf(first.leaf or b"")
        found = (entry.federation, entry.ledger, entry.ledger_opened.origin)
        if found != (federation, keeper, origin):
            raise ConfigurationError(
                f"expected the ledger {origin} of {keeper.hex()} in {federation}; this database holds {found[2]} of "
                f"{found[1].hex()} in {found[0]}.",
                key="database",
                remedy="Name the database that belongs to this service, or a new one.",
            )
        return cls(
            engine,
            tables,
            appender,
            clock=clock,
            max_pending=max_pending,
            max_batch=max_batch,
            on_batch=on_batch,
        )

    @property
    def size(self) -> int:
        """Entries as of this process's last commit."""
        return self._appender.head.size

    def root(self) -> bytes:
        """Root of the tree as of this process's last commit."""
        return self._appender.head.root

    def head(self) -> tuple[int, bytes]:
        """Size and root that belong together, as of this process's last commit."""
        head = self._appender.head
        return head.size, head.root

    def clock_is_behind(self) -> bool:
        """Is the clock further behind the ledger's last leaf than allowed, so that drafts are refused?"""
        return self._appender.clock_behind(self._clock()) > 0

    async def append(self, *drafts: Draft) -> list[Recorded]:
        """Append entries in one transaction, in order; returns when they are on the disk.

        Raises:
            MalformedError: a draft cannot be a leaf.
            RefusedError: reason ``CLOCK``; see :meth:`open`.
            UnavailableError: the database failed, facts changed under a draft without ``redo``, or the ledger is
                closed. Except for a failure of the database, nothing was recorded; after one that is not known.
            Exception: whatever a callback of one of the drafts raised.
        """
        while self._pending >= self._max_pending:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn
        return await self._enqueue(drafts)

    def submit(self, *drafts: Draft) -> asyncio.Future[list[Recorded]]:
        """Like :meth:`append`, but returns at once: the future resolves when the entries are on the disk.

        Raises:
            UnavailableError: too many drafts are waiting, or the ledger is closed.
        """
        if self._pending >= self._max_pending:
            raise UnavailableError(
                f"{self._pending} entries are waiting to be recorded, the most allowed is {self._max_pending}.",
                remedy="Try again in a moment.",
            )
        return self._enqueue(drafts)

    async def close(self) -> None:
        """Record what was submitted, then end; later drafts are refused. The engine stays open."""
        self._closing = True
        while self._pending:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _enqueue(self, drafts: tuple[Draft, ...]) -> _Answer:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None and self._pending:
                raise RuntimeError("a ledger serves one event loop at a time")
            self._loop = loop
        if self._closing:
            raise UnavailableError("the ledger is closed: this service is shutting down.", remedy="Try again later.")
        answer: _Answer = loop.create_future()
        self._pending += len(drafts)
        self._queue.put((drafts, answer))
        return answer

    def _write(self) -> None:
        """The ledger's thread: batch after batch, until told to end."""
        queue = self._queue
        while (call := queue.get()) is not None:
            calls = [call]
            drafts = len(call[0])
            while drafts < self._max_batch and not queue.empty():
                another = queue.get()
                if another is None:
                    queue.put(None)
                    break
                calls.append(another)
                drafts += len(another[0])
            self._commit(calls, drafts)

    def _commit(self, calls: list[_Call], drafts: int) -> None:
        started = time.perf_counter()
        outcomes: list[Outcome]
        try:
            outcomes = self._appender.commit([call[0] for call in calls])
        except UnavailableError as error:
            outcomes = [_same(error) for _ in calls]
        except Exception as error:  # noqa: BLE001 (whatever it is, those who wait must hear of it)
            outcomes = [error] * len(calls)
        seconds = time.perf_counter() - started
        answers = [(call[1], outcome) for call, outcome in zip(calls, outcomes, strict=True)]
        try:
            calls[0][1].get_loop().call_soon_threadsafe(self._resolve, answers, drafts, seconds)
        except RuntimeError:  # the loop was closed: nobody waits any more
            self._pending -= drafts

    def _resolve(self, answers: list[tuple[_Answer, Outcome]], drafts: int, seconds: float) -> None:
        """In the event loop: tell those who wait, and let in those who were kept out."""
        leaves = 0
        for answer, outcome in answers:
            if isinstance(outcome, list):
                leaves += len(outcome)
            if answer.done():  # cancelled
                continue
            if isinstance(outcome, list):
                answer.set_result(outcome)
            else:
                answer.set_exception(outcome)
        self._pending -= drafts
        waiting, self._waiting = self._waiting, []
        for turn in waiting:
            if not turn.done():
                turn.set_result(None)
        if self._on_batch is not None and leaves:
            self._on_batch(leaves, seconds)


def _same(error: UnavailableError) -> UnavailableError:
    """The error once more: raised in several tasks, one object would collect all their tracebacks."""
    again = UnavailableError(error.message, remedy=error.remedy)
    again.__cause__ = error
    return again

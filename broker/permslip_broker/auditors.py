"""AuditorService: ledger ranges, the statements they name, checkpoints and proofs, for admitted auditors.

What an auditor may see is her admission's scope (:mod:`permslip.audit_scope`). This broker's own ledger is answered
here; a node's is asked of that node (:mod:`permslip_broker.ledger_calls`), which judges the auditor once more by itself
and seals its answer to her.

Rules:

- The database is read in threads, a page ahead of what the auditor takes; nothing else of a fetch is in memory.
- Whoever is suspended, or admitted anew with another scope, while she fetches gets no further page.
- So many fetches at once, of all auditors and of one; beyond them: ``BUSY``.
- The head of this broker's ledger is told to whoever greets: it says nothing but size and root.

Example::

    async for response in stub.FetchEntries(FetchEntriesRequest(hello=hello, ledger=root, until=size)):
        for entry in response.entries: ...
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from permslip._pb.permslip.v1 import auditor_pb2, ledger_pb2, statement_pb2 as pb
from permslip.audit_scope import may_read, scope_of
from permslip.bounds import check_bounds
from permslip.errors import RefusedError
from permslip.hosting.facts_store import FactStore
from permslip.hosting.ledger import Ledger
from permslip.hosting.ledger_pages import LedgerPages
from permslip.reasons import Reason
from permslip_broker.greetings import ANYBODY, Caller, Greetings
from permslip_broker.identity import Identity
from permslip_broker.methods import Context

__all__ = ["Auditors", "Checkpoints", "SignedCheckpoints"]

AUDITORS: Final = frozenset({pb.PRINCIPAL_KIND_AUDITOR})
MOST_FETCHES: Final = 16
MOST_FETCHES_OF_ONE: Final = 6
# Seconds between two looks for what was appended, for who follows the ledger.
FOLLOW_EVERY: Final = 0.25


class Checkpoints(Protocol):
    """The notes that are given out."""

    async def own(self) -> bytes:
        """A checkpoint of this broker's ledger that covers everything recorded until now, where one can be had."""


class SignedCheckpoints:
    """Checkpoints that this broker alone signed."""

    def __init__(self, identity: Identity, ledger: Ledger) -> None:
        self._identity, self._ledger = identity, ledger

    async def own(self) -> bytes:
        """The head, signed."""
        return self._identity.checkpoint(*self._ledger.head())


class Auditors:
    """Handlers of AuditorService."""

    def __init__(
        self,
        *,
        identity: Identity,
        greetings: Greetings,
        facts: FactStore,
        pages: LedgerPages,
        checkpoints: Checkpoints,
    ) -> None:
        self._identity, self._greetings, self._facts = identity, greetings, facts
        self._pages, self._checkpoints = pages, checkpoints
        self._open: Counter[bytes] = Counter()
        self._ending = asyncio.Event()

    def end(self) -> None:
        """Nobody follows the ledger any longer: this broker ends."""
        self._ending.set()

    async def get_checkpoint(
        self, request: auditor_pb2.GetCheckpointRequest, _context: Context
    ) -> auditor_pb2.GetCheckpointResponse:
        """The head of a ledger as a C2SP signed note."""
        check_bounds(request, "request")
        self._greetings.check(request.hello, as_one_of=ANYBODY)
        self._check_own(request.ledger)
        note = await self._checkpoints.own()
        return auditor_pb2.GetCheckpointResponse(checkpoint=ledger_pb2.SignedCheckpoint(note=note))

    async def get_proofs(
        self, request: auditor_pb2.GetProofsRequest, _context: Context
    ) -> auditor_pb2.GetProofsResponse:
        """Inclusion and consistency proofs."""
        check_bounds(request, "request")
        self._greetings.check(request.hello, as_one_of=AUDITORS)
        self._check_own(request.ledger)
        return await asyncio.to_thread(self._pages.proofs, request.size, request.positions, request.old_size)

    async def fetch_entries(self, request: auditor_pb2.FetchEntriesRequest, _context: Context) -> AsyncIterator[bytes]:
        """Leaves of a range, in order; with ``follow`` also those that are appended later."""
        check_bounds(request, "request")
        caller, scope = self._admitted(request.hello, request.ledger)
        with self._fetching(caller):
            start = getattr(request, "from")
            while True:
                size = await asyncio.to_thread(self._pages.size)
                end = size if request.follow or not request.until else min(request.until, size)
                async for page in self._each(caller, scope, self._pages.entries(start, end, scope)):
                    yield page
                if not request.follow or self._ending.is_set():
                    return
                start = max(start, end)
                await self._a_moment()
                self._still(caller, scope)

    async def fetch_statements(
        self, request: auditor_pb2.FetchStatementsRequest, _context: Context
    ) -> AsyncIterator[bytes]:
        """Statements by their ids, or all that the entries of a range name."""
        check_bounds(request, "request")
        caller, scope = self._admitted(request.hello, request.ledger)
        with self._fetching(caller):
            if request.statement_ids:
                found = self._pages.statements_by_id(request.statement_ids, scope)
            else:
                size = await asyncio.to_thread(self._pages.size)
                end = min(request.until or size, size)
                found = self._pages.statements_named(getattr(request, "from"), end, scope)
            async for page in self._each(caller, scope, found):
                yield page

    def _check_own(self, ledger: bytes) -> None:
        if ledger != self._identity.root:
            raise _refused(Reason.NOT_FOUND, "request.ledger", "this broker keeps no such ledger.")

    def _admitted(self, hello: pb.Envelope, ledger: bytes) -> tuple[Caller, pb.AuditScope]:
        """Who asks, and what she may see.

        Raises:
            RefusedError: no auditor, or nothing of this ledger.
        """
        caller = self._greetings.check(hello, as_one_of=AUDITORS)
        self._check_own(ledger)
        scope = self._scope(caller)
        if not may_read(ledger, scope, broker=self._identity.root):
            raise _refused(Reason.NOT_ALLOWED, "request.ledger", "this ledger is outside the auditor's scope.")
        return caller, scope

    def _scope(self, caller: Caller) -> pb.AuditScope:
        standing = self._facts.standing(caller.root)
        if standing is None:
            raise _refused(Reason.REQUESTER_UNKNOWN, "hello.signer.root", Reason.REQUESTER_UNKNOWN.meaning)
        return scope_of(standing)

    def _still(self, caller: Caller, scope: pb.AuditScope) -> None:
        """Raises unless the auditor may go on."""
        self._greetings.check_standing(caller)
        if self._scope(caller) != scope:
            raise _refused(Reason.NOT_ALLOWED, "hello.signer.root", "the auditor's scope has changed: fetch again.")

    async def _each(self, caller: Caller, scope: pb.AuditScope, pages: Iterator[bytes]) -> AsyncIterator[bytes]:
        """Pages, the next one being read while this one is sent."""
        async for page in read_ahead(pages):
            self._still(caller, scope)
            yield page

    @contextmanager
    def _fetching(self, caller: Caller) -> Iterator[None]:
        if self._open.total() >= MOST_FETCHES or self._open[caller.root] >= MOST_FETCHES_OF_ONE:
            raise RefusedError(
                Reason.BUSY.meaning, code=Reason.BUSY.name, remedy="Try again in a moment.", retry_after=1.0
            )
        self._open[caller.root] += 1
        try:
            yield
        finally:
            self._open[caller.root] -= 1
            self._open += Counter()  # forgets who has none open

    async def _a_moment(self) -> None:
        try:
            await asyncio.wait_for(self._ending.wait(), FOLLOW_EVERY)
        except TimeoutError:
            return


async def read_ahead(pages: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Take from an iterator that waits for the database, in threads, one ahead."""
    following = asyncio.ensure_future(asyncio.to_thread(next, pages, None))
    try:
        while (page := await following) is not None:
            following = asyncio.ensure_future(asyncio.to_thread(next, pages, None))
            yield page
    finally:
        # Nobody waits for the last one any more; its failure is nobody's either.
        following.add_done_callback(lambda done: done.cancelled() or done.exception())


def _refused(reason: Reason, field: str, message: str) -> RefusedError:
    return RefusedError(message, code=reason.name, field=field, remedy=reason.remedy)

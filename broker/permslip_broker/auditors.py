"""AuditorService: ledger ranges, the statements they name, checkpoints and proofs, for admitted auditors.

What an auditor may see is her admission's scope (:mod:`permslip.audit_scope`). This broker's own ledger is answered
here; a node's is asked of that node (:mod:`permslip_broker.ledger_calls`), which judges the auditor once more by itself
and seals its answer to her.

Rules:

- The database is read in threads, a page ahead of what the auditor takes; nothing else of a fetch is in memory.
- Whoever is suspended, or admitted anew with another scope, while she fetches gets no further page.
- So many fetches at once, of all auditors and of one; beyond them: ``BUSY``. One that ended because its pages were not
  taken frees its place for others; it counts as its own auditor's until its last page left the memory.
- The head of this broker's ledger is told to whoever greets: it says nothing but size and root.

Example::

    async for response in stub.FetchEntries(FetchEntriesRequest(hello=hello, ledger=root, until=size)):
        for entry in response.entries: ...
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from typing import Final, Protocol

from permslip._pb.permslip.v1 import auditor_pb2, ledger_pb2, node_pb2, statement_pb2 as pb
from permslip.audit_scope import may_read, scope_of
from permslip.bounds import check_bounds
from permslip.errors import MalformedError, RefusedError
from permslip.hosting.facts_store import FactStore
from permslip.hosting.ledger_pages import LedgerPages, read_ahead
from permslip.reasons import Reason
from permslip_broker.greetings import ANYBODY, Caller, Greetings
from permslip_broker.identity import Identity
from permslip_broker.ledger_calls import LedgerCalls
from permslip_broker.methods import Context

__all__ = ["Auditors", "Checkpoints"]

AUDITORS: Final = frozenset({pb.PRINCIPAL_KIND_AUDITOR})
MOST_FETCHES: Final = 16
MOST_FETCHES_OF_ONE: Final = 4
# Seconds between two looks for what was appended, for who follows the ledger.
FOLLOW_EVERY: Final = 0.25
_NO_END: Final = 1 << 63


class Checkpoints(Protocol):
    """The notes that are given out."""

    async def own(self) -> bytes:
        """A checkpoint of this broker's ledger that covers everything recorded until now, where one can be had."""
        ...

    async def of_node(self, root: bytes) -> bytes | None:
        """A checkpoint of a node's ledger that this broker cosigned; None: the node is to be asked for its own."""
        ...


class Auditors:
    """Handlers of AuditorService."""

    def __init__(
        self,
        *,
        identity: Identity,
        greetings: Greetings,
        facts: FactStore,
        pages: LedgerPages,
        calls: LedgerCalls,
        checkpoints: Checkpoints,
    ) -> None:
        self._identity, self._greetings, self._facts = identity, greetings, facts
        self._pages, self._calls, self._checkpoints = pages, calls, checkpoints
        self._running = 0
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
        if request.ledger == self._identity.root:
            self._greetings.check(request.hello, as_one_of=ANYBODY)
            note = await self._checkpoints.own()
            return auditor_pb2.GetCheckpointResponse(checkpoint=ledger_pb2.SignedCheckpoint(note=note))
        caller, _ = self._admitted(request.hello, request.ledger)
        cosigned = await self._checkpoints.of_node(request.ledger)
        if cosigned is not None:
            return auditor_pb2.GetCheckpointResponse(checkpoint=ledger_pb2.SignedCheckpoint(note=cosigned))
        call = node_pb2.LedgerCall(checkpoint=request)
        reply = await self._calls.ask(request.ledger, call, caller=caller.root)
        return reply.checkpoint

    async def get_proofs(
        self, request: auditor_pb2.GetProofsRequest, _context: Context
    ) -> auditor_pb2.GetProofsResponse:
        """Inclusion and consistency proofs."""
        check_bounds(request, "request")
        caller, _ = self._admitted(request.hello, request.ledger)
        if request.ledger != self._identity.root:
            call = node_pb2.LedgerCall(proofs=request)
            return (await self._calls.ask(request.ledger, call, caller=caller.root)).proofs
        return await asyncio.to_thread(self._pages.proofs, request.size, request.positions, request.old_size)

    async def fetch_entries(self, request: auditor_pb2.FetchEntriesRequest, context: Context) -> AsyncIterator[bytes]:
        """Leaves of a range, in order; with ``follow`` also those that are appended later."""
        check_bounds(request, "request")
        caller, scope = self._admitted(request.hello, request.ledger)
        with self._fetching(caller, context):
            if request.ledger == self._identity.root:
                pages = self._own_entries(caller, scope, request)
            else:
                most = _most(request.until if not request.follow else 0, request)
                call = node_pb2.LedgerCall(entries=request)
                pages = self._relayed(caller, scope, request.ledger, call, most=most, follow=request.follow)
            async with aclosing(pages):
                async for page in pages:
                    yield page

    async def fetch_statements(
        self, request: auditor_pb2.FetchStatementsRequest, context: Context
    ) -> AsyncIterator[bytes]:
        """Statements by their ids, or all that the entries of a range name."""
        check_bounds(request, "request")
        caller, scope = self._admitted(request.hello, request.ledger)
        with self._fetching(caller, context):
            if request.ledger == self._identity.root:
                pages = self._own_statements(caller, scope, request)
            else:
                most = len(request.statement_ids) or _most(request.until, request)
                call = node_pb2.LedgerCall(statements=request)
                pages = self._relayed(caller, scope, request.ledger, call, most=most)
            async with aclosing(pages):
                async for page in pages:
                    yield page

    async def _own_entries(
        self, caller: Caller, scope: pb.AuditScope, request: auditor_pb2.FetchEntriesRequest
    ) -> AsyncGenerator[bytes, None]:
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

    async def _own_statements(
        self, caller: Caller, scope: pb.AuditScope, request: auditor_pb2.FetchStatementsRequest
    ) -> AsyncGenerator[bytes, None]:
        if request.statement_ids:
            found = self._pages.statements_by_id(request.statement_ids, scope)
        else:
            size = await asyncio.to_thread(self._pages.size)
            found = self._pages.statements_named(getattr(request, "from"), min(request.until or size, size), scope)
        async for page in self._each(caller, scope, found):
            yield page

    async def _relayed(
        self,
        caller: Caller,
        scope: pb.AuditScope,
        root: bytes,
        call: node_pb2.LedgerCall,
        *,
        most: int,
        follow: bool = False,
    ) -> AsyncGenerator[bytes, None]:
        """What a node answers, as it came; nothing that is not sealed."""
        replies = self._calls.stream(root, call, caller=caller.root, most=most, follow=follow)
        async with aclosing(replies):
            async for reply in replies:
                self._still(caller, scope)
                response = reply.entries if reply.HasField("entries") else reply.statements
                if not response.sealed or len(response.ListFields()) != 1:
                    raise MalformedError("the node's answer is not sealed.", field="ledger.reply")
                yield response.SerializeToString()

    def _admitted(self, hello: pb.Envelope, ledger: bytes) -> tuple[Caller, pb.AuditScope]:
        """Who asks, and what she may see.

        Raises:
            RefusedError: no auditor, or nothing of this ledger.
        """
        own = ledger == self._identity.root
        # No secret: the directory tells it to everybody.
        if not own and self._facts.standing(ledger) is None:
            raise _refused(Reason.NOT_FOUND, "request.ledger", "no such ledger is known here.")
        caller = self._greetings.check(hello, as_one_of=AUDITORS, node=b"" if own else ledger)
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
    def _fetching(self, caller: Caller, context: Context) -> Iterator[None]:
        if self._running >= MOST_FETCHES or self._open[caller.root] >= MOST_FETCHES_OF_ONE:
            raise RefusedError(
                Reason.BUSY.meaning, code=Reason.BUSY.name, remedy="Try again in a moment.", retry_after=1.0
            )
        self._running += 1
        self._open[caller.root] += 1
        # The stub wants a class of its own, where gRPC takes any callable.
        context.add_done_callback(lambda _: self._closed(caller))  # type: ignore[arg-type]
        try:
            yield
        finally:
            self._running -= 1

    def _closed(self, caller: Caller) -> None:
        self._open[caller.root] -= 1
        self._open += Counter()  # forgets who has none open

    async def _a_moment(self) -> None:
        try:
            await asyncio.wait_for(self._ending.wait(), FOLLOW_EVERY)
        except TimeoutError:
            return


def _most(until: int, request: auditor_pb2.FetchEntriesRequest | auditor_pb2.FetchStatementsRequest) -> int:
    """So many messages can answer a range at most: none of them is empty."""
    return max(0, until - getattr(request, "from")) if until else _NO_END


def _refused(reason: Reason, field: str, message: str) -> RefusedError:
    return RefusedError(message, code=reason.name, field=field, remedy=reason.remedy)

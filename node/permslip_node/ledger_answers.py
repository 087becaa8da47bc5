"""This node's own ledger, told to auditors who ask through a broker, and its checkpoint to the broker itself.

The broker has checked the greeting too; that counts for nothing here. This node checks by itself: the greeting's
signature, that it is meant for this node, its age by this node's clock, that its signer is an admitted auditor's
current key by this node's own facts, and the scope. What an auditor may read leaves sealed to the key in her greeting.

Rules:

- ``LedgerCall`` → who may make it: ``checkpoint`` and ``proofs`` (hashes, in clear): an auditor, or the broker of the
  stream with its certified key. ``entries`` and ``statements`` (sealed): an auditor. A guardian's ``slice`` is answered
  elsewhere (:mod:`permslip_node.slice_answers`).
- An auditor is answered only under a fresh lease: without one this node cannot know that she was not suspended. Whoever
  is suspended, or admitted anew with another scope, gets no further page; and nobody does when the lease goes stale.
- Pages are read and sealed in threads, one ahead, and sent against the broker's credit: neither memory nor the stream
  fills with them.
- So many calls at once; beyond them: ``BUSY``. Refusals are entries of the ledger, as many in a second as an outsider
  may cause.

Example::

    answers = LedgerAnswers(identity, engine, recording, origin=origin, clock=clock)
    answers.take(stream, cert, frame.ledger)
    answers.credit(stream, frame.credit)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from sqlalchemy import Engine

from permslip._pb.permslip.v1 import auditor_pb2, ledger_pb2, node_pb2, provider_pb2, statement_pb2 as pb
from permslip.audit_scope import auditor_reason, entries_context, may_read, scope_of, statements_context
from permslip.bounds import check_bounds
from permslip.checkpoints import Checkpoint, sign_checkpoint
from permslip.errors import AuthorityError, MalformedError, PermslipError, RefusedError
from permslip.greeting import check_relayed_hello
from permslip.hosting.drafts import Draft, Recorded
from permslip.hosting.ledger_pages import CALL_WINDOW, LedgerPages, read_ahead
from permslip.hosting.logs import get_log
from permslip.hosting.refusals import is_internal, reason_of, refusal_of
from permslip.keys import parse_sealing_key
from permslip.notes import Ed25519Signer
from permslip.quantities import Millis
from permslip.reasons import Reason
from permslip.sealing import seal
from permslip.statements import Signed
from permslip_node import schema
from permslip_node.identity import Identity
from permslip_node.recording import Recording
from permslip_node.refusal_budget import RefusalBudget
from permslip_node.streams import BrokerStream

__all__ = ["CALL_ID_BYTES", "LedgerAnswers"]

_log = get_log(__name__)

CALL_ID_BYTES: Final = 16
"""Credits and cancellations with a number of this length are a call's; those with a query's id are an answer's."""

MOST_CALLS: Final = 8
_FOLLOW_EVERY_S: Final = 0.25
_REFUSALS_PER_SECOND: Final = 10

_METHODS: Final = {
    "checkpoint": "GetCheckpoint",
    "entries": "FetchEntries",
    "statements": "FetchStatements",
    "proofs": "GetProofs",
}

Request = (
    auditor_pb2.GetCheckpointRequest
    | auditor_pb2.FetchEntriesRequest
    | auditor_pb2.FetchStatementsRequest
    | auditor_pb2.GetProofsRequest
)


@dataclass(eq=False, slots=True)
class _OpenCall:
    """One call, while it is answered; ``caller`` is the key that it proved to be by."""

    call_id: bytes
    stream: BrokerStream
    task: asyncio.Task[None] | None = None
    caller: bytes = b""
    credit: int = CALL_WINDOW
    more: asyncio.Event = field(default_factory=asyncio.Event)


class LedgerAnswers:
    """Answers calls for this node's ledger. Belongs to one event loop.

    Args:
        identity: who signs.
        engine: the node's database.
        recording: its ledger and its facts.
        origin: the ledger's name in checkpoints.
        clock: UTC milliseconds now.
    """

    def __init__(
        self, identity: Identity, engine: Engine, recording: Recording, *, origin: str, clock: Callable[[], Millis]
    ) -> None:
        self._identity, self._recording, self._clock = identity, recording, clock
        self._pages = LedgerPages(recording.ledger, engine, schema.FACTS, schema.LEDGER)
        self._origin = origin
        self._calls: dict[tuple[int, bytes], _OpenCall] = {}
        self._refusals = RefusalBudget("ledger calls", per_second=_REFUSALS_PER_SECOND)

    def take(self, stream: BrokerStream, cert: Signed[pb.KeyCert], call: node_pb2.LedgerCall) -> None:
        """Begin to answer.

        Args:
            stream: over which it came, and over which it is answered.
            cert: of the broker at its other end.
            call: not checked yet.
        """
        key = (id(stream), call.call_id)
        if key in self._calls or len(call.call_id) != CALL_ID_BYTES:
            _log.warning("ledger_call_refused", why="its number is none, or in use")
            return
        if len(self._calls) >= MOST_CALLS:
            busy = RefusedError(Reason.BUSY.meaning, code=Reason.BUSY.name, retry_after=1.0)
            self._reply(stream, node_pb2.LedgerReply(call_id=call.call_id, refusal=refusal_of(busy), last=True))
            return
        entry = self._calls[key] = _OpenCall(call.call_id, stream)
        entry.task = asyncio.ensure_future(self._answer(entry, cert, call))
        entry.task.add_done_callback(lambda _: self._calls.pop(key, None))

    def credit(self, stream: BrokerStream, credit: provider_pb2.Credit) -> None:
        """The broker has room for so many more bytes of a call."""
        entry = self._calls.get((id(stream), credit.query_id))
        if entry is not None:
            entry.credit = min(entry.credit + credit.bytes, CALL_WINDOW)
            entry.more.set()

    def cancel(self, stream: BrokerStream, call_id: bytes) -> None:
        """Nobody waits for the answer any more."""
        entry = self._calls.get((id(stream), call_id))
        if entry is not None and entry.task is not None:
            entry.task.cancel()

    def detached(self, stream: BrokerStream) -> None:
        """The stream ended, and with it its calls."""
        for entry in list(self._calls.values()):
            if entry.stream is stream and entry.task is not None:
                entry.task.cancel()

    # ------------------------------------------------------------------------------------- one call

    async def _answer(self, entry: _OpenCall, cert: Signed[pb.KeyCert], call: node_pb2.LedgerCall) -> None:
        kind = call.WhichOneof("call") or ""
        try:
            check_bounds(call, "ledger")
            if kind == "checkpoint":
                await self._tell_checkpoint(entry, cert, call.checkpoint)
            elif kind == "proofs":
                await self._tell_proofs(entry, cert, call.proofs)
            elif kind == "entries":
                await self._tell_entries(entry, call.entries)
            elif kind == "statements":
                await self._tell_statements(entry, call.statements)
            else:
                raise RefusedError(Reason.NOT_ALLOWED.meaning, code=Reason.NOT_ALLOWED.name, field="ledger.call")
        except PermslipError as error:
            self._refuse(entry, kind, call, error)
        except Exception as error:  # noqa: BLE001 (whatever it is, who waits must hear of an end)
            _log.error("ledger_call_failed", call=kind, exc_info=error)
            reply = node_pb2.LedgerReply(call_id=entry.call_id, refusal=refusal_of(error), last=True)
            self._reply(entry.stream, reply)

    async def _tell_checkpoint(
        self, entry: _OpenCall, cert: Signed[pb.KeyCert], request: auditor_pb2.GetCheckpointRequest
    ) -> None:
        self._check_hashes_for(entry, cert, request)
        head = await asyncio.to_thread(self._recording.ledger.read_head)
        signer = Ed25519Signer(self._origin, self._identity.key)
        note = sign_checkpoint(Checkpoint(self._origin, head.size, head.root), [signer])
        response = auditor_pb2.GetCheckpointResponse(checkpoint=ledger_pb2.SignedCheckpoint(note=note))
        self._reply(entry.stream, node_pb2.LedgerReply(call_id=entry.call_id, checkpoint=response, last=True))

    async def _tell_proofs(
        self, entry: _OpenCall, cert: Signed[pb.KeyCert], request: auditor_pb2.GetProofsRequest
    ) -> None:
        self._check_hashes_for(entry, cert, request)
        response = await asyncio.to_thread(self._pages.proofs, request.size, request.positions, request.old_size)
        self._reply(entry.stream, node_pb2.LedgerReply(call_id=entry.call_id, proofs=response, last=True))

    async def _tell_entries(self, entry: _OpenCall, request: auditor_pb2.FetchEntriesRequest) -> None:
        hello, scope = self._auditor(entry, request)
        start = getattr(request, "from")
        while True:
            size = await asyncio.to_thread(self._pages.size)
            end = size if request.follow or not request.until else min(request.until, size)
            pages = self._pages.entries(start, end, scope)
            async for sealed in self._each(entry, hello, scope, pages, entries_context(hello.id)):
                response = auditor_pb2.FetchEntriesResponse(sealed=sealed)
                self._send(entry, node_pb2.LedgerReply(call_id=entry.call_id, entries=response), len(sealed))
            if not request.follow:
                break
            start = max(start, end)
            await asyncio.sleep(_FOLLOW_EVERY_S)
            self._check_auditor(entry, hello, scope)
        last = node_pb2.LedgerReply(call_id=entry.call_id, entries=auditor_pb2.FetchEntriesResponse(), last=True)
        self._reply(entry.stream, last)

    async def _tell_statements(self, entry: _OpenCall, request: auditor_pb2.FetchStatementsRequest) -> None:
        hello, scope = self._auditor(entry, request)
        if request.statement_ids:
            pages = self._pages.statements_by_id(request.statement_ids, scope)
        else:
            size = await asyncio.to_thread(self._pages.size)
            pages = self._pages.statements_named(getattr(request, "from"), min(request.until or size, size), scope)
        async for sealed in self._each(entry, hello, scope, pages, statements_context(hello.id)):
            response = auditor_pb2.FetchStatementsResponse(sealed=sealed)
            self._send(entry, node_pb2.LedgerReply(call_id=entry.call_id, statements=response), len(sealed))
        response = auditor_pb2.FetchStatementsResponse()
        self._reply(entry.stream, node_pb2.LedgerReply(call_id=entry.call_id, statements=response, last=True))

    async def _each(
        self, entry: _OpenCall, hello: Signed[pb.Hello], scope: pb.AuditScope, pages: Iterator[bytes], context: bytes
    ) -> AsyncIterator[bytes]:
        """Sealed pages, each as soon as there is credit and room for it, and while the auditor may have it."""
        key = hello.payload.reply_key
        sealed = (seal(key, page, context=context) for page in pages)
        async with aclosing(read_ahead(sealed)) as ahead:
            async for page in ahead:
                while entry.credit <= 0:
                    entry.more.clear()
                    await entry.more.wait()
                await entry.stream.outbox.room()
                self._check_auditor(entry, hello, scope)
                yield page

    # ------------------------------------------------------------------------------------- who may ask

    def _hello(self, entry: _OpenCall, request: Request) -> Signed[pb.Hello]:
        root = self._identity.root
        hello = check_relayed_hello(request.hello, node=root, federation=self._identity.federation, now=self._clock())
        entry.caller = hello.payload.signer.key
        if request.ledger != root:
            raise _refused(Reason.NOT_FOUND, "ledger", "this node keeps its own ledger alone.")
        return hello

    def _check_hashes_for(self, entry: _OpenCall, cert: Signed[pb.KeyCert], request: Request) -> None:
        """Whether the caller may have checkpoints and proofs: the stream's own broker, or an auditor."""
        hello = self._hello(entry, request)
        if hello.payload.kind != pb.PRINCIPAL_KIND_BROKER:
            self._scope(entry, hello)
            return
        signer = hello.payload.signer
        if (signer.root, signer.key) != (entry.stream.broker, cert.payload.signing_key):
            raise _refused(Reason.NOT_ALLOWED, "hello.signer", "not the broker that this node is attached to.")

    def _auditor(
        self, entry: _OpenCall, request: auditor_pb2.FetchEntriesRequest | auditor_pb2.FetchStatementsRequest
    ) -> tuple[Signed[pb.Hello], pb.AuditScope]:
        """Who is to be answered, and by which scope."""
        hello = self._hello(entry, request)
        scope = self._scope(entry, hello)
        if not hello.payload.reply_key:
            raise MalformedError("expected a key to seal to.", field="hello.reply_key")
        parse_sealing_key(hello.payload.reply_key, "hello.reply_key")
        return hello, scope

    def _scope(self, entry: _OpenCall, hello: Signed[pb.Hello]) -> pb.AuditScope:
        """The scope of an admitted auditor, which includes this node.

        Raises:
            RefusedError: says why she is none, or that this node may not tell.
        """
        payload = hello.payload
        if payload.kind != pb.PRINCIPAL_KIND_AUDITOR:
            raise _refused(Reason.NOT_ALLOWED, "hello.kind")
        if not entry.stream.is_fit():
            raise _refused(Reason.NO_LEASE, "")
        standing = self._recording.facts.standing(payload.signer.root)
        reason = auditor_reason(standing, payload.signer, self._clock())
        if standing is None or reason != Reason.ALLOWED:
            raise _refused(reason, "hello.signer")
        scope = scope_of(standing)
        if not may_read(self._identity.root, scope, broker=b""):
            raise _refused(Reason.NOT_ALLOWED, "ledger", "this node is outside the auditor's scope.")
        return scope

    def _check_auditor(self, entry: _OpenCall, hello: Signed[pb.Hello], scope: pb.AuditScope) -> None:
        """Raises unless she may go on."""
        if self._scope(entry, hello) != scope:
            raise _refused(Reason.NOT_ALLOWED, "hello.signer.root", "the auditor's scope has changed: fetch again.")

    # ------------------------------------------------------------------------------------- replies

    def _send(self, entry: _OpenCall, reply: node_pb2.LedgerReply, sealed: int) -> None:
        entry.credit -= reply.ByteSize()
        entry.stream.put(node_pb2.NodeFrame(ledger=reply), sealed=sealed)

    def _reply(self, stream: BrokerStream, reply: node_pb2.LedgerReply) -> None:
        stream.put(node_pb2.NodeFrame(ledger=reply))

    def _refuse(self, entry: _OpenCall, kind: str, call: node_pb2.LedgerCall, error: PermslipError) -> None:
        if isinstance(error, AuthorityError):
            error = _refused(Reason.HELLO_REFUSED, "hello.broker", error.message)
        reason = reason_of(error)
        self._reply(entry.stream, node_pb2.LedgerReply(call_id=entry.call_id, refusal=refusal_of(error), last=True))
        if not self._refusals.may_record():
            return
        _log.warning("ledger_call_refused", call=kind, reason=reason.name, why=error.message)
        if is_internal(error):
            return
        body = ledger_pb2.RequestRefused(
            reason=reason.wire,
            field=str(getattr(error, "field", ""))[:128],
            method=_METHODS.get(kind, "Attach.ledger"),
            request_sha256=sha256(call.SerializeToString(deterministic=True)).digest(),
            caller=entry.caller,
        )
        try:
            appended = self._recording.ledger.submit(Draft("request_refused", body, despite_clock=True))
        except PermslipError as failure:
            _log.error("refusal_not_recorded", why=str(failure))
            return
        appended.add_done_callback(self._recorded)

    def _recorded(self, done: asyncio.Future[list[Recorded]]) -> None:
        if done.cancelled():
            return
        if (error := done.exception()) is not None:
            _log.error("refusal_not_recorded", why=str(error))
        else:
            self._recording.committed(done.result())


def _refused(reason: Reason, field: str, message: str = "") -> RefusedError:
    return RefusedError(message or reason.meaning, code=reason.name, field=field, remedy=reason.remedy)

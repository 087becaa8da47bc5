"""What this node's own ledger says about one slice, told to a guardian who asks through a broker.

So a parent has a second witness of each access to her child's data, and knows where the chain ends: the node says so
itself, in a signed ``ChainEnd`` about the very greeting that asked. All of it is sealed to that greeting's reply key:
the broker carries it and cannot read it.

Rules:

- The broker has checked the greeting too; that counts for nothing here. This node checks its signature, that it is
  meant for this node, its age by its own clock, and by its own roster who asks (:mod:`permslip_node.slice_sight`).
- A page is at most 256 entries and a mebibyte of them, each with its proof against one signed checkpoint.
- What ``ChainEnd`` says was true of the ledger at the size that it names, and that checkpoint is of this size.
- Refusals are entries of the ledger, as many in a second as an outsider may cause.

Example::

    reply = await slice_answers.answer(call)
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from hashlib import sha256
from typing import Final

from sqlalchemy import Engine

from permslip import statements as st
from permslip._pb.permslip.v1 import guardian_pb2, ledger_pb2, node_pb2, statement_pb2 as pb
from permslip.bounds import check_bounds
from permslip.checkpoints import Checkpoint, sign_checkpoint
from permslip.errors import AuthorityError, MalformedError, PermslipError, RefusedError
from permslip.greeting import check_relayed_hello
from permslip.hosting.database import reading
from permslip.hosting.drafts import Draft, Recorded
from permslip.hosting.ledger_reading import SliceEntry, SqlHashes
from permslip.hosting.logs import get_log
from permslip.hosting.refusals import is_internal, reason_of, refusal_of
from permslip.merkle import root_at
from permslip.notes import Ed25519Signer
from permslip.quantities import Millis
from permslip.reasons import Reason
from permslip.sealing import seal
from permslip.slice_chains import chain_context
from permslip.statements import Signed
from permslip_node import schema
from permslip_node.identity import Identity
from permslip_node.recording import Recording
from permslip_node.slice_sight import sight_of

__all__ = ["MOST_ENTRIES", "SliceAnswers"]

_log = get_log(__name__)

MOST_ENTRIES: Final = 256
_MOST_BYTES: Final = 1 << 20
# An answer comes within minutes of its decision; so many entries back it is looked for.
_LOOK_BACK: Final = 256
_REFUSALS_PER_SECOND: Final = 10
_PERSONS: Final = frozenset({pb.PRINCIPAL_KIND_GUARDIAN, pb.PRINCIPAL_KIND_LEARNER})


class SliceAnswers:
    """Answers guardians who ask what this node's ledger says about a slice. Belongs to one event loop.

    Args:
        identity: who signs.
        engine: the node's database.
        recording: its ledger and its facts.
        origin: the ledger's name in checkpoints.
        default_rule: quorum rule of learners who have none of their own.
        clock: UTC milliseconds now.
    """

    def __init__(
        self,
        identity: Identity,
        engine: Engine,
        recording: Recording,
        *,
        origin: str,
        default_rule: str,
        clock: Callable[[], Millis],
    ) -> None:
        self._identity, self._engine, self._recording = identity, engine, recording
        self._origin, self._default_rule, self._clock = origin, default_rule, clock
        self._second = 0.0
        self._refusals = 0

    async def answer(self, call: node_pb2.LedgerCall) -> node_pb2.LedgerReply:
        """The reply to a call with ``slice`` set; a refusal where it may not be answered."""
        caller = b""
        try:
            # (1) the request is within its bounds, and about a slice of this node
            check_bounds(call, "call")
            request = call.slice
            if request.slice.node != self._identity.root:
                raise AuthorityError("the slice is another node's.")
            # (2) the greeting: signed, for this node, young, with a key to seal to
            hello = self._believed(request.hello)
            caller = hello.payload.signer.key
            _check_caller(hello.payload)
            # (3) to (5) in the database's own thread: who may see what, the entries, the end
            told = await asyncio.to_thread(self._read, request, hello)
            # (6) sealed to the key that stands under the greeting's signature
            sealed = seal(hello.payload.reply_key, told, context=chain_context(hello.id))
        except PermslipError as error:
            return self._refuse(call, error, caller)
        return node_pb2.LedgerReply(call_id=call.call_id, sealed_slice=sealed, last=True)

    def _believed(self, envelope: pb.Envelope) -> Signed[pb.Hello]:
        try:
            return check_relayed_hello(
                envelope, node=self._identity.root, federation=self._identity.federation, now=self._clock()
            )
        except PermslipError as error:
            raise _refused(Reason.HELLO_REFUSED, str(getattr(error, "field", ""))) from error

    def _read(self, request: guardian_pb2.ReadNodeLedgerRequest, hello: Signed[pb.Hello]) -> bytes:
        node, handle = self._identity.root, request.slice.handle
        # (3) by the roster: what she may see; refused alike for a handle that is none
        with reading(self._engine) as connection:
            sight = sight_of(
                connection,
                self._recording.facts,
                node=node,
                handle=handle,
                key=hello.payload.signer.key,
                default_rule=self._default_rule,
                now=self._clock(),
            )
        # (4) where the chain ends, and a checkpoint of a size at which it did
        end, size = self._end(handle)
        limit = min(request.limit or MOST_ENTRIES, MOST_ENTRIES)
        entries = self._page(handle, request.after, min(limit, max(end.seq - request.after, 0)) if end else 0)
        before: list[SliceEntry] = []
        if entries and not sight.everything:
            earlier = max(0, request.after - _LOOK_BACK)
            before = self._recording.ledger.slice_entries(node, handle, earlier, request.after - earlier)
        shown = sight.shown(entries, before=before)
        told = guardian_pb2.SliceLedger(checkpoint=ledger_pb2.SignedCheckpoint(note=self._checkpoint(size)))
        for entry in entries:
            leaf = entry.leaf if entry.seq in shown else None
            told.entries.add(position=entry.position, leaf_hash=entry.leaf_hash, leaf=leaf or b"")
            hashes = self._recording.ledger.inclusion_proof(entry.position, size)
            told.proofs.add(position=entry.position, size=size, hashes=hashes)
        # (5) the node's own word on it, about this greeting
        payload = pb.ChainEnd(
            federation=self._identity.federation,
            nonce=os.urandom(16),
            created_at=self._clock(),
            signer=self._identity.signer,
            hello_id=hello.id,
            slice=request.slice,
            slice_seq=end.seq if end else 0,
            leaf_hash=end.leaf_hash if end else b"",
            ledger_size=size,
        )
        told.chain_end.CopyFrom(self._identity.sign(st.CHAIN_END, payload).envelope)
        return told.SerializeToString()

    def _end(self, handle: bytes) -> tuple[SliceEntry | None, int]:
        """The chain's last entry, and a size of the ledger at which it was the last."""
        ledger, node = self._recording.ledger, self._identity.root
        seen = ledger.slice_end(node, handle)
        size = ledger.read_head().size
        end = ledger.slice_end(node, handle)
        if end is not None and (seen is None or seen.seq != end.seq):
            return end, end.position + 1
        return end, size

    def _page(self, handle: bytes, after: int, limit: int) -> list[SliceEntry]:
        entries = self._recording.ledger.slice_entries(self._identity.root, handle, after, limit) if limit else []
        total = 0
        for count, each in enumerate(entries):
            total += len(each.leaf or b"")
            if total > _MOST_BYTES and count:
                return entries[:count]
        return entries

    def _checkpoint(self, size: int) -> bytes:
        with reading(self._engine) as connection:
            root = root_at(SqlHashes(connection, schema.LEDGER), size)
        return sign_checkpoint(Checkpoint(self._origin, size, root), [Ed25519Signer(self._origin, self._identity.key)])

    def _refuse(self, call: node_pb2.LedgerCall, error: PermslipError, caller: bytes) -> node_pb2.LedgerReply:
        if isinstance(error, AuthorityError):
            error = _refused(Reason.NOT_ALLOWED, str(getattr(error, "field", "")))
        reason = reason_of(error)
        _log.info("slice_not_told", reason=reason.name, detail=str(error))
        now = time.monotonic()
        if now - self._second >= 1:
            self._second, self._refusals = now, 0
        self._refusals += 1
        if not is_internal(error) and self._refusals <= _REFUSALS_PER_SECOND:
            body = ledger_pb2.RequestRefused(
                reason=reason.wire,
                field=str(getattr(error, "field", ""))[:128],
                method="ReadNodeLedger",
                request_sha256=sha256(call.slice.SerializeToString(deterministic=True)).digest(),
                caller=caller,
            )
            self._append(Draft("request_refused", body, despite_clock=True))
        refusal = refusal_of(error)
        refusal.code = reason.wire
        return node_pb2.LedgerReply(call_id=call.call_id, refusal=refusal, last=True)

    def _append(self, draft: Draft) -> None:
        try:
            future = self._recording.ledger.submit(draft)
        except PermslipError as error:
            _log.error("refusal_not_recorded", why=str(error))
            return
        future.add_done_callback(_consumed)


def _check_caller(hello: pb.Hello) -> None:
    """A person, with a key to seal to."""
    if not hello.reply_key:
        raise MalformedError("expected a key to seal to.", field="hello.reply_key")
    if hello.kind not in _PERSONS or hello.signer.root != hello.signer.key:
        raise _refused(Reason.NOT_ALLOWED, "hello.kind")


def _consumed(future: asyncio.Future[list[Recorded]]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        _log.error("refusal_not_recorded", why=str(error))


def _refused(reason: Reason, field: str = "") -> RefusedError:
    return RefusedError(reason.meaning, code=reason.name, field=field, remedy=reason.remedy)

"""Calls that a node answers about its own ledger: an auditor's, a guardian's, or this broker's own.

A call goes down the node's stream as a ``LedgerCall``; its answers come up as ``LedgerReply`` frames with the same
number. The broker carries them and reads nothing: entries and statements are sealed to who asked.

Rules:

- A node answers what it was asked, in the kind it was asked, and nothing after its last reply. Whatever else it sends
  is dropped; a reply of another kind ends its call.
- What a node sends ahead of who takes it is bounded: it has :data:`~permslip.hosting.ledger_pages.CALL_WINDOW` bytes
  of credit for each call, and gets more as they are taken. A node that sends more than that loses the call.
- So many calls for one node at once, fewer of one caller, and a place that no stream takes: short calls always get
  their turn. So long without a word from the node. A node that detaches ends its calls, and who asked is told
  ``UNREACHABLE``.
- Whoever stops listening has the node told so (``Cancel`` with the call's number).

Example::

    reply = await calls.ask(root, node_pb2.LedgerCall(checkpoint=request), caller=auditor)
    async for reply in calls.stream(root, node_pb2.LedgerCall(entries=request), caller=auditor, most=1_000):
        yield reply.entries
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from permslip._pb.permslip.v1 import node_pb2, provider_pb2, session_pb2
from permslip.bounds import check_bounds
from permslip.errors import MalformedError, PermslipError, RefusedError, TimedOutError
from permslip.hosting.ledger_pages import CALL_WINDOW
from permslip.hosting.logs import get_log
from permslip.reasons import Reason
from permslip_broker.attachments import AttachedNode, Attachments

__all__ = ["OWN", "LedgerCalls"]

_log = get_log(__name__)

MOST_FOR_ONE_NODE: Final = 4
MOST_STREAMS: Final = 3
MOST_OF_ONE_CALLER: Final = 2
# The broker's own calls keep a place, however many others ask.
MOST_OWN: Final = 2

OWN: Final = b""
"""The caller where this broker asks for itself."""

_SECONDS: Final = 1_000

# Which reply answers which call.
_REPLIES: Final = {
    "checkpoint": "checkpoint",
    "entries": "entries",
    "statements": "statements",
    "proofs": "proofs",
    "slice": "sealed_slice",
}


@dataclass(eq=False, slots=True)
class _OpenCall:
    """One call, from its frame to its end."""

    call_id: bytes
    node: AttachedNode
    kind: str
    caller: bytes
    most: int
    is_stream: bool
    replies: deque[node_pb2.LedgerReply] = field(default_factory=deque)
    waiting: int = 0
    came: int = 0
    ended: bool = False
    failed: PermslipError | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def end(self, failed: PermslipError | None = None) -> None:
        """Nothing more comes."""
        if not self.ended:
            self.ended, self.failed = True, failed
            self.changed.set()


class LedgerCalls:
    """The calls that are open. Belongs to the event loop.

    Args:
        attachments: the nodes' streams.
        within: seconds that a node may be silent while an answer is due.
    """

    def __init__(self, attachments: Attachments, *, within: float) -> None:
        self._attachments, self._within = attachments, within
        self._calls: dict[bytes, _OpenCall] = {}
        attachments.on_detach(self._detached)

    async def ask(self, root: bytes, call: node_pb2.LedgerCall, *, caller: bytes) -> node_pb2.LedgerReply:
        """Make a call that one reply answers.

        Args:
            root: the node.
            call: what is asked; its ``call_id`` is set here.
            caller: whom it is for, by a key; :data:`OWN` where this broker asks for itself.

        Raises:
            RefusedError: the node said no; ``UNREACHABLE``: it is not attached; ``BUSY``: too much is asked of it.
            TimedOutError: it said nothing in time.
            MalformedError: it answered something else.
        """
        replies = self._replies(root, call, caller=caller, most=1, is_stream=False, patient=False)
        try:
            return await anext(replies)
        except StopAsyncIteration:
            raise MalformedError("the node ended its answer without one.", field="ledger.reply") from None
        finally:
            await replies.aclose()

    async def stream(
        self, root: bytes, call: node_pb2.LedgerCall, *, caller: bytes, most: int, follow: bool = False
    ) -> AsyncGenerator[node_pb2.LedgerReply, None]:
        """Make a call that several replies answer; arguments and errors as for :meth:`ask`.

        Args:
            most: so many replies at most; a node that sends more has its call ended.
            follow: the answer has no end; the node may be silent for as long as nothing happens.
        """
        replies = self._replies(root, call, caller=caller, most=most, is_stream=True, patient=follow)
        async with aclosing(replies):
            async for reply in replies:
                yield reply

    async def _replies(
        self, root: bytes, call: node_pb2.LedgerCall, *, caller: bytes, most: int, is_stream: bool, patient: bool
    ) -> AsyncGenerator[node_pb2.LedgerReply, None]:
        entry = self._open(root, call, caller=caller, most=most, is_stream=is_stream)
        try:
            while True:
                await self._next(entry, patient=patient)
                if not entry.replies:
                    return
                reply = entry.replies.popleft()
                size = reply.ByteSize()
                entry.waiting -= size
                yield reply
                if not entry.ended:
                    credit = provider_pb2.Credit(query_id=entry.call_id, bytes=size)
                    entry.node.outbox.put(node_pb2.BrokerFrame(credit=credit))
        finally:
            del self._calls[entry.call_id]
            if not entry.ended:
                entry.node.outbox.put(node_pb2.BrokerFrame(cancel=provider_pb2.Cancel(query_id=entry.call_id)))

    def answered(self, node: AttachedNode, reply: node_pb2.LedgerReply) -> None:
        """A node's reply; one that nobody waits for is dropped."""
        check_bounds(reply, "ledger")
        entry = self._calls.get(reply.call_id)
        if entry is None or entry.node is not node or entry.ended:
            return
        which = reply.WhichOneof("reply")
        if which == "refusal":
            entry.end(_refused(reply.refusal))
            return
        entry.came += 1
        if which not in {None, _REPLIES[entry.kind]} or (which is None and not reply.last):
            self._misbehaved(entry, "it answered something else than it was asked")
        elif entry.waiting >= CALL_WINDOW:
            self._misbehaved(entry, "it sent more than it has credit for")
        elif entry.came > entry.most + 1:
            self._misbehaved(entry, "it sent more than there can be")
        else:
            if not _is_empty(reply, which):
                entry.waiting += reply.ByteSize()
                entry.replies.append(reply)
                entry.changed.set()
            if reply.last:
                entry.end()

    def _open(self, root: bytes, call: node_pb2.LedgerCall, *, caller: bytes, most: int, is_stream: bool) -> _OpenCall:
        node = self._attachments.get(root)
        if node is None:
            raise _reason(Reason.UNREACHABLE, "the node is not attached.")
        self._check_room(node, caller, is_stream=is_stream)
        call_id = os.urandom(16)
        sent = node_pb2.LedgerCall()
        sent.CopyFrom(call)
        sent.call_id = call_id
        entry = _OpenCall(call_id, node, str(sent.WhichOneof("call")), caller, most, is_stream)
        self._calls[call_id] = entry
        node.outbox.put(node_pb2.BrokerFrame(ledger=sent), sent.ByteSize())
        return entry

    def _check_room(self, node: AttachedNode, caller: bytes, *, is_stream: bool) -> None:
        """Raises unless there is a place for one more call."""
        at_node = [each for each in self._calls.values() if each.node is node]
        of_caller = sum(each.caller == caller for each in at_node)
        if caller == OWN:
            if of_caller >= MOST_OWN:
                raise _reason(Reason.BUSY, "this broker is asking this node already.")
            return
        if of_caller >= MOST_OF_ONE_CALLER:
            raise _reason(Reason.BUSY, "you are reading this node's ledger already.")
        others = [each for each in at_node if each.caller != OWN]
        if len(others) >= MOST_FOR_ONE_NODE or (is_stream and sum(each.is_stream for each in others) >= MOST_STREAMS):
            raise _reason(Reason.BUSY, "others are reading this node's ledger.")

    async def _next(self, entry: _OpenCall, *, patient: bool) -> None:
        """Wait until there is a reply, or none will come."""
        while not entry.replies:
            if entry.ended:
                if entry.failed is not None:
                    raise entry.failed
                return
            entry.changed.clear()
            try:
                async with asyncio.timeout(None if patient else self._within):
                    await entry.changed.wait()
            except TimeoutError:
                raise TimedOutError("the node did not answer in time.", remedy="Try again later.") from None

    def _misbehaved(self, entry: _OpenCall, what: str) -> None:
        _log.warning("ledger_call_ended", node=entry.node.root.hex(), call=entry.kind, why=what)
        entry.replies.clear()
        entry.node.outbox.put(node_pb2.BrokerFrame(cancel=provider_pb2.Cancel(query_id=entry.call_id)))
        entry.end(MalformedError(f"the node's answer cannot be used: {what}.", field="ledger.reply"))

    def _detached(self, node: AttachedNode) -> None:
        for entry in list(self._calls.values()):
            if entry.node is node:
                entry.end(_reason(Reason.UNREACHABLE, "the node's connection ended."))


def _is_empty(reply: node_pb2.LedgerReply, which: str | None) -> bool:
    """Whether it only says that nothing more comes."""
    return which is None or (which in {"entries", "statements"} and not getattr(reply, which).ByteSize())


def _refused(refusal: session_pb2.Refusal) -> RefusedError:
    known = {each.wire for each in Reason}
    reason = Reason(refusal.code) if refusal.code in known else Reason.INTERNAL
    return RefusedError(
        refusal.message or reason.meaning,
        code=reason.name,
        field=refusal.field,
        remedy=refusal.remedy or reason.remedy,
        retry_after=refusal.retry_after / _SECONDS,
    )


def _reason(reason: Reason, message: str) -> RefusedError:
    return RefusedError(message, code=reason.name, remedy=reason.remedy, retry_after=1.0)

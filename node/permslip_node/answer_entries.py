"""The ledger's entries of how answers ended, appended behind the answers: nobody waits for them.

Example::

    entries.answered(answer, Reason.ALLOWED)
    await entries.settled()
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from sqlalchemy import Connection

from permslip import dsse
from permslip._pb.permslip.v1 import ledger_pb2, statement_pb2 as pb
from permslip.errors import PermslipError
from permslip.hosting.drafts import Draft, Recorded
from permslip.hosting.logs import get_log, query_text
from permslip.hosting.refusals import reason_of
from permslip.quantities import Position
from permslip.reasons import Reason
from permslip_node.open_answers import OpenAnswer
from permslip_node.recording import Recording
from permslip_node.refusal_budget import RefusalBudget
from permslip_node.uses import close_answer

__all__ = ["AnswerEntries"]

_log = get_log(__name__)

# They ride on the next decision's commit, and wait for one so many seconds at most: a flush of the disk for each would
# be taken from the answers themselves.
SOON: Final = 0.05


class AnswerEntries:
    """Appends entries in the background. Belongs to one event loop.

    Args:
        recording: where to.
        node: this node's root.
    """

    def __init__(self, recording: Recording, node: bytes) -> None:
        self._recording, self._node = recording, node
        self._open: set[asyncio.Future[list[Recorded]]] = set()
        self._gathered: list[tuple[Draft, bytes]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._broken_off: set[bytes] = set()
        self.refusals = RefusalBudget("queries")
        """Shared by whatever is refused of what a broker may have made up or repeated."""

    def answered(self, answer: OpenAnswer, reason: Reason) -> None:
        """What became of an allowed query."""
        query_id, grant = answer.query.id, answer.facts.grant
        body = ledger_pb2.AccessAnswered(
            query_id=query_id,
            reason=reason.wire,
            manifest_sha256=answer.manifest_sha256 if reason == Reason.ALLOWED else b"",
            sealed_bytes=answer.released,
        )
        released = answer.released
        if reason != Reason.ALLOWED:
            self._broken_off.add(query_id)

        def close(connection: Connection, _position: Position) -> None:
            close_answer(connection, query_id, reason=reason, released=released)

        draft = Draft(
            "access_answered",
            body,
            slice=(self._node, grant.payload.slice.handle) if grant is not None else None,
            write=close if answer.is_counted else None,
            evidence=answer.manifest if reason == Reason.ALLOWED else b"",
            despite_clock=True,
        )
        if draft.write is not None:
            # It may fail by itself, so it goes by itself.
            self._append([(draft, query_id)])
            return
        self._gathered.append((draft, query_id))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SOON, self.append_gathered)

    def append_gathered(self) -> None:
        """Append the ends that wait: called right behind another append, they share its commit."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        gathered, self._gathered = self._gathered, []
        if gathered:
            self._append(gathered)

    def broke_off(self, query_id: bytes) -> bool:
        """Whether an answer ended early, and the entry that says so is not on the disk yet."""
        return query_id in self._broken_off

    def refused_request(self, envelope: pb.Envelope, error: PermslipError) -> None:
        """A query that could not even be decided."""
        if not self.refusals.may_record():
            return
        query_id = dsse.statement_id(envelope.payload_type, envelope.payload)
        _log.warning("query_not_believed", query_id=query_text(query_id), why=error.message)
        body = ledger_pb2.RequestRefused(
            reason=reason_of(error).wire,
            field=str(getattr(error, "field", ""))[:128],
            method="Attach.query",
            request_sha256=sha256(envelope.SerializeToString(deterministic=True)).digest(),
        )
        self._append([(Draft("request_refused", body, despite_clock=True), b"")])

    async def settled(self) -> None:
        """Wait until everything is on the disk."""
        self.refusals.tell()
        self.append_gathered()
        if self._open:
            await asyncio.wait(self._open)

    def _append(self, entries: Sequence[tuple[Draft, bytes]]) -> None:
        query_ids = [query_id for _, query_id in entries]
        try:
            future = self._recording.ledger.submit(*(draft for draft, _ in entries))
        except PermslipError as error:
            self._broken_off.difference_update(query_ids)
            _log.error("entries_lost", query_ids=[query_text(each) for each in query_ids], error=error.message)
            return
        self._open.add(future)
        future.add_done_callback(lambda done: self._appended(done, query_ids))

    def _appended(self, future: asyncio.Future[list[Recorded]], query_ids: Sequence[bytes]) -> None:
        self._open.discard(future)
        self._broken_off.difference_update(query_ids)
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            self._recording.committed(future.result())
        else:
            _log.error("entries_lost", query_ids=[query_text(each) for each in query_ids], exc_info=error)

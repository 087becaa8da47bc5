"""One open answer: verified as it arrives, within the memory it was given, ended exactly once.

Rules:

- Nothing is handed out before the opening verified, and nothing is called whole before the manifest did, whose digest
  the outcome names.
- A section that was not granted is refused, even where the node itself releases it: it would stand in no consent.
- Room is given back (``Credit``) as chunks are opened. Who sends more than there is room for is cut off.
- A signing key that is not known is asked for once; then it is known or refused.
- What is collected is held in memory, so it has a bound; what is streamed is not held.
- A *collecting* answer opens each piece as it comes; a *streaming* one only when its reader asks for more.

Example::

    ending = await answer.ending                  # collecting
    async for record in answer.records(): ...     # streaming; answer.ending is done afterwards
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, TypeAlias

from permslip._pb.permslip.v1 import provider_pb2, record_pb2, statement_pb2 as pb
from permslip.bounds import check_bounds
from permslip.client.failures import error_of_refusal, reason_of_code
from permslip.directory import Directory
from permslip.errors import (
    KeyRejectedError,
    MalformedError,
    PermslipError,
    RefusedError,
    SealError,
    TimedOutError,
    TooLargeError,
    UnavailableError,
    VerificationError,
)
from permslip.keys import SealingKey
from permslip.quantities import Millis
from permslip.reasons import Reason
from permslip.sections import expand
from permslip.slices import SliceReader
from permslip.statements import Signed

__all__ = ["Ending", "OpenAnswer"]

_Item: TypeAlias = pb.Envelope | bytes | provider_pb2.Outcome
# A node ends a chunk that it began, so it may be one chunk ahead of its credit; the broker holds it to two.
_OVERSHOOT: Final = 2 * 66_048
_LEAST_WINDOW: Final = 66_048


@dataclass(frozen=True, slots=True)
class Ending:
    """How an answer ended.

    Attributes:
        reason: ``ALLOWED`` when the slice is whole.
        records: of a whole slice that was collected.
        manifest: of a whole slice.
        sections: sections' own verdicts, where a refusal told them.
        error: what a caller is told; None when the slice is whole.
        is_fault: what came must not be believed.
        lost: the stream broke; asking again makes sense.
        released: sealed bytes had arrived.
        retry_after: seconds after which asking again makes sense; 0 when it does not.
    """

    reason: Reason
    records: tuple[record_pb2.Record, ...] = ()
    manifest: Signed[pb.Manifest] | None = None
    sections: Mapping[str, Reason] = field(default_factory=dict)
    error: PermslipError | None = None
    is_fault: bool = False
    lost: bool = False
    released: bool = False
    retry_after: float = 0.0


class OpenAnswer:
    """The answer to one query, while it arrives.

    Args:
        query: as it was sent.
        reply_key: the pair of its reply key.
        node: root key of the node that the grant names.
        directory: who is who.
        learn: asks again about an organization.
        now: the clock.
        window: sealed bytes for which there is room.
        give_room: sends a credit of so many bytes.
        gone: told once, when it ended; whether the broker must be told.
        granted: the leaves that the grant covers; a node that releases others is not believed.
        streaming: hand records out as they are asked for.
        most: sealed bytes that a collecting answer may have; a streaming one keeps nothing.
    """

    def __init__(
        self,
        query: Signed[pb.Query],
        reply_key: SealingKey,
        *,
        node: bytes,
        directory: Directory,
        learn: Callable[[bytes], Awaitable[None]],
        now: Callable[[], Millis],
        window: int,
        give_room: Callable[[OpenAnswer, int], None],
        gone: Callable[[OpenAnswer, bool], None],
        granted: Collection[str],
        streaming: bool = False,
        most: int | None = None,
    ) -> None:
        self.query = query
        self.received = 0
        """Sealed bytes that arrived."""
        self._most = most
        self.ending: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._released_may_be = frozenset(expand(query.payload.sections)).intersection(granted)
        self._node, self._learn = node, learn
        self._reader = SliceReader(
            query,
            reply_key,
            node=node,
            check_signer=lambda signer: directory.check_signer(signer, kind=pb.PRINCIPAL_KIND_NODE, at=now()),
        )
        self._window = max(window, _LEAST_WINDOW)
        self._give_room, self._gone = give_room, gone
        self._streaming = streaming
        self._items: deque[_Item] = deque()
        self._held = self._opened = 0
        self._released = False
        self._records: list[record_pb2.Record] = []
        self._learned = False
        self._learning: asyncio.Task[None] | None = None
        self._more = asyncio.Event()

    # ----------------------------------------------------------------------------------- what arrives

    def feed(self, piece: provider_pb2.Answer) -> None:
        """Take a piece, as the stream's reader hands it on."""
        if self.ending.done():
            return
        try:
            check_bounds(piece, "answer")
        except MalformedError as error:
            self._fault(error)
            return
        if piece.HasField("opening"):
            self._items.append(piece.opening)
        if piece.chunks:
            self._items.extend(piece.chunks)
            size = sum(map(len, piece.chunks))
            self._held += size
            self.received += size
            self._released = True
        if piece.HasField("outcome"):
            self._items.append(piece.outcome)
        if self._most is not None and self.received > self._most:
            self._refuse_size()
        elif self._held > self._window + _OVERSHOOT:
            self._fault(MalformedError("more bytes came than there is room for.", field="answer.chunks"))
        elif self._streaming:
            self._more.set()
        elif self._learning is None:
            self._collect()

    def _refuse_size(self) -> None:
        error = TooLargeError(
            "the node's answer is larger than max_answer_bytes allows.",
            remedy="Ask for fewer sections or days, read it with records(), or allow more.",
        )
        self._end(Ending(Reason.TOO_LARGE, error=error, released=self._released), tell=True)

    def lose(self, error: PermslipError) -> None:
        """The stream broke, or the broker ended it."""
        if isinstance(error, RefusedError):
            reason = Reason.__members__.get(error.code, Reason.INTERNAL)
            self._end(Ending(reason, error=error, released=self._released))
        else:
            self._end(Ending(Reason.UNREACHABLE, error=error, lost=True, released=self._released))

    def time_out(self) -> None:
        """Its time is over."""
        reason = Reason.TIMED_OUT
        error = TimedOutError(reason.meaning, remedy=reason.remedy)
        self._end(Ending(reason, error=error, released=self._released), tell=True)

    def cancel(self) -> None:
        """Nobody reads it any more."""
        reason = Reason.CANCELLED
        error = UnavailableError(reason.meaning, remedy=reason.remedy)
        self._end(Ending(reason, error=error, released=self._released), tell=True)

    async def records(self) -> AsyncIterator[record_pb2.Record]:
        """The records of a streaming answer, each as soon as it is verified to be the node's.

        They are whole only if :attr:`ending` then says ``ALLOWED``.
        """
        while not self.ending.done():
            while self._items and not self.ending.done():
                try:
                    opened = self._step(self._items[0])
                except KeyRejectedError as error:
                    if self._learned:
                        self._fault(error)
                        break
                    await self._learn_signer()
                    continue
                except (VerificationError, MalformedError) as error:
                    self._fault(error)
                    break
                if self._items:
                    self._items.popleft()
                for record in opened:
                    yield record
            if not self.ending.done():
                self._more.clear()
                await self._more.wait()

    # -------------------------------------------------------------------------------------- verifying

    def _collect(self) -> None:
        while self._items and not self.ending.done():
            try:
                self._records += self._step(self._items[0])
            except KeyRejectedError as error:
                if self._learned:
                    self._fault(error)
                    return
                self._learning = asyncio.ensure_future(self._learn_signer())
                self._learning.add_done_callback(self._go_on)
                return
            except (VerificationError, MalformedError) as error:
                self._fault(error)
                return
            if self._items:
                self._items.popleft()

    def _step(self, item: _Item) -> list[record_pb2.Record]:
        """Verify one item; the records that it held."""
        if isinstance(item, bytes):
            return self._open(item)
        if isinstance(item, pb.Envelope):
            self._reader.open_with(item)
        else:
            self._finish(item)
        return []

    def _open(self, chunk: bytes) -> list[record_pb2.Record]:
        records = self._reader.read(chunk)
        for record in records:
            if record.section not in self._released_may_be:
                raise SealError("the node sent a record of a section that was not asked for, or not granted.")
        self._held -= len(chunk)
        self._opened += len(chunk)
        # Not in crumbs: each credit is a frame.
        if self._opened >= self._window // 4:
            self._give_room(self, self._opened)
            self._opened = 0
        return records

    def _finish(self, outcome: provider_pb2.Outcome) -> None:
        reason = reason_of_code(outcome.refusal.code)
        if reason != Reason.ALLOWED:
            told = ((each.section, reason_of_code(each.reason)) for each in outcome.sections)
            # Nothing came, so no section was allowed, whoever says so.
            own = {section: why for section, why in told if why != Reason.ALLOWED}
            self._end(
                Ending(
                    reason,
                    sections=own,
                    error=error_of_refusal(outcome.refusal),
                    released=self._released,
                    retry_after=outcome.refusal.retry_after / 1000 if outcome.refusal.retry_after > 0 else 0.0,
                )
            )
            return
        manifest = self._reader.finish()
        if sha256(manifest.raw).digest() != outcome.manifest_sha256:
            raise SealError("the outcome names another manifest than the one that came.")
        for each in manifest.payload.coverage:
            if each.reason == pb.REASON_ALLOWED and each.section not in self._released_may_be:
                raise SealError("the node says that it released a section that was not granted.")
        self._end(Ending(Reason.ALLOWED, tuple(self._records), manifest, released=True))

    async def _learn_signer(self) -> None:
        self._learned = True
        try:
            await self._learn(self._node)
        except UnavailableError as error:
            self._end(Ending(Reason.UNREACHABLE, error=error, released=self._released), tell=True)
        except PermslipError as error:
            self._fault(error)

    def _go_on(self, learning: asyncio.Task[None]) -> None:
        self._learning = None
        if not learning.cancelled():
            self._collect()

    # ----------------------------------------------------------------------------------------- ending

    def _fault(self, error: PermslipError) -> None:
        self._end(Ending(Reason.INTERNAL, error=error, is_fault=True, released=self._released), tell=True)

    def _end(self, ending: Ending, *, tell: bool = False) -> None:
        if self.ending.done():
            return
        self.ending.set_result(ending)
        self._items.clear()
        self._more.set()
        if self._learning is not None:
            self._learning.cancel()
        self._gone(self, tell)

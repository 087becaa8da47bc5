"""The node's ledger as the rest of the node uses it: append, let caches follow, send what is this node's own word.

Own statements (endorsements, acknowledgements, revocations) stand in ``outgoing`` from the transaction that records
them until each broker has confirmed them, so that neither a crash nor a broken stream loses one.

Rules:

- Whoever appends anything that changes facts appends it here, so that caches, open answers and brokers hear of it.
- A statement is sent only after its commit. Sending it twice is harmless: its id makes it one.

Example::

    draft = statement_draft(signed, subject=grant.id, slice_of=place, changes=(grant.id,), also=keep)
    await recording.append(draft, sends=[OwnWord(signed)])
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine, delete, select

from permslip._pb.permslip.v1 import ledger_pb2, statement_pb2 as pb
from permslip.hosting.database import reading, writing
from permslip.hosting.drafts import Draft, Recorded
from permslip.hosting.facts_projection import project
from permslip.hosting.facts_store import FactStore
from permslip.hosting.ledger import Ledger
from permslip.quantities import Position
from permslip.statements import Signed
from permslip_node import schema

__all__ = ["OnChange", "OwnWord", "Recording", "statement_draft", "write_outgoing"]

OnChange = Callable[[frozenset[bytes] | None], None]
"""Told which subjects changed; None: another process changed something."""

_PAGE: Final = 500
_T = TypeVar("_T")


class OwnWord:
    """A statement of this node that is being recorded; ``signed`` is the one that was, once the append returned."""

    __slots__ = ("signed",)

    def __init__(self, signed: Signed[Any] | None = None) -> None:
        self.signed = signed


class Recording:
    """Appends to the ledger and tells whom it concerns. Belongs to one event loop.

    Args:
        engine: the node's database.
        ledger: open for appending.
        facts: its caches.
        brokers: roots of the brokers that are told what this node says.
    """

    def __init__(self, engine: Engine, ledger: Ledger, facts: FactStore, brokers: Sequence[bytes]) -> None:
        self._engine = engine
        self.ledger = ledger
        self.facts = facts
        self._brokers = tuple(dict.fromkeys(brokers))
        self._on_change: list[OnChange] = []
        self._on_word: list[Callable[[Signed[Any]], None]] = []
        # Positions of this process's own changes since the last look for those of others.
        self._own_changes: set[int] = set()
        self._noticed = facts.position
        self._aside = ThreadPoolExecutor(1, thread_name_prefix="aside")

    def on_change(self, call: OnChange) -> None:
        """``call`` hears of changed subjects, right after the commit."""
        self._on_change.append(call)

    def on_word(self, call: Callable[[Signed[Any]], None]) -> None:
        """``call`` is given each own statement to send, right after its commit."""
        self._on_word.append(call)

    async def append(self, *drafts: Draft, sends: Iterable[OwnWord] = ()) -> list[Recorded]:
        """Append, then tell of it; errors as :meth:`permslip.hosting.ledger.Ledger.append`."""
        recorded = await self.ledger.append(*drafts)
        self.committed(recorded)
        for word in sends:
            if word.signed is not None:
                for call in self._on_word:
                    call(word.signed)
        return recorded

    def committed(self, recorded: Sequence[Recorded]) -> None:
        """Take note of what was appended through :attr:`ledger` directly."""
        self.facts.committed(recorded)
        changed = [each for each in recorded if each.draft.changes]
        if changed:
            self._own_changes.update(each.position for each in changed)
            changes = frozenset(subject for each in changed for subject in each.draft.changes)
            for call in self._on_change:
                call(changes)

    def notice(self) -> bool:
        """Look for what other processes changed; True when they did."""
        head, change = schema.LEDGER.log_head.c, schema.LEDGER.subject_change.c
        with reading(self._engine) as connection:
            size, last = connection.execute(select(head.size, head.change_position)).one()
            positions: set[int] = set()
            if last >= self._noticed:
                rows = connection.execute(select(change.position).where(change.position >= self._noticed))
                positions = {int(row.position) for row in rows}
        others = positions - self._own_changes
        self._noticed = size
        self._own_changes = {each for each in self._own_changes if each >= size}
        self.facts.catch_up()
        if not others:
            return False
        for call in self._on_change:
            call(None)
        return True

    @property
    def brokers(self) -> tuple[bytes, ...]:
        """Roots of the brokers that are told what this node says."""
        return self._brokers

    def unconfirmed(self, broker: bytes) -> list[pb.Envelope]:
        """What this broker has not confirmed yet, in the order in which it was recorded."""
        outgoing = schema.outgoing.c
        query = select(outgoing.envelope).where(outgoing.broker == broker).order_by(outgoing.position)
        with reading(self._engine) as connection:
            return [pb.Envelope.FromString(row.envelope) for row in connection.execute(query)]

    async def confirmed(self, broker: bytes, ids: Sequence[bytes]) -> None:
        """This broker has recorded these, or refused them for good."""
        await self.aside(self._delete, broker, ids)

    async def aside(self, work: Callable[..., _T], *arguments: Any) -> _T:
        """Do small writes that are no entry of the ledger in a thread of their own, one after the other."""
        return await asyncio.get_running_loop().run_in_executor(self._aside, work, *arguments)

    async def close(self) -> None:
        """Wait for what is being written aside; nothing more is taken."""
        await asyncio.to_thread(self._aside.shutdown)

    def _delete(self, broker: bytes, ids: Sequence[bytes]) -> None:
        outgoing = schema.outgoing
        with writing(self._engine) as connection:
            for start in range(0, len(ids), _PAGE):
                some = list(ids[start : start + _PAGE])
                connection.execute(
                    delete(outgoing).where(outgoing.c.broker == broker, outgoing.c.statement_id.in_(some))
                )


def statement_draft(
    signed: Signed[Any],
    *,
    subject: bytes,
    slice_of: tuple[bytes, bytes] | None,
    changes: tuple[bytes, ...],
    also: Callable[[Connection, Position], None] | None = None,
    push_number: int = 0,
) -> Draft:
    """The entry that records a statement: like :meth:`permslip.hosting.facts_store.FactStore.draft`, but without a look
    at any cache, so that it can be made in the ledger's own thread; its facts are not rechecked.

    Args:
        signed: admissible.
        subject: what it is about.
        slice_of: node root and handle, where it is about a slice.
        changes: the subjects of which something else holds after it.
        also: further writes in the same transaction.
        push_number: its number among a broker's pushes.
    """

    def write(connection: Connection, position: Position) -> None:
        project(connection, schema.FACTS, signed, position)
        if also is not None:
            also(connection, position)

    body = ledger_pb2.StatementRecorded(
        statement_id=signed.id,
        payload_type=signed.kind.payload_type,
        envelope_sha256=signed.sha256,
        subject=subject,
        push_number=push_number,
    )
    return Draft("statement_recorded", body, slice=slice_of, changes=changes, write=write)


def write_outgoing(connection: Connection, position: int, signed: Signed[Any], brokers: Iterable[bytes]) -> None:
    """Keep a statement for these brokers, in the transaction that records it."""
    rows = [
        {"broker": broker, "statement_id": signed.id, "position": position, "envelope": signed.raw}
        for broker in brokers
    ]
    if rows:
        connection.execute(schema.outgoing.insert(), rows)

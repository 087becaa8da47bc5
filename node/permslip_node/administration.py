"""What a node's operator does by hand, beside the running node or while it is down: suspend, reinstate, set a quorum
rule, hide guardians from one another, say when a learner comes of age, take a revocation that a parent brought.

Each is an entry of the node's own ledger, made by this process in the same database. A running node notices it within
``notice_ms``, stops what must stop, and tells the brokers; :meth:`Office.noticed` waits for that. While no node runs,
nothing can leave anyway; the brokers are told when it attaches again.

Example::

    async with open_office(settings) as office:
        entry = await office.suspend("604822", "2037")
        await office.noticed(entry, patience=5)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date
from typing import Final

from sqlalchemy import Connection, Engine

from permslip._pb.permslip.v1 import ledger_pb2, statement_pb2 as pb
from permslip.clock import system_clock
from permslip.errors import RefusedError
from permslip.hosting.database import reading, writing
from permslip.hosting.drafts import Recorded
from permslip.hosting.facts_store import FactStore
from permslip.hosting.ledger import Ledger
from permslip.quantities import Millis, Position
from permslip.reasons import Reason
from permslip.statements import Signed
from permslip_node import schema
from permslip_node.app import open_ledger, open_store
from permslip_node.configuration import NodeSettings
from permslip_node.endorsing import Endorser
from permslip_node.identity import Identity, load_identity
from permslip_node.instance import is_running, noticed
from permslip_node.majority import Majorities, NewDay, day_millis
from permslip_node.pushes import Pushes
from permslip_node.recording import Recording
from permslip_node.roster import (
    QUORUM_RULES,
    change_draft,
    find_family,
    find_learner,
    set_family_state,
    set_quorum,
    set_visibility,
)

__all__ = ["Done", "Office", "open_office"]

_LOOK_AGAIN_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Done:
    """What was done.

    Attributes:
        position: ledger size after it.
        endorsements: how many endorsements were judged again.
    """

    position: int
    endorsements: int = 0


class Office:
    """The operator's acts. Made by :func:`open_office`.

    Args:
        identity: who signs.
        engine: the node's database.
        ledger: its ledger, open in this process too.
        brokers: roots of the brokers to be told.
        default_rule: quorum rule of learners who have none of their own.
        clock: UTC milliseconds now.
    """

    def __init__(
        self,
        identity: Identity,
        engine: Engine,
        ledger: Ledger,
        brokers: tuple[bytes, ...],
        *,
        default_rule: str,
        clock: Callable[[], Millis],
    ) -> None:
        self._identity, self._engine, self._ledger, self._clock = identity, engine, ledger, clock
        facts = FactStore(engine, schema.FACTS, schema.LEDGER)
        self._recording = Recording(engine, ledger, facts, brokers)
        self._endorser = Endorser(identity, engine, self._recording, default_rule=default_rule, clock=clock)
        self._majorities = Majorities(identity.root, engine, self._recording, self._endorser, clock=clock)
        self._pushes = Pushes(identity, engine, self._recording, _nothing_runs_here, clock=clock)

    async def suspend(self, native_id: str, person_id: str) -> Done:
        """Suspend a person's authority over a learner: what she alone signed ends.

        Raises:
            RefusedError: there is no such learner, or the two are not linked.
        """
        return await self._set_family(
            native_id, person_id, ledger_pb2.AUTHORITY_CHANGE_SUSPENDED, suspended_at=self._clock()
        )

    async def reinstate(self, native_id: str, person_id: str) -> Done:
        """End a suspension. What ended by it stays ended: she signs anew.

        Raises:
            RefusedError: as :meth:`suspend`.
        """
        return await self._set_family(native_id, person_id, ledger_pb2.AUTHORITY_CHANGE_REINSTATED, suspended_at=0)

    async def quorum(self, native_id: str, rule: str) -> Done:
        """Set a learner's quorum rule.

        Raises:
            RefusedError: there is no such learner or rule.
        """
        if rule not in QUORUM_RULES:
            raise RefusedError(
                f"there is no quorum rule {rule!r}.",
                code="NOT_FOUND",
                remedy=f"Choose one of {', '.join(QUORUM_RULES)}.",
            )
        handle = self._learner(native_id)

        def write(connection: Connection, _position: Position) -> None:
            set_quorum(connection, handle, rule)

        change = change_draft(ledger_pb2.AUTHORITY_CHANGE_QUORUM, self._identity.root, handle, write)
        return _done(await self._endorser.review(handle, change))

    async def visibility(self, native_id: str, *, visible: bool) -> Done:
        """Set whether the guardians of a learner learn of one another: of what the other gave, and what was read by it.

        It changes nobody's authority, so it is no entry of the ledger; the endorsements that follow are.

        Raises:
            RefusedError: there is no such learner.
        """
        handle = self._learner(native_id)
        with writing(self._engine) as connection:
            set_visibility(connection, handle, visible=visible)
        recorded = await self._endorser.review(handle)
        return Done(self._ledger.read_head().size, len(recorded))

    async def majority(self, native_id: str, day: date | None) -> Done:
        """Say on which day a learner comes of age; None takes back what was said, and the next import says it.

        A day that has come ends at once what her guardians signed. One that is taken back gives authority back, and
        revives nothing.

        Raises:
            RefusedError: there is no such learner.
        """
        new = NewDay(day_millis(day), by_hand=True) if day is not None else NewDay(0, by_hand=False)
        recorded = await self._majorities.settle(self._learner(native_id), new)
        if not recorded:
            return Done(0)
        changes = sum(1 for each in recorded if each.draft.event == "authority_changed")
        return Done(max(each.position for each in recorded) + 1, len(recorded) - changes)

    async def revoke(self, envelope: pb.Envelope) -> tuple[Signed[pb.Acknowledgement], Done]:
        """Take a revocation that was brought by hand; it is in force when this returns.

        Raises:
            MalformedError: it is not a revocation of something that is known here.
            VerificationError: its signer may not revoke this.
        """
        acknowledgement = await self._pushes.revoke_here(envelope)
        return acknowledgement, Done(acknowledgement.payload.ledger_size)

    async def noticed(self, done: Done, *, patience: float) -> bool:
        """Wait until the running node has noticed; True at once where none runs, False when it did not in time."""
        for _ in range(max(int(patience / _LOOK_AGAIN_S), 1)):
            if noticed(self._engine) >= done.position or not is_running(self._engine, self._identity.root):
                return True
            await asyncio.sleep(_LOOK_AGAIN_S)
        return False

    async def close(self) -> None:
        """Finish what was begun."""
        await self._recording.close()
        await self._ledger.close()

    async def _set_family(
        self, native_id: str, person_id: str, change: ledger_pb2.AuthorityChange.ValueType, *, suspended_at: int
    ) -> Done:
        handle = self._learner(native_id)
        with reading(self._engine) as connection:
            salt = find_family(connection, handle, person_id)

        def write(connection: Connection, _position: Position) -> None:
            set_family_state(connection, handle, person_id, suspended_at=suspended_at)

        draft = change_draft(change, self._identity.root, handle, write, salt=salt, who=person_id.encode())
        return _done(await self._endorser.review(handle, draft))

    def _learner(self, native_id: str) -> bytes:
        with reading(self._engine) as connection:
            return find_learner(connection, native_id)


@asynccontextmanager
async def open_office(settings: NodeSettings, *, clock: Callable[[], Millis] = system_clock) -> AsyncIterator[Office]:
    """Open the node's database and ledger beside whoever uses it.

    Raises:
        ConfigurationError: keys or database cannot be used.
    """
    identity = load_identity(settings, now=clock())
    with open_store(settings) as engine:
        ledger = open_ledger(settings, identity, engine, clock)
        brokers = tuple(each.root for each in settings.broker_addresses)
        office = Office(identity, engine, ledger, brokers, default_rule=settings.quorum, clock=clock)
        try:
            yield office
        finally:
            await office.close()


async def _nothing_runs_here(_target: bytes, _reason: Reason) -> None:
    """This process answers nobody."""


def _done(recorded: list[Recorded]) -> Done:
    return Done(max(each.position for each in recorded) + 1, len(recorded) - 1)

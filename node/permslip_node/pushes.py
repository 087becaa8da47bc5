"""Pushes: what the broker says this node must hold, taken in order, checked, recorded, acknowledged.

Rules:

- Numbers have no gap. What is out of order, does not verify or is not admissible is not counted: the node then holds
  fewer pushes than the broker's ticks count, gets no fresh lease, and answers nobody. Loud in the log, and safe.
- The count moves in the transaction that records the statement.
- A number is given once: when the last push that is held comes again it must be the same
  (:mod:`permslip_node.broker_memory`).
- A revocation takes effect before it is even recorded: answers under it stop in the same turn of the event loop. Its
  acknowledgement is signed inside the recording transaction (it names the ledger's size), and is sent after the commit.
- A revocation or delegation brings its chain: grant and delegations that this node may never have seen. They are
  recorded without a look at their dates: a grant without endorsement opens nothing, and one that is revoked before it
  ever came must be known to be dead.
- A revocation by somebody who holds no right here (any more) is counted without effect, and is not acknowledged.
- Pushed statements were judged by the broker when they came; this node may have been away since. So what must not be
  out of date is judged by the time at which it was made.

Example::

    await pushes.take(broker_root, batch)
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import Connection, Engine

from permslip import statements as st
from permslip._pb.permslip.v1 import ledger_pb2, node_pb2, statement_pb2 as pb
from permslip.errors import AuthorityError, MalformedError, UnavailableError
from permslip.facts import check_admissible, subjects
from permslip.grants import check_grant
from permslip.hosting.database import writing
from permslip.hosting.drafts import Draft
from permslip.hosting.facts_projection import project
from permslip.hosting.logs import get_log
from permslip.quantities import Millis, Position
from permslip.reasons import Reason
from permslip.statements import Signed
from permslip_node import schema
from permslip_node.broker_memory import BrokerMemory
from permslip_node.identity import Identity
from permslip_node.recording import OwnWord, Recording, statement_draft, write_outgoing
from permslip_node.vetoes import write_veto

__all__ = ["PUSHED", "Pushes"]

_log = get_log(__name__)

PUSHED: Final = (st.ADMISSION, st.SUSPENSION, st.KEY_CERT, st.REVOCATION, st.DELEGATION)
# What a genuine statement is refused by where a newer one of its kind is recorded already.
_OUTDATED: Final = frozenset({"admission.created_at", "suspension.created_at", "key-cert.seq"})
# Ends every answer under a grant or delegation, at once; returns when nothing of them is on its way out any more.
Stop = Callable[[bytes, Reason], Awaitable[None]]


class Pushes:
    """Takes pushes, and direct revocations. Belongs to one event loop.

    Args:
        identity: who signs.
        engine: the node's database.
        recording: where statements are recorded.
        stop: ends every answer under a grant or delegation.
        clock: UTC milliseconds now.
    """

    def __init__(
        self, identity: Identity, engine: Engine, recording: Recording, stop: Stop, *, clock: Callable[[], Millis]
    ) -> None:
        self._identity, self._engine, self._recording = identity, engine, recording
        self._stop, self._clock = stop, clock
        self._turn = asyncio.Lock()
        self.memory = BrokerMemory(engine)

    def held(self, broker: bytes) -> int:
        """The greatest number up to which every push of this broker is held."""
        return self.memory.of(broker).pushes_held

    async def take(self, broker: bytes, pushes: Sequence[node_pb2.Push]) -> None:
        """Take pushes in the order in which they came.

        Raises:
            MalformedError: there is a gap before one of them, or one is not what the format says.
            VerificationError: one is not to be believed, or its signer may not state it.
            UnavailableError: it could not be recorded.
        """
        async with self._turn:
            for push in pushes:
                if push.number <= self.held(broker):
                    self.memory.of(broker).check_again(push)
                    continue
                if push.number != self.held(broker) + 1:
                    raise MalformedError(
                        f"expected number {self.held(broker) + 1}, got {push.number}.",
                        field="push.number",
                        remedy="The broker kept something back, or its database was restored.",
                    )
                await self._take(broker, push)

    async def revoke_here(self, envelope: pb.Envelope) -> Signed[pb.Acknowledgement]:
        """Record a revocation that a guardian brought by herself; returns this node's acknowledgement.

        Both are kept for the brokers, who have not heard of it.

        Raises:
            MalformedError: it is not a revocation of something that is known here.
            VerificationError: its signer may not revoke this.
        """
        async with self._turn:
            signed = st.verify(st.REVOCATION, envelope, federation=self._identity.federation)
            if signed.payload.node != self._identity.root:
                raise AuthorityError("revocation: it is meant for another node.")
            if self._recording.facts.recorded_at(signed.id) is not None:
                raise MalformedError("it is recorded here already.", field="revocation")
            self._check(signed)
            await self._stop(signed.payload.target_id, _reason(self._recording, signed))
            word = OwnWord()
            drafts = self._revocation_drafts(signed, word, number=0, also=None, tell=True)
            await self._recording.append(*drafts, sends=[OwnWord(signed), word])
        if word.signed is None:
            raise UnavailableError("the revocation was not recorded.")
        return word.signed

    async def _take(self, broker: bytes, push: node_pb2.Push) -> None:
        kind = st.kind_of(push.statement, PUSHED)
        signed = st.verify(kind, push.statement, federation=self._identity.federation)
        if self._recording.facts.recorded_at(signed.id) is not None:
            await self._count_only(broker, push)
            return
        before = self._chain_drafts(signed, push.chain)
        if before:
            await self._recording.append(*before)
        if self._is_about_erased(signed):
            # What it would end, or pass on, was over so long ago that it was erased here: nothing is left to act on.
            _log.info("push_about_erased", number=push.number, kind=kind.name, id=signed.id.hex())
            await self._count_only(broker, push)
            return
        try:
            self._check(signed)
        except MalformedError as error:
            if error.field not in _OUTDATED:
                raise
            # Another broker brought a newer one first: this one would change nothing.
            _log.info("push_outdated", number=push.number, kind=kind.name, id=signed.id.hex())
            await self._count_only(broker, push)
            return
        except AuthorityError as error:
            if kind is not st.REVOCATION or signed.payload.node != self._identity.root:
                raise
            # The broker knew her as one who may revoke; this node, which decides last, has suspended or removed her
            # since. Nothing ends and nothing is acknowledged, but the pushes after it must not wait for it for ever.
            _log.warning("revocation_without_right", number=push.number, id=signed.id.hex(), detail=error.message)
            await self._count_only(broker, push)
            return

        def count(connection: Connection, _position: Position) -> None:
            self.memory.write_push(connection, broker, push)

        if kind is st.REVOCATION:
            await self._stop(signed.payload.target_id, _reason(self._recording, signed))
            word = OwnWord()
            drafts = self._revocation_drafts(signed, word, number=push.number, also=count, tell=False)
            await self._recording.append(*drafts, sends=[word])
        else:
            draft = self._recording.facts.draft(signed, push_number=push.number, also=count)
            # In order, one at a time: nothing that it was checked by can have changed.
            await self._recording.append(replace(draft, facts_position=None))
        self.memory.note_push(broker, push)
        _log.info("push_held", number=push.number, kind=kind.name, id=signed.id.hex())

    def _is_about_erased(self, signed: Signed[Any]) -> bool:
        facts = self._recording.facts
        if signed.kind is st.REVOCATION:
            target = signed.payload.target_id
        elif signed.kind is st.DELEGATION:
            target = signed.payload.parent_id
        else:
            return False
        delegated = facts.delegated(target)
        grant_id = target if delegated is None else delegated.grant_id
        return facts.capability(grant_id) is None and facts.recorded_at(target) is not None

    def _check(self, signed: Signed[Any]) -> None:
        at = Millis(min(self._clock(), signed.payload.created_at))
        if signed.kind is st.REVOCATION:
            self._check_node(signed)
        check_admissible(self._recording.facts, signed, operator=self._identity.operator, now=at)

    def _check_node(self, signed: Signed[pb.Revocation]) -> None:
        if signed.payload.node != self._identity.root:
            raise AuthorityError("revocation: it is meant for another node.")

    def _chain_drafts(self, signed: Signed[Any], chain: Sequence[pb.Envelope]) -> list[Draft]:
        """What of the chain is not known here yet."""
        drafts: list[Draft] = []
        facts, grant_id = self._recording.facts, b""
        for envelope in chain:
            each = st.verify(
                st.kind_of(envelope, (st.GRANT, st.DELEGATION)), envelope, federation=self._identity.federation
            )
            if each.kind is st.GRANT:
                grant_id = each.id
                place = each.payload.slice
                if place.node != self._identity.root:
                    raise AuthorityError(f"{signed.kind.name}: the grant of its chain is another node's.")
                check_grant(each.payload)
            elif each.id == signed.id:
                continue
            known = facts.capability(each.id) if each.kind is st.GRANT else facts.delegated(each.id)
            if known is not None or facts.recorded_at(each.id) is not None:
                continue
            subject = b"" if each.kind is st.GRANT else each.payload.parent_id
            drafts.append(
                statement_draft(each, subject=subject, slice_of=self._place(grant_id, chain), changes=subjects(each))
            )
        return drafts

    def _place(self, grant_id: bytes, chain: Sequence[pb.Envelope]) -> tuple[bytes, bytes] | None:
        capability = self._recording.facts.capability(grant_id)
        if capability is not None:
            place = capability.grant.payload.slice
            return place.node, place.handle
        for envelope in chain:
            if envelope.payload_type == st.GRANT.payload_type:
                place = pb.Grant.FromString(envelope.payload).slice
                return place.node, place.handle
        return None

    def _revocation_drafts(
        self,
        signed: Signed[pb.Revocation],
        word: OwnWord,
        *,
        number: int,
        also: Callable[[Connection, Position], None] | None,
        tell: bool,
    ) -> list[Draft]:
        """The revocation's entry and its acknowledgement's, which is made by the first once its position is known."""
        facts, brokers = self._recording.facts, self._recording.brokers
        capability = facts.capability(signed.payload.target_id)
        if capability is None and (delegated := facts.delegated(signed.payload.target_id)) is not None:
            capability = facts.capability(delegated.grant_id)
        if capability is None:
            raise MalformedError("names a grant or delegation that is not known here.", field="revocation.target_id")
        grant = capability.grant.payload
        place = (grant.slice.node, grant.slice.handle)
        entry = ledger_pb2.StatementRecorded()

        def write(connection: Connection, position: Position) -> None:
            acknowledgement = self._acknowledgement(signed, position)
            word.signed = acknowledgement
            entry.statement_id = acknowledgement.id
            entry.payload_type = st.ACKNOWLEDGEMENT.payload_type
            entry.envelope_sha256 = acknowledgement.sha256
            entry.subject = signed.payload.target_id
            if tell:
                write_outgoing(connection, position, signed, brokers)
            if signed.payload.role == pb.REVOKER_ROLE_GUARDIAN:
                write_veto(connection, grant, signed.payload)
            if also is not None:
                also(connection, position)

        def write_acknowledgement(connection: Connection, position: Position) -> None:
            if word.signed is not None:
                project(connection, schema.FACTS, word.signed, position)
                write_outgoing(connection, position, word.signed, brokers)

        revocation = statement_draft(
            signed,
            subject=signed.payload.target_id,
            slice_of=place,
            changes=subjects(signed),
            also=write,
            push_number=number,
        )
        return [revocation, Draft("statement_recorded", entry, slice=place, write=write_acknowledgement)]

    def _acknowledgement(self, signed: Signed[pb.Revocation], position: int) -> Signed[pb.Acknowledgement]:
        payload = pb.Acknowledgement(
            federation=self._identity.federation,
            nonce=os.urandom(16),
            created_at=self._clock(),
            signer=self._identity.signer,
            statement_id=signed.id,
            target_id=signed.payload.target_id,
            ledger_size=position + 1,
        )
        return self._identity.sign(st.ACKNOWLEDGEMENT, payload)

    async def _count_only(self, broker: bytes, push: node_pb2.Push) -> None:
        await self._recording.aside(self._count, broker, push)
        self.memory.note_push(broker, push)

    def _count(self, broker: bytes, push: node_pb2.Push) -> None:
        with writing(self._engine) as connection:
            self.memory.write_push(connection, broker, push)


def _reason(recording: Recording, signed: Signed[pb.Revocation]) -> Reason:
    is_grant = recording.facts.capability(signed.payload.target_id) is not None
    return Reason.GRANT_REVOKED if is_grant else Reason.DELEGATION_REVOKED

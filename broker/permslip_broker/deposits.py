"""Deposits: a statement comes in, is believed, found admissible, recorded, and takes effect.

Every statement goes this way, whoever brings it: a parent's grant, a node's endorsement, the operator's admission.

Rules:

- Idempotent by id: a statement that was recorded before is answered with where, and changes nothing.
- Admissible on the facts at the time of the check, and checked again under the ledger's lock if those changed.
- A call's statements are recorded in their order; one that builds on an earlier one of the same call finds it recorded.
  Each succeeds or fails by itself.
- So many grants wait for their node's word, and no more (:mod:`permslip_broker.waiting`).
- Effects (:meth:`Deposits.on_recorded`) happen once, right after the commit, whether or not the depositor still waits.

Example::

    results = await deposits.deposit(envelopes, among=(st.GRANT,), method="DepositConsent", consent_id=consent_id)
    results[0].position
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import Connection, select, text
from sqlalchemy.exc import IntegrityError

from permslip import statements as st
from permslip._pb.permslip.v1 import session_pb2, statement_pb2 as pb
from permslip.dsse import SignedCache, statement_id
from permslip.errors import MalformedError, PermslipError, RefusedError
from permslip.facts import FactReader, check_admissible
from permslip.hosting.drafts import Draft, Recorded
from permslip.hosting.facts_store import FactStore
from permslip.quantities import Millis, Position
from permslip.reasons import Reason
from permslip.statements import Signed
from permslip_broker.identity import Identity
from permslip_broker.outcomes import allowed
from permslip_broker.pushes import PUSHED_TO_ALL, PUSHED_TO_ONE, Pushes
from permslip_broker.recording import Recorder
from permslip_broker.refused_requests import RefusedRequests
from permslip_broker.schema import BrokerTables
from permslip_broker.waiting import Waiting

__all__ = ["Deposited", "Deposits", "RecordedStatement"]

_CACHED_SIGNATURES: Final = 65_536
_INSERT_CONSENT: Final = text(
    "INSERT INTO consent (grant_id, consent_id, deposited_at) VALUES (:grant_id, :consent_id, :deposited_at)"
)
_INSERT_REVOCATION: Final = text(
    "INSERT INTO revocation_fact (revocation_id, target_id, node, position) "
    "VALUES (:revocation_id, :target_id, :node, :position)"
)
_ACKNOWLEDGE: Final = text(
    "UPDATE revocation_fact SET acknowledgement_id = :acknowledgement "
    "WHERE revocation_id = :revocation AND target_id = :target AND node = :node"
)


@dataclass(frozen=True, slots=True)
class Deposited:
    """What became of one statement.

    Attributes:
        statement_id: also where it was refused; empty only where there was nothing to name.
        refusal: ``ALLOWED``: recorded, now or before.
        position: in the ledger.
        signed: what was believed; None where it was refused before that.
    """

    statement_id: bytes
    refusal: session_pb2.Refusal
    position: int = 0
    signed: Signed[Any] | None = None

    @property
    def is_recorded(self) -> bool:
        """Whether it counts."""
        return int(self.refusal.code) == Reason.ALLOWED


@dataclass(frozen=True, slots=True)
class RecordedStatement:
    """A statement that was recorded just now.

    Attributes:
        signed: which.
        position: where.
        changes: the subjects of which something else holds now.
        pushes: node root → the number of this statement among that node's pushes.
        chain: what it travels with when it is pushed.
    """

    signed: Signed[Any]
    position: Position
    changes: tuple[bytes, ...]
    pushes: dict[bytes, int]
    chain: Sequence[pb.Envelope]


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A statement that was found admissible; ``numbers`` is filled by the commit."""

    signed: Signed[Any]
    draft: Draft
    numbers: dict[bytes, int]
    chain: Sequence[pb.Envelope]


class Deposits:
    """Takes statements in.

    Args:
        identity: the broker's.
        facts: what is recorded.
        recorder: the way into the ledger.
        pushes: numbers what nodes must hold.
        tables: the broker's.
        refusals: logs what is refused.
        waiting: bounds the grants that wait for their node.
        clock: the broker's.
    """

    def __init__(
        self,
        identity: Identity,
        facts: FactStore,
        recorder: Recorder,
        pushes: Pushes,
        tables: BrokerTables,
        refusals: RefusedRequests,
        waiting: Waiting,
        clock: Callable[[], Millis],
    ) -> None:
        self._identity, self._facts, self._recorder = identity, facts, recorder
        self._pushes, self._tables, self._refusals, self._clock = pushes, tables, refusals, clock
        self._waiting = waiting
        self._signatures = SignedCache(_CACHED_SIGNATURES)
        self._effects: list[Callable[[RecordedStatement], None]] = []

    def on_recorded(self, effect: Callable[[RecordedStatement], None]) -> None:
        """``effect`` is called for each statement, in the order of the ledger."""
        self._effects.append(effect)

    async def deposit(
        self,
        envelopes: Sequence[pb.Envelope],
        *,
        among: Sequence[st.Kind[Any]],
        method: str,
        caller: bytes = b"",
        consent_id: bytes = b"",
    ) -> list[Deposited]:
        """Take in the statements of one call.

        Args:
            envelopes: as received.
            among: the kinds that may be deposited this way.
            method: for the log.
            caller: its key, where it had proved one.
            consent_id: of the consent that the call's grants are.

        Returns:
            one result for each, in order.
        """
        results: list[Deposited | None] = [None] * len(envelopes)
        under_way: list[tuple[int, asyncio.Task[Deposited]]] = []
        touched: set[bytes] = set()

        async def settle() -> None:
            for number, task in under_way:
                results[number] = await task
            under_way.clear()
            touched.clear()

        believed: list[tuple[int, Signed[Any]]] = []
        for number, envelope in enumerate(envelopes):
            try:
                kind = st.kind_of(envelope, among)
                signed = st.verify(kind, envelope, federation=self._identity.federation, cache=self._signatures)
            except PermslipError as error:
                results[number] = self._refused(envelope, error, method, caller)
            else:
                believed.append((number, signed))
        self._facts.prefetch(_grant_named(signed) for _, signed in believed)
        for number, signed in believed:
            if not touched.isdisjoint(_needs(signed)):
                await settle()
            try:
                self._check(self._facts, signed)
                prepared = self._prepared(signed, consent_id)
            except PermslipError as error:
                # What was recorded before need not be admissible again.
                results[number] = self._known(signed) or self._refused(signed.envelope, error, method, caller)
                continue
            touched.update(prepared.draft.changes)
            under_way.append((number, asyncio.ensure_future(self._record(prepared, method, caller))))
        await settle()
        return [each for each in results if each is not None]

    # ------------------------------------------------------------------------------------- one statement

    async def _record(self, prepared: _Prepared, method: str, caller: bytes) -> Deposited:
        signed = prepared.signed

        def take_effect(recorded: Sequence[Recorded]) -> None:
            [entry] = recorded
            done = RecordedStatement(signed, entry.position, entry.draft.changes, prepared.numbers, prepared.chain)
            for effect in self._effects:
                effect(done)

        try:
            [recorded] = await self._recorder.append(prepared.draft, then=take_effect)
        except IntegrityError:
            if (known := self._known(signed)) is not None:
                return known
            raise
        except PermslipError as error:
            if (known := self._known(signed)) is not None:
                return known
            return self._refused(signed.envelope, error, method, caller)
        return Deposited(signed.id, allowed(), recorded.position, signed)

    def _prepared(self, signed: Signed[Any], consent_id: bytes) -> _Prepared:
        numbers: dict[bytes, int] = {}
        node = self._node_of(signed)

        def also(connection: Connection, position: Position) -> None:
            self._project(connection, signed, position, consent_id)
            if signed.kind is st.REVOCATION or signed.kind is st.ENDORSEMENT:
                self._waiting.remove(connection, _settled(signed, made.changes))
            if signed.kind in PUSHED_TO_ALL or signed.kind in PUSHED_TO_ONE:
                self._pushes.write(connection, signed, position, node=node, numbers=numbers)

        def check_again(connection: Connection, size: int) -> Draft:
            self._check(self._facts.at(connection, size), signed)
            return replace(draft, facts_position=size)

        made = self._facts.draft(signed, also=also)
        draft = replace(
            made,
            depends_on=tuple({*made.depends_on, *_needs(signed)}),
            # Its own id as well, so that the same statement brought twice at once is checked the second time.
            changes=tuple(dict.fromkeys((signed.id, *made.changes))),
            redo=check_again,
        )
        # Read before the commit, while it is cached: the grant is forgotten by what is recorded about it.
        return _Prepared(signed, draft, numbers, self._pushes.chain(signed.envelope))

    def _check(self, facts: FactReader, signed: Signed[Any]) -> None:
        now = self._clock()
        if signed.kind is st.GRANT:
            _check_node(facts, signed.payload.slice.node, now)
        check_admissible(facts, signed, operator=self._identity.operator, now=now)

    def _project(self, connection: Connection, signed: Signed[Any], position: int, consent_id: bytes) -> None:
        """What the broker's own tables say of it."""
        if signed.kind is st.GRANT:
            row = {"grant_id": signed.id, "consent_id": consent_id or signed.id, "deposited_at": self._clock()}
            connection.execute(_INSERT_CONSENT, row)
            self._waiting.add(connection, signed.id, signed.payload, now=self._clock())
        elif signed.kind is st.REVOCATION:
            payload = signed.payload
            row = {
                "revocation_id": signed.id,
                "target_id": payload.target_id,
                "node": payload.node,
                "position": position,
            }
            connection.execute(_INSERT_REVOCATION, row)
        elif signed.kind is st.ACKNOWLEDGEMENT:
            self._project_acknowledgement(connection, signed)

    def _project_acknowledgement(self, connection: Connection, signed: Signed[pb.Acknowledgement]) -> None:
        """It is the word of the very node that must act, about that very revocation."""
        payload = signed.payload
        values = {
            "acknowledgement": signed.id,
            "revocation": payload.statement_id,
            "target": payload.target_id,
            "node": payload.signer.root,
        }
        if connection.execute(_ACKNOWLEDGE, values).rowcount:
            return
        statement = self._tables.facts.statement.c
        kind = connection.execute(select(statement.kind).where(statement.id == payload.statement_id)).scalar()
        if kind != st.SUSPENSION.name:
            raise MalformedError("names no revocation of this target.", field="acknowledgement.statement_id")

    def _node_of(self, signed: Signed[Any]) -> bytes:
        """The node that a revocation or delegation is pushed to."""
        if signed.kind is st.REVOCATION:
            return bytes(signed.payload.node)
        if signed.kind is not st.DELEGATION:
            return b""
        parent = signed.payload.parent_id
        delegated = self._facts.delegated(parent)
        capability = self._facts.capability(parent if delegated is None else delegated.grant_id)
        return b"" if capability is None else bytes(capability.grant.payload.slice.node)

    def _known(self, signed: Signed[Any]) -> Deposited | None:
        """What a statement got when it was recorded before, by whatever call."""
        position = self._facts.recorded_at(signed.id)
        return None if position is None else Deposited(signed.id, allowed(), position, signed)

    def _refused(self, envelope: pb.Envelope, error: PermslipError, method: str, caller: bytes) -> Deposited:
        raw = envelope.SerializeToString()
        refusal = self._refusals.refuse(error, method, request=raw, caller=caller)
        return Deposited(statement_id(envelope.payload_type, envelope.payload), refusal)


def _settled(signed: Signed[Any], changes: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """The grants that wait no more: an endorsement says yes or no to one, and its yes ends those that it supersedes."""
    if signed.kind is st.ENDORSEMENT and signed.payload.verdict != pb.ENDORSEMENT_VERDICT_ENDORSED:
        return (bytes(signed.payload.grant_id),)
    return changes


def _needs(signed: Signed[Any]) -> tuple[bytes, ...]:
    """The subjects that decide whether it is admissible."""
    payload = signed.payload
    kind = signed.kind
    if kind is st.GRANT:
        return (signed.id, payload.slice.node, *payload.supersedes)
    if kind in PUSHED_TO_ALL:
        return (signed.id, payload.root)
    if kind is st.ENDORSEMENT:
        return (signed.id, payload.grant_id, payload.signer.root)
    if kind is st.DELEGATION:
        return (signed.id, payload.parent_id, payload.signer.root)
    if kind is st.REVOCATION:
        return (signed.id, payload.target_id, payload.signer.root)
    return (signed.id, payload.statement_id, payload.signer.root)


def _grant_named(signed: Signed[Any]) -> bytes:
    """The grant that it is about, where it names one."""
    payload = signed.payload
    if signed.kind is st.ENDORSEMENT:
        return bytes(payload.grant_id)
    if signed.kind in (st.REVOCATION, st.ACKNOWLEDGEMENT):
        return bytes(payload.target_id)
    return bytes(payload.parent_id) if signed.kind is st.DELEGATION else b""


def _check_node(facts: FactReader, node: bytes, now: Millis) -> None:
    """A grant names a node of this federation."""
    standing = facts.standing(node)
    reason = Reason.NODE_UNKNOWN
    if standing is not None and standing.suspension is not None:
        reason = Reason.NODE_SUSPENDED
    elif standing is not None and standing.is_admitted(pb.PRINCIPAL_KIND_NODE, now):
        return
    raise RefusedError(reason.meaning, code=reason.name, field="grant.slice.node", remedy=reason.remedy)

"""Pushes: the statements that a node must hold before it answers anyone, numbered for each node.

==========================================  ============================================
admission, suspension, certificate          to every node that was ever admitted
revocation, delegation                      to the node of their grant
==========================================  ============================================

Rules:

- Numbers begin with 1 and have no gap; they follow the order of the ledger, because they are given in the transaction
  that records the statement, under the head's lock.
- A node that is admitted for the first time is given what holds by then of everybody else, as if it had been there.
- A revocation or delegation travels with its chain (the grant, then the delegations above it), so that a node that
  never saw them can check it.

Example::

    draft = facts.draft(signed, also=lambda connection, position: pushes.write(connection, signed, position, numbers))
    pushes.page(node, after=held, limit=100)
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection, Engine, bindparam, select, text

from permslip import statements as st
from permslip._pb.permslip.v1 import node_pb2, statement_pb2 as pb
from permslip.errors import MalformedError
from permslip.facts import FactReader, chain_of
from permslip.hosting.database import reading
from permslip.hosting.facts_store import FactStore
from permslip.statements import Signed
from permslip_broker.schema import BrokerTables

__all__ = ["PUSHED_TO_ALL", "PUSHED_TO_ONE", "Pushes", "chain_envelopes"]

PUSHED_TO_ALL: Final[tuple[st.Kind[Any], ...]] = (st.ADMISSION, st.SUSPENSION, st.KEY_CERT)
PUSHED_TO_ONE: Final[tuple[st.Kind[Any], ...]] = (st.REVOCATION, st.DELEGATION)

# All nodes in one statement each: a federation may have hundreds.
_COUNT_ALL: Final = text("UPDATE push_head SET pushes = pushes + 1 RETURNING node, pushes")
_PUSH_ALL: Final = text(
    "INSERT INTO push (node, number, statement_id, position) SELECT node, pushes, :statement, :position FROM push_head"
)
_COUNT_ONE: Final = text("UPDATE push_head SET pushes = pushes + 1 WHERE node = :node RETURNING pushes")
_PUSH_ONE: Final = text(
    "INSERT INTO push (node, number, statement_id, position) VALUES (:node, :number, :statement, :position)"
)
_OPEN: Final = text("INSERT INTO push_head (node, pushes) VALUES (:node, 0) ON CONFLICT (node) DO NOTHING")
# An admission comes before the certificate that needs it; a suspension comes last.
_STANDING: Final = (
    "SELECT statement.id, statement.position FROM standing_fact "
    "JOIN statement ON statement.id = standing_fact.{column} ORDER BY statement.position"
)
_BACKFILL: Final = tuple(text(_STANDING.format(column=each)) for each in ("admission_id", "cert_id", "suspension_id"))


class Pushes:
    """What each node must hold.

    Args:
        engine: the broker's database.
        tables: the broker's.
        facts: where grants and delegations stand, for chains.
    """

    def __init__(self, engine: Engine, tables: BrokerTables, facts: FactStore) -> None:
        self._engine, self._tables, self._facts = engine, tables, facts

    def write(
        self, connection: Connection, signed: Signed[Any], position: int, *, node: bytes, numbers: dict[bytes, int]
    ) -> None:
        """Number a statement for the nodes concerned; runs in the transaction that records it.

        Args:
            connection: of that transaction; the statement's projections are written.
            signed: of :data:`PUSHED_TO_ALL` or :data:`PUSHED_TO_ONE`.
            position: that records it.
            node: of the grant, for :data:`PUSHED_TO_ONE`.
            numbers: told each node's number; emptied first, since a transaction may run again.
        """
        numbers.clear()
        pushed = {"statement": signed.id, "position": position}
        if signed.kind in PUSHED_TO_ONE:
            number = connection.execute(_COUNT_ONE, {"node": node}).scalar()
            if number is not None:
                numbers[node] = number
                connection.execute(_PUSH_ONE, {"node": node, "number": number, **pushed})
            return
        numbers.update((bytes(row.node), row.pushes) for row in connection.execute(_COUNT_ALL).all())
        connection.execute(_PUSH_ALL, pushed)
        if signed.kind is st.ADMISSION and signed.payload.kind == pb.PRINCIPAL_KIND_NODE:
            self._open(connection, signed.payload.root)

    def count(self, node: bytes, connection: Connection | None = None) -> int:
        """How many pushes this node must hold now."""
        head = self._tables.push_head.c
        query = select(head.pushes).where(head.node == node)
        if connection is not None:
            return int(connection.execute(query).scalar() or 0)
        with reading(self._engine) as own:
            return int(own.execute(query).scalar() or 0)

    def counts(self) -> dict[bytes, int]:
        """The same for every node."""
        head = self._tables.push_head.c
        with reading(self._engine) as connection:
            return {row.node: row.pushes for row in connection.execute(select(head.node, head.pushes))}

    def page(self, node: bytes, *, after: int, limit: int = 100) -> list[node_pb2.Push]:
        """This node's pushes with numbers above ``after``, in order."""
        push, statement = self._tables.push.c, self._tables.facts.statement.c
        query = (
            select(push.number, push.position, statement.envelope)
            .where(push.node == node, push.number > after, statement.id == push.statement_id)
            .order_by(push.number)
            .limit(bindparam("limit"))
        )
        with reading(self._engine) as connection:
            rows = connection.execute(query, {"limit": limit}).all()
        for row in rows:
            if row.envelope is None:
                raise MalformedError(
                    f"push {row.number} was erased here, when this node had held it for long.",
                    field="hello.pushes_held",
                    remedy="The node holds less than it did: restore its database from a newer backup, or set it up "
                    "anew under another root key.",
                )
        envelopes = [pb.Envelope.FromString(row.envelope) for row in rows]
        return [
            node_pb2.Push(number=row.number, position=row.position, statement=each, chain=self.chain(each))
            for row, each in zip(rows, envelopes, strict=True)
        ]

    def chain(self, envelope: pb.Envelope) -> list[pb.Envelope]:
        """What a recorded statement travels with."""
        kind = st.KINDS[envelope.payload_type]
        if kind is st.REVOCATION:
            return chain_envelopes(self._facts, pb.Revocation.FromString(envelope.payload).target_id)
        if kind is st.DELEGATION:
            return chain_envelopes(self._facts, pb.Delegation.FromString(envelope.payload).parent_id)
        return []

    def _open(self, connection: Connection, node: bytes) -> None:
        """A node that was never admitted before: its first pushes are what holds now."""
        if not connection.execute(_OPEN, {"node": node}).rowcount:
            return
        head, push = self._tables.push_head, self._tables.push
        rows = [row for query in _BACKFILL for row in connection.execute(query)]
        connection.execute(
            push.insert(),
            [
                {"node": node, "number": number, "statement_id": row.id, "position": row.position}
                for number, row in enumerate(rows, start=1)
            ],
        )
        connection.execute(head.update().where(head.c.node == node).values(pushes=len(rows)))


def chain_envelopes(facts: FactReader, identifier: bytes) -> list[pb.Envelope]:
    """The grant, and the delegations down to this one; the grant alone where the id is a grant's; else nothing."""
    capability = facts.capability(identifier)
    if capability is not None:
        return [capability.grant.envelope]
    delegated = facts.delegated(identifier)
    if delegated is None or (capability := facts.capability(delegated.grant_id)) is None:
        return []
    try:
        above = chain_of(facts, identifier)
    except MalformedError:  # a statement of the chain was erased
        return []
    return [capability.grant.envelope, *(each.envelope for each in above)]

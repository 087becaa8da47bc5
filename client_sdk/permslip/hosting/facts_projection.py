"""What each recorded statement changes in the tables of facts.

Every function here runs in the transaction of the ledger entry that records the statement (``Draft.write``). Together
they do in SQL what :meth:`permslip.facts.MemoryFacts.record` does in memory; one conformance suite holds both to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import Connection, select, text, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from permslip import statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.errors import MalformedError
from permslip.hosting.facts_schema import FactTables
from permslip.reasons import Reason
from permslip.statements import Signed

__all__ = ["project"]

# What every statement and every revocation costs, as text: putting a query together takes longer than running it.
_INSERT_STATEMENT: Final = text(
    "INSERT INTO statement (id, kind, envelope, envelope_sha256, position) "
    "VALUES (:id, :kind, :envelope, :envelope_sha256, :position)"
)
_END_GRANT: Final = text("UPDATE grant_fact SET ended = :ended WHERE grant_id = :target")
_END_DELEGATION: Final = text("UPDATE delegation_fact SET ended = :ended WHERE delegation_id = :target")


def project(connection: Connection, tables: FactTables, signed: Signed[Any], position: int) -> None:
    """Write a statement and what it means.

    Args:
        connection: inside the entry's transaction.
        tables: where to.
        signed: admissible.
        position: of the entry that records it.
    """
    connection.execute(
        _INSERT_STATEMENT,
        {
            "id": signed.id,
            "kind": signed.kind.name,
            "envelope": signed.raw,
            "envelope_sha256": signed.sha256,
            "position": position,
        },
    )
    if (write := _PROJECTIONS.get(signed.kind)) is not None:
        write(connection, tables, signed, position)


def _write_grant(connection: Connection, tables: FactTables, signed: Signed[pb.Grant], position: int) -> None:
    grant = signed.payload
    connection.execute(
        tables.grant_fact.insert(),
        {
            "grant_id": signed.id,
            "position": position,
            "node": grant.slice.node,
            "handle": grant.slice.handle,
            "grantee": grant.grantee,
            "expires_at": grant.expires_at,
            "ended": int(Reason.ALLOWED),
            "verdict": 0,
            "valid_until": 0,
        },
    )
    rows = [{"key": key, "position": position, "grant_id": signed.id} for key in grant.granted_by]
    connection.execute(tables.grant_signer.insert(), rows)


def _write_endorsement(
    connection: Connection, tables: FactTables, signed: Signed[pb.Endorsement], position: int
) -> None:
    fact, payload = tables.grant_fact, signed.payload
    values: dict[str, Any] = {
        "endorsement_id": signed.id,
        "verdict": int(payload.verdict),
        "valid_until": payload.valid_until,
    }
    approved = payload.verdict == pb.ENDORSEMENT_VERDICT_ENDORSED
    if approved:
        values["approval_id"] = signed.id
    connection.execute(update(fact).where(fact.c.grant_id == payload.grant_id).values(values))
    if not approved:
        return
    statement = tables.statement
    envelope = connection.execute(select(statement.c.envelope).where(statement.c.id == payload.grant_id)).scalar_one()
    if envelope is None:
        raise MalformedError("names a grant that was erased.", field="endorsement.grant_id")
    grant = st.restore(st.GRANT, payload.grant_id, envelope).payload
    if grant.supersedes:
        connection.execute(
            update(fact)
            .where(fact.c.grant_id.in_(list(grant.supersedes)), fact.c.ended != int(Reason.GRANT_REVOKED))
            .values(ended=int(Reason.GRANT_SUPERSEDED))
        )


def _write_delegation(connection: Connection, tables: FactTables, signed: Signed[pb.Delegation], position: int) -> None:
    fact, payload = tables.delegation_fact, signed.payload
    above = connection.execute(select(fact.c.grant_id).where(fact.c.delegation_id == payload.parent_id)).first()
    connection.execute(
        fact.insert(),
        {
            "delegation_id": signed.id,
            "position": position,
            "grant_id": payload.parent_id if above is None else above.grant_id,
            "parent_id": payload.parent_id,
            "delegatee": payload.delegatee,
            "ended": int(Reason.ALLOWED),
        },
    )


def _write_revocation(connection: Connection, tables: FactTables, signed: Signed[pb.Revocation], position: int) -> None:
    target = signed.payload.target_id
    if not connection.execute(_END_GRANT, {"ended": int(Reason.GRANT_REVOKED), "target": target}).rowcount:
        connection.execute(_END_DELEGATION, {"ended": int(Reason.DELEGATION_REVOKED), "target": target})


def _write_standing(connection: Connection, tables: FactTables, signed: Signed[Any], position: int) -> None:
    fact, payload = tables.standing_fact, signed.payload
    values: dict[str, Any]
    if signed.kind is st.ADMISSION:
        values = {"kind": int(payload.kind), "admission_id": signed.id, "suspension_id": None}
    elif signed.kind is st.SUSPENSION:
        values = {"suspension_id": signed.id}
    else:
        values = {"cert_id": signed.id}
    insert = sqlite_insert if connection.dialect.name == "sqlite" else postgresql_insert
    row = {"root": payload.root, "kind": 0, **values}
    connection.execute(insert(fact).values(row).on_conflict_do_update(index_elements=["root"], set_=values))


_PROJECTIONS: Final[dict[st.Kind[Any], Callable[[Connection, FactTables, Signed[Any], int], None]]] = {
    st.GRANT: _write_grant,
    st.ENDORSEMENT: _write_endorsement,
    st.DELEGATION: _write_delegation,
    st.REVOCATION: _write_revocation,
    st.ADMISSION: _write_standing,
    st.SUSPENSION: _write_standing,
    st.KEY_CERT: _write_standing,
}

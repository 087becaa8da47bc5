"""Vetoes: what a guardian took from a grantee comes back with all signatures, or once she herself gives it again.

Rules:

- A veto is one person's, as to one grantee and one learner. It begins when a revocation of hers is recorded.
- It ends when a grant to that grantee that she signed after her revocation is endorsed: then she has changed her mind,
  and the others are not bound by what she thought before. Both times are the ones that she signed.

Example::

    write_veto(connection, grant, revocation)
    end_vetoes(connection, later_grant)
"""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, select, update

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip_node import schema

__all__ = ["end_vetoes", "write_veto"]


def write_veto(connection: Connection, grant: pb.Grant, revocation: pb.Revocation) -> None:
    """Remember which guardian took it from this grantee. One who is nobody's guardian here leaves no veto."""
    key, veto = schema.person_key.c, schema.veto
    who = connection.execute(
        select(key.person_id).where(key.handle == grant.slice.handle, key.key == revocation.signer.key)
    ).scalar()
    if who is None:
        return
    hers = (veto.c.handle == grant.slice.handle, veto.c.grantee == grant.grantee, veto.c.person_id == who)
    known = connection.execute(select(veto.c.revoked_at).where(*hers)).scalar()
    if known is None:
        connection.execute(
            insert(veto).values(
                handle=grant.slice.handle, grantee=grant.grantee, person_id=who, revoked_at=revocation.created_at
            )
        )
    elif known < revocation.created_at:
        connection.execute(update(veto).where(*hers).values(revoked_at=revocation.created_at))


def end_vetoes(connection: Connection, grant: pb.Grant) -> None:
    """End those vetoes against this grantee that the grant's own signers made before they signed it."""
    key, veto = schema.person_key.c, schema.veto
    signers = select(key.person_id).where(key.handle == grant.slice.handle, key.key.in_(list(grant.granted_by)))
    connection.execute(
        delete(veto).where(
            veto.c.handle == grant.slice.handle,
            veto.c.grantee == grant.grantee,
            veto.c.person_id.in_(signers),
            veto.c.revoked_at < grant.created_at,
        )
    )

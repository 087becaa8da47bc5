"""Many endorsed grants in a ledger and its facts, quickly: what a broker or node holds after years of service.

The entries are those that single deposits would have made, appended by the real ledger; only the rows of the
projections are written many at a time instead of one by one.

Example::

    grants = [endorsed_grant(guardian, node, provider.root.public.raw, handle, FEDERATION) for handle in handles]
    await record_in_bulk(ledger, tables, grants)
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Table

from permslip import statements as st
from permslip._pb.permslip.v1 import ledger_pb2, statement_pb2 as pb
from permslip.grants import revoker_hash
from permslip.hosting.facts_schema import FactTables
from permslip.hosting.ledger import Draft, Ledger
from permslip.keys import SigningKey
from permslip.quantities import Millis, Position
from permslip.reasons import Reason
from permslip.statements import Signed
from tests.bench.principals import DAY, Organization, now
from tests.bench.workload import SECTION

__all__ = ["EndorsedGrant", "endorsed_grant", "record_in_bulk"]


class EndorsedGrant(NamedTuple):
    """A grant, and the node's word that its signer may give it."""

    grant: Signed[pb.Grant]
    endorsement: Signed[pb.Endorsement]


def endorsed_grant(
    guardian: SigningKey, node: Organization, grantee: bytes, handle: bytes, federation: str
) -> EndorsedGrant:
    """A grant to read one section for a month, endorsed."""
    at = Millis(now() - 1000)
    grant = st.sign(
        st.GRANT,
        pb.Grant(
            federation=federation,
            nonce=os.urandom(16),
            created_at=at,
            granted_by=[guardian.public.raw],
            slice=pb.Slice(node=node.root.public.raw, handle=handle),
            grantee=grantee,
            actions=[pb.ACTION_READ],
            sections=[SECTION],
            purpose=pb.PURPOSE_TUTORING,
            not_before=at,
            expires_at=at + 30 * DAY,
            notice=pb.Notice(template="bench", version="v1", language="en", salted_sha256=os.urandom(32)),
            private=pb.SealedPrivate(
                salted_sha256=os.urandom(32),
                copies=[pb.SealedCopy(recipient=node.sealing.public, sealed=os.urandom(240))],
            ),
        ),
        [guardian],
    )
    endorsement = pb.Endorsement(
        federation=federation,
        nonce=os.urandom(16),
        created_at=at,
        signer=node.signer,
        grant_id=grant.id,
        verdict=pb.ENDORSEMENT_VERDICT_ENDORSED,
        quorum_rule="any",
        revokers=[revoker_hash(grant.id, guardian.public.raw)],
        valid_until=at + 29 * DAY,
    )
    return EndorsedGrant(grant, st.sign(st.ENDORSEMENT, endorsement, [node.key]))


async def record_in_bulk(
    ledger: Ledger, tables: FactTables, grants: Sequence[EndorsedGrant], *, consent: Table | None = None
) -> None:
    """Append and project all of them, in one transaction.

    Args:
        ledger: open; nobody else appends.
        tables: the facts, in the ledger's database.
        grants: new ones.
        consent: the broker's table of consents; none at a node.
    """
    first = ledger.size
    drafts = [_draft(signed, each.grant) for each in grants for signed in each]

    def write(connection: Connection, position: Position) -> None:
        statements, facts, signers, consents = [], [], [], []
        for number, each in enumerate(grants):
            granted, endorsed = first + 2 * number, first + 2 * number + 1
            payload = each.grant.payload
            statements += [_statement(each.grant, granted), _statement(each.endorsement, endorsed)]
            facts.append(
                {
                    "grant_id": each.grant.id,
                    "position": granted,
                    "node": payload.slice.node,
                    "handle": payload.slice.handle,
                    "grantee": payload.grantee,
                    "expires_at": payload.expires_at,
                    "ended": int(Reason.ALLOWED),
                    "endorsement_id": each.endorsement.id,
                    "approval_id": each.endorsement.id,
                    "verdict": int(each.endorsement.payload.verdict),
                    "valid_until": each.endorsement.payload.valid_until,
                }
            )
            signers += [{"key": key, "position": granted, "grant_id": each.grant.id} for key in payload.granted_by]
            consents.append({"grant_id": each.grant.id, "consent_id": each.grant.id, "deposited_at": now()})
        for table, rows in (
            (tables.statement, statements),
            (tables.grant_fact, facts),
            (tables.grant_signer, signers),
            *([(consent, consents)] if consent is not None else []),
        ):
            connection.execute(table.insert(), rows)

    drafts[-1].write = write
    await ledger.append(*drafts)


def _draft(signed: Signed[Any], grant: Signed[pb.Grant]) -> Draft:
    place = grant.payload.slice
    recorded = ledger_pb2.StatementRecorded(
        statement_id=signed.id,
        payload_type=signed.kind.payload_type,
        envelope_sha256=signed.sha256,
        subject=b"" if signed is grant else grant.id,
    )
    return Draft("statement_recorded", recorded, slice=(place.node, place.handle), changes=(grant.id,))


def _statement(signed: Signed[Any], position: int) -> dict[str, Any]:
    return {
        "id": signed.id,
        "kind": signed.kind.name,
        "envelope": signed.raw,
        "envelope_sha256": signed.sha256,
        "position": position,
    }

"""The tables of recorded statements and of what they mean: projections of the ledger.

====================  ========================================================================================
``statement``         id → kind, envelope (``NULL`` once erased), its digest, the position that recorded it
``grant_fact``        what has become of each grant; its latest endorsement and latest approval
``grant_signer``      key → grants it signed
``delegation_fact``   delegations, the grant each comes from, and whether it lives
``standing_fact``     root → latest admission, suspension since then, certificate with the highest number
====================  ========================================================================================

Every row is written in the transaction of the ledger entry that causes it (:mod:`permslip.hosting.facts_store`), so the
tables can always be made again from the ledger and the statements.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, String, Table

__all__ = ["FactTables", "fact_tables"]

_INT64 = BigInteger().with_variant(Integer(), "sqlite")


class FactTables(NamedTuple):
    """The tables of one store of facts."""

    statement: Table
    grant_fact: Table
    grant_signer: Table
    delegation_fact: Table
    standing_fact: Table


def fact_tables(metadata: MetaData) -> FactTables:
    """Declare the tables in ``metadata``; nothing is created yet."""
    return FactTables(
        statement=Table(
            "statement",
            metadata,
            Column("id", LargeBinary, primary_key=True),
            Column("kind", String(32), nullable=False),
            Column("envelope", LargeBinary),
            Column("envelope_sha256", LargeBinary, nullable=False),
            Column("position", _INT64, nullable=False),
        ),
        grant_fact=Table(
            "grant_fact",
            metadata,
            Column("grant_id", LargeBinary, primary_key=True),
            Column("position", _INT64, nullable=False),
            Column("node", LargeBinary, nullable=False),
            Column("handle", LargeBinary, nullable=False),
            Column("grantee", LargeBinary, nullable=False),
            Column("expires_at", _INT64, nullable=False),
            # A Reason: ALLOWED while it lives.
            Column("ended", Integer, nullable=False),
            Column("endorsement_id", LargeBinary),
            Column("approval_id", LargeBinary),
            # Of the latest endorsement; 0 while there is none.
            Column("verdict", Integer, nullable=False),
            Column("valid_until", _INT64, nullable=False),
            Index("grant_fact_grantee", "grantee", "position"),
            Index("grant_fact_slice", "node", "handle", "position"),
            Index("grant_fact_node", "node", "verdict", "position"),
        ),
        grant_signer=Table(
            "grant_signer",
            metadata,
            Column("key", LargeBinary, primary_key=True),
            Column("position", _INT64, primary_key=True, autoincrement=False),
            Column("grant_id", LargeBinary, nullable=False),
            sqlite_with_rowid=False,
        ),
        delegation_fact=Table(
            "delegation_fact",
            metadata,
            Column("delegation_id", LargeBinary, primary_key=True),
            Column("position", _INT64, nullable=False),
            Column("grant_id", LargeBinary, nullable=False),
            Column("parent_id", LargeBinary, nullable=False),
            Column("delegatee", LargeBinary, nullable=False),
            Column("ended", Integer, nullable=False),
            Index("delegation_fact_grant", "grant_id", "position"),
        ),
        standing_fact=Table(
            "standing_fact",
            metadata,
            Column("root", LargeBinary, primary_key=True),
            Column("kind", Integer, nullable=False),
            Column("admission_id", LargeBinary),
            Column("suspension_id", LargeBinary),
            Column("cert_id", LargeBinary),
        ),
    )

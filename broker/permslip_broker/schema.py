"""The broker's tables: the ledger, the facts, and what a broker alone keeps.

====================  ========================================================================================
``push_head``         node root → how many statements it must hold (one row for every node ever admitted)
``push``              (node root, number) → which statement, and the position that recorded it
``consent``           grant → the consent that it was deposited with, and when
``revocation_fact``   revocation → its target, its node, the node's acknowledgement once there is one
``waiting_grant``     (grant without its node's word, its node or a key that signed it) → when it ends
``waiting_count``     node or key → how many of them
``cosigned``          the last checkpoints of this ledger with their cosignatures: that of a quorum, and the newest
``node_checkpoint``   node root → the last checkpoint of its ledger that this broker cosigned
====================  ========================================================================================

Rules:

- All but the last two are projections: each row is written in the transaction of the ledger entry that causes it.
- A node's pushes are numbered from 1 without a gap, in the order of the ledger.
- Nothing here, and nothing anywhere in the broker, names a learner.

Example::

    >>> sorted(set(broker_tables(MetaData()).push.columns.keys()))
    ['node', 'number', 'position', 'statement_id']
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, Table, Text

from permslip.hosting.facts_schema import FactTables, fact_tables
from permslip.hosting.schema import LedgerTables, ledger_tables

__all__ = ["BrokerTables", "broker_tables"]

_INT64 = BigInteger().with_variant(Integer(), "sqlite")


class BrokerTables(NamedTuple):
    """Every table of a broker's database."""

    ledger: LedgerTables
    facts: FactTables
    push_head: Table
    push: Table
    consent: Table
    revocation_fact: Table
    waiting_grant: Table
    waiting_count: Table
    cosigned: Table
    node_checkpoint: Table


def broker_tables(metadata: MetaData) -> BrokerTables:
    """Declare the tables in ``metadata``; nothing is created yet."""
    return BrokerTables(
        ledger=ledger_tables(metadata),
        facts=fact_tables(metadata),
        push_head=Table(
            "push_head",
            metadata,
            Column("node", LargeBinary, primary_key=True),
            Column("pushes", _INT64, nullable=False),
        ),
        push=Table(
            "push",
            metadata,
            Column("node", LargeBinary, primary_key=True),
            Column("number", _INT64, primary_key=True, autoincrement=False),
            Column("statement_id", LargeBinary, nullable=False),
            Column("position", _INT64, nullable=False),
            sqlite_with_rowid=False,
        ),
        consent=Table(
            "consent",
            metadata,
            Column("grant_id", LargeBinary, primary_key=True),
            Column("consent_id", LargeBinary, nullable=False),
            Column("deposited_at", _INT64, nullable=False),
            sqlite_with_rowid=False,
        ),
        revocation_fact=Table(
            "revocation_fact",
            metadata,
            Column("revocation_id", LargeBinary, primary_key=True),
            Column("target_id", LargeBinary, nullable=False, index=True),
            Column("node", LargeBinary, nullable=False),
            Column("position", _INT64, nullable=False),
            Column("acknowledgement_id", LargeBinary),
        ),
        waiting_grant=Table(
            "waiting_grant",
            metadata,
            Column("grant_id", LargeBinary, primary_key=True),
            Column("subject", LargeBinary, primary_key=True),
            Column("expires_at", _INT64, nullable=False),
            Index("waiting_grant_subject", "subject", "expires_at"),
            sqlite_with_rowid=False,
        ),
        waiting_count=Table(
            "waiting_count",
            metadata,
            Column("subject", LargeBinary, primary_key=True),
            Column("waiting", _INT64, nullable=False),
            sqlite_with_rowid=False,
        ),
        cosigned=Table(
            "cosigned",
            metadata,
            # 1: enough witnesses cosigned it; 2: the newest.
            Column("place", Integer, primary_key=True, autoincrement=False),
            Column("size", _INT64, nullable=False),
            Column("root", LargeBinary, nullable=False),
            # Signature lines of the witnesses; the broker's own is made anew from its current key.
            Column("lines", LargeBinary, nullable=False),
            Column("cosigned_at", _INT64, nullable=False),
        ),
        node_checkpoint=Table(
            "node_checkpoint",
            metadata,
            Column("node", LargeBinary, primary_key=True),
            Column("origin", Text, nullable=False),
            Column("size", _INT64, nullable=False),
            Column("root", LargeBinary, nullable=False),
            # As the node signed it.
            Column("note", LargeBinary, nullable=False),
            Column("cosigned_at", _INT64, nullable=False),
        ),
    )

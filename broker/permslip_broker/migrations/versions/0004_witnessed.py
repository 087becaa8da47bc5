"""Checkpoints of the broker's ledger with witnesses' cosignatures, and of nodes' ledgers that the broker cosigned."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "cosigned",
        sa.Column("place", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("size", _INT64, nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("lines", sa.LargeBinary(), nullable=False),
        sa.Column("cosigned_at", _INT64, nullable=False),
        sa.PrimaryKeyConstraint("place"),
    )
    op.create_table(
        "node_checkpoint",
        sa.Column("node", sa.LargeBinary(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("size", _INT64, nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("note", sa.LargeBinary(), nullable=False),
        sa.Column("cosigned_at", _INT64, nullable=False),
        sa.PrimaryKeyConstraint("node"),
    )

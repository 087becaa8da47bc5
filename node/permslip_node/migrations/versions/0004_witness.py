"""What a node has cosigned of its brokers' ledgers, and the checkpoints that it refused."""

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
        "witnessed",
        sa.Column("broker", sa.LargeBinary(), nullable=False),
        sa.Column("origin", sa.Text(), server_default="", nullable=False),
        sa.Column("size", _INT64, server_default="0", nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("note", sa.LargeBinary(), nullable=False),
        sa.Column("cosigned_at", _INT64, server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("broker"),
    )
    op.create_table(
        "witness_alert",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("broker", sa.LargeBinary(), nullable=False),
        sa.Column("fault", _INT64, server_default="0", nullable=False),
        sa.Column("refused_at", _INT64, server_default="0", nullable=False),
        sa.Column("position", _INT64, server_default="0", nullable=False),
        sa.Column("seen", sa.LargeBinary(), nullable=False),
        sa.Column("offered", sa.LargeBinary(), nullable=False),
        sa.Column("detail", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("number"),
    )

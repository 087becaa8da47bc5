"""What a node remembers of each broker, so that an earlier key or state of it is not taken for the broker."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add to each broker's row what was seen of it."""
    op.add_column("broker_state", sa.Column("cert_seq", _INT64, server_default="0", nullable=False))
    op.add_column("broker_state", sa.Column("ledger_size", _INT64, server_default="0", nullable=False))
    op.add_column("broker_state", sa.Column("last_push", sa.LargeBinary(), nullable=True))
    op.add_column("broker_state", sa.Column("last_position", _INT64, server_default="0", nullable=False))

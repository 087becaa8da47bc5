"""Who said when a learner comes of age, whether authority has passed, and when to look next."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the columns."""
    op.add_column("learner", sa.Column("majority_due", _INT64))
    op.add_column("learner", sa.Column("majority_by_hand", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("learner", sa.Column("majority_in_force", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.create_index("learner_majority", "learner", ["majority_due"])

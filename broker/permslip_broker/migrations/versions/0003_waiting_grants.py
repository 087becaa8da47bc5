"""Which grants wait for their node's word, counted by signer and by node: so many, and no more, may wait."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables, and count what waits now."""
    op.create_table(
        "waiting_grant",
        sa.Column("grant_id", sa.LargeBinary(), nullable=False),
        sa.Column("subject", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", _INT64, nullable=False),
        sa.PrimaryKeyConstraint("grant_id", "subject"),
        sqlite_with_rowid=False,
    )
    op.create_index("waiting_grant_subject", "waiting_grant", ["subject", "expires_at"], unique=False)
    op.create_table(
        "waiting_count",
        sa.Column("subject", sa.LargeBinary(), nullable=False),
        sa.Column("waiting", _INT64, nullable=False),
        sa.PrimaryKeyConstraint("subject"),
        sqlite_with_rowid=False,
    )
    # Without an endorsement (0), and not ended (1 is the reason ALLOWED).
    op.execute(
        "INSERT INTO waiting_grant (grant_id, subject, expires_at) "
        "SELECT grant_id, node, expires_at FROM grant_fact WHERE verdict = 0 AND ended = 1"
    )
    op.execute(
        "INSERT INTO waiting_grant (grant_id, subject, expires_at) "
        "SELECT grant_fact.grant_id, grant_signer.key, grant_fact.expires_at FROM grant_fact "
        "JOIN grant_signer ON grant_signer.grant_id = grant_fact.grant_id "
        "WHERE grant_fact.verdict = 0 AND grant_fact.ended = 1"
    )
    op.execute(
        "INSERT INTO waiting_count (subject, waiting) SELECT subject, count(*) FROM waiting_grant GROUP BY subject"
    )

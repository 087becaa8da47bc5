"""The first schema: ledger, facts, pushes, consents, revocations."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make every table."""
    op.create_table(
        "consent",
        sa.Column("grant_id", sa.LargeBinary(), nullable=False),
        sa.Column("consent_id", sa.LargeBinary(), nullable=False),
        sa.Column("deposited_at", _INT64, nullable=False),
        sa.PrimaryKeyConstraint("grant_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "delegation_fact",
        sa.Column("delegation_id", sa.LargeBinary(), nullable=False),
        sa.Column("position", _INT64, nullable=False),
        sa.Column("grant_id", sa.LargeBinary(), nullable=False),
        sa.Column("parent_id", sa.LargeBinary(), nullable=False),
        sa.Column("delegatee", sa.LargeBinary(), nullable=False),
        sa.Column("ended", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("delegation_id"),
    )
    op.create_index("delegation_fact_grant", "delegation_fact", ["grant_id", "position"], unique=False)
    op.create_table(
        "grant_fact",
        sa.Column("grant_id", sa.LargeBinary(), nullable=False),
        sa.Column("position", _INT64, nullable=False),
        sa.Column("node", sa.LargeBinary(), nullable=False),
        sa.Column("handle", sa.LargeBinary(), nullable=False),
        sa.Column("grantee", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", _INT64, nullable=False),
        sa.Column("ended", sa.Integer(), nullable=False),
        sa.Column("endorsement_id", sa.LargeBinary(), nullable=True),
        sa.Column("approval_id", sa.LargeBinary(), nullable=True),
        sa.Column("verdict", sa.Integer(), nullable=False),
        sa.Column("valid_until", _INT64, nullable=False),
        sa.PrimaryKeyConstraint("grant_id"),
    )
    op.create_index("grant_fact_grantee", "grant_fact", ["grantee", "position"], unique=False)
    op.create_index("grant_fact_node", "grant_fact", ["node", "verdict", "position"], unique=False)
    op.create_index("grant_fact_slice", "grant_fact", ["node", "handle", "position"], unique=False)
    op.create_table(
        "grant_signer",
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("position", _INT64, autoincrement=False, nullable=False),
        sa.Column("grant_id", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("key", "position"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "leaf",
        sa.Column("position", _INT64, autoincrement=False, nullable=False),
        sa.Column("leaf_hash", sa.LargeBinary(), nullable=False),
        sa.Column("leaf", sa.LargeBinary(), nullable=True),
        sa.Column("previous", _INT64, nullable=True),
        sa.PrimaryKeyConstraint("position"),
    )
    op.create_table(
        "log_head",
        sa.Column("id", sa.Integer(), sa.CheckConstraint("id = 1"), autoincrement=False, nullable=False),
        sa.Column("size", _INT64, nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("recorded_at", _INT64, nullable=False),
        sa.Column("change_position", _INT64, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "push",
        sa.Column("node", sa.LargeBinary(), nullable=False),
        sa.Column("number", _INT64, autoincrement=False, nullable=False),
        sa.Column("statement_id", sa.LargeBinary(), nullable=False),
        sa.Column("position", _INT64, nullable=False),
        sa.PrimaryKeyConstraint("node", "number"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "push_head",
        sa.Column("node", sa.LargeBinary(), nullable=False),
        sa.Column("pushes", _INT64, nullable=False),
        sa.PrimaryKeyConstraint("node"),
    )
    op.create_table(
        "revocation_fact",
        sa.Column("revocation_id", sa.LargeBinary(), nullable=False),
        sa.Column("target_id", sa.LargeBinary(), nullable=False),
        sa.Column("node", sa.LargeBinary(), nullable=False),
        sa.Column("position", _INT64, nullable=False),
        sa.Column("acknowledgement_id", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("revocation_id"),
    )
    op.create_index("ix_revocation_fact_target_id", "revocation_fact", ["target_id"], unique=False)
    op.create_table(
        "slice",
        sa.Column("slice", _INT64, autoincrement=False, nullable=False),
        sa.Column("node", sa.LargeBinary(), nullable=False),
        sa.Column("handle", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("slice"),
        sa.UniqueConstraint("node", "handle"),
    )
    op.create_table(
        "slice_head",
        sa.Column("slice", _INT64, autoincrement=False, nullable=False),
        sa.Column("seq", _INT64, nullable=False),
        sa.Column("position", _INT64, nullable=False),
        sa.PrimaryKeyConstraint("slice"),
    )
    op.create_table(
        "slice_mark",
        sa.Column("slice", _INT64, autoincrement=False, nullable=False),
        sa.Column("seq", _INT64, autoincrement=False, nullable=False),
        sa.Column("position", _INT64, nullable=False),
        sa.PrimaryKeyConstraint("slice", "seq"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "standing_fact",
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("kind", sa.Integer(), nullable=False),
        sa.Column("admission_id", sa.LargeBinary(), nullable=True),
        sa.Column("suspension_id", sa.LargeBinary(), nullable=True),
        sa.Column("cert_id", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("root"),
    )
    op.create_table(
        "statement",
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=True),
        sa.Column("envelope_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("position", _INT64, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "subject_change",
        sa.Column("subject", sa.LargeBinary(), nullable=False),
        sa.Column("position", _INT64, nullable=False),
        sa.PrimaryKeyConstraint("subject"),
        sqlite_with_rowid=False,
    )
    op.create_index("subject_change_position", "subject_change", ["position"], unique=False)
    op.create_table(
        "tree_hash",
        sa.Column("level", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("idx", _INT64, autoincrement=False, nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("level", "idx"),
        sqlite_with_rowid=False,
    )

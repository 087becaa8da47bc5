"""The first schema: ledger, statements, records, families."""

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
        "broker_state",
        sa.Column("broker", sa.LargeBinary(), nullable=False),
        sa.Column("pushes_held", _INT64, server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("broker"),
    )
    op.create_table(
        "charged_query",
        sa.Column("query_id", sa.LargeBinary(), nullable=False),
        sa.Column("first_id", sa.LargeBinary(), nullable=False),
        sa.Column("grant_id", sa.LargeBinary(), nullable=False),
        sa.Column("requester", sa.LargeBinary(), nullable=False),
        sa.Column("scope", sa.LargeBinary(), nullable=False),
        sa.Column("decided_at", _INT64, server_default="0", nullable=False),
        sa.Column("ended", _INT64, server_default="0", nullable=False),
        sa.Column("released", _INT64, server_default="0", nullable=False),
        sa.Column("retried", sa.Boolean(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("query_id"),
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
        "family",
        sa.Column("handle", sa.LargeBinary(), nullable=False),
        sa.Column("person_id", sa.Text(), nullable=False),
        sa.Column("relation", sa.Text(), server_default="", nullable=False),
        sa.Column("lives_with", sa.Boolean(), nullable=True),
        sa.Column("primary_contact", sa.Boolean(), nullable=True),
        sa.Column("emergency_contact", sa.Boolean(), nullable=True),
        sa.Column("legal_guardian", sa.Boolean(), nullable=True),
        sa.Column("contact_restrictions", sa.Text(), server_default="", nullable=False),
        sa.Column("contact_priority", sa.Text(), server_default="", nullable=False),
        sa.Column("is_learner", sa.Boolean(), server_default="0", nullable=False),
        sa.Column("suspended_at", _INT64, server_default="0", nullable=False),
        sa.Column("removed_at", _INT64, server_default="0", nullable=False),
        sa.Column("salt", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("handle", "person_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("family_person", "family", ["person_id"], unique=False)
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
        "import_report",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("finished_at", _INT64, server_default="0", nullable=False),
        sa.Column("document", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("number"),
    )
    op.create_table(
        "import_run",
        sa.Column("run", sa.LargeBinary(), nullable=False),
        sa.Column("position", _INT64, server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("run"),
    )
    op.create_table(
        "instance",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("noticed", _INT64, server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id"),
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
        "learner",
        sa.Column("handle", sa.LargeBinary(), nullable=False),
        sa.Column("native_id", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text(), server_default="", nullable=False),
        sa.Column("quorum_rule", sa.String(length=32), server_default="", nullable=False),
        sa.Column("guardians_visible", sa.Boolean(), server_default="1", nullable=False),
        sa.Column("majority_at", _INT64, server_default="0", nullable=False),
        sa.Column("created_at", _INT64, server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("handle"),
        sa.UniqueConstraint("native_id"),
    )
    op.create_table(
        "log_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("size", _INT64, nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("recorded_at", _INT64, nullable=False),
        sa.Column("change_position", _INT64, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "outgoing",
        sa.Column("broker", sa.LargeBinary(), nullable=False),
        sa.Column("statement_id", sa.LargeBinary(), nullable=False),
        sa.Column("position", _INT64, server_default="0", nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("broker", "statement_id"),
    )
    op.create_index("outgoing_order", "outgoing", ["broker", "position"], unique=False)
    op.create_table(
        "page",
        sa.Column("handle", sa.LargeBinary(), nullable=False),
        sa.Column("section", sa.String(length=96), nullable=False),
        sa.Column("page_no", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("first_on", sa.String(length=10), nullable=False),
        sa.Column("last_on", sa.String(length=10), nullable=False),
        sa.Column("undated", sa.Integer(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("records", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("handle", "section", "page_no"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "person",
        sa.Column("person_id", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text(), server_default="", nullable=False),
        sa.Column("first_name", sa.Text(), server_default="", nullable=False),
        sa.Column("last_name", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("person_id"),
    )
    op.create_table(
        "person_key",
        sa.Column("handle", sa.LargeBinary(), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("person_id", sa.Text(), nullable=False),
        sa.Column("sealing_key", sa.LargeBinary(), nullable=False),
        sa.Column("linked_at", _INT64, server_default="0", nullable=False),
        sa.Column("retired_at", _INT64, server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("handle", "key"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "record_index",
        sa.Column("handle", sa.LargeBinary(), nullable=False),
        sa.Column("section", sa.String(length=96), nullable=False),
        sa.Column("record_id", sa.LargeBinary(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("page_no", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("handle", "section", "record_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "record_old",
        sa.Column("handle", sa.LargeBinary(), nullable=False),
        sa.Column("section", sa.String(length=96), nullable=False),
        sa.Column("record_id", sa.LargeBinary(), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("record", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("handle", "section", "record_id", "version"),
        sqlite_with_rowid=False,
    )
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
        "slip",
        sa.Column("selector", sa.LargeBinary(), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=True),
        sa.Column("handle", sa.LargeBinary(), nullable=False),
        sa.Column("person_id", sa.Text(), nullable=False),
        sa.Column("issued_at", _INT64, server_default="0", nullable=False),
        sa.Column("expires_at", _INT64, server_default="0", nullable=False),
        sa.Column("tries", _INT64, server_default="0", nullable=False),
        sa.Column("used_by", sa.LargeBinary(), nullable=True),
        sa.Column("used_at", _INT64, server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("selector"),
    )
    op.create_index("slip_family", "slip", ["handle", "person_id"], unique=False)
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
    op.create_table(
        "use_count",
        sa.Column("subject", sa.LargeBinary(), nullable=False),
        sa.Column("uses", _INT64, server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("subject"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "veto",
        sa.Column("handle", sa.LargeBinary(), nullable=False),
        sa.Column("grantee", sa.LargeBinary(), nullable=False),
        sa.Column("person_id", sa.Text(), nullable=False),
        sa.Column("revoked_at", _INT64, server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("handle", "grantee", "person_id"),
        sqlite_with_rowid=False,
    )

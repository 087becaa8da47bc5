"""The first schema: ledger, facts, pushes, consents, revocations."""

from __future__ import annotations

from alembic import op
from sqlalchemy import MetaData

from permslip_broker.schema import broker_tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this revision."""
    metadata = MetaData()
    broker_tables(metadata)
    metadata.create_all(op.get_bind())

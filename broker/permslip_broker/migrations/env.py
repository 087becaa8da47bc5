"""Where Alembic starts: the broker's tables, on the connection of the service itself."""

from __future__ import annotations

from sqlalchemy import MetaData

from permslip.hosting.database import run_migrations
from permslip_broker.schema import broker_tables

metadata = MetaData()
broker_tables(metadata)
run_migrations(metadata)

"""Alembic's entry: runs the scripts on the service's own connection (:func:`permslip.hosting.database.migrate`)."""

from __future__ import annotations

from permslip.hosting.database import run_migrations
from permslip_node.schema import METADATA

run_migrations(METADATA)

"""A node's database, fresh for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from permslip.hosting.database import migrate, open_engine


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A migrated SQLite database."""
    engine = open_engine(f"sqlite:///{tmp_path}/node.db")
    migrate(engine, "permslip_node")
    yield engine
    engine.dispose()

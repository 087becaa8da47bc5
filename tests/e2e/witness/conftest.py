"""A school's real node and a broker that offers whatever checkpoints the test says."""

from __future__ import annotations

from tests.e2e.node.conftest import database, quiet, world

__all__ = ["database", "quiet", "world"]

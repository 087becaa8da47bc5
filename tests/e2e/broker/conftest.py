"""A broker with a real server, socket and database, and a small federation around it.

``federation`` is a running broker in the test's own event loop, with two schools and two providers admitted; nothing is
attached and nothing is granted yet.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.broker.small_federation import SmallFederation


@pytest.fixture
async def federation(tmp_path: Path) -> AsyncIterator[SmallFederation]:
    """A running broker with everybody admitted."""
    made = SmallFederation(tmp_path)
    async with made.running():
        await made.admit_all()
        yield made

"""A broker with a real server and socket in the test's own loop; an auditor is admitted by each test with her scope."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.broker.small_federation import SmallFederation


@pytest.fixture
async def federation(tmp_path: Path) -> AsyncIterator[SmallFederation]:
    """A running broker with two schools and two providers admitted."""
    made = SmallFederation(tmp_path)
    async with made.running():
        await made.admit_all()
        yield made

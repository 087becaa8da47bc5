"""One honest federation for all rows: lived once by each test process, then copied."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.e2e.planted.honest import Honest
from tests.e2e.planted.revived import Revived


@pytest.fixture(scope="session")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Honest:
    """What truly happened; nothing of it runs any more."""
    return Honest.lived(tmp_path_factory.mktemp("honest") / "federation")


@pytest.fixture(scope="session")
def visited(honest: Honest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of an auditor who was there before anything was planted."""
    folder = tmp_path_factory.mktemp("visited")
    honest.copy_to(folder)

    async def visit() -> None:
        async with Revived.running(honest, folder) as revived:
            audit = await revived.audit("fetch")
            assert audit.codes == {"fetch": 0}, audit.said

    asyncio.run(visit())
    return folder / "audit.db"

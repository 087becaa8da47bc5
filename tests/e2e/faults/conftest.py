"""One district of real processes for all tests of this folder; what a test breaks is mended before the next one begins.

After each test every ledger is verified, leaf by leaf: whatever was done to the processes, no ledger may have suffered.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.federation.district import District


@pytest.fixture(scope="session")
def one_district(tmp_path_factory: pytest.TempPathFactory) -> Iterator[District]:
    """A broker and two schools, running."""
    with District(tmp_path_factory.mktemp("district")) as running:
        yield running


@pytest.fixture
async def district(one_district: District) -> AsyncIterator[District]:
    """The district in good order, before and after."""
    await one_district.heal()
    yield one_district
    await one_district.heal()
    one_district.verify_ledgers()

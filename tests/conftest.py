"""Fixtures for every test: where the repository is, and where real data is when there is any.

``shared_data`` is the folder of real and third-party data: the environment variable ``PERMSLIP_DATA`` or,
failing that, ``../shared/data`` beside the repository. It is never part of the repository, so a test that
asks for it is skipped where it is absent, and says so::

    def test_every_guardian_is_read(shared_data: Path) -> None:
        source = shared_data / "grandbend" / "edfi-1.0-full"
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How fast the machine happens to be is no property of the product.
settings.register_profile("permslip", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("permslip")

REPO_ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The repository's top folder."""
    return REPO_ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data; the test is skipped where there is none."""
    folder = Path(os.environ.get("PERMSLIP_DATA") or REPO_ROOT.parent / "shared" / "data").resolve()
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set PERMSLIP_DATA to the folder that holds grandbend/")
    return folder

"""The judges, each installed once, and a log of ours for them to judge."""

from __future__ import annotations

import pytest

from tests.thirdparty.logs import WrittenLog, write_log
from tests.thirdparty.programs import Judge, install_aics, install_go


@pytest.fixture(scope="session", params=["go", "aics"])
def judge(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Judge:
    """A verifier by others."""
    return install_go() if request.param == "go" else install_aics(tmp_path_factory.mktemp("asked"))


@pytest.fixture(scope="session")
def log(tmp_path_factory: pytest.TempPathFactory) -> WrittenLog:
    """A log of 700 entries with two witnesses, as files."""
    return write_log(tmp_path_factory.mktemp("log"), size=700, old_size=300)

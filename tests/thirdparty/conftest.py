"""The judges, each installed once, and a log of ours for them to judge."""

from __future__ import annotations

import pytest

from tests.thirdparty.logs import WrittenLog, write_log
from tests.thirdparty.programs import Aics, Go, Judge, install_aics, install_go


@pytest.fixture(scope="session")
def go() -> Go:
    """The one that guards Go's own module log."""
    return install_go()


@pytest.fixture(scope="session")
def aics(tmp_path_factory: pytest.TempPathFactory) -> Aics:
    """The one that also makes logs."""
    return install_aics(tmp_path_factory.mktemp("asked"))


@pytest.fixture(params=["go", "aics"])
def judge(request: pytest.FixtureRequest) -> Judge:
    """A verifier by others. Of one test, so that tests stay in the order of what they are shown."""
    found: Judge = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def log(tmp_path_factory: pytest.TempPathFactory) -> WrittenLog:
    """A log of 700 entries with two witnesses, as files."""
    return write_log(tmp_path_factory.mktemp("log"), size=700, old_size=300)

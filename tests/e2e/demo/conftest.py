"""A demo that was played once and stays up, for every test that looks at what it left behind."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.demo.running_demo import PlayedDemo, RunningDemo, try_commands


@pytest.fixture
def start_demo(tmp_path: Path) -> Iterator[Callable[..., RunningDemo]]:
    """Starts demos whose temporary files are below ``tmp_path``; whatever still runs at the end is ended."""
    started: list[RunningDemo] = []

    def start(*arguments: str) -> RunningDemo:
        started.append(RunningDemo(*arguments, cwd=tmp_path))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.end(signal.SIGKILL)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> PlayedDemo:
    """One demo on a small generated district, from its first act to Ctrl-C."""
    folder = tmp_path_factory.mktemp("played")
    arguments = ("--serve", "--learners", "9", "--families", "6", "--keep", "kept", "--report", "report.json")
    running = RunningDemo(*arguments, cwd=folder)
    try:
        tried = try_commands(running.until("Ctrl-C ends everything"))
        code = running.end(signal.SIGINT)
    finally:
        if running.process.poll() is None:
            running.end(signal.SIGKILL)
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return PlayedDemo(code, running.text, running.output, folder / "kept", report, tried)

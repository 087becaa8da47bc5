"""The demo from its first act to its last, and the tidying up whatever happens.

Rules:

- Everything lies in one folder: that of ``--keep``, or a temporary one that is removed at the end.
- Whatever ends the demo (its last act, a failure, Ctrl-C, SIGTERM), all its processes are ended by their own pids.

Example::

    report = run_story(Options(families=6), Narrator(console), keep=None, afterwards=write_report)
"""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from permslip.demo.auditing import audit_ledgers
from permslip.demo.central import CentralSearch
from permslip.demo.checking import check_ledgers, search_the_centre
from permslip.demo.children import Children
from permslip.demo.coming_up import bring_up, connect, load_records
from permslip.demo.federation import Federation, NodeParty
from permslip.demo.granting import grant_all, link_families
from permslip.demo.narration import Narrator
from permslip.demo.reading import assemble, lose_a_node
from permslip.demo.refusing import refuse_all, revoke_one
from permslip.demo.report import DemoReport
from permslip.demo.stage import Options, Stage
from permslip.errors import ConfigurationError

__all__ = ["run_story"]


def run_story(
    options: Options,
    narrator: Narrator,
    *,
    keep: Path | None,
    afterwards: Callable[[Stage], None],
) -> DemoReport:
    """Play all acts.

    Args:
        options: how.
        narrator: tells what happens.
        keep: a folder that does not exist yet, or is empty, in which everything stays; None: nothing stays.
        afterwards: called after the last act, while everything still runs.

    Raises:
        PermslipError: something did not come out as said.
        ConfigurationError: an option is wrong.
    """
    with _folder(keep) as folder, _terminated_like_interrupted(), Children(folder / "federation" / "logs") as children:
        federation = Federation(folder / "federation", children)
        stage = Stage(folder, options, narrator, children, federation, CentralSearch(federation))
        sources = bring_up(stage)
        rosters = load_records(stage, sources)
        connect(stage)
        asyncio.run(_with_people(stage, rosters, keep))
        search_the_centre(stage)
        audit_ledgers(stage, keep=keep)
        afterwards(stage)
        return stage.report


async def _with_people(stage: Stage, rosters: list[tuple[NodeParty, list[dict[str, Any]]]], keep: Path | None) -> None:
    await link_families(stage, rosters)
    await grant_all(stage)
    await assemble(stage, keep)
    await lose_a_node(stage)
    revoked = await revoke_one(stage)
    await refuse_all(stage, revoked)
    await check_ledgers(stage)


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="permslip-demo-") as temporary:
            yield Path(temporary)
        return
    if keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        raise ConfigurationError(f"{keep} is not empty.", key="--keep", remedy="Name a new folder.")
    keep.mkdir(parents=True, exist_ok=True, mode=0o700)
    yield keep.resolve()


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM ends the demo the way Ctrl-C does: in order. A shell's background job ignores Ctrl-C; not here."""
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: _interrupt}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(_number: int, _frame: object) -> None:
    signal.raise_signal(signal.SIGINT)

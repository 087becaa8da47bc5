"""``permslip demo``: a whole federation on this machine, narrated."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from permslip.cli.output import command_errors, emit, json_option

if TYPE_CHECKING:
    from permslip.demo.stage import Stage

__all__ = ["demo"]

_INTERRUPTED = 130
_WIDTH = 110  # where nobody looks on: a file, a pipe


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Real files: the folder of the Grand Bend set. Without it a district that does not exist is generated.",
)
@click.option("--report", type=click.Path(path_type=Path, dir_okay=False), help="Write what was found out, as JSON.")
@click.option(
    "--keep", type=click.Path(path_type=Path, file_okay=False), help="Keep everything in this new folder; else it goes."
)
@click.option("--serve", is_flag=True, help="Stay up after the last act, until Ctrl-C.")
@click.option("--seed", type=int, default=11, show_default=True, help="Of the generated district.")
@click.option(
    "--learners", type=click.IntRange(9, 10_000), default=36, show_default=True, help="In the generated district."
)
@click.option(
    "--families", type=click.IntRange(6, 10_000), help="How many link and grant; 24 generated ones, or 60 real ones."
)
@json_option
@command_errors
def demo(
    data: Path | None,
    report: Path | None,
    keep: Path | None,
    serve: bool,
    seed: int,
    learners: int,
    families: int | None,
    as_json: bool,
) -> None:
    """Run a federation of one broker and four nodes on this machine, and tell what happens.

    Three schools and a learning platform load their records, parents link and grant, providers assemble profiles, a
    node fails, a parent revokes, what nobody should get is refused, and an auditor replays all ledgers. It ends by
    itself and leaves nothing behind but the auditor's report, whose path it tells.

    Example: permslip demo --families 12

    Exit codes: 0 everything came out as said, 1 it did not, 2 called wrongly, 130 interrupted.
    """
    from rich.console import Console

    from permslip.demo.narration import Narrator
    from permslip.demo.stage import Options
    from permslip.demo.story import run_story

    # With --json the report alone is printed where machines read.
    console = Console(stderr=as_json)
    if not console.is_terminal:
        console.width = _WIDTH
    narrator = Narrator(console)

    def afterwards(stage: Stage) -> None:
        for path in (report, keep / "report.json" if keep is not None else None):
            if path is not None:
                stage.report.write(path)
                narrator.done(f"written: {path}")
        if serve:
            from permslip.demo.serving import stay_up

            stay_up(stage)

    try:
        found = run_story(Options(data, families, learners, seed), narrator, keep=keep, afterwards=afterwards)
    except KeyboardInterrupt:
        narrator.failed("interrupted; everything that ran has been ended")
        sys.exit(_INTERRUPTED)
    if as_json:
        emit(True, found.to_dict(), "")

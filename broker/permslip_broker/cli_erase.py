"""``permslip broker erase``: forget statements whose retention is over."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import click

from permslip.cli.output import command_errors, json_option
from permslip.cli.retention import emit_erased, retention_of, retention_options
from permslip.clock import system_clock
from permslip_broker.configuration import load_settings

__all__ = ["erase"]


@click.command()
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The configuration file; without it everything comes from PERMSLIP_BROKER__… variables.",
)
@retention_options
@json_option
@command_errors
def erase(config: Path | None, before: str, older_than: int | None, dry_run: bool, as_json: bool) -> None:
    """Erase the queries of accesses before a day, and the grants that had ended by then, with what hangs on them.

    The ledger says which went, and stays verifiable; an auditor who replays it is told that the evidence was erased.
    Backups are not touched. The broker may be running meanwhile.

    Example: permslip broker erase --config broker.toml --older-than 400

    Exit codes: 0 done, 1 failed, 2 called wrongly.
    """
    from permslip_broker.erasing import erase as erase_statements

    retention = retention_of(before, older_than, now=system_clock())
    settings = load_settings(config, os.environ)
    erased = asyncio.run(erase_statements(settings, retention.before, rule=retention.rule, dry_run=dry_run))
    emit_erased(as_json, erased, retention, dry_run=dry_run)

"""``permslip broker export-tiles``: the ledger as files that any tlog-tiles tool reads."""

from __future__ import annotations

import os
from pathlib import Path

import click

from permslip.cli.output import command_errors, json_option
from permslip.cli.tiles import emit_exported
from permslip_broker.configuration import load_settings

__all__ = ["export_tiles"]


@click.command("export-tiles")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The configuration file; without it everything comes from PERMSLIP_BROKER__… variables.",
)
@click.option("--entries", is_flag=True, help="Also what the entries say; the files are then readable by you alone.")
@json_option
@command_errors
def export_tiles(folder: Path, config: Path | None, entries: bool, as_json: bool) -> None:
    """Write the ledger's checkpoint and hash tiles to DIR, as c2sp.org/tlog-tiles has them.

    What is there is kept: interrupted or repeated, it adds what is missing. The broker may be running meanwhile.

    Example: permslip broker export-tiles tiles --config broker.toml

    Exit codes: 0 done, 1 failed, 2 called wrongly.
    """
    from permslip_broker.passphrases import passphrase_of
    from permslip_broker.tiles import export

    settings = load_settings(config, os.environ)
    emit_exported(as_json, folder, export(settings, folder, entries=entries, passphrase=passphrase_of(settings)))

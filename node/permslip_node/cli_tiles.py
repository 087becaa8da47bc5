"""``permslip node export-tiles``: the node's ledger as files that any tlog-tiles tool reads."""

from __future__ import annotations

import os
from pathlib import Path

import click

from permslip.cli.output import command_errors, json_option
from permslip.cli.tiles import emit_exported
from permslip_node.configuration import load_settings

__all__ = ["export_tiles"]


@click.command("export-tiles")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The configuration file; without it everything comes from PERMSLIP_NODE__… variables.",
)
@click.option("--entries", is_flag=True, help="Also what the entries say; the files are then readable by you alone.")
@json_option
@command_errors
def export_tiles(folder: Path, config: Path | None, entries: bool, as_json: bool) -> None:
    """Write the node's own ledger, its checkpoint and hash tiles, to DIR, as c2sp.org/tlog-tiles has them.

    What is there is kept: interrupted or repeated, it adds what is missing. The node may be running meanwhile.

    Example: permslip node export-tiles tiles --config high/node.toml

    Exit codes: 0 done, 1 failed, 2 called wrongly.
    """
    from permslip.checkpoints import Checkpoint, sign_checkpoint
    from permslip.clock import system_clock
    from permslip.hosting.ledger import LedgerReader
    from permslip.hosting.tile_export import export_tiles as export
    from permslip.notes import Ed25519Signer
    from permslip_node import schema
    from permslip_node.app import ledger_origin, open_store
    from permslip_node.identity import load_identity

    settings = load_settings(config, os.environ)
    identity = load_identity(settings, now=system_clock())
    origin = ledger_origin(settings, identity)
    with open_store(settings) as engine:
        ledger = LedgerReader(engine, schema.LEDGER)
        head = ledger.read_head()
        note = sign_checkpoint(Checkpoint(origin, head.size, head.root), [Ed25519Signer(origin, identity.key)])
        emit_exported(as_json, folder, export(ledger, folder, head.size, note, entries=entries))

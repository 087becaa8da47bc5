"""``permslip broker``: make one, run it, ask how it is."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import click

from permslip.cli.output import command_errors, emit, json_option, passphrase
from permslip.keys import PublicKey
from permslip_broker.cli_erase import erase
from permslip_broker.cli_tiles import export_tiles
from permslip_broker.configuration import BrokerSettings, load_settings
from permslip_broker.passphrases import passphrase_of

__all__ = ["broker"]

_config = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The configuration file; without it everything comes from PERMSLIP_BROKER__… variables.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def broker() -> None:
    """Run a broker.

    Example: permslip broker init dev && permslip broker run --config dev/broker.toml

    Exit codes: 0 done, 1 failed, 2 called wrongly, 4 refused.
    """


broker.add_command(erase)
broker.add_command(export_tiles)


@broker.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--federation", default="dev", show_default=True, help="The federation's name.")
@click.option("--listen", default="127.0.0.1:7443", show_default=True, help="HOST:PORT; port 0 takes a free one.")
@click.option("--address", help="HOST:PORT that others dial; as --listen unless given.")
@click.option("--operator", help="did:key of the federation's operator; a key is made unless given.")
@json_option
@command_errors
def init(folder: Path, federation: str, listen: str, address: str | None, operator: str | None, as_json: bool) -> None:
    """Make keys, certificate and configuration of a development broker in FOLDER.

    The permslip.toml beside them tells nodes, providers and guardians where the broker is and whom to trust.

    Example: permslip broker init dev --federation grand-bend

    Exit codes: 0 done, 1 failed, 2 called wrongly.
    """
    from permslip.clock import system_clock
    from permslip_broker.development import make_development_broker

    made = make_development_broker(
        folder,
        federation=federation,
        listen=listen,
        address=address,
        now=system_clock(),
        operator=PublicKey.from_did(operator, field="--operator") if operator else None,
    )
    document = {
        "config": str(made.config),
        "settings": str(made.joining),
        "federation": federation,
        "listen": listen,
        "root": made.root.did,
        "operator": made.operator.did,
        "operator_key_file": str(made.operator_key_file) if made.operator_key_file else None,
    }
    lines = [
        f"broker     {made.root.did}",
        f"operator   {made.operator.did}",
        f"hand out:  {made.joining}",
        f"next:      permslip broker run --config {made.config}",
    ]
    emit(as_json, document, "\n".join(lines))


@broker.command()
@_config
@command_errors
def run(config: Path | None) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is open and end.

    Example: permslip broker run --config broker.toml

    Exit codes: 0 ended in order, 1 failed, 2 called wrongly.
    """
    from permslip.hosting.logs import configure
    from permslip.hosting.serving import run as run_service
    from permslip_broker.app import open_broker

    settings = load_settings(config, os.environ)
    configure("broker", level=settings.log.level)

    async def main(stop: asyncio.Event) -> None:
        async with open_broker(settings, passphrase=passphrase_of(settings)) as running:
            _tell_ready(settings, running.port)
            await stop.wait()
            await running.drain()

    run_service(main)


@broker.command()
@_config
@json_option
@command_errors
def migrate(config: Path | None, as_json: bool) -> None:
    """Bring the database to the schema of this software, without serving.

    Example: permslip broker migrate --config broker.toml

    Exit codes: 0 done, 1 failed, 2 called wrongly.
    """
    from permslip.hosting import database

    settings = load_settings(config, os.environ)
    engine = database.open_engine(settings.database, key="broker.database")
    try:
        database.migrate(engine, "permslip_broker")
    finally:
        engine.dispose()
    emit(as_json, {"migrated": True}, "The database has the schema of this software.")


@broker.command()
@_config
@click.option(
    "--operator-key",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Ask the running broker, as the operator: also which nodes are attached.",
)
@json_option
@command_errors
def status(config: Path | None, operator_key: Path | None, as_json: bool) -> None:
    """Tell the ledger's size, its signed checkpoint, and the nodes.

    Without --operator-key it is read from the broker's database, running or not.

    Example: permslip broker status --config broker.toml --json

    Exit codes: 0 done, 1 failed, 2 called wrongly, 4 refused.
    """
    from permslip_broker.status import ask_status, read_status

    settings = load_settings(config, os.environ)
    if operator_key is None:
        document = read_status(settings, passphrase=passphrase_of(settings))
    else:
        document = ask_status(settings, operator_key, passphrase=lambda: passphrase("Passphrase of the operator key"))
    emit(as_json, document, _status_text(document))


def _status_text(document: dict[str, Any]) -> str:
    lines = [
        f"federation  {document['federation']}",
        f"broker      {document['root']}",
        f"ledger      {document['ledger_size']} entries",
        f"grants      {document['grants']}",
    ]
    for node in document["nodes"]:
        state = "" if "attached" not in node else "  attached" if node["attached"] else "  not attached"
        held = "" if "pushes_held" not in node else f"  holds {node['pushes_held']} of"
        lines.append(f"node        {node['root']}{state}{held}  {node['pushes_due']} pushes")
    if (witnesses := document.get("witnesses")) is not None:
        chosen = "named by the operator" if witnesses["pinned"] else "no set is named: admitted nodes"
        lines.append(f"witnesses   {witnesses['needed']} of {witnesses['of']} must cosign ({chosen})")
        if witnesses["cosigned_entries"]:
            lines.append(f"cosigned    {witnesses['cosigned_entries']} entries, by {len(witnesses['cosigned_by'])}")
        else:
            lines.append("cosigned    never yet: the checkpoint is signed by this broker alone")
    return "\n".join([*lines, "", document["checkpoint"]])


def _tell_ready(settings: BrokerSettings, port: int) -> None:
    if settings.ready_file is not None:
        host = settings.listen.rpartition(":")[0]
        draft = settings.ready_file.with_name(f".{settings.ready_file.name}.new")
        draft.write_text(f"{host}:{port}\n", encoding="ascii")
        draft.replace(settings.ready_file)

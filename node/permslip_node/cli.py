"""``permslip node``: make one, run it, load records, print slips, look at what it holds."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from permslip.cli.output import EXIT_PART, command_errors, emit, json_option
from permslip.clock import system_clock
from permslip.keys import PublicKey
from permslip_node.cli_erase import erase
from permslip_node.cli_families import families, slip
from permslip_node.cli_office import majority, quorum, reinstate, revoke, suspend, visibility
from permslip_node.cli_sample import sample_district
from permslip_node.cli_tiles import export_tiles
from permslip_node.configuration import NodeSettings, load_settings
from permslip_node.development import make_development_node, read_joining

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from permslip_node.importing import ImportReport

__all__ = ["node"]

config_option = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The configuration file; without it everything comes from PERMSLIP_NODE__… variables.",
)


@contextmanager
def open_database(settings: NodeSettings) -> Iterator[Engine]:
    """The node's database, with the schema of this software."""
    from permslip.hosting import database

    engine = database.open_engine(settings.database, key="node.database")
    try:
        database.migrate(engine, "permslip_node")
        yield engine
    finally:
        engine.dispose()


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def node() -> None:
    """Run a school's or provider's node.

    Example: permslip node import EdFiSampleData.zip --config high/node.toml --school 255901001

    Exit codes: 0 done, 1 failed, 2 called wrongly, 3 done in part, 4 refused.
    """


for each in (families, slip, suspend, reinstate, quorum, visibility, majority, revoke, erase, sample_district):
    node.add_command(each)
node.add_command(export_tiles)


@node.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--name", required=True, help="The node's name, as parents see it.")
@click.option(
    "--join",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The permslip.toml that the federation hands out; it says all that follows.",
)
@click.option("--federation", help="The federation's name.")
@click.option("--operator", help="did:key of the federation's operator.")
@click.option("--broker", "brokers", multiple=True, help="ADDRESS=DID; may be given several times.")
@json_option
@command_errors
def init(
    folder: Path,
    name: str,
    join: Path | None,
    federation: str | None,
    operator: str | None,
    brokers: tuple[str, ...],
    as_json: bool,
) -> None:
    """Make keys, certificate and configuration of a node in FOLDER.

    The federation's operator then admits it by node.cert: see permslip operator admit --help.

    Example: permslip node init high --name "High School" --join permslip.toml

    Exit codes: 0 done, 1 failed, 2 called wrongly.
    """
    broker_ca = None
    if join is not None:
        if federation or operator or brokers:
            raise click.UsageError("--join says what --federation, --operator and --broker say: give one or the other.")
        told = read_joining(join)
        federation, operator, brokers, broker_ca = told.federation, told.operator, told.brokers, told.broker_ca
    if not operator or not brokers:
        raise click.UsageError("Give --join FILE, or --federation, --operator and --broker.")
    made = make_development_node(
        folder,
        name=name,
        federation=federation or "dev",
        operator=PublicKey.from_did(operator, field="--operator"),
        brokers=brokers,
        now=system_clock(),
        broker_ca=broker_ca,
    )
    load_settings(made.config, {})
    document = {"config": str(made.config), "cert": str(made.cert), "root": made.root.did, "name": name}
    text = f"node   {made.root.did}\ncert   {made.cert}\nnext:  permslip node run --config {made.config}"
    emit(as_json, document, text)


@node.command()
@config_option
@command_errors
def run(config: Path | None) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is open and end.

    Example: permslip node run --config high/node.toml

    Exit codes: 0 ended in order, 1 failed, 2 called wrongly.
    """
    from permslip.hosting.logs import configure
    from permslip.hosting.serving import run as run_service
    from permslip_node.app import open_node

    settings = load_settings(config, os.environ)
    configure("node", level=settings.log.level)

    async def main(stop: asyncio.Event) -> None:
        async with open_node(settings) as running:
            await stop.wait()
            await running.drain()

    run_service(main)


@node.command()
@config_option
@json_option
@command_errors
def migrate(config: Path | None, as_json: bool) -> None:
    """Bring the database to the schema of this software, without serving.

    Example: permslip node migrate --config high/node.toml

    Exit codes: 0 done, 1 failed, 2 called wrongly.
    """
    with open_database(load_settings(config, os.environ)):
        emit(as_json, {"migrated": True}, "The database has the schema of this software.")


@node.command("import")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@config_option
@click.option(
    "--format",
    "source",
    type=click.Choice(["edfi", "lms", "families"]),
    default="edfi",
    show_default=True,
    help="Ed-Fi Core 1.0 XML (files, folders, zip); a Canvas-style CSV extract (one folder); or only the guardians of "
    "learners this node has already, from Ed-Fi StudentParent files.",
)
@click.option("--school", help="Keep only learners enrolled at this StateOrganizationId (edfi).")
@click.option(
    "--rejects",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File for rows that cannot be read; import-rejects.jsonl beside the configuration unless given.",
)
@json_option
@command_errors
def import_records(
    paths: tuple[Path, ...],
    config: Path | None,
    source: str,
    school: str | None,
    rejects: Path | None,
    as_json: bool,
) -> None:
    """Import records and families from PATHS.

    The same file twice changes nothing; a newer one makes versions; an interrupted import goes on where it stopped when
    it is started again. The node may be running meanwhile.

    Example: permslip node import extract/ --format lms --config platform/node.toml

    Exit codes: 0 every row was read, 1 failed, 2 called wrongly, 3 some rows were rejected.
    """
    from permslip_node.inspection import keep_import_report

    settings = load_settings(config, os.environ)
    if rejects is None:
        rejects = (config.parent if config is not None else Path()) / "import-rejects.jsonl"
    with open_database(settings) as engine, _progress(quiet=as_json) as told:
        report = _import(source, paths, engine, settings, school=school, rejects=rejects, told=told)
        keep_import_report(engine, report, now=system_clock())
    document = report.to_dict() | {"peak_mb": _peak_mb(), "rejects_file": str(rejects) if report.rejected else None}
    emit(as_json, document, _import_text(report, rejects))
    if report.exit_code:
        sys.exit(EXIT_PART)


@node.command()
@config_option
@json_option
@command_errors
def report(config: Path | None, as_json: bool) -> None:
    """Tell what is held per section, which source entities no importer maps, and what this node witnessed.

    Example: permslip node report --config high/node.toml

    Exit codes: 0 done, 1 failed, 2 called wrongly.
    """
    from permslip_node.inspection import read_holdings
    from permslip_node.witness_report import read_witnessed, witnessed_lines

    settings = load_settings(config, os.environ)
    with open_database(settings) as engine:
        holdings = read_holdings(engine)
        witnessed = read_witnessed(engine)
    lines = [
        f"{settings.name}",
        f"  learners          {holdings.learners:>9,}  ({holdings.learners_with_records:,} with records)",
        (
            f"  guardian links    {holdings.guardian_links:>9,}  ({holdings.guardians:,} persons, "
            f"{holdings.linked_keys:,} linked keys)"
        ),
        f"  ledger entries    {holdings.ledger_entries:>9,}",
        "",
        "  records held, by section",
        *(f"    {section:<42} {count:>9,}" for section, count in holdings.sections.items()),
        f"    {'older versions':<42} {holdings.older_versions:>9,}",
    ]
    if holdings.rejected:
        lines += ["", f"  rows that could not be read: {holdings.rejected:,} (see the rejects file of the import)"]
    if holdings.unmapped:
        lines += ["", "  source entities that no importer maps"]
        lines += [f"    {entity:<42} {rows:>9,}" for entity, rows in sorted(holdings.unmapped.items())]
    lines += witnessed_lines(witnessed)
    emit(as_json, {"name": settings.name} | holdings.to_dict() | {"witnessed": witnessed}, "\n".join(lines))


def _import(
    source: str,
    paths: tuple[Path, ...],
    engine: Engine,
    settings: NodeSettings,
    *,
    school: str | None,
    rejects: Path,
    told: Any,
) -> ImportReport:
    from permslip_node.importing import import_edfi, import_families, import_lms
    from permslip_node.inspection import list_learners
    from permslip_node.sql_sink import SqlSink

    if school is not None and source != "edfi":
        raise click.UsageError("--school goes with --format edfi alone.")
    sink = SqlSink(engine, clock=system_clock, majority_age=settings.majority_age)
    if source == "lms":
        if len(paths) != 1 or not paths[0].is_dir():
            raise click.UsageError("--format lms takes one folder.")
        return import_lms(paths[0], sink, node_name=settings.name, on_progress=told, rejects=rejects)
    if source == "families":
        return import_families(paths, sink, learners=list_learners(engine), on_progress=told, rejects=rejects)
    return import_edfi(paths, sink, only_school=school, node_name=settings.name, on_progress=told, rejects=rejects)


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Any]:
    """A bar for each file, on standard error, where a person is looking."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    tasks: dict[str, Any] = {}
    with Progress(*columns, console=Console(stderr=True)) as progress:

        def told(file: str, done: int, total: int) -> None:
            if file not in tasks:
                tasks[file] = progress.add_task(Path(file).name, total=total)
            progress.update(tasks[file], completed=done)

        yield told


def _import_text(report: ImportReport, rejects: Path) -> str:
    lines = [
        (
            f"{len(report.files)} files read in {report.seconds:.1f} s: {report.inserted:,} records new, "
            f"{report.versioned:,} changed, {report.unchanged:,} unchanged"
        ),
        f"{report.learners:,} learners, {report.guardian_links:,} guardian links",
    ]
    if report.unmapped:
        lines.append(f"entities that no importer maps: {', '.join(sorted(report.unmapped))}")
    if report.rejected:
        lines.append(f"{report.rejected:,} rows could not be read: {rejects} says which and why")
    return "\n".join(lines)


def _peak_mb() -> float:
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)

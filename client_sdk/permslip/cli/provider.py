"""``permslip provider``: list grants, assemble profiles, stream records, export values."""

from __future__ import annotations

import csv
import io
import json
import sys
from typing import TYPE_CHECKING, Any

import click

from permslip.cli.connecting import (
    connected,
    emit_profile,
    last_day,
    run,
    server_arguments,
    settings_of,
    write_private,
)
from permslip.cli.output import command_errors, emit, json_option, passphrase, table

if TYPE_CHECKING:
    from permslip.client.providing import AsyncClient

__all__ = ["provider"]

_sections = click.option("--section", "sections", multiple=True, help="Only this path; may be repeated.")
_from = click.option("--from", "records_from", default="", metavar="YYYY-MM-DD", help="Only records from this day on.")
_until = click.option("--until", "records_until", default="", metavar="YYYY-MM-DD", help="Only records to this day.")
_timeout = click.option("--timeout", type=click.FloatRange(0.001, 120), help="Seconds to wait for the answer.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@connected("key", "cert")
@click.pass_context
def provider(context: click.Context, /, **given: str | None) -> None:
    """Use the consents that were given to you.

    Settings come from options, PERMSLIP_… variables, or permslip.toml, in this order.

    LEARNER is your own reference for the learner, as the parent wrote it, or the id of a consent or grant.

    Example: permslip provider --config tutor.toml grants

    Exit codes: 0 done, 1 failed, 2 called wrongly, 3 a node gave no answer, 4 refused.
    """
    context.obj = given


@provider.command()
@json_option
@click.pass_obj
@command_errors
def grants(given: dict[str, str | None], as_json: bool) -> None:
    """List the consents that were given to you, and where they stand.

    Example: permslip provider grants --json

    Exit codes: 0 done, 1 failed, 2 called wrongly, 4 refused.
    """

    async def listed() -> list[dict[str, Any]]:
        async with _client(given) as client:
            return [view.to_dict() async for view in client.grants()]

    found = run(listed)
    rows = [
        (
            each["reference"],
            each["node_name"],
            each["status"],
            each["purpose"],
            last_day(each["expires_at"]),
            each["grant_id"],
        )
        for each in found
    ]
    text = table(("learner", "node", "status", "purpose", "last day", "grant"), rows) if rows else "No consent yet."
    emit(as_json, found, text)


@provider.command()
@click.argument("learner")
@_sections
@_from
@_until
@_timeout
@click.option("--out", metavar="FILE", help="Write the profile as JSON.")
@click.option("--svg", metavar="FILE", help="Draw the jagged profile.")
@json_option
@click.pass_obj
@command_errors
def profile(
    given: dict[str, str | None],
    learner: str,
    sections: tuple[str, ...],
    records_from: str,
    records_until: str,
    timeout: float | None,
    out: str | None,
    svg: str | None,
    as_json: bool,
) -> None:
    """Assemble a LEARNER's profile from every node that a consent names, and say what is missing.

    Example: permslip provider profile learner-17 --section transcript --svg learner-17.svg

    Exit codes: 0 done, 1 failed, 2 called wrongly, 3 a node gave no answer, 4 refused.
    """

    async def assembled() -> Any:
        async with _client(given) as client:
            return await client.profile(
                learner,
                sections=sections or None,
                records_from=records_from,
                records_until=records_until,
                timeout=timeout,
            )

    sys.exit(emit_profile(run(assembled), as_json=as_json, out=out, svg=svg))


@provider.command()
@click.argument("learner")
@_sections
@_from
@_until
@_timeout
@json_option
@click.pass_obj
@command_errors
def records(
    given: dict[str, str | None],
    learner: str,
    sections: tuple[str, ...],
    records_from: str,
    records_until: str,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Stream a LEARNER's records as they arrive; with --json one JSON document for each line.

    The exit code says whether all of them came: 0 only then.

    Example: permslip provider records learner-17 --section personal.attendance --json

    Exit codes: 0 done, 1 failed or cut short, 2 called wrongly, 4 refused.
    """

    async def streamed() -> None:
        async with _client(given) as client:
            stream = await client.record_stream(
                learner,
                sections=sections or None,
                records_from=records_from,
                records_until=records_until,
                timeout=timeout,
            )
            async for entry in stream:
                if as_json:
                    click.echo(json.dumps(entry.to_dict(), ensure_ascii=False))
                else:
                    values = ", ".join(f"{fact.name}={fact.text}" for fact in entry.facts())
                    click.echo(f"{entry.observed_on or '          '}  {entry.node_name}  {entry.section}  {values}")

    run(streamed)


@provider.command()
@click.argument("learner")
@_sections
@_from
@_until
@_timeout
@click.option("--out", metavar="FILE", help="Where the CSV goes; standard output unless given.")
@json_option
@click.pass_obj
@command_errors
def frame(
    given: dict[str, str | None],
    learner: str,
    sections: tuple[str, ...],
    records_from: str,
    records_until: str,
    timeout: float | None,
    out: str | None,
    as_json: bool,
) -> None:
    """Export a LEARNER's single values, one row each with its provenance, as CSV.

    What is missing is named on standard error.

    Example: permslip provider frame learner-17 --section transcript.grades --out grades.csv

    Exit codes: 0 done, 1 failed, 2 called wrongly, 3 a node gave no answer, 4 refused.
    """
    from permslip.cli.profile_text import gaps_text
    from permslip.coverage import Held
    from permslip.profile import COLUMNS

    async def assembled() -> Any:
        async with _client(given) as client:
            return await client.profile(
                learner,
                sections=sections or None,
                records_from=records_from,
                records_until=records_until,
                timeout=timeout,
            )

    found = run(assembled)
    rows = [fact.to_dict() for fact in found.facts()]
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    if out is not None:
        write_private(out, text.getvalue())
    if as_json:
        emit(True, {"rows": len(rows), "file": out or "", "values": [] if out else rows}, "")
    elif out is not None:
        click.echo(f"{len(rows)} values written to {out}")
    else:
        click.echo(text.getvalue(), nl=False)
    if gaps := gaps_text(found):
        click.echo(gaps, err=True)
    if any(each.state == Held.UNREACHABLE for each in found.coverage):
        sys.exit(3)


def _client(given: dict[str, str | None]) -> AsyncClient:
    from permslip.client.providing import AsyncClient

    settings = settings_of(given)
    return AsyncClient(
        **server_arguments(settings),
        keys=settings.need("key"),
        cert=settings.get("cert"),
        passphrase=lambda: passphrase("Passphrase of your key"),
    )

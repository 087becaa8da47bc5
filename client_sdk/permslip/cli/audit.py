"""``permslip audit``: fetch ledgers into a bundle, verify, replay and reconcile it, report, watch."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from permslip.cli.auditing import bundle_path, checking, findings_of, finish, summary, trust_of, watched
from permslip.cli.connecting import connected, run, server_arguments, settings_of
from permslip.cli.output import emit, json_option, passphrase

if TYPE_CHECKING:
    from permslip.auditing.alerts import Alert
    from permslip.auditing.bundle import Bundle
    from permslip.auditing.results import Result
    from permslip.checkpoints import Checkpoint
    from permslip.client.auditing import AsyncAuditorClient
    from permslip.client.settings import Settings

__all__ = ["audit"]

_bundle = click.argument("bundle", type=bundle_path)
_nodes = click.option(
    "--node", "nodes", multiple=True, metavar="DID", help="Only this node beside the broker; may be repeated."
)
_broker_only = click.option("--broker-only", is_flag=True, help="Only the broker's ledger.")
_last = click.option(
    "--last",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="A checkpoint that you kept from an earlier visit; may be repeated. Its ledger must continue it.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@connected("key", "cert", "witnesses")
@click.pass_context
def audit(context: click.Context, /, **given: str | None) -> None:
    """Prove from the ledgers that every access was rightly decided, and that nothing was left out.

    Settings come from options, PERMSLIP_… variables, or permslip.toml, in this order. Only fetch and watch call the
    broker; the others work on the BUNDLE alone, and compare the keys it names with those you trust.

    Example: permslip audit --config auditor.toml fetch audit.db

    Exit codes: 0 clean, 1 findings, 2 could not check.
    """
    context.obj = given


@audit.command()
@_bundle
@_nodes
@_broker_only
@_last
@json_option
@click.pass_obj
@checking
def fetch(
    given: dict[str, str | None],
    bundle: Path,
    nodes: tuple[str, ...],
    broker_only: bool,
    last: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Pull the ledgers in your scope, and the statements they name, into BUNDLE, one SQLite file.

    What is there is gone on from, also after an interruption: everything is verified as it comes.

    Example: permslip audit --config auditor.toml fetch audit.db

    Exit codes: 0 done, 1 what came does not hold, 2 not everything could be fetched.
    """
    from permslip.auditing.fetching import Fetch, new_meta

    settings = settings_of(given)
    trust = trust_of(settings)
    wanted = _roots(nodes, broker_only=broker_only)
    seen = [_checkpoint(each) for each in last]

    async def fetched() -> tuple[Result, list[dict[str, Any]]]:
        async with _client(settings) as client:
            with _bundle_at(bundle, await new_meta(client)) as opened, watched(quiet=as_json) as progress:
                visit = Fetch(client, opened, trust, nodes=wanted, last=seen, progress=progress)
                result = await visit.run()
                return result, findings_of(opened, "fetch")

    result, listed = run(fetched)
    finish(result, listed, as_json=as_json, about=str(bundle))


@audit.command()
@click.argument("bundle", metavar="BUNDLE_OR_LOG")
@click.option("--vkey", help="The verifier key of a log by others: BUNDLE_OR_LOG is then its folder or http address.")
@click.option("--witness", "witnesses", multiple=True, metavar="VKEY", help="With --vkey: a witness; may be repeated.")
@click.option("--quorum", type=click.IntRange(1), help="With --vkey: how many must have cosigned; a majority.")
@click.option("--origin", help="With --vkey: the checkpoint's first line, where it is not the key's name.")
@json_option
@click.pass_obj
@checking
def verify(
    given: dict[str, str | None],
    bundle: str,
    vkey: str | None,
    witnesses: tuple[str, ...],
    quorum: int | None,
    origin: str | None,
    as_json: bool,
) -> None:
    """Verify checkpoints, cosignatures, every leaf, every slice's chain and every statement of a bundle.

    With --vkey any C2SP tlog-tiles log is verified: checkpoint, entries against tiles, tiles up to the root.

    Example: permslip audit --config auditor.toml verify audit.db

    Exit codes: 0 clean, 1 findings, 2 could not check.
    """
    if vkey is not None:
        from permslip.auditing.foreign_logs import verify_log

        with watched(quiet=as_json) as progress:
            result, found = verify_log(
                bundle, vkey, witnesses=witnesses, quorum=quorum or 0, origin=origin, progress=progress
            )
        listed = [{"severity": "fault", "code": str(each.code), "message": each.message} for each in found]
        finish(result, listed, as_json=as_json, about=bundle)
    from permslip.auditing.verifying import verify as checked

    _check(given, Path(bundle), checked, as_json=as_json)


@audit.command()
@_bundle
@json_option
@click.pass_obj
@checking
def replay(given: dict[str, str | None], bundle: Path, as_json: bool) -> None:
    """Decide every access of BUNDLE again, with the facts as of its position, and report every other verdict.

    Verify the bundle first: replaying believes that its leaves are the ledger's. Where it was not verified since the
    last fetch, standard error says so, and with --json «verified» is false.

    Example: permslip audit --config auditor.toml replay audit.db --json

    Exit codes: 0 clean, 1 findings, 2 could not check.
    """
    from permslip.auditing.replaying import replay as replayed

    _check(given, bundle, replayed, as_json=as_json)


@audit.command()
@_bundle
@json_option
@click.pass_obj
@checking
def reconcile(given: dict[str, str | None], bundle: Path, as_json: bool) -> None:
    """Compare what the broker routed with what the nodes of BUNDLE served, and what was revoked with what was used.

    Example: permslip audit --config auditor.toml reconcile audit.db

    Exit codes: 0 clean, 1 findings, 2 could not check.
    """
    from permslip.auditing.reconciling import reconcile as reconciled

    _check(given, bundle, reconciled, as_json=as_json)


@audit.command()
@_bundle
@click.option("--out", type=bundle_path, help="The HTML file; BUNDLE's name with .html unless given.")
@click.option("--pdf", type=bundle_path, help="Also as PDF; needs the «report» extra.")
@json_option
@checking
def report(bundle: Path, out: Path | None, pdf: Path | None, as_json: bool) -> None:
    """Write a report of BUNDLE that a school board can read: findings, figures, and how to check it oneself.

    It tells what verify, replay and reconcile found: run them first.

    Example: permslip audit report audit.db --out report.html

    Exit codes: 0 written, 2 could not be written.
    """
    from permslip.auditing.bundle import Bundle
    from permslip.auditing.reporting import write_report

    with Bundle.open(bundle) as opened:
        written = write_report(opened, out or bundle.with_suffix(".html"), pdf=pdf)
    files = [str(each) for each in (written, pdf) if each is not None]
    emit(as_json, {"files": files}, "\n".join(files))


@audit.command()
@_bundle
@_nodes
@_broker_only
@_last
@click.option("--every", type=click.FloatRange(0.1, 3_600), default=1.0, help="Seconds between two looks; 1.")
@click.option("--once", is_flag=True, help="Look once, and end.")
@click.option("--until-finding", is_flag=True, help="End with the first fault.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document a line; the last is the result.")
@click.pass_obj
@checking
def watch(
    given: dict[str, str | None],
    bundle: Path,
    nodes: tuple[str, ...],
    broker_only: bool,
    last: tuple[Path, ...],
    every: float,
    once: bool,
    until_finding: bool,
    as_json: bool,
) -> None:
    """Fetch, verify and replay the ledgers into BUNDLE as they grow, and print what is wrong within seconds.

    Goes on until it is stopped (Ctrl-C, SIGTERM). One line for each fault or warning, nothing while all is well.

    Example: permslip audit --config auditor.toml watch audit.db --until-finding

    Exit codes: 0 nothing was wrong, 1 findings, 2 could not check.
    """
    from permslip.auditing.feeding import ClientFeed
    from permslip.auditing.fetching import new_meta
    from permslip.auditing.stopping import stopping
    from permslip.auditing.watching import Watch

    settings = settings_of(given)
    trust = trust_of(settings)
    wanted, seen = _roots(nodes, broker_only=broker_only), [_checkpoint(each) for each in last]
    is_there = bundle.exists()

    def tell(alert: Alert) -> None:
        click.echo(json.dumps(alert.to_dict(), ensure_ascii=False) if as_json else alert.line)

    async def until_stopped() -> Result:
        with stopping() as stop:
            async with _client(settings) as client:
                with _bundle_at(bundle, {} if is_there else await new_meta(client)) as opened:
                    feed = ClientFeed(client, opened, trust, nodes=wanted, last=seen)
                    watching = Watch(feed, opened, trust, tell=tell, stop=stop, every=every)
                    return await watching.run(once=once, until_finding=until_finding)

    if not as_json:
        click.echo(f"Watching into {bundle}. Ctrl-C ends it.", err=True)
    result = run(until_stopped)
    click.echo(json.dumps(result.to_dict(), ensure_ascii=False) if as_json else summary(result, about=str(bundle)))
    sys.exit(result.exit_code)


def _check(given: dict[str, str | None], path: Path, check: Any, *, as_json: bool) -> None:
    """Run a check of a bundle and end with its exit code."""
    from permslip.auditing.bundle import Bundle
    from permslip.auditing.finding import results_of

    trust = trust_of(settings_of(given))
    with Bundle.open(path) as opened:
        with watched(quiet=as_json) as progress:
            result: Result = check(opened, trust, progress=progress)
        listed = findings_of(opened, result.step)
        is_verified = results_of(opened.db).get("verify") in ("clean", "findings")
    if not is_verified and not as_json:
        click.echo(
            "Not verified as it is now: this is no more than what the file says. Run: permslip audit verify", err=True
        )
    finish(result, listed, as_json=as_json, about=str(path), is_verified=is_verified)


def _roots(nodes: tuple[str, ...], *, broker_only: bool) -> list[bytes] | None:
    """The nodes that were named; None: all in scope."""
    from permslip.keys import PublicKey

    return [] if broker_only else [PublicKey.from_did(each, field="node").raw for each in nodes] or None


def _checkpoint(path: Path) -> Checkpoint:
    """An earlier checkpoint that the auditor kept: her own file, so its signature was her business then."""
    from permslip.checkpoints import Checkpoint
    from permslip.notes import parse_note

    return Checkpoint.parse(parse_note(path.read_bytes()).untrusted_text)


def _bundle_at(path: Path, meta: dict[str, str]) -> Bundle:
    """The bundle that is there, or a new one."""
    from permslip.auditing.bundle import Bundle

    return Bundle.open(path) if path.exists() else Bundle.create(path, meta)


def _client(settings: Settings) -> AsyncAuditorClient:
    from permslip.client.auditing import AsyncAuditorClient

    return AsyncAuditorClient(
        **server_arguments(settings),
        keys=settings.need("key"),
        cert=settings.get("cert"),
        passphrase=lambda: passphrase("Passphrase of your key"),
    )

"""``permslip operator``: admit and suspend organizations, register their certificates, look at the broker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from permslip import statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.armor import read_statement
from permslip.audit_scope import make_scope
from permslip.cli.output import command_errors, emit, json_option, passphrase
from permslip.cli.witnesses import witnesses
from permslip.errors import KeyRejectedError
from permslip.keys import PublicKey, did_text

if TYPE_CHECKING:
    from permslip.client.operating import AsyncOperatorClient
    from permslip.client.settings import Settings

__all__ = ["operator"]

R = TypeVar("R")
_KINDS = ("provider", "node", "auditor")
_DAY_MS: Final = 86_400_000


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="A permslip.toml.")
@click.option("--broker", help="HOST:PORT of the broker; also PERMSLIP_BROKER.")
@click.option("--broker-root", help="did:key of the broker's root; also PERMSLIP_BROKER_ROOT.")
@click.option("--federation", help="The federation's name; also PERMSLIP_FEDERATION.")
@click.option("--key", help="The operator's key file; also PERMSLIP_KEY.")
@click.option("--tls-ca", help="PEM file of the certificates to trust; also PERMSLIP_TLS_CA.")
@click.pass_context
def operator(context: click.Context, /, config: Path | None, **given: str | None) -> None:
    """Act as the federation's operator.

    Settings come from options, PERMSLIP_… variables, or permslip.toml, in this order.

    Example: permslip operator --config dev/operator.toml status

    Exit codes: 0 done, 1 failed, 2 called wrongly, 4 refused.
    """
    context.obj = (config, given)


operator.add_command(witnesses)


@operator.command()
@click.argument("did", required=False)
@click.option("--kind", type=click.Choice(_KINDS), required=True, help="What the organization is.")
@click.option("--name", required=True, help="Its name, as parents see it.")
@click.option("--agreement", required=True, help="Id of the data agreement (NDPA or the like).")
@click.option(
    "--cert", type=click.Path(path_type=Path, dir_okay=False), help="Register this certificate as well; it names DID."
)
@click.option("--nodes", "nodes", multiple=True, metavar="DID", help="Auditor: of this node alone; may be repeated.")
@click.option("--from", "first_day", default="", metavar="YYYY-MM-DD", help="Auditor: accesses from this day on, UTC.")
@click.option("--until", "last_day", default="", metavar="YYYY-MM-DD", help="Auditor: accesses to this day, UTC.")
@json_option
@click.pass_obj
@command_errors
def admit(
    obj: Any,
    did: str | None,
    kind: str,
    name: str,
    agreement: str,
    cert: Path | None,
    nodes: tuple[str, ...],
    first_day: str,
    last_day: str,
    as_json: bool,
) -> None:
    """Admit the organization with the root key DID, or that of its certificate; ends a suspension.

    A certificate that came by mail is whose it says, not who sent it: compare the root key with the organization first.
    An auditor may see everything, unless --nodes, --from and --until say what.

    Example: permslip operator admit --cert tutor.cert --kind provider --name "Bright Tutors" --agreement NDPA-7

    Exit codes: 0 done, 1 failed, 2 called wrongly, 4 refused.
    """
    envelope = read_statement(cert, st.KEY_CERT) if cert is not None else None
    if envelope is not None:
        root = st.verify(st.KEY_CERT, envelope, federation=_settings(obj).need("federation")).payload.root
        if did not in (None, did_text(root)):
            raise KeyRejectedError(f"{cert} is a certificate of {did_text(root)}.", remedy="Give one of DID's own.")
    elif did is not None:
        root = PublicKey.from_did(did, field="DID").raw
    else:
        raise click.UsageError("Name DID, or give --cert.")
    scope = _scope(kind, nodes, first_day, last_day)

    async def act(client: AsyncOperatorClient) -> str:
        known = await client.organization(root)
        if known is not None and known.kind_name != kind:
            raise KeyRejectedError(
                f"{did_text(root)} is admitted already, as the {known.kind_name} {known.name!r}.",
                remedy=f"Say --kind {known.kind_name}, or have the organization make another root key.",
            )
        signed = await client.admit(root, kind=kind, name=name, agreement_id=agreement, audit_scope=scope)
        if envelope is not None:
            await client.register([envelope])
        return signed.id.hex()

    identifier = _run(obj, act)
    admitted = did_text(root)
    document: dict[str, Any] = {
        "admitted": admitted,
        "kind": kind,
        "name": name,
        "statement_id": identifier,
        "registered": str(cert or ""),
    }
    if scope is not None:
        document["scope"] = {"nodes": sorted(nodes), "from": first_day, "until": last_day}
    emit(as_json, document, f"admitted {name} ({kind})\n{admitted}")


@operator.command()
@click.argument("did")
@click.option("--agreement", default="", help="Id of the data agreement that was broken.")
@json_option
@click.pass_obj
@command_errors
def suspend(obj: Any, did: str, agreement: str, as_json: bool) -> None:
    """Suspend the organization with the root key DID from now: nobody answers it any more.

    Example: permslip operator suspend did:key:z6Mk…

    Exit codes: 0 done, 1 failed, 2 called wrongly, 4 refused.
    """
    root = PublicKey.from_did(did, field="DID").raw

    async def act(client: AsyncOperatorClient) -> tuple[str, str]:
        known = await client.organization(root)
        if known is None:
            raise KeyRejectedError(
                f"no organization with the root key {did} is admitted, so there is nothing to suspend.",
                remedy="Give the root key that admit printed; online keys are not it.",
            )
        signed = await client.suspend(root, agreement_id=agreement)
        return known.name, signed.id.hex()

    name, identifier = _run(obj, act)
    emit(as_json, {"suspended": did, "name": name, "statement_id": identifier}, f"suspended {name}\n{did}")


@operator.command()
@click.argument("certs", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False))
@json_option
@click.pass_obj
@command_errors
def register(obj: Any, certs: tuple[Path, ...], as_json: bool) -> None:
    """Register the key certificates in CERTS; each is signed by its organization's own root.

    Example: permslip operator register high/node.cert

    Exit codes: 0 done, 1 failed, 2 called wrongly, 4 refused.
    """
    statements = [read_statement(each, st.KEY_CERT) for each in certs]
    _run(obj, lambda client: client.register(statements))
    emit(as_json, {"registered": [str(each) for each in certs]}, f"registered {len(certs)}")


@operator.command()
@json_option
@click.pass_obj
@command_errors
def status(obj: Any, as_json: bool) -> None:
    """Tell the broker's ledger size and which nodes are attached.

    Example: permslip operator status --json

    Exit codes: 0 done, 1 failed, 2 called wrongly, 4 refused.
    """
    found = _run(obj, lambda client: client.status())
    lines = [f"ledger   {found.ledger_size} entries", f"grants   {found.grants}"]
    lines += [
        f"node     {did_text(each.root)}  {each.name}  {'attached' if each.attached else 'not attached'}  "
        f"holds {each.pushes_held} of {each.pushes_due} pushes"
        for each in found.nodes
    ]
    emit(as_json, found.to_dict(), "\n".join(lines))


def _scope(kind: str, nodes: tuple[str, ...], first_day: str, last_day: str) -> pb.AuditScope | None:
    """What an auditor is to see; None for other organizations."""
    if kind != "auditor":
        if nodes or first_day or last_day:
            raise click.UsageError("--nodes, --from and --until are an auditor's.")
        return None
    roots = tuple(PublicKey.from_did(each, field="--nodes").raw for each in nodes)
    begins, after = _day(first_day, "--from"), _day(last_day, "--until")
    ends = after + _DAY_MS if last_day else 0
    if begins and ends and begins >= ends:
        raise click.UsageError("--until lies before --from.")
    return make_scope(nodes=roots, begins=begins, ends=ends)


def _day(text: str, option: str) -> int:
    """When a day begins, UTC milliseconds; 0 where none was given."""
    if not text:
        return 0
    try:
        return round(datetime.combine(date.fromisoformat(text), time.min, UTC).timestamp() * 1_000)
    except ValueError:
        raise click.UsageError(f"{option}: expected a day such as 2026-09-01, got {text!r}.") from None


def _settings(obj: Any) -> Settings:
    from permslip.client.settings import load_settings

    config, given = obj
    return load_settings(file=config, given=given)


def _run(obj: Any, act: Callable[[AsyncOperatorClient], Awaitable[R]]) -> R:
    from permslip.client.operating import AsyncOperatorClient

    settings = _settings(obj)

    async def session() -> R:
        async with AsyncOperatorClient(
            broker=settings.need("broker"),
            broker_root=settings.need("broker_root"),
            federation=settings.need("federation"),
            keys=settings.need("key"),
            passphrase=lambda: passphrase("Passphrase of the operator's key"),
            tls_ca=settings.get("tls_ca"),
        ) as client:
            return await act(client)

    return asyncio.run(session())

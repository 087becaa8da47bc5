"""``permslip operator``: admit and suspend organizations, register their certificates, look at the broker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from permslip import statements as st
from permslip.armor import read_statement
from permslip.cli.output import command_errors, emit, json_option, passphrase
from permslip.errors import KeyRejectedError
from permslip.keys import PublicKey, did_text

if TYPE_CHECKING:
    from permslip.client.operating import AsyncOperatorClient
    from permslip.client.settings import Settings

__all__ = ["operator"]

R = TypeVar("R")
_KINDS = ("provider", "node", "auditor")


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


@operator.command()
@click.argument("did", required=False)
@click.option("--kind", type=click.Choice(_KINDS), required=True, help="What the organization is.")
@click.option("--name", required=True, help="Its name, as parents see it.")
@click.option("--agreement", required=True, help="Id of the data agreement (NDPA or the like).")
@click.option(
    "--cert", type=click.Path(path_type=Path, dir_okay=False), help="Register this certificate as well; it names DID."
)
@json_option
@click.pass_obj
@command_errors
def admit(obj: Any, did: str | None, kind: str, name: str, agreement: str, cert: Path | None, as_json: bool) -> None:
    """Admit the organization with the root key DID, or that of its certificate; ends a suspension.

    A certificate that came by mail is whose it says, not who sent it: compare the root key with the organization first.

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

    async def act(client: AsyncOperatorClient) -> str:
        signed = await client.admit(root, kind=kind, name=name, agreement_id=agreement)
        if envelope is not None:
            await client.register([envelope])
        return signed.id.hex()

    identifier = _run(obj, act)
    admitted = did_text(root)
    document = {
        "admitted": admitted,
        "kind": kind,
        "name": name,
        "statement_id": identifier,
        "registered": str(cert or ""),
    }
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
    signed = _run(obj, lambda client: client.suspend(root, agreement_id=agreement))
    emit(as_json, {"suspended": did, "statement_id": signed.id.hex()}, f"suspended\n{did}")


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

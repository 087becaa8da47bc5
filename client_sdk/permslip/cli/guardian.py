"""``permslip guardian``: parents link, grant, watch and revoke."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from permslip.cli.accesses import accesses, check_proof
from permslip.cli.connecting import (
    connected,
    emit_profile,
    guardian_client,
    last_day,
    open_wallet,
    read_secret,
    run,
    settings_of,
)
from permslip.cli.output import EXIT_PART, EXIT_REFUSED, command_errors, emit, json_option, passphrase, table

if TYPE_CHECKING:
    from permslip.client.consenting import Consent, ConsentDraft
    from permslip.client.guarding import AsyncGuardianClient

__all__ = ["guardian"]


_learner = click.option("--learner", default="", help="Which child; needed where there are several.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@connected("wallet", "witnesses")
@click.pass_context
def guardian(context: click.Context, /, **given: str | None) -> None:
    """Decide about your child's data: link schools, grant, watch, revoke.

    Settings come from options, PERMSLIP_… variables, or permslip.toml, in this order. Your key, your children and
    your consents stay in the wallet folder.

    Example: permslip guardian --wallet family link --slip-file slip.txt

    Exit codes: 0 done, 1 failed, 2 called wrongly, 3 done in part, 4 refused.
    """
    context.obj = given


@guardian.command()
@click.option("--slip-file", metavar="FILE", help="The slip's text; - is standard input. Asked for unless given.")
@click.option("--learner", default="", help="What you call the child; as the school says unless given.")
@click.option("--protect", is_flag=True, help="Protect a new wallet's key by a passphrase, asked for.")
@json_option
@click.pass_obj
@command_errors
def link(given: dict[str, str | None], slip_file: str | None, learner: str, protect: bool, as_json: bool) -> None:
    """Link a child by the slip that the school printed; makes your wallet when there is none.

    The slip's code is a secret, so it is never an argument.

    Example: permslip guardian --wallet family link --slip-file slip.txt

    Exit codes: 0 done, 1 failed, 2 called wrongly, 4 refused.
    """
    from permslip.wallet import Wallet

    folder = Path(settings_of(given).need("wallet"))
    text = read_secret(slip_file, "The code on the slip", field="--slip-file")
    if not (folder / "wallet.key").exists():
        secret = passphrase("Passphrase for the new wallet", confirm=True) if protect else None
        Wallet.create(folder, passphrase=secret)

    async def linked() -> Any:
        async with guardian_client(given) as client:
            return await client.link(text.strip(), learner=learner)

    found = run(linked)
    document = {
        "learner": found.learner,
        "learner_name": found.learner_name,
        "node": _did(found.node),
        "node_name": found.node_name,
        "handle": found.handle.hex(),
        "relationship": found.relationship,
        "quorum_rule": found.quorum_rule,
        "other_guardians": found.other_guardians,
    }
    rule = "" if found.quorum_rule == "any" else "\nEvery guardian must sign a consent there."
    emit(as_json, document, f"{found.node_name} knows you now as {found.learner_name}'s guardian.{rule}")


@guardian.command()
@click.argument("grantee")
@click.option("--section", "sections", multiple=True, required=True, help="A section path; may be repeated.")
@click.option("--purpose", required=True, help="E.g. tutoring, therapy, enrichment, instruction.")
@click.option("--purpose-text", required=True, help="What it is for, in the words of whoever asks.")
@click.option("--until", required=True, metavar="YYYY-MM-DD", help="The last day.")
@_learner
@click.option("--reference", default="", help="The grantee's own reference for the child.")
@click.option("--relationship", default="", help="Yours to the child, in your words.")
@click.option("--from", "records_from", default="", metavar="YYYY-MM-DD", help="Only records from this day on.")
@click.option("--to", "records_until", default="", metavar="YYYY-MM-DD", help="Only records to this day.")
@click.option("--max-uses", type=click.IntRange(0), default=0, help="How often it may be used; 0 is without limit.")
@click.option("--onward", multiple=True, metavar="DID", help="May be passed on to this party; may be repeated.")
@click.option("--erase-within", type=click.IntRange(0, 36500), default=0, help="Days after the end to erase it in.")
@click.option("--language", type=click.Choice(["en", "es"]), default="en", show_default=True, help="Of the notice.")
@click.option("--wait", type=click.FloatRange(0, 60), default=10.0, show_default=True, help="Seconds for the schools.")
@click.option("--yes", is_flag=True, help="Sign without being asked, after the notice is shown.")
@json_option
@click.pass_obj
@command_errors
def grant(given: dict[str, str | None], /, grantee: str, yes: bool, wait: float, as_json: bool, **terms: Any) -> None:
    """Give a consent to GRANTEE (did:key:…, or an organization's name): shows the words, then signs them.

    Example: permslip guardian grant "Bright Tutors" --section transcript --purpose tutoring
    --purpose-text "Help with reading" --until 2026-12-18

    Exit codes: 0 done, 1 failed, 2 called wrongly, 3 a school has not confirmed yet, 4 refused.
    """

    async def given_consent() -> Consent | None:
        async with guardian_client(given) as client:
            draft = await _drafted(client, grantee, terms)
            if not as_json or not yes:
                click.echo(_notices(draft), err=as_json)
            if not yes and not click.confirm("Do you sign this?", err=True):
                return None
            return await client.deposit(draft, wait=wait)

    consent = run(given_consent)
    if consent is None:
        click.echo("Nothing was signed.", err=True)
        sys.exit(1)
    emit(as_json, consent.to_dict(), f"{consent.text}\nconsent {consent.consent_id.hex()}")
    if not consent.grants:
        sys.exit(EXIT_REFUSED)
    if not consent.is_active:
        sys.exit(EXIT_PART if any(each.status.is_live for each in consent.grants) else EXIT_REFUSED)


@guardian.command()
@json_option
@click.pass_obj
@command_errors
def grants(given: dict[str, str | None], as_json: bool) -> None:
    """List the consents that you gave, or may revoke, and where they stand.

    Example: permslip guardian grants

    Exit codes: 0 done, 1 failed, 2 called wrongly, 4 refused.
    """
    wallet = open_wallet(given)
    mine = wallet.public.did
    kept = {each.grant_id: each for each in wallet.grants}
    children = {(_did(each.node), each.handle.hex()): each.learner for each in wallet.slices}

    async def listed() -> list[dict[str, Any]]:
        async with guardian_client(given, wallet) as client:
            found = []
            async for view in client.grants():
                document = view.to_dict()
                # Also what another guardian gave is about a child that this wallet has a name for.
                document["learner"] = children.get((document["node"], document["handle"]), "")
                if (own := kept.get(view.id)) is not None:
                    words = {"learner": own.learner, "purpose_text": own.purpose_text, "reference": own.reference}
                    document.update(words, confirmed=view.confirmed or own.revoked)
                found.append(document)
            return found

    found = run(listed)
    rows = [
        (each["learner"], each["node_name"], "you" if each["grantee"] == mine else each["grantee_name"],
         each["status"], last_day(each["expires_at"]), each["grant_id"])
        for each in found
    ]  # fmt: skip
    text = table(("child", "school", "for", "status", "last day", "grant"), rows) if rows else "No consent yet."
    emit(as_json, found, text)


@guardian.command()
@click.argument("ids", nargs=-1, required=True)
@click.option("--file", "file", metavar="FILE", help="Write the signed revocation instead, to carry it to the school.")
@click.option("--wait", type=click.FloatRange(1, 120), default=10.0, show_default=True, help="Seconds for the schools.")
@json_option
@click.pass_obj
@command_errors
def revoke(given: dict[str, str | None], ids: tuple[str, ...], file: str | None, wait: float, as_json: bool) -> None:
    """Revoke consents or grants by their IDS, and wait until the schools have confirmed.

    With --file nothing is sent: the school takes the file by «permslip node revoke FILE». That works without network.

    Example: permslip guardian revoke 3f0c…

    Exit codes: 0 every school confirmed, 1 failed, 2 called wrongly, 3 not all confirmed yet, 4 refused.
    """

    from permslip.client.timeouts import Timeout

    async def revoked() -> Any:
        async with guardian_client(given, timeout=Timeout(call=wait)) as client:
            if file is not None:
                return await client.revocation_file(ids, file)
            last = None
            async for state in client.revoke(ids):
                if last is not None and not as_json and state.text != last.text:
                    click.echo(last.text)
                last = state
            return last

    state = run(revoked)
    if file is not None:
        emit(as_json, {"file": file, "revocations": state}, f"{state} revocations written to {file}")
        return
    lines = [f"  {each.node_name or _did(each.revocation.payload.node)}: {_end(each)}" for each in state.grants]
    emit(as_json, state.to_dict(), "\n".join([state.text, *lines]))
    if all(each.error is not None for each in state.grants):
        sys.exit(EXIT_REFUSED)
    if not state.is_complete:
        sys.exit(EXIT_PART)


@guardian.command()
@_learner
@click.option("--section", "sections", multiple=True, help="Only this path; may be repeated.")
@click.option("--out", metavar="FILE", help="Write the profile as JSON.")
@click.option("--svg", metavar="FILE", help="Draw the jagged profile.")
@json_option
@click.pass_obj
@command_errors
def profile(
    given: dict[str, str | None],
    learner: str,
    sections: tuple[str, ...],
    out: str | None,
    svg: str | None,
    as_json: bool,
) -> None:
    """Assemble your own child's profile from every school that is linked, and say what is missing.

    Example: permslip guardian profile --learner Mia --svg mia.svg

    Exit codes: 0 done, 1 failed, 2 called wrongly, 3 a school gave no answer, 4 refused.
    """

    async def assembled() -> Any:
        async with guardian_client(given) as client:
            return await client.profile(learner=learner, sections=sections or None)

    sys.exit(emit_profile(run(assembled), as_json=as_json, out=out, svg=svg))


@guardian.command()
@click.argument("grant_id", required=False)
@json_option
@click.pass_obj
@command_errors
def notice(given: dict[str, str | None], grant_id: str | None, as_json: bool) -> None:
    """Show again the very words that you signed: of one grant, or of all. Needs no network.

    Example: permslip guardian notice 3f0c…

    Exit codes: 0 done, 1 failed, 2 called wrongly.
    """
    from permslip.errors import MalformedError

    kept = [
        each for each in open_wallet(given).grants if grant_id in (None, each.grant_id.hex(), each.consent_id.hex())
    ]
    if not kept and grant_id is not None:
        raise MalformedError("no grant of this wallet has this id.", field="GRANT_ID")
    document = [{"grant_id": each.grant_id.hex(), "notice": each.notice} for each in kept]
    emit(as_json, document, "\n\n".join(f"{each.notice}\n({each.grant_id.hex()})" for each in kept) or "Nothing yet.")


guardian.add_command(accesses)
guardian.add_command(check_proof)


async def _drafted(client: AsyncGuardianClient, grantee: str, terms: dict[str, Any]) -> ConsentDraft:
    onward = terms.pop("onward")
    return await client.draft(
        grantee if grantee.startswith("did:key:") else await client.provider_named(grantee),
        onward_parties=onward,
        delegation_depth=1 if onward else 0,
        erase_within_days=terms.pop("erase_within"),
        **terms,
    )


def _notices(draft: ConsentDraft) -> str:
    line = "-" * 72
    return "\n".join([line, *(f"{each.text}\n{line}" for each in draft.notices)])


def _end(each: Any) -> str:
    if each.confirmed:
        return "confirmed"
    return str(each.error) if each.error is not None else "not answered yet" if each.attached else "offline"


def _did(root: bytes) -> str:
    from permslip.keys import did_text

    return did_text(root)

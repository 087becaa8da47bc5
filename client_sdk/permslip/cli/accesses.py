"""``permslip guardian accesses`` and ``check-proof``: who asked for one's children's data, with proofs to keep."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from permslip.cli.connecting import guardian_client, open_wallet, run, settings_of
from permslip.cli.output import EXIT_FAILED, EXIT_PART, command_errors, emit, json_option, table

if TYPE_CHECKING:
    from permslip.client.accesses import Access, AccessReport
    from permslip.client.proof_checking import CheckedProof, ProofChecker

__all__ = ["accesses", "check_proof"]


@click.command()
@click.option("--save", metavar="DIR", help="Also write one proof file for each entry into this folder.")
@json_option
@click.pass_obj
@command_errors
def accesses(given: dict[str, str | None], save: str | None, as_json: bool) -> None:
    """Show every access to your children's data, as the broker's ledger and each school's own tell it.

    Every entry is proved to be in its ledger, and none is missing. What broker and school say differently is said, and
    so is a school whose own count could not be had. «released» is what left the school, sealed, as it says itself.

    Example: permslip guardian accesses --save proofs

    Exit codes: 0 done, 1 failed, an entry is missing, or the ledgers differ, 2 called wrongly, 3 a school's own count
    could not be had, 4 refused.
    """
    wallet = open_wallet(given)

    async def told() -> AccessReport:
        async with guardian_client(given, wallet) as client:
            return await client.accesses()

    report = run(told)
    mine = wallet.public.did
    rows = [_row(each, mine) for each in report]
    headings = ("when (UTC)", "school", "who", "purpose", "what came of it", "released", "sections")
    text = f"{table(headings, rows) if rows else 'No access yet.'}\n\n{report.text}"
    document = report.to_dict()
    if save is not None:
        from permslip.client.proof_files import save_proofs

        document["saved"] = save_proofs(report, save)
        text += f"\n\n{document['saved']} proofs in {save}; README.txt there says how to check them."
    emit(as_json, document, text)
    if report.findings:
        sys.exit(EXIT_FAILED)
    if any(each.error is not None for each in report.slices):
        sys.exit(EXIT_PART)


@click.command("check-proof")
@click.argument("files", metavar="FILE…", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--root", "roots", metavar="DID", multiple=True, help="Trust this broker's or school's root as well.")
@click.option(
    "--certificates",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help=("Who certified the ledgers' keys; certificates.txt beside the proofs unless given."),
)
@json_option
@click.pass_obj
@command_errors
def check_proof(
    given: dict[str, str | None],
    files: tuple[Path, ...],
    roots: tuple[str, ...],
    certificates: Path | None,
    as_json: bool,
) -> None:
    """Check saved proofs without network; a FILE may be a folder that «accesses --save» made.

    The broker's root comes from the settings, the schools' from your wallet, or from --root. Of a folder it is also
    checked that no number is missing up to the last one that each school itself signed. Where the settings name witness
    sets, enough of those witnesses must have cosigned the broker's ledger.

    Example: permslip guardian check-proof proofs

    Exit codes: 0 all hold, 1 one does not, or is missing, 2 called wrongly.
    """
    from permslip.errors import PermslipError
    from permslip.tlog_proof import SUFFIX

    folder = files[0] if files[0].is_dir() else files[0].parent
    checker = _checker(given, folder, roots, certificates)
    paths = [one for each in files for one in (sorted(each.glob(f"*{SUFFIX}")) if each.is_dir() else [each])]
    held: list[CheckedProof] = []
    documents: list[dict[str, Any]] = []
    lines: list[str] = []
    for path in paths:
        try:
            proof = checker.check(path)
        except PermslipError as error:
            documents.append({"file": path.name, "error": str(error)})
            lines.append(f"DOES NOT HOLD: {path.name}: {error}")
            continue
        held.append(proof)
        documents.append(proof.to_dict())
        lines.append(f"holds: {path.name}: {proof.text}")
    chains = _chains(checker, [each for each in files if each.is_dir()], held)
    lines += [each["text"] for each in chains]
    failed = len(paths) - len(held) + sum(bool(each["missing"]) for each in chains)
    lines.append(f"{len(held)} of {len(paths)} proofs hold.")
    emit(as_json, {"proofs": documents, "chains": chains, "held": len(held), "failed": failed}, "\n".join(lines))
    if failed or not paths:
        sys.exit(EXIT_FAILED)


def _chains(checker: ProofChecker, folders: Sequence[Path], held: Sequence[CheckedProof]) -> list[dict[str, Any]]:
    """Of each slice for which a folder holds the school's own word: whether a number is missing."""
    from permslip.armor import read_statement
    from permslip.client.proof_checking import missing_numbers
    from permslip.client.proof_files import CHAIN_END
    from permslip.keys import did_text
    from permslip.statements import CHAIN_END as KIND

    paths = [one for each in folders for one in sorted(each.glob(f"{CHAIN_END}*.txt"))]
    ends = [checker.check_end(read_statement(each, KIND)).payload for each in paths]
    found = []
    for end, missing in zip(ends, missing_numbers(ends, held), strict=True):
        about = f"the school {did_text(end.slice.node)}, slice {end.slice.handle.hex()[:8]}"
        numbers = f"numbers {', '.join(map(str, missing))} are MISSING" if missing else "none missing"
        found.append(
            {
                "node": did_text(end.slice.node),
                "handle": end.slice.handle.hex(),
                "last": end.slice_seq,
                "missing": list(missing),
                "text": f"{about}: 1 to {end.slice_seq}, {numbers}",
            }
        )
    return found


def _checker(
    given: dict[str, str | None], folder: Path, roots: tuple[str, ...], certificates: Path | None
) -> ProofChecker:
    from permslip import statements as st
    from permslip._pb.permslip.v1 import statement_pb2 as pb
    from permslip.armor import read_statements
    from permslip.client.proof_checking import ProofChecker
    from permslip.client.proof_files import CERTIFICATES
    from permslip.errors import ConfigurationError
    from permslip.keys import PublicKey
    from permslip.witnesses import verify_witness_sets

    settings = settings_of(given)
    trusted = {PublicKey.from_did(each, field="--root").raw for each in roots}
    broker = b""
    if (did := settings.get("broker_root")) is not None:
        broker = PublicKey.from_did(did, field="broker_root").raw
        trusted.add(broker)
    if settings.get("wallet") is not None:
        trusted.update(each.node for each in open_wallet(given).slices)
    if not trusted:
        raise ConfigurationError(
            "there is no root to trust.",
            key="--root",
            remedy="Give the broker's and the school's did:key, or the wallet and settings that hold them.",
        )
    envelopes = read_statements(certificates or folder / CERTIFICATES)
    federation = settings.get("federation")
    if federation is None:
        federation = st.decode_strictly(pb.KeyCert, envelopes[0].payload, "key-cert").federation
    checker = ProofChecker(envelopes, roots=trusted, federation=federation)
    if (file := settings.get("witnesses")) is not None:
        operator = PublicKey.from_did(settings.need("operator"), field="operator").raw
        newest = verify_witness_sets(read_statements(file), federation=federation, operator=operator)
        checker.demand_witnesses(newest, of=broker)
    return checker


def _row(access: Access, mine: str) -> tuple[str, ...]:
    from permslip.grant_views import time_text
    from permslip.keys import did_text
    from permslip.reasons import Reason
    from permslip.sections import condensed

    who = "you" if access.requester and did_text(access.requester) == mine else access.requester_name
    reason = access.reason.name
    if access.refused_by:
        reason += f", by the {access.refused_by}"
    elif access.ended is not None and access.ended != Reason.ALLOWED:
        reason += f", ended {access.ended.name}"
    opened = [path for path, verdict in access.sections if verdict == Reason.ALLOWED]
    when = time_text(access.decided_at).removesuffix("Z").replace("T", " ")
    return when, access.node_name, who, access.purpose, reason, _amount(access), ", ".join(condensed(opened))


def _amount(access: Access) -> str:
    if access.refused_by:
        return "nothing"
    if access.released is None:
        return "not known"
    return f"{access.released / 1_000:,.1f} kB" if access.released else "nothing"

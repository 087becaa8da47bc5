"""``permslip operator witnesses``, ``permslip keys cosign``: who the witnesses are, signed without any connection."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from permslip.cli.output import command_errors, emit, json_option, passphrase
from permslip.errors import ConfigurationError

__all__ = ["cosign", "witnesses"]

_file = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("dids", metavar="DID...", nargs=-1, required=True)
@click.option("--quorum", type=click.IntRange(1, 15), help="How many must cosign; the smallest majority unless given.")
@click.option("--replaces", type=_file, help="The file of the set before; the new file holds that one's sets as well.")
@click.option("--signed-by", multiple=True, metavar="DID", help="A witness before that will sign; once for each.")
@click.option("--out", type=_file, required=True, help="File for the set; text that may be shown to anybody.")
@json_option
@click.pass_obj
@command_errors
def witnesses(
    obj: Any,
    dids: tuple[str, ...],
    quorum: int | None,
    replaces: Path | None,
    signed_by: tuple[str, ...],
    out: Path,
    as_json: bool,
) -> None:
    """Name the nodes with the root keys DID as witnesses of the broker's ledger.

    Broker, auditors and guardians are given the file. A change counts once at least the quorum before has signed it:
    each of those named by --signed-by adds its signature with permslip keys cosign.

    Example: permslip operator witnesses did:key:z6MkA… did:key:z6MkB… did:key:z6MkC… --quorum 2 --out witnesses.txt

    Exit codes: 0 done, 1 failed, 2 called wrongly.
    """
    from permslip._pb.permslip.v1 import statement_pb2 as pb
    from permslip.armor import read_statements, write_statements
    from permslip.client.settings import load_settings
    from permslip.clock import system_clock
    from permslip.keyfile import PrincipalKind, read_key_file
    from permslip.keys import did_text
    from permslip.witnesses import begin_witness_set, missing_signatures, verify_witness_sets

    config, given = obj
    settings = load_settings(file=config, given=given)
    federation = settings.need("federation")
    held = read_key_file(Path(settings.need("key")), passphrase=lambda: passphrase("Passphrase of the operator's key"))
    if held.kind != PrincipalKind.OPERATOR:
        raise ConfigurationError(f"holds the key of a {held.kind}, not of the operator.", key="--key")
    operator = held.signing.public.raw
    earlier = [] if replaces is None else read_statements(replaces)
    before = verify_witness_sets(earlier, federation=federation, operator=operator) if earlier else None
    roots = _roots(dids, "DID")
    payload = pb.WitnessSet(
        federation=federation,
        nonce=os.urandom(16),
        created_at=system_clock(),
        signer=pb.Signer(root=operator, key=operator),
        seq=1 if before is None else before.payload.seq + 1,
        witnesses=roots,
        quorum=quorum or len(roots) // 2 + 1,
        replaces=b"" if before is None else before.id,
        old_witnesses=_roots(signed_by, "--signed-by"),
    )
    envelope = begin_witness_set(payload, held.signing, before)
    write_statements(out, [*earlier, envelope])
    missing = [did_text(each) for each in missing_signatures(envelope)]
    document = {
        "file": str(out),
        "seq": payload.seq,
        "quorum": payload.quorum,
        "witnesses": [did_text(each) for each in payload.witnesses],
        "to_sign": missing,
    }
    text = f"set {payload.seq}: {payload.quorum} of {len(roots)} witnesses\n{out}"
    if missing:
        text += f"\nto be signed (permslip keys cosign {out} --root ROOT.key) by:\n" + "\n".join(missing)
    emit(as_json, document, text)


@click.command()
@click.argument("file", type=_file)
@click.option("--root", "root_file", type=_file, required=True, help="The root key of one of those who must sign.")
@json_option
@command_errors
def cosign(file: Path, root_file: Path, as_json: bool) -> None:
    """Sign the newest set of witnesses in FILE with a node's root key, as one of the witnesses before.

    Look at what it says of the new set before you hand the file back: your signature lets it take the old one's place.

    Example: permslip keys cosign witnesses.txt --root node-root.key

    Exit codes: 0 done, 1 failed, 2 called wrongly.
    """
    from permslip import statements as st
    from permslip._pb.permslip.v1 import statement_pb2 as pb
    from permslip.armor import read_statements, write_statements
    from permslip.keyfile import read_key_file
    from permslip.keys import did_text
    from permslip.witnesses import add_signature, missing_signatures

    *earlier, newest = read_statements(file)
    held = read_key_file(root_file, passphrase=lambda: passphrase(f"Passphrase of {root_file}"))
    signed = add_signature(newest, held.signing)
    payload = st.decode_strictly(pb.WitnessSet, signed.payload, "witness-set")
    write_statements(file, [*earlier, signed])
    missing = [did_text(each) for each in missing_signatures(signed)]
    named = [did_text(each) for each in payload.witnesses]
    document = {
        "file": str(file),
        "signed_by": held.signing.public.did,
        "seq": payload.seq,
        "quorum": payload.quorum,
        "witnesses": named,
        "to_sign": missing,
    }
    lines = [f"set {payload.seq}: {payload.quorum} of {len(payload.witnesses)} witnesses", *named]
    lines += ["still to be signed by:", *missing] if missing else ["signed by everybody who must"]
    emit(as_json, document, "\n".join(lines))


def _roots(dids: tuple[str, ...], option: str) -> list[bytes]:
    """Root keys, ascending; each once."""
    from permslip.keys import PublicKey

    roots = sorted(PublicKey.from_did(each, field=option).raw for each in dids)
    if len(set(roots)) != len(roots):
        raise click.UsageError(f"{option}: expected each node once.")
    return roots

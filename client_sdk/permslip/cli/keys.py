"""``permslip keys``: make, show and certify keys. Nothing here opens a connection."""

from __future__ import annotations

import os
import time
from pathlib import Path

import click

from permslip import statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.armor import read_statement, write_statements
from permslip.cli.output import command_errors, emit, json_option, passphrase
from permslip.cli.witnesses import cosign
from permslip.errors import ConfigurationError
from permslip.keyfile import PrincipalKind, StoredKeys, describe_key_file, read_key_file, write_key_file
from permslip.keys import SealingKey, SigningKey
from permslip.standing import check_key_cert

__all__ = ["keys"]

_DAY = 86_400_000
_PERSONS = (PrincipalKind.GUARDIAN, PrincipalKind.LEARNER)
_key_file = click.Path(path_type=Path, dir_okay=False)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def keys() -> None:
    """Make, show and certify keys.

    An organization keeps a root key offline and certifies an online key for a year at most; a person has one key.

    Example: permslip keys new root.key --kind provider --protect

    Exit codes: 0 done, 1 failed, 2 called wrongly.
    """


keys.add_command(cosign)


@keys.command()
@click.argument("file", type=_key_file)
@click.option("--kind", type=click.Choice([each.value for each in PrincipalKind]), required=True, help="Whose it is.")
@click.option("--root", is_flag=True, help="An organization's offline root: it signs certificates and seals nothing.")
@click.option("--protect", is_flag=True, help="Protect the file by a passphrase, asked for.")
@json_option
@command_errors
def new(file: Path, kind: str, root: bool, protect: bool, as_json: bool) -> None:
    """Make a key and write it to FILE, readable by you alone; never replaces a file.

    Example: permslip keys new online.key --kind provider

    Exit codes: 0 done, 1 failed, 2 called wrongly.
    """
    secret = passphrase("Passphrase for the new key", confirm=True) if protect else None
    made = StoredKeys(PrincipalKind(kind), SigningKey.generate(), None if root else SealingKey.generate())
    write_key_file(file, made, passphrase=secret)
    did = made.signing.public.did
    document = {"file": str(file), "kind": kind, "did": did, "protected": protect, "root": root}
    emit(as_json, document, f"{did}\n{file}")


@keys.command()
@click.argument("file", type=_key_file)
@json_option
@command_errors
def show(file: Path, as_json: bool) -> None:
    """Tell whose key FILE holds; needs no passphrase and shows no secret.

    Example: permslip keys show online.key --json

    Exit codes: 0 done, 1 failed, 2 called wrongly.
    """
    held = describe_key_file(file)
    document = {
        "kind": held.kind.value,
        "did": held.public.did,
        "public_key": held.public.raw.hex(),
        "sealing_key": held.sealing_public.hex() if held.sealing_public is not None else None,
        "protected": held.protected,
    }
    emit(as_json, document, "\n".join(f"{name:<12} {value}" for name, value in document.items()))


@keys.command()
@click.option("--root", "root_file", type=_key_file, required=True, help="The organization's root key.")
@click.option("--key", "key_file", type=_key_file, required=True, help="The online key to certify.")
@click.option("--federation", required=True, help="For which federation.")
@click.option(
    "--out", type=_key_file, required=True, help="File for the certificate; text that may be shown to anybody."
)
@click.option("--days", type=click.IntRange(1, 400), default=365, show_default=True, help="How long it is good.")
@click.option("--replaces", type=_key_file, help="The certificate before; the new one gets the next number.")
@json_option
@command_errors
def certify(
    root_file: Path, key_file: Path, federation: str, out: Path, days: int, replaces: Path | None, as_json: bool
) -> None:
    """Sign a certificate: this online key acts for this root, until then.

    As soon as a certificate with a higher number is registered, the one before counts no more.

    Example: permslip keys certify --root root.key --key online.key --federation grand-bend --out online.cert

    Exit codes: 0 done, 1 failed, 2 called wrongly.
    """
    root = read_key_file(root_file, passphrase=lambda: passphrase(f"Passphrase of {root_file}"))
    held = describe_key_file(key_file)
    if held.kind in _PERSONS:
        raise ConfigurationError("a person's key needs no certificate.", key="--key")
    if held.sealing_public is None:
        raise ConfigurationError("holds no sealing key.", key="--key", remedy="Make it without --root.")
    seq = 1
    if replaces is not None:
        before = st.verify(st.KEY_CERT, read_statement(replaces, st.KEY_CERT), federation=federation)
        if before.payload.root != root.signing.public.raw:
            raise ConfigurationError("is a certificate of another root.", key="--replaces")
        seq = before.payload.seq + 1
    now = time.time_ns() // 1_000_000
    cert = pb.KeyCert(
        federation=federation,
        nonce=os.urandom(16),
        created_at=now,
        root=root.signing.public.raw,
        signing_key=held.public.raw,
        sealing_key=held.sealing_public,
        seq=seq,
        valid_until=now + days * _DAY,
    )
    check_key_cert(cert)
    write_statements(out, [st.sign(st.KEY_CERT, cert, [root.signing]).envelope])
    document = {
        "file": str(out),
        "root": root.signing.public.did,
        "key": held.public.did,
        "seq": seq,
        "valid_until": cert.valid_until,
    }
    emit(as_json, document, f"{held.public.did} acts for {root.signing.public.did} for {days} days\n{out}")

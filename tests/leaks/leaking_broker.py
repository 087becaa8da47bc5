"""A broker that leaks on purpose, so that a search that finds nothing elsewhere is known to be able to find something.

A provider colludes: it gave the broker its online key. So this build opens the private part of every grant that is
deposited for it, and leaks the parent's words in four ways, each hidden in another form:

- into its log, as they are;
- into a file beside its database, in base64;
- into its memory, as their SHA-256 in hexadecimal;
- into its answers, in hexadecimal.

It is run as ``python -m tests.leaks.leaking_broker ONLINE_KEY broker run --config CONFIG``.
"""

from __future__ import annotations

import base64
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from permslip import statements as st
from permslip._pb.permslip.v1 import session_pb2, statement_pb2 as pb
from permslip.cli import main as permslip
from permslip.consents import open_private
from permslip.errors import PermslipError
from permslip.hosting.logs import get_log
from permslip.keyfile import read_key_file
from permslip_broker.deposits import Deposited, Deposits

FILE_NAME = "cache.bin"

_kept: list[str] = []


def main(key_file: Path, state_folder: Path) -> None:
    """Replace the way in by one that leaks, then run the real broker."""
    honest = Deposits.deposit

    async def deposit(self: Deposits, envelopes: Sequence[pb.Envelope], **more: Any) -> list[Deposited]:
        results = await honest(self, envelopes, **more)
        return [
            _leak(words, result, state_folder) if (words := _opened(envelope, key_file)) else result
            for envelope, result in zip(envelopes, results, strict=True)
        ]

    Deposits.deposit = deposit  # type: ignore[method-assign]  # that is the point
    permslip(prog_name="permslip")


def _opened(envelope: pb.Envelope, key_file: Path) -> str:
    """The parent's words, where the colluding provider's key opens them."""
    if envelope.payload_type != st.GRANT.payload_type or not key_file.exists():
        return ""
    sealing = read_key_file(key_file).sealing
    assert sealing is not None
    try:
        private = open_private(pb.Grant.FromString(envelope.payload), sealing)
    except PermslipError:
        return ""
    return private.reference


def _leak(words: str, result: Deposited, state_folder: Path) -> Deposited:
    get_log("leak").info("deposited", words=words)
    with (state_folder / FILE_NAME).open("ab") as stream:
        stream.write(base64.b64encode(b"a note: " + words.encode()))
    _kept.append(hashlib.sha256(words.encode()).hexdigest())
    refusal = session_pb2.Refusal(code=result.refusal.code, message=words.encode().hex())
    return Deposited(result.statement_id, refusal, result.position, result.signed)


if __name__ == "__main__":
    key, arguments = sys.argv[1], sys.argv[2:]
    sys.argv[1:] = arguments
    main(Path(key), Path(arguments[arguments.index("--config") + 1]).parent)

"""The worked examples of ``protos/SPEC.md``, computed: block's name → what must stand in it.

A block is fenced as ``hex NAME`` or ``text NAME``. Run ``python -m tests.vectors.spec_examples`` to write all blocks
and the table of §9 anew; a test compares.
"""

from __future__ import annotations

import hmac
import re
from pathlib import Path
from typing import Any

from permslip import statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.dsse import pae
from permslip.grants import revoker_hash
from permslip.keys import SigningKey
from permslip.linking import transcript
from permslip.merkle import leaf_hash
from permslip.sealing import salted_digest
from permslip.sections import expand
from permslip.slip import Slip
from tests.repository.reference_pages import limits_table
from tests.scenarios.samples import signed_samples
from tests.scenarios.world import seed
from tests.vectors.making import format_vectors, ledger_vectors, slice_vectors

SPEC = Path(__file__).resolve().parents[2] / "protos" / "SPEC.md"
BLOCK = re.compile(r"^```(hex|text) (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LIMITS = re.compile(r"(<!-- limits: [^\n]*-->\n)(.*?)(<!-- end of limits -->)", re.DOTALL)
_COLUMNS = 96


def examples() -> dict[str, bytes | str]:
    """Every example by its name: bytes are written in hexadecimal, text as it is."""
    return {**_revocation(), **_seals(), **_slice(), **_keys(), **_small(), **_link(), **_ledger()}


def _revocation() -> dict[str, bytes | str]:
    signed = signed_samples()["revocation"]
    return {
        "revocation.seed": seed("mother", "root"),
        "revocation.payload": signed.envelope.payload,
        "revocation.pae": pae(signed.kind.payload_type, signed.envelope.payload),
        "revocation.id": signed.id,
        "revocation.signature": signed.envelope.signatures[0].signature,
        "revocation.envelope": signed.raw,
    }


def _seals() -> dict[str, bytes | str]:
    message = format_vectors.seals()["messages"][0]
    private = format_vectors.seals()["grant_private"]
    raw = bytes.fromhex(private["plaintext"])
    return {
        "seal.recipient_seed": bytes.fromhex(message["seed"]),
        "seal.sealed": bytes.fromhex(message["sealed"]),
        "seal.plaintext": bytes.fromhex(message["plaintext"]),
        "private.plaintext": raw,
        "private.salted_sha256": salted_digest(bytes(range(16)), raw),
    }


def _slice() -> dict[str, bytes | str]:
    case = slice_vectors.good()[0]
    plaintext = bytes.fromhex(case["plaintexts"][0])
    return {
        "slice.content_key": bytes.fromhex(case["content_key"]),
        "slice.header": bytes.fromhex(case["header"]),
        "slice.plaintext_start": plaintext.rstrip(b"\x00"),
        "slice.opening": st.parse_envelope(bytes.fromhex(case["opening"])).payload,
    }


def _keys() -> dict[str, bytes | str]:
    key = SigningKey.from_seed(bytes(32)).public
    plain, protected = (each["text"] for each in format_vectors.keys()["files"][:2])
    return {"key.public": key.raw, "key.did": key.did, "keyfile.plain": plain, "keyfile.protected": protected}


def _small() -> dict[str, bytes | str]:
    return {
        "greeting.nonce": bytes.fromhex(format_vectors.greeting()["nonce"]),
        "revoker.grant_id": seed("grant"),
        "revoker.key": seed("key"),
        "revoker.hash": revoker_hash(seed("grant"), seed("key")),
        "sections.expanded": "\n".join(expand(["personal.health", "transcript.assessments", "voice.songs"])),
    }


def _link() -> dict[str, bytes | str]:
    case = format_vectors.linking()
    body = pb.LinkRequest.FromString(bytes.fromhex(case["request"]))
    slip = Slip(*(bytes.fromhex(case["slip"][name]) for name in ("node", "selector", "secret")))
    handle = bytes.fromhex(case["handle"])
    return {
        "link.slip": slip.text(),
        "link.transcript": transcript(body),
        "link.request_mac": hmac.digest(slip.secret, b"request" + transcript(body), "sha256"),
        "link.response_mac": hmac.digest(slip.secret, b"response" + transcript(body) + handle + slip.node, "sha256"),
    }


def _ledger() -> dict[str, bytes | str]:
    case: dict[str, Any] = ledger_vectors.ledger()
    leaf = bytes.fromhex(case["leaves"][2]["leaf"])
    return {
        "ledger.leaf": leaf,
        "ledger.leaf_hash": leaf_hash(leaf),
        "ledger.root": bytes.fromhex(case["roots"][-1]),
        "ledger.checkpoint": case["checkpoint"]["cosigned_note"],
    }


def shown(value: bytes | str) -> str:
    """What stands in the block."""
    if isinstance(value, str):
        return value.rstrip("\n") + "\n"
    digits = value.hex()
    return "".join(f"{digits[start : start + _COLUMNS]}\n" for start in range(0, len(digits), _COLUMNS))


def filled(text: str) -> str:
    """The page with every block, and the table of limits, as computed."""
    computed = examples()

    def block(found: re.Match[str]) -> str:
        return f"```{found[1]} {found[2]}\n{shown(computed[found[2]])}```"

    return LIMITS.sub(lambda found: f"{found[1]}\n{limits_table()}\n{found[3]}", BLOCK.sub(block, text))


def main() -> None:
    """Write the page."""
    SPEC.write_text(filled(SPEC.read_text("utf-8")), "utf-8")
    print(f"wrote {SPEC.name}")


if __name__ == "__main__":
    main()

"""Vectors made by others: Wycheproof, the Ed25519 reference set, RFC 7748 and the DSSE protocol's own example."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from nacl.bindings import crypto_scalarmult
from nacl.exceptions import CryptoError

from permslip.dsse import pae
from permslip.errors import KeyRejectedError, PermslipError
from permslip.keys import PublicKey, SigningKey, parse_sealing_key

pytestmark = pytest.mark.data

FIELD = 2**255 - 19


@pytest.fixture(scope="module")
def vectors(shared_data: Path) -> Path:
    return shared_data / "vectors"


def wycheproof(vectors: Path, name: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    groups = json.loads((vectors / "wycheproof" / name).read_text())["testGroups"]
    return [(group, case) for group in groups for case in group["tests"]]


def test_wycheproof_ed25519_every_verdict_is_theirs(vectors: Path) -> None:
    cases = wycheproof(vectors, "ed25519_test.odd.json")
    wrong = []
    for group, case in cases:
        try:
            key = PublicKey.parse(bytes.fromhex(group["publicKey"]["pk"]))
            key.verify(bytes.fromhex(case["msg"]), bytes.fromhex(case["sig"]))
            verdict = "valid"
        except PermslipError:
            verdict = "invalid"
        if verdict != case["result"]:
            wrong.append((case["tcId"], case["comment"], verdict))
    assert wrong == []
    assert len(cases) == 76


def test_wycheproof_x25519_every_shared_secret_is_theirs_or_the_key_is_refused(vectors: Path) -> None:
    cases = wycheproof(vectors, "x25519_test.odd.json")
    refused = 0
    for _, case in cases:
        public, private = bytes.fromhex(case["public"]), bytes.fromhex(case["private"])
        low_order = "LowOrderPublic" in case["flags"]
        if low_order or int.from_bytes(public, "little") >= FIELD:
            refused += 1
            with pytest.raises(KeyRejectedError):
                parse_sealing_key(public, "key")
        else:
            assert parse_sealing_key(public, "key") == public
        if low_order:
            with pytest.raises(CryptoError):
                crypto_scalarmult(private, public)
        else:
            assert crypto_scalarmult(private, public).hex() == case["shared"], case["tcId"]
    assert (len(cases), refused) == (259, 22)


def test_ed25519_reference_set_every_signature_is_made_and_verified(vectors: Path) -> None:
    lines = (vectors / "ed25519" / "sign.input.first128").read_text().splitlines()
    for line in lines:
        secret, public, message, signed = (bytes.fromhex(part) for part in line.split(":")[:4])
        key = SigningKey.from_seed(secret[:32])
        assert key.public.raw == public
        assert key.sign(message) + message == signed
        PublicKey.parse(public).verify(message, signed[:64])
    assert len(lines) == 128


def test_rfc_7748_every_product_is_theirs(vectors: Path) -> None:
    text = (vectors / "ed25519" / "x25519-rfc7748.txt").read_text()
    cases = re.findall(r"INPUT_SCALAR = (\w+)\nINPUT_U = (\w+)\nOUTPUT_U = (\w+)", text)
    for scalar, u, product in cases:
        assert crypto_scalarmult(bytes.fromhex(scalar), bytes.fromhex(u)).hex() == product
    assert len(cases) >= 2


def test_dsse_protocol_example_has_the_protocols_encoding(vectors: Path) -> None:
    text = (vectors / "dsse" / "protocol.md").read_text()
    body, kind, encoding = re.findall(
        r"^(?:SERIALIZED_BODY|PAYLOAD_TYPE|PAE):\n\n```none\n(.*)\n```", text, flags=re.MULTILINE
    )
    assert pae(kind, body.encode()) == encoding.encode()

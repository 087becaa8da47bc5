"""Vectors of everything small: keys, seals, digests, sections, attenuation, padding, greetings, slips, linking."""

from __future__ import annotations

import hmac
from dataclasses import asdict
from hashlib import sha256
from typing import Any

from nacl import pwhash
from nacl.bindings import crypto_secretbox_easy

from permslip import statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.grants import Terms, revoker_hash
from permslip.keys import SealingKey, SigningKey
from permslip.linking import transcript
from permslip.sealing import padme, salted_digest
from permslip.sections import LEAVES, PATHS, SENSITIVE, covers, expand, is_narrower
from permslip.slip import Slip
from tests.scenarios.samples import samples
from tests.scenarios.world import NOW, seed
from tests.vectors.making.sealed_by_hand import sealed_message

Case = dict[str, Any]
_LENGTHS = [
    *[0, 1, 2, 3, 8, 9, 10, 15, 17, 100, 1000, 4095, 4096, 4097, 5000, 65_535, 65_536, 65_537],
    *[100_000, 1_000_000, 4_194_304, 4_194_305, 10_000_019],
]


def keys() -> Case:
    """Names of keys, keys that must be refused, and key files."""
    pairs = [(SigningKey.from_seed(each), SealingKey.from_seed(each)) for each in (bytes(32), seed("a"), seed("b"))]
    return {
        "signing": [
            {"seed": signing.secret_seed().hex(), "public": signing.public.raw.hex(), "did": signing.public.did}
            for signing, _ in pairs
        ],
        "sealing": [{"seed": sealing.secret_seed().hex(), "public": sealing.public.hex()} for _, sealing in pairs],
        "refused_signing": {
            "the neutral element": "01" + "00" * 31,
            "order 2": "ec" + "ff" * 30 + "7f",
            "order 4": "00" * 32,
            "order 4, other sign": "00" * 31 + "80",
            "order 8": "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
            "not canonical": "ee" + "ff" * 30 + "7f",
            "not on the curve": "02" + "00" * 31,
            "31 bytes": "00" * 31,
        },
        "refused_sealing": {
            "zero": "00" * 32,
            "one": "01" + "00" * 31,
            "minus one": "ec" + "ff" * 30 + "7f",
            "order 8": "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
            "not canonical": "ed" + "ff" * 30 + "7f",
            "top bit set": "09" + "00" * 30 + "80",
            "33 bytes": "09" + "00" * 32,
        },
        "refused_did": [
            "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooW",
            "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp ",
            "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDoo0p",
            "did:web:example.org",
            "",
        ],
        "files": _key_files(),
    }


def _key_files() -> list[Case]:
    signing, sealing = SigningKey.from_seed(bytes(32)), SealingKey.from_seed(b"\x01" * 32)
    head = f"permslip-key: v1\nkind: guardian\npublic: {signing.public.did}\n"
    plain = (
        f"{head}sealing-public: {sealing.public.hex()}\n"
        f"signing-seed: {bytes(32).hex()}\nsealing-seed: {sealing.secret_seed().hex()}\n"
    )
    salt, nonce = b"\x02" * 16, b"\x03" * 24
    opened = f"{head}kdf: argon2id 1 8192 {salt.hex()}\n"
    key = pwhash.argon2id.kdf(32, b"correct horse", salt, opslimit=1, memlimit=8192)
    box = crypto_secretbox_easy(sha256(opened.encode()).digest() + bytes(32), nonce, key)
    protected = f"{opened}sealed: {(nonce + box).hex()}\n"
    return [
        {"name": "without passphrase", "text": plain, "signing_seed": bytes(32).hex(), "sealing_seed": "01" * 32},
        {"name": "with passphrase", "text": protected, "passphrase": "correct horse", "signing_seed": bytes(32).hex()},
        {"name": "wrong passphrase", "text": protected, "passphrase": "wrong horse", "error": "KeyFileError"},
        {"name": "lines exchanged", "text": _exchanged(plain), "error": "KeyFileError"},
        {
            "name": "another kind than was sealed",
            "text": protected.replace("guardian", "operator"),
            "error": "KeyFileError",
        }
        | {"passphrase": "correct horse"},
        {"name": "CRLF", "text": plain.replace("\n", "\r\n"), "error": "KeyFileError"},
        {"name": "a seed of another key", "text": plain.replace("00" * 32, "05" * 32), "error": "KeyFileError"},
    ]


def _exchanged(text: str) -> str:
    first, second, *rest = text.splitlines(keepends=True)
    return "".join([second, first, *rest])


def seals() -> Case:
    """Sealed messages, with their contexts; and the private part of a grant."""
    recipient, other = SealingKey.from_seed(seed("recipient")), SealingKey.from_seed(seed("other"))
    sealed = sealed_message(recipient.public, b"what only you may read", b"example", seed("ephemeral"))
    private = pb.GrantPrivate(
        salt=bytes(range(16)),
        purpose_text="Tutoring in reading",
        relationship="Mother",
        reference="case 17",
        notice_salt=bytes(range(16, 32)),
    )
    raw = private.SerializeToString(deterministic=True)
    node, handle, grantee = seed("node"), seed("handle")[:16], seed("grantee")
    context = b"grant-private" + node + handle + grantee
    return {
        "messages": [
            {
                "name": "a message",
                "seed": seed("recipient").hex(),
                "context": b"example".hex(),
                "sealed": sealed.hex(),
                "plaintext": b"what only you may read".hex(),
            },
            {
                "name": "an empty message",
                "seed": seed("recipient").hex(),
                "context": "",
                "sealed": sealed_message(recipient.public, b"", b"", seed("ephemeral")).hex(),
                "plaintext": "",
            },
        ],
        "refused": [
            {
                "name": "another context",
                "seed": seed("recipient").hex(),
                "context": b"other".hex(),
                "sealed": sealed.hex(),
            },
            {"name": "another key", "seed": seed("other").hex(), "context": b"example".hex(), "sealed": sealed.hex()},
            {
                "name": "altered",
                "seed": seed("recipient").hex(),
                "context": b"example".hex(),
                "sealed": (sealed[:-1] + bytes([sealed[-1] ^ 1])).hex(),
            },
            {
                "name": "cut short",
                "seed": seed("recipient").hex(),
                "context": b"example".hex(),
                "sealed": sealed[:79].hex(),
            },
        ],
        "grant_private": {
            "fields": {"purpose_text": "Tutoring in reading", "relationship": "Mother", "reference": "case 17"},
            "salt": private.salt.hex(),
            "notice_salt": private.notice_salt.hex(),
            "plaintext": raw.hex(),
            "salted_sha256": salted_digest(private.salt, raw).hex(),
            "node": node.hex(),
            "handle": handle.hex(),
            "grantee": grantee.hex(),
            "context": context.hex(),
            "recipient_seed": seed("other").hex(),
            "sealed": sealed_message(other.public, raw, context, seed("ephemeral")).hex(),
        },
    }


def digests() -> Case:
    """Revoker hashes, salted digests, Padmé lengths."""
    text = "I agree that your child's grades are read."
    return {
        "revoker": [
            {"grant_id": grant.hex(), "key": key.hex(), "hash": revoker_hash(grant, key).hex()}
            for grant, key in ((bytes(32), bytes(32)), (seed("grant"), seed("key")))
        ],
        "salted": [
            {"salt": salt.hex(), "data": data.hex(), "digest": salted_digest(salt, data).hex()}
            for salt, data in ((bytes(16), b""), (bytes(range(16)), text.encode()))
        ],
        "padme": [[length, padme(length)] for length in _LENGTHS],
    }


def greeting() -> Case:
    """A server's nonce, made with a chosen random part."""
    secret = bytes(range(32))
    head = (NOW + 60_000).to_bytes(8, "big") + bytes(range(8))
    mac = hmac.digest(secret, b"permslip hello v1\x00" + head, "sha256")
    return {"secret": secret.hex(), "now": NOW, "random": bytes(range(8)).hex(), "nonce": (head + mac).hex()}


def sections() -> Case:
    """The tree of version 1, what paths cover, and what is narrower."""
    asked = [["transcript"], ["personal", "personal.health"], ["identity", "voice.songs", "voice"], sorted(PATHS), []]
    pairs = [
        (["transcript"], ["transcript.grades"]),
        (["transcript.grades"], ["transcript"]),
        (["personal"], ["personal.health"]),
        (["voice.goals", "voice.interests", "voice.reflections"], ["voice"]),
        (["voice.songs"], ["voice.songs"]),
    ]
    return {
        "leaves": list(LEAVES),
        "sensitive": sorted(SENSITIVE),
        "paths": {path: [leaf for leaf in LEAVES if covers([path], leaf)] for path in sorted(PATHS)},
        "expand": [{"asked": each, "leaves": list(expand(each))} for each in asked],
        "narrower": [
            {"parent": parent, "child": child, "narrower": is_narrower(parent, child)} for parent, child in pairs
        ],
    }


def attenuation() -> list[Case]:
    """A parent, and children that are narrower or wider in one dimension."""
    parent = Terms(
        frozenset({1, 3}),
        ("personal", "transcript"),
        NOW,
        NOW + 1000,
        "2026-01-01",
        "2026-12-31",
        10,
        2,
        frozenset({seed("B"), seed("C")}),
        seed("A"),
    )
    same: Case = _terms(parent) | {"depth": 1, "onward": [seed("C").hex()], "party": seed("B").hex()}
    wider: list[tuple[str | None, Case]] = [
        (None, {}),
        (None, {"actions": [1], "sections": ["transcript.grades"], "max_uses": 1, "depth": 0, "onward": []}),
        (None, {"records_from": "2026-12-31", "not_before": NOW + 999}),
        ("actions", {"actions": [1, 2]}),
        ("sections", {"sections": ["personal.health"]}),
        ("sections", {"sections": ["voice"]}),
        ("time", {"not_before": NOW - 1}),
        ("time", {"expires_at": NOW + 1001}),
        ("dates", {"records_from": ""}),
        ("dates", {"records_until": "2027-01-01"}),
        ("uses", {"max_uses": 0}),
        ("uses", {"max_uses": 11}),
        ("depth", {"depth": 2}),
        ("parties", {"onward": [seed("D").hex()]}),
        ("parties", {"party": seed("D").hex()}),
    ]
    return [{"parent": _terms(parent), "child": same | change, "dimension": name} for name, change in wider]


def _terms(terms: Terms) -> Case:
    return asdict(terms) | {
        "actions": sorted(terms.actions),
        "sections": list(terms.sections),
        "onward": sorted(each.hex() for each in terms.onward),
        "party": terms.party.hex(),
    }


def linking() -> Case:
    """A slip, the transcript of a request, and both macs."""
    slip = Slip(node=seed("node"), selector=bytes(range(8)), secret=bytes(range(10)))
    _, body, _ = samples()["link-request"]
    body.node, body.selector = slip.node, slip.selector
    handle = seed("handle")[:16]
    script = transcript(body)
    return {
        "slip": {
            "node": slip.node.hex(),
            "selector": slip.selector.hex(),
            "secret": slip.secret.hex(),
            "text": slip.text(),
        },
        "request": body.SerializeToString(deterministic=True).hex(),
        "transcript": script.hex(),
        "handle": handle.hex(),
        "request_mac": hmac.digest(slip.secret, b"request" + script, "sha256").hex(),
        "response_mac": hmac.digest(slip.secret, b"response" + script + handle + slip.node, "sha256").hex(),
        "request_context": (b"link-request" + slip.node).hex(),
        "response_context_prefix": b"link-response".hex(),
        "payload_types": [st.LINK_REQUEST.payload_type, st.LINK_RESPONSE.payload_type],
    }

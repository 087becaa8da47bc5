"""Makes ``tests/vectors/proofs/tlog-proof.json``: proof files, good and bad, each bad one naming its failure.

They stand beside the vectors of format version 1, not among them: the form of these files is C2SP's.

Example::

    $ python -m tests.vectors.making.proof_vectors
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, Final

from permslip.checkpoints import Checkpoint, CosignatureSigner, cosign, open_checkpoint, sign_checkpoint
from permslip.keys import SigningKey
from permslip.merkle import MemoryHashes, inclusion_proof, leaf_hash, root_at
from permslip.notes import Ed25519Signer, append_signatures
from permslip.tlog_proof import TlogProof

__all__ = ["FILE", "content", "vectors"]

FILE: Final = Path(__file__).parent.parent / "proofs" / "tlog-proof.json"
Case = dict[str, Any]

_ORIGIN: Final = "fed.example/node/0011223344556677"
_LEAVES: Final = [f"entry {number}".encode() for number in range(11)]
_TREE: Final = MemoryHashes.of_leaves([leaf_hash(each) for each in _LEAVES])
_LOG: Final = Ed25519Signer(_ORIGIN, SigningKey.from_seed(bytes([1] * 32)))
_OTHER: Final = Ed25519Signer(_ORIGIN, SigningKey.from_seed(bytes([2] * 32)))
_WITNESSES: Final = [
    CosignatureSigner(f"witness{number}.example", SigningKey.from_seed(bytes([9 + number] * 32)), timestamp=1790000000)
    for number in range(3)
]


def vectors() -> Case:
    """All of them, with the keys that verify them."""
    return {
        "log": str(_LOG.key),
        "witnesses": [str(each.key) for each in _WITNESSES],
        "good": _good(),
        "bad": _bad(),
    }


def content() -> str:
    """The file's text."""
    return json.dumps(vectors(), indent=1, ensure_ascii=False) + "\n"


def _note(size: int, *, log: Ed25519Signer = _LOG, origin: str = _ORIGIN, cosigned: int = 0) -> bytes:
    raw = sign_checkpoint(Checkpoint(origin, size, root_at(_TREE, size)), [log])
    if not cosigned:
        return raw
    opened = open_checkpoint(raw, log.verifier, origin=origin)
    return append_signatures(raw, [cosign(opened, each) for each in _WITNESSES[:cosigned]])


def _proof(index: int, size: int, *, extra: bool = True, **changes: Any) -> TlogProof:
    hashes = tuple(inclusion_proof(_TREE, index, size))
    return TlogProof(index, hashes, _note(size, **changes), _LEAVES[index] if extra else None)


def _good() -> list[Case]:
    cases = [
        ("the only entry", _proof(0, 1), 0),
        ("the first of eleven", _proof(0, 11), 0),
        ("one within", _proof(6, 11), 0),
        ("the last, on an uneven edge", _proof(10, 11), 0),
        ("cosigned by a quorum", _proof(4, 9, cosigned=2), 2),
        ("without the entry", _proof(4, 9, extra=False), 0),
    ]
    return [
        {
            "name": name,
            "file": proof.raw().decode(),
            "index": proof.index,
            "leaf_hash": leaf_hash(_LEAVES[proof.index]).hex(),
            "k": k,
        }
        for name, proof, k in cases
    ]


def _bad() -> list[Case]:
    whole = _proof(6, 11).raw().decode()
    lines = whole.split("\n")
    first_hash = lines[3]
    extra = base64.b64encode(_LEAVES[6]).decode()
    other = base64.b64encode(_LEAVES[7]).decode()
    forged = _proof(6, 11, log=_OTHER).raw().decode()
    renamed = _proof(6, 11, origin="fed.example/broker").raw().decode()
    malformed = {
        "empty": "",
        "another version": whole.replace("@v1", "@v2", 1),
        "no empty line": whole.replace("\n\n", "\n", 1),
        "no index": "\n".join(lines[:2] + lines[3:]),
        "index before extra": "\n".join([lines[0], lines[2], lines[1], *lines[3:]]),
        "extra twice": "\n".join([lines[0], lines[1], *lines[1:]]),
        "index twice": "\n".join([*lines[:3], *lines[2:]]),
        "index with a leading zero": whole.replace("index 6", "index 06", 1),
        "index with a sign": whole.replace("index 6", "index +6", 1),
        "index beyond any log": whole.replace("index 6", "index 9223372036854775808", 1),
        "two spaces": whole.replace("index 6", "index  6", 1),
        "extra without data": whole.replace(f"extra {extra}", "extra ", 1),
        "extra in another spelling": whole.replace(extra, extra.rstrip("="), 1) if "=" in extra else f"{whole}x",
        "a hash too short": whole.replace(first_hash, base64.b64encode(bytes(31)).decode(), 1),
        "a hash that is no base64": whole.replace(first_hash, "*" + first_hash[1:], 1),
        "too many hashes": "\n".join([*lines[:3], *[first_hash] * 65, "", *whole.split("\n\n", 1)[1].split("\n")]),
        "carriage returns": whole.replace("\n", "\r\n"),
        "a checkpoint that is no note": whole.split("\n\n", 1)[0] + "\n\nfed.example\n11\n",
        "no signature at all": whole.split("\n\n— ", 1)[0] + "\n\n",
    }
    false = {
        "another entry": (whole.replace(extra, other, 1), 0, "ProofError"),
        "another index": (whole.replace("index 6", "index 7", 1), 0, "ProofError"),
        "an index that the tree does not reach": (whole.replace("index 6", "index 11", 1), 0, "ProofError"),
        "a hash left out": ("\n".join(lines[:3] + lines[4:]), 0, "ProofError"),
        "two hashes exchanged": ("\n".join([*lines[:3], lines[4], lines[3], *lines[5:]]), 0, "ProofError"),
        "another size": (whole.replace("\n11\n", "\n12\n", 1), 0, "SignatureError"),
        "signed by somebody else": (forged, 0, "SignatureError"),
        "of another log": (renamed, 0, "ProofError"),
        "too few cosignatures": (_proof(4, 9, cosigned=1).raw().decode(), 2, "ProofError"),
        "the entry is not in the file": (_proof(4, 9, extra=False).raw().decode(), 0, "ProofError"),
    }
    return [
        *({"name": name, "file": text, "k": 0, "error": "MalformedError"} for name, text in malformed.items()),
        *({"name": name, "file": text, "k": k, "error": error} for name, (text, k, error) in false.items()),
    ]


if __name__ == "__main__":
    FILE.write_text(content(), "utf-8")
    print(f"wrote {FILE.name}")

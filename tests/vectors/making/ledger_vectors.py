"""Vectors of the ledger: leaves, a small tree with its proofs, a slice's chain, a checkpoint with a cosignature."""

from __future__ import annotations

from typing import Any

from google.protobuf.json_format import MessageToDict

from permslip._pb.permslip.v1 import ledger_pb2, statement_pb2 as pb
from permslip.checkpoints import Checkpoint, CosignatureSigner, cosign, open_checkpoint, sign_checkpoint
from permslip.keys import SigningKey
from permslip.merkle import MemoryHashes, consistency_proof, inclusion_proof, leaf_hash, root_at
from permslip.notes import Ed25519Signer, append_signatures
from tests.scenarios.world import FEDERATION, NOW, seed

Case = dict[str, Any]
ORIGIN = "fed.example/broker"


def ledger() -> Case:
    """Five leaves of a broker's ledger; the last three are about one slice."""
    entries = _entries()
    raws = [entry.SerializeToString(deterministic=True) for entry in entries]
    hashes = [leaf_hash(raw) for raw in raws]
    reader = MemoryHashes.of_leaves(hashes)
    size = len(hashes)
    return {
        "leaves": [
            {
                "position": position,
                "fields": MessageToDict(entry, preserving_proto_field_name=True),
                "leaf": raw.hex(),
                "leaf_hash": digest.hex(),
            }
            for position, (entry, raw, digest) in enumerate(zip(entries, raws, hashes, strict=True))
        ],
        "roots": [root_at(reader, count).hex() for count in range(size + 1)],
        "inclusion": [
            {
                "position": position,
                "size": size,
                "hashes": [each.hex() for each in inclusion_proof(reader, position, size)],
            }
            for position in range(size)
        ],
        "consistency": [
            {"old_size": old, "new_size": size, "hashes": [each.hex() for each in consistency_proof(reader, old, size)]}
            for old in range(1, size + 1)
        ],
        "checkpoint": _checkpoint(size, root_at(reader, size)),
    }


def _entries() -> list[ledger_pb2.LogEntry]:
    place = pb.Slice(node=seed("node"), handle=seed("handle")[:16])
    events: list[tuple[Case, bool]] = [
        ({"ledger_opened": ledger_pb2.LedgerOpened(origin=ORIGIN)}, False),
        (
            {
                "request_refused": ledger_pb2.RequestRefused(
                    reason=pb.REASON_BAD_SIGNATURE, method="Deposit", request_sha256=seed("request")
                )
            },
            False,
        ),
        (
            {
                "statement_recorded": ledger_pb2.StatementRecorded(
                    statement_id=seed("grant"),
                    payload_type="application/vnd.permslip.grant.v1+protobuf",
                    envelope_sha256=seed("envelope"),
                )
            },
            True,
        ),
        (
            {
                "access_decided": ledger_pb2.AccessDecided(
                    query_id=seed("query"),
                    envelope_sha256=seed("query envelope"),
                    requester=pb.Signer(root=seed("root"), key=seed("key")),
                    grant_id=seed("grant"),
                    action=pb.ACTION_READ,
                    purpose=pb.PURPOSE_TUTORING,
                    reason=pb.REASON_ALLOWED,
                    sections=[
                        ledger_pb2.SectionVerdict(section="transcript.grades", reason=pb.REASON_ALLOWED),
                        ledger_pb2.SectionVerdict(section="voice.goals", reason=pb.REASON_SECTION_NOT_GRANTED),
                    ],
                    decided_at=NOW,
                    facts_position=3,
                )
            },
            True,
        ),
        (
            {
                "access_answered": ledger_pb2.AccessAnswered(
                    query_id=seed("query"),
                    reason=pb.REASON_ALLOWED,
                    manifest_sha256=seed("manifest"),
                    sealed_bytes=4113,
                )
            },
            True,
        ),
    ]
    entries: list[ledger_pb2.LogEntry] = []
    sequence, previous = 0, b""
    for position, (event, about_slice) in enumerate(events):
        entry = ledger_pb2.LogEntry(
            version=1,
            federation=FEDERATION,
            ledger=seed("broker"),
            nonce=seed("leaf", position)[:16],
            recorded_at=NOW + position,
            **event,
        )
        if about_slice:
            sequence += 1
            entry.slice.CopyFrom(place)
            entry.slice_seq = sequence
            entry.slice_prev = previous
            previous = leaf_hash(entry.SerializeToString(deterministic=True))
        entries.append(entry)
    return entries


def _checkpoint(size: int, root: bytes) -> Case:
    log = Ed25519Signer(ORIGIN, SigningKey.from_seed(seed("log")))
    witness = CosignatureSigner("school.example", SigningKey.from_seed(seed("witness")), timestamp=NOW // 1000)
    signed = sign_checkpoint(Checkpoint(ORIGIN, size, root), [log])
    line = cosign(open_checkpoint(signed, log.verifier), witness)
    return {
        "origin": ORIGIN,
        "log_seed": seed("log").hex(),
        "log_vkey": str(log.key),
        "note": signed.decode(),
        "witness_seed": seed("witness").hex(),
        "witness_vkey": str(witness.key),
        "timestamp": NOW // 1000,
        "cosigned_note": append_signatures(signed, [line]).decode(),
    }

"""Rows in which somebody changed an auditor's bundle behind her back."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

from permslip._pb.permslip.v1 import ledger_pb2, statement_pb2 as pb
from permslip.auditing.codes import Code
from permslip.checkpoints import Checkpoint, sign_checkpoint
from permslip.keys import SigningKey
from permslip.notes import Ed25519Signer
from permslip.reasons import Reason
from tests.e2e.planted.forgery import execute
from tests.e2e.planted.staging import Caught, Expected, Fault, Stage, fault

__all__ = ["BUNDLE_FAULTS"]

BUNDLE_FAULTS: list[Fault] = []
_DECIDED = "ledger = 1 AND event = 'access_decided' AND query_id = ?"


@fault(BUNDLE_FAULTS, "an entry is taken out of the bundle")
def entry_taken_out(stage: Stage) -> Expected:
    position = _position(stage, "second")
    execute(stage.files["bundle"], "DELETE FROM entry WHERE ledger = 1 AND position = ?", position)
    return [Caught("verify", Code.POSITION_GAP, "broker")]


@fault(BUNDLE_FAULTS, "an entry's bytes are altered in the bundle")
def entry_altered(stage: Stage) -> Expected:
    position = _position(stage, "second")
    [leaf] = _one(stage, f"SELECT leaf FROM entry WHERE {_DECIDED}", stage.query("second"))
    entry = ledger_pb2.LogEntry.FromString(leaf)
    entry.access_decided.reason = Reason.GRANT_EXPIRED.wire
    execute(
        stage.files["bundle"],
        "UPDATE entry SET leaf = ? WHERE ledger = 1 AND position = ?",
        entry.SerializeToString(deterministic=True),
        position,
    )
    return [Caught("verify", Code.LEAF_HASH, "broker", position)]


@fault(BUNDLE_FAULTS, "a column of the bundle says something else than the entry")
def column_altered(stage: Stage) -> Expected:
    query = stage.query("second")
    execute(stage.files["bundle"], f"UPDATE entry SET purpose = 'THERAPY' WHERE {_DECIDED}", query)
    return [Caught("verify", Code.LEAF_COLUMNS, "broker", _position(stage, "second"))]


@fault(BUNDLE_FAULTS, "an entry's bytes are taken out of the bundle, as though they were erased")
def entry_emptied(stage: Stage) -> Expected:
    query = stage.query("second")
    execute(stage.files["bundle"], f"UPDATE entry SET leaf = NULL WHERE {_DECIDED}", query)
    return [Caught("verify", Code.LEAF_HIDDEN, "broker", _position(stage, "second"))]


@fault(BUNDLE_FAULTS, "a statement's signature is altered in the bundle")
def signature_altered_in_bundle(stage: Stage) -> Expected:
    grant = stage.honest.grants["plain"]
    envelope = pb.Envelope()
    envelope.CopyFrom(grant.envelope)
    envelope.signatures[0].signature = bytes(reversed(envelope.signatures[0].signature))
    _put_envelope(stage, grant.id, envelope)
    return [Caught("verify", Code.STATEMENT_SIGNATURE, "")]


@fault(BUNDLE_FAULTS, "a statement in the bundle is exchanged for another one")
def statement_exchanged(stage: Stage) -> Expected:
    _put_envelope(stage, stage.honest.grants["plain"].id, stage.honest.grants["twice"].envelope)
    return [Caught("verify", Code.STATEMENT_ID, "")]


@fault(BUNDLE_FAULTS, "a statement is taken out of the bundle")
def statement_taken_out(stage: Stage) -> Expected:
    grant = stage.honest.grants["plain"]
    execute(stage.files["bundle"], "DELETE FROM statement WHERE id = ?", grant.id)
    [position] = _one(stage, "SELECT position FROM entry WHERE ledger = 1 AND statement_id = ?", grant.id)
    return [Caught("verify", Code.STATEMENT_MISSING, "broker", position)]


@fault(BUNDLE_FAULTS, "the bundle says «erased» of what nobody erased")
def erasure_invented(stage: Stage) -> Expected:
    grant = stage.honest.grants["plain"]
    execute(stage.files["bundle"], "DELETE FROM statement WHERE id = ?", grant.id)
    execute(stage.files["bundle"], "INSERT INTO erased VALUES (?, 1, 0, 0, 'retention')", grant.id)
    return [Caught("verify", Code.ERASURE_UNRECORDED, "broker")]


@fault(BUNDLE_FAULTS, "a checkpoint in the bundle was signed by somebody else")
def checkpoint_of_another(stage: Stage) -> Expected:
    size, root = _one(stage, "SELECT size, root FROM checkpoint WHERE ledger = 1")
    origin = f"{stage.honest.federation}/broker"
    note = sign_checkpoint(Checkpoint(origin, size, root), [Ed25519Signer(origin, SigningKey.generate())])
    execute(stage.files["bundle"], "UPDATE checkpoint SET note = ? WHERE ledger = 1", note)
    return [Caught("verify", Code.CHECKPOINT_SIGNATURE, "broker")]


def _position(stage: Stage, query: str) -> int:
    return int(_one(stage, f"SELECT position FROM entry WHERE {_DECIDED}", stage.query(query))[0])


def _one(stage: Stage, sql: str, *parameters: object) -> Any:
    with closing(sqlite3.connect(stage.files["bundle"])) as connection:
        [row] = connection.execute(sql, parameters).fetchall()
    return row


def _put_envelope(stage: Stage, statement_id: bytes, envelope: pb.Envelope) -> None:
    raw = envelope.SerializeToString(deterministic=True)
    execute(stage.files["bundle"], "UPDATE statement SET envelope = ? WHERE id = ?", raw, statement_id)

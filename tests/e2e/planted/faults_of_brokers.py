"""Rows in which the broker's ledger, or what the broker keeps beside it, is not what it should be."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing

from permslip import statements as st
from permslip._pb.permslip.v1 import ledger_pb2, statement_pb2 as pb
from permslip.auditing.codes import Code
from permslip.checkpoints import Checkpoint, CosignatureSigner, cosign, open_checkpoint, sign_checkpoint
from permslip.keyfile import read_key_file
from permslip.keys import SigningKey
from permslip.notes import Ed25519Signer, Ed25519Verifier, SignatureType, VerifierKey
from permslip.reasons import Reason
from permslip.statements import Signed
from permslip.witnesses import witness_name
from tests.e2e.planted.forgery import ForgedLedger, execute, put_statement
from tests.e2e.planted.staging import Caught, Expected, Fault, Stage, fault
from tests.federation.consents import make_delegation, make_endorsement
from tests.federation.processes import now

__all__ = ["BROKER_FAULTS"]

BROKER_FAULTS: list[Fault] = []


@fault(BROKER_FAULTS, "an entry is taken out of the broker's table", old=False)
def row_removed(stage: Stage) -> Expected:
    position = stage.ledger("broker").one("access_decided", query_id=stage.query("second"))
    execute(stage.files["broker"], "DELETE FROM leaf WHERE position = ?", position)
    return [Caught("fetch", Code.POSITION_GAP, "broker", position)]


@fault(BROKER_FAULTS, "two entries change places in the broker's table", old=False)
def rows_swapped(stage: Stage) -> Expected:
    position = stage.ledger("broker").one("access_decided", query_id=stage.query("second"))
    for before, after in ((position, -1), (position + 1, position), (-1, position + 1)):
        execute(stage.files["broker"], "UPDATE leaf SET position = ? WHERE position = ?", after, before)
    return [Caught("fetch", Code.CHECKPOINT_ROOT, "broker")]


@fault(BROKER_FAULTS, "a byte of an entry is altered in the broker's table", old=False)
def row_altered(stage: Stage) -> Expected:
    ledger = stage.ledger("broker")
    position = ledger.one("access_decided", query_id=stage.query("second"))
    ledger.entry(position).access_decided.reason = Reason.GRANT_EXPIRED.wire
    leaf = ledger.entry(position).SerializeToString(deterministic=True)
    execute(stage.files["broker"], "UPDATE leaf SET leaf = ? WHERE position = ?", leaf, position)
    return [Caught("fetch", Code.LEAF_HASH, "broker", position)]


@fault(BROKER_FAULTS, "the broker routed without logging")
def routed_unlogged(stage: Stage) -> Expected:
    with stage.ledger("broker") as broker:
        broker.remove(*_about(broker, stage.query("second")))
    served = stage.ledger("high").one("access_decided", query_id=stage.query("second"))
    return [Caught("reconcile", Code.SERVED_UNROUTED, "high", served)]


@fault(BROKER_FAULTS, "the last thing the broker did was to route without logging")
def last_routed_unlogged(stage: Stage) -> Expected:
    with stage.ledger("broker") as broker:
        first, *_ = _about(broker, stage.query("last"))
        broker.remove(*range(first, len(broker.leaves)))
    served = stage.ledger("high").one("access_decided", query_id=stage.query("last"))
    return [Caught("reconcile", Code.SERVED_UNROUTED, "high", served)]


@fault(BROKER_FAULTS, "an entry stands earlier than it was made")
def reordered(stage: Stage) -> Expected:
    with stage.ledger("broker") as broker:
        position = broker.one("access_decided", query_id=stage.query("last at platform"))
        to = broker.one("access_decided", query_id=stage.query("first"))
        broker.move(position, to)
    return [Caught("replay", Code.CLOCK_BACKWARD, "broker", to + 1)]


@fault(BROKER_FAULTS, "an entry says another purpose than its query's grant")
def purpose_altered(stage: Stage) -> Expected:
    with stage.ledger("broker") as broker:
        position = broker.one("access_decided", query_id=stage.query("first"))
        broker.entry(position).access_decided.purpose = pb.PURPOSE_THERAPY
    return [Caught("replay", Code.DECISION_MISDESCRIBED, "broker", position)]


@fault(BROKER_FAULTS, "an access that never was is inserted, with a query that nobody signed")
def inserted(stage: Stage) -> Expected:
    with stage.ledger("broker") as broker:
        like = broker.one("access_decided", query_id=stage.query("first"))
        body = ledger_pb2.AccessDecided()
        body.CopyFrom(broker.entry(like).access_decided)
        body.query_id, body.envelope_sha256 = os.urandom(32), os.urandom(32)
        broker.insert(like + 1, "access_decided", body, like=broker.entry(like))
    return [Caught("verify", Code.STATEMENT_MISSING, "broker", like + 1)]


@fault(BROKER_FAULTS, "a query is routed once more")
def routed_twice(stage: Stage) -> Expected:
    with stage.ledger("broker") as broker:
        position = broker.one("access_decided", query_id=stage.query("first"))
        broker.leaves.insert(position + 1, broker.copy_of(position))
    return [Caught("replay", Code.VERDICT_DIFFERS, "broker", position + 1)]


@fault(BROKER_FAULTS, "two checkpoints of the same size", old=True, visited=True)
def same_size(stage: Stage) -> Expected:
    with stage.ledger("broker") as broker:
        broker.entry(broker.find("access_answered")[-1]).nonce = os.urandom(16)
    return [Caught("fetch", Code.CHECKPOINT_FORK, "broker")]


@fault(BROKER_FAULTS, "history is rewritten and signed again, and the auditor saw the true one", old=True, visited=True)
def rewritten_after_a_visit(stage: Stage) -> Expected:
    with stage.ledger("broker") as broker:
        _rewrite(broker, stage)
        like = broker.leaves[-1].entry
        for _ in range(3):
            body = ledger_pb2.RequestRefused(reason=Reason.MALFORMED.wire, method="Exchange")
            broker.append("request_refused", body, like=_nowhere(like))
    return [Caught("fetch", Code.CHECKPOINT_FORK, "broker")]


@fault(BROKER_FAULTS, "history is rewritten and signed again, and witnesses saw the true one", old=False)
def rewritten_before_witnesses(stage: Stage) -> Expected:
    with stage.ledger("broker") as broker:
        _rewrite(broker, stage)
    execute(stage.files["broker"], "DELETE FROM cosigned")
    return [Caught("verify", Code.COSIGNATURES_MISSING, "broker")]


@fault(BROKER_FAULTS, "witnesses refuse what was rewritten, and say so", old=False)
def rewritten_longer(stage: Stage) -> Expected:
    with stage.ledger("broker") as broker:
        _rewrite(broker, stage)
        body = ledger_pb2.RequestRefused(reason=Reason.MALFORMED.wire, method="Exchange")
        for _ in range(5):
            broker.append("request_refused", body, like=_nowhere(broker.leaves[-1].entry))
    execute(stage.files["broker"], "DELETE FROM cosigned")
    alerted = len(stage.ledger("library").leaves)
    return [Caught("reconcile", Code.WITNESS_ALERTED, "library", alerted)]


@fault(BROKER_FAULTS, "the broker's ledger is put back to an earlier state", visited=True)
def rolled_back(stage: Stage) -> Expected:
    with stage.ledger("broker") as broker:
        broker.remove(*range(len(broker.leaves) - 4, len(broker.leaves)))
    return [Caught("fetch", Code.CHECKPOINT_ROLLBACK, "broker")]


@fault(BROKER_FAULTS, "nodes that are no witnesses cosign a rewritten history", old=False)
def sybils(stage: Stage) -> Expected:
    honest = stage.honest
    with stage.ledger("broker") as broker:
        _rewrite(broker, stage)
    with closing(sqlite3.connect(stage.files["broker"])) as connection:
        size, root = connection.execute("SELECT size, root FROM log_head").fetchone()
    signing = read_key_file(honest.processes.broker_folder / "broker.key").signing
    own = Ed25519Signer("fed.test/broker", signing)
    note = sign_checkpoint(Checkpoint("fed.test/broker", size, root), [own])
    key = VerifierKey("fed.test/broker", SignatureType.ED25519, signing.public)
    opened = open_checkpoint(note, Ed25519Verifier(key))
    lines = b""
    for each in honest.schools:
        sybil = CosignatureSigner(witness_name("fed.test", each.root), SigningKey.generate(), timestamp=now() // 1_000)
        lines += cosign(opened, sybil).line().encode()
    execute(
        stage.files["broker"],
        "UPDATE cosigned SET size = ?, root = ?, lines = ?, cosigned_at = ?",
        size,
        root,
        lines,
        now(),
    )
    return [Caught("verify", Code.COSIGNATURES_MISSING, "broker")]


@fault(BROKER_FAULTS, "the broker logged «allowed» where it had to refuse")
def allowed_wrongly(stage: Stage) -> Expected:
    with stage.ledger("broker") as broker:
        position = broker.one("access_decided", query_id=stage.query("not granted"))
        _allow(broker.entry(position).access_decided)
    return [Caught("replay", Code.VERDICT_DIFFERS, "broker", position)]


@fault(BROKER_FAULTS, "the broker logged a refusal where it had to allow")
def refused_wrongly(stage: Stage) -> Expected:
    with stage.ledger("broker") as broker:
        position = broker.one("access_decided", query_id=stage.query("second"))
        broker.entry(position).access_decided.reason = Reason.GRANT_EXPIRED.wire
        del broker.entry(position).access_decided.sections[:]
    return [Caught("replay", Code.VERDICT_DIFFERS, "broker", position)]


@fault(BROKER_FAULTS, "a decision raced a revocation between two writers")
def raced(stage: Stage) -> Expected:
    with stage.ledger("broker") as broker:
        decided = broker.one("access_decided", query_id=stage.query("before its end"))
        answered = broker.one("access_answered", query_id=stage.query("before its end"))
        revoked = broker.one("statement_recorded", statement_id=stage.honest.revocations["revoked"].id)
        for position in (answered, decided):
            broker.entry(position).recorded_at = broker.entry(revoked).recorded_at
        broker.move(answered, revoked)
        broker.move(decided, revoked - 1)
    return [Caught("replay", Code.DECISION_RACED, "broker", revoked - 1)]


@fault(BROKER_FAULTS, "a decision rests on facts later than itself")
def facts_of_the_future(stage: Stage) -> Expected:
    with stage.ledger("broker") as broker:
        position = broker.one("access_decided", query_id=stage.query("second"))
        broker.entry(position).access_decided.facts_position = position + 3
    return [Caught("replay", Code.FACTS_POSITION, "broker", position)]


@fault(BROKER_FAULTS, "a school's endorsement is signed by somebody else")
def endorsed_by_another(stage: Stage) -> Expected:
    honest = stage.honest
    grant = honest.grants["a stranger's"]
    impostor = honest.high.organization.rotated(now=now())
    endorsement = make_endorsement(impostor, grant, now=now())
    with stage.ledger("broker") as broker:
        position = len(broker.leaves)
        broker.record(position, endorsement, subject=grant.id, like=_of_slice(broker, grant))
    put_statement(stage.files["broker"], endorsement, position)
    return [
        Caught("replay", Code.NOT_ADMISSIBLE, "broker", position),
        Caught("reconcile", Code.WORD_UNLOGGED, "broker", position),
    ]


@fault(BROKER_FAULTS, "a grant is widened under the guardian's signature")
def widened(stage: Stage) -> Expected:
    grant = stage.honest.grants["attendance alone"]
    payload = pb.Grant()
    payload.CopyFrom(grant.payload)
    payload.sections.append("transcript.grades")
    envelope = pb.Envelope()
    envelope.CopyFrom(grant.envelope)
    envelope.payload = payload.SerializeToString(deterministic=True)
    raw = envelope.SerializeToString(deterministic=True)
    execute(stage.files["broker"], "UPDATE statement SET envelope = ? WHERE id = ?", raw, grant.id)
    return [Caught("fetch", Code.STATEMENT_SIGNATURE, "broker")]


@fault(BROKER_FAULTS, "a delegation passes on more than was granted")
def delegation_widened(stage: Stage) -> Expected:
    honest = stage.honest
    grant = honest.grants["onward"]
    delegation = make_delegation(honest.tutor, grant, honest.clinic.root, ["portfolio.works"], now=now())
    with stage.ledger("broker") as broker:
        position = len(broker.leaves)
        broker.record(position, delegation, subject=grant.id, like=_of_slice(broker, grant))
    put_statement(stage.files["broker"], delegation, position)
    return [Caught("replay", Code.NOT_ADMISSIBLE, "broker", position)]


@fault(BROKER_FAULTS, "an answer is exchanged: its digest is another one")
def answer_swapped(stage: Stage) -> Expected:
    with stage.ledger("broker") as broker:
        position = broker.one("access_answered", query_id=stage.query("first"))
        other = broker.one("access_answered", query_id=stage.query("second"))
        digest = broker.entry(other).access_answered.manifest_sha256
        broker.entry(position).access_answered.manifest_sha256 = digest
    served = stage.ledger("high").one("access_decided", query_id=stage.query("first"))
    return [Caught("reconcile", Code.ANSWER_DIFFERS, "high", served)]


@fault(BROKER_FAULTS, "an answer weighs less at the broker than at the node")
def answer_weighs_less(stage: Stage) -> Expected:
    with stage.ledger("broker") as broker:
        position = broker.one("access_answered", query_id=stage.query("first"))
        broker.entry(position).access_answered.sealed_bytes -= 64
    served = stage.ledger("high").one("access_decided", query_id=stage.query("first"))
    return [Caught("reconcile", Code.ANSWER_SIZE, "high", served)]


@fault(BROKER_FAULTS, "a revocation is withheld from the node")
def withheld(stage: Stage) -> Expected:
    revocation = stage.honest.revocations["revoked"]
    with stage.ledger("high") as high:
        at = high.one("statement_recorded", statement_id=revocation.id)
        number = high.entry(at).statement_recorded.push_number
        acknowledged = high.one("statement_recorded", payload_type=st.ACKNOWLEDGEMENT.payload_type)
        high.remove(at, acknowledged)
        for position in high.find("statement_recorded"):
            recorded = high.entry(position).statement_recorded
            if recorded.push_number > number:
                recorded.push_number -= 1
    with stage.ledger("broker") as broker:
        broker.remove(broker.one("statement_recorded", payload_type=st.ACKNOWLEDGEMENT.payload_type))
        position = broker.one("statement_recorded", statement_id=revocation.id)
    root = stage.honest.high.root
    file = stage.files["broker"]
    execute(file, "UPDATE revocation_fact SET acknowledgement_id = NULL")
    execute(file, "DELETE FROM push WHERE node = ? AND number = ?", root, number)
    execute(file, "UPDATE push SET number = -number WHERE node = ? AND number > ?", root, number)
    execute(file, "UPDATE push SET number = -number - 1 WHERE node = ? AND number < 0", root)
    execute(file, "UPDATE push_head SET pushes = pushes - 1 WHERE node = ?", root)
    return [Caught("reconcile", Code.REVOCATION_WITHHELD, "broker", position)]


@fault(BROKER_FAULTS, "a node was pushed what the broker's ledger does not show")
def pushed_unlogged(stage: Stage) -> Expected:
    narrow = stage.honest.narrow.cert
    with stage.ledger("broker") as broker:
        broker.remove(broker.one("statement_recorded", statement_id=narrow.id))
    held = stage.ledger("library").one("statement_recorded", statement_id=narrow.id)
    return [Caught("reconcile", Code.PUSH_UNLOGGED, "library", held)]


@fault(BROKER_FAULTS, "the query of an access is gone without an erasure's entry", old=False)
def evidence_deleted(stage: Stage) -> Expected:
    position = stage.ledger("broker").one("access_decided", query_id=stage.query("not granted"))
    execute(stage.files["broker"], "DELETE FROM evidence WHERE position = ?", position)
    return [Caught("verify", Code.STATEMENT_MISSING, "broker", position)]


@fault(BROKER_FAULTS, "a grant's envelope is gone without an erasure's entry", old=False)
def statement_deleted(stage: Stage) -> Expected:
    grant = stage.honest.grants["plain at platform"]
    position = stage.ledger("broker").one("statement_recorded", statement_id=grant.id)
    for name in ("broker", "platform"):
        execute(stage.files[name], "UPDATE statement SET envelope = NULL WHERE id = ?", grant.id)
    return [Caught("verify", Code.STATEMENT_MISSING, "broker", position)]


@fault(BROKER_FAULTS, "a signature of a kept statement is altered", old=False)
def signature_altered(stage: Stage) -> Expected:
    grant = stage.honest.grants["plain"]
    envelope = pb.Envelope()
    envelope.CopyFrom(grant.envelope)
    signature = bytearray(envelope.signatures[0].signature)
    signature[7] ^= 1
    envelope.signatures[0].signature = bytes(signature)
    raw = envelope.SerializeToString(deterministic=True)
    execute(stage.files["broker"], "UPDATE statement SET envelope = ? WHERE id = ?", raw, grant.id)
    position = stage.ledger("broker").one("statement_recorded", statement_id=grant.id)
    return [Caught("fetch", Code.STATEMENT_SIGNATURE, "broker", position)]


@fault(BROKER_FAULTS, "one slice's chain is numbered anew around an entry that is left out")
def chain_renumbered(stage: Stage) -> Expected:
    with stage.ledger("broker") as broker:
        position = broker.one("access_decided", query_id=stage.query("second"))
        for name in ("slice", "slice_seq", "slice_prev"):
            broker.entry(position).ClearField(name)
    return [Caught("replay", Code.SLICE_DIFFERS, "broker", position)]


@fault(BROKER_FAULTS, "a number is left out of a slice's chain")
def chain_skips(stage: Stage) -> Expected:
    with stage.ledger("broker", chained=False) as broker:
        position = broker.one("access_decided", query_id=stage.query("last"))
        broker.entry(position).slice_seq += 1
    return [Caught("verify", Code.SLICE_CHAIN, "broker", position)]


@fault(BROKER_FAULTS, "a revocation is recorded twice")
def recorded_twice(stage: Stage) -> Expected:
    with stage.ledger("broker") as broker:
        at = broker.one("statement_recorded", statement_id=stage.honest.revocations["revoked"].id)
        copied = broker.copy_of(at)
        copied.entry.recorded_at = broker.leaves[-1].entry.recorded_at
        broker.leaves.append(copied)
        position = len(broker.leaves) - 1
    return [Caught("reconcile", Code.RECORDED_TWICE, "broker", position)]


@fault(BROKER_FAULTS, "one answer ends twice")
def answered_twice(stage: Stage) -> Expected:
    with stage.ledger("broker") as broker:
        at = broker.one("access_answered", query_id=stage.query("second"))
        broker.leaves.insert(at + 1, broker.copy_of(at))
    return [Caught("reconcile", Code.ANSWERED_TWICE, "broker", at + 1)]


@fault(BROKER_FAULTS, "an entry names another ledger")
def labelled_otherwise(stage: Stage) -> Expected:
    with stage.ledger("broker") as broker:
        position = broker.one("access_decided", query_id=stage.query("second"))
        broker.entry(position).ledger = stage.honest.high.root
    return [Caught("verify", Code.LEDGER_LABEL, "broker", position)]


@fault(BROKER_FAULTS, "the newest entries are dated tomorrow")
def dated_tomorrow(stage: Stage) -> Expected:
    with stage.ledger("broker") as broker:
        position = broker.one("access_decided", query_id=stage.query("last"))
        for each in broker.leaves[position:]:
            each.entry.recorded_at += 86_400_000
    return [Caught("verify", Code.CLOCK_AHEAD, "broker", position)]


def _rewrite(broker: ForgedLedger, stage: Stage) -> None:
    """The two entries about one access never were."""
    broker.remove(*_about(broker, stage.query("last at platform")))


def _about(ledger: ForgedLedger, query_id: bytes) -> list[int]:
    return [*ledger.find("access_decided", query_id=query_id), *ledger.find("access_answered", query_id=query_id)]


def _nowhere(like: ledger_pb2.LogEntry) -> ledger_pb2.LogEntry:
    """The same keeper, but about no slice."""
    entry = ledger_pb2.LogEntry()
    entry.CopyFrom(like)
    for name in ("slice", "slice_seq", "slice_prev"):
        entry.ClearField(name)
    return entry


def _of_slice(ledger: ForgedLedger, grant: Signed[pb.Grant]) -> ledger_pb2.LogEntry:
    return ledger.entry(ledger.one("statement_recorded", statement_id=grant.id))


def _allow(decided: ledger_pb2.AccessDecided) -> None:
    decided.reason = Reason.ALLOWED.wire
    for each in decided.sections:
        each.reason = Reason.ALLOWED.wire

"""Rows in which a node's ledger, or what it keeps beside it, is not what it should be; and both at once."""

from __future__ import annotations

import os
from typing import Any

from permslip import statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.auditing.codes import Code
from permslip.grants import revoker_hash
from permslip.reasons import Reason
from permslip.statements import Signed
from tests.e2e.planted.forgery import ForgedLedger, execute, put_statement
from tests.e2e.planted.staging import Caught, Expected, Fault, Stage, fault
from tests.federation.consents import Asked
from tests.federation.principals import DAY
from tests.federation.processes import now

__all__ = ["NODE_FAULTS"]

NODE_FAULTS: list[Fault] = []
ALLOWED = Reason.ALLOWED.wire


@fault(NODE_FAULTS, "a node serves without logging")
def served_unlogged(stage: Stage) -> Expected:
    query = stage.query("second")
    with stage.ledger("high") as high:
        high.remove(high.one("access_decided", query_id=query), high.one("access_answered", query_id=query))
    routed = stage.ledger("broker").one("access_decided", query_id=query)
    return [Caught("reconcile", Code.SERVED_UNLOGGED, "broker", routed)]


@fault(NODE_FAULTS, "a node serves what nobody routed")
def served_unrouted(stage: Stage) -> Expected:
    honest = stage.honest
    query = honest.make_query(honest.grants["plain"])
    with stage.ledger("high") as high:
        position = _serve(stage, high, query, like="second", routed=1, node=honest.high)
    return [Caught("reconcile", Code.SERVED_UNROUTED, "high", position)]


@fault(NODE_FAULTS, "broker and node serve after an acknowledged revocation, and say so")
def served_after_revocation(stage: Stage) -> Expected:
    honest = stage.honest
    query = honest.make_query(honest.grants["to be revoked"])
    with stage.ledger("broker") as broker:
        routed = _copy(broker, "before its end", stage, query)
    with stage.ledger("high") as high:
        position = _serve(stage, high, query, like="before its end", routed=routed, node=honest.high)
        manifest = high.entry(position + 1).access_answered
    with stage.ledger("broker") as broker:
        answered = broker.entry(routed + 1).access_answered
        answered.manifest_sha256, answered.sealed_bytes = manifest.manifest_sha256, manifest.sealed_bytes
    return [
        Caught("replay", Code.VERDICT_DIFFERS, "broker", routed),
        Caught("replay", Code.VERDICT_DIFFERS, "high", position),
        Caught("reconcile", Code.ANSWERED_AFTER_REVOCATION, "high", position + 1),
    ]


@fault(NODE_FAULTS, "broker and node allow a query under a grant that was never endorsed")
def never_endorsed(stage: Stage) -> Expected:
    caught = []
    honest = stage.honest
    grant = honest.make_grant(honest.high)
    query = honest.make_query(grant)
    for name in ("broker", "high"):
        with stage.ledger(name) as ledger:
            like = ledger.entry(ledger.one("access_decided", query_id=stage.query("second")))
            position = len(ledger.leaves)
            ledger.record(position, grant, subject=b"", like=like)
            routed = _copy(ledger, "second", stage, query, grant)
        put_statement(stage.files[name], grant, position)
        caught.append(Caught("replay", Code.VERDICT_DIFFERS, name, routed))
    return caught


@fault(NODE_FAULTS, "a node allows a section that was not granted")
def section_allowed(stage: Stage) -> Expected:
    with stage.ledger("high") as high:
        position = high.one("access_decided", query_id=stage.query("part"))
        for each in high.entry(position).access_decided.sections:
            each.reason = ALLOWED
    return [Caught("replay", Code.VERDICT_DIFFERS, "high", position)]


@fault(NODE_FAULTS, "a node logs «allowed» where it had to refuse, one use too many")
def one_use_too_many(stage: Stage) -> Expected:
    query = stage.honest.queries["third use"]
    with stage.ledger("high") as high:
        position = high.one("access_decided", query_id=query.id)
        decided = high.entry(position).access_decided
        decided.reason = ALLOWED
        del decided.uses[:]
        decided.uses.append(3)
        for section in query.query.payload.sections:
            decided.sections.add(section=section, reason=ALLOWED)
    return [Caught("replay", Code.VERDICT_DIFFERS, "high", position)]


@fault(NODE_FAULTS, "a use too many, answered and logged on both sides")
def use_over_limit(stage: Stage) -> Expected:
    honest = stage.honest
    query = honest.make_query(honest.grants["twice"])
    with stage.ledger("broker") as broker:
        routed = _copy(broker, "second use", stage, query)
    with stage.ledger("high") as high:
        position = _serve(stage, high, query, like="second use", routed=routed, node=honest.high)
        high.entry(position).access_decided.uses[0] = 3
        manifest = high.entry(position + 1).access_answered.manifest_sha256
    with stage.ledger("broker") as broker:
        broker.entry(routed + 1).access_answered.manifest_sha256 = manifest
    return [
        Caught("replay", Code.VERDICT_DIFFERS, "high", position),
        Caught("reconcile", Code.USES_OVER_LIMIT, "high", position + 1),
    ]


@fault(NODE_FAULTS, "a node counts a use less than there was")
def use_hidden(stage: Stage) -> Expected:
    with stage.ledger("high") as high:
        position = high.one("access_decided", query_id=stage.query("second use"))
        decided = high.entry(position).access_decided
        assert list(decided.uses) == [2]
        decided.uses[0] = 1
    return [Caught("replay", Code.USES_DIFFER, "high", position)]


@fault(NODE_FAULTS, "a node's clock is set back for one decision")
def decided_earlier(stage: Stage) -> Expected:
    with stage.ledger("high") as high:
        position = high.one("access_decided", query_id=stage.query("last"))
        high.entry(position).access_decided.decided_at -= 600_000
    return [
        Caught("replay", Code.DATED_BEFORE_FACTS, "high", position),
        Caught("reconcile", Code.CLOCKS_APART, "high", position),
    ]


@fault(NODE_FAULTS, "a decision is dated later than its entry")
def decided_later(stage: Stage) -> Expected:
    with stage.ledger("high") as high:
        position = high.one("access_decided", query_id=stage.query("last"))
        high.entry(position).access_decided.decided_at += 600_000
    return [Caught("replay", Code.DECISION_TIME, "high", position)]


@fault(NODE_FAULTS, "a node's clock is set back for one entry")
def recorded_earlier(stage: Stage) -> Expected:
    with stage.ledger("high") as high:
        position = high.one("access_answered", query_id=stage.query("last"))
        high.entry(position).recorded_at -= 20_000
    return [Caught("replay", Code.CLOCK_BACKWARD, "high", position)]


@fault(NODE_FAULTS, "a manifest is exchanged for one that says something else")
def manifest_exchanged(stage: Stage) -> Expected:
    honest, query = stage.honest, stage.honest.queries["last at platform"]
    with stage.ledger("platform") as platform:
        position = platform.one("access_answered", query_id=query.id)
        true = pb.Manifest.FromString(pb.Envelope.FromString(platform.leaves[position].evidence or b"").payload)
        true.coverage.pop()
        manifest = st.sign(st.MANIFEST, true, [honest.platform.organization.key])
        platform.leaves[position].evidence = manifest.raw
        platform.entry(position).access_answered.manifest_sha256 = manifest.sha256
    with stage.ledger("broker") as broker:
        relayed = broker.one("access_answered", query_id=query.id)
        broker.entry(relayed).access_answered.manifest_sha256 = manifest.sha256
    return [Caught("reconcile", Code.MANIFEST_DIFFERS, "platform", position)]


@fault(NODE_FAULTS, "a manifest is replaced by that of another answer", old=False)
def manifest_of_another(stage: Stage) -> Expected:
    platform = stage.ledger("platform")
    position = platform.one("access_answered", query_id=stage.query("last at platform"))
    other = platform.one("access_answered", query_id=stage.query("at platform"))
    kept = platform.leaves[other].evidence
    execute(stage.files["platform"], "UPDATE evidence SET envelope = ? WHERE position = ?", kept, position)
    return [Caught("verify", Code.STATEMENT_MISSING, "platform", position)]


@fault(NODE_FAULTS, "an entry is hidden from the chain that a parent reads")
def hidden_from_parent(stage: Stage) -> Expected:
    with stage.ledger("high") as high:
        position = high.one("access_decided", query_id=stage.query("first"))
        for name in ("slice", "slice_seq", "slice_prev"):
            high.entry(position).ClearField(name)
    return [Caught("replay", Code.SLICE_DIFFERS, "high", position)]


@fault(NODE_FAULTS, "a node names another entry of the broker's than its query's")
def routed_position(stage: Stage) -> Expected:
    with stage.ledger("high") as high:
        position = high.one("access_decided", query_id=stage.query("second"))
        high.entry(position).access_decided.routed_position -= 2
    return [Caught("reconcile", Code.ROUTED_POSITION, "high", position)]


@fault(NODE_FAULTS, "a node acknowledged a revocation that its ledger does not show")
def acknowledged_unheld(stage: Stage) -> Expected:
    revocation = stage.honest.revocations["revoked"]
    with stage.ledger("high") as high:
        high.remove(high.one("statement_recorded", statement_id=revocation.id))
    with stage.ledger("broker") as broker:
        said = broker.one("statement_recorded", payload_type=st.ACKNOWLEDGEMENT.payload_type)
    return [Caught("reconcile", Code.ACKNOWLEDGED_UNHELD, "broker", said)]


@fault(NODE_FAULTS, "a node never got a suspension's like: a statement that it must hold")
def push_missing(stage: Stage) -> Expected:
    cert = stage.honest.tutor.cert
    with stage.ledger("library") as library:
        library.remove(library.one("statement_recorded", statement_id=cert.id))
    pushed = stage.ledger("broker").one("statement_recorded", statement_id=cert.id)
    return [Caught("reconcile", Code.PUSH_MISSING, "broker", pushed)]


@fault(NODE_FAULTS, "the broker holds an endorsement that the node's ledger does not show")
def word_unlogged(stage: Stage) -> Expected:
    grant = stage.honest.grants["the father's"]
    with stage.ledger("high") as high:
        of_grant = high.find("statement_recorded", payload_type=st.ENDORSEMENT.payload_type, subject=grant.id)
        high.remove(*of_grant)
    with stage.ledger("broker") as broker:
        said = broker.find("statement_recorded", payload_type=st.ENDORSEMENT.payload_type, subject=grant.id)
    return [Caught("reconcile", Code.WORD_UNLOGGED, "broker", said[0])]


@fault(NODE_FAULTS, "a node endorses what only one of two guardians signed, where its rule asks for all")
def quorum_not_met(stage: Stage) -> Expected:
    honest = stage.honest
    grant = honest.make_grant(honest.high)
    keys = (honest.mother.public, honest.father.public)
    said_at = now()
    payload = pb.Endorsement(
        federation=honest.federation,
        nonce=os.urandom(16),
        created_at=said_at,
        signer=honest.high.organization.signer,
        grant_id=grant.id,
        verdict=pb.ENDORSEMENT_VERDICT_ENDORSED,
        quorum_rule="all",
        revokers=sorted(revoker_hash(grant.id, key) for key in keys),
        valid_until=said_at + 20 * DAY,
    )
    endorsement = st.sign(st.ENDORSEMENT, payload, [honest.high.organization.key])
    for name in ("broker", "high"):
        with stage.ledger(name) as ledger:
            like = ledger.entry(ledger.one("access_decided", query_id=stage.query("second")))
            position = len(ledger.leaves)
            ledger.record(position, grant, subject=b"", like=like)
            ledger.record(position + 1, endorsement, subject=grant.id, like=like)
        put_statement(stage.files[name], grant, position)
        put_statement(stage.files[name], endorsement, position + 1)
    return [Caught("reconcile", Code.QUORUM_NOT_MET, "high", position + 1)]


@fault(NODE_FAULTS, "a node's ledger is shortened below what the broker cosigned", old=False, visited=True)
def shortened_after_a_visit(stage: Stage) -> Expected:
    with stage.ledger("high") as high:
        high.remove(len(high.leaves) - 1, len(high.leaves) - 2)
    return [Caught("fetch", Code.CHECKPOINT_ROLLBACK, "high")]


@fault(NODE_FAULTS, "a node's ledger is shortened, and the auditor never saw the longer one", old=False)
def shortened(stage: Stage) -> Expected:
    query = stage.query("last")
    with stage.ledger("high") as high:
        high.remove(*range(high.one("access_decided", query_id=query), len(high.leaves)))
    routed = stage.ledger("broker").one("access_decided", query_id=query)
    return [Caught("reconcile", Code.SERVED_UNLOGGED, "broker", routed)]


@fault(NODE_FAULTS, "a node's history is rewritten after the auditor saw the true one", visited=True)
def rewritten(stage: Stage) -> Expected:
    with stage.ledger("high") as high:
        high.entry(high.one("access_decided", query_id=stage.query("first"))).nonce = os.urandom(16)
    return [Caught("fetch", Code.CHECKPOINT_FORK, "high")]


@fault(NODE_FAULTS, "a node's history is rewritten after the broker cosigned the true one", old=False)
def rewritten_below_cosigned(stage: Stage) -> Expected:
    with stage.ledger("high") as high:
        high.entry(high.one("access_decided", query_id=stage.query("first"))).nonce = os.urandom(16)
    alerted = len(stage.ledger("broker").leaves)
    return [
        Caught("verify", Code.COSIGNATURES_MISSING, "high"),
        Caught("reconcile", Code.WITNESS_ALERTED, "broker", alerted),
    ]


@fault(NODE_FAULTS, "a node logs an answer that it never gave")
def logged_unserved(stage: Stage) -> Expected:
    honest, query = stage.honest, stage.honest.queries["unserved"]
    routed = stage.ledger("broker").one("access_decided", query_id=query.id)
    with stage.ledger("platform") as platform:
        position = _serve(stage, platform, query, like="at platform", routed=routed, node=honest.platform)
    # An honest node whose line broke behind its answer says the same.
    return [Caught("reconcile", Code.ANSWER_NEVER_CAME, "platform", position, severity="warning")]


def _serve(stage: Stage, ledger: ForgedLedger, query: Asked, *, like: str, routed: int, node: Any) -> int:
    """Decide and answer at a node as it did another query, with a manifest by the node itself; where it decided."""
    position = _copy(ledger, like, stage, query)
    decided, answered = ledger.entry(position), ledger.entry(position + 1).access_answered
    decided.access_decided.routed_position = routed
    true = pb.Manifest.FromString(pb.Envelope.FromString(ledger.leaves[position + 1].evidence or b"").payload)
    true.query_id, true.nonce, true.created_at = query.id, os.urandom(16), now()
    true.grant_id = query.query.payload.grant_id
    place = decided.slice
    true.slice_seq += sum(each.entry.slice == place for each in ledger.leaves[:position]) + 1 - decided.slice_seq
    manifest = st.sign(st.MANIFEST, true, [node.organization.key])
    ledger.leaves[position + 1].evidence = manifest.raw
    answered.manifest_sha256 = manifest.sha256
    return position


def _copy(ledger: ForgedLedger, like: str, stage: Stage, query: Asked, grant: Signed[pb.Grant] | None = None) -> int:
    """Decide and answer at the end as another query was; returns where it is decided."""
    decided = ledger.copy_of(ledger.one("access_decided", query_id=stage.query(like)))
    answered = ledger.copy_of(ledger.one("access_answered", query_id=stage.query(like)))
    position, payload = len(ledger.leaves), query.query.payload
    made = max(ledger.leaves[-1].entry.recorded_at, payload.created_at)
    body = decided.entry.access_decided
    body.query_id, body.envelope_sha256, body.decided_at = query.id, query.query.sha256, made
    body.facts_position, body.grant_id = position, payload.grant_id
    body.requester.CopyFrom(payload.signer)
    answered.entry.access_answered.query_id = query.id
    decided.entry.recorded_at = answered.entry.recorded_at = made
    decided.evidence = query.query.raw
    ledger.leaves += [decided, answered]
    return position

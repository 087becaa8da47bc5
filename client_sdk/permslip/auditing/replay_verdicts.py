"""Verdicts side by side: what a ledger says was decided, what the same facts give again, and those facts.

Example::

    if not agrees(body, decision):
        found.add(Code.VERDICT_DIFFERS, differs(body, decision), recorded=recorded(body), replayed=replayed(decision))
"""

from __future__ import annotations

from typing import Any

from permslip._pb.permslip.v1 import ledger_pb2, statement_pb2 as pb
from permslip.decision import Decision, Facts
from permslip.reasons import Reason

__all__ = ["agrees", "describes", "differs", "reason_name", "recorded", "replayed", "shown"]


def agrees(body: ledger_pb2.AccessDecided, decision: Decision) -> bool:
    """Whether an entry holds this very verdict, section by section."""
    sections = body.sections
    if body.reason != int(decision.reason) or len(sections) != len(decision.sections):
        return False
    for each, (path, reason) in zip(sections, decision.sections, strict=True):
        if each.reason != int(reason) or each.section != path:
            return False
    return True


def describes(body: ledger_pb2.AccessDecided, query: pb.Query) -> str:
    """The field of an entry that says something else than the query it names; empty where none does."""
    if body.requester != query.signer:
        return "requester"
    if body.grant_id != query.grant_id:
        return "grant_id"
    if body.delegation_ids != query.delegation_ids:
        return "delegation_ids"
    return "" if body.action == query.action else "action"


def differs(body: ledger_pb2.AccessDecided, decision: Decision) -> str:
    """Both verdicts in one sentence."""
    if body.reason != int(decision.reason):
        return f"the ledger says {reason_name(body.reason)}, its own facts give {decision.reason.name}."
    told = {each.section: reason_name(each.reason) for each in body.sections}
    given = {path: reason.name for path, reason in decision.sections}
    path = next((each for each in sorted({*told, *given}) if told.get(each) != given.get(each)), "")
    if not path:
        return "the ledger names its sections in another order than the query's."
    return f"for {path} the ledger says {told.get(path, 'nothing')}, its own facts give {given.get(path, 'nothing')}."


def recorded(body: ledger_pb2.AccessDecided) -> dict[str, Any]:
    """The verdict of an entry."""
    return {
        "reason": reason_name(body.reason),
        "sections": {each.section: reason_name(each.reason) for each in body.sections},
        "uses": list(body.uses),
    }


def replayed(decision: Decision) -> dict[str, Any]:
    """The verdict of a replay."""
    return {
        "reason": decision.reason.name,
        "sections": {path: reason.name for path, reason in decision.sections},
    }


def shown(facts: Facts) -> dict[str, Any]:
    """What a decision was made by, as far as a person needs it to see why."""
    endorsement = facts.endorsement.payload if facts.endorsement is not None else None
    told: dict[str, Any] = {
        "position": facts.position,
        "grant": None if facts.grant is None else facts.grant.id,
        "delegations": [None if each is None else each.id for each in facts.delegations],
        "ended": {identifier.hex(): reason.name for identifier, reason in facts.ended.items()},
        "endorsement": None
        if endorsement is None
        else {
            "verdict": pb.EndorsementVerdict.Name(endorsement.verdict).removeprefix("ENDORSEMENT_VERDICT_"),
            "valid_until": endorsement.valid_until,
        },
        "organizations": {
            root.hex(): {
                "admitted": standing.admission is not None,
                "suspended": standing.suspension is not None,
                "certificate": None if standing.cert is None else standing.cert.payload.seq,
            }
            for root, standing in facts.standings.items()
        },
        "seen": facts.seen,
    }
    if facts.uses is not None:
        told |= {"uses": list(facts.uses), "use_cost": facts.use_cost}
    if facts.unfit != Reason.ALLOWED:
        told["unfit"] = facts.unfit.name
    return told


def reason_name(number: int) -> str:
    """A reason's name; its number where this version does not know it."""
    try:
        return Reason(number).name
    except ValueError:
        return str(number)

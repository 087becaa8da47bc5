"""Acts of those who say no: a parent revokes, and what nobody should get is refused, each time with the reason."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Final

import grpc

from permslip._pb.permslip.v1 import guardian_pb2, guardian_pb2_grpc, provider_pb2
from permslip.client.revoking import RevocationState
from permslip.demo.granting import NARROW_SECTION, TUTOR_SECTIONS, terms_for
from permslip.demo.raw_exchange import RawExchange
from permslip.demo.report import RevocationFacts
from permslip.demo.stage import Given, Stage
from permslip.demo.tampering import Attempt, Held, attempts, make_query, widened_grant
from permslip.grant_views import GrantView
from permslip.keys import did_text
from permslip.reasons import Reason

__all__ = ["refuse_all", "revoke_one"]

_NOT_GRANTED: Final = "transcript.credits"
_SENSITIVE: Final = "personal.discipline"
_PATIENCE: Final = 20.0


async def revoke_one(stage: Stage) -> GrantView:
    """The other guardian of a family revokes what the first one granted; returns a grant that is dead."""
    narrator = stage.narrator
    given = next(each for each in stage.given_to(stage.tutor) if len(each.family.guardians) > 1)
    first, other = given.family.guardians[:2]
    narrator.act("A parent revokes")
    narrator.say(
        f"{first.name} granted, {other.name} revokes: any one guardian can. What counts is the school's own signed "
        "word that not one byte more leaves."
    )
    state: RevocationState | None = None
    began = time.perf_counter()
    async with stage.federation.guardian(other.wallet) as client:
        async for state in client.revoke(given.consent):
            if state.is_complete:
                break
    seconds = time.perf_counter() - began
    stage.expect(state is not None and state.is_complete, "every school confirms the revocation")
    stage.revoked = given.family
    async with stage.federation.client(stage.tutor) as client:
        profile = await client.profile(given.consent.grants, sections=TUTOR_SECTIONS)
    reasons = {each.reason for each in profile.coverage}
    stage.expect(not profile.entries, "no record comes after the revocation")
    stage.expect(reasons == {Reason.GRANT_REVOKED}, "the next query is refused because the grant was revoked")
    stage.report.revocation = RevocationFacts(True, round(seconds, 4), Reason.GRANT_REVOKED.name)
    narrator.done(f"{state.text if state else ''} It took {seconds * 1000:.0f} ms, from her tap to the signed word.")
    narrator.refused(f"the tutor's next query: GRANT_REVOKED. {Reason.GRANT_REVOKED.meaning}")
    return given.consent.grants[0]


async def refuse_all(stage: Stage, revoked: GrantView) -> None:
    """Everything that nobody should get."""
    narrator = stage.narrator
    narrator.act("What nobody should get")
    narrator.say("Sent by hand, past the SDK, to the running broker and nodes:")
    federation = stage.federation
    tutor, summer = federation.raw_caller(stage.tutor), federation.raw_caller(stage.summer)
    therapist = federation.raw_caller(stage.therapist)
    narrow = _school_grant(
        next(each for each in stage.given_to(stage.tutor) if each.consent.grants[0].id != revoked.id)
    )
    broad = _school_grant(stage.given_to(stage.summer)[0])
    single = _school_grant(stage.given_to(stage.therapist)[0])
    tried = [
        *attempts(
            Held(narrow.signed, tutor), Held(broad.signed, summer), not_granted=_NOT_GRANTED, sensitive=_SENSITIVE
        ),
        Attempt(
            "revoked",
            "the tutor tries the revoked grant once more",
            tutor,
            make_query(revoked.id, tutor, list(revoked.sections)).envelope,
            Reason.GRANT_REVOKED,
        ),
        Attempt(
            "used_up",
            "the therapist, who was granted one look, looks again",
            therapist,
            make_query(single.id, therapist, [NARROW_SECTION]).envelope,
            Reason.USES_EXHAUSTED,
        ),
    ]
    unendorsed = await _grant_by_a_stranger(stage)
    tried.append(
        Attempt(
            "stranger_grants",
            "a parent grants what is another family's; the school does not endorse it",
            tutor,
            make_query(unendorsed.id, tutor, list(unendorsed.sections)).envelope,
            Reason.ENDORSEMENT_REFUSED,
        )
    )
    rows = []
    for attempt in tried:
        outcome = await asyncio.to_thread(_send, federation.address, attempt)
        rows.append(_row(stage, attempt, outcome))
    widened = await asyncio.to_thread(_deposit_widened, federation.address, narrow)
    stage.report.refusals["widened_grant"] = widened.name
    rows.append(("widened_grant", "the parent's grant is edited to cover more", widened.name, "broker"))
    stage.expect(widened is Reason.BAD_SIGNATURE, "a grant that was edited is refused: BAD_SIGNATURE")
    narrator.table(("attempt", "what somebody tries", "refused with", "by"), rows)
    narrator.done(f"{len(rows)} attempts, {len(rows)} refusals, no record")


def _row(stage: Stage, attempt: Attempt, outcome: provider_pb2.Outcome) -> tuple[str, str, str, str]:
    reason = Reason(outcome.refusal.code)
    stage.report.refusals[attempt.name] = reason.name
    stage.expect(
        reason is attempt.expected, f"{attempt.name} is refused with {attempt.expected.name}, not {reason.name}"
    )
    who = next((node.site.name for node in stage.nodes if node.root_key == outcome.said_by), "")
    return attempt.name, attempt.story, reason.name, who or (did_text(outcome.said_by) if outcome.said_by else "broker")


def _send(address: str, attempt: Attempt) -> provider_pb2.Outcome:
    with RawExchange(address, attempt.caller) as exchange:
        if attempt.first:
            exchange.ask(attempt.query)
        return exchange.ask(attempt.query)


async def _grant_by_a_stranger(stage: Stage) -> GrantView:
    """A guardian of one family signs a grant on another family's slice."""
    stranger, victim = stage.families[1], stage.families[0]
    async with stage.federation.guardian(victim.guardians[0].wallet) as client:
        slices = client.wallet.slices[:1] if client.wallet is not None else ()
    # A reference of its own: grants by other persons must not be taken for grants about the same learner.
    purpose_text, _ = terms_for(victim, "A stranger's grant")
    reference = f"not {victim.reference}"
    stage.search.add((purpose_text, reference))
    async with stage.federation.guardian(stranger.guardians[0].wallet) as client:
        consent = await client.grant(
            stage.tutor.root,
            sections=TUTOR_SECTIONS,
            purpose="tutoring",
            purpose_text=purpose_text,
            until=datetime.now(UTC) + timedelta(days=30),
            slices=slices,
            reference=reference,
        )
    stage.expect(not consent.is_active and bool(consent.grants), "the school does not endorse a stranger's grant")
    return consent.grants[0]


def _deposit_widened(address: str, view: GrantView) -> Reason:
    envelope = widened_grant(view.signed, _SENSITIVE)
    with grpc.insecure_channel(address) as channel:
        response = guardian_pb2_grpc.GuardianServiceStub(channel).DepositConsent(
            guardian_pb2.DepositConsentRequest(statements=[envelope]), timeout=_PATIENCE
        )
    return Reason(response.results[0].refusal.code)


def _school_grant(given: Given) -> GrantView:
    """The grant of a consent that is for the school."""
    school = given.family.nodes[0].root_key
    return next(each for each in given.consent.grants if each.node == school)

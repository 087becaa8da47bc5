"""Every reason for which a broker itself refuses a query: each is told, and each is in the ledger."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

import pytest

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.reasons import Reason
from tests.e2e.broker.small_federation import FEDERATION, SECTIONS, SmallFederation
from tests.federation.consents import Asked, make_delegation, make_endorsement
from tests.federation.principals import DAY, suspend
from tests.federation.simulated_node import SimulatedNode

Scene = Callable[[SmallFederation, SimulatedNode], Awaitable[Asked]]


async def expired(f: SmallFederation, _node: SimulatedNode) -> Asked:
    return f.query(f.tutor, await f.endorsed_grant(), now=f.now() - 100_000, lifetime=60_000)


async def too_long_lived(f: SmallFederation, _node: SimulatedNode) -> Asked:
    return f.query(f.tutor, await f.endorsed_grant(), lifetime=DAY)


async def from_the_future(f: SmallFederation, _node: SimulatedNode) -> Asked:
    return f.query(f.tutor, await f.endorsed_grant(), now=f.now() + 120_000)


async def not_the_grantee(f: SmallFederation, _node: SimulatedNode) -> Asked:
    return f.query(f.tutor, await f.endorsed_grant(grantee=f.clinic.root))


async def suspended_requester(f: SmallFederation, _node: SimulatedNode) -> Asked:
    grant = await f.endorsed_grant()
    await f.admit(suspend(f.operator, f.tutor, now=f.now() + 1))
    return f.query(f.tutor, grant)


async def superseded_key(f: SmallFederation, _node: SimulatedNode) -> Asked:
    grant = await f.endorsed_grant()
    await f.admit(f.tutor.rotated(now=f.now()).cert)
    return f.query(f.tutor, grant)


async def key_that_ran_out(f: SmallFederation, _node: SimulatedNode) -> Asked:
    grant = await f.endorsed_grant()
    f.ahead = 91 * DAY
    return f.query(f.tutor, grant)


async def unknown_grant(f: SmallFederation, _node: SimulatedNode) -> Asked:
    return f.query(f.tutor, os.urandom(32))


async def pending_grant(f: SmallFederation, node: SimulatedNode) -> Asked:
    node.verdict = None
    grant = f.grant()
    await f.deposit(grant)
    return f.query(f.tutor, grant)


def endorsement_of(verdict: pb.EndorsementVerdict.ValueType) -> Scene:
    async def scene(f: SmallFederation, node: SimulatedNode) -> Asked:
        node.verdict = verdict
        grant = f.grant()
        await f.deposit(grant, wait=20_000)
        return f.query(f.tutor, grant)

    return scene


async def endorsement_that_ran_out(f: SmallFederation, _node: SimulatedNode) -> Asked:
    grant = await f.endorsed_grant()
    f.ahead = 21 * DAY
    return f.query(f.tutor, grant)


async def grant_that_begins_later(f: SmallFederation, _node: SimulatedNode) -> Asked:
    return f.query(f.tutor, await f.endorsed_grant(not_before=f.now() + DAY))


async def grant_that_ended(f: SmallFederation, _node: SimulatedNode) -> Asked:
    grant = await f.endorsed_grant(lifetime=DAY)
    f.ahead = 2 * DAY
    return f.query(f.tutor, grant)


async def revoked_grant(f: SmallFederation, _node: SimulatedNode) -> Asked:
    grant = await f.endorsed_grant()
    await f.revoke(f.revocation(grant))
    return f.query(f.tutor, grant)


async def superseded_grant(f: SmallFederation, _node: SimulatedNode) -> Asked:
    grant = await f.endorsed_grant()
    await f.endorsed_grant(supersedes=[grant.id])
    return f.query(f.tutor, grant)


async def authority_that_ended_later(f: SmallFederation, node: SimulatedNode) -> Asked:
    grant = await f.endorsed_grant()
    verdict = pb.ENDORSEMENT_VERDICT_AUTHORITY_ENDED
    node.say(make_endorsement(f.school, grant, now=f.now() + 1, verdict=verdict))
    await node.until(lambda: len(node.results) == 2)
    return f.query(f.tutor, grant)


async def action_not_granted(f: SmallFederation, _node: SimulatedNode) -> Asked:
    return f.query(f.tutor, await f.endorsed_grant(), action=pb.ACTION_WATCH)


async def section_not_granted(f: SmallFederation, _node: SimulatedNode) -> Asked:
    return f.query(f.tutor, await f.endorsed_grant(), ["portfolio.works"])


async def sensitive_section(f: SmallFederation, _node: SimulatedNode) -> Asked:
    return f.query(f.tutor, await f.endorsed_grant(sections=["personal"]), ["personal.health"])


async def unknown_section(f: SmallFederation, _node: SimulatedNode) -> Asked:
    return f.query(f.tutor, await f.endorsed_grant(), ["transcript.horoscope"])


async def unknown_delegation(f: SmallFederation, _node: SimulatedNode) -> Asked:
    grant = await f.endorsed_grant(depth=1, onward=[f.clinic.root])
    return f.query(f.clinic, grant, delegations=[os.urandom(32)])


async def delegation_too_deep(f: SmallFederation, _node: SimulatedNode) -> Asked:
    return f.query(f.tutor, await f.endorsed_grant(), delegations=[os.urandom(32)])


async def revoked_delegation(f: SmallFederation, node: SimulatedNode) -> Asked:
    from permslip._pb.permslip.v1 import provider_pb2
    from tests.federation.consents import make_revocation

    grant = await f.endorsed_grant(depth=1, onward=[f.clinic.root])
    passed_on = make_delegation(f.tutor, grant, f.clinic.root, SECTIONS[:1], now=f.now())
    revocation = make_revocation(
        f.tutor, passed_on.id, f.school.root, federation=FEDERATION, now=f.now(), role=pb.REVOKER_ROLE_DELEGATOR
    )
    statements = [passed_on.envelope, revocation.envelope]
    response = await f.provider_calls.Deposit(provider_pb2.DepositRequest(statements=statements))
    assert [each.refusal.code for each in response.results] == [Reason.ALLOWED.wire] * 2
    return f.query(f.clinic, grant, SECTIONS[:1], delegations=[passed_on.id])


async def suspended_node(f: SmallFederation, _node: SimulatedNode) -> Asked:
    grant = await f.endorsed_grant()
    await f.admit(suspend(f.operator, f.school, now=f.now() + 1))
    return f.query(f.tutor, grant)


SCENES: list[tuple[Scene, Reason]] = [
    (expired, Reason.QUERY_EXPIRED),
    (too_long_lived, Reason.QUERY_EXPIRED),
    (from_the_future, Reason.QUERY_FROM_FUTURE),
    (not_the_grantee, Reason.NOT_GRANTEE),
    (suspended_requester, Reason.REQUESTER_SUSPENDED),
    (superseded_key, Reason.KEY_NOT_CERTIFIED),
    (key_that_ran_out, Reason.KEY_EXPIRED),
    (unknown_grant, Reason.GRANT_UNKNOWN),
    (pending_grant, Reason.GRANT_PENDING),
    (endorsement_of(pb.ENDORSEMENT_VERDICT_NO_AUTHORITY), Reason.ENDORSEMENT_REFUSED),
    (endorsement_of(pb.ENDORSEMENT_VERDICT_OBJECTED), Reason.OBJECTED),
    (endorsement_of(pb.ENDORSEMENT_VERDICT_AUTHORITY_ENDED), Reason.AUTHORITY_ENDED),
    (endorsement_that_ran_out, Reason.ENDORSEMENT_EXPIRED),
    (grant_that_begins_later, Reason.GRANT_NOT_YET),
    (grant_that_ended, Reason.GRANT_EXPIRED),
    (revoked_grant, Reason.GRANT_REVOKED),
    (superseded_grant, Reason.GRANT_SUPERSEDED),
    (authority_that_ended_later, Reason.AUTHORITY_ENDED),
    (action_not_granted, Reason.ACTION_NOT_GRANTED),
    (section_not_granted, Reason.SECTION_NOT_GRANTED),
    (sensitive_section, Reason.SECTION_SENSITIVE),
    (unknown_section, Reason.SECTION_UNKNOWN),
    (unknown_delegation, Reason.DELEGATION_UNKNOWN),
    (delegation_too_deep, Reason.DELEGATION_TOO_DEEP),
    (revoked_delegation, Reason.DELEGATION_REVOKED),
    (suspended_node, Reason.NODE_SUSPENDED),
]


@pytest.mark.parametrize(
    ("scene", "reason"), SCENES, ids=[f"{scene.__name__}-{reason.name}" for scene, reason in SCENES]
)
async def test_a_query_that_may_not_be_is_refused_with_its_reason_and_logged(
    federation: SmallFederation, scene: Scene, reason: Reason
) -> None:
    async with federation.attached() as node, federation.requester(federation.tutor) as tutor:
        async with federation.requester(federation.clinic) as clinic:
            asked = await scene(federation, node)
            signer = asked.query.payload.signer.root
            answer = await (tutor if signer == federation.tutor.root else clinic).ask(asked)
        assert answer.reason == reason
        assert answer.outcome.said_by == b"", "the broker says so"
        assert answer.outcome.refusal.message
        assert not answer.sealed_bytes
        assert [each.reason for each in answer.outcome.sections] == [reason.wire] * len(answer.outcome.sections)
        assert not node.asked, "the node never hears of it"
    [decided] = [each for each in await federation.events("access_decided") if each.query_id == asked.id]
    assert decided.reason == reason.wire


async def test_a_query_that_is_sent_again_is_refused_as_a_replay(federation: SmallFederation) -> None:
    async with federation.attached() as node, federation.requester(federation.tutor) as tutor:
        asked = federation.query(federation.tutor, await federation.endorsed_grant())
        assert (await tutor.ask(asked)).reason == Reason.ALLOWED
        tutor.answers.clear()
        assert (await tutor.ask(asked)).reason == Reason.QUERY_REPLAYED
        assert len(node.asked) == 1


async def test_the_same_query_twice_in_one_message_is_answered_once(federation: SmallFederation) -> None:
    async with federation.attached() as node, federation.requester(federation.tutor) as tutor:
        asked = federation.query(federation.tutor, await federation.endorsed_grant())
        await tutor.ask_all([asked.envelope, asked.envelope])
        await tutor.ask(federation.query(federation.tutor, os.urandom(32)))
        assert len(node.asked) == 1
    reasons = [each.reason for each in await federation.events("access_decided") if each.query_id == asked.id]
    assert reasons == [Reason.ALLOWED.wire, Reason.QUERY_REPLAYED.wire]


async def test_a_query_stolen_from_another_is_not_taken_on_the_thief_s_stream(federation: SmallFederation) -> None:
    async with federation.attached() as node, federation.requester(federation.clinic) as thief:
        asked = federation.query(federation.tutor, await federation.endorsed_grant())
        assert (await thief.ask(asked)).reason == Reason.NOT_ALLOWED
        assert not node.asked
        async with federation.requester(federation.tutor) as tutor:
            assert (await tutor.ask(asked)).reason == Reason.ALLOWED, "the theft does not use it up"


async def test_an_unconnected_node_is_told_as_unreachable(federation: SmallFederation) -> None:
    async with federation.attached():
        grant = await federation.endorsed_grant()
    async with federation.requester(federation.tutor) as tutor:
        asked = federation.query(federation.tutor, grant)
        answer = await tutor.ask(asked)
    assert answer.reason == Reason.UNREACHABLE
    assert answer.outcome.refusal.retry_after > 0
    [ended] = await federation.events("access_answered")
    assert (ended.query_id, ended.reason) == (asked.id, Reason.UNREACHABLE.wire)


async def test_a_guardian_reads_with_a_grant_to_her_own_key(federation: SmallFederation) -> None:
    async with federation.attached(), federation.requester(federation.mother) as mother:
        grant = await federation.endorsed_grant(grantee=federation.mother.root, purpose=pb.PURPOSE_FAMILY)
        assert (await mother.ask(federation.query(federation.mother, grant))).reason == Reason.ALLOWED


async def test_a_person_nobody_admitted_cannot_use_a_grant_for_another_purpose(federation: SmallFederation) -> None:
    async with federation.attached(), federation.requester(federation.stranger) as stranger:
        grant = await federation.endorsed_grant(grantee=federation.stranger.root)
        answer = await stranger.ask(federation.query(federation.stranger, grant))
    assert answer.reason == Reason.REQUESTER_UNKNOWN

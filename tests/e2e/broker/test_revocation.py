"""Revocation: pushed, acknowledged by the node itself, and not one byte after that."""

from __future__ import annotations

from permslip import statements as st
from permslip._pb.permslip.v1 import guardian_pb2, provider_pb2, statement_pb2 as pb
from permslip.reasons import Reason
from tests.e2e.broker.small_federation import FEDERATION, SECTIONS, SmallFederation
from tests.federation.consents import make_delegation, make_revocation
from tests.federation.principals import suspend
from tests.federation.requester import query_call


async def test_a_revocation_is_pushed_and_the_node_s_own_word_comes_back(federation: SmallFederation) -> None:
    async with federation.attached() as node:
        grant = await federation.endorsed_grant()
        revocation = federation.revocation(grant)
        [state] = await federation.revoke(revocation)
        push = node.pushes[-1]
    assert (push.statement.payload, push.position) == (revocation.envelope.payload, state.position)
    assert [each.payload for each in push.chain] == [grant.envelope.payload]
    assert state.node_attached
    word = st.verify(st.ACKNOWLEDGEMENT, state.acknowledgement, federation=FEDERATION).payload
    assert (word.statement_id, word.target_id) == (revocation.id, grant.id)
    assert word.signer == federation.school.signer


async def test_the_guardian_sees_each_change_as_it_happens(federation: SmallFederation) -> None:
    grant = federation.grant()
    seen: list[guardian_pb2.RevocationState] = []
    async with federation.attached() as node:
        await federation.deposit(grant, wait=20_000)
        node.acknowledges.clear()
        states = federation.revoking(federation.revocation(grant))
        async for response in states:
            seen += response.states
            if not seen[-1].HasField("acknowledgement"):
                node.acknowledges.set()
    assert [each.HasField("acknowledgement") for each in seen] == [False, True]


async def test_a_school_that_is_offline_is_told_as_such_and_catches_up_before_anything_else(
    federation: SmallFederation,
) -> None:
    async with federation.attached() as before:
        grant = await federation.endorsed_grant()
    revocation = federation.revocation(grant)
    [state] = await federation.revoke(revocation, within=0.3)
    assert not state.node_attached
    assert not state.HasField("acknowledgement")
    node = federation.node()
    node.pushes = before.pushes
    async with node.attached(federation.address):
        await node.until(lambda: any(each.statement_id for each in node.results))
    assert node.pushes[-1].statement.payload == revocation.envelope.payload
    assert node.welcome.push_count == len(node.pushes)


async def test_not_a_byte_is_passed_on_after_the_acknowledgement(federation: SmallFederation) -> None:
    async with federation.attached() as node, federation.requester(federation.tutor) as tutor:
        tutor.credits = False
        grant = await federation.endorsed_grant()
        asked = federation.query(federation.tutor, grant)
        node.records, node.body = 400, 4_000
        tutor.read_on()
        await tutor.send(query_call(asked.envelope))
        await node.starved(1)
        [state] = await federation.revoke(federation.revocation(grant))
        assert state.HasField("acknowledgement")
        answer = await tutor.finished(tutor.expect(asked.id))
        pieces, came = len(answer.pieces), answer.sealed_bytes
        assert answer.reason == Reason.GRANT_REVOKED
        # Room for more makes no more come.
        credit = provider_pb2.Credit(query_id=asked.id, bytes=1 << 20)
        await tutor.send(provider_pb2.ExchangeCall(credit=credit))
        await node.lease()
        await tutor.ask(federation.query(federation.tutor, grant))
        assert (len(answer.pieces), answer.sealed_bytes) == (pieces, came)
    [ended] = await federation.events("access_answered")
    assert ended.reason == Reason.GRANT_REVOKED.wire
    assert ended.sealed_bytes >= came


async def test_what_waited_for_a_slow_reader_is_thrown_away(federation: SmallFederation) -> None:
    async with federation.attached() as node, federation.requester(federation.tutor) as slow:
        grant = await federation.endorsed_grant()
        node.records, node.body = 1_000, 4_000
        asked = [federation.query(federation.tutor, grant) for _ in range(40)]
        await slow.send(*[query_call(each.envelope) for each in asked])
        await node.starved(len(asked))
        assert federation.broker.routing.held_bytes > 100_000
        await federation.revoke(federation.revocation(grant), within=8)
        assert federation.broker.routing.held_bytes < 100_000, "only the outcomes wait"
        assert federation.broker.routing.open_queries == 0


async def test_a_queued_query_is_never_sent_once_its_grant_is_revoked(federation: SmallFederation) -> None:
    async with federation.attached(max_open=1) as node, federation.requester(federation.tutor) as tutor:
        grant = await federation.endorsed_grant()
        node.answers.clear()
        first, second = federation.query(federation.tutor, grant), federation.query(federation.tutor, grant)
        tutor.read_on()
        await tutor.send(query_call(first.envelope), query_call(second.envelope))
        await node.until(lambda: len(node.asked) == 1)
        await federation.revoke(federation.revocation(grant))
        answers = [await tutor.finished(tutor.expect(each.id)) for each in (first, second)]
        assert [each.reason for each in answers] == [Reason.GRANT_REVOKED] * 2
        assert len(node.asked) == 1


async def test_only_those_who_may_can_revoke(federation: SmallFederation) -> None:
    async with federation.attached() as node:
        node.revokers = [federation.father.public]
        grant = await federation.endorsed_grant()
        [refused] = await federation.revoke(federation.revocation(grant, federation.stranger))
        assert refused.refusal.code == Reason.NOT_ALLOWED.wire
        [accepted] = await federation.revoke(federation.revocation(grant, federation.father))
    assert accepted.HasField("acknowledgement"), "whom the node's endorsement names"


async def test_the_grantee_and_the_node_can_give_it_up_too(federation: SmallFederation) -> None:
    async with federation.attached() as node:
        one, other = await federation.endorsed_grant(), await federation.endorsed_grant()
        school = federation.school.root
        by_grantee = make_revocation(
            federation.tutor, one.id, school, federation=FEDERATION, now=federation.now(), role=pb.REVOKER_ROLE_GRANTEE
        )
        response = await federation.provider_calls.Deposit(
            provider_pb2.DepositRequest(statements=[by_grantee.envelope])
        )
        assert response.results[0].refusal.code == Reason.ALLOWED.wire
        by_node = make_revocation(
            federation.school, other.id, school, federation=FEDERATION, now=federation.now(), role=pb.REVOKER_ROLE_NODE
        )
        node.say(by_node)
        await node.until(lambda: any(each.statement_id == by_node.id for each in node.results))
    [result] = [each for each in node.results if each.statement_id == by_node.id]
    assert result.refusal.code == Reason.ALLOWED.wire


async def test_an_acknowledgement_by_another_node_does_not_count(federation: SmallFederation) -> None:
    import os

    async with federation.attached() as school, federation.attached(federation.platform) as platform:
        grant = await federation.endorsed_grant()
        school.acknowledges.clear()
        revocation = federation.revocation(grant)
        [state] = await federation.revoke(revocation, within=0.3)
        forged = pb.Acknowledgement(
            federation=FEDERATION,
            nonce=os.urandom(16),
            created_at=federation.now(),
            signer=federation.platform.signer,
            statement_id=revocation.id,
            target_id=grant.id,
            ledger_size=1,
        )
        platform.say(st.sign(st.ACKNOWLEDGEMENT, forged, [federation.platform.key]))
        await platform.until(lambda: bool(platform.results))
        [again] = await federation.revoke(revocation, within=0.3)
    assert platform.results[0].refusal.code != Reason.ALLOWED.wire
    assert not state.HasField("acknowledgement")
    assert not again.HasField("acknowledgement")


async def test_suspending_the_requester_ends_its_open_answers(federation: SmallFederation) -> None:
    async with federation.attached() as node, federation.requester(federation.tutor) as tutor:
        asked = federation.query(federation.tutor, await federation.endorsed_grant())
        node.answers.clear()
        tutor.read_on()
        await tutor.send(query_call(asked.envelope))
        await node.until(lambda: bool(node.asked))
        await federation.admit(suspend(federation.operator, federation.tutor, now=federation.now() + 1))
        assert (await tutor.finished(tutor.expect(asked.id))).reason == Reason.REQUESTER_SUSPENDED
        await node.until(lambda: node.cancelled == [asked.id])


async def test_revoking_a_delegation_leaves_the_grant(federation: SmallFederation) -> None:
    async with (
        federation.attached() as node,
        federation.requester(federation.tutor) as tutor,
        federation.requester(federation.clinic) as clinic,
    ):
        grant = await federation.endorsed_grant(depth=1, onward=[federation.clinic.root])
        passed_on = make_delegation(federation.tutor, grant, federation.clinic.root, SECTIONS[:1], now=federation.now())
        await federation.provider_calls.Deposit(provider_pb2.DepositRequest(statements=[passed_on.envelope]))
        await node.until(lambda: node.pushes[-1].statement.payload == passed_on.envelope.payload)
        assert [each.payload for each in node.pushes[-1].chain] == [grant.envelope.payload]
        before = federation.query(federation.clinic, grant, SECTIONS[:1], delegations=[passed_on.id])
        assert (await clinic.ask(before)).reason == Reason.ALLOWED
        revocation = make_revocation(
            federation.mother, passed_on.id, federation.school.root, federation=FEDERATION, now=federation.now()
        )
        await federation.revoke(revocation)
        chain = [each.payload for each in node.pushes[-1].chain]
        assert chain == [grant.envelope.payload, passed_on.envelope.payload]
        after = federation.query(federation.clinic, grant, SECTIONS[:1], delegations=[passed_on.id])
        assert (await clinic.ask(after)).reason == Reason.DELEGATION_REVOKED
        assert (await tutor.ask(federation.query(federation.tutor, grant))).reason == Reason.ALLOWED

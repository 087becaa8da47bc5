"""Deposits: believed, admissible, recorded once, in order, and each by itself."""

from __future__ import annotations

import asyncio
import os

import grpc
import pytest

from permslip import statements as st
from permslip._pb.permslip.v1 import guardian_pb2, provider_pb2, session_pb2, statement_pb2 as pb
from permslip.reasons import Reason
from tests.e2e.broker.small_federation import FEDERATION, SECTIONS, SmallFederation
from tests.federation.consents import make_delegation, make_endorsement
from tests.federation.principals import Organization, admit, suspend


def reasons(results: object) -> list[Reason]:
    return [Reason(each.refusal.code) for each in results]  # type: ignore[attr-defined] # any list of results


async def test_a_consent_is_one_grant_for_each_school_and_waits_for_their_word(federation: SmallFederation) -> None:
    async with federation.attached(), federation.attached(federation.platform):
        grants = [federation.grant(), federation.grant(federation.platform)]
        response = await federation.deposit(*grants, wait=20_000)
    assert [each.grant.status for each in response.results] == [session_pb2.GRANT_STATUS_ACTIVE] * 2
    assert {each.grant.consent_id for each in response.results} == {response.consent_id}
    assert [each.statement_id for each in response.results] == [each.id for each in grants]


async def test_a_grant_for_a_school_that_is_offline_waits_and_is_endorsed_when_it_comes(
    federation: SmallFederation,
) -> None:
    grant = federation.grant()
    response = await federation.deposit(grant)
    assert response.results[0].grant.status == session_pb2.GRANT_STATUS_PENDING
    async with federation.attached() as node:
        await node.until(lambda: bool(node.results))
    again = await federation.deposit(grant)
    assert again.results[0].grant.status == session_pb2.GRANT_STATUS_ACTIVE


async def test_many_pending_grants_are_all_put_to_a_node_that_attaches(federation: SmallFederation) -> None:
    grants = [federation.grant() for _ in range(230)]
    for start in range(0, len(grants), 60):
        await federation.deposit(*grants[start : start + 60])
    async with federation.attached() as node:
        await node.until(lambda: len(node.results) == len(grants))
    assert {each.grant.payload for each in node.endorsement_calls} == {each.envelope.payload for each in grants}


async def test_the_same_statement_again_changes_nothing(federation: SmallFederation) -> None:
    grant = federation.grant()
    first = await federation.deposit(grant)
    size = federation.broker.ledger.size
    again = await federation.deposit(grant)
    assert federation.broker.ledger.size == size
    assert again.results[0].position == first.results[0].position
    assert again.consent_id == first.consent_id


async def test_the_same_statement_at_the_same_time_is_recorded_once(federation: SmallFederation) -> None:
    grant = federation.grant()
    responses = await asyncio.gather(*[federation.deposit(grant) for _ in range(8)])
    assert {each.results[0].position for each in responses} == {responses[0].results[0].position}
    recorded = [each.statement_id for each in await federation.events("statement_recorded")]
    assert recorded.count(grant.id) == 1


async def test_one_bad_statement_of_a_call_does_not_hold_up_the_others(federation: SmallFederation) -> None:
    good, unsigned = federation.grant(), federation.grant()
    unsigned.envelope.signatures[0].signature = bytes(64)
    ended = federation.grant(now=federation.now() - 90_000_000, lifetime=3_600_000)
    response = await federation.deposit(unsigned, good, ended)
    assert reasons(response.results) == [Reason.BAD_SIGNATURE, Reason.ALLOWED, Reason.MALFORMED]
    assert response.results[2].refusal.field == "grant.expires_at"


async def test_a_statement_finds_what_it_builds_on_in_the_same_call(federation: SmallFederation) -> None:
    now = federation.now()
    newcomer = Organization.new("Newcomer", pb.PRINCIPAL_KIND_PROVIDER, FEDERATION, now=now)
    results = await federation.admit(newcomer.cert, admit(federation.operator, newcomer, now=now), newcomer.cert)
    assert reasons(results) == [Reason.NOT_ALLOWED, Reason.ALLOWED, Reason.ALLOWED]


async def test_a_grant_on_a_node_that_nobody_admitted_is_refused_by_field(federation: SmallFederation) -> None:
    stranger = Organization.new("Nobody", pb.PRINCIPAL_KIND_NODE, FEDERATION, now=federation.now())
    response = await federation.deposit(federation.grant(stranger))
    assert reasons(response.results) == [Reason.NODE_UNKNOWN]
    assert response.results[0].refusal.field == "grant.slice.node"


async def test_a_kind_of_statement_that_does_not_belong_here_is_refused(federation: SmallFederation) -> None:
    response = await federation.deposit(admit(federation.operator, federation.school, now=federation.now()))
    assert reasons(response.results) == [Reason.MALFORMED]


async def test_only_the_operator_admits(federation: SmallFederation) -> None:
    newcomer = Organization.new("Newcomer", pb.PRINCIPAL_KIND_PROVIDER, FEDERATION, now=federation.now())
    [result] = await federation.admit(admit(federation.mother, newcomer, now=federation.now()))
    assert Reason(result.refusal.code) == Reason.NOT_ALLOWED


async def test_an_older_admission_does_not_end_a_suspension(federation: SmallFederation) -> None:
    now = federation.now()
    older = admit(federation.operator, federation.tutor, now=now + 1)
    assert reasons(await federation.admit(suspend(federation.operator, federation.tutor, now=now + 2))) == [
        Reason.ALLOWED
    ]
    assert reasons(await federation.admit(older)) == [Reason.MALFORMED]


async def test_an_endorsement_by_another_node_is_refused(federation: SmallFederation) -> None:
    async with federation.attached(federation.platform) as platform:
        grant = federation.grant()
        await federation.deposit(grant)
        platform.say(make_endorsement(federation.platform, grant, now=federation.now()))
        await platform.until(lambda: bool(platform.results))
    assert reasons(platform.results) == [Reason.NOT_ALLOWED]


async def test_a_delegation_that_widens_is_refused(federation: SmallFederation) -> None:
    async with federation.attached():
        grant = await federation.endorsed_grant(depth=1, onward=[federation.clinic.root])
    wider = make_delegation(federation.tutor, grant, federation.clinic.root, ["portfolio.works"], now=federation.now())
    response = await federation.provider_calls.Deposit(provider_pb2.DepositRequest(statements=[wider.envelope]))
    assert reasons(response.results) == [Reason.DELEGATION_WIDENS]


async def test_grants_are_listed_for_whom_they_are_made_out_to(federation: SmallFederation) -> None:
    async with federation.attached():
        grants = [await federation.endorsed_grant() for _ in range(3)]
        await federation.endorsed_grant(grantee=federation.clinic.root)
        await federation.revoke(federation.revocation(grants[1]))
    hello = await federation.hello(federation.tutor)
    pages: list[session_pb2.GrantState] = []
    request = provider_pb2.ListGrantsRequest(hello=hello, page=session_pb2.Page(size=2))
    while True:
        response = await federation.provider_calls.ListGrants(request)
        pages += response.grants
        if not response.next_page:
            break
        request.page.token = response.next_page
    assert [each.grant_id for each in pages] == [each.id for each in grants]
    assert [each.status for each in pages] == [
        session_pb2.GRANT_STATUS_ACTIVE,
        session_pb2.GRANT_STATUS_REVOKED,
        session_pb2.GRANT_STATUS_ACTIVE,
    ]
    word = st.verify(st.ACKNOWLEDGEMENT, pages[1].acknowledgement, federation=FEDERATION).payload
    assert word.target_id == grants[1].id
    only = provider_pb2.ListGrantsRequest(hello=hello, statuses=[session_pb2.GRANT_STATUS_REVOKED])
    assert [each.grant_id for each in (await federation.provider_calls.ListGrants(only)).grants] == [grants[1].id]


async def test_what_is_deposited_while_pages_are_turned_does_not_shift_them(federation: SmallFederation) -> None:
    before = [federation.grant() for _ in range(2)]
    await federation.deposit(*before)
    request = provider_pb2.ListGrantsRequest(
        hello=await federation.hello(federation.tutor), page=session_pb2.Page(size=1)
    )
    first = await federation.provider_calls.ListGrants(request)
    await federation.deposit(federation.grant())
    request.page.token = first.next_page
    second = await federation.provider_calls.ListGrants(request)
    assert [each.grant_id for each in (*first.grants, *second.grants)] == [each.id for each in before]
    request.page.token = second.next_page
    assert not second.next_page or not (await federation.provider_calls.ListGrants(request)).grants


async def test_a_delegatee_sees_by_id_what_was_passed_on_to_it(federation: SmallFederation) -> None:
    async with federation.attached():
        grant = await federation.endorsed_grant(depth=1, onward=[federation.clinic.root])
        passed_on = make_delegation(federation.tutor, grant, federation.clinic.root, SECTIONS[:1], now=federation.now())
        await federation.provider_calls.Deposit(provider_pb2.DepositRequest(statements=[passed_on.envelope]))
    hello = await federation.hello(federation.clinic)
    request = provider_pb2.ListGrantsRequest(hello=hello, grant_ids=[grant.id, os.urandom(32)])
    [state] = (await federation.provider_calls.ListGrants(request)).grants
    assert [each.payload for each in state.delegations] == [passed_on.envelope.payload]


async def test_a_guardian_sees_what_she_signed_and_what_she_may_revoke(federation: SmallFederation) -> None:
    async with federation.attached() as node:
        node.revokers = [federation.mother.public]
        hers = await federation.endorsed_grant()
        his = await federation.endorsed_grant(signers=[federation.father])
        node.revokers = []
        hidden = await federation.endorsed_grant(signers=[federation.father])
    request = guardian_pb2.ListConsentsRequest(hello=await federation.hello(federation.mother))
    states = (await federation.guardian_calls.ListConsents(request)).grants
    assert [each.grant_id for each in states] == [hers.id, his.id]
    assert hidden.id not in [each.grant_id for each in states]
    assert [bool(each.consent_id) for each in states] == [True, False]


@pytest.mark.parametrize("token", [b"x", b"\x7f" * 16, b"\xfe" * 16])
async def test_a_token_that_is_not_ours_is_refused(federation: SmallFederation, token: bytes) -> None:
    request = provider_pb2.ListGrantsRequest(
        hello=await federation.hello(federation.tutor), page=session_pb2.Page(token=token)
    )
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await federation.provider_calls.ListGrants(request)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT

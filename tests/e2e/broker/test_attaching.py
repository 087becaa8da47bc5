"""Nodes that attach: greeting, catching up, leases, links, and who is turned away."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from permslip import statements as st
from permslip._pb.permslip.v1 import (
    guardian_pb2,
    node_pb2,
    node_pb2_grpc,
    session_pb2,
    session_pb2_grpc,
    statement_pb2 as pb,
)
from permslip.reasons import Reason
from tests.e2e.broker.small_federation import FEDERATION, SmallFederation
from tests.federation.principals import Organization, admit, suspend
from tests.federation.requester import say_hello


def kinds(pushes: list[node_pb2.Push]) -> list[str]:
    return [st.KINDS[each.statement.payload_type].name for each in pushes]


async def test_a_node_gets_everybodys_standing_before_anything_else(federation: SmallFederation) -> None:
    async with federation.attached() as node:
        await node.until(lambda: len(node.pushes) == node.welcome.push_count)
    # It was admitted first; the certificate and the three others followed.
    assert kinds(node.pushes) == ["admission", "key-cert"] * 4
    assert [each.number for each in node.pushes] == list(range(1, 9))


async def test_a_node_that_is_admitted_late_is_given_what_holds_by_then(federation: SmallFederation) -> None:
    now = federation.now()
    await federation.admit(suspend(federation.operator, federation.clinic, now=now + 1))
    await federation.admit(federation.tutor.rotated(now=now).cert)
    late = Organization.new("Late", pb.PRINCIPAL_KIND_NODE, FEDERATION, now=now)
    await federation.admit(admit(federation.operator, late, now=now), late.cert)
    async with federation.attached(late) as node:
        await node.until(lambda: len(node.pushes) == node.welcome.push_count)
    found = kinds(node.pushes)
    assert sorted(found) == ["admission"] * 5 + ["key-cert"] * 5 + ["suspension"]
    # An admission is there before the certificate that needs it.
    roots: set[bytes] = set()
    for push in node.pushes:
        payload = st.verify(st.KINDS[push.statement.payload_type], push.statement, federation=FEDERATION).payload
        if push.statement.payload_type == st.ADMISSION.payload_type:
            roots.add(payload.root)
        assert payload.root in roots


async def test_what_is_recorded_later_is_pushed_at_once_with_the_next_number(federation: SmallFederation) -> None:
    async with federation.attached() as node:
        await node.until(lambda: len(node.pushes) == node.welcome.push_count)
        await federation.admit(federation.tutor.rotated(now=federation.now()).cert)
        await node.until(lambda: len(node.pushes) == 9)
    assert kinds(node.pushes)[-1] == "key-cert"


async def test_a_node_that_comes_back_gets_only_what_it_lacks(federation: SmallFederation) -> None:
    async with federation.attached() as before:
        await before.until(lambda: len(before.pushes) == before.welcome.push_count)
    await federation.admit(federation.tutor.rotated(now=federation.now()).cert)
    node = federation.node()
    node.pushes = list(before.pushes)
    async with node.attached(federation.address):
        await node.until(lambda: len(node.pushes) == 9)
    assert node.heard["push"] == 1


async def test_a_tick_tells_the_ledger_s_head_and_the_number_of_pushes(federation: SmallFederation) -> None:
    async with federation.attached() as node:
        tick = await node.lease()
        assert (tick.ledger_size, tick.root_hash) == federation.broker.ledger.head()
        assert tick.node == federation.school.root
        assert tick.signer == federation.broker_keys.signer
        assert tick.push_count == len(node.pushes), "what it counts was sent ahead of it"
        await federation.endorsed_grant()
        assert (await node.lease()).ledger_size == tick.ledger_size + 2


async def test_a_second_stream_of_a_node_takes_the_first_one_s_place(federation: SmallFederation) -> None:
    first = federation.node()
    running = asyncio.ensure_future(first.run(federation.address))
    await first.welcomed.wait()
    async with federation.attached() as second:
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await running
        assert ended.value.code() == grpc.StatusCode.UNAVAILABLE
        await federation.endorsed_grant()
        assert len(second.endorsement_calls) == 1


async def test_a_suspended_node_is_detached_and_not_let_in_again(federation: SmallFederation) -> None:
    node = federation.node()
    running = asyncio.ensure_future(node.run(federation.address))
    await node.welcomed.wait()
    await federation.admit(suspend(federation.operator, federation.school, now=federation.now() + 1))
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await running
    assert ended.value.code() == grpc.StatusCode.PERMISSION_DENIED
    with pytest.raises(grpc.aio.AioRpcError) as again:
        await federation.node().run(federation.address)
    assert again.value.code() == grpc.StatusCode.PERMISSION_DENIED


async def test_a_node_brings_its_new_certificate_when_it_attaches(federation: SmallFederation) -> None:
    rotated = federation.school.rotated(now=federation.now())
    async with federation.attached(rotated):
        pass
    with pytest.raises(grpc.aio.AioRpcError) as old:
        await federation.node(federation.school).run(federation.address)
    assert old.value.code() == grpc.StatusCode.UNAUTHENTICATED


async def refused_hello(federation: SmallFederation, **changes: Any) -> grpc.aio.AioRpcError:
    node = federation.node(**changes)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await node.run(federation.address)
    return refused.value


async def test_an_organization_that_is_no_node_cannot_attach(federation: SmallFederation) -> None:
    error = await refused_hello(federation, organization=federation.tutor)
    assert error.code() == grpc.StatusCode.PERMISSION_DENIED


async def test_a_stranger_cannot_attach(federation: SmallFederation) -> None:
    stranger = Organization.new("Nobody", pb.PRINCIPAL_KIND_NODE, FEDERATION, now=federation.now())
    error = await refused_hello(federation, organization=stranger)
    assert error.code() == grpc.StatusCode.PERMISSION_DENIED
    refused = [Reason(each.reason) for each in await federation.events("request_refused")]
    assert refused == [Reason.NOT_ALLOWED, Reason.NODE_UNKNOWN], "its certificate, then itself"


async def test_a_node_that_holds_more_than_was_ever_pushed_is_turned_away(federation: SmallFederation) -> None:
    node = federation.node()
    node.pushes = [node_pb2.Push(number=number) for number in range(1, 50)]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await node.run(federation.address)
    assert "pushes_held" in (refused.value.details() or "")


async def test_who_does_not_greet_first_is_turned_away(federation: SmallFederation) -> None:
    call = node_pb2_grpc.NodeServiceStub(federation.channel).Attach()
    await call.read()
    lease = node_pb2.LeaseRequest(lease_nonce=bytes(16))
    await call.write(node_pb2.AttachRequest(frames=[node_pb2.NodeFrame(lease=lease)]))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call.read()
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "frames[0].hello" in (refused.value.details() or "")


async def test_a_greeting_for_another_broker_or_an_old_nonce_is_refused(federation: SmallFederation) -> None:
    stub = session_pb2_grpc.SessionServiceStub(federation.channel)
    given = await stub.GetChallenge(session_pb2.GetChallengeRequest(federation=FEDERATION))
    challenge = given.challenge
    hello = say_hello(challenge, federation.mother, broker=federation.root, now=federation.now)
    federation.ahead = 61_000
    request = guardian_pb2.ListConsentsRequest(hello=hello)
    with pytest.raises(grpc.aio.AioRpcError) as old:
        await federation.guardian_calls.ListConsents(request)
    assert old.value.code() == grpc.StatusCode.UNAUTHENTICATED
    challenge.server_nonce = bytes(48)
    forged = say_hello(challenge, federation.mother, broker=federation.root, now=federation.now)
    with pytest.raises(grpc.aio.AioRpcError) as foreign:
        await federation.guardian_calls.ListConsents(guardian_pb2.ListConsentsRequest(hello=forged))
    assert foreign.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert {Reason(each.reason) for each in await federation.events("request_refused")} == {Reason.HELLO_REFUSED}


async def test_a_link_goes_to_its_node_and_back_unread(federation: SmallFederation) -> None:
    async with federation.attached() as node:
        request = guardian_pb2.RelayLinkRequest(
            federation=FEDERATION, node=federation.school.root, sealed_request=b"sealed request"
        )
        relaying = asyncio.ensure_future(federation.guardian_calls.RelayLink(request))
        await node.until(lambda: bool(node.links))
        result = node_pb2.LinkResult(call_id=node.links[0].call_id, sealed_response=b"sealed response")
        node.outbox.put(node_pb2.NodeFrame(link=result))
        response = await relaying
    assert node.links[0].sealed_request == b"sealed request"
    assert response.sealed_response == b"sealed response"


async def test_another_node_cannot_answer_a_link(federation: SmallFederation) -> None:
    async with federation.attached() as school, federation.attached(federation.platform) as platform:
        request = guardian_pb2.RelayLinkRequest(
            federation=FEDERATION, node=federation.school.root, sealed_request=b"sealed request"
        )
        relaying = asyncio.ensure_future(federation.guardian_calls.RelayLink(request))
        await school.until(lambda: bool(school.links))
        call_id = school.links[0].call_id
        platform.outbox.put(node_pb2.NodeFrame(link=node_pb2.LinkResult(call_id=call_id, sealed_response=b"forged")))
        await platform.lease()
        genuine = node_pb2.LinkResult(call_id=call_id, refusal=session_pb2.Refusal(code=Reason.LINK_REFUSED.wire))
        school.outbox.put(node_pb2.NodeFrame(link=genuine))
        response = await relaying
    assert Reason(response.refusal.code) == Reason.LINK_REFUSED


async def test_a_link_to_a_school_that_is_offline_says_so(federation: SmallFederation) -> None:
    request = guardian_pb2.RelayLinkRequest(federation=FEDERATION, node=federation.school.root, sealed_request=b"x")
    response = await federation.guardian_calls.RelayLink(request)
    assert Reason(response.refusal.code) == Reason.UNREACHABLE


async def test_the_directory_names_everybody_page_by_page(federation: SmallFederation) -> None:
    stub = session_pb2_grpc.SessionServiceStub(federation.channel)
    found: dict[bytes, bool] = {}
    async with federation.attached():
        request = session_pb2.ListDirectoryRequest(federation=FEDERATION, page=session_pb2.Page(size=3))
        while True:
            response = await stub.ListDirectory(request)
            for entry in response.entries:
                admission = st.verify(st.ADMISSION, entry.admission, federation=FEDERATION).payload
                assert st.verify(st.KEY_CERT, entry.key_cert, federation=FEDERATION).payload.root == admission.root
                found[admission.root] = entry.attached
            if not response.next_page:
                break
            request.page.token = response.next_page
    everybody = (federation.school, federation.platform, federation.tutor, federation.clinic)
    assert set(found) == {each.root for each in everybody}
    assert [root for root, attached in found.items() if attached] == [federation.school.root]


async def test_another_federation_is_refused_by_name(federation: SmallFederation) -> None:
    stub = session_pb2_grpc.SessionServiceStub(federation.channel)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.GetChallenge(session_pb2.GetChallengeRequest(federation="another.fed"))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_methods_that_are_not_built_are_said_to_be_unimplemented(federation: SmallFederation) -> None:
    hello = await federation.hello(federation.mother)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await federation.guardian_calls.ListInbox(guardian_pb2.ListInboxRequest(hello=hello))
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED

"""A node that answers an auditor's call otherwise than it was asked takes neither the broker's memory nor its time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc
import pytest

from permslip._pb.permslip.v1 import auditor_pb2, ledger_pb2, node_pb2, session_pb2, statement_pb2 as pb
from permslip.hosting.ledger_pages import CALL_WINDOW
from permslip.reasons import Reason
from permslip_broker import methods
from tests.e2e.broker.small_federation import FEDERATION, SmallFederation
from tests.federation.auditor import AuditorCalls, calling, refused
from tests.federation.principals import Organization, admit
from tests.federation.simulated_node import SimulatedNode

_PROOFS = auditor_pb2.GetProofsResponse(inclusion=[ledger_pb2.InclusionProof(position=0, size=1)])

Answer = Callable[[SimulatedNode, node_pb2.LedgerCall], None]


class TellingNode(SimulatedNode):
    """Answers calls for its ledger as a test says."""

    tell: Answer
    credit: int = 0
    calls: list[node_pb2.LedgerCall]

    def _take(self, frame: node_pb2.BrokerFrame) -> None:
        super()._take(frame)
        if frame.HasField("ledger"):
            self.calls.append(frame.ledger)
            tell: Answer = self.tell
            tell(self, frame.ledger)
        elif frame.HasField("credit"):
            self.credit += frame.credit.bytes

    def send(self, call: node_pb2.LedgerCall, *, size: int = 1_000, last: bool = False) -> None:
        """One page of something."""
        response = auditor_pb2.FetchEntriesResponse(sealed=bytes(size))
        self.reply(node_pb2.LedgerReply(call_id=call.call_id, entries=response, last=last))

    def reply(self, reply: node_pb2.LedgerReply) -> None:
        """Whatever a test wants said."""
        self.outbox.put(node_pb2.NodeFrame(ledger=reply), reply.ByteSize())


@asynccontextmanager
async def auditing(federation: SmallFederation, tell: Answer) -> AsyncIterator[tuple[AuditorCalls, TellingNode]]:
    """An auditor, and the node that she asks."""
    async with calling_as_auditor(federation) as calls, attached(federation, tell) as node:
        yield calls, node


@asynccontextmanager
async def calling_as_auditor(federation: SmallFederation) -> AsyncIterator[AuditorCalls]:
    """Calls of an admitted auditor."""
    auditor = Organization.new("State Auditor", pb.PRINCIPAL_KIND_AUDITOR, FEDERATION, now=federation.now())
    await federation.admit(admit(federation.operator, auditor, now=federation.now()), auditor.cert)
    async with calling(
        federation.address, auditor, federation=FEDERATION, broker=federation.root, now=federation.now
    ) as calls:
        yield calls


@asynccontextmanager
async def attached(federation: SmallFederation, tell: Answer) -> AsyncIterator[TellingNode]:
    """A node that answers so."""
    node = TellingNode(federation.school, broker=federation.root, now=federation.now)
    node.tell, node.calls = tell, []
    async with node.attached(federation.address):
        yield node


async def raw_pages(calls: AuditorCalls, node: TellingNode, *, until: int = 0) -> list[bytes]:
    """What is relayed of a node's entries."""
    root = node.organization.root
    request = auditor_pb2.FetchEntriesRequest(hello=await calls.hello(root), ledger=root, until=until)
    return [each.sealed async for each in calls.stub.FetchEntries(request, timeout=20)]


async def test_pages_are_passed_on_until_the_last(federation: SmallFederation) -> None:
    def tell(node: SimulatedNode, call: node_pb2.LedgerCall) -> None:
        assert isinstance(node, TellingNode)
        node.send(call, size=10)
        node.send(call, size=20)
        node.reply(node_pb2.LedgerReply(call_id=call.call_id, entries=auditor_pb2.FetchEntriesResponse(), last=True))
        node.send(call, size=30)

    async with auditing(federation, tell) as (calls, node):
        assert [len(each) for each in await raw_pages(calls, node)] == [10, 20]
        assert node.cancelled == []


async def test_a_node_that_sends_without_end_loses_the_call(federation: SmallFederation) -> None:
    def tell(node: SimulatedNode, call: node_pb2.LedgerCall) -> None:
        assert isinstance(node, TellingNode)
        for _ in range(10):
            node.send(call, size=10)

    async with auditing(federation, tell) as (calls, node):
        assert await refused(raw_pages(calls, node, until=3)) == Reason.MALFORMED
        await node.until(lambda: bool(node.cancelled))

    assert node.cancelled == [node.calls[0].call_id]


async def test_a_node_that_sends_more_than_it_has_credit_for_loses_the_call(federation: SmallFederation) -> None:
    def tell(node: SimulatedNode, call: node_pb2.LedgerCall) -> None:
        assert isinstance(node, TellingNode)
        for _ in range(2 * CALL_WINDOW // (1 << 20) + 2):
            node.send(call, size=1 << 20)

    async with auditing(federation, tell) as (calls, node):
        root = node.organization.root
        request = auditor_pb2.FetchEntriesRequest(hello=await calls.hello(root), ledger=root)
        stream = calls.stub.FetchEntries(request, timeout=20)
        # Nobody reads: what comes waits at the broker.
        await node.until(lambda: bool(node.cancelled))
        stream.cancel()


async def test_credit_comes_as_pages_are_taken(federation: SmallFederation) -> None:
    def tell(node: SimulatedNode, call: node_pb2.LedgerCall) -> None:
        assert isinstance(node, TellingNode)
        node.send(call, size=50_000)
        node.send(call, size=50_000)

    async with auditing(federation, tell) as (calls, node):
        root = node.organization.root
        request = auditor_pb2.FetchEntriesRequest(hello=await calls.hello(root), ledger=root)
        stream = calls.stub.FetchEntries(request, timeout=20)
        pages = aiter(stream)
        assert [len((await anext(pages)).sealed) for _ in range(2)] == [50_000, 50_000]
        await node.until(lambda: node.credit > 100_000)
        stream.cancel()
        await node.until(lambda: node.cancelled == [node.calls[0].call_id])


def in_clear(node: SimulatedNode, call: node_pb2.LedgerCall) -> None:
    """Entries that the broker could read."""
    assert isinstance(node, TellingNode)
    leaf = ledger_pb2.LedgerLeaf(position=1, leaf_hash=bytes(32), leaf=b"in clear")
    response = auditor_pb2.FetchEntriesResponse(entries=[leaf])
    node.reply(node_pb2.LedgerReply(call_id=call.call_id, entries=response))


def of_another_kind(node: SimulatedNode, call: node_pb2.LedgerCall) -> None:
    """Statements instead of entries."""
    assert isinstance(node, TellingNode)
    response = auditor_pb2.FetchStatementsResponse(sealed=b"x")
    node.reply(node_pb2.LedgerReply(call_id=call.call_id, statements=response))


def nothing(node: SimulatedNode, call: node_pb2.LedgerCall) -> None:
    """A reply that says nothing, and goes on."""
    assert isinstance(node, TellingNode)
    node.reply(node_pb2.LedgerReply(call_id=call.call_id))


@pytest.mark.parametrize("tell", [in_clear, of_another_kind, nothing])
async def test_what_was_not_asked_for_is_not_passed_on(tell: Answer, federation: SmallFederation) -> None:
    async with auditing(federation, tell) as (calls, node):
        assert await refused(raw_pages(calls, node)) == Reason.MALFORMED


async def test_a_nodes_refusal_is_passed_on_with_its_reason(federation: SmallFederation) -> None:
    def tell(node: SimulatedNode, call: node_pb2.LedgerCall) -> None:
        assert isinstance(node, TellingNode)
        refusal = session_pb2.Refusal(code=Reason.NO_LEASE.wire, message="not now")
        node.reply(node_pb2.LedgerReply(call_id=call.call_id, refusal=refusal, last=True))

    async with auditing(federation, tell) as (calls, node):
        assert await refused(raw_pages(calls, node)) == Reason.NO_LEASE
        assert await refused(calls.checkpoint(federation.school.root)) == Reason.NO_LEASE


async def test_a_node_that_goes_away_ends_its_calls(federation: SmallFederation) -> None:
    def tell(node: SimulatedNode, call: node_pb2.LedgerCall) -> None:
        """Nothing, ever."""

    async with calling_as_auditor(federation) as calls:
        async with attached(federation, tell) as node:
            asking = asyncio.ensure_future(refused(raw_pages(calls, node)))
            await node.until(lambda: bool(node.calls))

        assert await asking == Reason.UNREACHABLE
        assert await refused(raw_pages(calls, node)) == Reason.UNREACHABLE


def silence(node: SimulatedNode, call: node_pb2.LedgerCall) -> None:
    """Nothing, ever."""


def streams(node: TellingNode) -> list[node_pb2.LedgerCall]:
    """What auditors asked of the node; the broker asks for itself too."""
    return [each for each in node.calls if each.HasField("entries")]


@asynccontextmanager
async def asking(node: TellingNode, *auditors: AuditorCalls) -> AsyncIterator[None]:
    """Each of them waits for the node's entries while the block lasts."""
    before = len(streams(node))
    waiting = [asyncio.ensure_future(raw_pages(each, node)) for each in auditors]
    await node.until(lambda: len(streams(node)) == before + len(waiting))
    yield
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await node.until(lambda: len(node.cancelled) >= len(waiting))


async def test_one_auditor_leaves_places_at_a_node_to_others(federation: SmallFederation) -> None:
    async with (
        auditing(federation, silence) as (one, node),
        calling_as_auditor(federation) as other,
        asking(node, one, one),
    ):
        assert await refused(raw_pages(one, node)) == Reason.BUSY
        async with asking(node, other):
            assert len(streams(node)) == 3


async def test_streams_leave_a_place_at_a_node_to_short_calls(federation: SmallFederation) -> None:
    async with (
        auditing(federation, silence) as (one, node),
        calling_as_auditor(federation) as other,
        calling_as_auditor(federation) as third,
        asking(node, one, one, other),
    ):
        assert await refused(raw_pages(third, node)) == Reason.BUSY
        proofs = asyncio.ensure_future(third.proofs(node.organization.root, 1, [0]))
        await node.until(lambda: any(each.HasField("proofs") for each in node.calls))
        [asked] = [each for each in node.calls if each.HasField("proofs")]

        node.reply(node_pb2.LedgerReply(call_id=asked.call_id, proofs=_PROOFS, last=True))
        assert await proofs == _PROOFS


async def test_a_stream_whose_pages_nobody_takes_is_ended(
    federation: SmallFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods, "TAKEN_WITHIN", 0.05)
    async with auditing(federation, silence) as (calls, node):
        root = node.organization.root
        request = auditor_pb2.FetchEntriesRequest(hello=await calls.hello(root), ledger=root, follow=True)
        stream = calls.stub.FetchEntries(request)
        await node.until(lambda: bool(streams(node)))
        [call], sent = streams(node), 0

        def is_answered() -> bool:
            return bool(node.cancelled) or node.credit > sent

        while not node.cancelled:
            sent += 1 << 20
            node.send(call, size=1 << 20)
            await node.until(is_answered)
        assert node.cancelled == [call.call_id]

        with pytest.raises(grpc.aio.AioRpcError) as ended:
            _ = [page async for page in stream]
        assert ended.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED

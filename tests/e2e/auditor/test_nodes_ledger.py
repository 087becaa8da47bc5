"""What an auditor reads of a node's ledger through the broker: sealed to her, provable, and judged by the node itself.

Broker and nodes are processes. Where a broker lies, the liar stands between a node and the honest one, with its keys.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from permslip import statements as st
from permslip._pb.permslip.v1 import auditor_pb2, node_pb2, statement_pb2 as pb
from permslip.audit_scope import entries_context, make_scope
from permslip.checkpoints import open_checkpoint
from permslip.dsse import statement_id
from permslip.errors import SealError
from permslip.keys import SealingKey, SigningKey
from permslip.merkle import leaf_hash, verify_inclusion
from permslip.notes import Ed25519Verifier, SignatureType, VerifierKey
from permslip.reasons import Reason
from permslip.sealing import open_sealed
from permslip.statements import Signed
from tests.federation.auditor import AuditorCalls, calling, entry_of, refused
from tests.federation.district import District
from tests.federation.lying_broker import Line, LyingBroker
from tests.federation.principals import Organization, admit, suspend
from tests.federation.processes import now
from tests.federation.school_process import SchoolProcess

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def one_district(tmp_path_factory: pytest.TempPathFactory) -> Iterator[District]:
    """A broker and two schools, running."""
    with District(tmp_path_factory.mktemp("district")) as running:
        yield running


@pytest.fixture
async def district(one_district: District) -> AsyncIterator[District]:
    """The district in good order, before and after."""
    await one_district.heal()
    yield one_district
    await one_district.heal()
    one_district.verify_ledgers()


async def admitted(district: District, scope: pb.AuditScope | None = None) -> Organization:
    """An auditor whom every node knows."""
    auditor = Organization.new("State Auditor", pb.PRINCIPAL_KIND_AUDITOR, district.federation, now=now())
    word = admit(district.processes.operator, auditor, now=now(), audit_scope=scope)
    district.processes.record(word, auditor.cert)
    for each in district.schools:
        await district.until_fit(each)
    return auditor


@asynccontextmanager
async def auditing(
    district: District, who: Any = None, *, scope: pb.AuditScope | None = None
) -> AsyncIterator[AuditorCalls]:
    """Calls of an admitted auditor, or of somebody else."""
    who = who or await admitted(district, scope)
    async with calling(district.address, who, federation=district.federation, broker=district.root, now=now) as calls:
        yield calls


async def access(district: District) -> bytes:
    """An access at the high school, answered whole; the query's id."""
    [grant] = await district.consent(district.high)
    async with district.requester() as tutor:
        asked = district.query(grant)
        answer = await tutor.ask(asked)
    assert answer.reason == Reason.ALLOWED
    await district.endings(district.high.ledger, asked.id)
    return asked.id


def log_of(school: SchoolProcess, district: District) -> Ed25519Verifier:
    """The key that signs a node's checkpoints."""
    name = f"{district.federation}/node/{school.root.hex()[:16]}"
    return Ed25519Verifier(VerifierKey(name, SignatureType.ED25519, school.organization.key.public))


# ------------------------------------------------------------------------------------- what is given


async def test_every_entry_of_a_node_is_given_and_proved_in_the_nodes_own_checkpoint(district: District) -> None:
    await access(district)
    school = district.high
    async with auditing(district) as calls:
        checkpoint = open_checkpoint(await calls.checkpoint(school.root), log_of(school, district)).checkpoint
        leaves = await calls.entries(school.root, 0, checkpoint.size)
        proofs = await calls.proofs(school.root, checkpoint.size, range(checkpoint.size), old_size=2)

    assert [each.position for each in leaves] == list(range(checkpoint.size))
    for leaf, proof in zip(leaves, proofs.inclusion, strict=True):
        assert leaf.leaf_hash == leaf_hash(leaf.leaf)
        verify_inclusion(leaf.leaf_hash, leaf.position, checkpoint.size, list(proof.hashes), checkpoint.root)
    assert {entry_of(each).ledger for each in leaves} == {school.root}
    assert (proofs.consistency.old_size, proofs.consistency.new_size) == (2, checkpoint.size)


async def test_queries_and_manifests_are_given_beside_the_statements(district: District) -> None:
    query_id = await access(district)
    async with auditing(district) as calls:
        found = await calls.statements(district.high.root)
        wanted = next(each for each in found.statements.values() if st.kind_of(each) is st.GRANT)
        by_id = await calls.statements(district.high.root, ids=[statement_id(wanted.payload_type, wanted.payload)])

    kinds = {st.kind_of(each).name for each in found.statements.values()}
    assert {"grant", "endorsement", "admission", "key-cert", "query", "manifest"} <= kinds
    manifests = [
        st.verify(st.MANIFEST, each, federation=district.federation)
        for each in found.statements.values()
        if st.kind_of(each) is st.MANIFEST
    ]
    [answered] = district.high.ledger.events("access_answered", query_id=query_id)
    [manifest] = [each for each in manifests if each.payload.query_id == query_id]
    assert manifest.sha256 == answered.manifest_sha256
    assert query_id in found.statements
    assert found.erased == []
    assert list(by_id.statements.values()) == [wanted]


async def test_who_follows_a_node_is_sent_what_it_appends_until_it_is_cut_off(district: District) -> None:
    school = district.high
    async with auditing(district) as calls:
        size = len(school.ledger.entries())
        pages = calls.entry_pages(school.root, size - 1, follow=True)
        assert (await anext(pages))[0].position == size - 1
        [grant] = await district.consent(school)
        seen: set[bytes] = set()
        async with asyncio.timeout(20):
            while grant.id not in seen:
                seen |= {entry_of(each).statement_recorded.statement_id for each in await anext(pages)}
        school.cable.unplug()

        assert await refused(asyncio.wait_for(anext(pages), 20)) == Reason.UNREACHABLE
        assert await refused(calls.entries(school.root)) == Reason.UNREACHABLE


async def test_the_broker_carries_nothing_that_it_can_read(district: District) -> None:
    query_id = await access(district)
    async with district.lied_to(district.high) as liar:
        carried = bytearray()

        def keep(message: node_pb2.AttachRequest, _line: Line) -> node_pb2.AttachRequest:
            for frame in message.frames:
                if frame.HasField("ledger"):
                    carried.extend(frame.SerializeToString())
            return message

        liar.up["Attach"] = keep
        async with auditing(district) as calls:
            leaves = await calls.entries(district.high.root)
            found = await calls.statements(district.high.root)

    assert query_id in found.statements
    assert sum(len(each.leaf) for each in leaves) < len(carried)
    assert query_id not in bytes(carried)
    assert district.handles[district.high.root] not in bytes(carried)


# ------------------------------------------------------------------------------------- whom the broker refuses


async def test_an_auditor_of_one_school_reads_nothing_of_another(district: District) -> None:
    async with auditing(district, scope=make_scope(nodes=(district.high.root,))) as calls:
        assert await calls.entries(district.high.root)
        for call in (calls.entries, calls.statements, calls.checkpoint):
            assert await refused(call(district.platform.root)) == Reason.NOT_ALLOWED
        assert await refused(calls.proofs(district.platform.root, 1, [0])) == Reason.NOT_ALLOWED


async def test_accesses_outside_an_auditors_dates_are_hidden_by_the_node(district: District) -> None:
    query_id = await access(district)
    async with auditing(district, scope=make_scope(ends=1)) as calls:
        leaves = await calls.entries(district.high.root)
        found = await calls.statements(district.high.root)
        whole = district.high.ledger.entries()

    accesses = {"access_decided", "access_answered", "request_refused"}
    for leaf, entry in zip(leaves, whole, strict=False):
        assert bool(leaf.leaf) is (entry.WhichOneof("event") not in accesses)
    assert query_id not in found.statements


async def test_a_greeting_for_another_node_or_for_the_broker_is_refused(district: District) -> None:
    async with auditing(district) as calls:
        for meant in (district.platform.root, district.root):
            calls.hello_for = meant

            assert await refused(calls.entries(district.high.root)) == Reason.HELLO_REFUSED


async def test_a_provider_or_a_parent_reads_nothing_of_a_node(district: District) -> None:
    for who in (district.tutor, district.mother, district.platform.organization):
        async with auditing(district, who) as calls:
            assert await refused(calls.entries(district.high.root)) == Reason.REQUESTER_UNKNOWN


# ------------------------------------------------------------------------------------- whom the node refuses


class Smuggler:
    """Calls a node past the honest broker."""

    def __init__(self, liar: LyingBroker) -> None:
        self._liar = liar
        self._waiting: dict[bytes, asyncio.Queue[node_pb2.LedgerReply]] = {}
        liar.up["Attach"] = self._keep

    async def call(self, call: node_pb2.LedgerCall) -> list[node_pb2.LedgerReply]:
        """All replies, the last one last."""
        line = [each for each in self._liar.lines if each.method == "Attach"][-1]
        call.call_id = os.urandom(16)
        replies = self._waiting[call.call_id] = asyncio.Queue()
        await line.say_down(node_pb2.AttachResponse(frames=[node_pb2.BrokerFrame(ledger=call)]))
        found: list[node_pb2.LedgerReply] = []
        async with asyncio.timeout(20):
            while not found or not found[-1].last:
                found.append(await replies.get())
        return found

    async def refusal(self, call: node_pb2.LedgerCall) -> Reason:
        """Why the node says no."""
        [reply] = await self.call(call)
        assert reply.WhichOneof("reply") == "refusal", reply
        return Reason(reply.refusal.code)

    def _keep(self, message: node_pb2.AttachRequest, _line: Line) -> node_pb2.AttachRequest:
        own = [each for each in message.frames if each.ledger.call_id in self._waiting]
        for frame in own:
            self._waiting[frame.ledger.call_id].put_nowait(frame.ledger)
            message.frames.remove(frame)
        return message


def greeting(
    who: Any,
    node: bytes,
    *,
    at: int = 0,
    kind: pb.PrincipalKind.ValueType = pb.PRINCIPAL_KIND_AUDITOR,
    key: SigningKey | None = None,
    reply_key: bytes | None = None,
    **changes: Any,
) -> Signed[pb.Hello]:
    """A greeting as a test wants it, without a broker's challenge."""
    at = at or now()
    payload = pb.Hello(
        federation="fed.test",
        nonce=os.urandom(16),
        created_at=at,
        signer=who.signer,
        kind=kind,
        broker=node,
        server_nonce=os.urandom(48),
        expires_at=at + 60_000,
        versions=[1],
        reply_key=SealingKey.generate().public if reply_key is None else reply_key,
    )
    for name, value in changes.items():
        setattr(payload, name, value)
    return st.sign(st.HELLO, payload, [key or who.key])


def entries_call(hello: Signed[pb.Hello], ledger: bytes) -> node_pb2.LedgerCall:
    request = auditor_pb2.FetchEntriesRequest(hello=hello.envelope, ledger=ledger)
    return node_pb2.LedgerCall(entries=request)


def statements_call(hello: Signed[pb.Hello], ledger: bytes) -> node_pb2.LedgerCall:
    request = auditor_pb2.FetchStatementsRequest(hello=hello.envelope, ledger=ledger)
    return node_pb2.LedgerCall(statements=request)


async def test_a_lying_broker_gets_from_a_node_only_what_it_cannot_open(district: District) -> None:
    auditor, school = await admitted(district), district.high
    key = SealingKey.generate()
    hello = greeting(auditor, school.root, reply_key=key.public)
    async with district.lied_to(school) as liar:
        smuggler = Smuggler(liar)
        replies = await smuggler.call(entries_call(hello, school.root))
        again = await smuggler.call(entries_call(hello, school.root))

    assert replies[-1].entries.ByteSize() == 0
    context = entries_context(hello.id)
    sealed = [each.entries.sealed for each in replies[:-1]]
    opened = auditor_pb2.FetchEntriesResponse.FromString(open_sealed(key, sealed[0], context=context))
    assert opened.entries[0].position == 0
    assert not any(each.entries.entries for each in (*replies, *again))
    for other in (SealingKey.generate(), key):
        with pytest.raises(SealError):
            open_sealed(other, sealed[0], context=context if other is not key else entries_context(bytes(32)))


async def test_a_node_judges_by_itself_who_an_auditor_is(district: District) -> None:
    auditor, school = await admitted(district), district.high
    elsewhere = await admitted(district, make_scope(nodes=(district.platform.root,)))
    unknown = Organization.new("Nobody", pb.PRINCIPAL_KIND_AUDITOR, district.federation, now=now())
    stolen = auditor.rotated(now=now())
    cases = [
        (greeting(district.tutor, school.root), Reason.REQUESTER_UNKNOWN),
        (greeting(unknown, school.root), Reason.REQUESTER_UNKNOWN),
        (greeting(district.mother, school.root), Reason.REQUESTER_UNKNOWN),
        (greeting(district.tutor, school.root, kind=pb.PRINCIPAL_KIND_PROVIDER), Reason.NOT_ALLOWED),
        (greeting(auditor, school.root, kind=pb.PRINCIPAL_KIND_BROKER), Reason.NOT_ALLOWED),
        (greeting(stolen, school.root), Reason.KEY_NOT_CERTIFIED),
        (greeting(elsewhere, school.root), Reason.NOT_ALLOWED),
        (greeting(auditor, district.platform.root), Reason.HELLO_REFUSED),
        (greeting(auditor, district.root), Reason.HELLO_REFUSED),
        (greeting(auditor, school.root, at=now() - 61_000), Reason.MALFORMED),
        (greeting(auditor, school.root, at=now() + 120_000), Reason.MALFORMED),
        (greeting(auditor, school.root, expires_at=now() + 600_000), Reason.MALFORMED),
        (greeting(auditor, school.root, reply_key=b""), Reason.MALFORMED),
        (greeting(auditor, school.root, reply_key=bytes(32)), Reason.KEY_NOT_CERTIFIED),
        (greeting(auditor, school.root, federation="fed.other"), Reason.WRONG_FEDERATION),
    ]
    async with district.lied_to(school) as liar:
        smuggler = Smuggler(liar)
        for hello, reason in cases:
            for make in (entries_call, statements_call):
                assert await smuggler.refusal(make(hello, school.root)) == reason, hello.payload
        forged = greeting(auditor, school.root).envelope
        forged.signatures[0].signature = bytes(64)
        request = auditor_pb2.FetchEntriesRequest(hello=forged, ledger=school.root)
        assert await smuggler.refusal(node_pb2.LedgerCall(entries=request)) == Reason.BAD_SIGNATURE
        assert await smuggler.refusal(entries_call(greeting(auditor, school.root), bytes(32))) == Reason.NOT_FOUND

    methods = {each.method for each in school.ledger.events("request_refused")}
    assert {"FetchEntries", "FetchStatements"} <= methods


async def test_a_suspended_auditor_gets_nothing_more_from_a_node(district: District) -> None:
    auditor, school = await admitted(district), district.high
    async with district.lied_to(school) as liar:
        smuggler = Smuggler(liar)
        async with auditing(district, auditor) as calls:
            pages = calls.entry_pages(school.root, follow=True)
            await anext(pages)
            district.processes.record(suspend(district.processes.operator, auditor, now=now()))
            assert await refused(asyncio.wait_for(to_its_end(pages), 20)) == Reason.REQUESTER_SUSPENDED
            assert await refused(calls.entries(school.root)) == Reason.REQUESTER_SUSPENDED
        await district.until_fit(school)

        assert await smuggler.refusal(entries_call(greeting(auditor, school.root), school.root)) == (
            Reason.REQUESTER_SUSPENDED
        )


async def to_its_end(pages: AsyncIterator[object]) -> None:
    """Take pages until no more come."""
    async for _ in pages:
        continue


async def test_a_node_without_a_lease_tells_no_auditor_anything(district: District) -> None:
    auditor, school = await admitted(district), district.high
    async with district.lied_to(school) as liar:
        smuggler = Smuggler(liar)

        def without_ticks(message: node_pb2.AttachResponse, _line: Line) -> node_pb2.AttachResponse:
            for frame in [each for each in message.frames if each.HasField("tick")]:
                message.frames.remove(frame)
            return message

        liar.down["Attach"] = without_ticks
        async with asyncio.timeout(20):
            while True:
                reply = (await smuggler.call(entries_call(greeting(auditor, school.root), school.root)))[-1]
                if reply.HasField("refusal"):
                    break
        assert Reason(reply.refusal.code) == Reason.NO_LEASE


async def test_the_broker_itself_gets_checkpoint_and_proofs_and_nothing_else(district: District) -> None:
    school = district.high
    async with district.lied_to(school) as liar:
        smuggler = Smuggler(liar)
        broker = Broker(liar)
        hello = greeting(broker, school.root, kind=pb.PRINCIPAL_KIND_BROKER, key=liar.key).envelope
        request = auditor_pb2.GetCheckpointRequest(hello=hello, ledger=school.root)
        [told] = await smuggler.call(node_pb2.LedgerCall(checkpoint=request))
        note = open_checkpoint(told.checkpoint.checkpoint.note, log_of(school, district)).checkpoint
        proofs = auditor_pb2.GetProofsRequest(hello=hello, ledger=school.root, size=note.size, positions=[0])
        [proved] = await smuggler.call(node_pb2.LedgerCall(proofs=proofs))
        whole = greeting(broker, school.root, kind=pb.PRINCIPAL_KIND_BROKER, key=liar.key)

        for make in (entries_call, statements_call):
            assert await smuggler.refusal(make(whole, school.root)) == Reason.NOT_ALLOWED
        somebody = greeting(district.tutor, school.root, kind=pb.PRINCIPAL_KIND_BROKER)
        request = auditor_pb2.GetCheckpointRequest(hello=somebody.envelope, ledger=school.root)
        assert await smuggler.refusal(node_pb2.LedgerCall(checkpoint=request)) == Reason.NOT_ALLOWED

    first = district.high.ledger.entries()[0].SerializeToString(deterministic=True)
    verify_inclusion(leaf_hash(first), 0, note.size, list(proved.proofs.inclusion[0].hashes), note.root)


class Broker:
    """The broker's keys, in a liar's hands."""

    def __init__(self, liar: LyingBroker) -> None:
        self.signer, self.key = liar.signer, liar.key

"""A grant is revoked while answers stream: once the node has acknowledged, not one byte under the grant leaves.

What came first is read from the wire itself: parent and tutor share one connection here, so nobody's clock or buffer is
believed.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from permslip import statements as st
from permslip._pb.permslip.v1 import guardian_pb2, guardian_pb2_grpc, node_pb2, provider_pb2, statement_pb2 as pb
from permslip.armor import write_statements
from permslip.reasons import Reason
from permslip.statements import Signed
from tests.federation.consents import Asked
from tests.federation.district import District
from tests.federation.principals import suspend
from tests.federation.processes import now
from tests.federation.requester import Requester, query_call
from tests.federation.school_process import until
from tests.federation.wire import WireMessage, messages_on
from tests.leaks.recording_proxy import RecordingProxy

pytestmark = pytest.mark.e2e

# Sixteen million bytes: their streaming takes much longer than a revocation.
MANY = 8


def recorded(wire: RecordingProxy, way: str) -> list[WireMessage]:
    """What the first connection said in one direction."""
    [raw] = [stretch for name, stretch in wire.recorded() if name == f"connection 1 {way}"]
    return messages_on(raw)


async def begin(tutor: Requester, asked: list[Asked]) -> None:
    """Ask, and wait until something of each answer has come."""
    tutor.read_on()
    answers = [tutor.expect(each.id) for each in asked]
    await tutor.send(*[query_call(each.envelope) for each in asked])
    await until(lambda: all(each.sealed_bytes for each in answers), "each answer begins")


async def ends(tutor: Requester, asked: list[Asked]) -> list[Reason]:
    """Wait until each answer has ended; why it did."""
    return [(await tutor.finished(tutor.expect(each.id))).reason for each in asked]


def carries(piece: provider_pb2.Answer, asked: list[Asked]) -> bool:
    return bool(piece.chunks) and piece.query_id in {each.id for each in asked}


async def test_not_a_byte_reaches_the_requester_after_the_acknowledgement(district: District) -> None:
    [grant] = await district.consent(district.high)
    with RecordingProxy(district.port) as wire:
        async with district.requester(address=f"127.0.0.1:{wire.port}") as tutor:
            asked = [district.query(grant) for _ in range(MANY)]
            await begin(tutor, asked)
            revocation = district.revocation(grant)
            call = guardian_pb2_grpc.GuardianServiceStub(tutor.channel).Revoke(
                guardian_pb2.RevokeRequest(revocations=[revocation.envelope]), timeout=20
            )
            states = [state async for response in call for state in response.states]
            reasons = await ends(tutor, asked)
        said = recorded(wire, "down")
    assert states[-1].HasField("acknowledgement")
    assert set(reasons) == {Reason.GRANT_REVOKED}

    exchange, revoke = sorted({each.stream for each in said})
    acknowledged = next(
        each.ends
        for each in said
        if each.stream == revoke
        and any(state.HasField("acknowledgement") for state in guardian_pb2.RevokeResponse.FromString(each.body).states)
    )
    last_byte = max(
        each.ends
        for each in said
        if each.stream == exchange
        and any(carries(reply.answer, asked) for reply in provider_pb2.ExchangeResponse.FromString(each.body).replies)
    )
    assert last_byte < acknowledged


async def test_not_a_byte_leaves_the_node_after_its_acknowledgement(district: District) -> None:
    high = district.high
    [grant] = await district.consent(high)
    with RecordingProxy(district.port) as wire:
        await district.attach_through([high], wire.port)
        async with district.requester() as tutor:
            asked = [district.query(grant) for _ in range(MANY)]
            await begin(tutor, asked)
            state = await district.revoke(district.revocation(grant))
            assert set(await ends(tutor, asked)) == {Reason.GRANT_REVOKED}
        said = recorded(wire, "up")
        await district.attach_through([high], district.port)
    assert state.HasField("acknowledgement")
    frames = [frame for each in said for frame in node_pb2.AttachRequest.FromString(each.body).frames]
    acknowledged = next(number for number, each in enumerate(frames) if is_acknowledgement(each.statement, grant))
    last_byte = max(number for number, each in enumerate(frames) if carries(each.answer, asked))
    assert last_byte < acknowledged
    for query in asked:
        # The broker, which knew first, takes the queries back while the revocation is on its way.
        assert set(await district.endings(high.ledger, query.id)) <= {Reason.GRANT_REVOKED.wire, Reason.CANCELLED.wire}


async def test_a_suspended_provider_s_answers_end_as_well(district: District) -> None:
    """Suspension is pushed like a revocation. The clinic is suspended, for the tutor is still needed."""
    [grant] = await district.consent(district.high, grantee=district.clinic.root)
    async with district.requester(district.clinic) as clinic:
        asked = [district.query(grant, who=district.clinic) for _ in range(MANY)]
        await begin(clinic, asked)
        district.processes.record(suspend(district.processes.operator, district.clinic, now=now()))
        assert set(await ends(clinic, asked)) == {Reason.REQUESTER_SUSPENDED}


async def test_a_revocation_on_paper_is_in_force_while_the_broker_is_dead(district: District, tmp_path: Path) -> None:
    high = district.high
    [grant, other] = [*await district.consent(high), *await district.consent(high)]
    revocation = district.revocation(grant)
    paper = tmp_path / "revocation.txt"
    write_statements(paper, [revocation.envelope])
    before = district.attachments(high)
    district.kill_broker()
    done = await asyncio.to_thread(
        district.processes.command, "node", "revoke", str(paper), "--config", str(high.config)
    )
    assert done["in_force"], json.dumps(done)
    assert revocation.id in high.ledger.statements()

    district.start_broker()
    await district.until_fit(high, attached=before)
    async with district.requester() as tutor:
        assert (await tutor.ask(district.query(grant))).reason == Reason.GRANT_REVOKED
        assert (await tutor.ask(district.query(other))).reason == Reason.ALLOWED
    # The broker had it from the node; brought once more by the parent it is the same.
    state = await district.revoke(revocation)
    assert state.HasField("acknowledgement")
    assert bytes.fromhex(done["acknowledgement"]) in district.broker_ledger.statements()


async def test_a_revocation_on_paper_ends_answers_that_stream(district: District, tmp_path: Path) -> None:
    high = district.high
    [grant] = await district.consent(high)
    paper = tmp_path / "revocation.txt"
    write_statements(paper, [district.revocation(grant).envelope])
    async with district.requester() as tutor:
        tutor.credits = False
        asked = [district.query(grant)]
        await begin(tutor, asked)
        done = await asyncio.to_thread(
            district.processes.command, "node", "revoke", str(paper), "--config", str(high.config)
        )
        assert done["in_force"], json.dumps(done)
        assert await ends(tutor, asked) == [Reason.GRANT_REVOKED]


def is_acknowledgement(envelope: pb.Envelope, grant: Signed[pb.Grant]) -> bool:
    if envelope.payload_type != st.ACKNOWLEDGEMENT.payload_type:
        return False
    return pb.Acknowledgement.FromString(envelope.payload).target_id == grant.id

"""What the ledger keeps of accesses, and what a parent can prove with it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import defaultdict
from hashlib import sha256

import grpc
import pytest
from sqlalchemy import Connection

from permslip._pb.permslip.v1 import (
    auditor_pb2,
    auditor_pb2_grpc,
    guardian_pb2,
    ledger_pb2,
    provider_pb2,
    statement_pb2 as pb,
)
from permslip.checkpoints import open_checkpoint
from permslip.hosting.drafts import Draft
from permslip.hosting.leaves import decode_leaf
from permslip.merkle import leaf_hash, verify_inclusion
from permslip.notes import Ed25519Verifier, SignatureType, VerifierKey
from permslip.reasons import Reason
from tests.e2e.broker.small_federation import FEDERATION, SmallFederation
from tests.federation.requester import query_call

Raw = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]


def log_key(federation: SmallFederation) -> Ed25519Verifier:
    """What verifies the broker's checkpoints."""
    public = federation.broker_keys.key.public
    return Ed25519Verifier(VerifierKey(f"{FEDERATION}/broker", SignatureType.ED25519, public))


async def test_an_access_is_in_the_ledger_before_its_node_hears_of_it(federation: SmallFederation) -> None:
    async with federation.attached() as node, federation.requester(federation.tutor) as tutor:
        asked = federation.query(federation.tutor, await federation.endorsed_grant())
        node.answers.clear()
        tutor.read_on()
        await tutor.send(query_call(asked.envelope))
        await node.until(lambda: bool(node.asked))
        position = node.asked[0].position
        [leaf] = federation.broker.ledger.leaves(position, position + 1)
    decided = decode_leaf(leaf.leaf or b"").access_decided
    assert (decided.query_id, decided.reason) == (asked.id, Reason.ALLOWED.wire)
    assert decided.envelope_sha256 == asked.query.sha256
    assert [each.section for each in decided.sections] == ["personal.attendance", "transcript.grades"]


async def test_what_was_answered_is_logged_with_the_manifest_s_digest(federation: SmallFederation) -> None:
    async with federation.attached(), federation.requester(federation.tutor) as tutor:
        asked = federation.query(federation.tutor, await federation.endorsed_grant())
        answer = await tutor.ask(asked)
        [answered] = await federation.events("access_answered")
    assert (answered.query_id, answered.reason) == (asked.id, Reason.ALLOWED.wire)
    assert answered.manifest_sha256 == answer.outcome.manifest_sha256
    assert answered.sealed_bytes == answer.sealed_bytes


async def test_a_batch_of_queries_is_one_commit(federation: SmallFederation) -> None:
    async with federation.attached(), federation.requester(federation.tutor) as tutor:
        grant = await federation.endorsed_grant()
        await tutor.ask_all([federation.query(federation.tutor, grant).envelope for _ in range(20)])
    times: dict[int, int] = defaultdict(int)
    for entry in await federation.entries():
        if entry.HasField("access_decided"):
            times[entry.recorded_at] += 1
    assert list(times.values()) == [20]


async def test_a_revocation_that_lands_between_decision_and_commit_wins(federation: SmallFederation) -> None:
    """The query is decided while the grant still holds; its commit finds that it no longer does."""
    async with federation.attached() as node, federation.requester(federation.tutor) as tutor:
        grant = await federation.endorsed_grant()
        asked = federation.query(federation.tutor, grant)
        held_up, go_on = threading.Event(), threading.Event()

        def hold(_connection: Connection, _position: int) -> None:
            held_up.set()
            assert go_on.wait(30)

        body = ledger_pb2.RequestRefused(reason=Reason.NOT_FOUND.wire, method="Test")
        holding = asyncio.ensure_future(federation.broker.recorder.append(Draft("request_refused", body, write=hold)))
        await asyncio.to_thread(held_up.wait)
        # The ledger's writer waits. Now the revocation stands in line, and behind it the query.
        revoking = asyncio.ensure_future(federation.revoke(federation.revocation(grant)))
        while federation.broker.recorder.under_way < 2:
            await federation.hello(federation.mother)
        asking = asyncio.ensure_future(tutor.ask(asked))
        while federation.broker.recorder.under_way < 3:
            await federation.hello(federation.mother)
        go_on.set()
        answer = await asking
        await holding
        await revoking
        assert answer.reason == Reason.GRANT_REVOKED
        assert not node.asked
    [decided] = await federation.events("access_decided")
    assert decided.reason == Reason.GRANT_REVOKED.wire
    revoked_at = next(
        position
        for position, each in enumerate(await federation.entries())
        if each.statement_recorded.payload_type.endswith("revocation.v1+protobuf")
    )
    assert decided.facts_position > revoked_at


async def test_entries_of_one_slice_are_chained_and_numbered(federation: SmallFederation) -> None:
    async with federation.attached(), federation.requester(federation.tutor) as tutor:
        grant = await federation.endorsed_grant()
        await tutor.ask(federation.query(federation.tutor, grant))
        await federation.revoke(federation.revocation(grant))
        await tutor.ask(federation.query(federation.tutor, grant))
        await federation.broker.recorder.settle()
        leaves = list(federation.broker.ledger.leaves(0, federation.broker.ledger.size))
    previous, seq, kinds = b"", 0, []
    for leaf in leaves:
        entry = decode_leaf(leaf.leaf or b"")
        if entry.slice.handle == federation.handle:
            seq += 1
            assert (entry.slice_seq, entry.slice_prev) == (seq, previous)
            previous = leaf.leaf_hash
            kinds.append(entry.WhichOneof("event"))
    # grant, endorsement, access, answer, revocation, acknowledgement, refused access
    assert kinds == [
        "statement_recorded",
        "statement_recorded",
        "access_decided",
        "access_answered",
        "statement_recorded",
        "statement_recorded",
        "access_decided",
    ]


async def test_the_checkpoint_is_a_signed_note_of_the_whole_ledger(federation: SmallFederation) -> None:
    hello = await federation.hello(federation.mother)
    stub = auditor_pb2_grpc.AuditorServiceStub(federation.channel)
    response = await stub.GetCheckpoint(auditor_pb2.GetCheckpointRequest(hello=hello, ledger=federation.root))
    opened = open_checkpoint(response.checkpoint.note, log_key(federation)).checkpoint
    assert (opened.size, opened.root) == federation.broker.ledger.head()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.GetCheckpoint(auditor_pb2.GetCheckpointRequest(hello=hello, ledger=federation.school.root))
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED, "a greeting for the broker opens no node's ledger"


async def accesses(federation: SmallFederation, who: object, size: int = 500) -> list[ledger_pb2.LedgerLeaf]:
    """All pages of somebody's accesses, each entry's inclusion verified."""
    found: list[ledger_pb2.LedgerLeaf] = []
    request = guardian_pb2.ListAccessesRequest(hello=await federation.hello(who))  # type: ignore[arg-type] # a person
    request.page.size = size
    while True:
        response = await federation.guardian_calls.ListAccesses(request)
        head = open_checkpoint(response.checkpoint.note, log_key(federation)).checkpoint
        for entry, proof in zip(response.entries, response.proofs, strict=True):
            assert (proof.position, proof.size) == (entry.position, head.size)
            verify_inclusion(entry.leaf_hash, entry.position, head.size, list(proof.hashes), head.root)
            assert not entry.leaf or leaf_hash(entry.leaf) == entry.leaf_hash
        found += response.entries
        if not response.next_page:
            return found
        request.page.token = response.next_page


@pytest.mark.parametrize("size", [1, 3, 500])
async def test_a_parent_gets_every_entry_of_her_slices_with_its_proof(federation: SmallFederation, size: int) -> None:
    async with (
        federation.attached(),
        federation.attached(federation.platform),
        federation.requester(federation.tutor) as tutor,
    ):
        grants = [await federation.endorsed_grant(), await federation.endorsed_grant(federation.platform)]
        for grant in grants:
            await tutor.ask(federation.query(federation.tutor, grant))
    await federation.broker.recorder.settle()
    found = [decode_leaf(each.leaf) for each in await accesses(federation, federation.mother, size)]
    per_slice = [each.slice.node for each in found]
    assert per_slice == [federation.school.root] * 4 + [federation.platform.root] * 4
    assert [each.slice_seq for each in found] == [1, 2, 3, 4] * 2


async def test_of_another_parent_s_consent_she_gets_the_chain_but_not_what_it_says(federation: SmallFederation) -> None:
    async with federation.attached(), federation.requester(federation.tutor) as tutor:
        await federation.endorsed_grant()
        other = await federation.endorsed_grant(signers=[federation.father])
        await tutor.ask(federation.query(federation.tutor, other))
    await federation.broker.recorder.settle()
    found = await accesses(federation, federation.mother)
    assert [bool(each.leaf) for each in found] == [True, True, False, False, False, False]
    assert not await accesses(federation, federation.stranger)


async def test_a_slice_of_others_is_refused_by_name(federation: SmallFederation) -> None:
    async with federation.attached():
        await federation.endorsed_grant()
    request = guardian_pb2.ListAccessesRequest(
        hello=await federation.hello(federation.stranger),
        slices=[pb.Slice(node=federation.school.root, handle=federation.handle)],
    )
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await federation.guardian_calls.ListAccesses(request)
    assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED


async def test_what_cannot_be_believed_is_told_by_field_and_logged_by_digest(federation: SmallFederation) -> None:
    async with federation.attached(), federation.requester(federation.tutor) as tutor:
        grant = await federation.endorsed_grant()
        good = federation.query(federation.tutor, grant).envelope
        flipped = pb.Envelope()
        flipped.CopyFrom(good)
        flipped.signatures[0].signature = bytes(64)
        other = federation.query(federation.tutor, grant, federation="another.fed").envelope
        garbage = pb.Envelope(payload_type=good.payload_type, payload=b"\xff\xfe", signatures=good.signatures)
        answers = await tutor.ask_all([garbage, flipped, other])
        assert [(each.reason, each.outcome.refusal.field) for each in answers] == [
            (Reason.MALFORMED, "query"),
            (Reason.BAD_SIGNATURE, ""),
            (Reason.WRONG_FEDERATION, "query.federation"),
        ]
        tutor.answers.clear()
        assert (await tutor.ask(good)).reason == Reason.ALLOWED, "the stream goes on"
    refused = await federation.events("request_refused")
    assert [each.reason for each in refused] == [
        Reason.MALFORMED.wire,
        Reason.BAD_SIGNATURE.wire,
        Reason.WRONG_FEDERATION.wire,
    ]
    assert [each.request_sha256 for each in refused] == [
        sha256(each.SerializeToString()).digest() for each in (garbage, flipped, other)
    ]
    assert {each.caller for each in refused} == {federation.tutor.root}


async def test_a_frame_that_is_no_call_ends_the_stream_with_its_place(federation: SmallFederation) -> None:
    async with federation.requester(federation.tutor) as tutor:
        tutor.read_on()
        await tutor.send(provider_pb2.ExchangeCall())
        assert await tutor.ended() == grpc.StatusCode.INVALID_ARGUMENT
        assert "calls[0]" in (await tutor.call.details() or "")
    [refused] = await federation.events("request_refused")
    assert (refused.method, refused.field) == ("Exchange", "calls[0]")


async def test_bytes_that_are_no_message_are_refused_and_logged_too(federation: SmallFederation) -> None:
    call: Raw = federation.channel.unary_unary("/permslip.v1.GuardianService/DepositConsent")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(b"\xff" + os.urandom(40))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    [entry] = await federation.events("request_refused")
    assert (entry.method, entry.field, entry.reason) == ("DepositConsent", "request", Reason.MALFORMED.wire)


async def test_an_outsider_cannot_fill_the_ledger_with_refusals(federation: SmallFederation) -> None:
    call: Raw = federation.channel.unary_unary("/permslip.v1.GuardianService/DepositConsent")
    before = federation.broker.ledger.size

    async def garbage() -> None:
        with pytest.raises(grpc.aio.AioRpcError):
            await call(b"\xff" + os.urandom(40))

    began = federation.now() // 1_000
    await asyncio.gather(*[garbage() for _ in range(400)])
    await federation.broker.recorder.settle()
    seconds = federation.now() // 1_000 - began + 1
    assert federation.broker.ledger.size - before <= seconds * federation.settings.limits.refusals_per_second


async def test_a_consent_that_the_school_never_endorsed_shows_nothing_of_a_slice(federation: SmallFederation) -> None:
    """Who knows a handle, such as a former grantee, can sign a grant on it: that makes her no guardian."""
    async with federation.attached(), federation.requester(federation.tutor) as tutor:
        grant = await federation.endorsed_grant()
        await tutor.ask(federation.query(federation.tutor, grant))
    await federation.deposit(federation.grant(signers=[federation.stranger]))
    await federation.broker.recorder.settle()
    request = guardian_pb2.ListAccessesRequest(
        hello=await federation.hello(federation.stranger),
        slices=[pb.Slice(node=federation.school.root, handle=federation.handle)],
    )

    assert not await accesses(federation, federation.stranger)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await federation.guardian_calls.ListAccesses(request)
    assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED
    assert await accesses(federation, federation.mother)


async def test_an_outsider_cannot_fill_the_ledger_with_queries(federation: SmallFederation) -> None:
    before = federation.broker.ledger.size
    began = federation.now() // 1_000
    async with federation.requester(federation.stranger) as stranger:
        asked = [federation.query(federation.stranger, os.urandom(32)).envelope for _ in range(300)]
        answers = await stranger.ask_all(asked)
    await federation.broker.recorder.settle()
    seconds = federation.now() // 1_000 - began + 1

    assert {each.reason for each in answers} == {Reason.GRANT_UNKNOWN, Reason.BUSY}
    decided = await federation.events("access_decided")
    assert len(decided) == sum(each.reason == Reason.GRANT_UNKNOWN for each in answers)
    assert federation.broker.ledger.size - before <= seconds * federation.settings.limits.refusals_per_second

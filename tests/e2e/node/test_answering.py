"""Answers: what was granted and nothing else, against credit, counted once; and every refusal by its reason."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from permslip import statements as st
from permslip._pb.permslip.v1 import ledger_pb2, node_pb2, statement_pb2 as pb
from permslip.hosting.leaves import decode_leaf
from permslip.quantities import Handle
from permslip.reasons import Reason
from permslip.slices import SliceReader
from permslip.statements import Signed
from permslip_node.app import RunningNode, boot_millis
from tests.e2e.node.conftest import World
from tests.federation.consents import Asked
from tests.federation.principals import Organization, Person
from tests.federation.requester import Answer
from tests.federation.school import ATTENDANCE, GRADES
from tests.federation.simulated_broker import AttachedNode


def altered(world: World, asked: Asked, **fields: Any) -> Asked:
    """The same query with other fields, signed again."""
    payload = pb.Query()
    payload.CopyFrom(asked.query.payload)
    for name, value in fields.items():
        setattr(payload, name, value)
    payload.nonce = bytes(16 - 1) + bytes([len(fields)]) if "nonce" in fields else payload.nonce
    return Asked(st.sign(st.QUERY, payload, [world.tutor.key]), asked.reply_key)


def has_begun(answer: Answer) -> bool:
    return answer.sealed_bytes > 0


def manifest_of(world: World, answer: Answer, asked: Asked) -> pb.Manifest:
    reader = SliceReader(asked.query, asked.reply_key, node=world.school.root, check_signer=lambda _: None)
    for piece in answer.pieces:
        if piece.HasField("opening"):
            reader.open_with(piece.opening)
        for chunk in piece.chunks:
            reader.read(chunk)
    return reader.finish().payload


async def granted(
    world: World, node: AttachedNode, handle: Handle, *, sections: list[str] | None = None, **changes: Any
) -> Signed[pb.Grant]:
    mother = changes.pop("mother", None) or await world.school.link(node, "604822")
    fields = {name: changes.pop(name) for name in ("max_uses", "records_from", "records_until") if name in changes}
    grant = world.grant(mother, handle=handle, sections=sections, **changes)
    if fields:
        payload = pb.Grant()
        payload.CopyFrom(grant.payload)
        for name, value in fields.items():
            setattr(payload, name, value)
        grant = st.sign(st.GRANT, payload, [mother.key])
    assert (await node.endorse(grant)).verdict == pb.ENDORSEMENT_VERDICT_ENDORSED
    return grant


def events_of(node: RunningNode, name: str) -> list[Any]:
    entries = [decode_leaf(leaf.leaf) for leaf in node.ledger.leaves(0, node.ledger.size) if leaf.leaf]
    return [getattr(each, name) for each in entries if each.WhichOneof("event") == name]


# --------------------------------------------------------------------------------------------- what comes


async def test_manifest_says_for_each_section_what_was_returned_and_what_was_not_granted(world: World) -> None:
    ada = world.school.learner("604822", grades=7, attendance=3)
    async with world.attached() as (_, node):
        grant = await granted(world, node, ada, sections=[GRADES, "voice.goals"])
        asked = world.query(grant, [ATTENDANCE, GRADES, "personal.discipline", "voice.goals"])
        answer = await node.ask(asked)
        assert {each.section for each in answer.records(asked, node=world.school.root)} == {GRADES}
        manifest = manifest_of(world, answer, asked)
        assert [(each.section, Reason(each.reason), each.returned) for each in manifest.coverage] == [
            (ATTENDANCE, Reason.SECTION_NOT_GRANTED, 0),
            ("personal.discipline", Reason.SECTION_NOT_GRANTED, 0),
            (GRADES, Reason.ALLOWED, 7),
            ("voice.goals", Reason.ALLOWED, 0),
        ]
        assert manifest.slice_seq > 0
        assert answer.outcome.said_by == world.school.root


async def test_days_of_the_grant_bound_the_answer_and_the_manifest_says_so(world: World) -> None:
    days = ("2010-09-01", "2010-10-03", "2010-11-05")
    ada = world.school.learner("604822", grades=30, days=days)
    async with world.attached() as (_, node):
        grant = await granted(world, node, ada, records_from="2010-10-01", records_until="2010-10-31")
        asked = world.query(grant)
        answer = await node.ask(asked)
        assert {each.observed_on for each in answer.records(asked, node=world.school.root)} == {"2010-10-03"}
        [coverage] = manifest_of(world, answer, asked).coverage
        assert (coverage.returned, coverage.withheld) == (10, True)
        outside = await node.ask(altered(world, world.query(grant), records_from="2010-11-01"))
        assert outside.reason == Reason.DATES_NOT_GRANTED


async def test_pages_hold_every_record_once_and_are_one_use(world: World) -> None:
    ada = world.school.learner("604822", grades=25, attendance=25)
    async with world.attached() as (_, node):
        grant = await granted(world, node, ada, sections=[ATTENDANCE, GRADES], max_uses=1)
        first = altered(world, world.query(grant, [ATTENDANCE, GRADES]), page_size=20)
        found, asked, page = [], first, b""
        for number in range(3):
            if number:
                again = world.query(grant, [ATTENDANCE, GRADES])
                asked = altered(world, again, page_size=20, page=page, continues=first.id)
            answer = await node.ask(asked)
            assert answer.reason == Reason.ALLOWED
            found += [each.record_id for each in answer.records(asked, node=world.school.root)]
            page = manifest_of(world, answer, asked).next_page
        assert page == b""
        assert (len(found), len(set(found))) == (50, 50)
        assert (await node.ask(world.query(grant, [GRADES]))).reason == Reason.USES_EXHAUSTED


async def test_page_of_another_question_or_of_nobody_is_malformed(world: World) -> None:
    ada = world.school.learner("604822", grades=25, attendance=5)
    async with world.attached() as (running, node):
        grant = await granted(world, node, ada, sections=[ATTENDANCE, GRADES])
        first = altered(world, world.query(grant), page_size=10)
        page = manifest_of(world, await node.ask(first), first).next_page
        other = altered(world, world.query(grant, [ATTENDANCE]), page_size=10, page=page, continues=first.id)
        unnamed = altered(world, world.query(grant), page_size=10, page=page)
        invented = altered(world, world.query(grant), page_size=10, page=b"x" * 100, continues=first.id)
        for asked in (other, unnamed, invented):
            answer = await node.ask(asked)
            assert (answer.reason, answer.outcome.refusal.field) == (Reason.MALFORMED, "query.page")
        await world.broker.until(lambda: len(events_of(running, "request_refused")) == 3)
        world.clock.offset = 3_600_000 + 1
        late = altered(world, world.query(grant), page_size=10, page=page, continues=first.id)
        assert (await node.ask(late)).reason == Reason.MALFORMED


async def test_large_slice_streams_in_chunks_against_credit_and_arrives_whole(world: World) -> None:
    world.broker.first_credit = 64 * 1024
    ada = world.school.learner("604822", grades=5_000, text="x" * 1_000)
    async with world.attached() as (_, node):
        grant = await granted(world, node, ada)
        asked = world.query(grant)
        answer = await node.ask(asked)
        assert answer.reason == Reason.ALLOWED
        assert len(answer.records(asked, node=world.school.root)) == 5_000
        assert answer.sealed_bytes > 5_000_000
        assert len(answer.pieces) > 70
        assert all(len(chunk) <= 64 * 1024 + 17 for piece in answer.pieces for chunk in piece.chunks)
        assert answer.outcome.sealed_bytes == answer.sealed_bytes


async def test_node_sends_no_more_than_its_credit_and_one_chunk(world: World) -> None:
    world.broker.gives_credit = False
    world.broker.first_credit = 100_000
    ada = world.school.learner("604822", grades=1_000, text="x" * 1_000)
    async with world.attached() as (_, node):
        grant = await granted(world, node, ada)
        asked = world.query(grant)
        [answer] = node.route(asked)
        await world.broker.until(lambda: answer.sealed_bytes >= 100_000)
        small = await node.ask(altered(world, world.query(grant), page_size=5))
        assert small.reason == Reason.ALLOWED
        assert 100_000 <= answer.sealed_bytes < 100_000 + 66_048
        assert not answer.whole.is_set()
        node.credit(asked.id, 1 << 30)
        await answer.whole.wait()
        assert answer.reason == Reason.ALLOWED


async def test_small_answer_overtakes_a_large_one(world: World) -> None:
    ada = world.school.learner("604822", grades=5_000, text="x" * 1_000)
    async with world.attached() as (_, node):
        grant = await granted(world, node, ada)
        large = world.query(grant)
        small = [altered(world, world.query(grant), page_size=3) for _ in range(10)]
        first, *others = node.route(large, *small)
        for each in others:
            await each.whole.wait()
            assert each.reason == Reason.ALLOWED
        assert not first.whole.is_set()
        await first.whole.wait()
        assert first.reason == Reason.ALLOWED


async def test_large_answers_take_turns(world: World) -> None:
    world.broker.first_credit = 1 << 30
    ada = world.school.learner("604822", grades=2_000, text="x" * 1_000)
    async with world.attached() as (_, node):
        grant = await granted(world, node, ada)
        asked = [world.query(grant) for _ in range(4)]
        for each in node.route(*asked):
            await each.whole.wait()
        pieces = [frame.answer.query_id for frame in node.order if frame.answer.chunks]
        halves = pieces[: len(pieces) // 2]
        counts = [halves.count(each.id) for each in asked]
        assert max(counts) - min(counts) <= 4
        assert min(counts) > 5


async def test_cancelled_answer_ends_and_its_credit_is_forgotten(world: World) -> None:
    world.broker.gives_credit = False
    ada = world.school.learner("604822", grades=1_000, text="x" * 1_000)
    async with world.attached() as (running, node):
        grant = await granted(world, node, ada)
        asked = world.query(grant)
        [answer] = node.route(asked)
        await world.broker.until(lambda: answer.sealed_bytes >= world.broker.first_credit)
        node.cancel(asked.id)
        await answer.whole.wait()
        assert answer.reason == Reason.CANCELLED
        await world.broker.until(lambda: events_of(running, "access_answered"))
        [entry] = events_of(running, "access_answered")
        assert (Reason(entry.reason), entry.sealed_bytes) == (Reason.CANCELLED, answer.sealed_bytes)


async def test_answer_that_nobody_gives_credit_for_times_out(world: World) -> None:
    world.broker.gives_credit = False
    ada = world.school.learner("604822", grades=1_000, text="x" * 1_000)
    async with world.attached() as (_, node):
        grant = await granted(world, node, ada)
        answer = await node.ask(world.query(grant), deadline=600)
        assert answer.reason == Reason.TIMED_OUT


# --------------------------------------------------------------------------------------------- what is logged


async def test_decision_is_in_the_ledger_before_the_answer_leaves_and_its_end_behind_it(world: World) -> None:
    ada = world.school.learner("604822", grades=3)
    async with world.attached() as (running, node):
        grant = await granted(world, node, ada)
        asked = world.query(grant)
        answer = await node.ask(asked)
        [decided] = events_of(running, "access_decided")
        assert (decided.query_id, Reason(decided.reason), decided.routed_position) == (asked.id, Reason.ALLOWED, 7)
        assert [(each.section, Reason(each.reason)) for each in decided.sections] == [(GRADES, Reason.ALLOWED)]
        await world.broker.until(lambda: events_of(running, "access_answered"))
        [answered] = events_of(running, "access_answered")
        assert answered.sealed_bytes == answer.sealed_bytes
        assert answered.manifest_sha256 == answer.outcome.manifest_sha256
        end = running.ledger.slice_end(world.school.root, ada)
        assert end is not None
        assert end.seq == manifest_of(world, answer, asked).slice_seq + 1


async def test_refusals_are_entries_too(world: World) -> None:
    ada = world.school.learner("604822", grades=3)
    async with world.attached() as (running, node):
        grant = await granted(world, node, ada)
        other = Organization.new("Other", pb.PRINCIPAL_KIND_PROVIDER, world.broker.federation, now=world.clock())
        refused = [
            (world.query(bytes(32)), Reason.GRANT_UNKNOWN),
            (world.query(grant, [ATTENDANCE]), Reason.SECTION_NOT_GRANTED),
            (world.query(grant, requester=other), Reason.REQUESTER_UNKNOWN),
            (world.query(grant, requester=Person.new()), Reason.NOT_GRANTEE),
            (world.query(grant, lifetime=121_000), Reason.QUERY_EXPIRED),
            (world.query(grant, action=pb.ACTION_APPEND), Reason.ACTION_NOT_GRANTED),
        ]
        for asked, reason in refused:
            answer = await node.ask(asked)
            assert answer.reason == reason
            assert not any(piece.chunks for piece in answer.pieces)
        logged: list[ledger_pb2.AccessDecided] = events_of(running, "access_decided")
        assert [Reason(each.reason) for each in logged] == [reason for _, reason in refused]
        assert [each.section for each in answer.outcome.sections] == [GRADES]


async def test_query_for_another_node_is_refused_as_unknown(world: World) -> None:
    ada = world.school.learner("604822", grades=3)
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822")
        elsewhere = world.grant(mother, handle=ada)
        payload = pb.Grant()
        payload.CopyFrom(elsewhere.payload)
        payload.slice.node = world.broker.organization.root
        grant = st.sign(st.GRANT, payload, [mother.key])
        assert (await node.ask(world.query(grant))).reason == Reason.GRANT_UNKNOWN


async def test_replayed_query_is_refused_also_after_a_restart(world: World) -> None:
    ada = world.school.learner("604822", grades=3)
    async with world.attached() as (_, node):
        grant = await granted(world, node, ada)
        asked = world.query(grant)
        assert (await node.ask(asked)).reason == Reason.ALLOWED
        node.answers.clear()
        assert (await node.ask(asked)).reason == Reason.QUERY_REPLAYED
    async with world.attached() as (_, node):
        assert (await node.ask(asked)).reason == Reason.QUERY_REPLAYED
        assert (await node.ask(world.query(grant))).reason == Reason.ALLOWED


async def test_what_waited_for_its_connection_until_the_lease_was_over_does_not_leave(world: World) -> None:
    stalled = 0
    world.school = replace(world.school, monotonic=lambda: boot_millis() + stalled)
    ada = world.school.learner("604822", grades=3)
    async with world.attached() as (running, node):
        grant = await granted(world, node, ada)
        [stream] = running.streams
        put = stream.put

        def put_and_stall(
            frame: node_pb2.NodeFrame, answer: Any = None, *, sealed: int = 0, last: bool = False
        ) -> None:
            nonlocal stalled
            put(frame, answer, sealed=sealed, last=last)
            stalled = 10_000 if sealed else stalled

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stream, "put", put_and_stall)
            answer = await node.ask(world.query(grant))
        assert (answer.reason, answer.sealed_bytes) == (Reason.NO_LEASE, 0)
        await world.broker.until(lambda: events_of(running, "access_answered"))
        [ended] = events_of(running, "access_answered")
        assert (Reason(ended.reason), ended.sealed_bytes) == (Reason.NO_LEASE, 0)


async def test_query_whose_signature_does_not_hold_is_not_decided(world: World) -> None:
    ada = world.school.learner("604822", grades=3)
    async with world.attached() as (_, node):
        grant = await granted(world, node, ada)
        forged = pb.Envelope()
        forged.CopyFrom(world.query(grant).envelope)
        forged.signatures[0].signature = world.query(grant).envelope.signatures[0].signature
        assert (await node.ask(forged)).reason == Reason.BAD_SIGNATURE
        rubbish = pb.Envelope(payload_type=st.QUERY.payload_type, payload=b"rubbish")
        assert (await node.ask(rubbish)).reason == Reason.MALFORMED


# --------------------------------------------------------------------------------------------- limits


async def test_more_queries_than_the_node_answers_at_once_are_told_to_come_back(world: World) -> None:
    world.broker.gives_credit = False
    world.school = world.school.with_limits(open_queries=2)
    ada = world.school.learner("604822", grades=1_000, text="x" * 1_000)
    async with world.attached() as (_, node):
        grant = await granted(world, node, ada)
        for _ in range(2):
            [answer] = node.route(world.query(grant))
            await world.broker.until(partial(has_begun, answer))
        busy = await node.ask(world.query(grant))
        assert busy.reason == Reason.BUSY
        assert busy.outcome.refusal.retry_after > 0


async def test_draining_node_ends_what_is_open_and_refuses_what_is_new(world: World) -> None:
    world.broker.gives_credit = False
    world.school = world.school.with_timing(drain_s=0.3)
    ada = world.school.learner("604822", grades=1_000, text="x" * 1_000)
    async with world.attached() as (running, node):
        grant = await granted(world, node, ada)
        [open_one] = node.route(world.query(grant))
        await world.broker.until(lambda: open_one.sealed_bytes > 0)
        draining = asyncio.ensure_future(running.drain())
        [late] = node.route(world.query(grant))
        await late.whole.wait()
        assert late.reason == Reason.DRAINING
        await open_one.whole.wait()
        assert open_one.reason == Reason.DRAINING
        await draining
        await node.ended.wait()

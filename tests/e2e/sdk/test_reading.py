"""A provider reads: grants, profiles, many profiles at once, records one by one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from permslip._pb.permslip.v1 import provider_pb2
from permslip.client.providing import AsyncClient
from permslip.coverage import Held
from permslip.errors import MalformedError, RefusedError, TimedOutError, UnavailableError
from permslip.grant_views import GrantStatus
from permslip.keys import SigningKey
from permslip.reasons import Reason
from tests.e2e.sdk.simulated import Asked, SimulatedBroker, World, attendance, seal

pytestmark = pytest.mark.e2e


async def silent(asked: Asked) -> AsyncIterator[provider_pb2.Answer]:
    """A node that never answers."""
    pieces: list[provider_pb2.Answer] = []
    for piece in pieces:
        yield piece


async def drained(stream: AsyncIterator[object]) -> int:
    return len([each async for each in stream])


async def test_grants_are_listed_page_after_page_with_the_grantees_reference(world: World, client: AsyncClient) -> None:
    world.consent("learner-17")
    world.consent("learner-18", "Lincoln")

    views = [each async for each in client.grants()]

    assert [(each.reference, each.node_name, each.status) for each in views] == [
        ("learner-17", "Lincoln", GrantStatus.ACTIVE),
        ("learner-17", "Birch", GrantStatus.ACTIVE),
        ("learner-17", "Cedar", GrantStatus.ACTIVE),
        ("learner-18", "Lincoln", GrantStatus.ACTIVE),
    ]
    assert len({each.consent_id for each in views}) == 2


async def test_a_profile_is_assembled_from_every_school_of_the_consent(world: World, client: AsyncClient) -> None:
    world.consent("learner-17", records=3)

    profile = await client.profile("learner-17")

    assert {each.node_name for each in profile.attendance} == {"Lincoln", "Birch", "Cedar"}
    assert len(profile.attendance) == 9
    assert profile.reference == "learner-17"
    assert profile.faults == ()


async def test_every_section_that_is_not_sensitive_is_accounted_for(world: World, client: AsyncClient) -> None:
    world.consent("learner-17", "Lincoln", sections=("personal.attendance",))

    profile = await client.profile("learner-17")

    states = {each.section: each.state for each in profile.coverage}
    assert states["personal.attendance"] == Held.RETURNED
    assert states["transcript.grades"] == Held.DENIED
    assert "personal.health" not in states


async def test_a_sensitive_section_that_was_granted_is_asked_for(world: World, client: AsyncClient) -> None:
    world.consent("learner-17", "Lincoln", sections=("personal.attendance", "personal.health"))

    profile = await client.profile("learner-17")

    assert {each.section: each.state for each in profile.coverage}["personal.health"] == Held.NONE_HELD


@pytest.mark.parametrize("how", ["consent id", "consent id in text", "grant id", "views", "one view"])
async def test_consents_are_named_in_several_ways(world: World, client: AsyncClient, how: str) -> None:
    world.consent("learner-17")
    views = [each async for each in client.grants()]
    selector, schools = {
        "consent id": (views[0].consent_id, 3),
        "consent id in text": (views[0].consent_id.hex(), 3),
        "grant id": (views[0].id, 1),
        "views": (views[:2], 2),
        "one view": (views[0], 1),
    }[how]

    profile = await client.profile(selector)  # type: ignore[arg-type]  # one of several kinds

    assert len(profile.slices) == schools


async def test_a_reference_that_nobody_gave_is_refused(world: World, client: AsyncClient) -> None:
    world.consent("learner-17")

    with pytest.raises(RefusedError, match="no consent of yours is known by 'learner-99'") as caught:
        await client.profile("learner-99")

    assert caught.value.code == "GRANT_UNKNOWN"


async def test_a_reference_in_consents_of_different_persons_is_not_taken_for_one_learner(
    world: World, client: AsyncClient
) -> None:
    world.consent("learner-17", "Lincoln")
    world.consent("learner-17", "Birch", parent=SigningKey.generate())

    with pytest.raises(MalformedError, match="different persons signed"):
        await client.profile("learner-17")


async def test_a_node_that_is_unreachable_is_a_named_gap_and_no_error(
    world: World, broker: SimulatedBroker, client: AsyncClient
) -> None:
    async def unreachable(asked: Asked) -> AsyncIterator[provider_pb2.Answer]:
        yield asked.refused(Reason.UNREACHABLE)

    world.consent("learner-17")
    broker.scripts["Birch"] = unreachable

    profile = await client.profile("learner-17")

    assert {each.node_name for each in profile.gaps() if each.state == Held.UNREACHABLE} == {"Birch"}
    assert {each.node_name for each in profile.attendance} == {"Lincoln", "Cedar"}


async def test_a_refusal_in_the_middle_leaves_nothing_of_the_slice(
    world: World, broker: SimulatedBroker, client: AsyncClient
) -> None:
    async def revoked_meanwhile(asked: Asked) -> AsyncIterator[provider_pb2.Answer]:
        sealed = seal(asked, [attendance(number, text="x" * 4000) for number in range(40)], per_chunk=10)
        yield asked.piece(opening=sealed.opening, chunks=sealed.chunks[:1])
        yield asked.refused(Reason.GRANT_REVOKED)

    world.consent("learner-17", "Lincoln")
    broker.script = revoked_meanwhile

    profile = await client.profile("learner-17")

    assert profile.entries == ()
    assert {each.reason for each in profile.coverage} == {Reason.GRANT_REVOKED}


async def test_many_profiles_go_out_as_one_message(world: World, broker: SimulatedBroker, client: AsyncClient) -> None:
    references = [f"learner-{number}" for number in range(20)]
    for reference in references:
        world.consent(reference)

    profiles = [each async for each in client.profiles(references)]

    assert sorted(each.reference for each in profiles) == sorted(references)
    assert all(len(each.attendance) == 9 for each in profiles)
    assert max(broker.messages) == 60
    assert broker.streams_opened == 1


async def test_profiles_come_in_the_order_in_which_they_complete(
    world: World, broker: SimulatedBroker, client: AsyncClient
) -> None:
    slow = asyncio.Event()

    async def waits(asked: Asked) -> AsyncIterator[provider_pb2.Answer]:
        if asked.grant.id == first.id:
            await slow.wait()
        yield seal(asked).answer(asked)

    (first,) = world.consent("slow", "Lincoln")
    world.consent("fast", "Lincoln")
    broker.script = waits

    arrived = []
    async for profile in client.profiles(["slow", "fast"]):
        arrived.append(profile.reference)
        slow.set()

    assert arrived == ["fast", "slow"]


async def test_no_more_queries_are_open_than_the_broker_allows(world: World, broker: SimulatedBroker) -> None:
    at_once: list[int] = []
    running = 0

    async def counted(asked: Asked) -> AsyncIterator[provider_pb2.Answer]:
        nonlocal running
        running += 1
        at_once.append(running)
        await asyncio.sleep(0)
        running -= 1
        yield seal(asked).answer(asked)

    broker.welcome.max_open = 4
    broker.script = counted
    for number in range(30):
        world.consent(f"learner-{number}", "Lincoln")

    async with AsyncClient(**broker.trust(), keys=world.provider.keys, cert=world.provider.cert) as client:
        profiles = [each async for each in client.profiles([f"learner-{number}" for number in range(30)])]

    assert len(profiles) == 30
    assert max(at_once) <= 4


async def test_pages_are_followed_as_one_use(world: World, broker: SimulatedBroker, client: AsyncClient) -> None:
    async def paged(asked: Asked) -> AsyncIterator[provider_pb2.Answer]:
        second = bool(asked.query.payload.page)
        records = asked.records[2:] if second else asked.records[:2]
        yield seal(asked, records, next_page=b"" if second else b"page 2").answer(asked)

    world.consent("learner-17", "Lincoln", records=5)
    broker.script = paged

    profile = await client.profile("learner-17")

    assert len(profile.attendance) == 5
    assert {each.section: each.returned for each in profile.coverage}["personal.attendance"] == 5
    assert [each.payload.continues for each in broker.queries] == [b"", broker.queries[0].id]


async def test_records_are_handed_out_while_the_rest_is_on_its_way(
    world: World, broker: SimulatedBroker, client: AsyncClient
) -> None:
    seen_first = asyncio.Event()

    async def in_two(asked: Asked) -> AsyncIterator[provider_pb2.Answer]:
        sealed = seal(asked, [attendance(number, text="x" * 4000) for number in range(40)], per_chunk=10)
        yield asked.piece(opening=sealed.opening, chunks=sealed.chunks[:1])
        await seen_first.wait()
        yield asked.piece(chunks=sealed.chunks[1:], outcome=sealed.outcome(asked))

    world.consent("learner-17", "Lincoln")
    broker.script = in_two

    count = 0
    async for entry in client.records("learner-17", section="personal.attendance"):
        assert entry.node_name == "Lincoln"
        count += 1
        seen_first.set()

    assert count == 40


async def test_a_slow_reader_holds_back_the_node_and_nothing_grows(
    world: World, broker: SimulatedBroker, client: AsyncClient
) -> None:
    ahead: list[int] = []

    async def heeds_credit(asked: Asked) -> AsyncIterator[provider_pb2.Answer]:
        sealed = seal(asked, [attendance(number, text="x" * 4000) for number in range(400)], per_chunk=10)
        yield asked.piece(opening=sealed.opening)
        for chunk in sealed.chunks:
            while asked.room < len(chunk):
                asked.credit.clear()
                await asked.credit.wait()
            asked.room -= len(chunk)
            ahead.append(asked.room)
            yield asked.piece(chunks=[chunk])
        yield asked.piece(outcome=sealed.outcome(asked))

    world.consent("learner-17", "Lincoln")
    broker.script = heeds_credit

    count = 0
    async for _ in client.records("learner-17", section="personal.attendance"):
        count += 1

    assert count == 400
    assert min(ahead) >= 0


async def test_records_that_were_cut_short_are_an_error_at_the_end(
    world: World, broker: SimulatedBroker, client: AsyncClient
) -> None:
    async def cut_short(asked: Asked) -> AsyncIterator[provider_pb2.Answer]:
        sealed = seal(asked, [attendance(number, text="x" * 4000) for number in range(40)], per_chunk=10)
        yield asked.piece(opening=sealed.opening, chunks=sealed.chunks[:1])
        yield asked.refused(Reason.UNREACHABLE)

    world.consent("learner-17", "Lincoln")
    broker.script = cut_short

    stream = client.records("learner-17", section="personal.attendance")
    first = await anext(aiter(stream))
    with pytest.raises(UnavailableError):
        await drained(stream)

    assert first.node_name == "Lincoln"


async def test_a_refusal_of_records_is_an_error_with_its_code(
    world: World, broker: SimulatedBroker, client: AsyncClient
) -> None:
    async def refused(asked: Asked) -> AsyncIterator[provider_pb2.Answer]:
        yield asked.refused(Reason.GRANT_REVOKED)

    world.consent("learner-17", "Lincoln")
    broker.script = refused

    with pytest.raises(RefusedError) as caught:
        await drained(client.records("learner-17", section="personal.attendance"))

    assert caught.value.code == "GRANT_REVOKED"
    assert caught.value.remedy == Reason.GRANT_REVOKED.remedy


async def test_the_stream_of_records_tells_what_each_section_holds(world: World, client: AsyncClient) -> None:
    world.consent("learner-17", "Lincoln", sections=("personal.attendance",))

    stream = await client.record_stream("learner-17", sections=["personal.attendance", "transcript.grades"])
    entries = [each async for each in stream]

    assert len(entries) == 3
    assert {each.section: each.state for each in stream.coverage} == {
        "personal.attendance": Held.RETURNED,
        "transcript.grades": Held.DENIED,
    }


async def test_leaving_the_loop_cancels_the_query(world: World, broker: SimulatedBroker, client: AsyncClient) -> None:
    async def endless(asked: Asked) -> AsyncIterator[provider_pb2.Answer]:
        sealed = seal(asked, [attendance(number, text="x" * 4000) for number in range(40)], per_chunk=10)
        yield asked.piece(opening=sealed.opening, chunks=sealed.chunks[:1])

    world.consent("learner-17", "Lincoln")
    broker.script = endless

    stream = await client.record_stream("learner-17", sections=["personal.attendance"])
    async for _ in stream:
        break
    await stream.aclose()

    assert await broker.cancelled.get() == broker.queries[0].id


async def test_cancelling_the_task_cancels_the_query(
    world: World, broker: SimulatedBroker, client: AsyncClient
) -> None:
    world.consent("learner-17", "Lincoln")
    broker.script = silent

    task = asyncio.ensure_future(client.profile("learner-17"))
    await broker.arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await broker.cancelled.get() == broker.queries[0].id


async def test_an_answer_that_does_not_come_in_time_is_a_gap(
    world: World, broker: SimulatedBroker, client: AsyncClient
) -> None:
    world.consent("learner-17", "Lincoln")
    broker.script = silent

    profile = await client.profile("learner-17", timeout=0.05)

    assert {each.reason for each in profile.coverage} == {Reason.TIMED_OUT}
    with pytest.raises(TimedOutError):
        await drained(client.records("learner-17", section="personal.attendance", timeout=0.05))


async def test_the_days_that_are_asked_for_stand_in_the_query(
    world: World, broker: SimulatedBroker, client: AsyncClient
) -> None:
    world.consent("learner-17", "Lincoln")

    await client.profile("learner-17", records_from="2026-01-01", records_until="2026-06-30")

    asked = broker.queries[0].payload
    assert (asked.records_from, asked.records_until) == ("2026-01-01", "2026-06-30")


async def test_a_section_that_does_not_exist_is_refused_before_anything_is_asked(
    world: World, broker: SimulatedBroker, client: AsyncClient
) -> None:
    world.consent("learner-17", "Lincoln")

    with pytest.raises(MalformedError, match=r"personal\.horoscope"):
        await client.profile("learner-17", sections=["personal.horoscope"])

    assert broker.queries == []


async def test_no_query_uses_anything_of_another_again(
    world: World, broker: SimulatedBroker, client: AsyncClient
) -> None:
    world.consent("learner-17")

    await client.profile("learner-17")
    await client.profile("learner-17")

    assert len({each.payload.nonce for each in broker.queries}) == 6
    assert len({each.payload.reply_key for each in broker.queries}) == 6

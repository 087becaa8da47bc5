"""A process or connection that ends in the middle of a large answer.

Whatever ends, the requester is told what is missing and never that «none» is held; the other slice arrives; what
came back works again by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import pytest

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.client.providing import AsyncClient
from permslip.client.timeouts import Timeout
from permslip.coverage import Coverage, Held
from permslip.errors import UnavailableError
from permslip.grant_views import GrantView
from permslip.profile import Profile
from permslip.reasons import Reason
from permslip.statements import Signed
from tests.federation.cable import Cable
from tests.federation.district import SECTIONS, District
from tests.federation.school_process import SchoolProcess, until

pytestmark = pytest.mark.e2e

# So many of an answer's two million bytes pass: more than the first message, which holds what the first credit allows.
SOME = 400_000


async def views_of(client: AsyncClient, grants: Sequence[Signed[pb.Grant]]) -> list[GrantView]:
    return [view async for view in client.grants(*(each.id for each in grants))]


def said_of(coverage: Iterable[Coverage], school: SchoolProcess) -> set[tuple[Held, Reason]]:
    return {(each.state, each.reason) for each in coverage if each.node == school.root}


def is_missing(profile: Profile, school: SchoolProcess, *reasons: Reason) -> bool:
    """Nothing of it came, and every section says so."""
    none_came = not any(each.node == school.root for each in profile.entries)
    return none_came and said_of(profile.coverage, school) <= {(Held.UNREACHABLE, each) for each in reasons}


def is_whole(profile: Profile, *schools: SchoolProcess) -> bool:
    return all(
        said_of(profile.coverage, school) == {(Held.RETURNED, Reason.ALLOWED)}
        and sum(each.node == school.root for each in profile.entries) == 530
        for school in schools
    )


def own_cable(district: District) -> Cable:
    """Between the reader and the broker."""
    return Cable(district.port)


async def until_some_arrived(client: AsyncClient, query_id: bytes) -> None:
    """Wait until the first bytes of an answer are in the reader's own hands."""

    def arrived() -> bool:
        stream = client._reader._exchange._current
        return stream is not None and query_id in stream._open and stream._open[query_id]._released

    await until(arrived, "the reader has the first bytes")


async def last_query(district: District, school: SchoolProcess, grant: Signed[pb.Grant]) -> bytes:
    """The last query under a grant that the node decided."""

    def found() -> list[bytes]:
        return [each.query_id for each in school.ledger.events("access_decided", grant_id=grant.id)]

    queries: list[bytes] = await until(found, f"{school.name} decides a query")
    assert district.is_logged(queries[-1], school)
    return queries[-1]


async def test_a_killed_node_is_told_as_missing_and_answers_when_it_is_started_again(district: District) -> None:
    high, platform = district.schools
    grants = await district.consent(high, platform, max_uses=5)
    async with district.client() as client:
        views = await views_of(client, grants)
        high.cable.hold("up", after=SOME)
        asking = asyncio.ensure_future(client.profile(views, sections=SECTIONS))
        await asyncio.to_thread(high.cable.until_held)
        query = await last_query(district, high, grants[0])
        high.kill()
        high.cable.cut()
        profile = await asking
        assert is_missing(profile, high, Reason.UNREACHABLE)
        assert is_whole(profile, platform)

        before = district.attachments(high)
        high.start()
        await district.until_fit(high, attached=before)
        assert is_whole(await client.profile(views, sections=SECTIONS), high, platform)
    assert await district.endings(district.broker_ledger, query) == [Reason.UNREACHABLE.wire]
    assert [high.ledger.uses(grants[0].id), platform.ledger.uses(grants[1].id)] == [2, 2]


async def test_a_frozen_node_is_noticed_and_comes_back_by_itself(district: District) -> None:
    high, platform = district.schools
    grants = await district.consent(high, platform, max_uses=5)
    async with district.client() as client:
        views = await views_of(client, grants)
        before = district.attachments(high)
        high.cable.hold("up", after=SOME)
        asking = asyncio.ensure_future(client.profile(views, sections=SECTIONS))
        await asyncio.to_thread(high.cable.until_held)
        query = await last_query(district, high, grants[0])
        high.freeze()
        profile = await asking
        assert is_missing(profile, high, Reason.UNREACHABLE)
        assert is_whole(profile, platform)

        high.cable.release()
        high.thaw()
        await district.until_fit(high, attached=before)
        assert is_whole(await client.profile(views, sections=SECTIONS), high, platform)
    assert await district.endings(district.broker_ledger, query) == [Reason.UNREACHABLE.wire]
    assert Reason.ALLOWED.wire not in await district.endings(high.ledger, query)
    assert high.ledger.uses(grants[0].id) == 2


async def test_a_node_whose_connection_is_cut_attaches_again_and_answers(district: District) -> None:
    high, platform = district.schools
    grants = await district.consent(high, platform, max_uses=5)
    async with district.client() as client:
        views = await views_of(client, grants)
        before = district.attachments(high)
        high.cable.hold("up", after=SOME)
        asking = asyncio.ensure_future(client.profile(views, sections=SECTIONS))
        await asyncio.to_thread(high.cable.until_held)
        query = await last_query(district, high, grants[0])
        high.cable.cut()
        profile = await asking
        assert is_missing(profile, high, Reason.UNREACHABLE)
        assert is_whole(profile, platform)

        await district.until_fit(high, attached=before)
        assert is_whole(await client.profile(views, sections=SECTIONS), high, platform)
    assert await district.endings(district.broker_ledger, query) == [Reason.UNREACHABLE.wire]
    assert await district.endings(high.ledger, query) == [Reason.UNREACHABLE.wire]
    assert high.ledger.uses(grants[0].id) == 2


async def test_a_broker_that_is_killed_and_started_again_costs_the_reader_nothing(district: District) -> None:
    """The SDK asks again by itself; both attempts are one use."""
    high, platform = district.schools
    grants = [*await district.consent(high, max_uses=1), *await district.consent(platform)]
    with own_cable(district) as cable:
        async with district.client(address=cable.address) as client:
            views = await views_of(client, grants)
            before = [district.attachments(each) for each in district.schools]
            high.cable.hold("up", after=SOME)
            asking = asyncio.ensure_future(client.profile(views, sections=SECTIONS))
            await asyncio.to_thread(high.cable.until_held)
            query = await last_query(district, high, grants[0])
            await until_some_arrived(client, query)
            district.kill_broker()
            # The reader comes back last: whom it asks before the schools are back is told that they are not there.
            cable.unplug()
            high.cable.cut()
            district.start_broker()
            for school, count in zip(district.schools, before, strict=True):
                await district.until_fit(school, attached=count)
            cable.plug()
            profile = await asking
    assert is_whole(profile, high, platform), [each.error for each in profile.slices]
    assert high.ledger.uses(grants[0].id) == 1
    assert district.is_logged(query, high), "what was decided before the crash is still in the ledger"
    assert await district.endings(high.ledger, query) == [Reason.UNREACHABLE.wire]


async def test_a_frozen_broker_is_told_as_no_answer_in_time(district: District) -> None:
    high = district.high
    grants = await district.consent(high)
    async with district.client(timeout=Timeout(answer=1.0)) as client:
        views = await views_of(client, grants)
        high.cable.hold("up", after=SOME)
        asking = asyncio.ensure_future(client.profile(views, sections=SECTIONS))
        await asyncio.to_thread(high.cable.until_held)
        district.freeze_broker()
        profile = await asking
        assert is_missing(profile, high, Reason.TIMED_OUT)
        high.cable.release()
        district.thaw_broker()
        await district.until_fit(high)
        again = await client.profile(views, sections=SECTIONS, timeout=20)
    assert is_whole(again, high)


async def test_a_reader_whose_connection_is_cut_gets_the_whole_slice_all_the_same(district: District) -> None:
    high = district.high
    grants = await district.consent(high, max_uses=1)
    with own_cable(district) as cable:
        async with district.client(address=cable.address) as client:
            views = await views_of(client, grants)
            await client.organizations()
            cable.hold("down", after=SOME)
            asking = asyncio.ensure_future(client.profile(views, sections=SECTIONS))
            await asyncio.to_thread(cable.until_held)
            await until_some_arrived(client, await last_query(district, high, grants[0]))
            cable.cut()
            profile = await asking
    assert is_whole(profile, high), [each.error for each in profile.slices]
    assert high.ledger.uses(grants[0].id) == 1


@pytest.mark.parametrize("what", ["the node is killed", "the broker is killed", "the node is cut off"])
async def test_a_stream_of_records_that_breaks_off_raises_and_says_what_is_missing(
    district: District, what: str
) -> None:
    high = district.high
    grants = await district.consent(high)
    async with district.client() as client:
        views = await views_of(client, grants)
        stream = await client.record_stream(views, sections=["transcript.grades"])
        # Who does not read on gives no room: the answer stands still in its middle.
        async for _ in stream:
            break
        if what == "the node is killed":
            high.kill()
        elif what == "the broker is killed":
            district.kill_broker()
        else:
            high.cable.cut()
        with pytest.raises(UnavailableError):
            [entry async for entry in stream]
    assert said_of(stream.coverage, high) == {(Held.UNREACHABLE, Reason.UNREACHABLE)}

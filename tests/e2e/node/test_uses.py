"""Uses: each is counted once, with its pages, resumes and retries, for an hour."""

from __future__ import annotations

from functools import partial

from sqlalchemy import select

from permslip.reasons import Reason
from permslip_node import schema
from tests.e2e.node.conftest import World
from tests.e2e.node.test_answering import altered, events_of, granted, has_begun
from tests.federation.requester import Answer


def has_begun_or_ended(answer: Answer) -> bool:
    return has_begun(answer) or answer.whole.is_set()


async def test_last_use_is_given_exactly_once_to_queries_that_race_for_it(world: World) -> None:
    ada = world.school.learner("604822", grades=3)
    async with world.attached() as (running, node):
        grant = await granted(world, node, ada, max_uses=3)
        answers = node.route(*[world.query(grant) for _ in range(40)])
        for each in answers:
            await each.whole.wait()
        reasons = [each.reason for each in answers]
        assert (reasons.count(Reason.ALLOWED), reasons.count(Reason.USES_EXHAUSTED)) == (3, 37)
        with running.engine.connect() as connection:
            assert connection.execute(select(schema.use_count.c.uses)).scalar_one() == 3
        debited = [list(each.uses) for each in events_of(running, "access_decided") if each.reason == Reason.ALLOWED]
        assert sorted(debited) == [[1], [2], [3]]


async def test_retry_is_free_where_no_byte_left_and_only_once(world: World) -> None:
    world.broker.gives_credit = False
    world.broker.first_credit = 0
    ada = world.school.learner("604822", grades=1_000, text="x" * 1_000)
    async with world.attached() as (running, node):
        grant = await granted(world, node, ada, max_uses=1)
        lost = world.query(grant)
        answer = await node.ask(lost, deadline=300)
        assert (answer.reason, answer.sealed_bytes) == (Reason.TIMED_OUT, 0)
        await world.broker.until(lambda: events_of(running, "access_answered"))

        retry = altered(world, world.query(grant), retry_of=lost.id)
        [answer] = node.route(retry)
        node.credit(retry.id, 1 << 30)
        await answer.whole.wait()
        assert answer.reason == Reason.ALLOWED
        for second in (altered(world, world.query(grant), retry_of=lost.id), world.query(grant)):
            assert (await node.ask(second)).reason == Reason.USES_EXHAUSTED


async def test_retry_costs_a_use_where_a_byte_left(world: World) -> None:
    world.broker.gives_credit = False
    ada = world.school.learner("604822", grades=1_000, text="x" * 1_000)
    async with world.attached() as (running, node):
        grant = await granted(world, node, ada, max_uses=1)
        lost = world.query(grant)
        answer = await node.ask(lost, deadline=300)
        assert answer.reason == Reason.TIMED_OUT
        assert answer.sealed_bytes > 0
        await world.broker.until(lambda: events_of(running, "access_answered"))
        retry = altered(world, world.query(grant), retry_of=lost.id)
        assert (await node.ask(retry)).reason == Reason.USES_EXHAUSTED


async def test_broken_off_answer_is_continued_within_the_same_use(world: World) -> None:
    world.broker.gives_credit = False
    ada = world.school.learner("604822", grades=1_000, text="x" * 1_000)
    async with world.attached() as (running, node):
        grant = await granted(world, node, ada, max_uses=1)
        first = world.query(grant)
        [answer] = node.route(first)
        await world.broker.until(lambda: answer.sealed_bytes >= world.broker.first_credit)
        node.cancel(first.id)
        await answer.whole.wait()
        await world.broker.until(lambda: events_of(running, "access_answered"))

        resumed = altered(world, world.query(grant), continues=first.id)
        [answer] = node.route(resumed)
        node.credit(resumed.id, 1 << 30)
        await answer.whole.wait()
        assert answer.reason == Reason.ALLOWED
        # It is whole now: there is nothing left to continue, and no use left.
        again = altered(world, world.query(grant), continues=resumed.id)
        assert (await node.ask(again)).reason == Reason.USES_EXHAUSTED


async def test_answer_that_broke_off_a_moment_ago_is_continued_within_the_same_use(world: World) -> None:
    world.broker.gives_credit = False
    ada = world.school.learner("604822", grades=1_000, text="x" * 1_000)
    async with world.attached() as (_, node):
        grant = await granted(world, node, ada, max_uses=1)
        first = world.query(grant)
        [answer] = node.route(first)
        await world.broker.until(lambda: answer.sealed_bytes > 0)
        # Nobody told the node that it broke off.
        resumed = altered(world, world.query(grant), continues=first.id)
        [answer] = node.route(resumed)
        node.credit(resumed.id, 1 << 30)
        await answer.whole.wait()
        assert answer.reason == Reason.ALLOWED


async def test_answer_that_is_whole_is_not_continued_for_free_however_fast(world: World) -> None:
    ada = world.school.learner("604822", grades=3)
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822")
        for _ in range(20):
            grant = await granted(world, node, ada, max_uses=1, mother=mother)
            first = world.query(grant)
            assert (await node.ask(first)).reason == Reason.ALLOWED
            again = altered(world, world.query(grant), continues=first.id)
            assert (await node.ask(again)).reason == Reason.USES_EXHAUSTED


async def test_resuming_again_and_again_ends_with_the_hour_of_the_first_byte(world: World) -> None:
    ada = world.school.learner("604822", grades=1_000, text="x" * 1_000)
    world.broker.gives_credit = False
    async with world.attached() as (_, node):
        grant = await granted(world, node, ada, max_uses=1)
        asked = world.query(grant)
        for minutes in (0, 40, 80):
            if minutes:
                world.clock.offset = minutes * 60_000
                asked = altered(world, world.query(grant), continues=asked.id)
            [answer] = node.route(asked)
            await world.broker.until(partial(has_begun_or_ended, answer))
            node.cancel(asked.id)
            await answer.whole.wait()
            assert answer.reason == (Reason.CANCELLED if minutes < 60 else Reason.USES_EXHAUSTED)


async def test_retry_of_a_resumption_is_no_use_of_its_own_once_the_hour_is_over(world: World) -> None:
    ada = world.school.learner("604822", grades=1_000, text="x" * 1_000)
    world.broker.gives_credit = False
    async with world.attached() as (running, node):
        grant = await granted(world, node, ada, max_uses=1)
        first = world.query(grant)
        [answer] = node.route(first)
        await world.broker.until(lambda: answer.sealed_bytes > 0)
        node.cancel(first.id)
        await answer.whole.wait()
        # Of this one not a byte leaves.
        resumed = altered(world, world.query(grant), continues=first.id)
        node.cancel(resumed.id)
        assert (await node.ask(resumed)).reason == Reason.CANCELLED
        await world.broker.until(lambda: len(events_of(running, "access_answered")) == 2)
        world.clock.offset = 2 * 3_600_000
        retry = altered(world, world.query(grant), retry_of=resumed.id)
        assert (await node.ask(retry, deadline=500)).reason == Reason.USES_EXHAUSTED

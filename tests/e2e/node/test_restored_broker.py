"""A broker whose database was put back to an earlier state: no node answers anybody on its word."""

from __future__ import annotations

from typing import Any

import pytest

from permslip import statements as st
from permslip._pb.permslip.v1 import node_pb2, statement_pb2 as pb
from permslip.reasons import Reason
from permslip.statements import Signed
from tests.e2e.node.conftest import FEDERATION, World
from tests.federation.principals import Organization, admit


async def granted(world: World, handle: Any) -> Signed[pb.Grant]:
    """A grant that opens something."""
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822")
        grant = world.grant(mother, handle=handle)
        await node.endorse(grant)
        assert (await node.ask(world.query(grant))).reason == Reason.ALLOWED
    return grant


async def leases(world: World, count: int = 2) -> None:
    """So many more lease requests came: what they were answered with before the last one was heard."""
    seen = len(world.broker.leases)
    await world.broker.until(lambda: len(world.broker.leases) > seen + count)


async def stays_silent(world: World, grant: Signed[pb.Grant]) -> bool:
    """Whether the node, on whatever stream it has by now, answers nobody."""
    await leases(world)
    stream = world.broker.streams[-1]
    [asked] = stream.route(world.query(grant))
    await world.broker.until(lambda: asked.whole.is_set() or stream.ended.is_set())
    return not asked.whole.is_set() or asked.reason == Reason.NO_LEASE


def admission(world: World) -> Signed[pb.Admission]:
    someone = Organization.new("Someone", pb.PRINCIPAL_KIND_PROVIDER, FEDERATION, now=world.clock())
    return admit(world.operator, someone, now=world.clock())


async def test_ledger_that_is_smaller_than_it_was_makes_no_lease_also_after_a_restart(world: World) -> None:
    grant = await granted(world, world.school.learner("604822", grades=1))
    size, world.broker.recorded = world.broker.recorded, world.broker.recorded - 2
    async with world.school.running():
        assert await stays_silent(world, grant)
        world.broker.recorded = size
        await leases(world)
        assert (await world.broker.streams[-1].ask(world.query(grant))).reason == Reason.ALLOWED


async def test_ledger_that_is_smaller_than_an_earlier_stream_s_ticks_said_makes_no_lease(world: World) -> None:
    ada = world.school.learner("604822", grades=1)
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822")
        grant = world.grant(mother, handle=ada)
        await node.endorse(grant)
        world.broker.recorded += 1_000
        await leases(world)
        world.broker.recorded -= 500
        node.end()
        await world.broker.attached(2)
        assert await stays_silent(world, grant)


@pytest.mark.parametrize("again", ["another statement", "another position"])
async def test_push_whose_number_was_given_anew_is_found_out(world: World, again: str) -> None:
    grant = await granted(world, world.school.learner("604822", grades=1))
    held = len(world.broker.pushes)
    last = world.broker.pushes.pop()
    statement = admission(world).envelope if again == "another statement" else last.statement
    position = last.position if again == "another statement" else last.position - 1
    world.broker.pushes.append(node_pb2.Push(number=held, position=position, statement=statement))
    # It has caught up since: the counts alone tell nothing.
    world.broker.push(admission(world))
    world.broker.recorded += 50
    dials = world.broker.dials
    async with world.school.running() as node:
        await world.broker.dialled(dials + 4)
        assert not node.fit.is_set()
        assert node.pushes.held(world.broker.organization.root) == held
        world.broker.pushes[held - 1] = last
        await world.broker.until(lambda: node.pushes.held(world.broker.organization.root) == held + 1)
        await world.broker.fresh()
        assert (await world.broker.streams[-1].ask(world.query(grant))).reason == Reason.ALLOWED


async def test_push_that_is_held_and_does_not_come_again_makes_no_lease(world: World) -> None:
    grant = await granted(world, world.school.learner("604822", grades=1))
    world.broker.withheld.add(len(world.broker.pushes))
    async with world.school.running():
        assert await stays_silent(world, grant)


async def test_broker_that_counts_fewer_pushes_than_are_held_makes_no_lease(world: World) -> None:
    grant = await granted(world, world.school.learner("604822", grades=1))
    world.broker.pushes.pop()
    async with world.school.running():
        assert await stays_silent(world, grant)


async def test_node_whose_own_database_is_older_takes_what_it_missed(world: World) -> None:
    ada = world.school.learner("604822", grades=1)
    async with world.attached() as (running, node):
        mother = await world.school.link(node, "604822")
        grant = world.grant(mother, handle=ada)
        await node.endorse(grant)
        held = running.pushes.held(world.broker.organization.root)
    for _ in range(3):
        world.broker.push(admission(world))
    async with world.attached() as (running, node):
        assert running.pushes.held(world.broker.organization.root) == held + 3
        assert (await node.ask(world.query(grant))).reason == Reason.ALLOWED
    assert {st.KINDS[each.statement.payload_type] for each in world.broker.pushes[-3:]} == {st.ADMISSION}

"""A node whose online key was exchanged: what had not gone up under the earlier key goes up under the new one."""

from __future__ import annotations

from permslip._pb.permslip.v1 import statement_pb2 as pb
from tests.e2e.node.conftest import FEDERATION, World
from tests.federation.consents import make_revocation


def signers(world: World) -> set[bytes]:
    """The keys of this node under which anything came."""
    own = world.school.root
    return {each.payload.signer.key for each in world.broker.statements if each.payload.signer.root == own}


async def test_acknowledgement_that_had_not_gone_up_before_a_rotation_goes_up_under_the_new_key(world: World) -> None:
    ada = world.school.learner("604822", grades=1)
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822")
        grant = world.grant(mother, handle=ada)
        await node.endorse(grant)
    world.broker.statements.clear()
    revocation = make_revocation(mother, grant.id, world.school.root, federation=FEDERATION, now=world.clock())
    async with world.school.office() as office:
        _, done = await office.revoke(revocation.envelope)

    world.school = world.school.rotated()
    async with world.attached():
        acknowledgement = await world.broker.acknowledgement_of(revocation.id)
        await world.broker.fresh()

    assert acknowledgement.payload.signer == world.school.organization.signer
    assert acknowledgement.payload.ledger_size == done.position
    assert signers(world) == {world.school.organization.key.public.raw}
    ids = [each.id for each in world.broker.statements]
    assert ids.index(revocation.id) < ids.index(acknowledgement.id), "what it acknowledges comes first"


async def test_end_of_an_endorsement_that_had_not_gone_up_before_a_rotation_goes_up_under_the_new_key(
    world: World,
) -> None:
    ada = world.school.learner("604822", grades=1)
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822")
        grant = world.grant(mother, handle=ada)
        before = await node.endorse(grant)
    world.broker.statements.clear()
    async with world.school.office() as office:
        await office.suspend("604822", "P1")

    world.school = world.school.rotated()
    async with world.attached() as (running, _):
        await world.broker.until(lambda: world.broker.endorsements_of(grant.id))
        await world.broker.until(lambda: not running.recording.unconfirmed(world.broker.organization.root))

    [ended] = world.broker.endorsements_of(grant.id)
    assert ended.payload.verdict == pb.ENDORSEMENT_VERDICT_SUSPENDED
    assert ended.payload.signer == world.school.organization.signer
    assert ended.payload.created_at > before.created_at
    assert signers(world) == {world.school.organization.key.public.raw}


async def test_what_was_confirmed_before_a_rotation_is_not_said_again(world: World) -> None:
    ada = world.school.learner("604822", grades=1)
    async with world.attached() as (running, node):
        mother = await world.school.link(node, "604822")
        await node.endorse(world.grant(mother, handle=ada))
        await world.broker.until(lambda: not running.recording.unconfirmed(world.broker.organization.root))
    world.broker.statements.clear()

    world.school = world.school.rotated()
    async with world.attached():
        await world.broker.fresh()

    assert world.broker.statements == []


async def test_endorsement_that_is_asked_for_after_a_rotation_is_made_with_the_new_key(world: World) -> None:
    ada = world.school.learner("604822", grades=1)
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822")
        grant = world.grant(mother, handle=ada)
        before = await node.endorse(grant)

    world.school = world.school.rotated()
    async with world.attached() as (_, node):
        again = await node.endorse(grant)
        third = await node.endorse(grant)

    assert again.signer == world.school.organization.signer
    assert again.verdict == pb.ENDORSEMENT_VERDICT_ENDORSED
    assert again.created_at > before.created_at
    assert third == again, "one by the current key is not made twice"

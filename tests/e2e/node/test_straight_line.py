"""Link, endorse, answer, revoke: the node's part of the straight line, over real sockets and SQLite."""

from __future__ import annotations

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.reasons import Reason
from tests.e2e.node.conftest import FEDERATION, World
from tests.federation.consents import make_revocation
from tests.federation.school import GRADES


async def test_linked_parent_grants_the_tutor_reads_and_the_parent_revokes(world: World) -> None:
    ada = world.school.learner("604822", grades=50)
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822")
        grant = world.grant(mother, handle=ada)
        endorsement = await node.endorse(grant)
        assert endorsement.verdict == pb.ENDORSEMENT_VERDICT_ENDORSED

        asked = world.query(grant)
        answer = await node.ask(asked)
        assert answer.reason == Reason.ALLOWED
        records = answer.records(asked, node=world.school.root)
        assert len(records) == 50
        assert {each.section for each in records} == {GRADES}

        revocation = make_revocation(mother, grant.id, world.school.root, federation=FEDERATION, now=world.clock())
        world.broker.push(revocation, chain=[grant])
        acknowledgement = await world.broker.acknowledgement_of(revocation.id)
        assert acknowledgement.payload.target_id == grant.id
        assert (await node.ask(world.query(grant))).reason == Reason.GRANT_REVOKED

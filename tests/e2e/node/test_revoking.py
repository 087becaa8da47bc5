"""Revocation at the node: immediate, measured, irreversible; brought by the broker or by hand."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from permslip import statements as st
from permslip._pb.permslip.v1 import node_pb2, statement_pb2 as pb
from permslip.armor import write_statements
from permslip.errors import AuthorityError
from permslip.reasons import Reason
from permslip.statements import Signed
from tests.e2e.node.conftest import FEDERATION, World
from tests.federation.consents import make_delegation, make_revocation
from tests.federation.principals import Organization, Person, admit, suspend
from tests.federation.school import GRADES
from tests.federation.simulated_broker import AttachedNode


def revoked_by(world: World, who: Any, target: bytes, **changes: Any) -> Signed[pb.Revocation]:
    return make_revocation(who, target, world.school.root, federation=FEDERATION, now=world.clock(), **changes)


def frames_after_acknowledgement(node: AttachedNode, query_id: bytes) -> list[node_pb2.NodeFrame]:
    """What of an answer the node sent behind its acknowledgement."""
    kinds = [
        frame.WhichOneof("frame") == "statement" and frame.statement.payload_type == st.ACKNOWLEDGEMENT.payload_type
        for frame in node.order
    ]
    return [
        frame
        for frame in node.order[kinds.index(True) :]
        if frame.WhichOneof("frame") == "answer" and frame.answer.query_id == query_id and frame.answer.chunks
    ]


async def test_no_byte_leaves_after_the_acknowledgement_while_an_answer_streams(world: World) -> None:
    ada = world.school.learner("604822", grades=4_000, text="x" * 1_000)
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822")
        grant = world.grant(mother, handle=ada)
        await node.endorse(grant)
        asked = world.query(grant)
        [answer] = node.route(asked)
        await world.broker.until(lambda: answer.sealed_bytes > 500_000)
        assert not answer.whole.is_set()

        revocation = revoked_by(world, mother, grant.id)
        world.broker.push(revocation, chain=[grant])
        await world.broker.acknowledgement_of(revocation.id)
        await answer.whole.wait()

        assert answer.reason == Reason.GRANT_REVOKED
        assert answer.sealed_bytes < 4_000_000
        assert frames_after_acknowledgement(node, asked.id) == []


async def test_answer_that_waits_for_credit_is_cut_off_by_a_revocation(world: World) -> None:
    world.broker.gives_credit = False
    ada = world.school.learner("604822", grades=1_000, text="x" * 1_000)
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822")
        grant = world.grant(mother, handle=ada)
        await node.endorse(grant)
        asked = world.query(grant)
        [answer] = node.route(asked)
        await world.broker.until(lambda: answer.sealed_bytes >= world.broker.first_credit)
        revocation = revoked_by(world, mother, grant.id)
        world.broker.push(revocation, chain=[grant])
        await world.broker.acknowledgement_of(revocation.id)
        await answer.whole.wait()
        node.credit(asked.id, 1 << 30)
        assert (await node.ask(world.query(grant))).reason == Reason.GRANT_REVOKED
        assert answer.reason == Reason.GRANT_REVOKED
        assert frames_after_acknowledgement(node, asked.id) == []


async def test_guardian_who_did_not_sign_may_revoke_and_her_revocation_binds_the_other(world: World) -> None:
    ada = world.school.learner("604822", grades=1, guardians=["P1", "P2"])
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822", "P1")
        grant = world.grant(mother, handle=ada)
        await node.endorse(grant)
        # He links later: the endorsement is renewed so that he may revoke.
        before = len(world.broker.endorsements_of(grant.id))
        father = await world.school.link(node, "604822", "P2")
        await world.broker.until(lambda: len(world.broker.endorsements_of(grant.id)) > before)

        revocation = revoked_by(world, father, grant.id)
        world.broker.push(revocation, chain=[grant])
        await world.broker.acknowledgement_of(revocation.id)

        again = await node.endorse(world.grant(mother, handle=ada))
        assert again.verdict == pb.ENDORSEMENT_VERDICT_REVOKED_BEFORE
        both = await node.endorse(world.grant(mother, father, handle=ada))
        assert both.verdict == pb.ENDORSEMENT_VERDICT_ENDORSED


async def test_who_revoked_and_grants_anew_herself_binds_the_other_no_longer(world: World) -> None:
    ada = world.school.learner("604822", guardians=["P1", "P2"])
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822", "P1")
        father = await world.school.link(node, "604822", "P2")
        grant, signed_before = world.grant(father, handle=ada), world.grant(father, handle=ada)
        await node.endorse(grant)
        revocation = revoked_by(world, father, grant.id)
        world.broker.push(revocation, chain=[grant])
        await world.broker.acknowledgement_of(revocation.id)

        # What he signed before he changed his mind says nothing of what he thinks now.
        assert (await node.endorse(signed_before)).verdict == pb.ENDORSEMENT_VERDICT_ENDORSED
        alone = await node.endorse(world.grant(mother, handle=ada))
        assert alone.verdict == pb.ENDORSEMENT_VERDICT_REVOKED_BEFORE

        assert (await node.endorse(world.grant(father, handle=ada))).verdict == pb.ENDORSEMENT_VERDICT_ENDORSED
        assert (await node.endorse(world.grant(mother, handle=ada))).verdict == pb.ENDORSEMENT_VERDICT_ENDORSED


async def test_grant_that_was_revoked_before_the_node_ever_saw_it_is_dead_when_it_comes(world: World) -> None:
    ada = world.school.learner("604822", grades=1)
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822")
        grant = world.grant(mother, handle=ada)
        revocation = revoked_by(world, mother, grant.id)
        world.broker.push(revocation, chain=[grant])
        await world.broker.acknowledgement_of(revocation.id)
        await node.endorse(grant)
        assert (await node.ask(world.query(grant))).reason == Reason.GRANT_REVOKED


async def test_grantee_gives_a_consent_back(world: World) -> None:
    ada = world.school.learner("604822", grades=1)
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822")
        grant = world.grant(mother, handle=ada)
        await node.endorse(grant)
        revocation = revoked_by(world, world.tutor, grant.id, role=pb.REVOKER_ROLE_GRANTEE)
        world.broker.push(revocation, chain=[grant])
        await world.broker.acknowledgement_of(revocation.id)
        assert (await node.ask(world.query(grant))).reason == Reason.GRANT_REVOKED
        # What the grantee gave back is no guardian's veto.
        again = await node.endorse(world.grant(mother, handle=ada))
        assert again.verdict == pb.ENDORSEMENT_VERDICT_ENDORSED


async def test_delegation_is_pushed_used_and_revoked_by_its_giver(world: World) -> None:
    helper = Organization.new("Helper", pb.PRINCIPAL_KIND_PROVIDER, FEDERATION, now=world.clock())
    ada = world.school.learner("604822", grades=3)
    async with world.attached() as (_, node):
        for each in (admit(world.operator, helper, now=world.clock()), helper.cert):
            world.broker.push(each)
        mother = await world.school.link(node, "604822")
        grant = world.grant(mother, handle=ada, depth=1, onward=[helper.root])
        await node.endorse(grant)
        delegation = make_delegation(world.tutor, grant, helper.root, [GRADES], now=world.clock())
        world.broker.push(delegation, chain=[grant])
        await world.broker.fresh()

        asked = world.query(grant, requester=helper, delegations=[delegation.id])
        answer = await node.ask(asked)
        assert len(answer.records(asked, node=world.school.root)) == 3

        revocation = revoked_by(world, world.tutor, delegation.id, role=pb.REVOKER_ROLE_DELEGATOR)
        world.broker.push(revocation, chain=[grant, delegation])
        await world.broker.acknowledgement_of(revocation.id)
        refused = await node.ask(world.query(grant, requester=helper, delegations=[delegation.id]))
        assert refused.reason == Reason.DELEGATION_REVOKED
        assert (await node.ask(world.query(grant))).reason == Reason.ALLOWED


async def test_suspension_of_the_requester_cuts_its_open_answers(world: World) -> None:
    world.broker.gives_credit = False
    ada = world.school.learner("604822", grades=1_000, text="x" * 1_000)
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822")
        grant = world.grant(mother, handle=ada)
        await node.endorse(grant)
        [answer] = node.route(world.query(grant))
        await world.broker.until(lambda: answer.sealed_bytes >= world.broker.first_credit)
        world.broker.push(suspend(world.operator, world.tutor, now=world.clock()))
        await answer.whole.wait()
        assert answer.reason == Reason.REQUESTER_SUSPENDED
        assert (await node.ask(world.query(grant))).reason == Reason.REQUESTER_SUSPENDED


# ------------------------------------------------------------------------------------------------- by hand


async def test_revocation_brought_by_hand_stops_an_open_answer_of_the_running_node(world: World) -> None:
    world.broker.gives_credit = False
    ada = world.school.learner("604822", grades=1_000, text="x" * 1_000)
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822")
        grant = world.grant(mother, handle=ada)
        await node.endorse(grant)
        asked = world.query(grant)
        [answer] = node.route(asked)
        await world.broker.until(lambda: answer.sealed_bytes >= world.broker.first_credit)

        revocation = revoked_by(world, mother, grant.id)
        async with world.school.office() as office:
            acknowledgement, done = await office.revoke(revocation.envelope)
            assert await office.noticed(done, patience=20)
        assert acknowledgement.payload.statement_id == revocation.id

        await answer.whole.wait()
        assert answer.reason == Reason.GRANT_REVOKED
        await world.broker.acknowledgement_of(revocation.id)
        assert revocation.id in {each.id for each in world.broker.statements}
        assert frames_after_acknowledgement(node, asked.id) == []


async def test_revocation_brought_by_hand_while_the_broker_is_gone_goes_up_when_it_is_back(world: World) -> None:
    ada = world.school.learner("604822", grades=1)
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822")
        grant = world.grant(mother, handle=ada)
        await node.endorse(grant)
    revocation = revoked_by(world, mother, grant.id)
    async with world.school.office() as office:
        _, done = await office.revoke(revocation.envelope)
        assert await office.noticed(done, patience=1)
    assert revocation.id not in {each.id for each in world.broker.statements}

    async with world.attached() as (_, node):
        acknowledgement = await world.broker.acknowledgement_of(revocation.id)
        assert acknowledgement.payload.ledger_size == done.position
        assert (await node.ask(world.query(grant))).reason == Reason.GRANT_REVOKED
        # The broker, which now knows it, pushes it back: it is held already.
        world.broker.push(revocation, chain=[grant])
        await world.broker.fresh()
        assert (await node.ask(world.query(grant))).reason == Reason.GRANT_REVOKED


async def test_permslip_node_revoke_is_a_command_that_works_while_the_node_runs(world: World, tmp_path: Any) -> None:
    ada = world.school.learner("604822", grades=1)
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822")
        grant = world.grant(mother, handle=ada)
        await node.endorse(grant)
        revocation = revoked_by(world, mother, grant.id)
        write_statements(tmp_path / "revocation.txt", [revocation.envelope])
        config = world.school.write_config(tmp_path)
        command = world.school.command("revoke", str(tmp_path / "revocation.txt"), "--config", str(config), "--json")
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        printed, _ = await process.communicate()
        assert process.returncode == 0, printed
        assert revocation.id.hex().encode() in printed
        await world.broker.acknowledgement_of(revocation.id)
        assert (await node.ask(world.query(grant))).reason == Reason.GRANT_REVOKED


async def test_revocation_by_a_stranger_is_refused_at_the_desk(world: World) -> None:
    ada = world.school.learner("604822", grades=1)
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822")
        grant = world.grant(mother, handle=ada)
        await node.endorse(grant)
        async with world.school.office() as office:
            with pytest.raises(AuthorityError, match="no right to revoke"):
                await office.revoke(revoked_by(world, Person.new(), grant.id).envelope)
        assert (await node.ask(world.query(grant))).reason == Reason.ALLOWED


async def test_grant_that_comes_with_its_revocation_and_for_endorsement_at_once_breaks_no_stream(world: World) -> None:
    ada = world.school.learner("604822", grades=1)
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822")
        old = world.grant(mother, handle=ada)
        await node.endorse(old)
        new = world.grant(mother, handle=ada, supersedes=[old.id])
        revocation = revoked_by(world, mother, new.id)
        world.broker.push(revocation, chain=[new])
        word = await node.endorse(new)
        await world.broker.acknowledgement_of(revocation.id)

        # A dead grant takes no other's place.
        assert (await node.ask(world.query(old))).reason == Reason.ALLOWED
        assert (await node.ask(world.query(new))).reason == Reason.GRANT_REVOKED
        assert word.verdict != pb.ENDORSEMENT_VERDICT_ENDORSED
        assert len(world.broker.streams) == 1

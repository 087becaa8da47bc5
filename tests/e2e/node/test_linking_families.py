"""Linking at the node: by slip, once, for one key; and what families' authority does to their consents."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from sqlalchemy import select

from permslip._pb.permslip.v1 import ledger_pb2, node_pb2, statement_pb2 as pb
from permslip.hosting.leaves import decode_leaf
from permslip.keyfile import PrincipalKind, StoredKeys
from permslip.linking import PendingLink, make_link_request
from permslip.reasons import Reason
from permslip.slip import Slip
from permslip_node import schema
from permslip_node.app import RunningNode
from tests.e2e.node.conftest import FEDERATION, World
from tests.federation.principals import DAY, Person
from tests.federation.simulated_broker import AttachedNode


def request_by(world: World, slip: Slip, who: Person) -> tuple[bytes, PendingLink]:
    keys = StoredKeys(PrincipalKind.GUARDIAN, who.key, who.sealing)
    cert = world.school.organization.cert.envelope
    return make_link_request(slip, FEDERATION, keys, cert, world.clock())


async def linked(world: World, node: AttachedNode, slip: Slip, who: Person) -> node_pb2.LinkResult:
    return await node.link(request_by(world, slip, who)[0])


def was_refused(result: node_pb2.LinkResult) -> bool:
    assert result.HasField("refusal") != bool(result.sealed_response)
    if result.HasField("refusal"):
        assert Reason(result.refusal.code) is Reason.LINK_REFUSED
        assert result.refusal.message == Reason.LINK_REFUSED.meaning
    return result.HasField("refusal")


def changes_of(node: RunningNode) -> list[int]:
    entries = [decode_leaf(leaf.leaf) for leaf in node.ledger.leaves(0, node.ledger.size) if leaf.leaf]
    return [each.authority_changed.change for each in entries if each.WhichOneof("event") == "authority_changed"]


async def test_guardian_learns_handle_name_and_rule_and_nothing_of_it_is_in_the_ledger(world: World) -> None:
    ada = world.school.learner("604822", guardians=["P1", "P2"])
    async with world.attached() as (running, node):
        mother = Person.new()
        sealed, pending = request_by(world, world.school.slip("604822").slip, mother)
        result = await node.link(sealed)
        card = pending.open_response(result.sealed_response).payload
        assert (card.slice.handle, card.learner_name, card.node_name) == (ada, "Learner 604822", "Grand Bend High")
        assert (card.quorum_rule, card.other_guardians, card.relationship) == ("any", 1, "Mother")
        assert changes_of(running) == [ledger_pb2.AUTHORITY_CHANGE_LINKED]
        for leaf in running.ledger.leaves(0, running.ledger.size):
            assert mother.public not in (leaf.leaf or b"")
            assert b"604822" not in (leaf.leaf or b"")


async def test_lost_answer_is_had_again_by_the_same_request_and_by_a_new_one(world: World) -> None:
    world.school.learner("604822")
    async with world.attached() as (running, node):
        slip, mother = world.school.slip("604822").slip, Person.new()
        sealed, pending = request_by(world, slip, mother)
        for _ in range(2):
            pending.open_response((await node.link(sealed)).sealed_response)
        again, pending = request_by(world, slip, mother)
        pending.open_response((await node.link(again)).sealed_response)
        assert changes_of(running) == [ledger_pb2.AUTHORITY_CHANGE_LINKED]


async def test_used_slip_links_no_other_key(world: World) -> None:
    world.school.learner("604822")
    async with world.attached() as (_, node):
        slip = world.school.slip("604822").slip
        assert not was_refused(await linked(world, node, slip, Person.new()))
        assert was_refused(await linked(world, node, slip, Person.new()))


async def test_of_two_phones_that_race_for_one_slip_one_is_linked(world: World) -> None:
    world.school.learner("604822")
    async with world.attached() as (_, node):
        slip = world.school.slip("604822").slip
        results = await asyncio.gather(*(linked(world, node, slip, Person.new()) for _ in range(4)))
        assert sorted(map(was_refused, results)) == [False, True, True, True]


async def test_five_wrong_secrets_and_the_slip_is_dead(world: World) -> None:
    world.school.learner("604822")
    async with world.attached() as (_, node):
        slip = world.school.slip("604822").slip
        wrong = replace(slip, secret=bytes(10))
        for _ in range(5):
            assert was_refused(await linked(world, node, wrong, Person.new()))
        assert was_refused(await linked(world, node, slip, Person.new()))


async def test_four_wrong_secrets_leave_one_try(world: World) -> None:
    world.school.learner("604822")
    async with world.attached() as (_, node):
        slip = world.school.slip("604822").slip
        for _ in range(4):
            assert was_refused(await linked(world, node, replace(slip, secret=bytes(10)), Person.new()))
        assert not was_refused(await linked(world, node, slip, Person.new()))


async def test_unknown_selector_expired_and_voided_slips_and_rubbish_all_look_the_same(world: World) -> None:
    world.school.learner("604822", guardians=["P1", "P2"])
    async with world.attached() as (running, node):
        first = world.school.slip("604822").slip
        second = world.school.slip("604822").slip  # printing it voids the first
        assert was_refused(await linked(world, node, first, Person.new()))
        assert was_refused(await linked(world, node, replace(second, selector=b"whatever"), Person.new()))
        assert was_refused(await node.link(b"rubbish"))
        world.clock.offset = 14 * DAY
        assert was_refused(await linked(world, node, second, Person.new()))
        assert running.slips.erase_ended() >= 1
        with running.engine.connect() as connection:
            assert connection.execute(select(schema.slip.c.secret)).scalars().all() == [None, None]


async def test_new_phone_retires_the_old_key_and_keeps_what_it_signed(world: World) -> None:
    ada = world.school.learner("604822", grades=1)
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822")
        grant = world.grant(mother, handle=ada)
        await node.endorse(grant)
        with_new_phone = await world.school.link(node, "604822")

        assert (await node.ask(world.query(grant))).reason == Reason.ALLOWED
        refused = await node.endorse(world.grant(mother, handle=ada))
        assert refused.verdict == pb.ENDORSEMENT_VERDICT_NO_AUTHORITY
        endorsed = await node.endorse(world.grant(with_new_phone, handle=ada))
        assert endorsed.verdict == pb.ENDORSEMENT_VERDICT_ENDORSED


async def test_suspended_guardian_cannot_use_a_slip_that_was_printed_before(world: World) -> None:
    world.school.learner("604822")
    async with world.attached() as (_, node):
        slip = world.school.slip("604822").slip
        async with world.school.office() as office:
            assert await office.noticed(await office.suspend("604822", "P1"), patience=20)
        assert was_refused(await linked(world, node, slip, Person.new()))


async def test_learner_links_her_own_key_and_reads_under_a_grant_for_herself(world: World) -> None:
    ada = world.school.learner("604822", grades=2)
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822")
        learner = await world.school.link(node, "604822", "self")
        grant = world.grant(mother, handle=ada, grantee=learner.public, purpose=pb.PURPOSE_SELF)
        assert (await node.endorse(grant)).verdict == pb.ENDORSEMENT_VERDICT_ENDORSED
        asked = world.query(grant, requester=learner)
        assert len((await node.ask(asked)).records(asked, node=world.school.root)) == 2


# ------------------------------------------------------------------------------------------- endorsements


async def test_call_for_an_unknown_handle_is_refused_and_leaves_no_trace(world: World) -> None:
    world.school.learner("604822")
    async with world.attached() as (running, node):
        mother = await world.school.link(node, "604822")
        size = running.ledger.size
        refused = await node.endorse(world.grant(mother, handle=b"?" * 16))  # type: ignore[arg-type]  # nobody's
        assert refused.verdict == pb.ENDORSEMENT_VERDICT_UNKNOWN_HANDLE
        assert running.ledger.size == size


async def test_stranger_cannot_consent(world: World) -> None:
    ada = world.school.learner("604822")
    async with world.attached() as (_, node):
        grant = world.grant(Person.new(), handle=ada)
        assert (await node.endorse(grant)).verdict == pb.ENDORSEMENT_VERDICT_NO_AUTHORITY
        assert (await node.ask(world.query(grant))).reason == Reason.ENDORSEMENT_REFUSED


async def test_all_guardians_must_sign_where_the_rule_says_so(world: World) -> None:
    world.school = replace(world.school, settings=replace(world.school.settings, quorum="all"))
    ada = world.school.learner("604822", guardians=["P1", "P2"])
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822", "P1")
        alone = await node.endorse(world.grant(mother, handle=ada))
        assert alone.verdict == pb.ENDORSEMENT_VERDICT_QUORUM_NOT_MET
        father = await world.school.link(node, "604822", "P2")
        both = await node.endorse(world.grant(mother, father, handle=ada))
        assert (both.verdict, both.quorum_rule) == (pb.ENDORSEMENT_VERDICT_ENDORSED, "all")


async def test_asked_again_the_node_says_the_same_and_records_nothing(world: World) -> None:
    ada = world.school.learner("604822")
    async with world.attached() as (running, node):
        mother = await world.school.link(node, "604822")
        grant = world.grant(mother, handle=ada)
        first = await node.endorse(grant)
        size = running.ledger.size
        assert await node.endorse(grant) == first
        assert running.ledger.size == size


async def test_suspension_ends_what_she_alone_signed_and_cuts_its_open_answers(world: World) -> None:
    world.broker.gives_credit = False
    ada = world.school.learner("604822", grades=1_000, guardians=["P1", "P2"], text="x" * 1_000)
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822", "P1")
        father = await world.school.link(node, "604822", "P2")
        hers, theirs = world.grant(mother, handle=ada), world.grant(mother, father, handle=ada)
        await node.endorse(hers)
        await node.endorse(theirs)
        [answer] = node.route(world.query(hers))
        await world.broker.until(lambda: answer.sealed_bytes >= world.broker.first_credit)

        async with world.school.office() as office:
            assert await office.noticed(await office.suspend("604822", "P1"), patience=20)
        await answer.whole.wait()
        assert answer.reason == Reason.ENDORSEMENT_REFUSED
        await world.broker.until(lambda: len(world.broker.endorsements_of(hers.id)) > 1)
        last = world.broker.endorsements_of(hers.id)[-1].payload
        assert last.verdict == pb.ENDORSEMENT_VERDICT_SUSPENDED
        assert (await node.ask(world.query(hers))).reason == Reason.ENDORSEMENT_REFUSED
        [still] = node.route(world.query(theirs))
        await world.broker.until(lambda: still.sealed_bytes > 0)

        # She is back, but nothing that ended comes back by itself.
        async with world.school.office() as office:
            assert await office.noticed(await office.reinstate("604822", "P1"), patience=20)
        assert (await node.ask(world.query(hers))).reason == Reason.ENDORSEMENT_REFUSED
        assert (await node.endorse(world.grant(mother, handle=ada))).verdict == pb.ENDORSEMENT_VERDICT_ENDORSED


async def test_stricter_quorum_ends_what_does_not_meet_it(world: World) -> None:
    ada = world.school.learner("604822", grades=1, guardians=["P1", "P2"])
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822", "P1")
        grant = world.grant(mother, handle=ada)
        await node.endorse(grant)
        async with world.school.office() as office:
            assert await office.noticed(await office.quorum("604822", "all"), patience=20)
        assert (await node.ask(world.query(grant))).reason == Reason.ENDORSEMENT_REFUSED


async def test_newer_grant_takes_the_place_of_the_one_it_supersedes(world: World) -> None:
    ada = world.school.learner("604822", grades=1)
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822")
        old = world.grant(mother, handle=ada)
        await node.endorse(old)
        new = world.grant(mother, handle=ada, supersedes=[old.id])
        assert (await node.ask(world.query(old))).reason == Reason.ALLOWED
        await node.endorse(new)
        assert (await node.ask(world.query(old))).reason == Reason.GRANT_SUPERSEDED
        assert (await node.ask(world.query(new))).reason == Reason.ALLOWED


async def test_endorsement_that_ends_soon_is_renewed_while_true(world: World) -> None:
    ada = world.school.learner("604822", grades=1)
    async with world.attached() as (running, node):
        mother = await world.school.link(node, "604822")
        grant = world.grant(mother, handle=ada, lifetime=90 * DAY)
        first = await node.endorse(grant)
        assert await running.endorser.renew_due() == 0
        world.clock.offset = 24 * DAY
        assert await running.endorser.renew_due() == 1
        await world.broker.until(lambda: len(world.broker.endorsements_of(grant.id)) == 2)
        renewed = world.broker.endorsements_of(grant.id)[-1].payload
        assert renewed.valid_until > first.valid_until + 20 * DAY

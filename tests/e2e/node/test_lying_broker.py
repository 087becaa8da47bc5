"""A broker that lies to a node: it withholds, repeats, invents, and impersonates; the node then answers nobody."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace

import pytest

from permslip import statements as st
from permslip._pb.permslip.v1 import node_pb2, statement_pb2 as pb
from permslip.errors import KeyRejectedError
from permslip.hosting.logs import configure
from permslip.keyfile import PrincipalKind, StoredKeys
from permslip.keys import did_text
from permslip.linking import make_link_request
from permslip.quantities import Handle
from permslip.reasons import Reason
from permslip.statements import Signed
from permslip_node.app import boot_millis
from tests.e2e.node.conftest import FEDERATION, World
from tests.federation.consents import make_revocation
from tests.federation.principals import Organization, Person, admit
from tests.federation.school import School
from tests.federation.simulated_broker import AttachedNode, SimulatedBroker


class Monotonic:
    """The node's monotonic clock, which a test may move."""

    def __init__(self) -> None:
        self.offset = 0

    def __call__(self) -> int:
        return boot_millis() + self.offset


async def consent(world: World, node: AttachedNode, handle: Handle) -> tuple[Person, Signed[pb.Grant]]:
    mother = await world.school.link(node, "604822")
    grant = world.grant(mother, handle=handle)
    assert (await node.endorse(grant)).verdict == pb.ENDORSEMENT_VERDICT_ENDORSED
    return mother, grant


def with_monotonic(world: World) -> Monotonic:
    monotonic = Monotonic()
    world.school = replace(world.school, monotonic=monotonic)
    return monotonic


async def test_node_that_hears_no_ticks_answers_nobody_after_its_lease(world: World) -> None:
    monotonic = with_monotonic(world)
    ada = world.school.learner("604822", grades=1)
    async with world.attached() as (_, node):
        _, grant = await consent(world, node, ada)
        assert (await node.ask(world.query(grant))).reason == Reason.ALLOWED
        world.broker.ticks = False
        monotonic.offset = 5_000
        refused = await node.ask(world.query(grant))
        assert refused.reason == Reason.NO_LEASE
        assert refused.outcome.refusal.retry_after > 0
        world.broker.ticks = True
        await world.broker.fresh()
        assert (await node.ask(world.query(grant))).reason == Reason.ALLOWED


async def test_open_answer_stops_when_the_lease_runs_out(world: World) -> None:
    monotonic = with_monotonic(world)
    world.broker.gives_credit = False
    ada = world.school.learner("604822", grades=1_000, text="x" * 1_000)
    async with world.attached() as (_, node):
        _, grant = await consent(world, node, ada)
        asked = world.query(grant)
        [answer] = node.route(asked)
        await world.broker.until(lambda: answer.sealed_bytes >= world.broker.first_credit)
        world.broker.ticks = False
        monotonic.offset = 5_000
        node.credit(asked.id, 1 << 30)
        await answer.whole.wait()
        assert answer.reason == Reason.NO_LEASE


async def test_withheld_revocation_that_the_tick_counts_silences_the_node(world: World) -> None:
    ada = world.school.learner("604822", grades=1)
    async with world.attached() as (_, node):
        mother, grant = await consent(world, node, ada)
        world.broker.withheld.add(len(world.broker.pushes) + 1)
        revocation = make_revocation(mother, grant.id, world.school.root, federation=FEDERATION, now=world.clock())
        world.broker.push(revocation, chain=[grant])
        seen = len(world.broker.leases)
        await world.broker.until(lambda: len(world.broker.leases) > seen + 1)
        assert (await node.ask(world.query(grant))).reason == Reason.NO_LEASE


async def test_withheld_revocation_that_no_tick_counts_is_in_force_by_the_direct_way(world: World) -> None:
    ada = world.school.learner("604822", grades=1)
    async with world.attached() as (_, node):
        mother, grant = await consent(world, node, ada)
        revocation = make_revocation(mother, grant.id, world.school.root, federation=FEDERATION, now=world.clock())
        async with world.school.office() as office:
            _, done = await office.revoke(revocation.envelope)
            assert await office.noticed(done, patience=20)
        assert (await node.ask(world.query(grant))).reason == Reason.GRANT_REVOKED


@pytest.mark.parametrize(
    "lie", ["stale", "swapped", "other node", "other key", "other broker", "fewer pushes", "other root"]
)
async def test_tick_that_lies_makes_no_lease(world: World, lie: str) -> None:
    monotonic = with_monotonic(world)
    ada = world.school.learner("604822", grades=1)
    async with world.attached() as (_, node):
        _, grant = await consent(world, node, ada)
        broker, first = world.broker, world.broker.leases[0].lease_nonce
        stranger = Organization.new("Stranger", pb.PRINCIPAL_KIND_BROKER, FEDERATION, now=world.clock())

        def alter(tick: pb.Tick) -> None:
            if lie == "stale":
                tick.lease_nonce = first
            elif lie == "swapped":
                tick.lease_nonce = os.urandom(16)
            elif lie == "other node":
                tick.node = stranger.root
            elif lie == "other broker":
                tick.signer.CopyFrom(stranger.signer)
            elif lie == "fewer pushes":
                tick.push_count -= 1
            elif lie == "other root":
                tick.root_hash = os.urandom(32)

        if lie in {"other key", "other broker"}:
            broker.tick_key = stranger.key
        if lie == "other key":
            broker.alter_tick = lambda tick: setattr(tick.signer, "key", stranger.key.public.raw)
        else:
            broker.alter_tick = alter
        await broker.fresh()
        monotonic.offset = 5_000
        await broker.fresh()
        assert (await node.ask(world.query(grant))).reason == Reason.NO_LEASE


async def test_clock_behind_the_nodes_own_ledger_silences_the_node(world: World) -> None:
    ada = world.school.learner("604822", grades=1)
    async with world.attached() as (running, node):
        _, grant = await consent(world, node, ada)
        world.clock.offset = -61_000
        refused = await node.ask(world.query(grant))
        assert refused.reason == Reason.CLOCK
        assert running.ledger.clock_is_behind()
        world.clock.offset = 0
        assert (await node.ask(world.query(grant))).reason == Reason.ALLOWED


# ------------------------------------------------------------------------------------------------- pushes


async def refuses_to_answer(world: World, grant: Signed[pb.Grant]) -> bool:
    """Whether the node, on whatever stream it has by now, answers nobody."""
    seen, dials = len(world.broker.leases), world.broker.dials
    await world.broker.until(lambda: len(world.broker.leases) > seen + 1 or world.broker.dials > dials + 2)
    stream = world.broker.streams[-1]
    asked = stream.route(world.query(grant))[0]
    await world.broker.until(lambda: asked.whole.is_set() or stream.ended.is_set())
    return not asked.whole.is_set() or asked.reason == Reason.NO_LEASE


@pytest.mark.parametrize("kind", ["repeated", "with keys that it made up", "over for long", "repeated without a lease"])
async def test_broker_cannot_fill_the_ledger_with_queries(world: World, kind: str) -> None:
    monotonic = with_monotonic(world)
    ada = world.school.learner("604822", grades=1)
    async with world.attached() as (running, node):
        _, grant = await consent(world, node, ada)
        genuine = world.query(grant)
        assert (await node.ask(genuine)).reason == Reason.ALLOWED
        if kind.endswith("lease"):
            world.broker.ticks = False
            monotonic.offset = 5_000
        if kind.startswith("repeated"):
            asked = [genuine.envelope] * 300
        elif kind == "over for long":
            world.clock.offset = -600_000
            asked = [world.query(grant).envelope for _ in range(300)]
            world.clock.offset = 0
        else:
            asked = [world.query(grant, requester=Person.new()).envelope for _ in range(300)]
        before, began = running.ledger.size, time.monotonic()

        node.route(*asked)
        # Behind them on the same stream; it is its own, and so it is decided whatever came before.
        last = await node.ask(world.query(grant))

        seconds = int(time.monotonic() - began) + 2
        await running.answerer.drain(20)
        assert last.reason == (Reason.NO_LEASE if kind.endswith("lease") else Reason.ALLOWED)
        assert 0 < running.ledger.size - before <= 20 * seconds + 2


async def test_refusals_that_are_not_recorded_are_counted_in_the_log(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    configure("node", level="warning")
    ada = world.school.learner("604822", grades=1)
    async with world.attached() as (running, node):
        _, grant = await consent(world, node, ada)
        asked = [world.query(grant, requester=Person.new()) for _ in range(100)]
        answers = node.route(*asked)
        for each in answers:
            await each.whole.wait()
        assert {each.reason for each in answers} == {Reason.NOT_GRANTEE, Reason.BUSY}
        await running.answerer.drain(20)
        lines = [json.loads(each) for each in capsys.readouterr().err.splitlines() if "refusals_not_recorded" in each]
        assert sum(each["count"] for each in lines) == sum(each.reason == Reason.BUSY for each in answers)


async def test_gap_in_the_pushes_is_noticed_and_nothing_after_it_counts(world: World) -> None:
    ada = world.school.learner("604822", grades=1)
    async with world.attached() as (running, node):
        _, grant = await consent(world, node, ada)
        held = running.pushes.held(world.broker.organization.root)
        someone = Organization.new("Someone", pb.PRINCIPAL_KIND_PROVIDER, FEDERATION, now=world.clock())
        world.broker.withheld.add(held + 1)
        world.broker.push(admit(world.operator, someone, now=world.clock()))
        world.broker.push(someone.cert)
        await node.ended.wait()
        assert running.pushes.held(world.broker.organization.root) == held
        assert await refuses_to_answer(world, grant)
        # Sent at last, all is well again.
        world.broker.withheld.clear()
        await world.broker.until(lambda: running.pushes.held(world.broker.organization.root) == held + 2)


@pytest.mark.parametrize("forgery", ["admission", "key-cert", "rubbish"])
async def test_forged_push_is_not_counted(world: World, forgery: str) -> None:
    ada = world.school.learner("604822", grades=1)
    async with world.attached() as (running, node):
        _, grant = await consent(world, node, ada)
        held = running.pushes.held(world.broker.organization.root)
        liar = Person.new()
        mallory = Organization.new("Mallory", pb.PRINCIPAL_KIND_PROVIDER, FEDERATION, now=world.clock())
        forged = {
            # signed by somebody who is not the operator, or an admitted root
            "admission": admit(liar, mallory, now=world.clock()).envelope,
            "key-cert": mallory.cert.envelope,
            "rubbish": pb.Envelope(payload_type=st.ADMISSION.payload_type, payload=b"rubbish"),
        }[forgery]
        world.broker.push_raw(forged)
        await node.ended.wait()
        assert running.pushes.held(world.broker.organization.root) == held
        assert running.facts.standing(mallory.root) is None
        capability = running.facts.capability(grant.id)
        assert capability is not None
        assert capability.ended == Reason.ALLOWED
        assert await refuses_to_answer(world, grant)


async def test_revocation_without_right_ends_nothing_and_holds_nothing_up(world: World) -> None:
    ada = world.school.learner("604822", grades=1)
    async with world.attached() as (running, node):
        _, grant = await consent(world, node, ada)
        held = running.pushes.held(world.broker.organization.root)
        stranger = make_revocation(Person.new(), grant.id, world.school.root, federation=FEDERATION, now=world.clock())
        someone = Organization.new("Someone", pb.PRINCIPAL_KIND_PROVIDER, FEDERATION, now=world.clock())
        world.broker.push_raw(stranger.envelope)
        world.broker.push(admit(world.operator, someone, now=world.clock()))
        await world.broker.until(lambda: running.pushes.held(world.broker.organization.root) == held + 2)
        capability = running.facts.capability(grant.id)
        assert capability is not None
        assert capability.ended == Reason.ALLOWED
        assert running.facts.recorded_at(stranger.id) is None


async def test_repeated_push_changes_nothing(world: World) -> None:
    ada = world.school.learner("604822", grades=1)
    async with world.attached() as (running, node):
        _, grant = await consent(world, node, ada)
        size = running.ledger.size
        for push in world.broker.pushes:
            node.send(node_pb2.BrokerFrame(push=push))
        await world.broker.fresh()
        assert running.ledger.size == size
        assert (await node.ask(world.query(grant))).reason == Reason.ALLOWED


# ------------------------------------------------------------------------------------------------- who it is


async def test_server_that_is_another_broker_is_left_at_once(world: World) -> None:
    stranger = Organization.new("Stranger", pb.PRINCIPAL_KIND_BROKER, FEDERATION, now=world.clock())
    genuine = world.broker.presents
    world.broker.presents = stranger.cert.envelope
    async with world.school.running() as node:
        await world.broker.dialled(2)
        assert node.streams == []
        assert world.broker.streams == []
        world.broker.presents = genuine
        await world.broker.attached()


async def test_earlier_certificate_of_the_broker_is_refused_also_after_a_restart(world: World) -> None:
    stolen = world.broker.organization
    newer = stolen.rotated(now=world.clock())
    world.broker.shows(newer)
    async with world.attached():
        pass
    world.broker.shows(stolen)
    streams, dials = len(world.broker.streams), world.broker.dials
    async with world.school.running():
        await world.broker.dialled(dials + 2)
        assert len(world.broker.streams) == streams
        world.broker.shows(newer)
        await world.broker.attached(streams + 1)
        await world.broker.fresh()


async def test_key_supplied_in_place_of_the_nodes_at_linking_is_refused_by_the_guardian(world: World) -> None:
    world.school.learner("604822")
    slip = world.school.slip("604822").slip
    mother = Person.new()
    keys = StoredKeys(PrincipalKind.GUARDIAN, mother.key, mother.sealing)
    brokers_own = Organization.new("Broker", pb.PRINCIPAL_KIND_NODE, FEDERATION, now=world.clock())
    with pytest.raises(KeyRejectedError):
        make_link_request(slip, FEDERATION, keys, brokers_own.cert.envelope, world.clock())


async def test_link_request_is_no_use_to_a_broker_that_keeps_it(world: World) -> None:
    world.school.learner("604822")
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822")
        slip = world.school.slip("604822").slip
        keys = StoredKeys(PrincipalKind.GUARDIAN, mother.key, mother.sealing)
        sealed, pending = make_link_request(
            slip, FEDERATION, keys, world.school.organization.cert.envelope, world.clock()
        )
        first = await node.link(sealed)
        second = await node.link(sealed)
        for result in (first, second):
            assert pending.open_response(result.sealed_response).payload.slice.node == world.school.root
        altered = await node.link(sealed[:-1] + bytes([sealed[-1] ^ 1]))
        assert Reason(altered.refusal.code) is Reason.LINK_REFUSED


async def test_node_of_another_federation_is_not_spoken_to(world: World) -> None:
    world.broker.federation = "other.example"
    async with world.school.running() as node:
        await world.broker.dialled(2)
        assert node.streams == []


async def test_second_broker_is_attached_beside_the_first(world: World) -> None:
    async with SimulatedBroker.served(world.operator, FEDERATION, now=world.clock) as other:
        pinned = f"{other.address}={did_text(other.organization.root)}"
        settings = replace(world.school.settings, brokers=(*world.school.settings.brokers, pinned))
        world.school = School(world.school.organization, settings, world.school.now)
        ada = world.school.learner("604822", grades=1)
        for each in (world.broker.organization, other.organization, world.school.organization, world.tutor):
            other.push(admit(world.operator, each, now=world.clock()))
            other.push(each.cert)
        async with world.attached() as (_, node):
            beside = await other.attached()
            await other.fresh()
            mother, grant = await consent(world, node, ada)
            for stream in (node, beside):
                assert (await stream.ask(world.query(grant))).reason == Reason.ALLOWED
            revocation = make_revocation(mother, grant.id, world.school.root, federation=FEDERATION, now=world.clock())
            other.push(revocation, chain=[grant])
            # Both are told, whoever heard of it first.
            await other.acknowledgement_of(revocation.id)
            await world.broker.acknowledgement_of(revocation.id)
            assert (await node.ask(world.query(grant))).reason == Reason.GRANT_REVOKED


async def test_unconfirmed_statements_are_sent_again_and_confirmed_ones_are_not(world: World) -> None:
    world.broker.confirms = False
    ada = world.school.learner("604822", grades=1)
    async with world.attached() as (running, node):
        _, grant = await consent(world, node, ada)
        assert len(running.recording.unconfirmed(world.broker.organization.root)) == 1
    world.broker.confirms = True
    world.broker.statements.clear()
    async with world.attached() as (running, _):
        await world.broker.until(lambda: world.broker.endorsements_of(grant.id))
        await world.broker.fresh()
        await world.broker.until(lambda: not running.recording.unconfirmed(world.broker.organization.root))
    world.broker.statements.clear()
    async with world.attached() as (_, _):
        assert world.broker.statements == []

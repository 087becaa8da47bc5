"""What a node says to calls that it does not serve, to results that may change, and when its disk fails it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from permslip import statements as st
from permslip._pb.permslip.v1 import node_pb2, provider_pb2, session_pb2, statement_pb2 as pb
from permslip.dsse import statement_id
from permslip.errors import ConfigurationError, UnavailableError
from permslip.keys import did_text
from permslip.reasons import Reason
from permslip_node.attach import Attachment
from permslip_node.open_answers import OpenAnswers
from tests.e2e.node.conftest import FEDERATION, World
from tests.federation.consents import make_revocation


async def test_contributions_and_ledger_calls_are_declined_and_not_ignored(world: World) -> None:
    world.school.learner("604822")
    async with world.attached() as (_, node):
        envelope = pb.Envelope(payload_type=st.CONTRIBUTION.payload_type, payload=b"payload")
        node.send(
            node_pb2.BrokerFrame(contribution=node_pb2.RoutedContribution(contribution=envelope)),
            node_pb2.BrokerFrame(ledger=node_pb2.LedgerCall(call_id=b"c" * 16)),
            node_pb2.BrokerFrame(checkpoint=node_pb2.CheckpointOffer()),
            node_pb2.BrokerFrame(draining=provider_pb2.Draining()),
        )
        await world.broker.until(lambda: len(world.broker.replies) == 2)
        contribution, ledger = world.broker.replies
        assert Reason(contribution.contribution.refusal.code) is Reason.NOT_ALLOWED
        assert contribution.contribution.statement_id == statement_id(envelope.payload_type, envelope.payload)
        assert (ledger.ledger.call_id, ledger.ledger.last) == (b"c" * 16, True)


@pytest.mark.parametrize(("reason", "kept"), [(Reason.UNREACHABLE, 1), (Reason.MALFORMED, 0), (Reason.ALLOWED, 0)])
async def test_statement_is_kept_until_the_brokers_word_on_it_is_final(world: World, reason: Reason, kept: int) -> None:
    world.broker.confirms = False
    ada = world.school.learner("604822")
    async with world.attached() as (running, node):
        mother = await world.school.link(node, "604822")
        grant = world.grant(mother, handle=ada)
        await node.endorse(grant)
        [endorsement] = world.broker.endorsements_of(grant.id)
        result = session_pb2.DepositResult(statement_id=endorsement.id, refusal=session_pb2.Refusal(code=reason.wire))
        node.send(node_pb2.BrokerFrame(statement_result=result))
        await world.broker.fresh()
        await world.broker.fresh()
        root = world.broker.organization.root
        await world.broker.until(lambda: len(running.recording.unconfirmed(root)) == kept)


async def test_node_that_cannot_write_its_ledger_releases_nothing(world: World) -> None:
    ada = world.school.learner("604822", grades=3)
    async with world.attached() as (running, node):
        mother = await world.school.link(node, "604822")
        grant = world.grant(mother, handle=ada)
        await node.endorse(grant)
        await running.ledger.close()
        answer = await node.ask(world.query(grant))
        assert answer.reason == Reason.BUSY
        assert not any(piece.chunks for piece in answer.pieces)


async def test_broker_elsewhere_is_not_dialled_without_a_certificate_authority(world: World) -> None:
    pinned = f"192.0.2.1:7443={did_text(world.broker.organization.root)}"
    world.school = replace(world.school, settings=replace(world.school.settings, brokers=(pinned,)))
    async with world.school.running() as node:
        [attachment] = node.attachments
        with pytest.raises(ConfigurationError, match="broker_ca_file"):
            await Attachment(attachment._broker, node)._attach()
        assert node.streams == []


async def test_grants_that_are_no_grants_get_no_endorsement(world: World) -> None:
    ada = world.school.learner("604822")
    async with world.attached() as (running, node):
        mother = await world.school.link(node, "604822")
        size = running.ledger.size
        forged = pb.Envelope()
        forged.CopyFrom(world.grant(mother, handle=ada).envelope)
        forged.signatures[0].signature = bytes(64)
        elsewhere = pb.Grant()
        elsewhere.CopyFrom(world.grant(mother, handle=ada).payload)
        elsewhere.slice.node = world.tutor.root
        others = st.sign(st.GRANT, elsewhere, [mother.key]).envelope
        for envelope in (forged, others):
            node.send(node_pb2.BrokerFrame(endorsement=node_pb2.EndorsementCall(grant=envelope)))
        over = world.grant(mother, handle=ada, not_before=world.clock() - 1_000, lifetime=500)
        assert (await node.endorse(over)).verdict == pb.ENDORSEMENT_VERDICT_TERMS_REFUSED
        assert running.ledger.size == size


async def test_many_endorsements_asked_for_at_once_are_all_given(world: World) -> None:
    ada = world.school.learner("604822", grades=1)
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822")
        grants = [world.grant(mother, handle=ada) for _ in range(60)]
        # One of them twice in one message: it is one grant.
        for grant in (*grants, grants[0]):
            node.send(node_pb2.BrokerFrame(endorsement=node_pb2.EndorsementCall(grant=grant.envelope)))
        await world.broker.until(lambda: all(world.broker.endorsements_of(each.id) for each in grants))
        assert (await node.ask(world.query(grants[-1]))).reason == Reason.ALLOWED


def test_early_credit_is_kept_for_the_newest_queries_only() -> None:
    answers = OpenAnswers()
    for number in range(5_000):
        answers.credit(number.to_bytes(32, "big"), 7)
    assert len(answers._early) == 4_096
    assert (4_999).to_bytes(32, "big") in answers._early


async def test_cancellation_that_overtakes_the_decision_is_heeded(world: World) -> None:
    ada = world.school.learner("604822", grades=3)
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822")
        grant = world.grant(mother, handle=ada)
        await node.endorse(grant)
        asked = world.query(grant)
        [answer] = node.route(asked)
        node.cancel(asked.id)
        await asyncio.wait_for(answer.whole.wait(), 20)
        assert answer.reason == Reason.CANCELLED


async def test_push_that_was_recorded_while_its_stream_broke_is_held_on_the_next_stream(world: World) -> None:
    ada = world.school.learner("604822", grades=1)
    async with world.attached() as (running, node):
        mother = await world.school.link(node, "604822")
        grant, other = (world.grant(mother, handle=ada) for _ in range(2))
        await node.endorse(grant)
        await node.endorse(other)
        append = running.recording.append

        async def append_and_break(*drafts: Any, **told: Any) -> Any:
            await append(*drafts, **told)
            raise UnavailableError("the stream ended.")

        revocation = make_revocation(mother, grant.id, world.school.root, federation=FEDERATION, now=world.clock())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(running.recording, "append", append_and_break)
            world.broker.push(revocation, chain=[grant])
            await node.ended.wait()
        again = await world.broker.attached(2)
        await world.broker.fresh()
        await world.broker.acknowledgement_of(revocation.id)
        assert (await again.ask(world.query(grant))).reason == Reason.GRANT_REVOKED
        assert (await again.ask(world.query(other))).reason == Reason.ALLOWED

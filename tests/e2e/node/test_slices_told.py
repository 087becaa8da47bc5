"""What a node tells a guardian of its own ledger: all of what is hers to see, proved, and nothing of anybody else's."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import pytest

from permslip import statements as st
from permslip._pb.permslip.v1 import guardian_pb2, ledger_pb2, node_pb2, session_pb2, statement_pb2 as pb
from permslip.errors import SealError
from permslip.greeting import make_hello
from permslip.keys import SealingKey
from permslip.quantities import Handle
from permslip.reasons import Reason
from permslip.sealing import open_sealed
from permslip.slice_chains import ChainChecker, ChainEntry, chain_context, check_chain_end
from permslip.statements import Signed
from permslip_node.slice_answers import MOST_ENTRIES
from tests.e2e.node.conftest import FEDERATION, World
from tests.federation.consents import make_grant
from tests.federation.principals import DAY, Organization, Person
from tests.federation.simulated_broker import AttachedNode

pytestmark = pytest.mark.e2e
GUARDIAN = pb.PRINCIPAL_KIND_GUARDIAN


@dataclass
class Asking:
    """One guardian who asks a node through the broker of a test."""

    world: World
    node: AttachedNode
    who: Person | Organization
    handle: Handle
    changes: dict[str, Any] = field(default_factory=dict)
    reply: SealingKey = field(default_factory=SealingKey.generate)

    def hello(self) -> Signed[pb.Hello]:
        world = self.world
        challenge = session_pb2.Challenge(
            federation=FEDERATION, broker_cert=world.broker.organization.cert.envelope, server_nonce=os.urandom(48)
        )
        return make_hello(
            challenge,
            broker=world.broker.organization.root,
            signer=self.who.signer,
            kind=self.changes.get("kind", GUARDIAN),
            key=self.who.key,
            now=self.changes.get("now", world.clock()),
            node=self.changes.get("node", world.school.root),
            reply_key=self.changes.get("reply_key", self.reply.public),
        )

    async def reply_to(self, hello: Signed[pb.Hello], **changes: Any) -> node_pb2.LedgerReply:
        place = pb.Slice(node=self.world.school.root, handle=self.handle)
        request = guardian_pb2.ReadNodeLedgerRequest(**{"hello": hello.envelope, "slice": place, **changes})
        call = node_pb2.LedgerCall(call_id=os.urandom(16), slice=request)
        self.node.send(node_pb2.BrokerFrame(ledger=call))
        replies = self.world.broker.replies
        await self.world.broker.until(lambda: any(each.ledger.call_id == call.call_id for each in replies))
        [reply] = [each.ledger for each in replies if each.ledger.call_id == call.call_id]
        assert reply.last
        return reply

    async def refusal(self, **changes: Any) -> Reason:
        reply = await self.reply_to(self.hello(), **changes)
        assert reply.WhichOneof("reply") == "refusal"
        return Reason(reply.refusal.code)

    async def page(self, **changes: Any) -> tuple[guardian_pb2.SliceLedger, pb.ChainEnd]:
        hello = self.hello()
        reply = await self.reply_to(hello, **changes)
        assert not reply.HasField("refusal"), reply.refusal.message
        told = guardian_pb2.SliceLedger.FromString(
            open_sealed(self.reply, reply.sealed_slice, context=chain_context(hello.id))
        )
        school = self.world.school.organization
        end = check_chain_end(
            told.chain_end,
            federation=FEDERATION,
            node=school.root,
            key=school.key.public.raw,
            hello_id=hello.id,
            place=pb.Slice(node=school.root, handle=self.handle),
        )
        return told, end.payload

    async def chain(self, *, limit: int = 0) -> list[ChainEntry]:
        """Everything, page by page, checked as a guardian's software does."""
        school = self.world.school.organization
        place = pb.Slice(node=school.root, handle=self.handle)
        checker = ChainChecker(place, federation=FEDERATION, ledger=school.root, key=school.key.public.raw)
        found: list[ChainEntry] = []
        while True:
            told, end = await self.page(after=checker.seq, limit=limit)
            found += checker.check(told.entries, told.proofs, told.checkpoint.note)
            if not told.entries or checker.seq >= end.slice_seq:
                checker.finish(end.slice_seq, end.leaf_hash)
                return found


def events(entries: list[ChainEntry]) -> list[str]:
    return [each.entry.WhichOneof("event") or "" if each.entry is not None else "hidden" for each in entries]


async def test_guardian_is_told_every_entry_with_its_proof_and_where_the_chain_ends(world: World) -> None:
    ada = world.school.learner("604822", grades=3)
    async with world.attached() as (running, node):
        mother = await world.school.link(node, "604822")
        grant = world.grant(mother, handle=ada)
        await node.endorse(grant)
        answer = await node.ask(world.query(grant))
        await running.recording.ledger.append()
        found = await Asking(world, node, mother, ada).chain()
        while events(found)[-1] != "access_answered":
            found = await Asking(world, node, mother, ada).chain()

    assert events(found) == [
        "authority_changed",
        "statement_recorded",
        "statement_recorded",
        "access_decided",
        "access_answered",
    ]
    assert found[3].entry is not None
    assert found[4].entry is not None
    assert found[3].entry.access_decided.grant_id == grant.id
    assert found[4].entry.access_answered.sealed_bytes == sum(len(c) for each in answer.pieces for c in each.chunks)


async def test_long_chain_comes_in_pages_without_a_hole(world: World) -> None:
    ada = world.school.learner("604822", grades=1)
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822")
        grant = world.grant(mother, handle=ada)
        await node.endorse(grant)
        for _ in range(4):
            await node.ask(world.query(grant))

        asking = Asking(world, node, mother, ada)
        found = await asking.chain(limit=2)
        told, end = await asking.page(limit=4 * MOST_ENTRIES)

    assert len(found) >= 7
    assert [each.seq for each in found] == list(range(1, len(found) + 1))
    assert len(told.entries) == end.slice_seq
    assert end.ledger_size > end.slice_seq


async def test_slice_without_an_entry_has_an_end_without_a_number(world: World) -> None:
    world.school.learner("604822", guardians=["P1"])
    bob = world.school.learner("700001", guardians=["P1"])
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822")
        # The same mother, whom the other slip has not made known: she is a stranger to this child.
        assert await Asking(world, node, mother, bob).refusal() == Reason.NOT_ALLOWED
        known = await world.school.link(node, "700001")
        told, end = await Asking(world, node, known, bob).page(after=1)

    assert (len(told.entries), end.slice_seq) == (0, 1)


async def test_entries_of_another_child_are_never_in_it(world: World) -> None:
    ada = world.school.learner("604822", grades=1, guardians=["P1"])
    bob = world.school.learner("700001", grades=1, guardians=["P2"])
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822")
        other = await world.school.link(node, "700001", "P2")
        canary = world.grant(other, handle=bob)
        await node.endorse(canary)
        asked = world.query(canary)
        await node.ask(asked)
        asking = Asking(world, node, mother, ada)
        told, _ = await asking.page()
        assert await Asking(world, node, mother, bob).refusal() == Reason.NOT_ALLOWED

    raw = told.SerializeToString()
    assert not [each for each in (bob, other.public, canary.id, asked.id) if each in raw]


async def test_both_guardians_see_everything_unless_they_are_hidden_from_one_another(world: World) -> None:
    ada = world.school.learner("604822", grades=1, guardians=["P1", "P2"])
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822")
        father = await world.school.link(node, "604822", "P2")
        hers, his = world.grant(mother, handle=ada), world.grant(father, handle=ada)
        family = make_grant(
            [father],
            world.school.root,
            ada,
            father.public,
            ["transcript.grades"],
            federation=FEDERATION,
            now=world.clock(),
            purpose=pb.PURPOSE_FAMILY,
        )
        for each in (hers, his, family):
            assert (await node.endorse(each)).verdict == pb.ENDORSEMENT_VERDICT_ENDORSED
        for each in (hers, his):
            await node.ask(world.query(each))
        await node.ask(world.query(family, requester=father))
        seen = await Asking(world, node, mother, ada).chain()
        assert "hidden" not in events(seen)
        assert father.public in b"".join(each.proof.extra or b"" for each in seen)

        async with world.school.office() as office:
            await office.visibility("604822", visible=False)
        seen = await Asking(world, node, mother, ada).chain()
        raw = b"".join(each.proof.extra or b"" for each in seen)
        decided = [
            each.entry.access_decided.grant_id for each in seen if each.entry and each.entry.HasField("access_decided")
        ]
        assert (decided, events(seen).count("access_decided")) == ([hers.id], 1)
        assert "hidden" in events(seen)
        assert not [each for each in (father.public, his.id, family.id) if each in raw]
        # Her own entry of the change of authority, and not his.
        assert events(seen).count("authority_changed") == 1
        his_view = await Asking(world, node, father, ada).chain()
        assert bytes(hers.id) not in b"".join(each.proof.extra or b"" for each in his_view)
        revokers = (await node.endorse(world.grant(father, handle=ada))).revokers
        assert len(revokers) == 1

        async with world.school.office() as office:
            await office.visibility("604822", visible=True)
        assert "hidden" not in events(await Asking(world, node, mother, ada).chain())


async def test_suspended_guardian_sees_what_she_signed_and_nothing_else(world: World) -> None:
    ada = world.school.learner("604822", grades=1, guardians=["P1", "P2"])
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822")
        father = await world.school.link(node, "604822", "P2")
        hers, his = world.grant(mother, handle=ada), world.grant(father, handle=ada)
        for each in (hers, his):
            await node.endorse(each)
            await node.ask(world.query(each))
        async with world.school.office() as office:
            await office.suspend("604822", "P2")
        seen = await Asking(world, node, father, ada).chain()

    shown = [each.entry for each in seen if each.entry is not None]
    assert {each.access_decided.grant_id for each in shown if each.HasField("access_decided")} == {his.id}
    assert bytes(hers.id) not in b"".join(each.SerializeToString() for each in shown)


async def test_learner_sees_her_own_and_parents_no_longer_do_when_she_is_of_age(world: World) -> None:
    ada = world.school.learner("604822", grades=1)
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822")
        grant = world.grant(mother, handle=ada)
        await node.endorse(grant)
        await node.ask(world.query(grant))
        learner = await world.school.link(node, "604822", "self")
        entries = await Asking(world, node, learner, ada, {"kind": pb.PRINCIPAL_KIND_LEARNER}).chain()

    assert "hidden" not in events(entries)


@pytest.mark.parametrize("who", ["a stranger", "a lost phone", "a stranger who signed a grant", "the tutor"])
async def test_nobody_else_is_told_anything(world: World, who: str) -> None:
    ada = world.school.learner("604822", grades=1)
    async with world.attached() as (running, node):
        mother = await world.school.link(node, "604822")
        asking: Person | Organization = Person.new()
        kind = GUARDIAN
        if who == "a lost phone":
            await node.endorse(world.grant(mother, handle=ada))
            await world.school.link(node, "604822")
            asking = mother
        elif who == "a stranger who signed a grant":
            assert isinstance(asking, Person)
            refused = await node.endorse(world.grant(asking, handle=ada))
            assert refused.verdict == pb.ENDORSEMENT_VERDICT_NO_AUTHORITY
        elif who == "the tutor":
            asking, kind = world.tutor, pb.PRINCIPAL_KIND_PROVIDER
        assert await Asking(world, node, asking, ada, {"kind": kind}).refusal() == Reason.NOT_ALLOWED
        nobody = Handle(os.urandom(16))
        assert await Asking(world, node, asking, nobody, {"kind": kind}).refusal() == Reason.NOT_ALLOWED
        recorded = await refusals(running, 2)

    assert {(each.method, each.reason, each.caller) for each in recorded} == {
        ("ReadNodeLedger", Reason.NOT_ALLOWED.wire, asking.key.public.raw)
    }


async def refusals(running: Any, count: int) -> list[ledger_pb2.RequestRefused]:
    """What the node's ledger holds of refused requests, once there are so many."""
    while True:
        await running.ledger.append()
        entries = [
            ledger_pb2.LogEntry.FromString(each.leaf)
            for each in running.ledger.leaves(0, running.ledger.size)
            if each.leaf
        ]
        found = [each.request_refused for each in entries if each.HasField("request_refused")]
        if len(found) >= count:
            return found


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"node": os.urandom(32)}, Reason.HELLO_REFUSED),
        ({"node": b""}, Reason.HELLO_REFUSED),
        ({"reply_key": b""}, Reason.MALFORMED),
        ({"age": 61_000}, Reason.HELLO_REFUSED),
        ({"age": -61_000}, Reason.HELLO_REFUSED),
        ({"age": DAY}, Reason.HELLO_REFUSED),
        ({"kind": pb.PRINCIPAL_KIND_AUDITOR}, Reason.NOT_ALLOWED),
    ],
)
async def test_greeting_that_is_not_for_this_node_now_and_by_a_person_is_refused(
    world: World, changes: dict[str, Any], reason: Reason
) -> None:
    ada = world.school.learner("604822")
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822")
        given = {**changes, "now": world.clock() - changes.get("age", 0)}
        assert await Asking(world, node, mother, ada, given).refusal() == reason


async def test_altered_greeting_and_another_nodes_slice_are_refused(world: World) -> None:
    ada = world.school.learner("604822")
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822")
        asking = Asking(world, node, mother, ada)
        forged = asking.hello()
        altered = pb.Hello.FromString(forged.envelope.payload)
        altered.reply_key = SealingKey.generate().public
        forged.envelope.payload = altered.SerializeToString(deterministic=True)
        reply = await asking.reply_to(forged)
        assert Reason(reply.refusal.code) == Reason.HELLO_REFUSED
        elsewhere = pb.Slice(node=os.urandom(32), handle=ada)
        assert await asking.refusal(slice=elsewhere) == Reason.NOT_ALLOWED


async def test_what_the_broker_carries_opens_with_nobody_elses_key(world: World) -> None:
    ada = world.school.learner("604822")
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822")
        asking = Asking(world, node, mother, ada)
        hello = asking.hello()
        reply = await asking.reply_to(hello)
        assert mother.public not in reply.sealed_slice
        for key, context in (
            (SealingKey.generate(), chain_context(hello.id)),
            (asking.reply, chain_context(asking.hello().id)),
        ):
            with pytest.raises(SealError):
                open_sealed(key, reply.sealed_slice, context=context)
        # An old answer, brought again for a new question, is about another greeting.
        told = guardian_pb2.SliceLedger.FromString(
            open_sealed(asking.reply, reply.sealed_slice, context=chain_context(hello.id))
        )
        signed = st.verify(st.CHAIN_END, told.chain_end, federation=FEDERATION)
        assert signed.payload.hello_id == hello.id

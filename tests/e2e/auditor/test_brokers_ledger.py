"""What an auditor reads of the broker's ledger: all that her scope shows, provably, and not an entry more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from permslip import statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.audit_scope import make_scope
from permslip.checkpoints import open_checkpoint
from permslip.merkle import leaf_hash, verify_consistency, verify_inclusion
from permslip.notes import Ed25519Signer, Ed25519Verifier
from permslip.reasons import Reason
from tests.e2e.broker.small_federation import FEDERATION, SmallFederation
from tests.federation.auditor import AuditorCalls, calling, entry_of, refused
from tests.federation.principals import DAY, Organization, Person, admit, suspend

ACCESSES = {"access_decided", "access_answered", "request_refused"}


@asynccontextmanager
async def auditing(federation: SmallFederation, scope: pb.AuditScope | None = None) -> AsyncIterator[AuditorCalls]:
    """An auditor, admitted with a scope."""
    auditor = Organization.new("State Auditor", pb.PRINCIPAL_KIND_AUDITOR, FEDERATION, now=federation.now())
    word = admit(federation.operator, auditor, now=federation.now(), audit_scope=scope)
    results = await federation.admit(word, auditor.cert)
    assert all(each.refusal.code == Reason.ALLOWED.wire for each in results), results
    async with as_anybody(federation, auditor) as calls:
        yield calls


@asynccontextmanager
async def as_anybody(federation: SmallFederation, who: Organization | Person) -> AsyncIterator[AuditorCalls]:
    async with calling(
        federation.address, who, federation=FEDERATION, broker=federation.root, now=federation.now
    ) as calls:
        yield calls


def log_of(federation: SmallFederation) -> Ed25519Verifier:
    """The key that signs the broker's checkpoints."""
    return Ed25519Signer(federation.settings.ledger_origin, federation.broker_keys.key).verifier


async def accesses(federation: SmallFederation) -> tuple[bytes, bytes]:
    """An access at each school, answered; the two queries' ids."""
    ids = []
    for school in (federation.school, federation.platform):
        async with federation.attached(school) as node, federation.requester(federation.tutor) as tutor:
            grant = await federation.endorsed_grant(school)
            asked = federation.query(federation.tutor, grant)
            await tutor.ask(asked)
            assert node is not None
            ids.append(asked.id)
    await federation.broker.recorder.settle()
    return ids[0], ids[1]


# ------------------------------------------------------------------------------------- what is given


async def test_every_entry_is_given_and_proved_in_the_checkpoint(federation: SmallFederation) -> None:
    await accesses(federation)
    async with auditing(federation) as calls:
        note = await calls.checkpoint(federation.root)
        checkpoint = open_checkpoint(note, log_of(federation)).checkpoint
        leaves = await calls.entries(federation.root, 0, checkpoint.size)
        proofs = await calls.proofs(federation.root, checkpoint.size, range(checkpoint.size), old_size=3)
        old = await calls.proofs(federation.root, 3, [0])

    assert [each.position for each in leaves] == list(range(checkpoint.size))
    for leaf, proof in zip(leaves, proofs.inclusion, strict=True):
        assert leaf.leaf_hash == leaf_hash(leaf.leaf)
        verify_inclusion(leaf.leaf_hash, leaf.position, checkpoint.size, list(proof.hashes), checkpoint.root)
    assert (proofs.consistency.old_size, proofs.consistency.new_size) == (3, checkpoint.size)
    assert not old.HasField("consistency")


async def test_a_range_can_be_taken_up_anywhere(federation: SmallFederation) -> None:
    await accesses(federation)
    async with auditing(federation) as calls:
        size = federation.broker.ledger.size
        whole = await calls.entries(federation.root, 0, size)
        parts = await calls.entries(federation.root, 0, 5) + await calls.entries(federation.root, 5, size)
        beyond = await calls.entries(federation.root, size - 2, size + 1_000_000)
        nothing = await calls.entries(federation.root, size + 1_000, size + 2_000)
        backwards = await calls.entries(federation.root, 5, 2)

    assert parts == whole
    assert beyond[:2] == whole[-2:]
    assert nothing == backwards == []


async def test_statements_and_queries_that_entries_name_are_given_and_nothing_else(
    federation: SmallFederation,
) -> None:
    first, second = await accesses(federation)
    async with auditing(federation) as calls:
        size = federation.broker.ledger.size
        found = await calls.statements(federation.root, 0, size)
        entries = [entry_of(each) for each in await calls.entries(federation.root, 0, size)]

    recorded = {each.statement_recorded.statement_id for each in entries if each.HasField("statement_recorded")}
    assert set(found.statements) == recorded | {first, second}
    assert found.erased == []
    for envelope in found.statements.values():
        st.verify(st.kind_of(envelope), envelope, federation=FEDERATION)


async def test_statements_are_given_by_their_ids(federation: SmallFederation) -> None:
    await accesses(federation)
    async with auditing(federation) as calls:
        wanted = federation.school.cert.id
        found = await calls.statements(federation.root, ids=[wanted, bytes(32), wanted])

    assert list(found.statements) == [wanted]


async def test_who_follows_is_sent_what_is_appended(federation: SmallFederation) -> None:
    async with auditing(federation) as calls:
        start = federation.broker.ledger.size
        pages = calls.entry_pages(federation.root, start, follow=True)
        following = asyncio.ensure_future(anext(pages))
        grant = federation.grant()
        await federation.deposit(grant)
        [leaf] = await asyncio.wait_for(following, 20)
        await federation.admit(suspend(federation.operator, federation.clinic, now=federation.now()))
        [another] = await asyncio.wait_for(anext(pages), 20)
        await pages.aclose()

    assert entry_of(leaf).statement_recorded.statement_id == grant.id
    assert another.position == leaf.position + 1


async def test_a_broker_that_ends_does_not_wait_for_who_follows(federation: SmallFederation) -> None:
    async with auditing(federation) as calls:
        following = asyncio.ensure_future(calls.entries(federation.root, federation.broker.ledger.size, follow=True))
        # The second fetch is answered after the first has begun.
        await calls.entries(federation.root, 0, 1)
        await asyncio.wait_for(federation.broker.drain(), 20)

        assert await asyncio.wait_for(following, 20) == []


# ------------------------------------------------------------------------------------- what a scope hides


async def test_entries_about_other_nodes_are_hidden_and_the_chain_of_hashes_is_not(
    federation: SmallFederation,
) -> None:
    first, second = await accesses(federation)
    async with (
        auditing(federation) as everything,
        auditing(federation, make_scope(nodes=(federation.school.root,))) as one,
    ):
        size = federation.broker.ledger.size
        whole = await everything.entries(federation.root, 0, size)
        seen = await one.entries(federation.root, 0, size)
        found = await one.statements(federation.root, 0, size)
        by_id = await one.statements(
            federation.root, ids=list((await everything.statements(federation.root)).statements)
        )

    assert [(each.position, each.leaf_hash) for each in seen] == [(each.position, each.leaf_hash) for each in whole]
    for full, shown in zip(whole, seen, strict=True):
        entry = entry_of(full)
        other = entry.HasField("slice") and entry.slice.node == federation.platform.root
        assert bool(shown.leaf) is not other
    assert first in found.statements
    assert second not in found.statements
    grants = [pb.Grant.FromString(e.payload) for e in found.statements.values() if st.kind_of(e) is st.GRANT]
    assert [each.slice.node for each in grants] == [federation.school.root]
    assert set(by_id.statements) <= set(found.statements)


async def test_accesses_outside_the_dates_are_hidden_and_facts_are_not(federation: SmallFederation) -> None:
    first, second = await accesses(federation)
    async with auditing(federation, make_scope(begins=federation.now() + DAY)) as calls:
        leaves = await calls.entries(federation.root, 0, federation.broker.ledger.size)
        found = await calls.statements(federation.root)
        entries = await federation.entries()

    for leaf, entry in zip(leaves, entries, strict=False):
        assert bool(leaf.leaf) is (entry.WhichOneof("event") not in ACCESSES)
    assert not {first, second} & set(found.statements)
    assert found.statements


# ------------------------------------------------------------------------------------- who is refused


@pytest.mark.parametrize("as_what", [pb.PRINCIPAL_KIND_AUDITOR, pb.PRINCIPAL_KIND_PROVIDER])
async def test_a_provider_is_no_auditor_whatever_it_says(
    as_what: pb.PrincipalKind.ValueType, federation: SmallFederation
) -> None:
    async with as_anybody(federation, federation.tutor) as calls:
        calls.kind = as_what
        reasons = [
            await refused(calls.entries(federation.root)),
            await refused(calls.statements(federation.root)),
            await refused(calls.proofs(federation.root, 1, [0])),
        ]

    claimed = as_what == pb.PRINCIPAL_KIND_AUDITOR
    assert set(reasons) == {Reason.REQUESTER_UNKNOWN if claimed else Reason.NOT_ALLOWED}
    logged = await federation.events("request_refused")
    assert [each.method for each in logged] == ["FetchEntries", "FetchStatements", "GetProofs"]


async def test_a_person_or_the_operator_is_no_auditor(federation: SmallFederation) -> None:
    for who in (federation.mother, federation.operator):
        async with as_anybody(federation, who) as calls:
            assert await refused(calls.entries(federation.root)) == Reason.REQUESTER_UNKNOWN


async def test_a_suspended_auditor_gets_nothing_more(federation: SmallFederation) -> None:
    async with auditing(federation) as calls:
        assert isinstance(calls.who, Organization)
        pages = calls.entry_pages(federation.root, federation.broker.ledger.size, follow=True)
        following = asyncio.ensure_future(anext(pages))
        await calls.entries(federation.root, 0, 1)
        await federation.admit(suspend(federation.operator, calls.who, now=federation.now()))

        assert await refused(asyncio.wait_for(following, 20)) == Reason.REQUESTER_SUSPENDED
        assert await refused(calls.entries(federation.root)) == Reason.REQUESTER_SUSPENDED


async def test_a_narrower_scope_ends_what_is_being_followed(federation: SmallFederation) -> None:
    async with auditing(federation) as calls:
        assert isinstance(calls.who, Organization)
        pages = calls.entry_pages(federation.root, federation.broker.ledger.size, follow=True)
        following = asyncio.ensure_future(anext(pages))
        await calls.entries(federation.root, 0, 1)
        scope = make_scope(nodes=(federation.school.root,))
        await federation.admit(admit(federation.operator, calls.who, now=federation.now(), audit_scope=scope))

        assert await refused(asyncio.wait_for(following, 20)) == Reason.NOT_ALLOWED


async def test_a_greeting_for_a_node_opens_nothing_at_the_broker(federation: SmallFederation) -> None:
    async with auditing(federation) as calls:
        calls.hello_for = federation.school.root

        assert await refused(calls.entries(federation.root)) == Reason.HELLO_REFUSED


async def test_fetches_at_once_are_bounded(federation: SmallFederation) -> None:
    async with auditing(federation) as calls:
        size = federation.broker.ledger.size
        following = [calls.entry_pages(federation.root, size - 1, follow=True) for _ in range(4)]
        for each in following:
            await anext(each)

        assert await refused(calls.entries(federation.root)) == Reason.BUSY
        for each in following:
            await each.aclose()


async def test_a_tree_that_is_not_there_is_not_proved(federation: SmallFederation) -> None:
    async with auditing(federation) as calls:
        size = federation.broker.ledger.size
        reasons = [
            await refused(calls.proofs(federation.root, size + 1_000, [0])),
            await refused(calls.proofs(federation.root, 2, [2])),
            await refused(calls.proofs(federation.root, 2, [], old_size=3)),
        ]

    assert reasons == [Reason.NOT_FOUND] * 3


async def test_a_proof_of_consistency_holds(federation: SmallFederation) -> None:
    async with auditing(federation) as calls:
        verifier = log_of(federation)
        old = open_checkpoint(await calls.checkpoint(federation.root), verifier).checkpoint
        await federation.deposit(federation.grant())
        new = open_checkpoint(await calls.checkpoint(federation.root), verifier).checkpoint
        proof = (await calls.proofs(federation.root, new.size, [], old_size=old.size)).consistency

    assert new.size > old.size
    verify_consistency(old.size, new.size, old.root, new.root, list(proof.hashes))

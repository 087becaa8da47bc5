"""A decision recorded after what it was decided by changed is decided again, under the head's lock."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import Connection, text

from permslip.errors import MalformedError, UnavailableError
from permslip.hosting.ledger import Draft, Ledger, Recorded
from tests.conformance.conftest import Database, Gate, note, refused

GRANT, OTHER = b"\x01" * 32, b"\x02" * 32


class Decider:
    """Decides by whether the word «revoked» is noted, and remembers the sizes at which it was asked again."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def draft(self, facts_position: int, *depends_on: bytes) -> Draft:
        return refused("allowed", depends_on=depends_on or (GRANT,), facts_position=facts_position, redo=self.again)

    def again(self, connection: Connection, size: int) -> Draft:
        self.asked.append(size)
        revoked = connection.execute(text("SELECT count(*) FROM noted WHERE word = 'revoked'")).scalar_one()
        return refused("refused" if revoked else "allowed again", depends_on=(GRANT,), facts_position=size)


async def revoke(ledger: Ledger) -> None:
    await ledger.append(refused("revoke", changes=(GRANT,), write=note("revoked")))


def methods(database: Database) -> list[str]:
    return [entry.request_refused.method for entry in database.entries()[1:]]


async def test_decision_by_facts_that_still_hold_is_recorded_as_it_is(database: Database) -> None:
    ledger, decider = database.open(), Decider()
    await revoke(ledger)

    await ledger.append(decider.draft(ledger.size))

    assert methods(database) == ["revoke", "allowed"]
    assert decider.asked == []


async def test_decision_by_facts_that_changed_is_decided_again(database: Database) -> None:
    ledger, decider = database.open(), Decider()
    facts = ledger.size
    await revoke(ledger)

    [recorded] = await ledger.append(decider.draft(facts))

    assert methods(database) == ["revoke", "refused"]
    assert recorded.draft.facts_position == recorded.position == 2
    assert decider.asked == [2]


async def test_change_of_another_subject_disturbs_nobody(database: Database) -> None:
    ledger, decider = database.open(), Decider()
    facts = ledger.size
    await revoke(ledger)

    await ledger.append(decider.draft(facts, OTHER))

    assert methods(database) == ["revoke", "allowed"]


async def test_change_just_before_in_the_same_batch_counts(database: Database) -> None:
    ledger, decider = database.open(), Decider()
    gate = Gate()
    held = ledger.submit(refused("held", write=gate))
    await gate.wait_until_held()

    revocation = ledger.submit(refused("revoke", changes=(GRANT,), write=note("revoked")))
    decision = ledger.submit(decider.draft(ledger.size))
    gate.open()
    await asyncio.gather(held, revocation, decision)

    assert methods(database) == ["held", "revoke", "refused"]
    assert decider.asked == [3]


async def test_change_that_was_taken_back_does_not_count(database: Database) -> None:
    ledger, decider = database.open(), Decider()
    gate = Gate()
    held = ledger.submit(refused("held", write=gate))
    await gate.wait_until_held()

    failing = ledger.submit(refused("revoke", changes=(GRANT,)), refused("too long" * 9_000))
    decision = ledger.submit(decider.draft(ledger.size))
    gate.open()

    with pytest.raises(MalformedError):
        await failing
    await asyncio.gather(held, decision)
    assert methods(database) == ["held", "allowed"]


async def test_facts_from_before_a_restart_are_checked_too(database: Database) -> None:
    ledger, decider = database.open(), Decider()
    facts = ledger.size
    await ledger.append(*(refused(changes=(bytes([i]) * 32,)) for i in range(3, 200)))
    await revoke(ledger)
    await ledger.close()

    again = database.open(own_engine=True)
    stale = await again.append(decider.draft(facts, OTHER, GRANT))
    fresh = await again.append(decider.draft(facts, OTHER))

    assert [entry.draft.body.method for entry in (*stale, *fresh)] == ["refused", "allowed"]  # type: ignore[attr-defined] # the message is known


async def test_without_redo_a_changed_fact_is_could_not_check(database: Database) -> None:
    ledger = database.open()
    await revoke(ledger)

    with pytest.raises(UnavailableError, match="changed before it was recorded"):
        await ledger.append(refused("allowed", depends_on=(GRANT,), facts_position=1))

    assert methods(database) == ["revoke"]


async def test_failing_redo_fails_its_own_call_alone(database: Database) -> None:
    ledger = database.open()
    await revoke(ledger)

    def again(connection: Connection, _size: int) -> Draft:
        connection.execute(text("SELECT no_such_column FROM noted"))
        raise AssertionError

    failing = ledger.submit(
        refused("kept out", write=note("kept out")),
        refused("allowed", depends_on=(GRANT,), facts_position=1, redo=again),
    )
    good = ledger.submit(refused("good", write=note("good")))

    with pytest.raises(Exception, match="no_such_column"):
        await failing
    await good
    assert methods(database) == ["revoke", "good"]
    assert [word for _, word in database.noted()] == ["revoked", "good"]


async def test_draft_decided_again_whose_projection_fails_leaves_nothing_behind(database: Database) -> None:
    ledger = database.open()
    await revoke(ledger)

    def fail(connection: Connection, position: int) -> None:
        note("half")(connection, position)
        raise KeyError(position)

    def again(_connection: Connection, size: int) -> Draft:
        return refused("again", slice=(OTHER, bytes(16)), facts_position=size, write=fail, changes=(OTHER,))

    failing = ledger.submit(refused("allowed", depends_on=(GRANT,), facts_position=1, redo=again))
    good = ledger.submit(refused("good", slice=(OTHER, bytes(16)), depends_on=(OTHER,), facts_position=2))

    with pytest.raises(KeyError):
        await failing
    [recorded] = await good
    assert (recorded.position, recorded.slice_seq) == (2, 1)
    assert methods(database) == ["revoke", "good"]
    assert [word for _, word in database.noted()] == ["revoked"]


async def test_redo_must_use_the_facts_it_was_given(database: Database) -> None:
    ledger = database.open()
    await revoke(ledger)
    stale = refused("stale", depends_on=(GRANT,), facts_position=1)

    with pytest.raises(MalformedError, match="decided again by the facts at 2"):
        await ledger.append(refused("first", depends_on=(GRANT,), facts_position=1, redo=lambda _c, _s: stale))


async def test_revocation_through_another_process_is_seen(database: Database) -> None:
    here, there = database.open(), database.open(own_engine=True)
    decider = Decider()
    await here.append(refused("first"))
    facts = here.size

    await revoke(there)
    await here.append(decider.draft(facts))
    await here.append(decider.draft(facts, OTHER))

    assert methods(database) == ["first", "revoke", "refused", "allowed"]


async def test_no_decision_is_recorded_by_facts_from_before_a_revocation_that_it_follows(database: Database) -> None:
    ledgers = [database.open(own_engine=True) for _ in range(2)]
    recorded: list[Recorded] = []

    async def decide(ledger: Ledger) -> None:
        for _ in range(60):
            recorded.extend(await ledger.append(Decider().draft(ledger.size)))

    async def revoke_in_the_middle() -> None:
        while ledgers[0].size < 20:
            await ledgers[0].append(refused("filler"))
        await revoke(ledgers[1])

    await asyncio.gather(decide(ledgers[0]), decide(ledgers[1]), revoke_in_the_middle())

    revoked_at = methods(database).index("revoke") + 1
    assert len(recorded) == 120
    for decision in recorded:
        facts = decision.draft.facts_position
        assert facts is not None
        assert not facts <= revoked_at < decision.position

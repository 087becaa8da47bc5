"""What the ledger promises, on every database: order, atomicity, chains, time, bounds."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import Connection, text

from permslip._pb.permslip.v1.ledger_pb2 import LedgerOpened, LogEntry, StatementsErased
from permslip.errors import ConfigurationError, MalformedError, RefusedError, UnavailableError
from permslip.hosting.ledger import Draft
from tests.conformance.conftest import KEEPER, ORIGIN, Database, Gate, note, refused

NODE = b"\x11" * 32
AVA, BEN = (NODE, b"\xaa" * 16), (NODE, b"\xbb" * 16)


async def test_new_ledger_begins_with_a_leaf_that_says_whose_it_is(database: Database) -> None:
    ledger = database.open()

    [first] = database.entries()

    assert ledger.size == 1
    assert (first.version, first.federation, first.ledger) == (1, "grand-bend", KEEPER)
    assert first.ledger_opened == LedgerOpened(origin=ORIGIN)


async def test_reopened_ledger_goes_on_where_it_was(database: Database) -> None:
    ledger = database.open()
    await ledger.append(refused("one", slice=AVA), refused("two"))
    head = ledger.head()
    await ledger.close()

    again = database.open(own_engine=True)

    assert again.head() == head
    [recorded] = await again.append(refused("three", slice=AVA))
    assert (recorded.position, recorded.slice_seq) == (3, 2)
    assert len(database.leaves()) == 4


@pytest.mark.parametrize("other", [{"federation": "elsewhere"}, {"keeper": bytes(32)}, {"origin": "grand-bend/node"}])
async def test_ledger_of_somebody_else_is_refused(database: Database, other: dict[str, Any]) -> None:
    database.open()

    with pytest.raises(ConfigurationError, match="this database holds grand-bend/broker"):
        database.open(**other)


async def test_database_without_the_tables_is_unavailable(database: Database) -> None:
    with database.engine.begin() as connection:
        connection.execute(text("DROP TABLE log_head"))

    with pytest.raises(UnavailableError, match="log_head"):
        database.open()


async def test_what_append_answers_is_what_is_stored(database: Database) -> None:
    ledger = database.open()

    [recorded] = await ledger.append(refused("Deposit", slice=AVA))

    leaf = database.leaves()[recorded.position]
    entry = LogEntry.FromString(leaf.leaf or b"")
    assert recorded.leaf_hash == leaf.leaf_hash
    assert recorded.recorded_at == entry.recorded_at == database.clock.now
    assert recorded.slice_seq == entry.slice_seq == 1
    assert (entry.slice.node, entry.slice.handle) == AVA
    assert entry.request_refused.method == recorded.draft.body.method == "Deposit"  # type: ignore[attr-defined] # the message is known


async def test_nonces_differ_between_equal_entries(database: Database) -> None:
    ledger = database.open()

    first, second = await ledger.append(refused(), refused())

    assert first.leaf_hash != second.leaf_hash
    assert len({entry.nonce for entry in database.entries()}) == 3


async def test_concurrent_appends_have_no_gap(database: Database) -> None:
    ledger = database.open()

    answers = await asyncio.gather(*(ledger.append(refused(f"m{i}")) for i in range(500)))

    entries = database.entries()
    for index, [recorded] in enumerate(answers):
        assert entries[recorded.position].request_refused.method == f"m{index}"
    assert sorted(recorded.position for [recorded] in answers) == list(range(1, 501))


async def test_drafts_of_one_call_stand_together_in_order(database: Database) -> None:
    ledger = database.open()

    calls = await asyncio.gather(*(ledger.append(refused("a"), refused("b"), refused("c")) for _ in range(50)))

    for recorded in calls:
        start = recorded[0].position
        assert [entry.position for entry in recorded] == [start, start + 1, start + 2]
    methods = [entry.request_refused.method for entry in database.entries()[1:]]
    assert methods == ["a", "b", "c"] * 50


async def test_append_of_nothing_records_nothing(database: Database) -> None:
    ledger = database.open()

    assert await ledger.append() == []
    assert ledger.size == 1


async def test_batches_smaller_than_what_waits_keep_the_order(database: Database) -> None:
    sizes: list[int] = []
    ledger = database.open(max_batch=3, on_batch=lambda leaves, _seconds: sizes.append(leaves))
    gate = Gate()
    held = ledger.submit(refused("held", write=gate))
    await gate.wait_until_held()

    waiting = [ledger.submit(refused(f"m{i}")) for i in range(7)]
    gate.open()
    await asyncio.gather(held, *waiting)

    assert sizes == [1, 3, 3, 1]
    assert [entry.request_refused.method for entry in database.entries()[2:]] == [f"m{i}" for i in range(7)]


async def test_entries_of_a_slice_are_numbered_and_linked(database: Database) -> None:
    ledger = database.open()

    for slice_of in (AVA, BEN, AVA, None, AVA, BEN):
        await ledger.append(refused(slice=slice_of))

    leaves = database.leaves()
    chain = [(LogEntry.FromString(leaf.leaf or b""), leaf.leaf_hash) for leaf in leaves]
    ava = [(entry, digest) for entry, digest in chain if entry.slice.handle == AVA[1]]
    assert [entry.slice_seq for entry, _ in ava] == [1, 2, 3]
    assert [entry.slice_prev for entry, _ in ava] == [b"", ava[0][1], ava[1][1]]
    assert [entry.position for entry in ledger.slice_entries(*AVA)] == [1, 3, 5]
    assert [entry.position for entry in ledger.slice_entries(*BEN)] == [2, 6]
    end = ledger.slice_end(*AVA)
    assert end is not None
    assert (end.seq, end.position, end.leaf_hash) == (3, 5, ava[2][1])


async def test_one_batch_extends_one_slice_many_times(database: Database) -> None:
    ledger = database.open()

    recorded = await ledger.append(*(refused(slice=AVA) for _ in range(5)))

    assert [entry.slice_seq for entry in recorded] == [1, 2, 3, 4, 5]
    entries = database.entries()[1:]
    assert [entry.slice_prev for entry in entries[1:]] == [entry.leaf_hash for entry in recorded[:-1]]


async def test_long_chain_is_read_page_by_page(database: Database) -> None:
    ledger = database.open()
    await ledger.append(*(refused(slice=(AVA, BEN)[i % 3 == 0]) for i in range(300)))

    pages = []
    after = 0
    while page := ledger.slice_entries(*AVA, after_seq=after, limit=37):
        pages.append(len(page))
        assert [entry.seq for entry in page] == list(range(after + 1, after + 1 + len(page)))
        for entry in page:
            stored = LogEntry.FromString(entry.leaf or b"")
            assert (stored.slice.handle, stored.slice_seq) == (AVA[1], entry.seq)
        after = page[-1].seq

    assert after == 200
    assert pages == [37] * 5 + [15]


async def test_slice_without_entries_has_no_end(database: Database) -> None:
    ledger = database.open()

    assert ledger.slice_end(*AVA) is None
    assert ledger.slice_entries(*AVA) == []


async def test_time_never_runs_backwards(database: Database) -> None:
    ledger = database.open()
    [first] = await ledger.append(refused())
    database.clock.now -= 30_000

    [second] = await ledger.append(refused())

    assert second.recorded_at == first.recorded_at
    assert not ledger.clock_is_behind()


async def test_clock_far_behind_refuses_all_but_the_entry_that_says_so(database: Database) -> None:
    ledger = database.open()
    await ledger.append(refused())
    database.clock.now -= 60_001

    assert ledger.clock_is_behind()
    with pytest.raises(RefusedError, match="60 s behind") as raised:
        await ledger.append(refused())
    assert raised.value.code == "CLOCK"
    [recorded] = await ledger.append(refused("clock", despite_clock=True))
    assert recorded.position == 2


async def test_ledger_may_be_told_not_to_mind_the_clock(database: Database) -> None:
    ledger = database.open(max_clock_lag=None)
    database.clock.now = 5

    [recorded] = await ledger.append(refused())

    assert not ledger.clock_is_behind()
    assert recorded.recorded_at == 1_790_000_000_000


async def test_projection_is_written_in_the_same_transaction(database: Database) -> None:
    ledger = database.open()

    [recorded] = await ledger.append(refused(write=note("granted")))

    assert database.noted() == [(recorded.position, "granted")]


async def test_failing_projection_fails_its_own_call_alone(database: Database) -> None:
    ledger = database.open()
    gate = Gate()
    held = ledger.submit(refused("held", write=gate))
    await gate.wait_until_held()

    def fail(connection: Connection, position: int) -> None:
        note("half")(connection, position)
        connection.execute(text("INSERT INTO noted (position, word) VALUES (-1, NULL)"))

    before = ledger.submit(refused("before", slice=AVA, write=note("before")))
    failing = ledger.submit(
        refused("first", slice=AVA, write=note("first"), changes=(b"x" * 32,)),
        refused("second", slice=BEN, write=fail),
    )
    after = ledger.submit(refused("after", slice=AVA, write=note("after")), refused("ben", slice=BEN))
    gate.open()

    with pytest.raises(Exception, match=r"(?i)null"):
        await failing
    await asyncio.gather(held, before, after)
    assert [entry.request_refused.method for entry in database.entries()[1:]] == ["held", "before", "after", "ben"]
    assert database.noted() == [(2, "before"), (3, "after")]
    assert [entry.seq for entry in ledger.slice_entries(*AVA)] == [1, 2]
    assert [entry.seq for entry in ledger.slice_entries(*BEN)] == [1]
    assert ledger.read_head().change_position == -1


@pytest.mark.parametrize(
    ("draft", "field"),
    [
        (Draft("nothing_known", LedgerOpened()), "event"),
        (Draft("access_decided", LedgerOpened()), "access_decided"),
        (refused(slice=(NODE, b"short")), "slice"),
        (refused(slice=(b"short", AVA[1])), "slice"),
        (Draft("statements_erased", StatementsErased(statement_ids=[bytes(32)] * 2_000)), "leaf"),
        (refused(facts_position=99), "facts_position"),
    ],
)
async def test_draft_that_cannot_be_a_leaf_is_refused_by_field(database: Database, draft: Draft, field: str) -> None:
    ledger = database.open()

    good, bad = ledger.submit(refused("good")), ledger.submit(draft)

    with pytest.raises(MalformedError) as raised:
        await bad
    assert raised.value.field == field
    await good
    assert len(database.leaves()) == 2


async def test_submit_refuses_and_append_waits_when_too_much_is_waiting(database: Database) -> None:
    ledger = database.open(max_pending=2)
    gate = Gate()
    held = ledger.submit(refused("held", write=gate))
    await gate.wait_until_held()
    second = ledger.submit(refused("second"))

    with pytest.raises(UnavailableError, match="2 entries are waiting"):
        ledger.submit(refused("refused"))
    third = asyncio.ensure_future(ledger.append(refused("third")))
    await asyncio.sleep(0)
    assert not third.done()

    gate.open()
    await asyncio.gather(held, second, third)
    assert [entry.request_refused.method for entry in database.entries()[1:]] == ["held", "second", "third"]


async def test_caller_that_stops_waiting_does_not_take_its_draft_back(database: Database) -> None:
    ledger = database.open()
    gate = Gate()
    held = ledger.submit(refused("held", write=gate))
    await gate.wait_until_held()

    impatient = asyncio.ensure_future(ledger.append(refused("impatient")))
    await asyncio.sleep(0)
    impatient.cancel()
    gate.open()
    await held
    await ledger.append(refused("last"))

    assert impatient.cancelled()
    assert [entry.request_refused.method for entry in database.entries()[1:]] == ["held", "impatient", "last"]


async def test_close_records_what_was_submitted_and_refuses_the_rest(database: Database) -> None:
    ledger = database.open()
    gate = Gate()
    ledger.submit(refused("held", write=gate))
    await gate.wait_until_held()
    waiting = ledger.submit(refused("waiting"))

    closing = asyncio.ensure_future(ledger.close())
    await asyncio.sleep(0)
    with pytest.raises(UnavailableError, match="closed"):
        ledger.submit(refused("late"))
    gate.open()
    await closing

    assert waiting.done()
    assert len(database.leaves()) == 3
    await ledger.close()


async def test_size_and_root_are_those_of_the_last_commit(database: Database) -> None:
    ledger = database.open()
    gate = Gate()
    before = ledger.head()
    held = ledger.submit(refused(write=gate))
    await gate.wait_until_held()

    assert ledger.head() == before
    gate.open()
    await held

    head = ledger.read_head()
    assert ledger.head() == (ledger.size, ledger.root()) == (head.size, head.root) == (2, head.root)


async def test_batches_are_reported(database: Database) -> None:
    reports: list[tuple[int, float]] = []
    ledger = database.open(on_batch=lambda leaves, seconds: reports.append((leaves, seconds)))

    await ledger.append(refused(), refused())
    with pytest.raises(MalformedError):
        await ledger.append(refused(slice=(b"", b"")))

    [(leaves, seconds)] = reports
    assert leaves == 2
    assert seconds > 0

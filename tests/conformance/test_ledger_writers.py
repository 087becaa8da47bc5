"""Several processes on one ledger, and databases that fail: no gap, nothing acknowledged that is not there."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import Connection, delete, event, text
from sqlalchemy.exc import OperationalError

from permslip._pb.permslip.v1.ledger_pb2 import LogEntry
from permslip.errors import UnavailableError
from permslip.hosting import appending
from tests.conformance.conftest import Database, Gate, note, refused

NODE = b"\x11" * 32
HANDLES = [bytes([i]) * 16 for i in range(5)]


async def test_two_writers_leave_no_gap_and_share_the_chains(database: Database) -> None:
    ledgers = [database.open(own_engine=True) for _ in range(2)]

    answers = await asyncio.gather(
        *(ledgers[i % 2].append(refused(f"m{i}", slice=(NODE, HANDLES[i % 5]), write=note(f"{i}"))) for i in range(400))
    )

    leaves = database.leaves()
    assert len(leaves) == 401
    assert sorted(recorded.position for [recorded] in answers) == list(range(1, 401))
    for index, [recorded] in enumerate(answers):
        leaf = leaves[recorded.position]
        assert leaf.leaf_hash == recorded.leaf_hash
        assert LogEntry.FromString(leaf.leaf or b"").request_refused.method == f"m{index}"
    for handle in HANDLES:
        chain = ledgers[0].slice_entries(NODE, handle)
        assert [entry.seq for entry in chain] == list(range(1, 81))
        previous = b""
        for link in chain:
            assert LogEntry.FromString(link.leaf or b"").slice_prev == previous
            previous = link.leaf_hash


async def test_two_processes_that_open_a_new_ledger_make_one(database: Database) -> None:
    ledgers = await asyncio.gather(*(asyncio.to_thread(database.open, own_engine=True) for _ in range(4)))

    await asyncio.gather(*(ledger.append(refused()) for ledger in ledgers))

    assert [entry.WhichOneof("event") for entry in database.entries()] == ["ledger_opened"] + ["request_refused"] * 4


async def test_head_of_another_process_is_read_from_the_database(database: Database) -> None:
    here, there = database.open(), database.open(own_engine=True)

    await there.append(refused())

    assert here.size == 1
    assert here.read_head().size == 2
    with database.engine.connect() as connection:
        assert here.read_head(connection) == there.read_head()


async def test_commit_that_fails_fails_all_its_calls_and_leaves_no_gap(database: Database) -> None:
    ledger = database.open()
    await ledger.append(refused("before", slice=(NODE, HANDLES[0])))

    def fail(_connection: Connection) -> None:
        raise OperationalError("COMMIT", None, Exception("no space left on device"))

    event.listen(database.engine, "commit", fail)
    lost = [ledger.submit(refused("lost", slice=(NODE, HANDLES[0]), write=note(f"lost {i}"))) for i in range(3)]
    errors = await asyncio.gather(*lost, return_exceptions=True)
    event.remove(database.engine, "commit", fail)

    for error in errors:
        assert isinstance(error, UnavailableError)
        assert "no space left on device" in str(error)
    assert len({id(error) for error in errors}) == 3
    [recorded] = await ledger.append(refused("after", slice=(NODE, HANDLES[0])))
    assert (recorded.position, recorded.slice_seq) == (2, 2)
    assert [entry.request_refused.method for entry in database.entries()[1:]] == ["before", "after"]
    assert database.noted() == []


async def test_commit_that_failed_only_in_appearance_is_found_by_the_next(database: Database) -> None:
    ledger = database.open()

    def commit_and_fail(connection: Connection) -> None:
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.commit()
        raise OperationalError("COMMIT", None, Exception("connection lost"))

    event.listen(database.engine, "commit", commit_and_fail)
    with pytest.raises(UnavailableError, match="connection lost"):
        await ledger.append(refused("uncertain", slice=(NODE, HANDLES[0])))
    event.remove(database.engine, "commit", commit_and_fail)

    [recorded] = await ledger.append(refused("after", slice=(NODE, HANDLES[0])))

    assert (recorded.position, recorded.slice_seq) == (2, 2)
    assert [entry.request_refused.method for entry in database.entries()[1:]] == ["uncertain", "after"]


async def test_transaction_that_the_database_gave_up_is_done_again(database: Database) -> None:
    ledger = database.open()
    tries: list[int] = []

    class SerializationError(Exception):
        sqlstate = "40001"

    def write(connection: Connection, position: int) -> None:
        note("once")(connection, position)
        tries.append(position)
        if len(tries) < 3:
            raise OperationalError("INSERT", None, SerializationError("could not serialize access"))

    [recorded] = await ledger.append(refused(write=write))

    assert tries == [1, 1, 1]
    assert database.noted() == [(recorded.position, "once")]
    assert len(database.leaves()) == 2


async def test_transaction_that_is_always_given_up_is_unavailable(database: Database) -> None:
    ledger = database.open()

    class DeadlockError(Exception):
        sqlstate = "40P01"

    def write(_connection: Connection, _position: int) -> None:
        raise OperationalError("INSERT", None, DeadlockError("deadlock detected"))

    with pytest.raises(UnavailableError, match="deadlock detected"):
        await ledger.append(refused(write=write))
    assert len(database.leaves()) == 1


async def test_callback_that_ends_the_transaction_is_found_out(database: Database) -> None:
    """As when SQLite's disk is full: it rolls back by itself, and what follows would be committed bare."""
    ledger = database.open()

    def write(connection: Connection, _position: int) -> None:
        cursor = connection.connection.cursor()
        cursor.execute("ROLLBACK")

    with pytest.raises(UnavailableError):
        await ledger.append(refused(write=write))

    await ledger.append(refused("after"))
    assert [entry.request_refused.method for entry in database.entries()[1:]] == ["after"]


async def test_exchanged_database_is_refused(database: Database) -> None:
    ledger = database.open()
    await ledger.append(refused())
    with database.engine.begin() as connection:
        connection.execute(delete(database.tables.leaf).where(database.tables.leaf.c.position == 1))
        connection.execute(text("UPDATE log_head SET size = 1"))

    with pytest.raises(UnavailableError, match="exchanged"):
        await ledger.append(refused())


async def test_tree_that_does_not_give_the_root_is_refused(database: Database) -> None:
    ledger = database.open()
    await ledger.append(refused(), refused(), refused())
    await ledger.close()
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE log_head SET root = :root"), {"root": bytes(32)})

    with pytest.raises(UnavailableError, match="root"):
        database.open(own_engine=True)


async def test_ledger_that_remembers_little_is_the_same_ledger(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appending, "_REMEMBERED_SLICES", 2)
    monkeypatch.setattr(appending, "_REMEMBERED_CHANGES", 3)
    here, there = database.open(), database.open(own_engine=True)
    subjects = [bytes([i]) * 32 for i in range(8)]
    changed: dict[bytes, int] = {}

    for step in range(60):
        ledger = (here, there)[step % 7 == 0]
        subject, facts = subjects[step % 8], max(1, ledger.size - step % 20)
        draft = refused(slice=(NODE, HANDLES[step % 5]), depends_on=(subject,), facts_position=facts)
        if changed.get(subject, -1) >= facts:
            with pytest.raises(UnavailableError):
                await ledger.append(draft)
        else:
            await ledger.append(draft)
        if step % 3 == 0:
            [recorded] = await ledger.append(refused(changes=(subjects[step // 3 % 8], subject)))
            changed |= {subjects[step // 3 % 8]: recorded.position, subject: recorded.position}

    database.leaves()
    for handle in HANDLES:
        chain = here.slice_entries(NODE, handle)
        assert [entry.seq for entry in chain] == list(range(1, len(chain) + 1))


def test_ledger_serves_one_event_loop_at_a_time(database_url: str) -> None:
    database = Database(database_url)
    ledger = database.open()
    gate = Gate()

    async def elsewhere() -> None:
        with pytest.raises(RuntimeError, match="one event loop at a time"):
            await ledger.append(refused())

    async def here() -> None:
        held = ledger.submit(refused(write=gate))
        await gate.wait_until_held()
        await asyncio.to_thread(asyncio.run, elsewhere())
        gate.open()
        await held

    asyncio.run(here())
    asyncio.run(ledger_goes_on(database))


async def ledger_goes_on(database: Database) -> None:
    [ledger] = database.ledgers
    [recorded] = await ledger.append(refused())
    assert recorded.position == 2
    await database.close()


async def test_loop_that_ends_while_the_ledger_writes_does_not_end_the_ledger(database: Database) -> None:
    ledger = database.open()
    gate = Gate()

    async def submit_and_leave() -> None:
        ledger.submit(refused("left behind", write=gate))
        await gate.wait_until_held()

    await asyncio.to_thread(asyncio.run, submit_and_leave())
    gate.open()
    while ledger.size < 2:
        await asyncio.to_thread(ledger.read_head)

    other = database.open(own_engine=True)
    await other.append(refused("after"))
    assert [entry.request_refused.method for entry in database.entries()[1:]] == ["left behind", "after"]


async def test_error_that_nobody_foresaw_reaches_those_who_wait(database: Database) -> None:
    calls: list[int] = []

    def entropy(count: int) -> bytes:
        calls.append(count)
        if len(calls) == 2:
            raise OSError("no entropy")
        return bytes(count)

    ledger = database.open(entropy=entropy)
    with pytest.raises(OSError, match="no entropy"):
        await ledger.append(refused())

    [recorded] = await ledger.append(refused())
    assert recorded.position == 1

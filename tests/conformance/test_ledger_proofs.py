"""Every root, proof and chain of the stored tree is that of a model in memory, whatever was appended and erased."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import Connection

from permslip._pb.permslip.v1.ledger_pb2 import LogEntry, StatementsErased
from permslip.errors import MalformedError, ProofError
from permslip.hosting.ledger import Draft, Ledger
from permslip.merkle import Frontier, verify_consistency, verify_inclusion
from tests.conformance.conftest import Database, note, refused

NODE = b"\x11" * 32
HANDLES = [bytes([i]) * 16 for i in range(3)]
KINDS = st.sampled_from(["plain", "writes", "fails"])


def roots(database: Database) -> list[bytes]:
    """The root of every size, made by the model."""
    frontier = Frontier()
    made = [frontier.root()]
    for leaf in database.leaves():
        frontier.append(leaf.leaf_hash)
        made.append(frontier.root())
    return made


async def test_proofs_between_random_sizes_verify(database: Database) -> None:
    ledger = database.open()
    chance = random.Random(6962)
    while ledger.size < 300:
        await ledger.append(*(refused() for _ in range(chance.randint(1, 40))))
    root_of = roots(database)
    leaves = database.leaves()

    for _ in range(150):
        size = chance.randint(1, ledger.size)
        old, position = chance.randint(0, size), chance.randrange(size)
        inclusion = ledger.inclusion_proof(position, size)
        verify_inclusion(leaves[position].leaf_hash, position, size, inclusion, root_of[size])
        verify_consistency(old, size, root_of[old], root_of[size], ledger.consistency_proof(old, size))


async def test_proof_beyond_the_ledger_is_refused(database: Database) -> None:
    ledger = database.open()
    await ledger.append(*(refused() for _ in range(40)))

    with pytest.raises(ProofError):
        ledger.inclusion_proof(41, 41)
    with pytest.raises(ProofError, match="found none"):
        ledger.inclusion_proof(3, 64)
    with pytest.raises(ProofError, match="found none"):
        ledger.consistency_proof(40, 50)


async def test_leaves_are_read_by_range(database: Database) -> None:
    ledger = database.open()
    await ledger.append(*(refused(f"m{i}") for i in range(2_300)))

    positions = [leaf.position for leaf in ledger.leaves(7, 2_200)]

    assert positions == list(range(7, 2_200))
    assert [leaf.position for leaf in ledger.leaves(2_299, 9_999)] == [2_299, 2_300]
    assert list(ledger.leaves(5, 5)) == list(ledger.leaves(9_000, 9_999)) == []


async def test_erased_leaf_keeps_its_hash_and_every_proof(database: Database) -> None:
    ledger = database.open()
    await ledger.append(*(refused(slice=(NODE, HANDLES[0])) for _ in range(20)))
    before = database.leaves()
    head = ledger.read_head()

    assert ledger.erase([3, 7, 7, 19]) == 3
    assert ledger.erase([3]) == 0

    after = database.leaves()
    assert [leaf.leaf_hash for leaf in after] == [leaf.leaf_hash for leaf in before]
    assert [leaf.position for leaf in after if leaf.leaf is None] == [3, 7, 19]
    assert ledger.read_head() == head
    assert [entry.seq for entry in ledger.slice_entries(NODE, HANDLES[0]) if entry.leaf is None] == [3, 7, 19]


async def test_erasure_and_the_entry_that_says_so_are_one_transaction(database: Database) -> None:
    ledger = database.open()
    await ledger.append(refused(), refused())

    def erase(connection: Connection, position: int) -> None:
        ledger.erase([1], connection)
        note("erased")(connection, position)

    said = StatementsErased(statement_ids=[bytes(32)], retention_rule="school-year")
    await ledger.append(Draft("statements_erased", said, write=erase))
    with pytest.raises(MalformedError):
        await ledger.append(Draft("statements_erased", said, write=erase), refused(slice=(b"", b"")))

    assert [leaf.leaf is None for leaf in database.leaves()] == [False, True, False, False]


async def test_first_leaf_cannot_be_erased(database: Database) -> None:
    ledger = database.open()

    with pytest.raises(MalformedError, match="from 1 on"):
        ledger.erase([0, 1])


async def test_chain_with_a_hole_is_refused(database: Database) -> None:
    ledger = database.open()
    await ledger.append(*(refused(slice=(NODE, HANDLES[0])) for _ in range(6)))
    leaf = database.tables.leaf
    with database.engine.begin() as connection:
        connection.execute(leaf.update().where(leaf.c.position == 4).values(previous=None))

    with pytest.raises(ProofError, match="1 to 6"):
        ledger.slice_entries(NODE, HANDLES[0])


class LedgerMachine(RuleBasedStateMachine):
    """Appends, failures, restarts, erasures and a second writer, against lists in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.words: list[str] = []
        self.chains: dict[bytes, list[int]] = {}
        self.erased: set[int] = set()

    @initialize()
    def open(self) -> None:
        self.database = Database(f"sqlite:///{Path(self.folder.name) / 'machine.db'}")
        self.ledgers: list[Ledger] = [self.database.open(), self.database.open(own_engine=True)]

    @rule(
        which=st.integers(0, 1),
        calls=st.lists(
            st.lists(
                st.tuples(st.sampled_from([None, *HANDLES]), st.sampled_from(["plain", "writes", "fails"])), max_size=4
            ),
            max_size=6,
        ),
    )
    def append(self, which: int, calls: list[list[tuple[bytes | None, str]]]) -> None:
        ledger = self.ledgers[which]

        async def submit() -> list[Any]:
            futures = [ledger.submit(*(self.draft(handle, kind) for handle, kind in call)) for call in calls]
            return await asyncio.gather(*futures, return_exceptions=True)

        for call, answer in zip(calls, self.runner.run(submit()), strict=True):
            if any(kind == "fails" for _, kind in call):
                assert isinstance(answer, MalformedError)
                continue
            for (handle, kind), recorded in zip(call, answer, strict=True):
                self.words.append(kind)
                assert recorded.position == len(self.words)
                if handle is not None:
                    self.chains.setdefault(handle, []).append(recorded.position)
                    assert recorded.slice_seq == len(self.chains[handle])

    @staticmethod
    def draft(handle: bytes | None, kind: str) -> Draft:
        where = None if handle is None else (NODE, handle)
        if kind == "fails":
            return refused("f" * 70_000, slice=where)
        return refused(kind, slice=where, write=note(kind) if kind == "writes" else None)

    @rule(which=st.integers(0, 1))
    def restart(self, which: int) -> None:
        self.runner.run(self.ledgers[which].close())
        self.ledgers[which] = self.database.open(own_engine=True)

    @precondition(lambda self: self.words)
    @rule(data=st.data())
    def erase(self, data: st.DataObject) -> None:
        position = data.draw(st.integers(1, len(self.words)))
        self.ledgers[0].erase([position])
        self.erased.add(position)

    @invariant()
    def stored_is_what_the_model_has(self) -> None:
        if not hasattr(self, "database"):
            return
        leaves = self.database.leaves()
        assert len(leaves) == len(self.words) + 1
        for leaf, word in zip(leaves[1:], self.words, strict=True):
            assert (leaf.leaf is None) == (leaf.position in self.erased)
            assert leaf.leaf is None or LogEntry.FromString(leaf.leaf).request_refused.method == word
        for handle in HANDLES:
            chain = self.ledgers[0].slice_entries(NODE, handle)
            assert [entry.position for entry in chain] == self.chains.get(handle, [])
        assert [position for position, _ in self.database.noted()] == [
            position for position, word in enumerate(self.words, 1) if word == "writes"
        ]

    def teardown(self) -> None:
        if hasattr(self, "database"):
            self.runner.run(self.database.close())
        self.runner.close()
        self.folder.cleanup()


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=15, stateful_step_count=12, deadline=None)

"""What a keeper alters, leaves out or forges is told by the fetch, kept as evidence, and told again by verifying."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from permslip._pb.permslip.v1 import auditor_pb2, ledger_pb2, node_pb2
from permslip.auditing.bundle import Bundle
from permslip.auditing.fetching import Fetch, new_meta
from permslip.auditing.results import Result
from permslip.auditing.verifying import verify
from permslip.checkpoints import Checkpoint, sign_checkpoint
from permslip.client.statement_bounds import MOST_TIMES, StatementBound
from permslip.errors import MalformedError
from permslip.hosting.ledger_pages import LedgerPages
from permslip.keys import did_text
from permslip.merkle import Frontier, leaf_hash
from permslip.notes import Ed25519Signer
from tests.e2e.auditor.test_fetch import accesses, auditing, trust_in
from tests.e2e.auditor.test_lying_nodes import TellingNode, attached
from tests.e2e.broker.small_federation import FEDERATION, SmallFederation

Plant = Callable[[sqlite3.Connection], object]


def plant(federation: SmallFederation, edit: Plant) -> None:
    """Edit the broker's database while it runs."""
    path = federation.settings.database.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path, timeout=20)) as db:
        edit(db)
        db.commit()


async def fetched(
    federation: SmallFederation, path: Path, edit: Plant, *, again: Plant | None = None
) -> tuple[Result, Result, dict[str, int]]:
    """Accesses, a lie, a fetch (perhaps another lie, and a second fetch); what fetch and verify said."""
    await accesses(federation, 3)
    async with auditing(federation) as client:
        plant(federation, edit)
        with Bundle.create(path, await new_meta(client)) as bundle:
            told = await Fetch(client, bundle, trust_in(federation), nodes=[]).run()
            if again is not None:
                plant(federation, again)
                told = await Fetch(client, bundle, trust_in(federation), nodes=[]).run()
            checked = verify(bundle, trust_in(federation))
            rows = bundle.db.execute(
                "SELECT code, count(*) FROM finding WHERE step = 'verify' AND severity = 'fault' GROUP BY code"
            )
            return told, checked, dict(rows.fetchall())


def alter_leaf(db: sqlite3.Connection) -> None:
    [[leaf]] = db.execute("SELECT leaf FROM leaf WHERE position = 6")
    db.execute("UPDATE leaf SET leaf = ? WHERE position = 6", (leaf[:-1] + bytes([leaf[-1] ^ 1]),))


def alter_leaf_and_hash(db: sqlite3.Connection) -> None:
    [[leaf]] = db.execute("SELECT leaf FROM leaf WHERE position = 6")
    altered = leaf[:-1] + bytes([leaf[-1] ^ 1])
    db.execute("UPDATE leaf SET leaf = ?, leaf_hash = ? WHERE position = 6", (altered, leaf_hash(altered)))


def alter_evidence(db: sqlite3.Connection) -> None:
    [(position, envelope)] = db.execute("SELECT position, envelope FROM evidence ORDER BY position LIMIT 1")
    altered = envelope[:-1] + bytes([envelope[-1] ^ 1])
    db.execute("UPDATE evidence SET envelope = ? WHERE position = ?", (altered, position))


def nothing(_: sqlite3.Connection) -> None:
    """An honest keeper."""


async def test_a_leaf_that_was_altered_is_told_and_kept(federation: SmallFederation, tmp_path: Path) -> None:
    told, checked, faults = await fetched(federation, tmp_path / "audit.db", alter_leaf)

    assert (told.exit_code, told.findings["LEAF_HASH"]) == (1, 1)
    assert checked.exit_code == 1
    assert faults["LEAF_HASH"] == 1
    assert "CHECKPOINT_ROOT" not in faults


async def test_a_leaf_that_was_altered_with_its_hash_is_not_under_the_root(
    federation: SmallFederation, tmp_path: Path
) -> None:
    told, _, faults = await fetched(federation, tmp_path / "audit.db", alter_leaf_and_hash)

    assert told.findings["CHECKPOINT_ROOT"] == 1
    assert "CHECKPOINT_ROOT" in faults


async def test_a_leaf_that_is_missing_ends_the_ledger(federation: SmallFederation, tmp_path: Path) -> None:
    told, checked, faults = await fetched(
        federation, tmp_path / "audit.db", lambda db: db.execute("DELETE FROM leaf WHERE position = 6")
    )

    assert dict(told.findings) == {"POSITION_GAP": 1}
    assert checked.exit_code == 1
    assert faults["POSITION_GAP"] == 1


async def test_a_query_that_was_altered_is_told_and_kept(federation: SmallFederation, tmp_path: Path) -> None:
    told, _, faults = await fetched(federation, tmp_path / "audit.db", alter_evidence)

    assert told.exit_code == 1
    assert set(told.findings) <= {"STATEMENT_SIGNATURE", "STATEMENT_MALFORMED"}
    assert faults.keys() & {"STATEMENT_SIGNATURE", "STATEMENT_MALFORMED"}


async def test_a_query_that_was_removed_without_an_entry_is_missing(
    federation: SmallFederation, tmp_path: Path
) -> None:
    _, checked, faults = await fetched(federation, tmp_path / "audit.db", lambda db: db.execute("DELETE FROM evidence"))

    assert (checked.exit_code, faults) == (1, {"STATEMENT_MISSING": 4})


async def test_a_history_that_was_rewritten_between_two_visits_is_a_fork(
    federation: SmallFederation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, origin = federation.broker_keys.key, federation.settings.ledger_origin

    def rewrite(db: sqlite3.Connection) -> None:
        alter_leaf_and_hash(db)
        hashes = [digest for (digest,) in db.execute("SELECT leaf_hash FROM leaf ORDER BY position")]
        tree = Frontier()
        for level, index, digest in tree.extend(hashes):
            db.execute("UPDATE tree_hash SET hash = ? WHERE level = ? AND idx = ?", (digest, level, index))
        db.execute("UPDATE log_head SET root = ?", (tree.root(),))
        note = sign_checkpoint(Checkpoint(origin, tree.size, tree.root()), [Ed25519Signer(origin, key)])

        async def rewritten(*_: object) -> bytes:
            return note

        monkeypatch.setattr(type(federation.broker.auditors._checkpoints), "own", rewritten)

    told, checked, faults = await fetched(federation, tmp_path / "audit.db", nothing, again=rewrite)

    assert dict(told.findings) == {"CHECKPOINT_FORK": 1}
    assert checked.exit_code == 1
    assert faults["CHECKPOINT_FORK"] >= 1


async def test_statements_without_end_are_not_taken(
    federation: SmallFederation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = LedgerPages.statements_named

    def without_end(pages: LedgerPages, *asked: Any) -> Iterator[bytes]:
        return cycle(honest(pages, *asked))

    monkeypatch.setattr(LedgerPages, "statements_named", without_end)
    await accesses(federation, 1)
    async with auditing(federation) as client:
        with Bundle.create(tmp_path / "audit.db", await new_meta(client)) as bundle:
            told = await Fetch(client, bundle, trust_in(federation), nodes=[]).run()
            [ledger] = bundle.ledgers()

    assert (told.word, dict(told.findings)) == ("unchecked", {"LEDGER_UNREACHED": 1})
    assert "statements" in told.unchecked
    assert ledger.fetched == 0


def test_a_keeper_who_breaks_off_again_and_again_is_bounded_too() -> None:
    bound = StatementBound.of_range(4, 5)
    two = auditor_pb2.FetchStatementsResponse(erased=[bytes(32)] * 2)

    for _ in range(MOST_TIMES):
        bound.begin()
        bound.take(two)
    bound.begin()
    with pytest.raises(MalformedError, match="at most 2"):
        bound.take(two)


def test_an_erased_statement_is_told_by_an_id() -> None:
    bound = StatementBound.of_range(0, 1)
    bound.begin()
    with pytest.raises(MalformedError, match="32 bytes"):
        bound.take(auditor_pb2.FetchStatementsResponse(erased=[bytes(1 << 20)]))


# ------------------------------------------------------------------------------------------------------- nodes


@asynccontextmanager
async def fetching_node(
    federation: SmallFederation, path: Path, tell: Any
) -> AsyncIterator[tuple[Result, dict[str, int]]]:
    async with auditing(federation) as client, attached(federation, tell):
        with Bundle.create(path, await new_meta(client)) as bundle:
            result = await Fetch(client, bundle, trust_in(federation), nodes=[federation.school.root]).run()
            yield result, dict(bundle.db.execute("SELECT did, fetched FROM ledger").fetchall())


def signed(federation: SmallFederation, size: int, root: bytes) -> bytes:
    """A checkpoint of the school's ledger."""
    origin = f"{FEDERATION}/node/{federation.school.root.hex()[:16]}"
    return sign_checkpoint(Checkpoint(origin, size, root), [Ed25519Signer(origin, federation.school.key)])


def answer(node: TellingNode, call: node_pb2.LedgerCall, **reply: Any) -> None:
    node.reply(node_pb2.LedgerReply(call_id=call.call_id, last=True, **reply))


async def test_a_nodes_entries_that_are_not_sealed_are_not_taken(federation: SmallFederation, tmp_path: Path) -> None:
    leaf = b"a leaf"
    note = signed(federation, 1, leaf_hash(leaf))

    def tell(node: TellingNode, call: node_pb2.LedgerCall) -> None:
        if call.HasField("checkpoint"):
            told = auditor_pb2.GetCheckpointResponse(checkpoint=ledger_pb2.SignedCheckpoint(note=note))
            answer(node, call, checkpoint=told)
        else:
            entry = ledger_pb2.LedgerLeaf(position=0, leaf_hash=leaf_hash(leaf), leaf=leaf)
            answer(node, call, entries=auditor_pb2.FetchEntriesResponse(entries=[entry]))

    async with fetching_node(federation, tmp_path / "audit.db", tell) as (result, ledgers):
        assert result.exit_code != 0
        assert ledgers[did_text(federation.school.root)] == 0


async def test_a_nodes_checkpoint_by_another_key_is_told(federation: SmallFederation, tmp_path: Path) -> None:
    origin = f"{FEDERATION}/node/{federation.school.root.hex()[:16]}"
    note = sign_checkpoint(Checkpoint(origin, 1, bytes(32)), [Ed25519Signer(origin, federation.platform.key)])

    def tell(node: TellingNode, call: node_pb2.LedgerCall) -> None:
        told = auditor_pb2.GetCheckpointResponse(checkpoint=ledger_pb2.SignedCheckpoint(note=note))
        answer(node, call, checkpoint=told)

    async with fetching_node(federation, tmp_path / "audit.db", tell) as (result, ledgers):
        assert result.exit_code == 1
        assert dict(result.findings) == {"CHECKPOINT_SIGNATURE": 1}
        assert len(ledgers) == 1

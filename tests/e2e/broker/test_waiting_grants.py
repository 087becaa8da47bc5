"""Grants that wait for their school's word: how many may, and whom a flood of them keeps waiting."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config

from permslip._pb.permslip.v1 import session_pb2, statement_pb2 as pb
from permslip.hosting.database import open_engine, writing
from permslip.reasons import Reason
from permslip.statements import Signed
from permslip_broker.configuration import LimitSettings
from tests.e2e.broker.small_federation import SmallFederation
from tests.federation.principals import Person

OF_ONE, AT_ONE = 3, 5


@pytest.fixture
async def federation(tmp_path: Path) -> AsyncIterator[SmallFederation]:
    """A broker that lets few wait, with everybody admitted."""
    made = SmallFederation(tmp_path)
    limits = LimitSettings(waiting_grants_per_signer=OF_ONE, waiting_grants_per_node=AT_ONE)
    made.settings = replace(made.settings, limits=limits)
    async with made.running():
        await made.admit_all()
        yield made


async def outcome(federation: SmallFederation, grant: Signed[pb.Grant]) -> session_pb2.Refusal:
    [result] = (await federation.deposit(grant)).results
    return result.refusal


async def is_let_in(federation: SmallFederation, grant: Signed[pb.Grant]) -> bool:
    code = Reason((await outcome(federation, grant)).code)
    assert code in {Reason.ALLOWED, Reason.BUSY}
    return code is Reason.ALLOWED


async def flood(federation: SmallFederation, count: int = AT_ONE) -> None:
    """Grants by keys that nobody knows, on handles that were given to nobody, until no more are let in."""
    for _ in range(count):
        await federation.deposit(federation.grant(signers=[Person.new()], handle=os.urandom(16)))
    assert not await is_let_in(federation, federation.grant(signers=[Person.new()], handle=os.urandom(16)))


def put_back_to(revision: str, database: Path) -> None:
    """Let a broker's database be what software of that revision would have written."""
    newer = database.rename(database.with_name("newer.db"))
    config = Config()
    config.set_main_option("script_location", "permslip_broker:migrations")
    engine = open_engine(f"sqlite:///{database}")
    with writing(engine) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()
    with closing(sqlite3.connect(database)) as older:
        older.execute("ATTACH ? AS newer", (str(newer),))
        tables = [name for (name,) in older.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'")]
        for table in sorted(set(tables) - {"alembic_version"}):
            columns = ", ".join(f'"{row[1]}"' for row in older.execute(f"PRAGMA main.table_info({table})"))
            older.execute(f"DELETE FROM main.{table}")
            older.execute(f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM newer.{table}")
        older.commit()


async def test_of_one_key_so_many_grants_may_wait_and_no_more(federation: SmallFederation) -> None:
    grants = [federation.grant() for _ in range(OF_ONE + 2)]
    results = (await federation.deposit(*grants)).results
    assert [Reason(each.refusal.code) for each in results] == [Reason.ALLOWED] * OF_ONE + [Reason.BUSY] * 2
    refusal = results[-1].refusal
    assert refusal.field == "grant.granted_by"
    assert refusal.retry_after == 60_000
    assert refusal.remedy
    recorded = {each.statement_id for each in await federation.events("statement_recorded")}
    assert recorded.isdisjoint({each.id for each in grants[OF_ONE:]}), "what is refused is not kept"
    assert await is_let_in(federation, grants[0]), "what waits already is answered as before"
    assert await is_let_in(federation, federation.grant(signers=[federation.father]))


async def test_a_grant_that_two_sign_counts_for_both(federation: SmallFederation) -> None:
    for _ in range(OF_ONE):
        await federation.deposit(federation.grant(federation.platform, signers=[federation.father]))
    both = federation.grant(signers=[federation.mother, federation.father])
    assert not await is_let_in(federation, both)
    for _ in range(OF_ONE):
        assert await is_let_in(federation, federation.grant()), "what was refused did not count"


@pytest.mark.parametrize(
    "verdict", [pb.ENDORSEMENT_VERDICT_ENDORSED, pb.ENDORSEMENT_VERDICT_NO_AUTHORITY], ids=["yes", "no"]
)
async def test_what_the_school_said_yes_or_no_to_waits_no_more(
    federation: SmallFederation, verdict: pb.EndorsementVerdict.ValueType
) -> None:
    await federation.deposit(*[federation.grant() for _ in range(OF_ONE)])
    node = federation.node()
    node.verdict = verdict
    async with node.attached(federation.address):
        await node.until(lambda: len(node.results) == OF_ONE)
    assert [await is_let_in(federation, federation.grant()) for _ in range(OF_ONE + 1)] == [True] * OF_ONE + [False]


async def test_what_has_ended_waits_no_more(federation: SmallFederation) -> None:
    await federation.deposit(*[federation.grant(lifetime=3_600_000) for _ in range(OF_ONE)])
    assert not await is_let_in(federation, federation.grant())
    federation.ahead = 3_700_000
    assert [await is_let_in(federation, federation.grant()) for _ in range(OF_ONE + 1)] == [True] * OF_ONE + [False]


async def test_what_was_revoked_waits_no_more(federation: SmallFederation) -> None:
    grants = [federation.grant() for _ in range(OF_ONE)]
    await federation.deposit(*grants)
    async for _ in federation.revoking(federation.revocation(grants[0])):
        break  # recorded; its school is off line and acknowledges nothing
    assert [await is_let_in(federation, federation.grant()) for _ in range(2)] == [True, False]


async def test_what_was_superseded_while_it_waited_waits_no_more(federation: SmallFederation) -> None:
    node = federation.node()
    node.verdict = None
    async with node.attached(federation.address):
        earlier = federation.grant()
        await federation.deposit(earlier)
        await node.until(lambda: len(node.endorsement_calls) == 1)
        node.verdict = pb.ENDORSEMENT_VERDICT_ENDORSED
        await federation.endorsed_grant(supersedes=[earlier.id])
    assert [await is_let_in(federation, federation.grant()) for _ in range(OF_ONE + 1)] == [True] * OF_ONE + [False]


async def test_a_flood_of_one_school_keeps_nobody_of_another_school_waiting(federation: SmallFederation) -> None:
    await flood(federation)
    refusal = await outcome(federation, federation.grant())
    assert Reason(refusal.code) is Reason.BUSY
    assert refusal.field == "grant.slice.node"
    assert await is_let_in(federation, federation.grant(federation.platform))


async def test_a_flood_does_not_keep_those_out_whom_the_school_has_endorsed_before(
    federation: SmallFederation,
) -> None:
    async with federation.attached():
        await federation.endorsed_grant()
    await flood(federation)
    assert not await is_let_in(federation, federation.grant(signers=[federation.father]))
    assert await is_let_in(federation, federation.grant())
    assert await is_let_in(federation, federation.grant(signers=[federation.mother, federation.father]))


async def test_a_flood_ends_when_the_school_is_on_line(federation: SmallFederation) -> None:
    await flood(federation)
    node = federation.node()
    node.verdict = pb.ENDORSEMENT_VERDICT_UNKNOWN_HANDLE
    async with node.attached(federation.address):
        await node.until(lambda: len(node.results) == AT_ONE)
    assert await is_let_in(federation, federation.grant())


async def test_what_waits_is_counted_over_a_restart(tmp_path: Path) -> None:
    made = SmallFederation(tmp_path)
    made.settings = replace(made.settings, limits=LimitSettings(waiting_grants_per_signer=OF_ONE))
    async with made.running():
        await made.admit_all()
        await made.deposit(*[made.grant() for _ in range(OF_ONE)])
    async with made.running():
        assert not await is_let_in(made, made.grant())


async def test_what_waited_before_anything_was_counted_counts(tmp_path: Path) -> None:
    made = SmallFederation(tmp_path)
    made.settings = replace(made.settings, limits=LimitSettings(waiting_grants_per_signer=OF_ONE))
    async with made.running():
        await made.admit_all()
        async with made.attached():
            await made.endorsed_grant()
        await made.deposit(*[made.grant() for _ in range(OF_ONE)])
    put_back_to("0002", tmp_path / "broker.db")
    async with made.running():
        assert not await is_let_in(made, made.grant())
        async with made.attached() as node:
            await node.until(lambda: len(node.results) == OF_ONE)
        assert await is_let_in(made, made.grant())

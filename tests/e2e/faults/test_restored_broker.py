"""A real broker whose database was put back to a backup: schools find it out, and go on when the newest is back."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.broker.small_federation import FEDERATION, SmallFederation
from tests.federation.principals import admit
from tests.federation.school import School

pytestmark = pytest.mark.e2e


def copied(database: Path, name: str) -> Path:
    """A whole copy of the broker's database."""
    copy = database.with_name(name)
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy


def put_back(copy: Path, database: Path) -> None:
    for leftover in ("-wal", "-shm"):
        database.with_name(database.name + leftover).unlink(missing_ok=True)
    shutil.copy(copy, database)


async def test_school_answers_nobody_while_its_broker_is_an_older_one_that_caught_up(tmp_path: Path) -> None:
    federation, database = SmallFederation(tmp_path), tmp_path / "broker.db"
    async with federation.running():
        await federation.admit_all()
        brokers = [(federation.address, federation.root)]
        school = School.made(
            tmp_path / "school", federation.operator, brokers, federation=FEDERATION, now=federation.now
        )
        keys = school.organization
        await federation.admit(admit(federation.operator, keys, now=federation.now()), keys.cert)
        backup = copied(database, "backup.db")
        await federation.admit(federation.clinic.rotated(now=federation.now()).cert)
        async with school.running() as node:
            await node.fit.wait()
            held = node.pushes.held(federation.root)
        federation.settings = replace(federation.settings, listen=federation.address)
    newest = copied(database, "newest.db")

    put_back(backup, database)
    async with federation.running():
        # Other statements get the numbers and the size that were lost.
        for _ in range(3):
            federation.tutor = federation.tutor.rotated(now=federation.now())
            await federation.admit(federation.tutor.cert)
            await federation.deposit(federation.grant())
        came_and_went: asyncio.Queue[bytes] = asyncio.Queue()
        federation.broker.attachments.on_change(came_and_went.put_nowait)
        async with school.running() as node:
            for _ in range(6):
                await came_and_went.get()
            assert not node.fit.is_set()
            assert node.pushes.held(federation.root) == held

    put_back(newest, database)
    async with federation.running(), school.running() as node:
        await node.fit.wait()
        assert node.pushes.held(federation.root) == held

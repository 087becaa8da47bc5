"""A node as a process of its own: killed, frozen out, told to end; nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from permslip.errors import ConfigurationError
from permslip.hosting.database import open_engine
from permslip.hosting.leaves import decode_leaf
from permslip.hosting.ledger import LedgerReader
from permslip.reasons import Reason
from permslip_node import schema
from permslip_node.app import open_node
from tests.e2e.node.conftest import FEDERATION, World
from tests.e2e.node.test_answering import altered, granted
from tests.federation.consents import make_revocation
from tests.federation.school import School
from tests.federation.simulated_broker import AttachedNode

pytestmark = pytest.mark.e2e


@asynccontextmanager
async def process(world: World, folder: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, AttachedNode]]:
    """The node as a process, admitted and with a fresh lease; killed at the end if it still runs."""
    if not world.broker.pushes:
        world.admit_all()
    config = world.school.write_config(folder)
    before = len(world.broker.streams)
    with (folder / "node.log").open("ab") as log:
        started = await asyncio.create_subprocess_exec(
            *School.command("run", "--config", str(config)), stderr=log, stdout=log
        )
    try:
        stream = await world.broker.attached(before + 1)
        await world.broker.fresh()
        yield started, stream
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()


async def test_killed_in_the_middle_of_an_answer_it_comes_back_and_has_forgotten_nothing(
    world: World, tmp_path: Path
) -> None:
    world.broker.gives_credit = False
    ada = world.school.learner("604822", grades=1_000, text="x" * 1_000)
    async with process(world, tmp_path) as (killed, node):
        grant = await granted(world, node, ada, max_uses=2)
        asked = world.query(grant)
        [answer] = node.route(asked)
        await world.broker.until(lambda: answer.sealed_bytes >= world.broker.first_credit)
        killed.kill()
        await node.ended.wait()
        assert not answer.whole.is_set()

    async with process(world, tmp_path) as (_, node):
        # Decided before, and remembered.
        assert (await node.ask(asked)).reason == Reason.QUERY_REPLAYED
        # Bytes had left: the retry costs the second use, and there is no third.
        retry = altered(world, world.query(grant), retry_of=asked.id, page_size=5)
        assert (await node.ask(retry)).reason == Reason.ALLOWED
        assert (await node.ask(world.query(grant))).reason == Reason.USES_EXHAUSTED

    engine = open_engine(world.school.settings.database)
    reader = LedgerReader(engine, schema.LEDGER)
    entries = [decode_leaf(each.leaf or b"") for each in reader.leaves(0, 1_000)]
    allowed = [
        each.access_decided
        for each in entries
        if each.WhichOneof("event") == "access_decided" and each.access_decided.reason == int(Reason.ALLOWED)
    ]
    assert [list(each.uses) for each in allowed] == [[1], [2]]
    assert reader.read_head().size == len(entries)
    engine.dispose()


async def test_killed_after_a_revocation_was_recorded_it_acknowledges_when_it_is_back(
    world: World, tmp_path: Path
) -> None:
    world.broker.confirms = False
    ada = world.school.learner("604822", grades=1)
    async with process(world, tmp_path) as (killed, node):
        mother = await world.school.link(node, "604822")
        grant = await granted(world, node, ada, mother=mother)
        revocation = make_revocation(mother, grant.id, world.school.root, federation=FEDERATION, now=world.clock())
        world.broker.push(revocation, chain=[grant])
        first = await world.broker.acknowledgement_of(revocation.id)
        killed.kill()
    world.broker.statements.clear()
    async with process(world, tmp_path) as (_, node):
        assert (await world.broker.acknowledgement_of(revocation.id)).id == first.id
        assert (await node.ask(world.query(grant))).reason == Reason.GRANT_REVOKED


async def test_terminated_it_ends_in_order(world: World, tmp_path: Path) -> None:
    ada = world.school.learner("604822", grades=1)
    async with process(world, tmp_path) as (running, node):
        grant = await granted(world, node, ada)
        assert (await node.ask(world.query(grant))).reason == Reason.ALLOWED
        running.terminate()
        assert await running.wait() == 0
    engine = open_engine(world.school.settings.database)
    with engine.connect() as connection:
        assert connection.execute(select(schema.charged_query)).all() == []
    engine.dispose()


async def test_frozen_node_is_no_danger_and_answers_again_only_with_a_fresh_lease(world: World, tmp_path: Path) -> None:
    world.school = world.school.with_timing(lease_ms=1_000)
    ada = world.school.learner("604822", grades=1)
    async with process(world, tmp_path) as (frozen, node):
        grant = await granted(world, node, ada)
        os.kill(frozen.pid, signal.SIGSTOP)
        [answer] = node.route(world.query(grant))
        os.kill(frozen.pid, signal.SIGCONT)
        await world.broker.fresh()
        await world.broker.until(lambda: answer.whole.is_set() or node.ended.is_set())
        stream = world.broker.streams[-1]
        assert (await stream.ask(world.query(grant))).reason == Reason.ALLOWED


async def test_frozen_broker_is_noticed_by_keepalive_and_dialled_again(world: World, tmp_path: Path) -> None:
    """The broker's end of the connection is a relay that is stopped, as a frozen machine would be."""
    relay = await asyncio.create_subprocess_exec(
        *School.command("--help")[:2],
        _RELAY,
        world.broker.address.rpartition(":")[2],
        stdout=asyncio.subprocess.PIPE,
    )
    assert relay.stdout is not None
    port = int(await relay.stdout.readline())
    did = world.school.settings.brokers[0].partition("=")[2]
    settings = world.school.with_timing(keepalive_ms=200).settings
    world.school = replace(world.school, settings=replace(settings, brokers=(f"127.0.0.1:{port}={did}",)))
    try:
        async with world.attached() as (running, _):
            os.kill(relay.pid, signal.SIGSTOP)
            await running.streams[0].ended.wait()
            os.kill(relay.pid, signal.SIGCONT)
            await world.broker.attached(2)
    finally:
        os.kill(relay.pid, signal.SIGCONT)
        relay.kill()
        await relay.wait()


# Copies bytes between a node and the broker, until it is stopped.
_RELAY = """
import asyncio, sys
async def copy(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
async def serve(reader, writer):
    there, here = await asyncio.open_connection("127.0.0.1", int(sys.argv[1]))
    await asyncio.gather(copy(reader, here), copy(there, writer), return_exceptions=True)
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


async def test_broker_that_comes_back_is_attached_again(world: World) -> None:
    ada = world.school.learner("604822", grades=1)
    async with world.attached() as (_, node):
        grant = await granted(world, node, ada)
        node.end()
        again = await world.broker.attached(2)
        await world.broker.fresh()
        assert (await again.ask(world.query(grant))).reason == Reason.ALLOWED
        # All but the last, which must come once more and be the same.
        assert again.hello.pushes_held == len(world.broker.pushes) - 1


async def test_one_database_is_answered_for_by_one_process(world: World) -> None:
    async with world.school.running():
        with pytest.raises(ConfigurationError, match="another process"):
            async with open_node(world.school.settings):
                pass


async def test_other_keys_than_the_certificates_are_refused_at_start(world: World, tmp_path: Path) -> None:
    other = School.made(tmp_path / "other", world.operator, [], federation=FEDERATION, now=world.clock)
    mixed = replace(world.school.settings, cert_file=other.settings.cert_file)
    with pytest.raises(ConfigurationError, match="other keys"):
        async with open_node(mixed):
            pass
    wrong_root = replace(world.school.settings, root=other.settings.operator)
    with pytest.raises(ConfigurationError, match="another root"):
        async with open_node(wrong_root):
            pass

"""A real node as a witness: what it cosigns, and what it refuses, records and remembers."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable
from dataclasses import replace

import pytest

from permslip._pb.permslip.v1 import ledger_pb2, node_pb2, statement_pb2 as pb
from permslip.checkpoints import CosignatureVerifier, verify_cosigned
from permslip.hosting.leaves import decode_leaf
from permslip.keys import SigningKey
from permslip.notes import Ed25519Signer, append_signatures, parse_signature_lines
from permslip.reasons import Reason
from permslip.witnesses import witness_key
from permslip_node.app import RunningNode, boot_millis
from tests.e2e.node.conftest import World
from tests.e2e.witness.offered_ledger import OfferedLedger

Fault = ledger_pb2.WitnessFault


class Monotonic:
    """The node's monotonic clock, which a test may move."""

    def __init__(self) -> None:
        self.offset = 0

    def __call__(self) -> int:
        return boot_millis() + self.offset


def alerts(node: RunningNode) -> list[ledger_pb2.WitnessAlert]:
    leaves = [decode_leaf(each.leaf or b"") for each in node.ledger.leaves(0, node.ledger.size)]
    return [each.witness_alert for each in leaves if each.WhichOneof("event") == "witness_alert"]


def counted(node: RunningNode, fault: str) -> float:
    value = node.metrics.registry.get_sample_value("permslip_node_witness_alerts_total", {"fault": fault})
    return value or 0.0


def printed(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


async def recorded(world: World, node: RunningNode, count: int) -> list[ledger_pb2.WitnessAlert]:
    """Wait for as many alerts; each lease request is another look."""
    await world.broker.until(lambda: len(alerts(node)) >= count)
    return alerts(node)


async def test_node_cosigns_what_continues_what_it_cosigned_before(world: World) -> None:
    ledger = OfferedLedger(world.broker)
    async with world.attached() as (node, stream):
        first = await ledger.offer(stream, 200, old=0)
        grown = await ledger.offer(stream, 300, old=200)
        again = await ledger.offer(stream, 300, old=300)
        assert alerts(node) == []

    log = Ed25519Signer(ledger.origin, world.broker.organization.key).verifier
    key = witness_key(world.broker.federation, world.school.root, world.school.organization.key.public.raw)
    for size, said in ((200, first), (300, grown), (300, again)):
        assert said.size == size
        cosigned = append_signatures(ledger.note(size), parse_signature_lines(said.lines))
        [cosignature] = verify_cosigned(cosigned, log, [CosignatureVerifier(key)], 1).cosignatures
        assert abs(cosignature.timestamp - world.clock() / 1_000) < 60


async def test_broker_that_does_not_know_where_a_witness_stands_is_told(world: World) -> None:
    ledger = OfferedLedger(world.broker)
    async with world.attached() as (node, stream):
        await ledger.offer(stream, 200, old=0)
        told = await ledger.offer(stream, 300, old=0)

        assert (told.size, told.lines) == (200, b"")
        assert told.refusal.field == "checkpoint.consistency.old_size"
        assert (await ledger.offer(stream, 300, old=200)).lines
        assert alerts(node) == []


Lie = Callable[[OfferedLedger], node_pb2.BrokerFrame]
LIES: dict[str, tuple[str, Reason, Lie]] = {
    "two histories at one size": (
        "FORK",
        Reason.NOT_ALLOWED,
        lambda it: it.frame(it.note(210, history=it.forked), 210, 210, history=it.forked),
    ),
    "another log": (
        "FORK",
        Reason.NOT_ALLOWED,
        lambda it: it.frame(it.note(300, origin=f"{it.origin}-2"), 300, 210),
    ),
    "a smaller log": ("ROLLBACK", Reason.NOT_ALLOWED, lambda it: it.frame(it.note(209), 209, 210)),
    "a smaller log, as if nothing had been": (
        "ROLLBACK",
        Reason.NOT_ALLOWED,
        lambda it: it.frame(it.note(209), 209, 0),
    ),
    "another history that has grown": (
        "BAD_PROOF",
        Reason.MALFORMED,
        lambda it: it.frame(it.note(300, history=it.forked), 300, 210, history=it.forked),
    ),
    "a proof of something else": (
        "BAD_PROOF",
        Reason.MALFORMED,
        lambda it: it.frame(it.note(300), 300, 210, history=it.forked),
    ),
    "somebody else's signature": (
        "BAD_SIGNATURE",
        Reason.BAD_SIGNATURE,
        lambda it: it.frame(it.note(300, key=SigningKey.generate()), 300, 210),
    ),
    "a larger size under the old signature": (
        "BAD_SIGNATURE",
        Reason.BAD_SIGNATURE,
        lambda it: it.frame(it.note(210).replace(b"\n210\n", b"\n300\n"), 300, 210),
    ),
    "no checkpoint at all": ("BAD_SIGNATURE", Reason.BAD_SIGNATURE, lambda it: it.frame(b"nothing", 300, 210)),
}


@pytest.mark.parametrize("name", LIES)
async def test_node_refuses_a_lie_and_records_it_with_its_evidence(world: World, name: str) -> None:
    fault, reason, lie = LIES[name]
    ledger = OfferedLedger(world.broker)
    async with world.attached() as (node, stream):
        await ledger.offer(stream, 210, old=0)
        frame = lie(ledger)
        refused = await ledger.send(stream, frame)

        assert (refused.lines, refused.size, refused.refusal.code) == (b"", 210, reason.wire)
        [alert] = alerts(node)
        assert Fault.Name(alert.fault) == f"WITNESS_FAULT_{fault}"
        assert (alert.seen_size, len(alert.seen_root)) == (210, 32)
        assert counted(node, fault) == 1
        [memory] = node.witness.store.memories()
        assert memory.last_alert is not None
        assert (memory.last_alert.seen, memory.last_alert.offered) == (
            ledger.note(210),
            frame.checkpoint.checkpoint.note,
        )
        assert (await ledger.offer(stream, 300, old=210)).lines, "what is true is cosigned nevertheless"


async def test_the_same_lie_is_recorded_once_and_ever_new_ones_fill_no_ledger(world: World) -> None:
    ledger = OfferedLedger(world.broker)
    async with world.attached() as (node, stream):
        await ledger.offer(stream, 210, old=0)
        for _ in range(3):
            assert not (await ledger.offer(stream, 210, old=210, history=ledger.forked)).lines
        assert len(alerts(node)) == 1
        for size in range(150, 200):
            assert not (await ledger.offer(stream, size, old=210)).lines

        assert len(alerts(node)) == 10
        assert (counted(node, "FORK"), counted(node, "ROLLBACK")) == (3, 50)


async def test_checkpoint_that_is_older_than_an_old_tick_is_stale(world: World) -> None:
    monotonic = Monotonic()
    world.school = replace(world.school, monotonic=monotonic)
    ledger = OfferedLedger(world.broker)

    async with world.attached() as (node, stream):
        assert (await ledger.offer(stream, 200, old=0)).lines
        world.broker.recorded = 300
        await world.broker.fresh()
        assert (await ledger.offer(stream, 250, old=200)).lines, "it may have been on its way"
        monotonic.offset = 10_001
        refused = await ledger.offer(stream, 260, old=250)

        assert (refused.lines, refused.size) == (b"", 250)
        [alert] = alerts(node)
        assert (alert.fault, alert.offered_size) == (Fault.WITNESS_FAULT_STALE, 260)
        assert (await ledger.offer(stream, 320, old=250)).lines


async def test_tick_that_tells_another_root_than_the_cosigned_checkpoint_is_a_fork(world: World) -> None:
    ledger = OfferedLedger(world.broker)
    async with world.attached() as (node, stream):
        await ledger.offer(stream, 300, old=0)
        world.broker.recorded = 300
        [alert] = await recorded(world, node, 1)

        assert (alert.fault, alert.seen_size, alert.offered_size) == (Fault.WITNESS_FAULT_FORK, 300, 300)
        assert alert.seen_root != alert.offered_root
        [memory] = node.witness.store.memories()
        assert memory.last_alert is not None
        told = pb.Envelope.FromString(memory.last_alert.offered)
        assert pb.Tick.FromString(told.payload).ledger_size == 300


async def test_checkpoint_that_tells_another_root_than_a_tick_is_a_fork(world: World) -> None:
    ledger = OfferedLedger(world.broker)
    async with world.attached() as (node, stream):
        world.broker.recorded = 300
        await world.broker.fresh()
        refused = await ledger.offer(stream, 300, old=0)

        assert (refused.lines, refused.refusal.code) == (b"", Reason.NOT_ALLOWED.wire)
        [alert] = alerts(node)
        assert (alert.fault, alert.seen_size) == (Fault.WITNESS_FAULT_FORK, 0)


async def test_restarted_witness_remembers(world: World) -> None:
    ledger = OfferedLedger(world.broker)
    async with world.attached() as (_, stream):
        await ledger.offer(stream, 210, old=0)

    async with world.attached() as (node, stream):
        assert not (await ledger.offer(stream, 210, old=210, history=ledger.forked)).lines
        assert (await ledger.offer(stream, 300, old=0)).size == 210
        assert (await ledger.offer(stream, 300, old=210)).lines
        assert [each.fault for each in alerts(node)] == [Fault.WITNESS_FAULT_FORK]


async def test_node_whose_clock_is_behind_its_records_cosigns_nothing(world: World) -> None:
    ledger = OfferedLedger(world.broker)
    async with world.attached() as (node, stream):
        world.clock.offset = -120_000
        refused = await ledger.offer(stream, 200, old=0)
        world.clock.offset = 0

        assert refused.refusal.code == Reason.CLOCK.wire
        assert alerts(node) == []
        assert (await ledger.offer(stream, 200, old=0)).lines


async def test_report_tells_the_nodes_operator_what_was_refused(world: World) -> None:
    ledger = OfferedLedger(world.broker)
    async with world.attached() as (_, stream):
        await ledger.offer(stream, 210, old=0)
        await ledger.offer(stream, 209, old=210)
    config = world.school.write_config(world.school.settings.key_file.parent)
    command = world.school.command("report", "--config", str(config))

    text = await asyncio.to_thread(printed, command)
    [told] = json.loads(await asyncio.to_thread(printed, [*command, "--json"]))["witnessed"]

    assert "last cosigned   210 entries" in text
    assert "REFUSED         1 checkpoints; the last: ROLLBACK" in text
    assert (told["cosigned"]["size"], told["alerts"], told["last_alert"]["fault"]) == (210, 1, "ROLLBACK")

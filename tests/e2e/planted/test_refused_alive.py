"""What the running system itself refuses: it is refused, and the ledgers say so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from permslip._pb.permslip.v1 import node_pb2, provider_pb2, statement_pb2 as pb
from permslip.client.timeouts import Timeout
from permslip.errors import PermslipError
from permslip.hosting.leaves import decode_leaf
from permslip.hosting.ledger_reading import LedgerReader
from permslip.reasons import Reason
from tests.e2e.planted.faults_of_nodes import hidden_from_parent
from tests.e2e.planted.honest import FEDERATION, Honest
from tests.e2e.planted.revived import Revived
from tests.e2e.planted.staging import Stage
from tests.federation.auditor import calling, entry_of, refused
from tests.federation.district import ATTENDANCE
from tests.federation.lying_broker import Line
from tests.federation.processes import now
from tests.federation.school_process import until

pytestmark = pytest.mark.e2e


def events(ledger: LedgerReader, name: str, **fields: object) -> list[Any]:
    """The events of one kind whose fields have these values."""
    entries = [decode_leaf(each.leaf or b"") for each in ledger.leaves(0, 100_000)]
    found = [getattr(each, name) for each in entries if each.WhichOneof("event") == name]
    return [each for each in found if all(getattr(each, field) == value for field, value in fields.items())]


async def test_auditor_out_of_scope_is_refused_and_the_refusal_recorded(honest: Honest, tmp_path: Path) -> None:
    honest.copy_to(tmp_path)
    narrow, high, platform = honest.narrow, honest.high.root, honest.platform.root
    async with (
        Revived.running(honest, tmp_path) as revived,
        calling(revived.address, narrow, federation=FEDERATION, broker=honest.root, now=now) as calls,
    ):
        ledger = revived.broker.ledger
        assert await refused(calls.entries(high)) == Reason.NOT_ALLOWED
        assert await refused(calls.checkpoint(high)) == Reason.NOT_ALLOWED
        assert await calls.entries(platform)
        shown = [entry_of(each) for each in await calls.entries(honest.root) if each.leaf]
        refusal = {"method": "FetchEntries", "reason": Reason.NOT_ALLOWED.wire, "caller": narrow.root}
        recorded = await until(lambda: events(ledger, "request_refused", **refusal), "it is recorded")

    assert recorded
    assert {each.slice.node for each in shown if each.HasField("slice")} == {platform}


async def test_stale_tick_renews_no_lease_and_nothing_is_served(honest: Honest, tmp_path: Path) -> None:
    honest.copy_to(tmp_path)
    ticks: list[pb.Envelope] = []

    def stale(message: node_pb2.AttachResponse, _line: Line) -> node_pb2.AttachResponse:
        for frame in message.frames:
            if frame.HasField("tick"):
                ticks.append(frame.tick.__deepcopy__())
                frame.tick.CopyFrom(ticks[0])
        return message

    async with Revived.running(honest, tmp_path, lying=True) as revived:
        revived.liar.down["Attach"] = stale
        await until(lambda: len(ticks) > 1, "ticks come")
        revived.ahead = 6_000
        asked = honest.make_query(honest.grants["plain"], [ATTENDANCE])
        async with honest.requester(address=revived.address) as tutor:
            answer = await tutor.ask(asked)
        high = revived.nodes["high"].ledger
        decided = [each.reason for each in events(high, "access_decided", query_id=asked.id)]

    assert answer.reason == Reason.NO_LEASE
    assert not answer.sealed_bytes
    assert decided == [Reason.NO_LEASE.wire]


async def test_forged_chunk_is_not_opened_and_the_ledgers_hold_what_truly_left(honest: Honest, tmp_path: Path) -> None:
    honest.copy_to(tmp_path)
    high = honest.high.root

    def forged(message: provider_pb2.ExchangeResponse, _line: Line) -> provider_pb2.ExchangeResponse:
        for reply in message.replies:
            for number, chunk in enumerate(reply.answer.chunks):
                reply.answer.chunks[number] = chunk[:-1] + bytes([chunk[-1] ^ 1])
        return message

    async with Revived.running(honest, tmp_path, lying=True) as revived:
        revived.liar.down["Exchange"] = forged
        asked = honest.make_query(honest.grants["plain"], [ATTENDANCE])
        async with honest.requester(address=revived.liar.address) as tutor:
            answer = await tutor.ask(asked)
        with pytest.raises(PermslipError):
            answer.records(asked, node=high)
        node, broker = revived.nodes["high"].ledger, revived.broker.ledger
        [left] = await until(lambda: events(node, "access_answered", query_id=asked.id), "the node says what left")
        [came] = await until(lambda: events(broker, "access_answered", query_id=asked.id), "the broker says what came")
        audit = await revived.audit()

    assert left.manifest_sha256 == came.manifest_sha256
    assert not audit.faults


@pytest.mark.parametrize("hidden", [False, True], ids=["nothing is hidden", "an entry is hidden"])
async def test_entry_hidden_from_a_parent_is_missed_by_her(honest: Honest, tmp_path: Path, *, hidden: bool) -> None:
    stage = Stage(honest, honest.copy_to(tmp_path))
    if hidden:
        hidden_from_parent(stage)
    stage.forget_checkpoints()

    async with (
        Revived.running(honest, tmp_path) as revived,
        honest.guardian(address=revived.address, timeout=Timeout(connect=20, call=20, answer=20)) as mother,
    ):
        report = await mother.accesses()

    said = texts(report.findings)
    assert bool(said) == hidden, said


def texts(findings: Sequence[Any]) -> list[str]:
    """Findings as they are printed."""
    return [str(each) for each in findings]

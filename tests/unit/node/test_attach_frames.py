"""What a broker sends faster than this node works on it: the stream is not read on, and memory stays bounded."""

from __future__ import annotations

import asyncio
import os
from types import SimpleNamespace
from typing import Any

from permslip._pb.permslip.v1 import node_pb2, session_pb2
from permslip.reasons import Reason
from permslip_node.attach_frames import MOST_CONFIRMED, FrameReader

EACH = 1_000


def confirmation(statement_id: bytes) -> node_pb2.BrokerFrame:
    result = session_pb2.DepositResult(statement_id=statement_id, refusal=session_pb2.Refusal(code=Reason.ALLOWED.wire))
    return node_pb2.BrokerFrame(statement_result=result)


class EndlessConfirmations:
    """A stream on which nothing else comes."""

    def __init__(self, size: int) -> None:
        self.size, self.read_so_far = size, 0

    async def read(self) -> node_pb2.AttachResponse:
        await asyncio.sleep(0)
        self.read_so_far += EACH
        return node_pb2.AttachResponse(frames=[confirmation(os.urandom(self.size))] * EACH)


class SlowRecording:
    """A database that is locked until the test ends."""

    def __init__(self) -> None:
        self.ids: list[bytes] = []

    async def confirmed(self, _broker: bytes, ids: list[bytes]) -> None:
        self.ids += ids
        await asyncio.Event().wait()


async def flooded(size: int) -> tuple[EndlessConfirmations, SlowRecording]:
    stream, recording = EndlessConfirmations(size), SlowRecording()
    node: Any = SimpleNamespace(recording=recording, answerer=None)
    call: Any = stream
    sender: Any = SimpleNamespace(broker=b"b" * 32)
    cert: Any = None
    reader = FrameReader(sender, cert, node)
    tasks = [asyncio.ensure_future(each) for each in (reader.read(call, ()), *reader.works())]
    for _ in range(10 * MOST_CONFIRMED // EACH):
        await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return stream, recording


async def test_confirmations_that_come_faster_than_they_are_written_are_not_read_on() -> None:
    stream, recording = await flooded(32)

    assert stream.read_so_far <= MOST_CONFIRMED + 2 * EACH
    assert len(recording.ids) <= MOST_CONFIRMED


async def test_confirmation_of_what_is_no_statements_id_is_not_kept() -> None:
    stream, recording = await flooded(33)

    assert stream.read_so_far > MOST_CONFIRMED
    assert recording.ids == []

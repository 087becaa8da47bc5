"""The floor's requester: in the measuring process, as the product's client is.

Example::

    with Processes() as processes:
        port, _ = start_floor(processes, folder, nodes=3)
        async with Requester(port, nodes=3) as requester:
            await requester.query()
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType

import grpc.aio

from permslip._pb.permslip.v1 import provider_pb2, provider_pb2_grpc
from permslip.outbox import Outbox
from tests.bench.floor.calls import Asking, open_answer, requester_keys
from tests.bench.floor.streams import OPTIONS
from tests.bench.processes import Processes

__all__ = ["Requester", "start_floor"]


def start_floor(
    processes: Processes, folder: Path, *, nodes: int, bare: bool = False, unbatched: bool = False
) -> tuple[int, dict[str, list[int]]]:
    """Start a relay and its nodes; the relay's port and everybody's process number, once all nodes are attached."""
    flags = [*(["--bare"] if bare else []), *(["--unbatched"] if unbatched else [])]
    folder.mkdir(parents=True)
    relay = processes.start("tests.bench.floor.relay", str(folder), str(nodes), *flags)
    port = int(relay.say()["port"])
    children = [
        processes.start("tests.bench.floor.node", str(folder), str(number), str(port), *flags)
        for number in range(nodes)
    ]
    relay.say()
    return port, {"relay": [relay.pid], "nodes": [each.pid for each in children]}


class Requester:
    """One stream to the relay; a query asks every node.

    Args:
        port: the relay's.
        nodes: how many there are.
        bare: without cryptography.
        unbatched: every call a message of its own.
    """

    def __init__(self, port: int, *, nodes: int, bare: bool = False, unbatched: bool = False) -> None:
        self._port, self._nodes, self._bare, self._unbatched = port, nodes, bare, unbatched
        self._keys = requester_keys()
        self._outbox: Outbox[provider_pb2.ExchangeCall] = Outbox()
        self._open: dict[bytes, tuple[Asking, asyncio.Future[bytes]]] = {}

    async def query(self) -> list[bytes]:
        """One query to each node at once; the records' bytes of each."""
        loop = asyncio.get_running_loop()
        waiting = []
        for number in range(self._nodes):
            asking = Asking.bare(number) if self._bare else Asking.make(number, self._keys)
            answered: asyncio.Future[bytes] = loop.create_future()
            self._open[asking.id] = asking, answered
            self._outbox.put(
                provider_pb2.ExchangeCall(query=provider_pb2.QueryCall(query=asking.envelope, deadline=30_000))
            )
            waiting.append(answered)
        return [await each for each in waiting]

    async def _send(self) -> AsyncIterator[provider_pb2.ExchangeRequest]:
        async for calls in self._outbox.batches():
            if self._unbatched:
                for call in calls:
                    yield provider_pb2.ExchangeRequest(calls=[call])
            else:
                yield provider_pb2.ExchangeRequest(calls=calls)

    async def _receive(self) -> None:
        try:
            async for response in provider_pb2_grpc.ProviderServiceStub(self._channel).Exchange(self._send()):
                for reply in response.replies:
                    asking, answered = self._open.pop(reply.answer.query_id)
                    answered.set_result(reply.answer.chunks[0] if self._bare else open_answer(asking, reply.answer))
        finally:
            for _, answered in self._open.values():
                answered.cancel()

    async def __aenter__(self) -> Requester:
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{self._port}", options=OPTIONS)
        self._receiving = asyncio.create_task(self._receive())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._receiving.cancel()
        await asyncio.gather(self._receiving, return_exceptions=True)
        await self._channel.close()

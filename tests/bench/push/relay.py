"""The relay of a bare push-and-ack, a process: ``python -m tests.bench.push.relay FOLDER NODES [--durable]``."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from permslip._pb.permslip.v1 import guardian_pb2, node_pb2, statement_pb2 as pb
from permslip.outbox import Outbox
from tests.bench.floor.commits import Commits, leaf
from tests.bench.floor.streams import OPTIONS, while_reading
from tests.bench.processes import announce, until_parent_ends
from tests.bench.push.sizes import GRANT


class Relay:
    """Who is attached, and who waits for which acknowledgement."""

    def __init__(self, nodes: int, commits: Commits | None) -> None:
        self._nodes: dict[int, Outbox[node_pb2.BrokerFrame]] = {}
        self._expected = nodes
        self._commits = commits
        self._waiting: dict[int, Outbox[pb.Envelope]] = {}
        self._pushes = 0
        self._row = leaf()

    def attach(self, number: int, outbox: Outbox[node_pb2.BrokerFrame]) -> None:
        """A node is there."""
        self._nodes[number] = outbox
        if len(self._nodes) == self._expected:
            announce(attached=self._expected)

    async def push(self, revocations: list[pb.Envelope], acknowledged: Outbox[pb.Envelope]) -> None:
        """One to each node."""
        await self._commit(len(revocations))
        for number, envelope in enumerate(revocations):
            self._pushes += 1
            self._waiting[self._pushes] = acknowledged
            push = node_pb2.Push(number=self._pushes, position=1000, statement=envelope, chain=[GRANT])
            self._nodes[number].put(node_pb2.BrokerFrame(push=push))

    async def acknowledge(self, envelopes: list[pb.Envelope]) -> None:
        """Hand acknowledgements back."""
        await self._commit(len(envelopes))
        for envelope in envelopes:
            number = int.from_bytes(envelope.payload[:8], "big")
            self._waiting.pop(number).put(envelope)

    async def _commit(self, rows: int) -> None:
        if self._commits is not None:
            await self._commits.append([self._row] * rows)


def revoke(relay: Relay) -> Any:
    """The guardian's side."""

    async def handle(request: guardian_pb2.RevokeRequest, _: Any) -> AsyncIterator[guardian_pb2.RevokeResponse]:
        acknowledged: Outbox[pb.Envelope] = Outbox()
        await relay.push(list(request.revocations), acknowledged)
        missing = len(request.revocations)
        async for envelopes in acknowledged.batches():
            states = [guardian_pb2.RevocationState(acknowledgement=each, node_attached=True) for each in envelopes]
            yield guardian_pb2.RevokeResponse(states=states)
            missing -= len(envelopes)
            if not missing:
                return

    return grpc.unary_stream_rpc_method_handler(
        handle, guardian_pb2.RevokeRequest.FromString, guardian_pb2.RevokeResponse.SerializeToString
    )


def attach(relay: Relay) -> Any:
    """The nodes' side."""

    async def handle(requests: AsyncIterator[node_pb2.AttachRequest], _: Any) -> AsyncIterator[Any]:
        outbox: Outbox[node_pb2.BrokerFrame] = Outbox()

        async def receive() -> None:
            async with asyncio.TaskGroup() as group:
                async for request in requests:
                    if request.frames[0].HasField("hello"):
                        relay.attach(request.frames[0].hello.max_open, outbox)
                    else:
                        group.create_task(relay.acknowledge([frame.statement for frame in request.frames]))

        async for frames in while_reading(receive(), outbox):
            yield node_pb2.AttachResponse(frames=frames)

    return grpc.stream_stream_rpc_method_handler(
        handle, node_pb2.AttachRequest.FromString, node_pb2.AttachResponse.SerializeToString
    )


async def main() -> None:
    """Serve until the parent ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("nodes", type=int)
    parser.add_argument("--durable", action="store_true")
    options = parser.parse_args()

    commits = Commits(options.folder / "relay.db") if options.durable else None
    relay = Relay(options.nodes, commits)
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler("permslip.v1.GuardianService", {"Revoke": revoke(relay)}),
            grpc.method_handlers_generic_handler("permslip.v1.NodeService", {"Attach": attach(relay)}),
        )
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    announce(port=port)
    await until_parent_ends()
    await server.stop(None)
    if commits is not None:
        await commits.close()


if __name__ == "__main__":
    asyncio.run(main())

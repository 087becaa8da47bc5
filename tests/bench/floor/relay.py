"""The floor's relay, a process: ``python -m tests.bench.floor.relay FOLDER NODES [--bare] [--unbatched]``.

Announces its port at once, and ``attached`` when all nodes are there.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from permslip._pb.permslip.v1 import node_pb2, provider_pb2, statement_pb2 as pb
from permslip.outbox import Outbox
from tests.bench.floor.calls import envelope_id, grant_id, verify
from tests.bench.floor.commits import Commits, leaf
from tests.bench.floor.streams import OPTIONS, while_reading
from tests.bench.processes import announce, until_parent_ends


class Relay:
    """Who is attached, and who waits for which answer."""

    def __init__(self, nodes: int, commits: Commits | None, *, batched: bool) -> None:
        self._nodes: dict[bytes, Outbox[node_pb2.BrokerFrame]] = {}
        self._expected = nodes
        self._commits = commits
        self.batched = batched
        self._waiting: dict[bytes, Outbox[provider_pb2.ExchangeReply]] = {}
        self._leaf = leaf()

    def attach(self, number: int, outbox: Outbox[node_pb2.BrokerFrame]) -> None:
        """A node is there."""
        self._nodes[grant_id(number)] = outbox
        if len(self._nodes) == self._expected:
            announce(attached=self._expected)

    async def route(self, calls: list[pb.Envelope], back: Outbox[provider_pb2.ExchangeReply]) -> None:
        """Verify, commit, route."""
        routed = []
        for envelope in calls:
            identifier = envelope_id(envelope) if self._commits is None else verify(envelope)
            query = pb.Query.FromString(envelope.payload)
            self._waiting[identifier] = back
            frame = node_pb2.BrokerFrame(query=node_pb2.RoutedQuery(query=envelope, position=1000, deadline=30_000))
            routed.append((self._nodes[query.grant_id], frame))
        if self._commits is not None:
            await self._commits.append([self._leaf] * len(routed))
        for outbox, frame in routed:
            outbox.put(frame)

    def answer(self, frames: list[node_pb2.NodeFrame]) -> None:
        """Forward answers untouched."""
        for frame in frames:
            answer = frame.answer
            self._waiting.pop(answer.query_id).put(
                provider_pb2.ExchangeReply(answer=answer), size=len(answer.chunks[0])
            )


def exchange(relay: Relay) -> Any:
    """The requester's side: queries in, answers out."""

    async def handle(requests: AsyncIterator[provider_pb2.ExchangeRequest], _: Any) -> AsyncIterator[Any]:
        outbox: Outbox[provider_pb2.ExchangeReply] = Outbox()

        async def receive() -> None:
            async with asyncio.TaskGroup() as group:
                async for request in requests:
                    group.create_task(relay.route([call.query.query for call in request.calls], outbox))

        async for replies in while_reading(receive(), outbox, batched=relay.batched):
            yield provider_pb2.ExchangeResponse(replies=replies)

    return grpc.stream_stream_rpc_method_handler(
        handle, provider_pb2.ExchangeRequest.FromString, provider_pb2.ExchangeResponse.SerializeToString
    )


def attach(relay: Relay) -> Any:
    """The nodes' side: answers in, queries out."""

    async def handle(requests: AsyncIterator[node_pb2.AttachRequest], _: Any) -> AsyncIterator[Any]:
        outbox: Outbox[node_pb2.BrokerFrame] = Outbox()

        async def receive() -> None:
            async for request in requests:
                if request.frames[0].HasField("hello"):
                    relay.attach(request.frames[0].hello.max_open, outbox)
                else:
                    relay.answer(list(request.frames))

        async for frames in while_reading(receive(), outbox, batched=relay.batched):
            yield node_pb2.AttachResponse(frames=frames)

    return grpc.stream_stream_rpc_method_handler(
        handle, node_pb2.AttachRequest.FromString, node_pb2.AttachResponse.SerializeToString
    )


async def main() -> None:
    """Serve until the parent ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("nodes", type=int)
    parser.add_argument("--bare", action="store_true")
    parser.add_argument("--unbatched", action="store_true")
    options = parser.parse_args()

    commits = None if options.bare else Commits(options.folder / "relay.db")
    relay = Relay(options.nodes, commits, batched=not options.unbatched)
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler("permslip.v1.ProviderService", {"Exchange": exchange(relay)}),
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

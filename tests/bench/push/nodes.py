"""Nodes that acknowledge, in one process: ``python -m tests.bench.push.nodes FOLDER PORT FIRST COUNT [--durable]``."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio

from permslip._pb.permslip.v1 import node_pb2, node_pb2_grpc
from permslip.outbox import Outbox
from tests.bench.floor.commits import Commits, leaf
from tests.bench.floor.streams import OPTIONS
from tests.bench.processes import until_parent_ends
from tests.bench.push.sizes import acknowledgement

_ROW = leaf()


async def be_node(number: int, port: int, commits: Commits | None) -> None:
    """Attach, and acknowledge whatever is pushed."""
    outbox: Outbox[node_pb2.NodeFrame] = Outbox()
    outbox.put(node_pb2.NodeFrame(hello=node_pb2.NodeHello(max_open=number)))

    async def send() -> AsyncIterator[node_pb2.AttachRequest]:
        async for frames in outbox.batches():
            yield node_pb2.AttachRequest(frames=frames)

    # One connection for each node, as if each were a machine of its own.
    options = [*OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        async for response in node_pb2_grpc.NodeServiceStub(channel).Attach(send()):
            if commits is not None:
                await commits.append([_ROW] * len(response.frames))
            for frame in response.frames:
                outbox.put(node_pb2.NodeFrame(statement=acknowledgement(frame.push.number)))


async def main() -> None:
    """Acknowledge until the parent ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("first", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("--durable", action="store_true")
    options = parser.parse_args()

    commits = Commits(options.folder / f"nodes-{options.first}.db") if options.durable else None
    numbers = range(options.first, options.first + options.count)
    nodes = [asyncio.create_task(be_node(number, options.port, commits)) for number in numbers]
    await until_parent_ends()
    for node in nodes:
        node.cancel()
    await asyncio.gather(*nodes, return_exceptions=True)
    if commits is not None:
        await commits.close()


if __name__ == "__main__":
    asyncio.run(main())

"""The floor's node, a process: ``python -m tests.bench.floor.node FOLDER NUMBER PORT [--bare] [--unbatched]``."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio

from permslip._pb.permslip.v1 import node_pb2, node_pb2_grpc, statement_pb2 as pb
from permslip.outbox import Outbox
from tests.bench.floor.calls import Answering, envelope_id, verify
from tests.bench.floor.commits import Commits, leaf
from tests.bench.floor.streams import OPTIONS
from tests.bench.processes import until_parent_ends

Answers = Outbox[node_pb2.NodeFrame]


async def answer(queries: list[pb.Envelope], answering: Answering, commits: Commits, outbox: Answers) -> None:
    """Verify, commit while sealing, answer."""
    verified = [(verify(envelope), pb.Query.FromString(envelope.payload)) for envelope in queries]
    committed = commits.append([_LEAF] * len(verified))
    answers = [answering.answer(query, identifier) for identifier, query in verified]
    await committed
    for each in answers:
        outbox.put(node_pb2.NodeFrame(answer=each), size=len(each.chunks[0]))


_LEAF = leaf()


async def main() -> None:
    """Answer until the parent ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("number", type=int)
    parser.add_argument("port", type=int)
    parser.add_argument("--bare", action="store_true")
    parser.add_argument("--unbatched", action="store_true")
    options = parser.parse_args()

    answering = Answering(options.number)
    commits = None if options.bare else Commits(options.folder / f"node-{options.number}.db")
    outbox: Answers = Outbox()
    outbox.put(node_pb2.NodeFrame(hello=node_pb2.NodeHello(max_open=options.number)))

    async def send() -> AsyncIterator[node_pb2.AttachRequest]:
        async for frames in outbox.batches():
            if options.unbatched:
                for frame in frames:
                    yield node_pb2.AttachRequest(frames=[frame])
            else:
                yield node_pb2.AttachRequest(frames=frames)

    async def receive() -> None:
        async with asyncio.TaskGroup() as group:
            async for response in stub.Attach(send()):
                queries = [frame.query.query for frame in response.frames]
                if commits is None:
                    for envelope in queries:
                        bare = answering.bare(envelope_id(envelope))
                        outbox.put(node_pb2.NodeFrame(answer=bare), size=len(bare.chunks[0]))
                else:
                    group.create_task(answer(queries, answering, commits, outbox))

    async with grpc.aio.insecure_channel(f"127.0.0.1:{options.port}", options=OPTIONS) as channel:
        stub = node_pb2_grpc.NodeServiceStub(channel)
        receiving = asyncio.create_task(receive())
        await until_parent_ends()
        receiving.cancel()
        await asyncio.gather(receiving, return_exceptions=True)
    if commits is not None:
        await commits.close()


if __name__ == "__main__":
    asyncio.run(main())

"""Many nodes in one process, of which each only attaches and acknowledges revocations.

``python -m tests.bench.push.simulated_nodes PORT FEDERATION BROKER COUNT AT``; ``BROKER`` is the broker's root in hex,
``AT`` the moment at which the nodes' certificates were made. A simulated node signs what a node signs; it keeps no
ledger.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import AsyncIterator

import grpc.aio

from permslip import statements as st
from permslip._pb.permslip.v1 import node_pb2, node_pb2_grpc, statement_pb2 as pb
from permslip.greeting import make_hello
from permslip.outbox import Outbox
from permslip.quantities import Millis
from tests.bench.floor.streams import OPTIONS
from tests.bench.principals import Organization, now, organization
from tests.bench.processes import announce, until_parent_ends

Frames = Outbox[node_pb2.NodeFrame]


class SimulatedNode:
    """One of them."""

    def __init__(self, itself: Organization, federation: str, broker: bytes) -> None:
        self._itself, self._federation, self._broker = itself, federation, broker
        self._held = 0
        self._due = -1
        self.caught_up = asyncio.Event()

    async def attach(self, port: int) -> None:
        """Attach, and acknowledge every revocation."""
        outbox: Frames = Outbox()

        async def send() -> AsyncIterator[node_pb2.AttachRequest]:
            async for frames in outbox.batches():
                yield node_pb2.AttachRequest(frames=frames)

        # One connection for each node, as if each were a machine of its own.
        options = [*OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            async for response in node_pb2_grpc.NodeServiceStub(channel).Attach(send()):
                for frame in response.frames:
                    self._take(frame, outbox)

    def _take(self, frame: node_pb2.BrokerFrame, outbox: Frames) -> None:
        if frame.HasField("push"):
            self._held = frame.push.number
            if frame.push.statement.payload_type == st.REVOCATION.payload_type:
                outbox.put(node_pb2.NodeFrame(statement=self._acknowledge(frame.push.statement)))
        elif frame.HasField("challenge"):
            hello = make_hello(
                frame.challenge,
                broker=self._broker,
                signer=self._itself.signer,
                kind=pb.PRINCIPAL_KIND_NODE,
                key=self._itself.key,
                now=now(),
            )
            outbox.put(
                node_pb2.NodeFrame(
                    hello=node_pb2.NodeHello(hello=hello.envelope, key_cert=self._itself.cert.envelope, max_open=64)
                )
            )
        elif frame.HasField("welcome"):
            self._due = frame.welcome.push_count
        if 0 <= self._due <= self._held:
            self.caught_up.set()

    def _acknowledge(self, envelope: pb.Envelope) -> pb.Envelope:
        revocation = st.verify(st.REVOCATION, envelope, federation=self._federation)
        acknowledged = pb.Acknowledgement(
            federation=self._federation,
            nonce=os.urandom(16),
            created_at=now(),
            signer=self._itself.signer,
            statement_id=revocation.id,
            target_id=revocation.payload.target_id,
            ledger_size=self._held,
        )
        return st.sign(st.ACKNOWLEDGEMENT, acknowledged, [self._itself.key]).envelope


async def main() -> None:
    """Simulate until the parent ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("federation")
    parser.add_argument("broker", type=bytes.fromhex)
    parser.add_argument("count", type=int)
    parser.add_argument("at", type=int)
    options = parser.parse_args()

    nodes = [
        SimulatedNode(
            organization(f"node {number}", options.federation, at=Millis(options.at)),
            options.federation,
            options.broker,
        )
        for number in range(options.count)
    ]
    attached = [asyncio.create_task(node.attach(options.port)) for node in nodes]
    for node in nodes:
        await node.caught_up.wait()
    announce(attached=len(nodes))
    await until_parent_ends()
    for task in attached:
        task.cancel()
    await asyncio.gather(*attached, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main())

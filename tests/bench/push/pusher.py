"""Who revokes, in a bare push-and-ack; in the measuring process."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import grpc.aio

from permslip._pb.permslip.v1 import guardian_pb2, guardian_pb2_grpc
from tests.bench.floor.streams import OPTIONS
from tests.bench.processes import Processes
from tests.bench.push.sizes import REVOKED

__all__ = ["Pusher", "start_push"]


def start_push(processes: Processes, folder: Path, *, nodes: int, in_one_process: bool, durable: bool = False) -> int:
    """Start a relay and nodes, each a process of its own or all in one; the relay's port, once all are attached."""
    folder.mkdir(parents=True)
    flags = ["--durable"] if durable else []
    relay = processes.start("tests.bench.push.relay", str(folder), str(nodes), *flags)
    port = int(relay.say()["port"])
    at_once = nodes if in_one_process else 1
    for first in range(0, nodes, at_once):
        processes.start("tests.bench.push.nodes", str(folder), str(port), str(first), str(at_once), *flags)
    relay.say()
    return port


class Pusher:
    """Pushes to every node and waits for all acknowledgements.

    Args:
        port: the relay's.
        nodes: how many there are.
    """

    def __init__(self, port: int, *, nodes: int) -> None:
        self._port = port
        self._request = guardian_pb2.RevokeRequest(revocations=[REVOKED] * nodes)

    async def push(self) -> int:
        """Returns how many acknowledged."""
        acknowledged = 0
        async for response in guardian_pb2_grpc.GuardianServiceStub(self._channel).Revoke(self._request):
            acknowledged += len(response.states)
        return acknowledged

    async def __aenter__(self) -> Pusher:
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{self._port}", options=OPTIONS)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close()

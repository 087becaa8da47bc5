"""From a guardian's revocation to the acknowledgement of the last node concerned.

Compared with a bare push-and-ack (:mod:`tests.bench.push`): the same hops, sizes and processes, no cryptography and no
commit. The same with the durable commits that the product cannot do without is printed beside it: three of them lie one
behind the other on this way.

- 4 nodes: real ones, each a process; one consent of 4 grants is revoked.
- 100 nodes: simulated ones in one process, which attach, verify, sign; 100 grants are revoked at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import grpc.aio

from permslip import statements as st
from permslip._pb.permslip.v1 import guardian_pb2, guardian_pb2_grpc, statement_pb2 as pb
from permslip.statements import Signed
from tests.bench.figures import Figure, Report
from tests.bench.floor.streams import OPTIONS
from tests.bench.load import Ask, Measured, in_turns_of_calls
from tests.bench.principals import now, person, signer_of
from tests.bench.processes import Processes
from tests.bench.product.laying import Laid, lay_out
from tests.bench.product.running import start_broker, start_nodes
from tests.bench.push.pusher import Pusher, start_push
from tests.bench.scale import Scale
from tests.bench.workload import FEDERATION

__all__ = ["measure"]

_WARM_UP: Final = 3


async def measure(report: Report, scale: Scale, folder: Path) -> None:
    """Few real nodes, then many simulated ones."""
    await _measure(report, folder / "few", nodes=scale.few_nodes, times=scale.revocations_few, simulated=False)
    await _measure(report, folder / "many", nodes=scale.many_nodes, times=scale.revocations_many, simulated=True)


async def _measure(report: Report, folder: Path, *, nodes: int, times: int, simulated: bool) -> None:
    laid = await lay_out(folder, nodes=nodes, grants=times + _WARM_UP, with_databases=not simulated)
    async with AsyncExitStack() as stack:
        processes = stack.enter_context(Processes())
        candidates: dict[str, Ask] = {}
        for name, durable in (("bare", False), ("durable", True)):
            port = start_push(processes, folder / name, nodes=nodes, in_one_process=simulated, durable=durable)
            candidates[name] = (await stack.enter_async_context(Pusher(port, nodes=nodes))).push
        _, address = start_broker(processes, laid)
        if simulated:
            _start_simulated(processes, laid, address)
        else:
            start_nodes(processes, laid, address)
        guardian = await stack.enter_async_context(_Guardian(laid, address))
        candidates["product"] = guardian.revoke_next
        measured = await in_turns_of_calls(candidates, count=times, warm_up=_WARM_UP)
    report.add(*_figures(f"revoke.{nodes}-{'simulated-' if simulated else ''}nodes", measured))


def _start_simulated(processes: Processes, laid: Laid, address: str) -> None:
    simulated = processes.start(
        "tests.bench.push.simulated_nodes",
        address.rpartition(":")[2],
        FEDERATION,
        laid.broker.raw.hex(),
        str(len(laid.nodes)),
        str(laid.at),
    )
    simulated.say()


class _Guardian:
    """Revokes one grant at each node, again and again other ones."""

    def __init__(self, laid: Laid, address: str) -> None:
        self._laid, self._address = laid, address
        self._key = person(laid.guardian)
        self._next: Iterator[int] = iter(range(len(laid.nodes[0].grant_ids)))

    async def revoke_next(self) -> None:
        """Returns when every node acknowledged."""
        number = next(self._next)
        revocations = [
            self._revocation(node.grant_ids[number], node.itself.root.public.raw) for node in self._laid.nodes
        ]
        waiting = {each.id for each in revocations}
        request = guardian_pb2.RevokeRequest(revocations=[each.envelope for each in revocations])
        async for response in self._stub.Revoke(request, timeout=60):
            for state in response.states:
                if state.HasField("refusal"):
                    raise RuntimeError(f"not revoked: {state.refusal}")
                if state.HasField("acknowledgement"):
                    waiting.discard(state.revocation_id)
        if waiting:
            raise RuntimeError(f"{len(waiting)} nodes did not acknowledge")

    def _revocation(self, grant_id: bytes, node: bytes) -> Signed[pb.Revocation]:
        payload = pb.Revocation(
            federation=FEDERATION,
            nonce=os.urandom(16),
            created_at=now(),
            signer=signer_of(self._key),
            target_id=grant_id,
            node=node,
            role=pb.REVOKER_ROLE_GUARDIAN,
        )
        return st.sign(st.REVOCATION, payload, [self._key])

    async def __aenter__(self) -> _Guardian:
        self._channel = grpc.aio.insecure_channel(self._address, options=OPTIONS)
        self._stub = guardian_pb2_grpc.GuardianServiceStub(self._channel)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()


def _figures(name: str, measured: dict[str, Measured]) -> list[Figure]:
    product, bare, durable = measured["product"], measured["bare"], measured["durable"]
    return [
        Figure(
            f"{name}.p99",
            product.p99,
            "ms",
            baseline=bare.p99,
            against="bare push-and-ack",
            at_most=3,
            note="revoke → signed acknowledgements of all; the baseline signs, verifies and commits nothing",
        ),
        Figure(f"{name}.p50", product.p50, "ms", baseline=bare.p50, against="bare push-and-ack"),
        Figure(
            f"{name}.p99 beside durable",
            product.p99,
            "ms",
            baseline=durable.p99,
            against="push-and-ack with 3 commits",
        ),
    ]

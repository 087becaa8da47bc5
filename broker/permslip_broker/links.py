"""Links: a sealed request to a node, its sealed answer back. The broker can read neither.

Rules:

- Nobody needs to have shown who she is: the slip's secret, which the broker never sees, is what counts at the node. So
  what outsiders can take is bounded: so many requests for one node at a time, and no longer than the node is given.

Example::

    response = await links.relay(node, sealed_request)
"""

from __future__ import annotations

import asyncio
import os
from typing import Final

from permslip._pb.permslip.v1 import guardian_pb2, node_pb2
from permslip.reasons import Reason
from permslip_broker.attachments import AttachedNode
from permslip_broker.outcomes import refusal

__all__ = ["Links"]

MOST_FOR_ONE_NODE: Final = 32


class Links:
    """Link requests under way.

    Args:
        within: seconds that a node gets.
    """

    def __init__(self, *, within: float) -> None:
        self._within = within
        self._calls: dict[tuple[bytes, bytes], asyncio.Future[node_pb2.LinkResult]] = {}

    async def relay(self, node: AttachedNode, sealed_request: bytes) -> guardian_pb2.RelayLinkResponse:
        """Put a request to its node and wait for the answer."""
        if sum(root == node.root for root, _ in self._calls) >= MOST_FOR_ONE_NODE:
            return guardian_pb2.RelayLinkResponse(refusal=refusal(Reason.BUSY))
        call_id = os.urandom(16)
        key = (node.root, call_id)
        answer: asyncio.Future[node_pb2.LinkResult] = asyncio.get_running_loop().create_future()
        self._calls[key] = answer
        forward = node_pb2.LinkForward(call_id=call_id, sealed_request=sealed_request)
        node.outbox.put(node_pb2.BrokerFrame(link=forward), forward.ByteSize())
        try:
            async with asyncio.timeout(self._within):
                result = await answer
        except TimeoutError:
            return guardian_pb2.RelayLinkResponse(refusal=refusal(Reason.TIMED_OUT))
        finally:
            del self._calls[key]
        if result.HasField("refusal"):
            return guardian_pb2.RelayLinkResponse(refusal=result.refusal)
        return guardian_pb2.RelayLinkResponse(sealed_response=result.sealed_response)

    def answered(self, node: AttachedNode, result: node_pb2.LinkResult) -> None:
        """A node's answer; one that nobody waits for is dropped."""
        answer = self._calls.get((node.root, result.call_id))
        if answer is not None and not answer.done():
            answer.set_result(result)

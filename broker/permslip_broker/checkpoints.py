"""The checkpoints that this broker gives out: of its own ledger cosigned by witnesses, of nodes' cosigned by itself.

Example::

    note = await checkpoints.own()
"""

from __future__ import annotations

from permslip.hosting.ledger import Ledger
from permslip_broker.node_checkpoints import NodeCheckpoints
from permslip_broker.witnessing import Witnessing

__all__ = ["GivenCheckpoints"]


class GivenCheckpoints:
    """See :class:`permslip_broker.auditors.Checkpoints`.

    Args:
        ledger: the broker's.
        witnessing: has its checkpoints cosigned.
        nodes: cosigns theirs.
    """

    def __init__(self, ledger: Ledger, witnessing: Witnessing, nodes: NodeCheckpoints) -> None:
        self._ledger, self._witnessing, self._nodes = ledger, witnessing, nodes

    async def own(self) -> bytes:
        """Of everything recorded until now, if its witnesses answer in time."""
        return (await self._witnessing.cosigned(self._ledger.size)).note

    async def of_node(self, root: bytes) -> bytes | None:
        """As of now, cosigned by this broker; None: the node is asked for its own."""
        return await self._nodes.cosigned(root)

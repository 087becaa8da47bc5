"""A broker's ledger in memory, of which a test offers checkpoints, true and false ones.

Example::

    ledger = OfferedLedger(world.broker)
    cosignature = await ledger.offer(stream, 210, old=200)
"""

from __future__ import annotations

from collections.abc import Sequence

from permslip._pb.permslip.v1 import ledger_pb2, node_pb2
from permslip.checkpoints import Checkpoint, sign_checkpoint
from permslip.keys import SigningKey
from permslip.merkle import MemoryHashes, consistency_proof, leaf_hash, root_at
from permslip.notes import Ed25519Signer
from tests.federation.simulated_broker import AttachedNode, SimulatedBroker

__all__ = ["FORKED_AT", "OfferedLedger"]

FORKED_AT = 205
_LEAVES = 400


class OfferedLedger:
    """The true history, and another one that parts from it at entry ``FORKED_AT``.

    Args:
        broker: whose ledger it is.
    """

    def __init__(self, broker: SimulatedBroker) -> None:
        self._broker = broker
        self.origin = f"{broker.federation}/broker"
        self.true = MemoryHashes.of_leaves([leaf_hash(each.to_bytes(4, "big")) for each in range(_LEAVES)])
        self.forked = MemoryHashes.of_leaves(
            [leaf_hash(each.to_bytes(4, "big") + bytes(each >= FORKED_AT)) for each in range(_LEAVES)]
        )

    def note(
        self, size: int, *, history: MemoryHashes | None = None, key: SigningKey | None = None, origin: str = ""
    ) -> bytes:
        """A signed checkpoint."""
        checkpoint = Checkpoint(origin or self.origin, size, root_at(history or self.true, size))
        return sign_checkpoint(checkpoint, [Ed25519Signer(checkpoint.origin, key or self._broker.organization.key)])

    def frame(self, note: bytes, size: int, old: int, *, history: MemoryHashes | None = None) -> node_pb2.BrokerFrame:
        """An offer with the proof from ``old``."""
        hashes: Sequence[bytes] = consistency_proof(history or self.true, old, size) if old <= size else []
        proof = ledger_pb2.ConsistencyProof(old_size=old, new_size=size, hashes=hashes)
        checkpoint = ledger_pb2.SignedCheckpoint(note=note)
        return node_pb2.BrokerFrame(checkpoint=node_pb2.CheckpointOffer(checkpoint=checkpoint, consistency=proof))

    async def send(self, stream: AttachedNode, frame: node_pb2.BrokerFrame) -> node_pb2.Cosignature:
        """Send an offer; returns what the node answers."""
        before = len(self._answers())
        stream.send(frame)
        await self._broker.until(lambda: len(self._answers()) > before)
        return self._answers()[before]

    async def offer(
        self, stream: AttachedNode, size: int, *, old: int, history: MemoryHashes | None = None
    ) -> node_pb2.Cosignature:
        """Offer a checkpoint of one history with its proof."""
        return await self.send(stream, self.frame(self.note(size, history=history), size, old, history=history))

    def _answers(self) -> list[node_pb2.Cosignature]:
        return [each.cosignature for each in self._broker.replies if each.HasField("cosignature")]

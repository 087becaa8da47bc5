"""Witnesses: the attached nodes cosign this broker's checkpoints, and the broker shows what they cosigned.

Whenever the ledger grew, and at most once in ``ledger.checkpoint_ms``, its head is signed and offered to the witnesses
with the proof that it continues what each of them cosigned last. Whoever needs a checkpoint of what was just recorded
(an auditor, a parent) has one made at once.

Rules:

- Nothing waits for witnesses: neither a decision nor a revocation. Without them checkpoints are signed by the broker
  alone, and say so by having no cosignature.
- A cosignature counts only after it was verified, under the name and certified key of the node whose stream it came on;
  one key counts once. So nothing false is ever added to a note, which would spoil the whole of it.
- The broker need not remember where a witness stands: it is told, and then sends the proof from there.
- Each node has few offers open at a time; one that refuses is left in peace for some seconds.

Example::

    note = (await witnessing.covering(at_least=ledger.size)).note
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

from permslip._pb.permslip.v1 import ledger_pb2, node_pb2
from permslip.bounds import check_bounds
from permslip.checkpoints import CosignatureVerifier
from permslip.errors import PermslipError, ProofError
from permslip.hosting.ledger import Ledger
from permslip.hosting.logs import get_log
from permslip.notes import NoteSignature, VerifierKey, parse_signature_lines
from permslip.quantities import Millis
from permslip.reasons import Reason
from permslip_broker.attachments import AttachedNode, Attachments
from permslip_broker.cosigned_store import ENOUGH, NEWEST, CosignedStore, Kept
from permslip_broker.identity import Identity
from permslip_broker.witness_choice import WitnessChoice
from permslip_broker.witness_rounds import Cosigned, Round, WitnessStream

__all__ = ["Witnessing"]

_log = get_log(__name__)

# Seconds that who asks for a checkpoint waits for its cosignatures.
WITHIN: Final = 2.0
# Seconds between two rounds that were asked for, and that a node which refused is left alone.
_SOONEST: Final = 0.2
_LEFT_ALONE: Final = 10.0
# A head that was read longer ago is read again before it is offered.
_HEAD_GOOD_FOR: Final = 5.0
# Milliseconds after which a checkpoint that is asked for is cosigned anew, though nothing was added: a later time on it
# says that nothing else was shown meanwhile.
_FRESH_FOR: Final = 60_000
_MOST_OFFERS: Final = 4
_ROUNDS: Final = 16
_OUT_OF_STEP: Final = "checkpoint.consistency.old_size"


class Witnessing:
    """Has checkpoints cosigned. Belongs to the event loop.

    Args:
        identity: who signs checkpoints.
        choice: who the witnesses are.
        ledger: of which they are.
        store: where they are kept.
        attachments: the nodes' streams.
        clock: the broker's.
        every: seconds between two rounds at least.
    """

    def __init__(
        self,
        identity: Identity,
        choice: WitnessChoice,
        ledger: Ledger,
        store: CosignedStore,
        attachments: Attachments,
        *,
        clock: Callable[[], Millis],
        every: float,
    ) -> None:
        self._identity, self.choice, self._ledger, self._store = identity, choice, ledger, store
        self._attachments, self._clock, self._every = attachments, clock, every
        self.best: Cosigned | None = None
        """The largest checkpoint that a quorum cosigned."""
        self.attached, self.needed = 0, 0
        """How many witnesses were attached at the last look, and how many must cosign."""
        self.published: Cosigned | None = None
        """What is shown to everybody who does not wait: at most ``every`` old. May be read in any thread."""
        self.refused: Counter[str] = Counter()
        """How often nodes refused a checkpoint, by reason; and ``BAD_COSIGNATURE``: what nodes sent in vain."""
        self._restored: Cosigned | None = None
        self._rounds: OrderedDict[int, Round] = OrderedDict()
        self._streams: dict[AttachedNode, WitnessStream] = {}
        self._offered, self._last_round = 0, 0.0
        self._asked, self._changed, self._unsaved = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        attachments.on_change(self._attached)
        attachments.on_detach(self._detached)

    # ------------------------------------------------------------------------------------- life

    async def open(self) -> None:
        """Read what is kept, and begin."""
        kept = await asyncio.to_thread(self._store.read)
        self.best = self._shown_again(kept.get(ENOUGH), enough=True)
        self._restored = self._shown_again(kept.get(NEWEST), enough=False)
        self._tasks = [asyncio.ensure_future(self._offer_again()), asyncio.ensure_future(self._save_again())]

    async def close(self) -> None:
        """End, and keep what came last."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._save()

    # ------------------------------------------------------------------------------------- what others ask

    async def covering(self, at_least: int, within: float = WITHIN) -> Cosigned:
        """A checkpoint of at least so many entries, cosigned by a quorum if that can be had in time.

        Args:
            at_least: entries that it must cover; no more than the ledger has.
            within: seconds to wait.
        """
        if not self._have(at_least, fresh=True) and self._can_be_had():
            self._asked.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(within):
                    while not self._have(at_least, fresh=True):
                        self._changed.clear()
                        await self._changed.wait()
        if self.best is not None and self._have(at_least):
            return self.best
        return await self._newest(at_least)

    async def cosigned(self, at_least: int, within: float = WITHIN) -> Cosigned:
        """The like, for who needs a quorum more than the last entries: where the operator named the witnesses and they
        do not answer in time, the last checkpoint that enough of them cosigned."""
        covering = await self.covering(at_least, within)
        if covering.enough or self.best is None or not self.choice.is_pinned:
            return covering
        return self.best

    def at(self, size: int) -> bytes | None:
        """The note that was shown for a size lately, if there was one."""
        known = self._rounds.get(size)
        lately = (self.best, self._restored, known.shown(enough=False) if known is not None else None)
        return next((each.note for each in lately if each is not None and each.size == size), None)

    # ------------------------------------------------------------------------------------- what nodes say

    def take(self, node: AttachedNode, said: node_pb2.Cosignature) -> None:
        """A node cosigned, or says why not."""
        check_bounds(said, "cosignature")
        stream = self._streams.get(node)
        if stream is None or stream.open_offers == 0:
            _log.warning("frame_not_asked_for", node=node.root.hex(), frame="cosignature")
            return
        stream.open_offers -= 1
        stream.silent_since = _now()
        if said.HasField("refusal"):
            self._take_refusal(node, stream, said)
            return
        known = self._rounds.get(said.size)
        if known is None:
            return
        try:
            key, line = self._verified(node, known, said.lines)
        except PermslipError as error:
            self.refused["BAD_COSIGNATURE"] += 1
            stream.not_before = _now() + _LEFT_ALONE
            _log.error("cosignature_refused", node=node.root.hex(), why=str(error))
            return
        known.lines[key.public.raw] = line
        known.cosigned_at = self._clock()
        self._progressed(known)

    def _take_refusal(self, node: AttachedNode, stream: WitnessStream, said: node_pb2.Cosignature) -> None:
        stream.known = said.size
        if said.refusal.field == _OUT_OF_STEP and said.size <= self._ledger.size:
            self._asked.set()
            return
        stream.not_before = _now() + _LEFT_ALONE
        reason = _reason(said.refusal.code)
        self.refused[reason.name] += 1
        _log.error(
            "checkpoint_refused_by_node",
            node=node.root.hex(),
            reason=reason.name,
            node_knows=said.size,
            ledger_size=self._ledger.size,
            detail=said.refusal.message[:1_000],
        )

    def _verified(self, node: AttachedNode, known: Round, lines: bytes) -> tuple[VerifierKey, NoteSignature]:
        key = self.choice.key_of(node.root)
        if key is None:
            raise ProofError("the node is no witness with a key of its own.")
        for line in parse_signature_lines(lines):
            if line.is_by(key):
                CosignatureVerifier(key).verify(known.text, line.signature)
                return key, line
        raise ProofError(f"expected a cosignature by {key.name}, got none.")

    def _progressed(self, known: Round) -> None:
        enough = len(known.lines) >= self.choice.needed
        if enough and (self.best is None or known.size >= self.best.size):
            self.best = known.shown(enough=True)
            self._changed.set()
        self._unsaved.set()

    async def _publish(self) -> None:
        """What enough witnesses cosigned; where the operator named none, or they never did, the newest there is."""
        size = self._ledger.size
        if self.best is not None and (self.choice.is_pinned or self.best.size >= size):
            newest = self.best
        elif self.published is not None and self.published.size >= size and not self._is_cosigned(size):
            return
        else:
            newest = await self._newest(size)
        if self.published is None or newest.size >= self.published.size:
            self.published = newest

    # ------------------------------------------------------------------------------------- offering

    def _attached(self, root: bytes) -> None:
        if self._attachments.get(root) is None:
            return
        self.choice.look_again()
        if self.choice.is_witness(root):
            self._asked.set()

    def _detached(self, node: AttachedNode) -> None:
        self._streams.pop(node, None)

    def _have(self, at_least: int, *, fresh: bool = False) -> bool:
        best = self.best
        if best is None or best.size < at_least:
            return False
        return not fresh or abs(self._clock() - best.cosigned_at) < _FRESH_FOR

    def _is_cosigned(self, at_least: int) -> bool:
        """Whether there are cosignatures that what is published does not show yet."""
        shown = self.published.lines if self.published is not None else b""
        return not shown and any(each.size >= at_least and each.lines for each in self._rounds.values())

    def _can_be_had(self) -> bool:
        return sum(map(self._may_answer, self._attachments)) >= self.choice.needed

    async def _newest(self, at_least: int) -> Cosigned:
        covering = [each for each in self._rounds.values() if each.size >= at_least and each.lines]
        if covering:
            return max(covering, key=lambda each: (len(each.lines), each.size)).shown(enough=False)
        if self._restored is not None and self._restored.size >= at_least:
            return self._restored
        head = await asyncio.to_thread(self._ledger.read_head)
        note = self._identity.checkpoint(head.size, head.root)
        return Cosigned(head.size, head.root, note, b"", enough=False, cosigned_at=Millis(0))

    async def _offer_again(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._every):
                    await self._asked.wait()
            try:
                await self._look()
            except Exception as error:  # noqa: BLE001 (whatever it is: the next round may succeed, nothing waits for it)
                _log.error("checkpoint_not_offered", exc_info=error)

    async def _look(self) -> None:
        self.needed = self.choice.needed
        self.attached = sum(self.choice.is_witness(node.root) for node in self._attachments)
        if self._asked.is_set() or self._ledger.size > self._offered:
            await asyncio.sleep(max(0.0, self._last_round + min(_SOONEST, self._every) - _now()))
            self._asked.clear()
            self._last_round = _now()
            await self._offer()
        await self._publish()

    async def _offer(self) -> None:
        nodes = [node for node in self._attachments if self._wants_one(node)]
        if not nodes:
            self._offered = self._ledger.size
            return
        began = _now()
        head = await asyncio.to_thread(self._ledger.read_head)
        sizes = {self._streams[node].known for node in nodes if node in self._streams} | {0}
        proofs = await asyncio.to_thread(self._proofs, sizes, head.size)
        if _now() - began > _HEAD_GOOD_FOR:
            self._asked.set()
            return
        known = self._round(head.size, head.root)
        self._offered = head.size
        signed = ledger_pb2.SignedCheckpoint(note=known.plain)
        for node in nodes:
            key = self.choice.key_of(node.root)
            if self._attachments.get(node.root) is not node or key is None or key.public.raw in known.lines:
                continue
            stream = self._streams.setdefault(node, WitnessStream())
            old = stream.known
            if old not in proofs:  # it said otherwise while the proofs were made
                self._asked.set()
                continue
            proof = ledger_pb2.ConsistencyProof(old_size=old, new_size=head.size, hashes=proofs[old])
            offer = node_pb2.CheckpointOffer(checkpoint=signed, consistency=proof)
            node.outbox.put(node_pb2.BrokerFrame(checkpoint=offer), offer.ByteSize())
            if not stream.open_offers:
                stream.silent_since = _now()
            stream.open_offers += 1
            stream.known = head.size

    def _may_answer(self, node: AttachedNode) -> bool:
        """Whether it is worth waiting for a node: it is a witness, and left no offer unanswered for long."""
        stream = self._streams.get(node)
        silent = stream is not None and stream.open_offers and _now() - stream.silent_since >= WITHIN
        return self.choice.is_witness(node.root) and not silent

    def _wants_one(self, node: AttachedNode) -> bool:
        if not self.choice.is_witness(node.root):
            return False
        stream = self._streams.get(node)
        if stream is None:
            return True
        if stream.open_offers and _now() - stream.silent_since >= _LEFT_ALONE:
            stream.open_offers = 0
        return stream.open_offers < _MOST_OFFERS and _now() >= stream.not_before

    def _round(self, size: int, root: bytes) -> Round:
        known = self._rounds.get(size)
        if known is None or self._clock() - known.begun >= _FRESH_FOR:
            known = self._rounds[size] = Round(self._identity, size, root, self._clock())
            self._rounds.move_to_end(size)
            while len(self._rounds) > _ROUNDS:
                self._rounds.popitem(last=False)
        return known

    def _proofs(self, old_sizes: Iterable[int], size: int) -> dict[int, list[bytes]]:
        """Proofs from each size; to a witness that is ahead of this ledger there is none, and it will say so."""
        return {old: self._ledger.consistency_proof(old, size) if old <= size else [] for old in old_sizes}

    # ------------------------------------------------------------------------------------- keeping

    def _shown_again(self, kept: Kept | None, *, enough: bool) -> Cosigned | None:
        if kept is None:
            return None
        if kept.size > self._ledger.size:
            _log.error("cosigned_checkpoint_is_ahead", size=kept.size, ledger_size=self._ledger.size)
            return None
        # The broker's key may have changed since: its own line is made anew, the witnesses' are about the text alone.
        note = self._identity.checkpoint(kept.size, kept.root) + kept.lines
        return Cosigned(kept.size, kept.root, note, kept.lines, enough, kept.cosigned_at)

    async def _save_again(self) -> None:
        while True:
            await self._unsaved.wait()
            await self._save()
            await asyncio.sleep(self._every)

    async def _save(self) -> None:
        if not self._unsaved.is_set():
            return
        self._unsaved.clear()
        kept = {}
        if self.best is not None:
            kept[ENOUGH] = _kept(self.best)
        if self._rounds:
            kept[NEWEST] = _kept(self._rounds[max(self._rounds)].shown(enough=False))
        try:
            await asyncio.to_thread(self._store.write, kept)
        except Exception as error:  # noqa: BLE001 (it is asked for again after a restart)
            _log.error("cosigned_checkpoint_not_kept", exc_info=error)


def _reason(code: int) -> Reason:
    try:
        return Reason(code)
    except ValueError:
        return Reason.INTERNAL


def _kept(shown: Cosigned) -> Kept:
    return Kept(shown.size, shown.root, shown.lines, shown.cosigned_at)


def _now() -> float:
    return asyncio.get_running_loop().time()

"""This node as a witness: it cosigns a broker's checkpoint only if that continues what it has cosigned before.

The rules of C2SP tlog-witness' add-checkpoint, with the attached stream in the place of HTTP. Beyond them, what the
broker says in its ticks counts as well: they are signed too, and name the size and root of the same ledger.

====================  ================================================================================================
``FORK``              another root at the size that was cosigned last, or that a tick told; or another log altogether
``ROLLBACK``          a smaller size than was cosigned before
``STALE``             a smaller size than a tick told more than 10 s earlier: what happened since is kept from witnesses
``BAD_PROOF``         not proved to continue what was cosigned last
``BAD_SIGNATURE``     not signed by the broker's certified key
====================  ================================================================================================

Rules:

- Each of these is refused, told to the broker, logged as an error, counted, and recorded in this node's own ledger as a
  ``witness_alert``, with both signed checkpoints kept beside it.
- The same thing offered again is refused again and recorded once; a broker that invents ever new ones fills no ledger.
- A proof from another size than the last one is no fault: the broker is told where this node stands.
- A node whose clock is behind its own records cosigns nothing: a cosignature says when.

Example::

    cosignature = await witness.answer(broker, broker_key, offer, arrived=monotonic())
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from prometheus_client import Counter
from sqlalchemy import Connection

from permslip._pb.permslip.v1 import ledger_pb2, node_pb2, session_pb2, statement_pb2 as pb
from permslip.bounds import check_bounds
from permslip.checkpoints import (
    Checkpoint,
    CosignatureSigner,
    UpdateOutcome,
    UpdateRefusedError,
    VerifiedCheckpoint,
    cosign,
    open_checkpoint,
)
from permslip.errors import KeyRejectedError, MalformedError, PermslipError, ProofError, SignatureError
from permslip.hosting.drafts import Draft
from permslip.hosting.last_cosigned import OtherSizeError
from permslip.hosting.logs import get_log
from permslip.hosting.metrics import Metrics
from permslip.hosting.refusals import refusal_of
from permslip.keys import PublicKey
from permslip.notes import Ed25519Verifier, SignatureType, VerifierKey, parse_note
from permslip.quantities import Millis, Position
from permslip.reasons import Reason
from permslip.statements import Signed
from permslip.witnesses import witness_name
from permslip_node.identity import Identity
from permslip_node.recording import Recording
from permslip_node.releasing import Work
from permslip_node.witness_store import Alert, WitnessStore

__all__ = ["Witness"]

_log = get_log(__name__)

_Fault = ledger_pb2.WitnessFault
# Old enough that no checkpoint that is on its way can be smaller than what such a tick told.
_STALE_AFTER_MS: Final = 10_000
# Of one broker: entries in the ledger in one minute, and which faults are remembered as recorded.
_ALERTS_A_MINUTE: Final = 10
_MINUTE_MS: Final = 60_000
_REMEMBERED: Final = 256

_FAULTS: Final = {
    UpdateOutcome.FORK: _Fault.WITNESS_FAULT_FORK,
    UpdateOutcome.OTHER_LOG: _Fault.WITNESS_FAULT_FORK,
    UpdateOutcome.ROLLBACK: _Fault.WITNESS_FAULT_ROLLBACK,
    UpdateOutcome.INCONSISTENT: _Fault.WITNESS_FAULT_BAD_PROOF,
}
_REASONS: Final = {
    _Fault.WITNESS_FAULT_BAD_PROOF: Reason.MALFORMED,
    _Fault.WITNESS_FAULT_BAD_SIGNATURE: Reason.BAD_SIGNATURE,
}


class _Tick(NamedTuple):
    at: int
    size: int
    root: bytes


class _Refused(Exception):  # noqa: N818 (no error of the product: it never leaves this module)
    """A checkpoint is not to be believed."""

    def __init__(self, fault: ledger_pb2.WitnessFault.ValueType, detail: str) -> None:
        super().__init__(detail)
        self.fault, self.detail = fault, detail


class _Seen:
    """What one broker has said of its ledger since this node runs, and what was recorded about it."""

    def __init__(self, last: Checkpoint | None, note: bytes) -> None:
        self.last, self.note = last, note
        self.settled_size = 0
        self._ticks: deque[_Tick] = deque()
        self._recorded: OrderedDict[tuple[int, int, bytes], None] = OrderedDict()
        self._recorded_at: deque[int] = deque()

    def tick(self, tick: _Tick) -> None:
        """Remember what a tick told."""
        self._ticks.append(tick)
        self.settle(tick.at)

    def settle(self, now: int) -> None:
        """What was told long enough ago is the least that a checkpoint must have."""
        while self._ticks and now - self._ticks[0].at > _STALE_AFTER_MS:
            self.settled_size = max(self.settled_size, self._ticks.popleft().size)

    def told_otherwise(self, checkpoint: Checkpoint) -> bool:
        """Whether a tick told another root at this size."""
        return any(each.size == checkpoint.size and each.root != checkpoint.root for each in self._ticks)

    def may_record(self, key: tuple[int, int, bytes], now: int) -> bool:
        """Whether a fault is new and there is room for it; if so it is taken as recorded."""
        while self._recorded_at and now - self._recorded_at[0] >= _MINUTE_MS:
            self._recorded_at.popleft()
        if key in self._recorded or len(self._recorded_at) >= _ALERTS_A_MINUTE:
            return False
        self._recorded[key] = None
        if len(self._recorded) > _REMEMBERED:
            self._recorded.popitem(last=False)
        self._recorded_at.append(now)
        return True


class Witness:
    """Cosigns brokers' checkpoints. Belongs to one event loop.

    Args:
        identity: who cosigns.
        store: what was cosigned.
        recording: where alerts are recorded.
        brokers: roots of the brokers that this node attaches to.
        clock: UTC milliseconds now.
        monotonic: milliseconds of a clock that never jumps.
        metrics: where cosignatures and alerts are counted.
    """

    def __init__(
        self,
        identity: Identity,
        store: WitnessStore,
        recording: Recording,
        brokers: Iterable[bytes],
        *,
        clock: Callable[[], Millis],
        monotonic: Callable[[], int],
        metrics: Metrics,
    ) -> None:
        self._identity, self.store, self._recording = identity, store, recording
        self._clock, self._monotonic = clock, monotonic
        self._seen: dict[bytes, _Seen] = {}
        for broker in brokers:
            last = store.last(broker)
            self._seen[broker] = _Seen(last.checkpoint, last.note) if last is not None else _Seen(None, b"")
        self._turn = asyncio.Lock()
        self._work = Work()
        self._cosigned = Counter(
            "permslip_node_cosigned", "Checkpoints of brokers that were cosigned.", registry=metrics.registry
        )
        self._alerts = Counter(
            "permslip_node_witness_alerts",
            "Checkpoints of brokers that were refused.",
            ("fault",),
            registry=metrics.registry,
        )

    async def answer(
        self, broker: bytes, key: bytes, offer: node_pb2.CheckpointOffer, *, arrived: int
    ) -> node_pb2.Cosignature:
        """Cosign an offered checkpoint, or say why not.

        Args:
            broker: root of who offers it.
            key: its certified online key.
            offer: as it came.
            arrived: when, by the monotonic clock.
        """
        async with self._turn:
            try:
                return await self._answer(broker, key, offer, arrived)
            except OtherSizeError as error:
                refusal = session_pb2.Refusal(
                    code=Reason.MALFORMED.wire,
                    field="checkpoint.consistency.old_size",
                    message=error.message,
                    remedy=error.remedy,
                )
                return node_pb2.Cosignature(size=error.known, refusal=refusal)
            except PermslipError as error:
                _log.error("checkpoint_not_cosigned", why=f"{type(error).__name__}: {error}")
                return node_pb2.Cosignature(size=self._known_size(broker), refusal=refusal_of(error))

    def saw_tick(self, broker: bytes, tick: Signed[pb.Tick]) -> None:
        """Take note of a tick that the broker signed for this node, whether it renews the lease or not."""
        seen, payload = self._seen[broker], tick.payload
        seen.tick(_Tick(self._monotonic(), payload.ledger_size, payload.root_hash))
        last = seen.last
        if last is not None and last.size == payload.ledger_size and last.root != payload.root_hash:
            detail = (
                f"expected the root {last.root.hex()} that the broker's ledger had at size {last.size}, got "
                f"{payload.root_hash.hex()} in a tick."
            )
            told = Checkpoint(last.origin, payload.ledger_size, payload.root_hash)
            self._work.begin(self._alert(broker, _Fault.WITNESS_FAULT_FORK, detail, told, tick.raw))

    async def close(self) -> None:
        """Wait until what is being recorded is."""
        await self._work.ended(1.0)

    async def _answer(
        self, broker: bytes, key: bytes, offer: node_pb2.CheckpointOffer, arrived: int
    ) -> node_pb2.Cosignature:
        check_bounds(offer, "checkpoint")
        if self._recording.ledger.clock_is_behind():
            refusal = session_pb2.Refusal(code=Reason.CLOCK.wire, message=Reason.CLOCK.meaning)
            return node_pb2.Cosignature(size=self._known_size(broker), refusal=refusal)
        note = offer.checkpoint.note
        opened: VerifiedCheckpoint | None = None
        try:
            opened = _opened(note, key)
            return await self._cosign(broker, opened, offer.consistency, arrived)
        except _Refused as refused:
            offered = opened.checkpoint if opened is not None else None
            await self._alert(broker, refused.fault, refused.detail, offered, note)
            refusal = session_pb2.Refusal(
                code=_REASONS.get(refused.fault, Reason.NOT_ALLOWED).wire,
                field="checkpoint",
                message=refused.detail[:1_000],
            )
            return node_pb2.Cosignature(size=self._known_size(broker), refusal=refusal)

    async def _cosign(
        self, broker: bytes, opened: VerifiedCheckpoint, proof: ledger_pb2.ConsistencyProof, arrived: int
    ) -> node_pb2.Cosignature:
        seen, checkpoint = self._seen[broker], opened.checkpoint
        # (1) it tells no less, and nothing else, than the broker's ticks did
        seen.settle(arrived)
        if checkpoint.size < seen.settled_size:
            raise _Refused(
                _Fault.WITNESS_FAULT_STALE,
                f"expected at least {seen.settled_size} entries, which a tick told more than "
                f"{_STALE_AFTER_MS // 1_000} s ago, got a checkpoint of {checkpoint.size}.",
            )
        if seen.told_otherwise(checkpoint):
            raise _Refused(
                _Fault.WITNESS_FAULT_FORK,
                f"expected the root that a tick told at size {checkpoint.size}, got {checkpoint.root.hex()}.",
            )
        # (2) it continues what was cosigned last; then it takes that one's place, on the disk
        try:
            await self._recording.aside(self._take, broker, opened, proof)
        except UpdateRefusedError as error:
            raise _Refused(_FAULTS[error.outcome], error.message) from error
        seen.last, seen.note = checkpoint, opened.note.raw
        # (3) only now
        name = witness_name(self._identity.federation, self._identity.root)
        line = cosign(opened, CosignatureSigner(name, self._identity.key, timestamp=self._clock() // 1_000))
        self._cosigned.inc()
        _log.debug("checkpoint_cosigned", size=checkpoint.size)
        return node_pb2.Cosignature(size=checkpoint.size, lines=line.line().encode())

    def _take(self, broker: bytes, opened: VerifiedCheckpoint, proof: ledger_pb2.ConsistencyProof) -> None:
        self.store.take(broker, opened, old_size=proof.old_size, proof=list(proof.hashes), now=self._clock())

    async def _alert(
        self,
        broker: bytes,
        fault: ledger_pb2.WitnessFault.ValueType,
        detail: str,
        offered: Checkpoint | None,
        evidence: bytes,
    ) -> None:
        """Log, count, and record once."""
        seen = self._seen[broker]
        name = ledger_pb2.WitnessFault.Name(fault).removeprefix("WITNESS_FAULT_")
        self._alerts.labels(fault=name).inc()
        key = (int(fault), offered.size, offered.root) if offered is not None else (int(fault), -1, b"")
        if not seen.may_record(key, self._monotonic()):
            return
        _log.error("checkpoint_refused", fault=name, broker=broker.hex(), detail=detail)
        body = ledger_pb2.WitnessAlert(fault=fault)
        if seen.last is not None:
            body.seen_size, body.seen_root = seen.last.size, seen.last.root
        if offered is not None:
            body.offered_size, body.offered_root = offered.size, offered.root
        now, note = self._clock(), seen.note

        def write(connection: Connection, position: Position) -> None:
            self.store.put_alert(
                connection, Alert(broker, fault, now, position, seen=note, offered=evidence, detail=detail)
            )

        try:
            await self._recording.append(Draft("witness_alert", body, write=write, despite_clock=True))
        except PermslipError as error:
            _log.error("witness_alert_not_recorded", why=f"{type(error).__name__}: {error}")

    def _known_size(self, broker: bytes) -> int:
        last = self._seen[broker].last
        return last.size if last is not None else 0


def _opened(note: bytes, key: bytes) -> VerifiedCheckpoint:
    """The checkpoint, signed by this key under its own origin; whether that is the expected one is checked later."""
    try:
        origin = parse_note(note).untrusted_text.split("\n", 1)[0]
        public = PublicKey.parse(key, field="key-cert.signing_key")
        return open_checkpoint(note, Ed25519Verifier(VerifierKey(origin, SignatureType.ED25519, public)))
    except (MalformedError, SignatureError, KeyRejectedError, ProofError) as error:
        raise _Refused(
            _Fault.WITNESS_FAULT_BAD_SIGNATURE, f"expected a checkpoint signed by the broker's key: {error.message}"
        ) from error

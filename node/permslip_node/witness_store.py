"""What this node has cosigned of each broker's ledger, and what it refused to: the memory that makes it a witness.

Rules:

- One row for each broker: the last checkpoint that was cosigned. Reading it, checking the next one against it and
  storing that are one transaction, so that of two offers at once none is checked against what the other replaced.
- A cosignature is made after the commit. If the node dies between the two, the same checkpoint is cosigned when it is
  offered again; the other way round a fork could be.
- A refused checkpoint is kept with the one that it contradicts, as they came: both are signed by the broker, and
  together they are the evidence.

Example::

    outcome = store.take(broker, opened, old_size=offer.consistency.old_size, proof=hashes, now=now)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, Engine, func, insert, select, update

from permslip._pb.permslip.v1 import ledger_pb2
from permslip.checkpoints import Checkpoint, UpdateOutcome, VerifiedCheckpoint, check_update
from permslip.errors import UnavailableError
from permslip.hosting.database import reading, writing
from permslip.quantities import Millis
from permslip_node import schema

__all__ = ["Alert", "Memory", "OtherSizeError", "WitnessStore", "Witnessed"]


class Witnessed(NamedTuple):
    """The last checkpoint of a broker's ledger that this node cosigned, as it was offered."""

    checkpoint: Checkpoint
    note: bytes
    cosigned_at: Millis


@dataclass(frozen=True, slots=True)
class Alert:
    """A checkpoint that this node refused because it is not to be believed.

    Attributes:
        broker: root of whose it is.
        fault: why.
        at: when, UTC milliseconds.
        position: of the entry in this node's ledger that says so.
        seen, offered: the checkpoint that was cosigned last and the one that was refused, as signed notes; empty where
            there is none.
        detail: what was expected and what came.
    """

    broker: bytes
    fault: ledger_pb2.WitnessFault.ValueType
    at: Millis
    position: int
    seen: bytes
    offered: bytes
    detail: str


class Memory(NamedTuple):
    """What is known of one broker's ledger, for a node's operator."""

    broker: bytes
    last: Witnessed | None
    alerts: int
    last_alert: Alert | None


class OtherSizeError(UnavailableError):
    """The proof offered begins at another size than the one that was cosigned last; no fault, only out of step."""

    def __init__(self, known: int, offered_from: int) -> None:
        super().__init__(
            f"expected a consistency proof from size {known}, which this node cosigned last, got one from "
            f"{offered_from}.",
            remedy=f"Offer it with a proof from {known}.",
        )
        self.known = known


class WitnessStore:
    """Reads and writes; waits for the database.

    Args:
        engine: the node's database.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def last(self, broker: bytes) -> Witnessed | None:
        """What was cosigned last of this broker's ledger."""
        with reading(self._engine) as connection:
            return self._last(connection, broker)

    def take(
        self, broker: bytes, opened: VerifiedCheckpoint, *, old_size: int, proof: Sequence[bytes], now: Millis
    ) -> UpdateOutcome:
        """Check a checkpoint against the last one and put it in its place; when this returns it may be cosigned.

        Args:
            broker: root of whose ledger it is.
            opened: its signature by the broker's certified key holds.
            old_size: from which the proof leads.
            proof: consistency proof to its size.
            now: UTC milliseconds.

        Returns:
            FIRST, SAME or GROWN.

        Raises:
            UpdateRefusedError: it must not follow the last one: a fork, a rollback, another log, or not proved.
            OtherSizeError: the proof begins elsewhere; nothing is said about the checkpoint.
        """
        new = opened.checkpoint
        with writing(self._engine) as connection:
            last = self._last(connection, broker, for_update=True)
            known = last.checkpoint if last is not None else None
            # Whoever does not know where this node stands asks so; what contradicts it needs no proof to be refused.
            if old_size != (known.size if known is not None else 0) and not _contradicts(known, new):
                raise OtherSizeError(known.size if known is not None else 0, old_size)
            outcome = check_update(known, new, proof)
            if outcome is not UpdateOutcome.SAME:
                self._put(connection, broker, opened, now, first=last is None)
        return outcome

    def put_alert(self, connection: Connection, alert: Alert) -> None:
        """Keep a refused checkpoint; in the transaction of the ledger entry that says so."""
        connection.execute(
            insert(schema.witness_alert).values(
                broker=alert.broker,
                fault=int(alert.fault),
                refused_at=alert.at,
                position=alert.position,
                seen=alert.seen,
                offered=alert.offered,
                detail=alert.detail,
            )
        )

    def memories(self) -> list[Memory]:
        """What is known of each broker's ledger, by root."""
        witnessed, alert = schema.witnessed.c, schema.witness_alert.c
        with reading(self._engine) as connection:
            rows = connection.execute(select(witnessed.broker)).scalars().all()
            grouped = connection.execute(select(alert.broker, func.count().label("alerts")).group_by(alert.broker))
            counts = {bytes(row.broker): int(row.alerts) for row in grouped}
            brokers = sorted({*(bytes(each) for each in rows), *counts})
            return [
                Memory(each, self._last(connection, each), counts.get(each, 0), self._last_alert(connection, each))
                for each in brokers
            ]

    def _last(self, connection: Connection, broker: bytes, *, for_update: bool = False) -> Witnessed | None:
        row = schema.witnessed.c
        query = select(row.origin, row.size, row.root, row.note, row.cosigned_at).where(row.broker == broker)
        found = connection.execute(query.with_for_update() if for_update else query).one_or_none()
        if found is None:
            return None
        checkpoint = Checkpoint(found.origin, int(found.size), bytes(found.root))
        return Witnessed(checkpoint, bytes(found.note), Millis(found.cosigned_at))

    @staticmethod
    def _put(connection: Connection, broker: bytes, opened: VerifiedCheckpoint, now: Millis, *, first: bool) -> None:
        table, new = schema.witnessed, opened.checkpoint
        values = {
            "origin": new.origin,
            "size": new.size,
            "root": new.root,
            "note": opened.note.raw,
            "cosigned_at": now,
        }
        if first:
            connection.execute(insert(table).values(broker=broker, **values))
        else:
            connection.execute(update(table).where(table.c.broker == broker).values(values))

    @staticmethod
    def _last_alert(connection: Connection, broker: bytes) -> Alert | None:
        row = schema.witness_alert.c
        query = select(schema.witness_alert).where(row.broker == broker).order_by(row.number.desc()).limit(1)
        found = connection.execute(query).one_or_none()
        if found is None:
            return None
        return Alert(
            broker=bytes(found.broker),
            fault=ledger_pb2.WitnessFault.ValueType(found.fault),
            at=Millis(found.refused_at),
            position=int(found.position),
            seen=bytes(found.seen),
            offered=bytes(found.offered),
            detail=found.detail,
        )


def _contradicts(known: Checkpoint | None, new: Checkpoint) -> bool:
    if known is None:
        return False
    if new.origin != known.origin or new.size < known.size:
        return True
    return new.size == known.size and new.root != known.root

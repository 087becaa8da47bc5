"""What this node has cosigned of each broker's ledger, and what it refused to.

Rules:

- The last checkpoint that was cosigned is kept by :mod:`permslip.hosting.last_cosigned`.
- A refused checkpoint is kept with the one that it contradicts, as they came: both are signed by the broker, and
  together they are the evidence.

Example::

    outcome = store.take(broker, opened, old_size=offer.consistency.old_size, proof=hashes, now=now)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, Engine, func, insert, select

from permslip._pb.permslip.v1 import ledger_pb2
from permslip.hosting.database import reading
from permslip.hosting.last_cosigned import LastCosigned, Witnessed
from permslip.quantities import Millis
from permslip_node import schema

__all__ = ["Alert", "Memory", "WitnessStore"]


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


class WitnessStore(LastCosigned):
    """Reads and writes; waits for the database.

    Args:
        engine: the node's database.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, schema.witnessed, "broker")
        self._engine = engine

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
        alert = schema.witness_alert.c
        with reading(self._engine) as connection:
            grouped = connection.execute(select(alert.broker, func.count().label("alerts")).group_by(alert.broker))
            counts = {bytes(row.broker): int(row.alerts) for row in grouped}
            return [
                Memory(each, self.read(connection, each), counts.get(each, 0), self._last_alert(connection, each))
                for each in sorted({*self.keepers(connection), *counts})
            ]

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

"""What this node remembers of each broker, so that an earlier key of it, or an earlier state, is not taken for it.

A broker proves who it is by a certificate that its pinned root signed; an earlier certificate is as genuine as the
newest one, and whoever stole an earlier key could show it. And its database may have been restored from a backup: then
it numbers other pushes with numbers that this node holds already, and this node would skip them.

Rules:

- The highest number of a certificate that a broker has shown counts; a lower one is refused.
- The row of a broker moves with each push, in the transaction that records it. Between pushes only memory knows how
  large the broker's ledger was: not every tick is worth a flush of the disk.

Example::

    memory = BrokerMemory(engine)
    memory.of(root).check_cert(cert.payload)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sqlalchemy import Connection, Engine, insert, select, update

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.errors import KeyRejectedError, UnavailableError
from permslip.hosting.database import reading, writing
from permslip_node import schema

__all__ = ["BrokerMemory", "Remembered"]


@dataclass(frozen=True, slots=True)
class Remembered:
    """What is known of one broker.

    Attributes:
        pushes_held: greatest number up to which every push is held.
        cert_seq: highest number of a certificate that it has shown; 0: none yet.
    """

    pushes_held: int = 0
    cert_seq: int = 0

    def check_cert(self, cert: pb.KeyCert) -> None:
        """Check that a broker's certificate is none that a newer one has ended.

        Raises:
            KeyRejectedError: it has shown a higher number before.
        """
        if cert.seq < self.cert_seq:
            raise KeyRejectedError(
                f"expected the broker's certificate number {self.cert_seq} or a later one, got number {cert.seq}: "
                "its earlier keys are worth nothing.",
                remedy="Ask the broker's operator. If an old key file was put back, the newest must take its place; "
                "if not, somebody else has an earlier key.",
            )


class BrokerMemory:
    """What is known of all brokers. Read and changed in the event loop; written in whatever thread writes.

    Args:
        engine: the node's database.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        state = schema.broker_state.c
        with reading(engine) as connection:
            rows = connection.execute(select(state.broker, state.pushes_held, state.cert_seq))
            self._known = {bytes(row.broker): Remembered(int(row.pushes_held), int(row.cert_seq)) for row in rows}

    def of(self, broker: bytes) -> Remembered:
        """What is known of a broker."""
        return self._known.get(broker, Remembered())

    def write_cert(self, broker: bytes, seq: int) -> None:
        """Write down the number of a certificate; never a lower one."""
        state = schema.broker_state
        with writing(self._engine) as connection:
            known = connection.execute(select(state.c.cert_seq).where(state.c.broker == broker)).scalar()
            if known is None:
                connection.execute(insert(state).values(broker=broker, cert_seq=seq))
            elif known < seq:
                connection.execute(update(state).where(state.c.broker == broker).values(cert_seq=seq))

    def note_cert(self, broker: bytes, seq: int) -> None:
        """It was written down."""
        known = self.of(broker)
        self._known[broker] = replace(known, cert_seq=max(seq, known.cert_seq))

    def write_push(self, connection: Connection, broker: bytes, number: int) -> None:
        """Every push up to this number is held; in the transaction that records it.

        Raises:
            UnavailableError: another process took it, or one of those before it is missing.
        """
        state = schema.broker_state
        values = {"pushes_held": number}
        moved = connection.execute(
            update(state).where(state.c.broker == broker, state.c.pushes_held == number - 1).values(values)
        )
        if moved.rowcount == 1:
            return
        known = connection.execute(select(state.c.broker).where(state.c.broker == broker)).first()
        if number != 1 or known is not None:
            raise UnavailableError(f"push {number} does not follow the last one that is held.", remedy="Attach again.")
        connection.execute(insert(state).values(broker=broker, **values))

    def note_push(self, broker: bytes, number: int) -> None:
        """It was written down."""
        self._known[broker] = replace(self.of(broker), pushes_held=number)

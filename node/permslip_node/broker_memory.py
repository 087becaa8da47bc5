"""What this node remembers of each broker, so that an earlier key of it, or an earlier state, is not taken for it.

A broker proves who it is by a certificate that its pinned root signed; an earlier certificate is as genuine as the
newest one, and whoever stole an earlier key could show it. And its database may have been restored from a backup: then
it numbers other pushes with numbers that this node holds already, and this node would skip them: a revocation among
them would never come into force here.

Rules:

- The highest number of a certificate that a broker has shown counts; a lower one is refused.
- On each stream the node asks for the last push that it holds once more, and has no lease before it came: the same
  statement, at the same position. A broker that gave the number anew is found out, however far it has come since.
- A broker's ledger and the number of its pushes never become less than they were seen to be, and at one size a ledger
  has one root: :class:`permslip_node.lease.Lease` begins with what is known here.
- The row of a broker moves with each push, in the transaction that records it. Between pushes only memory knows how
  large the broker's ledger was: not every tick is worth a flush of the disk.

Example::

    memory = BrokerMemory(engine)
    memory.of(root).check_cert(cert.payload)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Connection, Engine, insert, select, update

from permslip._pb.permslip.v1 import node_pb2, statement_pb2 as pb
from permslip.dsse import statement_id
from permslip.errors import AuthorityError, KeyRejectedError, MalformedError, UnavailableError
from permslip.hosting.database import reading, writing
from permslip_node import schema

__all__ = ["BrokerMemory", "Remembered"]

_MOST: Final = 2**63 - 1
_RESTORED: Final = (
    "Ask the broker's operator whether a backup was restored: the newest database must be put back. If it is lost, the "
    "broker begins anew with another root key, which this node's configuration then names."
)


@dataclass(frozen=True, slots=True)
class Remembered:
    """What is known of one broker.

    Attributes:
        pushes_held: greatest number up to which every push is held.
        cert_seq: highest number of a certificate that it has shown; 0: none yet.
        ledger_size: greatest size of its ledger.
        root_hash: of its ledger at that size; empty where only the size is known.
        last_push: id of the statement that is push number ``pushes_held``; empty: not noted.
        last_position: of that push.
    """

    pushes_held: int = 0
    cert_seq: int = 0
    ledger_size: int = 0
    root_hash: bytes = b""
    last_push: bytes = b""
    last_position: int = 0

    @property
    def asked_again(self) -> int:
        """The number of the push that must come once more on each stream; 0: none."""
        return self.pushes_held if self.last_push else 0

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

    def check_again(self, push: node_pb2.Push) -> None:
        """Check that a push which is held already is still the same.

        Raises:
            AuthorityError: its number was given to another one.
        """
        if push.number != self.asked_again:
            return
        if (_id(push), push.position) != (self.last_push, self.last_position):
            raise AuthorityError(
                f"push {push.number}: expected what was recorded at position {self.last_position} of the broker's "
                f"ledger, got another one, at position {push.position}: its numbers were given anew.",
                remedy=_RESTORED,
            )


class BrokerMemory:
    """What is known of all brokers. Read and changed in the event loop; written in whatever thread writes.

    Args:
        engine: the node's database.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known = self._read()

    def of(self, broker: bytes) -> Remembered:
        """What is known of a broker."""
        return self._known.get(broker, Remembered())

    def read_again(self, broker: bytes) -> None:
        """What a stream that broke wrote down and did not come to note."""
        known, written = self.of(broker), self._read().get(broker, Remembered())
        newer = known if known.ledger_size >= written.ledger_size else written
        self._known[broker] = replace(
            written,
            cert_seq=max(known.cert_seq, written.cert_seq),
            ledger_size=newer.ledger_size,
            root_hash=newer.root_hash,
        )

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

    def saw_ledger(self, broker: bytes, size: int, root_hash: bytes) -> None:
        """An accepted tick told of the ledger; it is written down with the next push."""
        known = self.of(broker)
        if size > known.ledger_size or (size == known.ledger_size and not known.root_hash):
            self._known[broker] = replace(known, ledger_size=size, root_hash=root_hash)

    def write_push(self, connection: Connection, broker: bytes, push: node_pb2.Push) -> None:
        """Every push up to this one is held; in the transaction that records it.

        Raises:
            MalformedError: its position is none.
            UnavailableError: another process took it, or one of those before it is missing.
        """
        if push.position >= _MOST:
            raise MalformedError("expected a position in a ledger.", field="push.position")
        state, number = schema.broker_state, push.number
        values = {
            "pushes_held": number,
            "ledger_size": max(self.of(broker).ledger_size, push.position + 1),
            "last_push": _id(push),
            "last_position": push.position,
        }
        moved = connection.execute(
            update(state).where(state.c.broker == broker, state.c.pushes_held == number - 1).values(values)
        )
        if moved.rowcount == 1:
            return
        known = connection.execute(select(state.c.broker).where(state.c.broker == broker)).first()
        if number != 1 or known is not None:
            raise UnavailableError(f"push {number} does not follow the last one that is held.", remedy="Attach again.")
        connection.execute(insert(state).values(broker=broker, **values))

    def note_push(self, broker: bytes, push: node_pb2.Push) -> None:
        """It was written down."""
        known = replace(self.of(broker), pushes_held=push.number, last_push=_id(push), last_position=int(push.position))
        if push.position >= known.ledger_size:
            known = replace(known, ledger_size=push.position + 1, root_hash=b"")
        self._known[broker] = known

    def _read(self) -> dict[bytes, Remembered]:
        state = schema.broker_state.c
        with reading(self._engine) as connection:
            rows = connection.execute(
                select(
                    state.broker,
                    state.pushes_held,
                    state.cert_seq,
                    state.ledger_size,
                    state.last_push,
                    state.last_position,
                )
            )
            return {
                bytes(row.broker): Remembered(
                    pushes_held=int(row.pushes_held),
                    cert_seq=int(row.cert_seq),
                    ledger_size=int(row.ledger_size),
                    last_push=bytes(row.last_push or b""),
                    last_position=int(row.last_position),
                )
                for row in rows
            }


def _id(push: node_pb2.Push) -> bytes:
    return statement_id(push.statement.payload_type, push.statement.payload)

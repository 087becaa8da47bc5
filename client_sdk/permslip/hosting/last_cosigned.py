"""The last checkpoint of another's ledger that a service cosigned: what makes it a witness.

A node keeps one for each broker, a broker one for each node.

Rules:

- Reading the last one, checking the next against it and storing that are one transaction, so that of two offers at once
  none is checked against what the other replaced.
- A cosignature is made after the commit. If the service dies between the two, the same checkpoint is cosigned when it
  is offered again; the other way round a fork could be.

Example::

    last = LastCosigned(engine, tables.node_checkpoint, "node")
    last.take(root, opened, old_size=0, proof=[], now=now)
    cosign(opened, signer)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, Engine, Table, insert, select, update

from permslip.checkpoints import Checkpoint, UpdateOutcome, VerifiedCheckpoint, check_update
from permslip.errors import UnavailableError
from permslip.hosting.database import reading, writing
from permslip.quantities import Millis

__all__ = ["LastCosigned", "OtherSizeError", "Witnessed"]


class Witnessed(NamedTuple):
    """The last checkpoint of a ledger that was cosigned, as its keeper signed it."""

    checkpoint: Checkpoint
    note: bytes
    cosigned_at: Millis


class OtherSizeError(UnavailableError):
    """The proof offered begins at another size than the one that was cosigned last; no fault, only out of step."""

    def __init__(self, known: int, offered_from: int) -> None:
        super().__init__(
            f"expected a consistency proof from size {known}, which was cosigned last, got one from {offered_from}.",
            remedy=f"Offer it with a proof from {known}.",
        )
        self.known = known


class LastCosigned:
    """Reads and writes them; waits for the database.

    Args:
        engine: the database.
        table: its columns are ``origin``, ``size``, ``root``, ``note``, ``cosigned_at``, and one for the keeper.
        keeper: name of that column.
    """

    def __init__(self, engine: Engine, table: Table, keeper: str) -> None:
        self._engine, self._table, self._keeper = engine, table, keeper

    def last(self, keeper: bytes) -> Witnessed | None:
        """What was cosigned last of a keeper's ledger."""
        with reading(self._engine) as connection:
            return self.read(connection, keeper)

    def keepers(self, connection: Connection) -> list[bytes]:
        """Of whose ledgers anything was cosigned."""
        return [bytes(each) for each in connection.execute(select(self._table.c[self._keeper])).scalars()]

    def read(self, connection: Connection, keeper: bytes, *, for_update: bool = False) -> Witnessed | None:
        """The like, in a transaction of the caller's."""
        row = self._table.c
        query = select(row.origin, row.size, row.root, row.note, row.cosigned_at).where(row[self._keeper] == keeper)
        found = connection.execute(query.with_for_update() if for_update else query).one_or_none()
        if found is None:
            return None
        checkpoint = Checkpoint(found.origin, int(found.size), bytes(found.root))
        return Witnessed(checkpoint, bytes(found.note), Millis(found.cosigned_at))

    def take(
        self, keeper: bytes, opened: VerifiedCheckpoint, *, old_size: int, proof: Sequence[bytes], now: Millis
    ) -> UpdateOutcome:
        """Check a checkpoint against the last one and put it in its place; when this returns it may be cosigned.

        Args:
            keeper: root of whose ledger it is.
            opened: its signature by the keeper's certified key holds.
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
            last = self.read(connection, keeper, for_update=True)
            known = last.checkpoint if last is not None else None
            # Whoever does not know what was cosigned last asks so; what contradicts it needs no proof to be refused.
            if old_size != (known.size if known is not None else 0) and not _contradicts(known, new):
                raise OtherSizeError(known.size if known is not None else 0, old_size)
            outcome = check_update(known, new, proof)
            if outcome is not UpdateOutcome.SAME:
                self._put(connection, keeper, opened, now, first=last is None)
        return outcome

    def _put(
        self, connection: Connection, keeper: bytes, opened: VerifiedCheckpoint, now: Millis, *, first: bool
    ) -> None:
        table, new = self._table, opened.checkpoint
        values = {
            "origin": new.origin,
            "size": new.size,
            "root": new.root,
            "note": opened.note.raw,
            "cosigned_at": now,
        }
        if first:
            connection.execute(insert(table).values({self._keeper: keeper} | values))
        else:
            connection.execute(update(table).where(table.c[self._keeper] == keeper).values(values))


def _contradicts(known: Checkpoint | None, new: Checkpoint) -> bool:
    if known is None:
        return False
    if new.origin != known.origin or new.size < known.size:
        return True
    return new.size == known.size and new.root != known.root

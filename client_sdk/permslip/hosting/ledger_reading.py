"""Reading a ledger: its head, leaves, proofs, and the entries of one slice.

Rules:

- Everything that one method returns is from one moment of the database.
- A proof costs one query, whatever the tree's size.
- Nothing here is verified: proofs are for others to verify, against a signed checkpoint.

All of it waits for the database: in a coroutine, call it through ``asyncio.to_thread``.

Example::

    >>> reader = LedgerReader(engine, tables)                                    # doctest: +SKIP
    >>> [entry.seq for entry in reader.slice_entries(node, handle, 0, 100)]       # doctest: +SKIP
    [1, 2, 3]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from sqlalchemy import Connection, Engine, bindparam, literal, select, text, tuple_, union_all, update

from permslip.errors import MalformedError, ProofError, UnavailableError
from permslip.hosting.database import reading, writing
from permslip.hosting.schema import LOWEST_STORED_LEVEL, LedgerTables
from permslip.merkle import Coordinate, HashReader, consistency_proof, inclusion_proof, node_hash
from permslip.quantities import Position
from permslip.tiles import Tile, tile_bytes

__all__ = ["Head", "Leaf", "LedgerReader", "SliceEntry", "SqlHashes", "read_head"]

_PAGE: Final = 1_000

_CHAIN = text("""
    WITH RECURSIVE chain (position, seq) AS (
        SELECT CAST(:position AS BIGINT), CAST(:seq AS BIGINT)
        UNION ALL
        SELECT leaf.previous, chain.seq - 1
        FROM chain JOIN leaf ON leaf.position = chain.position
        WHERE chain.seq > :first
    )
    SELECT chain.seq, chain.position, leaf.leaf_hash, leaf.leaf
    FROM chain JOIN leaf ON leaf.position = chain.position
    WHERE chain.seq <= :last
    ORDER BY chain.seq
""")


class Head(NamedTuple):
    """The end of a ledger. ``change_position`` is the last entry that changed a subject, -1 while none did."""

    size: int
    root: bytes
    recorded_at: int
    change_position: int


class Leaf(NamedTuple):
    """One leaf; ``leaf`` is ``None`` once its bytes were erased."""

    position: Position
    leaf_hash: bytes
    leaf: bytes | None


class SliceEntry(NamedTuple):
    """One entry of a slice's chain; ``leaf`` is ``None`` once its bytes were erased."""

    seq: int
    position: Position
    leaf_hash: bytes
    leaf: bytes | None


class SqlHashes(HashReader):
    """The hashes of a stored tree, for :mod:`permslip.merkle`."""

    def __init__(self, connection: Connection, tables: LedgerTables) -> None:
        self._connection = connection
        leaf, tree = tables.leaf, tables.tree_hash
        self._query = union_all(
            select(literal(0), leaf.c.position, leaf.c.leaf_hash).where(
                leaf.c.position.in_(bindparam("leaves", expanding=True))
            ),
            select(tree.c.level, tree.c.idx, tree.c.hash).where(
                tuple_(tree.c.level, tree.c.idx).in_(bindparam("nodes", expanding=True))
            ),
        )

    def hashes_at(self, coordinates: Sequence[Coordinate]) -> list[bytes]:
        nodes = [coordinate for coordinate in coordinates if coordinate[0] >= LOWEST_STORED_LEVEL]
        leaves = {leaf for coordinate in coordinates for leaf in _leaves_below(coordinate)}
        rows = self._connection.execute(self._query, {"leaves": sorted(leaves), "nodes": nodes})
        found: dict[Coordinate, bytes] = {(level, index): digest for level, index, digest in rows}
        try:
            return [
                found[level, index] if level >= LOWEST_STORED_LEVEL else _subtree(found, level, index)
                for level, index in coordinates
            ]
        except KeyError as missing:
            raise ProofError(
                f"expected a stored hash at (level, index) {missing}, found none.",
                remedy="The ledger is shorter than that, or its database is damaged.",
            ) from None


def _leaves_below(coordinate: Coordinate) -> range:
    """The leaves of a subtree whose hash is not stored; none for one that is."""
    level, index = coordinate
    return range(index << level, (index + 1) << level) if level < LOWEST_STORED_LEVEL else range(0)


def _subtree(found: Mapping[Coordinate, bytes], level: int, index: int) -> bytes:
    if level == 0:
        return found[0, index]
    return node_hash(_subtree(found, level - 1, 2 * index), _subtree(found, level - 1, 2 * index + 1))


def read_head(connection: Connection, tables: LedgerTables) -> Head:
    """The head as the database has it now, whichever process put it there.

    Raises:
        UnavailableError: no ledger was opened in this database.
    """
    head = tables.log_head.c
    row = connection.execute(select(head.size, head.root, head.recorded_at, head.change_position)).one_or_none()
    if row is None:
        raise UnavailableError("this database holds no ledger yet.", remedy="Start the service that keeps it once.")
    return Head(*row)


class LedgerReader:
    """A ledger as its readers see it.

    Args:
        engine: the database.
        tables: the ledger's tables in it.
    """

    def __init__(self, engine: Engine, tables: LedgerTables) -> None:
        self._engine = engine
        self._tables = tables

    def read_head(self, connection: Connection | None = None) -> Head:
        """See :func:`read_head`; without a connection in a transaction of its own."""
        if connection is not None:
            return read_head(connection, self._tables)
        with reading(self._engine) as own:
            return read_head(own, self._tables)

    def leaves(self, start: int, end: int) -> Iterator[Leaf]:
        """Leaves at ``start … end - 1``, in order, as far as there are any; memory stays small whatever the range."""
        leaf = self._tables.leaf.c
        query = (
            select(leaf.position, leaf.leaf_hash, leaf.leaf)
            .where(leaf.position >= bindparam("start"), leaf.position < bindparam("end"))
            .order_by(leaf.position)
        )
        while start < end:
            with reading(self._engine) as connection:
                rows = connection.execute(query, {"start": start, "end": min(start + _PAGE, end)}).all()
            yield from (Leaf(*row) for row in rows)
            if len(rows) < min(_PAGE, end - start):
                return
            start += _PAGE

    def evidence(self, start: int, end: int) -> Iterator[tuple[Position, bytes]]:
        """The envelopes that entries at ``start … end - 1`` name and no other table keeps, with their positions."""
        evidence = self._tables.evidence.c
        query = (
            select(evidence.position, evidence.envelope)
            .where(evidence.position >= bindparam("start"), evidence.position < bindparam("end"))
            .order_by(evidence.position)
            .limit(_PAGE)
        )
        while start < end:
            with reading(self._engine) as connection:
                rows = connection.execute(query, {"start": start, "end": end}).all()
            yield from ((Position(row.position), bytes(row.envelope)) for row in rows)
            if len(rows) < _PAGE:
                return
            start = rows[-1].position + 1

    def inclusion_proof(self, position: int, size: int) -> list[bytes]:
        """The proof that the leaf at ``position`` is in the tree of ``size`` leaves.

        Raises:
            ProofError: there is no such leaf, or the ledger is shorter.
        """
        with reading(self._engine) as connection:
            return inclusion_proof(SqlHashes(connection, self._tables), position, size)

    def consistency_proof(self, old_size: int, new_size: int) -> list[bytes]:
        """The proof that the tree of ``old_size`` leaves is a prefix of that of ``new_size``.

        Raises:
            ProofError: the sizes are out of order, or the ledger is shorter.
        """
        with reading(self._engine) as connection:
            return consistency_proof(SqlHashes(connection, self._tables), old_size, new_size)

    def tile(self, tile: Tile) -> bytes:
        """A hash tile's content (:mod:`permslip.tiles`).

        Raises:
            ProofError: the ledger is shorter.
        """
        with reading(self._engine) as connection:
            return tile_bytes(SqlHashes(connection, self._tables), tile)

    def slice_entries(self, node: bytes, handle: bytes, after_seq: int = 0, limit: int = 500) -> list[SliceEntry]:
        """Entries of one slice with numbers above ``after_seq``, ascending, at most ``limit`` of them.

        Args:
            node: the node's root key.
            handle: of the slice.

        Raises:
            ProofError: the chain has a hole: the database is damaged.
        """
        with reading(self._engine) as connection:
            end = self._chain_end(connection, node, handle, after_seq + limit)
            if end is None or end[0] <= after_seq or limit < 1:
                return []
            seq, position = end
            last = min(seq, after_seq + limit)
            parameters = {"seq": seq, "position": position, "first": after_seq + 1, "last": last}
            entries = [SliceEntry(*row) for row in connection.execute(_CHAIN, parameters)]
        if [entry.seq for entry in entries] != list(range(after_seq + 1, last + 1)):
            raise ProofError(
                f"expected entries {after_seq + 1} to {last} of slice {handle.hex()}, found {len(entries)} of them.",
                remedy="The database is damaged: restore it from a backup.",
            )
        return entries

    def slice_end(self, node: bytes, handle: bytes) -> SliceEntry | None:
        """The last entry of a slice's chain, or ``None`` where the slice has none."""
        slices, heads, leaf = self._tables.slice.c, self._tables.slice_head.c, self._tables.leaf.c
        query = select(heads.seq, heads.position, leaf.leaf_hash, leaf.leaf).where(
            slices.node == node,
            slices.handle == handle,
            heads.slice == slices.slice,
            leaf.position == heads.position,
        )
        with reading(self._engine) as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else SliceEntry(*row)

    def erase(self, positions: Iterable[int], connection: Connection | None = None) -> int:
        """Forget the bytes of leaves; their hashes stay, and with them every proof.

        Args:
            positions: which leaves; the first leaf says whose ledger it is and cannot be erased.
            connection: of a draft's ``write``, so that the entry that says so and the erasure are one transaction.

        Returns:
            how many leaves had bytes until now.

        Raises:
            MalformedError: position 0 is among them.
        """
        wanted = sorted(set(positions))
        if wanted and wanted[0] < 1:
            raise MalformedError("expected positions from 1 on.", field="positions")
        if connection is not None:
            return self._erase(connection, wanted)
        with writing(self._engine) as own:
            return self._erase(own, wanted)

    def _erase(self, connection: Connection, positions: Sequence[int]) -> int:
        leaf = self._tables.leaf
        statement = (
            update(leaf)
            .where(leaf.c.position.in_(bindparam("positions", expanding=True)), leaf.c.leaf.is_not(None))
            .values(leaf=None)
        )
        return sum(
            connection.execute(statement, {"positions": [position for _, position in page]}).rowcount
            for _, page in groupby(enumerate(positions), lambda pair: pair[0] // _PAGE)
        )

    def _chain_end(self, connection: Connection, node: bytes, handle: bytes, upto: int) -> tuple[int, int] | None:
        """Number and position of an entry at or after number ``upto``, as close as marks allow; else of the last."""
        slices, heads, marks = self._tables.slice.c, self._tables.slice_head.c, self._tables.slice_mark.c
        head = connection.execute(
            select(heads.slice, heads.seq, heads.position).where(
                slices.node == node, slices.handle == handle, heads.slice == slices.slice
            )
        ).one_or_none()
        if head is None:
            return None
        mark = connection.execute(
            select(marks.seq, marks.position)
            .where(marks.slice == head.slice, marks.seq >= upto)
            .order_by(marks.seq)
            .limit(1)
        ).one_or_none()
        return (head.seq, head.position) if mark is None else (mark.seq, mark.position)

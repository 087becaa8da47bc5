"""What an auditor is given of a ledger, page by page: entries, the statements they name, proofs.

Broker and node answer auditors by this one class. A page is a serialized response of the contract, ready to be sent or
sealed: at most :data:`MOST_ENTRIES` entries, of at most :data:`MOST_BYTES` together but for a single larger one. Memory
is bounded by a page, however large the ledger.

Rules:

- Of an entry outside the scope, position and hash are given and nothing else (:mod:`permslip.audit_scope`).
- A statement is given only if an entry names it that may be seen. Those of which only the id is left are told as
  erased: recorded statements by their own id, the query of an access by its own. That they were erased in order is for
  the ledger's own ``statements_erased`` entries to say.
- Proofs are hashes and are given to every auditor.

All of it waits for the database: in a coroutine, take pages through :func:`read_ahead`, the rest through
``asyncio.to_thread``.

Example::

    >>> pages = LedgerPages(ledger, engine, tables.facts, tables.ledger)          # doctest: +SKIP
    >>> for page in pages.entries(0, ledger.size, scope):                          # doctest: +SKIP
    ...     response = FetchEntriesResponse.FromString(page)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from typing import Final

from sqlalchemy import Engine, select

from permslip._pb.permslip.v1 import auditor_pb2, ledger_pb2, statement_pb2 as pb
from permslip.audit_scope import is_unlimited, visible
from permslip.errors import ProofError
from permslip.hosting.database import reading
from permslip.hosting.facts_schema import FactTables
from permslip.hosting.leaves import decode_leaf, varint
from permslip.hosting.ledger_reading import Leaf, LedgerReader, SqlHashes
from permslip.hosting.schema import LedgerTables
from permslip.merkle import consistency_proof, inclusion_proof
from permslip.quantities import Position

__all__ = ["CALL_WINDOW", "MOST_BYTES", "MOST_ENTRIES", "LedgerPages", "read_ahead"]

MOST_ENTRIES: Final = 512
MOST_BYTES: Final = 1 << 20

CALL_WINDOW: Final = 4 << 20
"""Bytes that a node may send of one call for its ledger before the broker says that it has room for more."""

_IN_ONE_QUERY: Final = 500

# Fields of FetchEntriesResponse, LedgerLeaf and FetchStatementsResponse. A message of the contract for every leaf costs
# more than reading it; a property test compares the bytes.
_ENTRY: Final = b"\x0a"
_POSITION: Final = b"\x08"
_HASH: Final = b"\x12\x20"
_LEAF: Final = b"\x1a"
_STATEMENT: Final = b"\x0a"
_ERASED: Final = b"\x12\x20"


class LedgerPages:
    """Reads one ledger for auditors.

    Args:
        reader: of the ledger.
        engine: its database.
        facts: the recorded statements in it.
        ledger: the ledger's tables in it.
    """

    def __init__(self, reader: LedgerReader, engine: Engine, facts: FactTables, ledger: LedgerTables) -> None:
        self._reader, self._engine = reader, engine
        self._facts, self._ledger = facts, ledger

    def size(self) -> int:
        """Entries as the database has them now, whichever process put them there."""
        return self._reader.read_head().size

    def entries(self, start: int, end: int, scope: pb.AuditScope) -> Iterator[bytes]:
        """``FetchEntriesResponse`` messages with the leaves at ``start … end - 1``, as far as there are any."""
        unlimited = is_unlimited(scope)
        page: list[bytes] = []
        taken = 0
        for leaf in self._leaves(start, end):
            shown = leaf.leaf if unlimited or _is_shown(leaf, scope) else None
            encoded = _encode_leaf(leaf.position, leaf.leaf_hash, shown)
            if page and (len(page) == MOST_ENTRIES or taken + len(encoded) > MOST_BYTES):
                yield b"".join(page)
                page, taken = [], 0
            page.append(encoded)
            taken += len(encoded)
        if page:
            yield b"".join(page)

    def statements_named(self, start: int, end: int, scope: pb.AuditScope) -> Iterator[bytes]:
        """``FetchStatementsResponse`` messages with everything that the visible entries of a range name."""
        found: Iterator[tuple[bytes, bytes | None]] = (
            each
            for first in range(start, end, MOST_ENTRIES)
            for each in self._named(first, min(first + MOST_ENTRIES, end), scope)
        )
        return _statement_pages(found)

    def statements_by_id(self, ids: Sequence[bytes], scope: pb.AuditScope) -> Iterator[bytes]:
        """``FetchStatementsResponse`` messages with those of these recorded statements that a visible entry names."""
        wanted = list(dict.fromkeys(ids))
        found: Iterator[tuple[bytes, bytes | None]] = (
            each
            for first in range(0, len(wanted), _IN_ONE_QUERY)
            for each in self._recorded(wanted[first : first + _IN_ONE_QUERY], scope)
        )
        return _statement_pages(found)

    def proofs(self, size: int, positions: Iterable[int], old_size: int) -> auditor_pb2.GetProofsResponse:
        """Proofs against the tree of ``size`` entries.

        Args:
            size: of the tree; 0 is the ledger's present size.
            positions: entries to prove inclusion of.
            old_size: size of an earlier tree to prove consistency with; 0 asks for no such proof.

        Raises:
            ProofError: the ledger is shorter.
        """
        with reading(self._engine) as connection:
            head = self._reader.read_head(connection).size
            if size > head:
                raise ProofError(
                    f"expected a size of at most {head}, got {size}.", remedy="Take the size of a checkpoint."
                )
            hashes, size = SqlHashes(connection, self._ledger), size or head
            response = auditor_pb2.GetProofsResponse(
                inclusion=[
                    ledger_pb2.InclusionProof(position=each, size=size, hashes=inclusion_proof(hashes, each, size))
                    for each in positions
                ]
            )
            if old_size:
                response.consistency.old_size, response.consistency.new_size = old_size, size
                response.consistency.hashes.extend(consistency_proof(hashes, old_size, size))
            return response

    def _leaves(self, start: int, end: int) -> Iterator[Leaf]:
        """Leaves in portions of one page, so that nobody holds more than that of the largest ones."""
        for first in range(start, end, MOST_ENTRIES):
            last = min(first + MOST_ENTRIES, end)
            count = 0
            for leaf in self._reader.leaves(first, last):
                count += 1
                yield leaf
            if count < last - first:
                return

    def _named(self, start: int, end: int, scope: pb.AuditScope) -> Iterator[tuple[bytes, bytes | None]]:
        """Ids and envelopes that the visible entries of one portion name; an envelope is None once it was erased."""
        recorded: list[bytes] = []
        queries: dict[Position, bytes] = {}
        answers: set[Position] = set()
        for leaf in self._reader.leaves(start, end):
            entry = decode_leaf(leaf.leaf) if leaf.leaf is not None else None
            if entry is None or not visible(entry, scope):
                continue
            event = entry.WhichOneof("event")
            if event == "statement_recorded":
                recorded.append(entry.statement_recorded.statement_id)
            elif event == "access_decided":
                queries[leaf.position] = entry.access_decided.query_id
            elif event == "access_answered":
                answers.add(leaf.position)
        statement = self._facts.statement.c
        for first in range(0, len(recorded), _IN_ONE_QUERY):
            some = recorded[first : first + _IN_ONE_QUERY]
            query = select(statement.id, statement.envelope).where(statement.id.in_(some))
            with reading(self._engine) as connection:
                rows = {bytes(row.id): row.envelope for row in connection.execute(query)}
            yield from ((each, rows[each]) for each in some if each in rows)
        for position, envelope in self._reader.evidence(start, end) if queries or answers else ():
            if (query_id := queries.pop(position, b"")) or position in answers:
                yield query_id, envelope
        yield from ((query_id, None) for query_id in queries.values())

    def _recorded(self, ids: Sequence[bytes], scope: pb.AuditScope) -> Iterator[tuple[bytes, bytes | None]]:
        statement, leaf = self._facts.statement.c, self._ledger.leaf.c
        query = (
            select(statement.id, statement.envelope, leaf.leaf)
            .join_from(self._facts.statement, self._ledger.leaf, leaf.position == statement.position)
            .where(statement.id.in_(ids))
            .order_by(leaf.position)
        )
        with reading(self._engine) as connection:
            rows = connection.execute(query).all()
        for row in rows:
            if row.leaf is not None and visible(decode_leaf(row.leaf), scope):
                yield bytes(row.id), row.envelope


async def read_ahead(pages: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Take pages from an iterator that waits for the database, in threads, one ahead of who takes them."""
    following = asyncio.ensure_future(asyncio.to_thread(next, pages, None))
    try:
        while (page := await following) is not None:
            following = asyncio.ensure_future(asyncio.to_thread(next, pages, None))
            yield page
    finally:
        # Nobody waits for the last one any more; its failure is nobody's either.
        following.add_done_callback(lambda done: done.cancelled() or done.exception())


def _is_shown(leaf: Leaf, scope: pb.AuditScope) -> bool:
    return leaf.leaf is not None and visible(decode_leaf(leaf.leaf), scope)


def _statement_pages(found: Iterator[tuple[bytes, bytes | None]]) -> Iterator[bytes]:
    page: list[bytes] = []
    taken = 0
    for identifier, envelope in found:
        if envelope is None:
            encoded = _ERASED + identifier
        else:
            encoded = b"".join((_STATEMENT, varint(len(envelope)), envelope))
        if page and (len(page) == MOST_ENTRIES or taken + len(encoded) > MOST_BYTES):
            yield b"".join(page)
            page, taken = [], 0
        page.append(encoded)
        taken += len(encoded)
    if page:
        yield b"".join(page)


def _encode_leaf(position: int, leaf_hash: bytes, leaf: bytes | None) -> bytes:
    parts = [_POSITION, varint(position)] if position else []
    parts += [_HASH, leaf_hash]
    if leaf:
        parts += [_LEAF, varint(len(leaf)), leaf]
    body = b"".join(parts)
    return b"".join((_ENTRY, varint(len(body)), body))

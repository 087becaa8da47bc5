"""Erasing statements whose retention is over, while the ledger that names them stays verifiable.

What goes: the queries and manifests of accesses before a day; and every grant that had ended by its own terms before
that day, with its endorsements, delegations, revocations and acknowledgements. What stays: every leaf and every hash,
so that nothing that was ever proved stops being provable; the ids and digests of what went; admissions, suspensions and
certificates, by which signatures are judged.

Rules:

- Each erasure is an entry of the ledger, ``statements_erased``, with the ids of what went: at most 1,024 in one entry,
  written in the very transaction that forgets them. A crash between two leaves some of it for the next time.
- A grant goes first, then what hangs on it: from its entry on it is unknown, and a query under it is refused as such.
- A revocation is in force for as long as the grant it ends would have lasted. So nothing goes before the grant's own
  end, however early it was revoked; and ids stay known, so that nothing that went can be recorded a second time.
- What another machine still has to be given stays: ``keep`` says which grants.
- Other processes may keep the same ledger meanwhile; they find the erasure as they find any other change.
- SQLite overwrites what it frees (:mod:`permslip.hosting.database`), and its write-ahead log is emptied at the end.
  Backups and replicas are the operator's affair.

Example::

    >>> erasing = Erasing(ledger, engine, tables.facts, tables.ledger, keep=keep)          # doctest: +SKIP
    >>> (await erasing.erase(before, rule="before-2026-01-01")).statements                  # doctest: +SKIP
    1204
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from google.protobuf.message import DecodeError
from sqlalchemy import Connection, Engine, delete, select, update
from sqlalchemy.exc import SQLAlchemyError

from permslip import statements as st
from permslip._pb.permslip.v1 import ledger_pb2, statement_pb2 as pb
from permslip.dsse import statement_id
from permslip.errors import UnavailableError
from permslip.hosting.database import reading
from permslip.hosting.drafts import Draft
from permslip.hosting.facts_schema import FactTables
from permslip.hosting.leaves import decode_leaf
from permslip.hosting.ledger import Ledger
from permslip.hosting.schema import LedgerTables
from permslip.quantities import Position

__all__ = ["MOST_IDS", "Erased", "Erasing", "Keep"]

MOST_IDS: Final = 1_024
"""Of one entry, as the contract bounds it."""

_FIRST: Final = b""
_NEVER: Final = 1 << 63
_IN_ONE_QUERY: Final = 400
_HANGING: Final = (st.ENDORSEMENT, st.DELEGATION, st.REVOCATION, st.ACKNOWLEDGEMENT)

Keep = Callable[[Connection, Sequence[bytes]], set[bytes]]
"""Of these grants, those that must stay because somebody still has to be given what hangs on them."""


@dataclass(frozen=True, slots=True)
class Erased:
    """What went, or would go.

    Attributes:
        evidence: queries and manifests.
        grants: grants.
        statements: grants and everything that hung on them.
        kept: grants that are over and stay for now, see :data:`Keep`.
        entries: how many entries of the ledger say so.
    """

    evidence: int = 0
    grants: int = 0
    statements: int = 0
    kept: int = 0
    entries: int = 0

    def __add__(self, other: Erased) -> Erased:
        return Erased(
            self.evidence + other.evidence,
            self.grants + other.grants,
            self.statements + other.statements,
            self.kept + other.kept,
            self.entries + other.entries,
        )

    def to_dict(self) -> dict[str, int]:
        """What JSON can hold."""
        return {
            "evidence": self.evidence,
            "grants": self.grants,
            "statements": self.statements,
            "kept": self.kept,
            "entries": self.entries,
        }


class Erasing:
    """Erases from one database.

    Args:
        ledger: open for appending, in this process.
        engine: its database.
        facts: the recorded statements in it.
        tables: the ledger's tables in it.
        keep: which grants must stay.
    """

    def __init__(self, ledger: Ledger, engine: Engine, facts: FactTables, tables: LedgerTables, *, keep: Keep) -> None:
        self._ledger, self._engine, self._facts, self._tables = ledger, engine, facts, tables
        self._keep = keep

    async def erase(self, before: int, *, rule: str, dry_run: bool = False) -> Erased:
        """Erase what is over.

        Args:
            before: UTC milliseconds; not after now.
            rule: by which rule, for the ledger: a name such as ``before-2026-01-01``.
            dry_run: only count.

        Raises:
            UnavailableError: the database failed, or somebody else erases at the same time; what is left goes with the
                next time.
        """
        size = await asyncio.to_thread(self._first_since, before)
        total = Erased()
        for work in (self._evidence(size), self._grants(before), self._hanging()):
            while (portion := await asyncio.to_thread(next, work, None)) is not None:
                total += portion.counts
                if portion.ids and not dry_run:
                    await self._ledger.append(portion.draft(rule))
                    total += Erased(entries=1)
        if dry_run:
            total += await asyncio.to_thread(self._would_hang, before)
        elif total.entries:
            await asyncio.to_thread(self._empty_write_ahead_log)
        return total

    # ------------------------------------------------------------------------------------- what is over

    def _first_since(self, moment: int) -> int:
        """The first position that was recorded at or after a moment. Time never runs backwards in a ledger."""
        low, high = 0, self._ledger.read_head().size
        while low < high:
            middle = (low + high) // 2
            if self._recorded_at(middle, high) < moment:
                low = middle + 1
            else:
                high = middle
        return low

    def _recorded_at(self, position: int, end: int) -> int:
        """When an entry was recorded; where its bytes were erased, when the next one was that has them."""
        for start, stop in ((position, position + 1), (position + 1, end)):
            for leaf in self._ledger.leaves(start, stop):
                if leaf.leaf is not None:
                    return int(decode_leaf(leaf.leaf).recorded_at)
        return _NEVER

    def _evidence(self, end: int) -> Iterator[_Portion]:
        """Queries and manifests that entries before ``end`` name."""
        evidence = self._tables.evidence
        query = select(evidence.c.position, evidence.c.envelope).order_by(evidence.c.position).limit(MOST_IDS)
        after = -1
        while True:
            with reading(self._engine) as connection:
                rows = connection.execute(query.where(evidence.c.position > after, evidence.c.position < end)).all()
            if not rows:
                return
            after = rows[-1].position
            positions = [int(row.position) for row in rows]

            def forget(connection: Connection, _position: Position, positions: list[int] = positions) -> None:
                gone = connection.execute(delete(evidence).where(evidence.c.position.in_(positions))).rowcount
                _expect(gone, len(positions))

            ids = sorted({_id_of(bytes(row.envelope)) for row in rows})
            yield _Portion(ids, forget, Erased(evidence=len(rows)))

    def _grants(self, before: int) -> Iterator[_Portion]:
        """Grants whose own terms ended before a moment."""
        grant, statement = self._facts.grant_fact.c, self._facts.statement.c
        query = (
            select(grant.grant_id)
            .join_from(self._facts.grant_fact, self._facts.statement, statement.id == grant.grant_id)
            .where(grant.expires_at < before, statement.envelope.is_not(None))
            .order_by(grant.grant_id)
            .limit(MOST_IDS)
        )
        after = _FIRST
        while True:
            with reading(self._engine) as connection:
                over = [bytes(row.grant_id) for row in connection.execute(query.where(grant.grant_id > after))]
                kept = {each for some in _portions(over) for each in self._keep(connection, some)}
            if not over:
                return
            after = over[-1]
            ids = [each for each in over if each not in kept]
            counts = Erased(grants=len(ids), statements=len(ids), kept=len(kept))
            yield self._portion(ids, counts, grants=ids, changes=ids)

    def _hanging(self) -> Iterator[_Portion]:
        """What hangs on grants that were erased."""

        def gone(connection: Connection, ids: Sequence[bytes]) -> set[bytes]:
            erased = self._erased(connection, ids)
            return erased - self._keep(connection, sorted(erased)) if erased else erased

        for found in self._hanging_on(gone):
            ids = [each.id for each in found]
            delegations = [each.id for each in found if each.kind == st.DELEGATION.name]
            grants = sorted({each.grant for each in found})
            yield self._portion(ids, Erased(statements=len(ids)), grants=grants, changes=delegations)

    def _would_hang(self, before: int) -> Erased:
        """What will hang on erased grants, once those that are over now were."""
        grant = self._facts.grant_fact.c

        def over(connection: Connection, ids: Sequence[bytes]) -> set[bytes]:
            query = select(grant.grant_id).where(grant.grant_id.in_(ids), grant.expires_at < before)
            found = {bytes(row.grant_id) for row in connection.execute(query)}
            return found - self._keep(connection, sorted(found)) if found else found

        return Erased(statements=sum(map(len, self._hanging_on(over))))

    def _hanging_on(self, gone: Keep) -> Iterator[list[_Hanging]]:
        """Statements about those grants that ``gone`` picks, in portions, ascending by id."""
        statement = self._facts.statement.c
        query = (
            select(statement.id, statement.kind, statement.envelope)
            .where(statement.kind.in_([each.name for each in _HANGING]), statement.envelope.is_not(None))
            .order_by(statement.id)
            .limit(MOST_IDS)
        )
        after = _FIRST
        while True:
            with reading(self._engine) as connection:
                rows = connection.execute(query.where(statement.id > after)).all()
                found = self._about(connection, rows, gone)
            if not rows:
                return
            after = bytes(rows[-1].id)
            if found:
                yield found

    def _about(self, connection: Connection, rows: Sequence[Any], gone: Keep) -> list[_Hanging]:
        named = {bytes(row.id): _named_by(row.kind, bytes(row.id), bytes(row.envelope)) for row in rows}
        delegation = self._facts.delegation_fact.c
        above: dict[bytes, bytes] = {}
        picked: set[bytes] = set()
        for some in _portions(sorted(set(named.values()))):
            query = select(delegation.delegation_id, delegation.grant_id).where(delegation.delegation_id.in_(some))
            above.update((bytes(row.delegation_id), bytes(row.grant_id)) for row in connection.execute(query))
        for some in _portions(sorted({above.get(each, each) for each in named.values()})):
            picked |= gone(connection, some)
        found = [_Hanging(bytes(row.id), row.kind, above.get(named[row.id], named[row.id])) for row in rows]
        return [each for each in found if each.grant in picked]

    def _erased(self, connection: Connection, ids: Sequence[bytes]) -> set[bytes]:
        """Those of these grants that were erased."""
        statement = self._facts.statement.c
        query = select(statement.id).where(
            statement.id.in_(ids), statement.kind == st.GRANT.name, statement.envelope.is_(None)
        )
        return {bytes(row.id) for row in connection.execute(query)}

    # ------------------------------------------------------------------------------------- how it goes

    def _portion(
        self, ids: list[bytes], counts: Erased, *, grants: Sequence[bytes], changes: Sequence[bytes]
    ) -> _Portion:
        """Statements to forget.

        Args:
            ids: which, ascending.
            counts: them.
            grants: that they are, or hang on.
            changes: the subjects of which something else holds afterwards.
        """
        statement = self._facts.statement

        def forget(connection: Connection, _position: Position) -> None:
            if any(self._keep(connection, some) for some in _portions(grants)):
                raise UnavailableError("something was recorded about a grant that is over.", remedy="Try again.")
            gone = 0
            for some in _portions(ids):
                where = statement.c.id.in_(some), statement.c.envelope.is_not(None)
                gone += connection.execute(update(statement).where(*where).values(envelope=None)).rowcount
            _expect(gone, len(ids))

        return _Portion(ids, forget, counts, tuple(changes))

    def _empty_write_ahead_log(self) -> None:
        """What was overwritten in the file still stands in SQLite's log beside it."""
        if self._engine.dialect.name != "sqlite":
            return
        with suppress(SQLAlchemyError):
            connection = self._engine.raw_connection()
            try:
                cursor = connection.cursor()
                cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                cursor.close()
            finally:
                connection.close()


class _Hanging(NamedTuple):
    """A statement, and the grant that it hangs on."""

    id: bytes
    kind: str
    grant: bytes


@dataclass(frozen=True, slots=True)
class _Portion:
    """What one entry of the ledger says, and what goes with it."""

    ids: list[bytes]
    forget: Callable[[Connection, Position], None]
    counts: Erased
    changes: tuple[bytes, ...] = ()

    def draft(self, rule: str) -> Draft:
        body = ledger_pb2.StatementsErased(statement_ids=self.ids, retention_rule=rule)
        return Draft("statements_erased", body, changes=self.changes, write=self.forget)


def _expect(gone: int, meant: int) -> None:
    if gone != meant:
        raise UnavailableError("somebody else erases at the same time.", remedy="Try again when that is done.")


def _portions(ids: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(ids), _IN_ONE_QUERY):
        yield ids[start : start + _IN_ONE_QUERY]


def _id_of(envelope: bytes) -> bytes:
    try:
        parsed = pb.Envelope.FromString(envelope)
    except DecodeError as error:
        raise UnavailableError("an envelope in the database cannot be read.", remedy="Is it damaged?") from error
    return bytes(statement_id(parsed.payload_type, parsed.payload))


def _named_by(kind: str, identifier: bytes, envelope: bytes) -> bytes:
    """The grant or delegation that a statement is about; a delegation is about itself."""
    if kind == st.DELEGATION.name:
        return identifier
    payload = pb.Envelope.FromString(envelope).payload
    if kind == st.ENDORSEMENT.name:
        return bytes(pb.Endorsement.FromString(payload).grant_id)
    if kind == st.REVOCATION.name:
        return bytes(pb.Revocation.FromString(payload).target_id)
    return bytes(pb.Acknowledgement.FromString(payload).target_id)

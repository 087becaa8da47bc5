"""Facts in SQL: recorded statements and what they mean, for broker and node alike.

Rules:

- A statement is recorded by one ledger entry; statement, projections and entry are one transaction (:meth:`draft`).
- :class:`FactStore` answers from bounded caches. They belong to one event loop: whoever appended calls
  :meth:`FactStore.committed` there, and what changed is read anew. Another process's changes are seen by
  :meth:`FactStore.catch_up`, and in any case by the ledger's check at commit, since :attr:`FactStore.position` is never
  ahead of what the caches saw.
- :class:`ConnectionFacts` reads without caches, on a given connection: for decisions made again under the head's lock.
- The envelopes of one's own database were verified before they were recorded; reading checks their ids, not their
  signatures again.

Example::

    signed = verify(GRANT, envelope, federation=federation)
    check_admissible(store, signed, operator=operator, now=now)
    store.committed(await ledger.append(store.draft(signed)))
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final, Generic, NamedTuple, TypeAlias, TypeVar

from sqlalchemy import Connection, Engine, LargeBinary, RowMapping, Select, bindparam, func, select

from permslip import statements as st
from permslip._pb.permslip.v1 import ledger_pb2, statement_pb2 as pb
from permslip.facts import Capability, Delegated, FactReader, subjects
from permslip.hosting.drafts import Draft, Recorded
from permslip.hosting.facts_projection import project
from permslip.hosting.facts_schema import FactTables
from permslip.hosting.schema import LedgerTables
from permslip.quantities import Position
from permslip.reasons import Reason
from permslip.standing import Standing
from permslip.statements import Signed

__all__ = ["ConnectionFacts", "FactStore", "GrantRow"]

_MAX_IN: Final = 500
_MAX_ABSENT: Final = 1024
V = TypeVar("V")

# SQLAlchemy's own type names the type of every column.
Query: TypeAlias = Any
Also = Callable[[Connection, Position], None]


class GrantRow(NamedTuple):
    """One grant of a listing; ``position`` is where the next page begins after."""

    position: int
    capability: Capability


class ConnectionFacts:
    """Facts as one transaction sees them; a :class:`permslip.facts.FactReader` without caches."""

    def __init__(self, connection: Connection, tables: FactTables, position: int) -> None:
        self._connection = connection
        self._tables = tables
        self._position = position

    @property
    def position(self) -> int:
        """Ledger size whose facts these are."""
        return self._position

    def capability(self, grant_id: bytes) -> Capability | None:
        """See :class:`permslip.facts.FactReader`."""
        row = self._connection.execute(_by_id(self._tables).capability, {"id": grant_id}).mappings().first()
        return None if row is None else _capability(row)

    def delegated(self, delegation_id: bytes) -> Delegated | None:
        """See :class:`permslip.facts.FactReader`."""
        row = self._connection.execute(_by_id(self._tables).delegated, {"id": delegation_id}).first()
        if row is None or row.envelope is None:
            return None
        return Delegated(st.restore(st.DELEGATION, row.id, row.envelope), row.grant_id, Reason(row.ended))

    def standing(self, root: bytes) -> Standing | None:
        """See :class:`permslip.facts.FactReader`."""
        row = self._connection.execute(_by_id(self._tables).standing, {"id": root}).mappings().first()
        return None if row is None else _standing(row)


class FactStore:
    """Recorded statements and the facts they make; a :class:`permslip.facts.FactReader`.

    Promises: reads return verified, immutable values, at least as new as :attr:`position` says. Belongs to one event
    loop, except :meth:`draft`'s writes, which the ledger runs in its own thread.

    Args:
        engine: the database, migrated.
        tables: the projections.
        ledger: the ledger's tables in the same database.
        cache_entries: greatest number of cached grants, of delegations and of organizations each (a grant with its
            endorsement takes about 6 KB).
    """

    def __init__(self, engine: Engine, tables: FactTables, ledger: LedgerTables, *, cache_entries: int = 4096) -> None:
        self._engine, self._tables, self._ledger = engine, tables, ledger
        self._capabilities: _Cache[Capability] = _Cache(cache_entries)
        self._delegated: _Cache[Delegated] = _Cache(cache_entries)
        self._standings: _Cache[Standing] = _Cache(cache_entries)
        self._position = 0
        self.catch_up()

    @property
    def position(self) -> int:
        """Ledger size whose facts these are."""
        return self._position

    def capability(self, grant_id: bytes) -> Capability | None:
        """See :class:`permslip.facts.FactReader`."""
        return self._capabilities.get(grant_id, lambda: self._read(lambda facts: facts.capability(grant_id)))

    def delegated(self, delegation_id: bytes) -> Delegated | None:
        """See :class:`permslip.facts.FactReader`."""
        return self._delegated.get(delegation_id, lambda: self._read(lambda facts: facts.delegated(delegation_id)))

    def standing(self, root: bytes) -> Standing | None:
        """See :class:`permslip.facts.FactReader`."""
        return self._standings.get(root, lambda: self._read(lambda facts: facts.standing(root)))

    def prefetch(self, grant_ids: Iterable[bytes]) -> None:
        """Read those of these grants that are not cached with one query, so that a batch costs one and not one each."""
        unknown = [each for each in dict.fromkeys(grant_ids) if not self._capabilities.knows(each)]
        if len(unknown) < 2:
            return
        query = _capabilities(self._tables).where(
            self._tables.grant_fact.c.grant_id.in_(bindparam("ids", expanding=True))
        )
        with self._engine.connect() as connection:
            for start in range(0, len(unknown), _MAX_IN):
                rows = connection.execute(query, {"ids": unknown[start : start + _MAX_IN]}).mappings()
                for row in rows:
                    self._capabilities.put(row["grant_id"], _capability(row))

    def at(self, connection: Connection, position: int) -> ConnectionFacts:
        """The facts as ``connection``'s transaction sees them, without caches; for ``Draft.redo``."""
        return ConnectionFacts(connection, self._tables, position)

    def catch_up(self) -> bool:
        """Notice what other processes appended; True when any fact changed."""
        head, changed = self._ledger.log_head, self._ledger.subject_change
        with self._engine.connect() as connection:
            row = connection.execute(select(head.c.size, head.c.change_position)).first()
            if row is None or row.size == self._position:
                return False
            stale: Iterable[bytes] = ()
            if row.change_position >= self._position:
                stale = [
                    each.subject
                    for each in connection.execute(
                        select(changed.c.subject).where(changed.c.position >= self._position)
                    )
                ]
        self._forget(stale)
        self._position = row.size
        return bool(stale)

    def committed(self, recorded: Sequence[Recorded]) -> None:
        """Take note of entries that were appended through this process's ledger."""
        for each in recorded:
            self._forget(each.draft.changes, but=self._revoked(each.draft))
            # Only without a gap: entries of another process in between may have changed facts too.
            if each.position == self._position:
                self._position = each.position + 1
        if recorded and recorded[-1].position >= self._position:
            self.catch_up()

    def recorded_at(self, statement_id: bytes) -> int | None:
        """The position at which a statement was recorded; None when it was not."""
        with self._engine.connect() as connection:
            row = connection.execute(_by_id(self._tables).recorded_at, {"id": statement_id}).first()
        return None if row is None else int(row.position)

    def envelopes(self, ids: Iterable[bytes]) -> dict[bytes, pb.Envelope]:
        """The envelopes with these ids; those that are unknown or erased are left out."""
        statement = self._tables.statement
        wanted, found = list(dict.fromkeys(ids)), {}
        with self._engine.connect() as connection:
            for start in range(0, len(wanted), _MAX_IN):
                part = wanted[start : start + _MAX_IN]
                query = select(statement.c.id, statement.c.envelope).where(statement.c.id.in_(part))
                for row in connection.execute(query):
                    if row.envelope is not None:
                        found[row.id] = pb.Envelope.FromString(row.envelope)
        return found

    def draft(
        self,
        signed: Signed[Any],
        *,
        slice_of: tuple[bytes, bytes] | None = None,
        push_number: int = 0,
        also: Also | None = None,
    ) -> Draft:
        """The ledger entry that records an admissible statement, with everything that follows from it.

        Args:
            signed: found admissible on the facts of :attr:`position`. If a subject of it changes before the commit, the
                append fails with ``UnavailableError``: check again on the new facts.
            slice_of: node root and handle, where it is about a slice; found by itself for all but acknowledgements.
            push_number: at a node: its number among the broker's pushes.
            also: further writes in the same transaction.
        """
        changes = subjects(signed)
        superseded: tuple[bytes, ...] = ()
        if signed.kind is st.ENDORSEMENT and (capability := self.capability(signed.payload.grant_id)) is not None:
            superseded = tuple(capability.grant.payload.supersedes)

        def write(connection: Connection, position: Position) -> None:
            project(connection, self._tables, signed, position)
            if also is not None:
                also(connection, position)

        body = ledger_pb2.StatementRecorded(
            statement_id=signed.id,
            payload_type=signed.kind.payload_type,
            envelope_sha256=signed.sha256,
            subject=_subject(signed),
            push_number=push_number,
        )
        return Draft(
            event="statement_recorded",
            body=body,
            slice=slice_of if slice_of is not None else self._slice_of(signed),
            depends_on=changes,
            facts_position=self._position,
            changes=changes + superseded,
            write=write,
        )

    def grants_for_grantee(self, root: bytes, *, after: int = -1, limit: int = 200) -> list[GrantRow]:
        """Grants made out to this key, in the order of their deposit."""
        grant = self._tables.grant_fact
        return self._grants(lambda query: query.where(grant.c.grantee == root), after, limit)

    def grants_for_signer(self, key: bytes, *, after: int = -1, limit: int = 200) -> list[GrantRow]:
        """Grants that this key signed."""
        grant, signer = self._tables.grant_fact, self._tables.grant_signer
        return self._grants(
            lambda query: query.join(signer, signer.c.grant_id == grant.c.grant_id).where(signer.c.key == key),
            after,
            limit,
        )

    def grants_on_slice(self, node: bytes, handle: bytes, *, after: int = -1, limit: int = 200) -> list[GrantRow]:
        """Grants on one slice."""
        grant = self._tables.grant_fact
        return self._grants(lambda query: query.where(grant.c.node == node, grant.c.handle == handle), after, limit)

    def grants_of_node(
        self, node: bytes, *, pending_only: bool = False, after: int = -1, limit: int = 200
    ) -> list[GrantRow]:
        """Grants on any slice of one node; ``pending_only``: that live and have no endorsement yet."""
        grant = self._tables.grant_fact

        def restrict(query: Select[Any]) -> Select[Any]:
            query = query.where(grant.c.node == node)
            if pending_only:
                query = query.where(grant.c.verdict == 0, grant.c.ended == int(Reason.ALLOWED))
            return query

        return self._grants(restrict, after, limit)

    def delegations_of(self, grant_id: bytes) -> list[Delegated]:
        """All delegations that come from a grant, in the order of their deposit."""
        fact, statement = self._tables.delegation_fact, self._tables.statement
        query = (
            select(fact.c.grant_id, fact.c.ended, statement.c.id, statement.c.envelope)
            .join(statement, statement.c.id == fact.c.delegation_id)
            .where(fact.c.grant_id == grant_id, statement.c.envelope.is_not(None))
            .order_by(fact.c.position)
        )
        with self._engine.connect() as connection:
            return [
                Delegated(st.restore(st.DELEGATION, row.id, row.envelope), row.grant_id, Reason(row.ended))
                for row in connection.execute(query)
            ]

    def standings(self, *, after: bytes = b"", limit: int = 200) -> list[Standing]:
        """Organizations, ascending by root."""
        fact = self._tables.standing_fact
        query = _standings(self._tables).where(fact.c.root > after).order_by(fact.c.root).limit(limit)
        with self._engine.connect() as connection:
            return [_standing(row) for row in connection.execute(query).mappings()]

    def count_grants(self) -> int:
        """How many grants were ever recorded."""
        with self._engine.connect() as connection:
            return int(connection.execute(select(func.count()).select_from(self._tables.grant_fact)).scalar_one())

    def _grants(self, restrict: Callable[[Select[Any]], Select[Any]], after: int, limit: int) -> list[GrantRow]:
        grant = self._tables.grant_fact
        query = restrict(_capabilities(self._tables)).where(grant.c.position > after)
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by(grant.c.position).limit(limit)).mappings()
            return [GrantRow(row["position"], _capability(row)) for row in rows]

    def _slice_of(self, signed: Signed[Any]) -> tuple[bytes, bytes] | None:
        if signed.kind is st.GRANT:
            place = signed.payload.slice
            return place.node, place.handle
        if signed.kind is st.ENDORSEMENT:
            return _place(self, signed.payload.grant_id)
        if signed.kind in (st.REVOCATION, st.ACKNOWLEDGEMENT):
            return _place(self, signed.payload.target_id)
        if signed.kind is st.DELEGATION:
            return _place(self, signed.payload.parent_id)
        return None

    def _read(self, read: Callable[[ConnectionFacts], V]) -> V:
        with self._engine.connect() as connection:
            return read(ConnectionFacts(connection, self._tables, self._position))

    def _revoked(self, draft: Draft) -> bytes:
        """The cached grant that an entry revokes, now cached as revoked; empty where it does not.

        That is final whatever else becomes of the grant, so it needs no reading; and the node's acknowledgement, which
        comes next, is judged by that very grant.
        """
        body = draft.body
        if not isinstance(body, ledger_pb2.StatementRecorded) or body.payload_type != st.REVOCATION.payload_type:
            return b""
        known = self._capabilities.known(body.subject)
        if known is None:
            return b""
        self._capabilities.put(body.subject, replace(known, ended=Reason.GRANT_REVOKED))
        return body.subject

    def _forget(self, changed: Iterable[bytes], *, but: bytes = b"") -> None:
        for subject in changed:
            if subject == but:
                continue
            self._capabilities.forget(subject)
            self._delegated.forget(subject)
            self._standings.forget(subject)


class _Cache(Generic[V]):
    """The values used last, and apart from them what was asked for and is not there: an outsider who asks for nonsense
    must not push out what is, and a person, who has no standing, must not cost a query each time she asks."""

    def __init__(self, entries: int) -> None:
        self._entries = entries
        self._values: OrderedDict[bytes, V] = OrderedDict()
        self._absent: OrderedDict[bytes, None] = OrderedDict()

    def get(self, key: bytes, read: Callable[[], V | None]) -> V | None:
        known = self._values.get(key)
        if known is not None:
            self._values.move_to_end(key)
            return known
        if key in self._absent:
            self._absent.move_to_end(key)
            return None
        value = read()
        if value is not None:
            self.put(key, value)
        else:
            self._absent[key] = None
            if len(self._absent) > _MAX_ABSENT:
                self._absent.popitem(last=False)
        return value

    def known(self, key: bytes) -> V | None:
        return self._values.get(key)

    def knows(self, key: bytes) -> bool:
        return key in self._values or key in self._absent

    def put(self, key: bytes, value: V) -> None:
        self._values[key] = value
        if len(self._values) > self._entries:
            self._values.popitem(last=False)

    def forget(self, key: bytes) -> None:
        self._values.pop(key, None)
        self._absent.pop(key, None)


def _place(reader: FactReader, identifier: bytes) -> tuple[bytes, bytes] | None:
    capability = reader.capability(identifier)
    if capability is None:
        delegated = reader.delegated(identifier)
        capability = reader.capability(delegated.grant_id) if delegated is not None else None
    if capability is None:
        return None
    place = capability.grant.payload.slice
    return place.node, place.handle


def _subject(signed: Signed[Any]) -> bytes:
    payload = signed.payload
    if signed.kind is st.ENDORSEMENT:
        return bytes(payload.grant_id)
    if signed.kind in (st.REVOCATION, st.ACKNOWLEDGEMENT):
        return bytes(payload.target_id)
    if signed.kind is st.DELEGATION:
        return bytes(payload.parent_id)
    if signed.kind in (st.ADMISSION, st.SUSPENSION, st.KEY_CERT):
        return bytes(payload.root)
    return b""


class _ById(NamedTuple):
    """Queries for one row, by the parameter ``id``. Putting one together costs more than running it."""

    capability: Query
    delegated: Query
    standing: Query
    recorded_at: Query


@lru_cache(maxsize=8)
def _by_id(tables: FactTables) -> _ById:
    wanted = bindparam("id", type_=LargeBinary())
    fact, statement = tables.delegation_fact, tables.statement
    delegated = (
        select(fact.c.grant_id, fact.c.ended, statement.c.id, statement.c.envelope)
        .join(statement, statement.c.id == fact.c.delegation_id)
        .where(fact.c.delegation_id == wanted)
    )
    return _ById(
        capability=_capabilities(tables).where(tables.grant_fact.c.grant_id == wanted),
        delegated=delegated,
        standing=_standings(tables).where(tables.standing_fact.c.root == wanted),
        recorded_at=select(statement.c.position).where(statement.c.id == wanted),
    )


@lru_cache(maxsize=8)
def _capabilities(tables: FactTables) -> Query:
    grant, statement = tables.grant_fact, tables.statement
    endorsement, approval = statement.alias("endorsement"), statement.alias("approval")
    return (
        select(
            grant.c.position,
            grant.c.grant_id,
            grant.c.ended,
            grant.c.endorsement_id,
            grant.c.approval_id,
            statement.c.envelope.label("grant_envelope"),
            endorsement.c.envelope.label("endorsement_envelope"),
            approval.c.envelope.label("approval_envelope"),
        )
        .join(statement, statement.c.id == grant.c.grant_id)
        .outerjoin(endorsement, endorsement.c.id == grant.c.endorsement_id)
        .outerjoin(approval, approval.c.id == grant.c.approval_id)
        .where(statement.c.envelope.is_not(None))
    )


def _capability(row: RowMapping) -> Capability:
    return Capability(
        grant=st.restore(st.GRANT, row["grant_id"], row["grant_envelope"]),
        endorsement=_restored(st.ENDORSEMENT, row["endorsement_id"], row["endorsement_envelope"]),
        approval=_restored(st.ENDORSEMENT, row["approval_id"], row["approval_envelope"]),
        ended=Reason(row["ended"]),
    )


@lru_cache(maxsize=8)
def _standings(tables: FactTables) -> Query:
    fact, statement = tables.standing_fact, tables.statement
    admission, suspension, cert = (statement.alias(name) for name in ("admission", "suspension", "cert"))
    return (
        select(
            fact.c.root,
            fact.c.admission_id,
            fact.c.suspension_id,
            fact.c.cert_id,
            admission.c.envelope.label("admission_envelope"),
            suspension.c.envelope.label("suspension_envelope"),
            cert.c.envelope.label("cert_envelope"),
        )
        .outerjoin(admission, admission.c.id == fact.c.admission_id)
        .outerjoin(suspension, suspension.c.id == fact.c.suspension_id)
        .outerjoin(cert, cert.c.id == fact.c.cert_id)
    )


def _standing(row: RowMapping) -> Standing:
    return Standing(
        root=row["root"],
        admission=_restored(st.ADMISSION, row["admission_id"], row["admission_envelope"]),
        suspension=_restored(st.SUSPENSION, row["suspension_id"], row["suspension_envelope"]),
        cert=_restored(st.KEY_CERT, row["cert_id"], row["cert_envelope"]),
    )


def _restored(kind: st.Kind[Any], identifier: bytes | None, envelope: bytes | None) -> Signed[Any] | None:
    if identifier is None or envelope is None:
        return None
    return st.restore(kind, identifier, envelope)

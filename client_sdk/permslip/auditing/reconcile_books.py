"""The ledgers side by side: what they say about accesses and statements, in narrow temporary tables to be joined.

One pass over the bundle fills them; each check after that is one query.

===================  ================================================================================================
``decided``          every ``access_decided``: ledger, position, query, verdict, times, grant, node
``answered``         every ``access_answered``: ledger, position, query, how it ended, bytes, manifest's digest
``recorded``         every ``statement_recorded``: ledger, position, statement, kind, subject, push number, time
``push``             what the broker's ledger says each fetched node must hold, numbered as the broker numbers it
``acknowledged``     what acknowledgements say: the revocation, its target, the node, its ledger's size
``limited``          grants with ``max_uses``
===================  ================================================================================================

Rules:

- Tables are on the disk beside the bundle and vanish with its connection; memory holds one state for each organization.
- Envelopes are parsed, not verified: that they are genuine is the business of verify and replay, and what does not
  parse is passed over.

Example::

    books = Books.read(bundle, progress)
    books.db.execute("SELECT count(*) FROM decided WHERE ledger <> 1")
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from google.protobuf.message import DecodeError, Message

from permslip import statements as st
from permslip._pb.permslip.v1 import ledger_pb2, statement_pb2 as pb
from permslip.auditing.bundle import BROKER, Bundle, LedgerRow
from permslip.auditing.results import Progress
from permslip.auditing.verify_checkpoints import checkpoints_of
from permslip.keys import did_text

__all__ = ["Books", "Horizon", "payload_of"]

_BATCH: Final = 2_000
_TELL_EVERY: Final = 5_000

_TABLES: Final = """
DROP TABLE IF EXISTS temp.decided;
DROP TABLE IF EXISTS temp.answered;
DROP TABLE IF EXISTS temp.recorded;
DROP TABLE IF EXISTS temp.push;
DROP TABLE IF EXISTS temp.owner;
DROP TABLE IF EXISTS temp.acknowledged;
DROP TABLE IF EXISTS temp.limited;
CREATE TEMP TABLE decided AS
    SELECT ledger, position, query_id, reason, decided_at, recorded_at, routed_position, grant_id, node, slice_seq
    FROM entry WHERE event = 'access_decided' ORDER BY ledger, position;
CREATE INDEX temp.decided_query ON decided (query_id, ledger);
CREATE INDEX temp.decided_grant ON decided (grant_id, ledger);
CREATE TEMP TABLE answered AS
    SELECT ledger, position, query_id, reason, recorded_at, coalesce(sealed_bytes, 0) AS sealed_bytes, manifest_sha256
    FROM entry WHERE event = 'access_answered' ORDER BY ledger, position;
CREATE INDEX temp.answered_query ON answered (query_id, ledger);
CREATE TEMP TABLE recorded (
    ledger INTEGER, position INTEGER, statement_id BLOB, kind TEXT, subject BLOB, push_number INTEGER,
    recorded_at INTEGER
);
CREATE TEMP TABLE push (
    ledger INTEGER, number INTEGER, statement_id BLOB, kind TEXT, position INTEGER, recorded_at INTEGER
);
CREATE TEMP TABLE owner (id BLOB PRIMARY KEY, node BLOB) WITHOUT ROWID;
CREATE TEMP TABLE acknowledged (
    id BLOB PRIMARY KEY, revocation BLOB, target BLOB, node BLOB, size INTEGER
) WITHOUT ROWID;
CREATE TEMP TABLE limited (grant_id BLOB PRIMARY KEY, max_uses INTEGER) WITHOUT ROWID;
"""
_INDEXES: Final = """
CREATE INDEX temp.recorded_statement ON recorded (statement_id, ledger);
CREATE INDEX temp.push_statement ON push (statement_id, ledger);
"""
_STATEMENTS: Final = """
    SELECT entry.ledger, entry.position, entry.recorded_at, entry.leaf, statement.envelope
    FROM entry LEFT JOIN statement ON statement.id = entry.statement_id
    WHERE entry.event = 'statement_recorded' ORDER BY entry.ledger, entry.position
"""


class Horizon(NamedTuple):
    """How far a ledger is known.

    Attributes:
        ledger: its number.
        root: its keeper.
        name: the keeper's.
        size: leaves that were fetched.
        hidden: how many of them are hashes alone.
        fetched_at: when the newest checkpoint was fetched, by the auditor's clock.
        as_of: when that checkpoint can have been made at the latest, UTC milliseconds: when it was cosigned last, and
            where it was not, fetched.
        is_whole: every leaf of that checkpoint was fetched.
    """

    ledger: int
    root: bytes
    name: str
    size: int
    hidden: int
    fetched_at: int
    as_of: int
    is_whole: bool


class _Standing(NamedTuple):
    """Positions and ids of what holds of one organization; an empty id where nothing does."""

    admission: tuple[int, int, bytes] = (0, 0, b"")
    cert: tuple[int, int, bytes] = (0, 0, b"")
    suspension: tuple[int, int, bytes] = (0, 0, b"")


class Books:
    """The tables, and how far each ledger is known; made by :meth:`read`.

    Attributes:
        db: the bundle's connection.
        broker: the broker's ledger.
        nodes: the nodes' ledgers that were fetched, by number.
    """

    def __init__(self, db: sqlite3.Connection, horizons: list[Horizon]) -> None:
        self.db = db
        nothing = Horizon(BROKER, b"", "", 0, 0, 0, 0, is_whole=False)
        self.broker = next((each for each in horizons if each.ledger == BROKER), nothing)
        self.nodes = {each.ledger: each for each in horizons if each.ledger != BROKER and each.size}
        self._by_root = {each.root: each.ledger for each in self.nodes.values()}
        self._standings: dict[bytes, _Standing] = {}
        self._numbers: dict[bytes, int] = {}
        self._rows: list[tuple[Any, ...]] = []
        self._pushes: list[tuple[Any, ...]] = []

    @classmethod
    def read(cls, bundle: Bundle, progress: Progress) -> Books:
        """Read the ledgers of a bundle."""
        db = bundle.db
        db.executescript(_TABLES)
        books = cls(db, [_horizon(bundle, each) for each in bundle.ledgers()])
        with books.transaction():
            books._read_statements(progress)
        db.executescript(_INDEXES)
        return books

    def horizon(self, ledger: int) -> Horizon:
        """How far a ledger is known."""
        return self.broker if ledger == BROKER else self.nodes[ledger]

    def name_of(self, root: bytes) -> str:
        """What the keeper of a ledger is called."""
        number = self._by_root.get(root)
        return did_text(root) if number is None and root else "a node" if number is None else self.nodes[number].name

    def _read_statements(self, progress: Progress) -> None:
        for number, row in enumerate(self.db.execute(_STATEMENTS), start=1):
            ledger, position, recorded_at, leaf, envelope = row
            body = _recorded(leaf)
            kind = st.KINDS.get(body.payload_type) if body is not None else None
            if body is None or kind is None:
                continue
            payload = payload_of(kind, envelope)
            self._rows.append(
                (ledger, position, body.statement_id, kind.name, body.subject, body.push_number, recorded_at)
            )
            self._note(ledger, position, recorded_at, body.statement_id, kind, payload, body.subject)
            if len(self._rows) + len(self._pushes) >= _BATCH:
                self._flush()
            if not number % _TELL_EVERY:
                progress("reading statements", number, 0)
        self._flush()

    def _note(
        self,
        ledger: int,
        position: int,
        recorded_at: int,
        identifier: bytes,
        kind: st.Kind[Any],
        payload: Any,
        subject: bytes,
    ) -> None:
        """What a statement means for the other tables."""
        where = (position, recorded_at, identifier)
        if kind is st.GRANT and payload is not None:
            self.db.execute("INSERT OR IGNORE INTO owner VALUES (?, ?)", (identifier, payload.slice.node))
            if payload.max_uses:
                self.db.execute("INSERT OR IGNORE INTO limited VALUES (?, ?)", (identifier, payload.max_uses))
        elif kind is st.ACKNOWLEDGEMENT and payload is not None:
            row = (identifier, payload.statement_id, payload.target_id, payload.signer.root, payload.ledger_size)
            self.db.execute("INSERT OR IGNORE INTO acknowledged VALUES (?, ?, ?, ?, ?)", row)
        elif kind is st.DELEGATION:
            node = self._owner(subject)
            self.db.execute("INSERT OR IGNORE INTO owner VALUES (?, ?)", (identifier, node))
            self._push_one(ledger, node, kind, where)
        elif kind is st.REVOCATION:
            self._push_one(ledger, self._owner(subject) if payload is None else payload.node, kind, where)
        elif kind in (st.ADMISSION, st.SUSPENSION, st.KEY_CERT) and ledger == BROKER:
            self._push_all(subject, kind, payload, where)

    def _owner(self, identifier: bytes) -> bytes:
        row = self.db.execute("SELECT node FROM owner WHERE id = ?", (identifier,)).fetchone()
        return b"" if row is None else bytes(row[0])

    def _push_one(self, ledger: int, node: bytes, kind: st.Kind[Any], where: tuple[int, int, bytes]) -> None:
        if ledger == BROKER and node in self._numbers:
            self._push(node, kind, where)

    def _push_all(self, root: bytes, kind: st.Kind[Any], payload: Any, where: tuple[int, int, bytes]) -> None:
        for node in self._numbers:
            self._push(node, kind, where)
        before = self._standings.get(root, _Standing())
        if kind is st.ADMISSION:
            self._standings[root] = before._replace(admission=where, suspension=(0, 0, b""))
            is_node = payload is None or payload.kind == pb.PRINCIPAL_KIND_NODE
            if is_node and root in self._by_root and root not in self._numbers:
                self._backfill(root)
        elif kind is st.SUSPENSION:
            self._standings[root] = before._replace(suspension=where)
        else:
            self._standings[root] = before._replace(cert=where)

    def _backfill(self, node: bytes) -> None:
        """A node that is admitted for the first time gets what holds of everybody, as the broker orders it."""
        self._numbers[node] = 0
        standings = self._standings.values()
        for kind, held in (
            (st.ADMISSION, [each.admission for each in standings]),
            (st.KEY_CERT, [each.cert for each in standings]),
            (st.SUSPENSION, [each.suspension for each in standings]),
        ):
            for where in sorted(each for each in held if each[2]):
                self._push(node, kind, where)

    def _push(self, node: bytes, kind: st.Kind[Any], where: tuple[int, int, bytes]) -> None:
        self._numbers[node] += 1
        position, recorded_at, identifier = where
        row = (self._by_root[node], self._numbers[node], identifier, kind.name, position, recorded_at)
        self._pushes.append(row)

    def _flush(self) -> None:
        self.db.executemany("INSERT INTO temp.recorded VALUES (?, ?, ?, ?, ?, ?, ?)", self._rows)
        self.db.executemany("INSERT INTO temp.push VALUES (?, ?, ?, ?, ?, ?)", self._pushes)
        self._rows.clear()
        self._pushes.clear()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Temporary tables are written together."""
        self.db.execute("BEGIN")
        try:
            yield
        finally:
            self.db.execute("COMMIT")

    def each(self, query: str, *parameters: object) -> Iterator[tuple[Any, ...]]:
        """The rows of one check."""
        return self.db.execute(query, parameters)


def payload_of(kind: st.Kind[Any], envelope: bytes | None) -> Any:
    """The payload in an (unverified) envelope; None where there is none that parses."""
    if envelope is None:
        return None
    try:
        parsed: Message = kind.message.FromString(pb.Envelope.FromString(envelope).payload)
    except DecodeError:
        return None
    return parsed


def _horizon(bundle: Bundle, row: LedgerRow) -> Horizon:
    query = "SELECT count(*) FROM entry WHERE ledger = ? AND leaf IS NULL"
    [hidden] = bundle.db.execute(query, (row.ledger,)).fetchone()
    newest = max(checkpoints_of(bundle, row.ledger), key=lambda each: (each.visit, each.size), default=None)
    if newest is None:
        return Horizon(row.ledger, row.root, row.name, row.fetched, hidden, 0, 0, is_whole=False)
    cosigned = newest.latest_cosignature
    as_of = newest.fetched_at if cosigned is None else 1_000 * cosigned + 999
    is_whole = row.fetched >= newest.size
    return Horizon(row.ledger, row.root, row.name, row.fetched, hidden, newest.fetched_at, as_of, is_whole)


def _recorded(leaf: bytes) -> ledger_pb2.StatementRecorded | None:
    try:
        return ledger_pb2.LogEntry.FromString(leaf).statement_recorded
    except DecodeError:
        return None

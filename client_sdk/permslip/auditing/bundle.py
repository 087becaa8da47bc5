"""The audit bundle: what an auditor fetched, and what was found in it, as one SQLite file.

It opens in any SQLite tool and in Datasette; its tables and views are in :mod:`permslip.auditing.bundle_schema`.

Rules:

- A bundle holds what came; nothing in it is believed for being there. Checks begin at the bytes of leaves, envelopes
  and checkpoints; the other columns are for people, and compared with those bytes.
- Rows are read in batches or one by one, never as a whole.
- A step's findings replace those that it wrote before.
- The file is for its owner alone (mode 0600): it holds no learner's records, but who asked for whose.

Example::

    with Bundle.open("audit.db") as bundle:
        bundle.check_trust(trust)
        with bundle.findings("verify") as found:
            found.count("leaves", 1)
            found.add(Code.LEAF_HASH, "expected …, got …", ledger=1, position=17)
        print(found.result.exit_code)
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from permslip import dsse, statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.auditing.bundle_schema import FORMAT, TABLES, VIEWS, check_schema
from permslip.auditing.entry_rows import EntryRow
from permslip.auditing.finding import Findings
from permslip.auditing.results import Trust
from permslip.errors import ConfigurationError, MalformedError, PermslipError
from permslip.keys import did_text

__all__ = ["BROKER", "Bundle", "LedgerRow", "StatementRow", "first_signer"]

BROKER: Final = 1
"""The number of the broker's ledger."""

_INSERT_ENTRIES: Final = (
    f"INSERT INTO entry ({', '.join(EntryRow._fields)}) VALUES ({', '.join('?' * len(EntryRow._fields))})"  # noqa: S608  # names of its own columns
)
_KINDS: Final = {
    pb.PRINCIPAL_KIND_PROVIDER: "provider",
    pb.PRINCIPAL_KIND_NODE: "node",
    pb.PRINCIPAL_KIND_AUDITOR: "auditor",
    pb.PRINCIPAL_KIND_BROKER: "broker",
}


class LedgerRow(NamedTuple):
    """One ledger of the bundle.

    Attributes:
        ledger: its number; 1 is the broker's.
        fetched: leaves that are in the bundle's table ``entry``.
        frontier: the roots of the complete subtrees over those that were pulled, largest first, 32 bytes each.
        head_size, head_root: of the newest checkpoint whose root the leaves make; None before the first.
        pulled: leaves that came; the last of them may still wait in ``arrived``.
    """

    ledger: int
    root: bytes
    did: str
    kind: str
    name: str
    origin: str
    fetched: int
    frontier: bytes
    head_size: int | None
    head_root: bytes | None
    pulled: int


class StatementRow(NamedTuple):
    """One statement, as the bundle has it: unverified bytes."""

    id: bytes
    kind: str
    envelope: bytes
    envelope_sha256: bytes
    signer: bytes
    created_at: int


class Bundle:
    """An open audit bundle; make one with :meth:`create` or :meth:`open`.

    Attributes:
        db: the connection, in autocommit; write within :meth:`transaction`. It may be used from any thread, by one at
            a time.
        path: of the file.
    """

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self.db, self.path = db, path

    @classmethod
    def create(cls, path: str | os.PathLike[str], meta: Mapping[str, str]) -> Bundle:
        """Make an empty bundle.

        Args:
            path: of the file; there must be none yet.
            meta: ``federation``, ``broker_root``, ``operator`` (dids) and whatever else is known.

        Raises:
            ConfigurationError: there is such a file, or it cannot be made.
        """
        from sqlite_utils import Database  # loads a good deal more than sqlite3

        where = Path(path)
        try:
            os.close(os.open(where, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except FileExistsError:
            raise ConfigurationError(
                "there is such a file.", key=str(where), remedy="Name another, or continue with it."
            ) from None
        except OSError as error:
            raise ConfigurationError(f"cannot be made: {error.strerror}.", key=str(where)) from error
        bundle = cls(sqlite3.connect(where, isolation_level=None, check_same_thread=False), where)
        _prepare(bundle.db)
        with bundle.transaction():
            tables = Database(bundle.db, execute_plugins=False)
            for statement in TABLES.split(";"):
                tables.execute(statement)
            for name, query in VIEWS.items():
                tables.create_view(name, query)
            for name, value in {"format": FORMAT, "visits": "0", **meta}.items():
                bundle.set_meta(name, value)
        return bundle

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Bundle:
        """Open a bundle.

        Raises:
            ConfigurationError: there is no such file, or it is no audit bundle.
            MalformedError: its tables are not those of a bundle, or something in it acts by itself.
        """
        where = Path(path)
        if not where.is_file():
            raise ConfigurationError(
                "there is no such file.", key=str(where), remedy="Make it with: permslip audit fetch."
            )
        db = sqlite3.connect(where, isolation_level=None, check_same_thread=False)
        bundle = cls(db, where)
        try:
            _prepare(db)
            found = bundle.meta("format")
            if found == FORMAT:
                check_schema(db)
        except sqlite3.Error:
            found = None
        except PermslipError:
            bundle.close()
            raise
        if found != FORMAT:
            bundle.close()
            raise ConfigurationError(
                f"is no audit bundle of the format {FORMAT}.",
                key=str(where),
                remedy="Name a file that permslip audit fetch made.",
            )
        return bundle

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self.db.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing of what is written within."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield self.db
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    def meta(self, name: str) -> str | None:
        """A value of the table ``meta``."""
        row = self.db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def set_meta(self, name: str, value: str) -> None:
        """Write a value of the table ``meta``."""
        self.db.execute(
            "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET value = ?2", (name, value)
        )

    def check_trust(self, trust: Trust) -> None:
        """Compare what the bundle says it is of with what the auditor trusts.

        Raises:
            ConfigurationError: names the first that differs.
        """
        given = {
            "federation": trust.federation,
            "broker_root": did_text(trust.broker_root),
            "operator": did_text(trust.operator),
        }
        for name, expected in given.items():
            found = self.meta(name)
            if found != expected:
                raise ConfigurationError(
                    f"expected {expected}, but the bundle is of {found}.",
                    key=name,
                    remedy="Give the federation and keys that the bundle was fetched with.",
                )

    def add_ledger(self, root: bytes, *, kind: str, name: str, origin: str) -> int:
        """Make a ledger known, or find it; returns its number: 1 for the broker's."""
        found = self.db.execute("SELECT ledger FROM ledger WHERE root = ?", (root,)).fetchone()
        if found is not None:
            return int(found[0])
        number = BROKER
        if kind != "broker":
            number = int(self.db.execute("SELECT max(coalesce(max(ledger), 0), 1) + 1 FROM ledger").fetchone()[0])
        self.db.execute(
            "INSERT INTO ledger (ledger, root, did, kind, name, origin) VALUES (?, ?, ?, ?, ?, ?)",
            (number, root, did_text(root), kind, name, origin),
        )
        return number

    def ledgers(self) -> list[LedgerRow]:
        """The ledgers, the broker's first."""
        columns = ", ".join(LedgerRow._fields)
        return [LedgerRow(*row) for row in self.db.execute(f"SELECT {columns} FROM ledger ORDER BY ledger")]  # noqa: S608  # names of its own columns

    def add_entries(self, rows: Iterable[EntryRow]) -> None:
        """Insert entries, in order; within a :meth:`transaction`."""
        self.db.executemany(_INSERT_ENTRIES, rows)

    def entries(
        self, ledger: int, start: int = 0, end: int | None = None, *, event: str | None = None
    ) -> Iterator[EntryRow]:
        """Entries of a ledger in order of position, one by one.

        Args:
            ledger: its number.
            start, end: positions; ``end`` is exclusive.
            event: only entries of this one.
        """
        columns = ", ".join(EntryRow._fields)
        rows = self.db.execute(
            f"SELECT {columns} FROM entry WHERE ledger = ? AND position >= ? AND position < ?"  # noqa: S608  # names of its own columns
            " AND (?4 IS NULL OR event = ?4) ORDER BY position",
            (ledger, start, end if end is not None else 2**63 - 1, event),
        )
        return (EntryRow(*row) for row in rows)

    def add_statements(self, statements: Iterable[st.Signed[Any]]) -> int:
        """Insert verified statements; those that are there stay. Within a :meth:`transaction`.

        Admissions also name their organization in the table ``organization``, the newest name counting.

        Returns:
            how many were new.
        """
        new = 0
        for signed in statements:
            raw, payload = signed.raw, signed.payload
            row = (signed.id, signed.kind.name, raw, signed.sha256, first_signer(signed), payload.created_at)
            inserted = self.db.execute("INSERT INTO statement VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", row)
            new += inserted.rowcount
            if signed.kind is st.ADMISSION and inserted.rowcount:
                self._name_organization(signed)
        return new

    def add_refused(self, envelope: pb.Envelope) -> bytes:
        """Keep an envelope that does not hold, as it came: it is evidence. Returns the id that its bytes have."""
        raw = envelope.SerializeToString(deterministic=True)
        identifier = dsse.statement_id(envelope.payload_type, envelope.payload)
        kind = st.KINDS.get(envelope.payload_type)
        row = (identifier, kind.name if kind is not None else "", raw, sha256(raw).digest(), b"", 0)
        self.db.execute("INSERT INTO statement VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", row)
        return identifier

    def ledger(self, number: int) -> LedgerRow:
        """The ledger of a number that :meth:`add_ledger` gave."""
        return next(each for each in self.ledgers() if each.ledger == number)

    def add_arrived(self, ledger: int, messages: Sequence[bytes], pulled: int, frontier: bytes) -> None:
        """Keep messages of leaves as they came, and say how many leaves were pulled, and over which subtrees."""
        with self.transaction():
            self.db.executemany("INSERT INTO arrived (ledger, message) VALUES (?, ?)", [(ledger, m) for m in messages])
            self.db.execute("UPDATE ledger SET pulled = ?, frontier = ? WHERE ledger = ?", (pulled, frontier, ledger))

    def set_fetched(self, ledger: int, fetched: int) -> None:
        """Say how many leaves of a ledger are in the table ``entry``; in the :meth:`transaction` that adds them."""
        self.db.execute("UPDATE ledger SET fetched = ? WHERE ledger = ?", (fetched, ledger))

    def set_head(self, ledger: int, size: int, root: bytes) -> None:
        """Say up to where a ledger's leaves were found to make a signed root."""
        self.db.execute("UPDATE ledger SET head_size = ?, head_root = ? WHERE ledger = ?", (size, root, ledger))

    def _name_organization(self, admission: st.Signed[pb.Admission]) -> None:
        payload = admission.payload
        newest = self.db.execute(
            "SELECT max(created_at) FROM statement JOIN entry ON entry.statement_id = statement.id"
            " WHERE kind = 'admission' AND subject = ? AND id <> ?",
            (payload.root, admission.id),
        ).fetchone()[0]
        if newest is None or newest <= payload.created_at:
            self.add_organization(payload.root, payload.name, _KINDS.get(payload.kind, "organization"))

    def add_organization(self, root: bytes, name: str, kind: str) -> None:
        """Say what an organization is called; the last word counts."""
        self.db.execute(
            "INSERT INTO organization (root, did, name, kind) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (root) DO UPDATE SET name = ?3, kind = ?4",
            (root, did_text(root), name, kind),
        )

    def statement(self, identifier: bytes) -> StatementRow | None:
        """A statement by its id."""
        row = self.db.execute("SELECT * FROM statement WHERE id = ?", (identifier,)).fetchone()
        return None if row is None else StatementRow(*row)

    def statement_by_envelope(self, digest: bytes) -> StatementRow | None:
        """A statement by the SHA-256 of its envelope, as a leaf names a manifest."""
        row = self.db.execute("SELECT * FROM statement WHERE envelope_sha256 = ?", (digest,)).fetchone()
        return None if row is None else StatementRow(*row)

    def signed(self, kind: st.Kind[Any], identifier: bytes) -> st.Signed[Any] | None:
        """A statement by its id, verified strictly as of this kind; None where the bundle has none.

        Raises:
            MalformedError, SignatureError, KeyRejectedError: it is there, but does not hold.
        """
        row = self.statement(identifier)
        if row is None:
            return None
        signed = st.verify(kind, st.parse_envelope(row.envelope), federation=self.meta("federation") or "")
        if signed.id != identifier:
            raise MalformedError("is filed under another id than its own.", field=kind.name)
        return signed

    def add_erased(self, rows: Iterable[tuple[bytes, int, int, int, str]]) -> None:
        """Note erased statements: id, ledger, position, UTC milliseconds, rule. Within a :meth:`transaction`."""
        self.db.executemany("INSERT INTO erased VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", rows)

    def erased_at(self, identifier: bytes) -> int | None:
        """When a statement was erased, UTC milliseconds, the first time; None if it was not."""
        row = self.db.execute("SELECT min(erased_at) FROM erased WHERE statement_id = ?", (identifier,)).fetchone()
        return None if row[0] is None else int(row[0])

    def add_checkpoint(
        self,
        ledger: int,
        size: int,
        root: bytes,
        note: bytes,
        *,
        vkey: str,
        cosigners: list[dict[str, Any]],
        visit: int,
        fetched_at: int,
    ) -> None:
        """Keep a checkpoint of one visit."""
        self.db.execute(
            "INSERT INTO checkpoint VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (ledger, size, root, note, vkey, json.dumps(cosigners), visit, fetched_at),
        )

    @contextmanager
    def findings(self, step: str) -> Iterator[Findings]:
        """What a step finds: replaces what it found before, and writes ``run`` at the end.

        A :class:`~permslip.errors.PermslipError` out of it is «could not check», and passes on.
        """
        found = Findings(self.db, step)
        found.begin()
        try:
            yield found
        except PermslipError as error:
            found.leave_unchecked(str(error))
            found.end()
            raise
        except sqlite3.DatabaseError as error:
            raise MalformedError(
                f"the file is damaged: {error}.", field=str(self.path), remedy="Fetch into a new bundle."
            ) from error
        found.end()


def _prepare(db: sqlite3.Connection) -> None:
    # What somebody else wrote into the file must not call functions from within its views and indexes.
    db.execute("PRAGMA trusted_schema = OFF")
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute("PRAGMA cache_size = -32768")
    db.execute("PRAGMA temp_store = FILE")


def first_signer(signed: st.Signed[Any]) -> bytes:
    """The root in whose name a statement was signed; for a grant its first signer's key."""
    payload = signed.payload
    if signed.kind is st.GRANT:
        return bytes(payload.granted_by[0])
    return bytes(payload.root if signed.kind is st.KEY_CERT else payload.signer.root)

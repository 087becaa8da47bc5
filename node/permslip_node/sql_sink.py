"""The SQL store behind the importers: :class:`permslip_node.importing.sink.RecordSink` on the node's database.

Each call is one transaction. Rows of a call are sorted by (handle, section), so that a batch walks the clustered tables
once, in their own order.

How records become pages: a new record goes to the last page of its section if that page is small (``_SMALL_PAGE``),
else to a new one, which then takes all that the call brings for the section. So a batch that touches a thousand
learners rewrites little, and a slice of 50 records is one page or a few. A new version takes its record's place in its
page; the old one moves to ``record_old``.

Rules:

- The sink sets ``record_id``, ``recorded_at``, ``version`` and ``supersedes``; the stored bytes are the deterministic
  serialization of the record, and ``supersedes`` is SHA-256 of the previous version's.
- «The same» is decided by a digest of the importer's content, so that a repeated import decodes nothing.
- Suspensions, quorum rules and linked keys are the operator's and the families'; no import touches them. The
  day of majority follows from the birth date where a ``majority_age`` is configured and the operator set no day.

Example::

    sink = SqlSink(engine, clock=utc_millis)
    import_edfi([Path("EdFiSampleData.zip")], sink)
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b, sha256
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

from google.protobuf.message import DecodeError
from sqlalchemy import Engine, Table, select

from permslip._pb.permslip.v1 import record_pb2
from permslip.errors import MalformedError
from permslip.hosting.database import writing
from permslip.hosting.rows import RowInsert, statement
from permslip.quantities import HANDLE_BYTES, Handle
from permslip_node import schema
from permslip_node.importing.sink import ImportedGuardian, ImportedName, ImportedRecord, PutCounts
from permslip_node.majority import majority_of
from permslip_node.packing import pack, split

__all__ = ["SqlSink"]

_SMALL_PAGE: Final = 4096
_FULL_PAGE: Final = 32 * 1024
# Longer new versions may let a page grow up to here; a page must fit into one chunk of a slice.
_LARGEST_PAGE: Final = 60_000
_DIGEST_BYTES: Final = 16
_IN_ONE_QUERY: Final = 500
_by_section = attrgetter("handle", "section")


class SqlSink:
    """Stores what importers read; one importer at a time, one thread.

    Args:
        engine: the node's database, migrated.
        clock: UTC milliseconds now.
        majority_age: in years, at which learners decide themselves; None: imports say nothing of it.
    """

    def __init__(self, engine: Engine, *, clock: Callable[[], int], majority_age: int | None = None) -> None:
        self._engine = engine
        self._majority_age = majority_age
        self._clock = clock
        with engine.connect() as connection:
            learners = connection.execute(select(schema.learner.c.native_id, schema.learner.c.handle))
            self._handles: dict[str, Handle] = {native_id: Handle(handle) for native_id, handle in learners}
        self._new: dict[str, Handle] = {}
        dialect = engine.dialect
        self._put_pages = RowInsert(schema.page, dialect, replace=True)
        self._put_index = RowInsert(schema.record_index, dialect, replace=True)
        self._put_old = RowInsert(schema.record_old, dialect)

    def learner(self, native_id: str) -> Handle:
        """See :meth:`RecordSink.learner`. A new handle becomes durable with the next call that stores anything."""
        known = self._handles.get(native_id)
        if known is None:
            known = self._handles[native_id] = self._new[native_id] = Handle(secrets.token_bytes(HANDLE_BYTES))
        return known

    def put_records(self, records: Sequence[ImportedRecord]) -> PutCounts:
        """See :meth:`RecordSink.put_records`."""
        if not records:
            return PutCounts()
        now = self._clock()
        inserted = versioned = 0
        with self._storing() as cursor:
            known = self._known(cursor, records)
            pages: list[tuple[Any, ...]] = []
            index: list[tuple[Any, ...]] = []
            old: list[tuple[Any, ...]] = []
            for (handle, section), group in groupby(sorted(records, key=_by_section), key=_by_section):
                changed = _Section(self._sql, cursor, handle, section, now)
                for record in group:
                    digest = blake2b(record.content, digest_size=_DIGEST_BYTES).digest()
                    before = known.get((handle, section, record.record_id))
                    if before is None:
                        page_no, version = changed.append(record), 1
                        inserted += 1
                    elif before[1] == digest:
                        continue
                    else:
                        version = before[0] + 1
                        page_no, replaced = changed.replace(record, before[2], version)
                        old.append((handle, section, record.record_id, before[0], replaced))
                        versioned += 1
                    row = (handle, section, record.record_id, version, digest, page_no)
                    known[handle, section, record.record_id] = (version, digest, page_no)
                    index.append(row)
                pages.extend(changed.rows())
            self._put_pages.run(cursor, pages)
            self._put_index.run(cursor, _last_of_each(index))
            self._put_old.run(cursor, old)
        return PutCounts(inserted, versioned, len(records) - inserted - versioned)

    def put_persons(self, links: Sequence[ImportedGuardian]) -> PutCounts:
        """See :meth:`RecordSink.put_persons`."""
        counts = [0, 0, 0]
        handles = [self.learner(link.native_learner_id) for link in links]
        with self._storing() as cursor:
            for handle, link in zip(handles, links, strict=True):
                who = self._upsert(
                    cursor,
                    schema.person,
                    {"person_id": link.native_guardian_id},
                    {
                        "display_name": link.display_name,
                        "first_name": link.first_name,
                        "last_name": link.last_name,
                    },
                )
                family = self._upsert(
                    cursor,
                    schema.family,
                    {"handle": handle, "person_id": link.native_guardian_id},
                    {
                        "relation": link.relation,
                        "lives_with": link.lives_with,
                        "primary_contact": link.primary_contact,
                        "emergency_contact": link.emergency_contact,
                        "legal_guardian": link.legal_guardian,
                        "contact_restrictions": link.contact_restrictions,
                        "contact_priority": link.contact_priority,
                    },
                    {"salt": secrets.token_bytes(16)},
                )
                counts[0 if family == 0 else min(who or 1, family)] += 1
        return PutCounts(*counts)

    def put_names(self, names: Sequence[ImportedName]) -> PutCounts:
        """See :meth:`RecordSink.put_names`."""
        counts = [0, 0, 0]
        handles = [self.learner(name.native_learner_id) for name in names]
        with self._storing() as cursor:
            for handle, (_, display_name, birth_date) in zip(handles, names, strict=True):
                if self._majority_age is not None and (at := majority_of(birth_date, self._majority_age)):
                    self._set_majority(cursor, handle, at)
                cursor.execute(self._sql("SELECT display_name FROM learner WHERE handle = ?"), (handle,))
                before = cursor.fetchone()[0]
                if before != display_name:
                    cursor.execute(
                        self._sql("UPDATE learner SET display_name = ? WHERE handle = ?"), (display_name, handle)
                    )
                counts[0 if not before else 1 if before != display_name else 2] += 1
        return PutCounts(*counts)

    def resume_point(self, run: bytes) -> int:
        """See :meth:`RecordSink.resume_point`."""
        with self._engine.connect() as connection:
            row = connection.execute(schema.import_run.select().where(schema.import_run.c.run == run)).one_or_none()
        return 0 if row is None else int(row.position)

    def checkpoint(self, run: bytes, position: int) -> None:
        """See :meth:`RecordSink.checkpoint`."""
        with self._storing() as cursor:
            self._upsert(cursor, schema.import_run, {"run": run}, {"position": position})

    def finish(self, run: bytes) -> None:
        """See :meth:`RecordSink.finish`."""
        with self._storing() as cursor:
            cursor.execute(self._sql("DELETE FROM import_run WHERE run = ?"), (run,))

    def _set_majority(self, cursor: Any, handle: Handle, at: int) -> None:
        """The running node looks when the day comes; at once where authority passed by another day already."""
        cursor.execute(
            self._sql(
                "UPDATE learner SET majority_at = ?, majority_due = CASE WHEN majority_in_force THEN ? ELSE ? END"
                " WHERE handle = ? AND NOT majority_by_hand AND majority_at <> ?"
            ),
            (at, self._clock(), at, handle, at),
        )

    @contextmanager
    def _storing(self) -> Iterator[Any]:
        """One transaction, as a raw cursor; the learners that are new are stored with it."""
        with writing(self._engine) as connection:
            cursor: Any = connection.connection.cursor()
            new, now = dict(self._new), self._clock()
            for native_id, handle in new.items():
                cursor.execute(
                    self._sql("INSERT INTO learner (handle, native_id, created_at) VALUES (?, ?, ?)"),
                    (handle, native_id, now),
                )
            yield cursor
        for native_id in new:
            self._new.pop(native_id, None)

    def _known(
        self, cursor: Any, records: Sequence[ImportedRecord]
    ) -> dict[tuple[bytes, str, bytes], tuple[int, bytes, int]]:
        """Version, digest and page of those of the records that are stored."""
        found: dict[tuple[bytes, str, bytes], tuple[int, bytes, int]] = {}
        keys = sorted((record.handle, record.section, record.record_id) for record in records)
        for some in _portions(keys):
            # A join: SQLite would scan the whole table for «(…) IN (VALUES …)».
            cursor.execute(
                self._sql(
                    "WITH wanted (handle, section, record_id) AS (VALUES …) "
                    "SELECT stored.handle, stored.section, stored.record_id, version, digest, page_no "
                    "FROM wanted JOIN record_index AS stored ON stored.handle = wanted.handle "
                    "AND stored.section = wanted.section AND stored.record_id = wanted.record_id",
                    len(some),
                    "(?, ?, ?)",
                ),
                [value for key in some for value in key],
            )
            for handle, section, record_id, version, digest, page_no in cursor.fetchall():
                found[bytes(handle), section, bytes(record_id)] = version, bytes(digest), page_no
        return found

    def _upsert(
        self,
        cursor: Any,
        table: Table,
        key: dict[str, Any],
        values: dict[str, Any],
        first: dict[str, Any] | None = None,
    ) -> int:
        """Write one row; returns 0: it is new, 1: it was changed, 2: it was the same."""
        where = " AND ".join(f"{name} = ?" for name in key)
        seen = f"SELECT {', '.join(values)} FROM {table.name} WHERE {where}"  # noqa: S608 (names of our own schema)
        cursor.execute(self._sql(seen), list(key.values()))
        row = cursor.fetchone()
        if row is None:
            whole = {**key, **values, **(first or {})}
            names, marks = ", ".join(whole), ", ".join(["?"] * len(whole))
            insert = f"INSERT INTO {table.name} ({names}) VALUES ({marks})"  # noqa: S608 (names of our own schema)
            cursor.execute(self._sql(insert), list(whole.values()))
            return 0
        if tuple(row) == tuple(values.values()):
            return 2
        changes = ", ".join(f"{name} = ?" for name in values)
        update = f"UPDATE {table.name} SET {changes} WHERE {where}"  # noqa: S608 (names of our own schema)
        cursor.execute(self._sql(update), [*values.values(), *key.values()])
        return 1

    def _sql(self, text: str, rows: int = 0, row: str = "?") -> str:
        return statement(self._engine.dialect, text, rows, row)


class _Page:
    """One page while a batch changes it."""

    __slots__ = ("first_on", "last_on", "records", "size", "undated")

    def __init__(self, records: list[bytes], first_on: str, last_on: str, undated: int) -> None:
        self.records = records  # packed
        self.size = sum(map(len, records))
        self.first_on, self.last_on, self.undated = first_on, last_on, undated

    def note(self, day: str) -> None:
        """The page holds a record of this day."""
        if not day:
            self.undated = 1
            return
        self.first_on = min(self.first_on or day, day)
        self.last_on = max(self.last_on, day)


class _Section:
    """One learner's section while a batch changes it: reads the pages that it must, writes those that changed."""

    def __init__(self, sql: Callable[[str], str], cursor: Any, handle: bytes, section: str, now: int) -> None:
        self._sql, self._cursor, self._now = sql, cursor, now
        self._handle, self._section = handle, section
        self._pages: dict[int, _Page] = {}
        self._tail: int | None = None

    def append(self, record: ImportedRecord) -> int:
        """Add a new record; returns its page."""
        return self._append(pack(_finished(record, self._now, 1, b"")), record.observed_on)

    def replace(self, record: ImportedRecord, page_no: int, version: int) -> tuple[int, bytes]:
        """Put a new version in its record's place; returns its page, and the bytes of the old version."""
        page = self._pages.get(page_no) or self._read(page_no)
        number, old = _find(page, record.record_id)
        again = pack(_finished(record, self._now, version, sha256(old).digest()))
        page.size += len(again) - len(page.records[number])
        if page.size > _LARGEST_PAGE and len(page.records) > 1:
            del page.records[number]
            page.size -= len(again)
            return self._append(again, record.observed_on), old
        page.records[number] = again
        page.note(record.observed_on)
        return page_no, old

    def _append(self, packed: bytes, observed_on: str) -> int:
        tail = self._tail if self._tail is not None else self._read_tail()
        page = self._pages.get(tail)
        if page is None or page.size + len(packed) > _FULL_PAGE:
            tail = self._tail = tail + 1
            page = self._pages[tail] = _Page([], "", "", 0)
        page.records.append(packed)
        page.size += len(packed)
        page.note(observed_on)
        return tail

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """The pages that changed, as rows of the table."""
        for page_no, page in self._pages.items():
            yield (
                self._handle,
                self._section,
                page_no,
                page.first_on,
                page.last_on,
                page.undated,
                len(page.records),
                b"".join(page.records),
            )

    def _read_tail(self) -> int:
        self._cursor.execute(
            self._sql(
                "SELECT page_no, length(records) FROM page WHERE handle = ? AND section = ? "
                "ORDER BY page_no DESC LIMIT 1"
            ),
            (self._handle, self._section),
        )
        row = self._cursor.fetchone()
        self._tail = -1 if row is None else int(row[0])
        if row is not None and row[1] < _SMALL_PAGE and self._tail not in self._pages:
            self._read(self._tail)
        return self._tail

    def _read(self, page_no: int) -> _Page:
        self._cursor.execute(
            self._sql(
                "SELECT first_on, last_on, undated, records FROM page WHERE handle = ? AND section = ? AND page_no = ?"
            ),
            (self._handle, self._section, page_no),
        )
        first_on, last_on, undated, records = self._cursor.fetchone()
        page = self._pages[page_no] = _Page([pack(each) for each in split(bytes(records))], first_on, last_on, undated)
        return page


def _find(page: _Page, record_id: bytes) -> tuple[int, bytes]:
    """Where a record stands in its page, and its bytes."""
    for number, packed in enumerate(page.records):
        [record] = split(packed)
        if record_pb2.Record.FromString(record).record_id == record_id:
            return number, record
    raise MalformedError(
        f"record {record_id.hex()} is not in its page.",
        field="page.records",
        remedy="Restore the database from a backup.",
    )


def _finished(record: ImportedRecord, now: int, version: int, supersedes: bytes) -> bytes:
    """The record as it is stored: what only the sink knows is filled in."""
    try:
        whole = record_pb2.Record.FromString(record.content)
    except DecodeError:
        raise MalformedError("expected a serialized Record.", field="content") from None
    whole.record_id = record.record_id
    whole.recorded_at = now
    whole.version = version
    whole.supersedes = supersedes
    return whole.SerializeToString(deterministic=True)


def _last_of_each(index: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Of several rows with one key the last: one statement must not replace a row twice."""
    return list({row[:3]: row for row in index}.values())


def _portions(keys: list[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    for start in range(0, len(keys), _IN_ONE_QUERY):
        yield keys[start : start + _IN_ONE_QUERY]

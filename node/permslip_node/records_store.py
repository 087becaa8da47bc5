"""Reading slices: packed pages in the order in which they are clustered.

Rules:

- A small slice is one statement and no decoding. Pages whose days all lie within the asked ones go out as they are; a
  page that lies across a bound is decoded and filtered; one outside is passed over.
- A record without a day is outside any bound (``Grant.records_from``).
- A slice is read in portions of a bounded size, so that a large one never stands in memory whole. Between two portions
  an import may add pages: they come after those that were there, so a reading meets every record once.
- A :class:`Place` says where a reading stopped; it stays good as long as the record stays in its page, and a new
  version of a record takes the place of the old one.

Example::

    portions, place = store.read(handle, ("transcript.grades",), records_from="2010-08-01")
    writer.add(portions[0].records, portions[0].number)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Engine

from permslip._pb.permslip.v1 import record_pb2
from permslip.hosting.rows import statement as as_statement
from permslip_node.packing import pack, split

__all__ = ["START", "Place", "Portion", "RecordsStore"]

_PORTION_BYTES: Final = 192 * 1024
_PORTION_PAGES: Final = 32
# Only sections at or after the start's are wanted; of the start's own, pages from page_no on.
_PAGES: Final = (
    "SELECT section, page_no, count, first_on, last_on, undated, records FROM page "
    "WHERE handle = ? AND section IN (…) AND (section > ? OR page_no >= ?) ORDER BY section, page_no LIMIT 32"
)


class Place(NamedTuple):
    """Where a reading goes on: after ``offset`` records of that page."""

    section: str
    page_no: int
    offset: int


START: Final = Place("", 0, 0)


class Portion(NamedTuple):
    """Whole records of one section, packed, and where reading goes on after them."""

    section: str
    records: bytes
    number: int
    after: Place


class RecordsStore:
    """Reads pages; belongs to one thread.

    Args:
        engine: the node's database.
    """

    def __init__(self, engine: Engine) -> None:
        self._raw = engine.raw_connection()
        driver: Any = self._raw.driver_connection
        if engine.dialect.name == "postgresql":
            driver.autocommit = True
        self._cursor: Any = self._raw.cursor()
        self._dialect = engine.dialect
        self._statements: dict[int, str] = {}

    def close(self) -> None:
        """Give the connection back."""
        self._raw.close()

    def read(
        self,
        handle: bytes,
        sections: Sequence[str],
        *,
        records_from: str = "",
        records_until: str = "",
        start: Place = START,
        most_records: int = 0,
        most_bytes: int = _PORTION_BYTES,
    ) -> tuple[list[Portion], Place | None]:
        """Read on from a place.

        Args:
            handle: whose records.
            sections: leaf sections, ascending.
            records_from, records_until: days, YYYY-MM-DD, inclusive; empty is unbounded.
            start: where an earlier reading stopped.
            most_records: stop after so many; 0 is no limit.
            most_bytes: stop once so many bytes are read (a page more at most).

        Returns:
            the portions, and where the next reading goes on; None when everything was read.
        """
        rows = self._pages(handle, sections, start)
        portions: list[Portion] = []
        size = records = 0
        bounded = bool(records_from or records_until)
        for section, page_no, count, first_on, last_on, undated, blob in rows:
            offset = start.offset if (section, page_no) == start[:2] else 0
            if offset >= count:
                continue
            room = most_records - records if most_records else count
            where = (section, page_no, count, bytes(blob), offset, room)
            if not bounded or _within(first_on, last_on, undated, records_from, records_until):
                portion = _portion(*where)
            elif _outside(first_on, last_on, records_from, records_until):
                continue
            else:
                portion = _filtered(*where, records_from, records_until)
            if portion.number:
                portions.append(portion)
                records += portion.number
                size += len(portion.records)
            if size >= most_bytes or (most_records and records >= most_records):
                return portions, portion.after
        if len(rows) == _PORTION_PAGES:
            section, page_no, count = rows[-1][:3]
            return portions, Place(section, page_no, count)
        return portions, None

    def is_more(self, handle: bytes, sections: Sequence[str], bounds: tuple[str, str], place: Place) -> bool:
        """Whether a reading that goes on at ``place`` would find another record."""
        more: Place | None = place
        while more is not None:
            found, more = self.read(
                handle, sections, records_from=bounds[0], records_until=bounds[1], start=more, most_records=1
            )
            if found:
                return True
        return False

    def _pages(self, handle: bytes, sections: Sequence[str], start: Place) -> list[Any]:
        wanted = [each for each in sections if each >= start.section]
        if not wanted:
            return []
        statement = self._statements.get(len(wanted))
        if statement is None:
            statement = self._statements[len(wanted)] = as_statement(self._dialect, _PAGES, len(wanted))
        self._cursor.execute(statement, (handle, *wanted, start.section, start.page_no))
        found: list[Any] = self._cursor.fetchall()
        return found


def _portion(section: str, page_no: int, count: int, blob: bytes, offset: int, room: int) -> Portion:
    """The page's records from ``offset`` on, at most ``room``."""
    taken = min(count - offset, room)
    after = Place(section, page_no, offset + taken)
    if taken == count:
        return Portion(section, blob, count, after)
    return Portion(section, b"".join(map(pack, split(blob)[offset : offset + taken])), taken, after)


def _within(first_on: str, last_on: str, undated: int, records_from: str, records_until: str) -> bool:
    """Whether every record of a page lies within the days."""
    return not undated and first_on >= records_from and (not records_until or last_on <= records_until)


def _outside(first_on: str, last_on: str, records_from: str, records_until: str) -> bool:
    """Whether no record of a page lies within the days."""
    return not last_on or last_on < records_from or (bool(records_until) and first_on > records_until)


def _filtered(
    section: str, page_no: int, count: int, blob: bytes, offset: int, room: int, records_from: str, records_until: str
) -> Portion:
    """The page's records from ``offset`` on that lie within the days, at most ``room``."""
    kept: list[bytes] = []
    at = offset
    for record in split(blob)[offset:count]:
        day = record_pb2.Record.FromString(record).observed_on
        at += 1
        if day and records_from <= day and (not records_until or day <= records_until):
            kept.append(pack(record))
            if len(kept) == room:
                break
    return Portion(section, b"".join(kept), len(kept), Place(section, page_no, at))

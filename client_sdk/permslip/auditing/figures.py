"""What a report counts in a bundle: aggregates made by SQLite, rows for people at most a few.

Rules:

- The database counts and sorts; nothing here grows with the bundle. Where rows are cut, the number of all is told.
- An access counts once. The broker's word comes first; a school that refused what the broker had routed refused it.
  What only a school's ledger shows (the broker's entry is outside the scope, or missing) counts as well.
- Times in a ledger are its keeper's word: the oldest and the newest may be absurd, and are shown as they are.

Example::

    figures = Figures(bundle.db)
    for row in figures.by_provider(limit=20).rows:
        print(row.label, row.values)
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from permslip.auditing.charts import Bar

__all__ = ["Figures", "Ranked", "Series", "Totals", "time_text"]

_SECOND: Final = 1_000
_HOUR: Final = 3_600 * _SECOND
_DAY: Final = 24 * _HOUR
_MAX_COLUMNS: Final = 40
_UNITS: Final = (
    (365 * _DAY, "year"),
    (7 * _DAY, "week"),
    (_DAY, "day"),
    (_HOUR, "hour"),
    (60 * _SECOND, "minute"),
    (_SECOND, "second"),
)
# Widths of a column of time, and how its beginning is written.
_WIDTHS: Final = (
    *((seconds * _SECOND, "%H:%M:%S") for seconds in (1, 5, 15, 30)),
    *((minutes * 60 * _SECOND, "%H:%M") for minutes in (1, 5, 15, 30)),
    *((hours * _HOUR, "%d %b %H:%M") for hours in (1, 3, 6, 12)),
    *((days * _DAY, "%d %b %Y") for days in (1, 7, 28, 91, 365)),
)
_REVOCATION: Final = "application/vnd.permslip.revocation.v1+protobuf"
_GRANT: Final = "application/vnd.permslip.grant.v1+protobuf"

# One row an access. Temporary tables are SQLite's own files: they leave memory and bundle as they are.
_ACCESSES: Final = """
CREATE TEMP TABLE IF NOT EXISTS report_access AS
SELECT e.decided_at AS at, e.requester, e.purpose, e.node, e.handle, e.ledger,
    CASE WHEN e.reason = 'ALLOWED' THEN (
        SELECT n.reason FROM entry n
        WHERE n.query_id = e.query_id AND n.ledger <> e.ledger AND n.event = 'access_decided' AND n.reason <> 'ALLOWED'
        LIMIT 1) ELSE e.reason END AS refusal,
    e.reason = 'ALLOWED' AS routed
FROM entry e
WHERE e.event = 'access_decided' AND (e.ledger = 1 OR NOT EXISTS (
    SELECT 1 FROM entry b WHERE b.query_id = e.query_id AND b.ledger = 1 AND b.event = 'access_decided'))
"""

# A grant's last use is the last access that neither broker nor school refused.
_REVOCATIONS: Final = """
CREATE TEMP TABLE IF NOT EXISTS report_revocation AS
SELECT revoked_at, (
    SELECT max(u.decided_at) FROM entry u
    WHERE u.grant_id = revoked AND u.event = 'access_decided' AND u.reason = 'ALLOWED' AND NOT EXISTS (
        SELECT 1 FROM entry n WHERE n.query_id = u.query_id AND n.event = 'access_decided' AND n.reason <> 'ALLOWED')
    ) AS used_at
FROM (SELECT r.subject AS revoked, min(r.recorded_at) AS revoked_at FROM entry r
    WHERE r.event = 'statement_recorded' AND r.payload_type = :revocation AND EXISTS (
        SELECT 1 FROM entry g WHERE g.statement_id = r.subject AND g.event = 'statement_recorded'
            AND g.payload_type = :grant)
    GROUP BY r.subject)
"""

# Milliseconds before the revocation, from … on; None: it was never used.
_IDLE: Final[tuple[tuple[str, int, int], ...]] = (
    ("used within the hour before", 0, _HOUR),
    ("1 to 24 hours before", _HOUR, _DAY),
    ("1 to 7 days before", _DAY, 7 * _DAY),
    ("7 to 30 days before", 7 * _DAY, 30 * _DAY),
    ("more than 30 days before", 30 * _DAY, 1 << 62),
)


@dataclass(frozen=True, slots=True)
class Totals:
    """Accesses of the whole bundle."""

    accesses: int
    answered: int
    refused_by_broker: int
    refused_by_schools: int
    cut_short: int
    providers: int
    slices: int
    schools: int
    turned_away: int
    first_at: int | None
    last_at: int | None


@dataclass(frozen=True, slots=True)
class Ranked:
    """The first rows of a longer list.

    Args:
        rows: those shown.
        total: how many there are.
    """

    rows: tuple[Bar, ...]
    total: int


@dataclass(frozen=True, slots=True)
class Series:
    """Numbers along time.

    Args:
        rows: one for each column, without holes.
        each: how long a column lasts, in words.
    """

    rows: tuple[Bar, ...]
    each: str


class Figures:
    """Counts what a report shows.

    Args:
        db: the bundle's connection; gets temporary tables, and no other change.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        db.execute(_ACCESSES)
        db.execute(_REVOCATIONS, {"revocation": _REVOCATION, "grant": _GRANT})

    def close(self) -> None:
        """Drop the temporary tables."""
        self._db.execute("DROP TABLE IF EXISTS report_access")
        self._db.execute("DROP TABLE IF EXISTS report_revocation")

    def totals(self) -> Totals:
        """The counts of the whole."""
        accesses, answered, broker, first, last = self._row(
            "SELECT count(*), coalesce(sum(refusal IS NULL), 0), coalesce(sum(NOT routed), 0), min(at), max(at)"
            " FROM report_access"
        )
        (cut,) = self._row(
            "SELECT count(*) FROM entry a WHERE ledger = 1 AND event = 'access_answered' AND reason <> 'ALLOWED'"
            " AND NOT EXISTS (SELECT 1 FROM entry n WHERE n.query_id = a.query_id AND n.event = 'access_decided'"
            " AND n.reason <> 'ALLOWED')"
        )
        (turned,) = self._row("SELECT count(*) FROM entry WHERE event = 'request_refused'")
        return Totals(
            accesses=accesses,
            answered=answered,
            refused_by_broker=broker,
            refused_by_schools=accesses - answered - broker,
            cut_short=cut,
            providers=self._distinct("requester"),
            slices=self._distinct("node, handle", "handle IS NOT NULL"),
            schools=self._distinct("node", "node IS NOT NULL"),
            turned_away=turned,
            first_at=first,
            last_at=last,
        )

    def over_time(self) -> Series:
        """Accesses along time: answered or passed on, and refused."""
        first, last = self._row("SELECT min(at), max(at) FROM report_access")
        if first is None:
            return Series((), "")
        width, written = _width(last - first)
        start = first // width * width
        counted = {
            number: (allowed, refused)
            for number, allowed, refused in self._db.execute(
                "SELECT (at - :start) / :width, sum(refusal IS NULL), sum(refusal IS NOT NULL) FROM report_access"
                " WHERE at IS NOT NULL GROUP BY 1 ORDER BY 1",
                {"start": start, "width": width},
            )
        }
        rows = (
            Bar(time_text(start + number * width, written), counted.get(number, (0, 0)))
            for number in range(max(counted) + 1)
        )
        return Series(tuple(rows), _lasting(width))

    def by_provider(self, *, limit: int) -> Ranked:
        """Accesses of each requester: allowed, refused."""
        name = "(SELECT name FROM organization o WHERE o.root = requester)"
        return self._ranked(
            "requester", f"coalesce({name}, 'a person, key ' || lower(hex(substr(requester, 1, 6))))", limit
        )

    def by_purpose(self, *, limit: int) -> Ranked:
        """Accesses for each purpose: allowed, refused."""
        return self._ranked("purpose", "coalesce(purpose, '')", limit)

    def by_school(self, *, limit: int) -> Ranked:
        """Learners of each school whose slices were asked for."""
        rows = self._db.execute(
            "SELECT coalesce((SELECT name FROM organization o WHERE o.root = node), lower(hex(substr(node, 1, 6)))),"
            " count(DISTINCT handle) AS learners FROM report_access WHERE handle IS NOT NULL"
            " GROUP BY node ORDER BY learners DESC, 1 LIMIT ?",
            (limit,),
        )
        return Ranked(
            tuple(Bar(name, (learners,)) for name, learners in rows), self._distinct("node", "handle IS NOT NULL")
        )

    def refusals(self, *, limit: int) -> Ranked:
        """Refusals by reason, the labels being the reasons' names: accesses, requests before any decision."""
        both = (
            "SELECT refusal AS reason, 1 AS access FROM report_access WHERE refusal IS NOT NULL"
            " UNION ALL SELECT reason, 0 FROM entry WHERE event = 'request_refused'"
        )
        rows = self._db.execute(
            f"SELECT coalesce(reason, ''), sum(access), sum(1 - access) FROM ({both})"  # noqa: S608 - both is a constant
            " GROUP BY reason ORDER BY count(*) DESC, 1 LIMIT ?",
            (limit,),
        )
        (total,) = self._row(f"SELECT count(DISTINCT reason) FROM ({both})")  # noqa: S608 - as above
        return Ranked(tuple(Bar(reason, (accesses, requests)) for reason, accesses, requests in rows), total)

    def revocations(self) -> tuple[tuple[Bar, ...], int]:
        """How long before a grant's revocation its last use was; and the longest use after one, in milliseconds."""
        rows = [
            Bar(label, (self._row(
                "SELECT count(*) FROM report_revocation WHERE revoked_at - used_at >= ? AND revoked_at - used_at < ?",
                (least, beyond),
            )[0],))
            for label, least, beyond in _IDLE
        ]  # fmt: skip
        never, after, longest = self._row(
            "SELECT coalesce(sum(used_at IS NULL), 0), coalesce(sum(used_at > revoked_at), 0),"
            " coalesce(max(used_at - revoked_at), 0) FROM report_revocation"
        )
        return (Bar("used after it", (after,)), *rows, Bar("never used", (never,))), max(longest, 0)

    def _ranked(self, column: str, label: str, limit: int) -> Ranked:
        rows = self._db.execute(
            f"SELECT {label}, sum(refusal IS NULL), sum(refusal IS NOT NULL) FROM report_access"  # noqa: S608 - constants
            f" GROUP BY {column} ORDER BY count(*) DESC, 1 LIMIT ?",
            (limit,),
        )
        return Ranked(tuple(Bar(name, (allowed, refused)) for name, allowed, refused in rows), self._distinct(column))

    def _distinct(self, columns: str, where: str = "1") -> int:
        (count,) = self._row(
            f"SELECT count(*) FROM (SELECT 1 FROM report_access WHERE {where} GROUP BY {columns})"  # noqa: S608 - constants
        )
        return int(count)

    def _row(self, query: str, values: Sequence[int] = ()) -> tuple[Any, ...]:
        row: tuple[Any, ...] = self._db.execute(query, values).fetchone()
        return row


def time_text(millis: int | None, written: str = "%d %b %Y %H:%M") -> str:
    """A time for people, UTC; what no calendar holds is given as the number that it is."""
    if millis is None:
        return "unknown"
    try:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=millis)).strftime(written)
    except OverflowError:
        return f"{millis} ms"


def _width(span: int) -> tuple[int, str]:
    """The narrowest columns that are not too many, and how their beginnings are written."""
    for width, written in _WIDTHS:
        if span // width < _MAX_COLUMNS:
            return width, written
    years = span // (_MAX_COLUMNS * 365 * _DAY) + 1
    return years * 365 * _DAY, "%Y"


def _lasting(width: int) -> str:
    unit, called = next((unit, called) for unit, called in _UNITS if width % unit == 0)
    count = width // unit
    return f"one {called}" if count == 1 else f"{count} {called}s"

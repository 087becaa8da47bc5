"""The tables and views of an audit bundle; ``docs/auditing.md`` explains them to those who open one.

Rules:

- Ids, keys and hashes are BLOBs; the views show them as lower-case hexadecimal, and times as UTC.
- Times are UTC milliseconds since 1970, but for the POSIX seconds in a checkpoint's cosignatures.
- Reasons, actions and purposes are the names of the wire contract, without their prefix.
- ``ledger`` 1 is the broker's.
- Two checkpoints of one size and visit with two roots are both kept: they are the proof of a fork.
- Tables are strict, so that a column holds what it says; a file that another one made is opened only if its tables,
  indexes and views are these, and nothing acts by itself in it (:func:`check_schema`).
- ``arrived`` holds what was pulled and not examined yet; it is empty after a fetch that was not interrupted.
- What was added to a format that others read is a new format: ``permslip-audit-bundle/2``.
"""

from __future__ import annotations

import re
import sqlite3
from typing import Final

from permslip.errors import MalformedError

__all__ = ["FORMAT", "TABLES", "VIEWS", "check_schema"]

FORMAT: Final = "permslip-audit-bundle/1"

TABLES: Final = """
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE ledger (
    ledger INTEGER PRIMARY KEY,
    root BLOB NOT NULL UNIQUE,
    did TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('broker', 'node')),
    name TEXT NOT NULL,
    origin TEXT NOT NULL,
    fetched INTEGER NOT NULL DEFAULT 0,
    frontier BLOB NOT NULL DEFAULT x'',
    head_size INTEGER,
    head_root BLOB,
    pulled INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE arrived (
    arrived INTEGER PRIMARY KEY,
    ledger INTEGER NOT NULL REFERENCES ledger (ledger),
    message BLOB NOT NULL
) STRICT;
CREATE TABLE checkpoint (
    ledger INTEGER NOT NULL REFERENCES ledger (ledger),
    size INTEGER NOT NULL,
    root BLOB NOT NULL,
    note BLOB NOT NULL,
    vkey TEXT NOT NULL,
    cosigners TEXT NOT NULL DEFAULT '[]',
    visit INTEGER NOT NULL,
    fetched_at INTEGER NOT NULL,
    PRIMARY KEY (ledger, size, visit, root)
) STRICT, WITHOUT ROWID;
CREATE TABLE entry (
    ledger INTEGER NOT NULL,
    position INTEGER NOT NULL,
    leaf_hash BLOB NOT NULL,
    leaf BLOB,
    event TEXT,
    recorded_at INTEGER,
    node BLOB,
    handle BLOB,
    slice_seq INTEGER,
    slice_prev BLOB,
    query_id BLOB,
    requester BLOB,
    grant_id BLOB,
    action TEXT,
    purpose TEXT,
    reason TEXT,
    decided_at INTEGER,
    facts_position INTEGER,
    routed_position INTEGER,
    statement_id BLOB,
    subject BLOB,
    payload_type TEXT,
    sealed_bytes INTEGER,
    manifest_sha256 BLOB,
    PRIMARY KEY (ledger, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX entry_query ON entry (query_id) WHERE query_id IS NOT NULL;
CREATE INDEX entry_grant ON entry (grant_id) WHERE grant_id IS NOT NULL;
CREATE INDEX entry_statement ON entry (statement_id) WHERE statement_id IS NOT NULL;
CREATE INDEX entry_manifest ON entry (manifest_sha256) WHERE manifest_sha256 IS NOT NULL;
CREATE INDEX entry_hidden ON entry (leaf_hash) WHERE leaf IS NULL;
CREATE INDEX entry_slice ON entry (node, handle) WHERE node IS NOT NULL;
CREATE TABLE statement (
    id BLOB PRIMARY KEY,
    kind TEXT NOT NULL,
    envelope BLOB NOT NULL,
    envelope_sha256 BLOB NOT NULL,
    signer BLOB NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX statement_envelope ON statement (envelope_sha256);
CREATE TABLE erased (
    statement_id BLOB NOT NULL,
    ledger INTEGER NOT NULL,
    position INTEGER NOT NULL,
    erased_at INTEGER NOT NULL,
    rule TEXT NOT NULL,
    PRIMARY KEY (statement_id, ledger)
) STRICT, WITHOUT ROWID;
CREATE TABLE organization (
    root BLOB PRIMARY KEY,
    did TEXT NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE finding (
    finding INTEGER PRIMARY KEY,
    step TEXT NOT NULL,
    code TEXT NOT NULL,
    severity TEXT NOT NULL CHECK (severity IN ('fault', 'warning', 'note')),
    ledger INTEGER,
    position INTEGER,
    message TEXT NOT NULL,
    details TEXT NOT NULL DEFAULT '{}'
) STRICT;
CREATE INDEX finding_step ON finding (step, code);
CREATE TABLE run (
    step TEXT PRIMARY KEY,
    started_at INTEGER NOT NULL,
    finished_at INTEGER NOT NULL,
    result TEXT NOT NULL CHECK (result IN ('clean', 'findings', 'unchecked')),
    counts TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""


_NAME: Final = re.compile(r"CREATE (?:TABLE|INDEX) (\w+)")

# `utc(…)` stands for what shows milliseconds as a time.
_UTC: Final = re.compile(r"utc\(((?:min|max)\([a-z_.]+\)|[a-z_.]+)\)")
_SHOWN: Final = r"strftime('%Y-%m-%dT%H:%M:%fZ', \1 / 1000.0, 'unixepoch')"

_VIEWS: Final = {
    "accesses": """
        SELECT d.ledger, d.position, l.kind AS decided_by, l.name AS ledger_name,
            utc(d.recorded_at) AS recorded_at, utc(d.decided_at) AS decided_at,
            lower(hex(d.query_id)) AS query_id,
            coalesce(o.name, 'key ' || lower(hex(d.requester))) AS requester_name, lower(hex(d.requester)) AS requester,
            n.name AS node_name, lower(hex(d.node)) AS node, lower(hex(d.handle)) AS handle, d.slice_seq,
            lower(hex(d.grant_id)) AS grant_id, d.action, d.purpose, d.reason,
            a.reason AS ended, a.sealed_bytes, lower(hex(a.manifest_sha256)) AS manifest_sha256
        FROM entry d
        JOIN ledger l ON l.ledger = d.ledger
        LEFT JOIN organization o ON o.root = d.requester
        LEFT JOIN organization n ON n.root = d.node
        LEFT JOIN entry a ON a.query_id = d.query_id AND a.ledger = d.ledger AND a.event = 'access_answered'
        WHERE d.event = 'access_decided'
    """,
    "accesses_by_provider": """
        SELECT coalesce(o.name, 'key ' || lower(hex(e.requester))) AS requester_name,
            lower(hex(e.requester)) AS requester,
            count(*) AS accesses, sum(e.reason = 'ALLOWED') AS allowed, sum(e.reason <> 'ALLOWED') AS refused,
            count(DISTINCT hex(e.node) || hex(e.handle)) AS slices,
            utc(min(e.decided_at)) AS first_at, utc(max(e.decided_at)) AS last_at
        FROM entry e LEFT JOIN organization o ON o.root = e.requester
        WHERE e.ledger = 1 AND e.event = 'access_decided'
        GROUP BY e.requester ORDER BY accesses DESC
    """,
    "accesses_by_handle": """
        SELECT o.name AS node_name, lower(hex(e.node)) AS node, lower(hex(e.handle)) AS handle,
            count(*) AS accesses, sum(e.reason = 'ALLOWED') AS allowed, sum(e.reason <> 'ALLOWED') AS refused,
            count(DISTINCT e.requester) AS requesters,
            utc(min(e.decided_at)) AS first_at, utc(max(e.decided_at)) AS last_at
        FROM entry e LEFT JOIN organization o ON o.root = e.node
        WHERE e.ledger = 1 AND e.event = 'access_decided' AND e.handle IS NOT NULL
        GROUP BY e.node, e.handle ORDER BY accesses DESC
    """,
    "accesses_by_purpose": """
        SELECT coalesce(e.purpose, '') AS purpose, count(*) AS accesses,
            sum(e.reason = 'ALLOWED') AS allowed, sum(e.reason <> 'ALLOWED') AS refused,
            count(DISTINCT e.requester) AS requesters,
            utc(min(e.decided_at)) AS first_at, utc(max(e.decided_at)) AS last_at
        FROM entry e
        WHERE e.ledger = 1 AND e.event = 'access_decided'
        GROUP BY coalesce(e.purpose, '') ORDER BY accesses DESC
    """,
    "refusals_by_reason": """
        SELECT l.name AS ledger_name, l.kind AS decided_by, e.event, e.reason, count(*) AS refusals,
            utc(min(e.recorded_at)) AS first_at, utc(max(e.recorded_at)) AS last_at
        FROM entry e JOIN ledger l ON l.ledger = e.ledger
        WHERE e.event IN ('access_decided', 'request_refused') AND e.reason <> 'ALLOWED'
        GROUP BY e.ledger, e.event, e.reason ORDER BY refusals DESC
    """,
    "revocation_to_last_use": """
        SELECT l.name AS ledger_name, l.kind AS kept_by, r.ledger, r.position AS revoked_position,
            lower(hex(r.subject)) AS grant_id, utc(r.recorded_at) AS revoked_at,
            u.position AS last_use_position, utc(u.decided_at) AS last_use_at,
            u.decided_at - r.recorded_at AS last_use_after_revocation_ms
        FROM entry r JOIN ledger l ON l.ledger = r.ledger
        LEFT JOIN entry u ON u.ledger = r.ledger AND u.position = (
            SELECT max(x.position) FROM entry x
            WHERE x.grant_id = r.subject AND x.ledger = r.ledger AND x.event = 'access_decided'
                AND x.reason = 'ALLOWED')
        WHERE r.event = 'statement_recorded'
            AND r.payload_type = 'application/vnd.permslip.revocation.v1+protobuf'
    """,
}

VIEWS: Final[dict[str, str]] = {name: _UTC.sub(_SHOWN, query) for name, query in _VIEWS.items()}
"""By name. Figures are of the broker's ledger, through which every access goes, so that nothing counts twice."""

_OBJECTS: Final = "SELECT type, name, tbl_name, sql FROM sqlite_schema"
_OTHERS_MAY_ADD: Final = ("table", "view")


def check_schema(db: sqlite3.Connection) -> None:
    """Check that a file's tables and views are those of a bundle: one that somebody else made may hold a view in the
    place of a table, which shows each check another history, or a trigger that takes findings away again.

    Tables and views that other tools added beside them stay.

    Raises:
        MalformedError: names the first that differs.
    """
    with_names = {name: _words(statement) for statement in TABLES.split(";") for name in _NAME.findall(statement)}
    expected = with_names | {name: _words(f"CREATE VIEW {name} AS {query}") for name, query in VIEWS.items()}
    for kind, name, table, sql in db.execute(_OBJECTS).fetchall():
        if sql is None and kind == "index":
            continue  # of a primary key
        if name in expected:
            if _words(str(sql)) != expected.pop(name):
                raise _differs(f"the {kind} {name} is not the one of a bundle")
        elif kind not in _OTHERS_MAY_ADD and (kind == "trigger" or table in with_names):
            raise _differs(f"there is a {kind} {name}")
    if expected:
        raise _differs(f"there is no {min(expected)}")


def _words(sql: str) -> list[str]:
    """A statement without what tools write differently: blanks, and quotes around its name."""
    words = sql.split()
    return [*(each.strip('"[]`') for each in words[:3]), *words[3:]]


def _differs(what: str) -> MalformedError:
    return MalformedError(f"{what}.", field="schema", remedy="Fetch into a new bundle; trust no file of others.")

"""Answers against what allowed them: manifests, revocations that were acknowledged, uses.

Rules:

- A manifest is the node's own word about one answer: it names the query, its grant, the decision's sections with their
  verdicts, and the decision's number in the chain of its slice.
- After a node acknowledged a revocation nothing more of an answer leaves. The entry of an answer that had left before
  may stand behind the acknowledgement, by the moment that ends take to be written.
- Uses are counted here by what left, on either side: a query of which bytes left, and which continues no other, is one
  use. (What the node counted is checked by replay.) Pages and resumptions belong to the first query's use.
- Answers under a revoked *delegation* are left to replay, which decides each query again.

Example::

    check_answers(books, found)
"""

from __future__ import annotations

from typing import Final

from google.protobuf.message import DecodeError

from permslip import statements as st
from permslip._pb.permslip.v1 import ledger_pb2, statement_pb2 as pb
from permslip.auditing.codes import Code
from permslip.auditing.finding import Findings
from permslip.auditing.reconcile_books import Books, payload_of

__all__ = ["check_answers"]

# The lease's life: the time after which a node that is cut off answers nobody.
_LEASE: Final = 5_000

_MANIFESTS: Final = """
    SELECT a.ledger, a.position, s.envelope, e.leaf
    FROM answered a
    JOIN statement s ON s.envelope_sha256 = a.manifest_sha256
    JOIN decided d ON d.query_id = a.query_id AND d.ledger = a.ledger AND d.reason = 'ALLOWED'
    JOIN entry e ON e.ledger = d.ledger AND e.position = d.position
    WHERE a.ledger <> 1 AND e.leaf IS NOT NULL
"""
_AFTER_REVOCATION: Final = """
    SELECT x.ledger, x.position, x.query_id, k.target, r.position, a.position, x.recorded_at - a.recorded_at
    FROM recorded a
    JOIN acknowledged k ON k.id = a.statement_id
    JOIN recorded r ON r.ledger = a.ledger AND r.statement_id = k.revocation
    JOIN decided d ON d.grant_id = k.target AND d.ledger = a.ledger AND d.reason = 'ALLOWED'
    JOIN answered x ON x.query_id = d.query_id AND x.ledger = d.ledger
    WHERE a.kind = 'acknowledgement' AND x.reason = 'ALLOWED' AND x.sealed_bytes > 0 AND x.position > a.position
        AND (d.position > r.position OR x.recorded_at > a.recorded_at + ?)
"""
_LIMITED_QUERIES: Final = """
    SELECT DISTINCT d.query_id, s.envelope
    FROM limited l JOIN decided d ON d.grant_id = l.grant_id AND d.reason = 'ALLOWED'
    JOIN statement s ON s.id = d.query_id
"""
_OVER_LIMIT: Final = """
    SELECT x.ledger, max(x.position), l.grant_id, l.max_uses, count(DISTINCT x.query_id)
    FROM limited l
    JOIN decided d ON d.grant_id = l.grant_id AND d.reason = 'ALLOWED'
    JOIN answered x ON x.query_id = d.query_id AND x.ledger = d.ledger
    WHERE x.sealed_bytes > 0 AND x.query_id NOT IN (SELECT query_id FROM continued)
    GROUP BY x.ledger, l.grant_id HAVING count(DISTINCT x.query_id) > l.max_uses
"""


def check_answers(books: Books, found: Findings) -> None:
    """Compare answers with what allowed them.

    Args:
        books: the ledgers side by side.
        found: takes what differs.
    """
    _check_manifests(books, found)
    for ledger, position, query_id, grant_id, revoked, acknowledged, late in books.each(_AFTER_REVOCATION, _LEASE):
        found.add(
            Code.ANSWERED_AFTER_REVOCATION,
            f"a whole answer is recorded {late} ms after the revocation at {revoked} was acknowledged at "
            f"{acknowledged}.",
            ledger=ledger,
            position=position,
            query=query_id,
            grant=grant_id,
        )
    _check_uses(books, found)


def _check_manifests(books: Books, found: Findings) -> None:
    for ledger, position, envelope, leaf in books.each(_MANIFESTS):
        found.count("manifests")
        manifest = payload_of(st.MANIFEST, envelope)
        try:
            entry = ledger_pb2.LogEntry.FromString(leaf)
        except DecodeError:
            continue
        node = books.nodes.get(ledger)
        if manifest is None or node is None:
            continue
        if wrong := _difference(manifest, entry, node.root):
            found.add(
                Code.MANIFEST_DIFFERS,
                f"the manifest's {wrong} is not that of the decision it answers.",
                ledger=ledger,
                position=position,
                query=entry.access_decided.query_id,
                field=wrong,
            )


def _difference(manifest: pb.Manifest, entry: ledger_pb2.LogEntry, node: bytes) -> str:
    decided = entry.access_decided
    told = [(each.section, each.reason) for each in manifest.coverage]
    returned = sum(each.returned for each in manifest.coverage)
    given = sum(each.returned for each in manifest.coverage if each.reason == pb.REASON_ALLOWED)
    checks = (
        ("signer", manifest.signer.root == node),
        ("query_id", manifest.query_id == decided.query_id),
        ("grant_id", manifest.grant_id == decided.grant_id),
        ("coverage", told == [(each.section, each.reason) for each in decided.sections]),
        ("records", returned == given == manifest.records),
        ("slice_seq", manifest.slice_seq == entry.slice_seq),
    )
    return next((name for name, holds in checks if not holds), "")


def _check_uses(books: Books, found: Findings) -> None:
    db = books.db
    db.execute("DROP TABLE IF EXISTS temp.continued")
    db.execute("CREATE TEMP TABLE continued (query_id BLOB PRIMARY KEY) WITHOUT ROWID")
    continuing = (
        (query_id,)
        for query_id, envelope in books.each(_LIMITED_QUERIES)
        if (query := payload_of(st.QUERY, envelope)) is not None and query.continues
    )
    with books.transaction():
        db.executemany("INSERT INTO continued VALUES (?)", continuing)
    for ledger, position, grant_id, limit, uses in books.each(_OVER_LIMIT):
        found.add(
            Code.USES_OVER_LIMIT,
            f"{uses} queries were answered under a consent that allows {limit} uses.",
            ledger=ledger,
            position=position,
            grant=grant_id,
            uses=uses,
            max_uses=limit,
        )

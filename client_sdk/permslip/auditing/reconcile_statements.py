"""Statements on their way: what the broker must push against what nodes hold, what nodes said against what they logged.

Rules:

- Each node must hold what the broker's ledger says was pushed to it, under the number that the broker gives it. What is
  missing was kept back, once the node holds a later push, served a query that was routed more than a lease's life
  later, or gave the auditor its ledger more than that later. Before that it is unknown: the node may be offline.
- A revocation by a guardian whom the node had removed meanwhile counts there without effect and without an entry; the
  node's newer endorsement, which does not name her, shows that.
- A node's word (an approval, an acknowledgement) stands in its own ledger before anybody hears of it. A refusal need
  not: a node writes none about handles that it never gave.
- *Quorum.* Ledgers hold no family: how many guardians a child has only the node knows. What they show is who may revoke
  (hashed keys: everyone whom the node takes for a guardian), and who signed. Every signer must be among those who may
  revoke; and where the rule is «all», the first approval must name no one else. Later approvals may: a guardian who got
  a new key did not sign with it.

Example::

    check_statements(books, found)
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.message import DecodeError

from permslip import statements as st
from permslip._pb.permslip.v1 import ledger_pb2, statement_pb2 as pb
from permslip.auditing.bundle import BROKER
from permslip.auditing.codes import Code
from permslip.auditing.finding import Findings
from permslip.auditing.reconcile_books import Books, Horizon, payload_of
from permslip.decision import MAX_CLOCK_SKEW
from permslip.grants import revoker_hash

__all__ = ["check_statements"]

_LEASE: Final = 5_000
# A node's ledger is fetched before the broker's: what the broker recorded no longer ago than this, by the auditor's
# clock, the node may have said after it was asked.
_BEHIND: Final = 5_000

_TWICE: Final = """
    SELECT ledger, max(position), statement_id, kind, min(position)
    FROM recorded GROUP BY ledger, statement_id HAVING count(*) > 1
"""
# Up to which push each node got, and when the last query was routed that it allowed.
_REACHED: Final = """
    SELECT l.ledger,
        coalesce((SELECT max(push_number) FROM recorded WHERE recorded.ledger = l.ledger), 0),
        coalesce((SELECT max(b.recorded_at) FROM decided n
            JOIN decided b ON b.ledger = 1 AND b.query_id = n.query_id AND b.reason = 'ALLOWED'
            WHERE n.ledger = l.ledger AND n.reason = 'ALLOWED'), 0)
    FROM ledger l WHERE l.ledger <> 1
"""
_UNHELD: Final = """
    SELECT p.ledger, p.number, p.statement_id, p.kind, p.position, p.recorded_at
    FROM push p LEFT JOIN recorded r ON r.statement_id = p.statement_id AND r.ledger = p.ledger
    WHERE r.statement_id IS NULL
"""
_LAST_ENDORSEMENT: Final = """
    SELECT s.envelope FROM recorded r JOIN statement s ON s.id = r.statement_id
    WHERE r.ledger = ? AND r.kind = 'endorsement' AND r.subject = ? ORDER BY r.position DESC LIMIT 1
"""
_MISNUMBERED: Final = """
    SELECT r.ledger, r.position, r.statement_id, r.kind, r.push_number, p.number
    FROM recorded r JOIN push p ON p.statement_id = r.statement_id AND p.ledger = r.ledger
    WHERE r.push_number > 0 GROUP BY r.ledger, r.position HAVING sum(p.number = r.push_number) = 0
"""
_DISORDERED: Final = """
    SELECT ledger, position, push_number, before FROM (
        SELECT ledger, position, push_number,
            lag(push_number) OVER (PARTITION BY ledger ORDER BY position) AS before
        FROM recorded WHERE ledger <> 1 AND push_number > 0)
    WHERE push_number <= before
"""
_UNLOGGED_PUSHES: Final = """
    SELECT r.ledger, r.position, r.statement_id, r.kind, r.push_number, r.recorded_at
    FROM recorded r LEFT JOIN recorded b ON b.statement_id = r.statement_id AND b.ledger = 1
    WHERE r.ledger <> 1 AND b.statement_id IS NULL AND (r.push_number > 0 OR r.kind = 'revocation')
"""
_ACKNOWLEDGED: Final = """
    SELECT a.ledger, a.position, a.recorded_at, k.revocation, k.size, l.ledger, e.leaf IS NULL, e.statement_id
    FROM recorded a JOIN acknowledged k ON k.id = a.statement_id
    LEFT JOIN ledger l ON l.root = k.node
    LEFT JOIN entry e ON e.ledger = l.ledger AND e.position = k.size - 1
    WHERE e.statement_id IS NOT k.revocation
"""
_WORDS: Final = """
    SELECT b.position, b.recorded_at, b.statement_id, b.kind, s.envelope, l.ledger
    FROM recorded b
    JOIN statement s ON s.id = b.statement_id
    JOIN ledger l ON l.root = s.signer AND l.kind = 'node'
    LEFT JOIN recorded r ON r.statement_id = b.statement_id AND r.ledger = l.ledger
    WHERE b.ledger = 1 AND b.kind IN ('endorsement', 'acknowledgement', 'revocation') AND r.statement_id IS NULL
"""
_ENDORSED: Final = """
    SELECT r.ledger, r.position, r.subject, s.envelope, g.envelope
    FROM recorded r JOIN statement s ON s.id = r.statement_id JOIN statement g ON g.id = r.subject
    WHERE r.kind = 'endorsement' ORDER BY r.ledger, r.position
"""
# Pushes come to the node after the broker, words to the broker after the node.
_APART: Final = """
    SELECT n.ledger, min(n.position), count(*),
        max(CASE WHEN n.push_number > 0 THEN b.recorded_at - n.recorded_at ELSE n.recorded_at - b.recorded_at END)
    FROM recorded n JOIN recorded b ON b.statement_id = n.statement_id AND b.ledger = 1
    WHERE n.ledger <> 1 AND ((n.push_number > 0 AND b.recorded_at - n.recorded_at > ?1)
        OR (n.kind IN ('endorsement', 'acknowledgement') AND n.recorded_at - b.recorded_at > ?1))
    GROUP BY n.ledger
"""


def check_statements(books: Books, found: Findings) -> None:
    """Compare what the ledgers say about statements.

    Args:
        books: the ledgers side by side.
        found: takes what differs.
    """
    for ledger, position, identifier, kind, first in books.each(_TWICE):
        found.add(
            Code.RECORDED_TWICE,
            f"the {kind} stands at {first} already.",
            ledger=ledger,
            position=position,
            id=identifier,
        )
    _check_held(books, found)
    _check_numbers(books, found)
    _check_unlogged(books, found)
    _check_acknowledgements(books, found)
    _check_words(books, found)
    _check_quorums(books, found)
    _check_clocks(books, found)
    _check_alerts(books, found)


def _check_held(books: Books, found: Findings) -> None:
    reached = {ledger: (number, routed_at) for ledger, number, routed_at in books.each(_REACHED)}
    for ledger, number, identifier, kind, position, recorded_at in books.each(_UNHELD):
        node = books.nodes[ledger]
        held, routed_at = reached[ledger]
        since = "holds later ones" if held > number else ""
        if not since and routed_at > recorded_at + _LEASE:
            since = "served later queries"
        if not since and node.fetched_at > recorded_at + _LEASE:
            since = "was there to give its ledger"
        if not since or node.hidden:
            found.count("not held yet")
            continue
        without_right = kind == st.REVOCATION.name and _is_without_right(books, node, identifier)
        if without_right:
            found.count("revocations without right")
            continue
        withheld = kind in (st.REVOCATION.name, st.SUSPENSION.name)
        found.add(
            Code.REVOCATION_WITHHELD if withheld else Code.PUSH_MISSING,
            f"{node.name} does not hold the {kind} that is number {number} of its pushes, and {since}.",
            ledger=BROKER,
            position=position,
            id=identifier,
            node=node.root,
            number=number,
        )


def _is_without_right(books: Books, node: Horizon, identifier: bytes) -> bool:
    row = books.db.execute("SELECT envelope FROM statement WHERE id = ?", (identifier,)).fetchone()
    revocation = payload_of(st.REVOCATION, row[0]) if row is not None else None
    if revocation is None or revocation.role != pb.REVOKER_ROLE_GUARDIAN:
        return False
    target, key = revocation.target_id, revocation.signer.key
    row = books.db.execute("SELECT envelope FROM statement WHERE id = ?", (target,)).fetchone()
    grant = payload_of(st.GRANT, row[0]) if row is not None else None
    if grant is not None and key in grant.granted_by:
        return False
    row = books.db.execute(_LAST_ENDORSEMENT, (node.ledger, target)).fetchone()
    endorsement = payload_of(st.ENDORSEMENT, row[0]) if row is not None else None
    return endorsement is not None and revoker_hash(target, key) not in endorsement.revokers


def _check_numbers(books: Books, found: Findings) -> None:
    for ledger, position, identifier, kind, told, number in books.each(_MISNUMBERED):
        if books.broker.hidden:
            found.count("unknown")
            continue
        found.add(
            Code.PUSH_DIFFERS,
            f"the node got the {kind} as push {told}; by the broker's ledger it is number {number}.",
            ledger=ledger,
            position=position,
            id=identifier,
        )
    for ledger, position, number, before in books.each(_DISORDERED):
        found.add(
            Code.PUSH_DIFFERS,
            f"push {number} stands behind push {before}.",
            ledger=ledger,
            position=position,
        )


def _check_unlogged(books: Books, found: Findings) -> None:
    broker = books.broker
    for ledger, position, identifier, kind, number, recorded_at in books.each(_UNLOGGED_PUSHES):
        if broker.hidden or recorded_at > broker.fetched_at - (_LEASE if number else MAX_CLOCK_SKEW):
            found.count("unknown")
        elif number:
            found.add(
                Code.PUSH_UNLOGGED,
                f"the broker pushed a {kind} as number {number} that its own ledger does not show.",
                ledger=ledger,
                position=position,
                id=identifier,
            )
        else:
            found.add(
                Code.REVOCATION_UNKNOWN,
                "a guardian brought the revocation to the node herself; the broker's ledger does not show it.",
                ledger=ledger,
                position=position,
                severity="warning",
                id=identifier,
            )


def _check_acknowledgements(books: Books, found: Findings) -> None:
    for ledger, position, recorded_at, revocation, size, of, is_absent, there in books.each(_ACKNOWLEDGED):
        node = books.nodes.get(of) if of is not None else None
        if node is None:
            found.count("acknowledged by nodes that were not fetched")
        elif (size > node.size and node.fetched_at < recorded_at + _BEHIND) or (size <= node.size and is_absent):
            found.count("unknown")
        else:
            holds = "an entry of another kind" if there is None else f"the statement {there.hex()}"
            found.add(
                Code.ACKNOWLEDGED_UNHELD,
                f"{node.name} acknowledged the revocation at its position {size - 1}; there its ledger holds "
                + ("nothing." if size > node.size else f"{holds}."),
                ledger=ledger,
                position=position,
                revocation=revocation,
            )


def _check_words(books: Books, found: Findings) -> None:
    for position, recorded_at, identifier, kind, envelope, of in books.each(_WORDS):
        node = books.nodes.get(of)
        if node is None or node.hidden or node.fetched_at < recorded_at + _BEHIND or _may_be_unlogged(kind, envelope):
            found.count("words not shown by their node")
            continue
        found.add(
            Code.WORD_UNLOGGED,
            f"the broker recorded a {kind} by {node.name} that the node's own ledger does not show.",
            ledger=BROKER,
            position=position,
            id=identifier,
        )


def _may_be_unlogged(kind: str, envelope: bytes) -> bool:
    if kind != st.ENDORSEMENT.name:
        return False
    payload = payload_of(st.ENDORSEMENT, envelope)
    return payload is None or payload.verdict != pb.ENDORSEMENT_VERDICT_ENDORSED


def _check_quorums(books: Books, found: Findings) -> None:
    db = books.db
    db.execute("DROP TABLE IF EXISTS temp.approved")
    db.execute("CREATE TEMP TABLE approved (ledger INTEGER, grant_id BLOB, PRIMARY KEY (ledger, grant_id))")
    for ledger, position, grant_id, raw_endorsement, raw_grant in books.each(_ENDORSED):
        endorsement = payload_of(st.ENDORSEMENT, raw_endorsement)
        grant = payload_of(st.GRANT, raw_grant)
        if endorsement is None or grant is None or endorsement.verdict != pb.ENDORSEMENT_VERDICT_ENDORSED:
            continue
        found.count("approvals")
        first = db.execute("INSERT OR IGNORE INTO approved VALUES (?, ?)", (ledger, grant_id)).rowcount == 1
        if wrong := _quorum_fault(endorsement, grant, grant_id, is_first=first):
            found.add(
                Code.QUORUM_NOT_MET,
                wrong,
                ledger=ledger,
                position=position,
                grant=grant_id,
                rule=endorsement.quorum_rule,
            )


def _quorum_fault(endorsement: pb.Endorsement, grant: pb.Grant, grant_id: bytes, *, is_first: bool) -> str:
    signers = {revoker_hash(grant_id, key) for key in grant.granted_by}
    deciders = set(endorsement.revokers)
    if not signers <= deciders:
        return "the node approved a consent of which a signer is not among those whom it takes for guardians."
    if endorsement.quorum_rule == "all" and is_first and deciders != signers:
        return (
            f"the rule asks for everyone's signature; the node knows {len(deciders)} who decide, "
            f"and {len(signers)} signed."
        )
    return ""


def _check_clocks(books: Books, found: Findings) -> None:
    for ledger, position, number, most in books.each(_APART, MAX_CLOCK_SKEW):
        found.add(
            Code.CLOCKS_APART,
            f"{number} statements are dated up to {most / 1_000:.0f} s before they can have come.",
            ledger=ledger,
            position=position,
            statements=number,
            most_ms=most,
        )


def _check_alerts(books: Books, found: Findings) -> None:
    for ledger, position, leaf in books.each("SELECT ledger, position, leaf FROM entry WHERE event = 'witness_alert'"):
        try:
            alert = ledger_pb2.LogEntry.FromString(leaf).witness_alert
        except DecodeError:
            continue
        fault = _fault_name(alert.fault)
        whose = "the node refused a checkpoint of the broker"
        if ledger == BROKER:
            whose = f"the broker refused a checkpoint of {books.name_of(alert.keeper)}"
        found.add(
            Code.WITNESS_ALERTED,
            f"{whose} as {fault}: it knew size {alert.seen_size}, and was offered {alert.offered_size}.",
            ledger=ledger,
            position=position,
            fault=fault,
            **_roots(alert),
        )


def _fault_name(number: int) -> str:
    known = ledger_pb2.WitnessFault.DESCRIPTOR.values_by_number.get(number)
    return str(number) if known is None else known.name.removeprefix("WITNESS_FAULT_")


def _roots(alert: ledger_pb2.WitnessAlert) -> dict[str, Any]:
    return {"seen_root": alert.seen_root, "offered_root": alert.offered_root}

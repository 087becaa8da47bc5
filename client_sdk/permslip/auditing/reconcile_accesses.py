"""Accesses, seen from both sides: what the broker routed against what the nodes served, and how each says it ended.

Rules:

- What one side shows and the other denies is a fault. What one side does not show yet, or cannot show to this auditor
  (its ledger was fetched earlier, the entry is hidden) is counted as unknown.
- A fetch reads the nodes' ledgers before the broker's: where it ended, what a node decided is in what was fetched of
  the broker's ledger, or was never routed. One exception is a warning: witnesses that are slow leave the broker with
  a checkpoint from before.
- An end that is missing on one side is lost in a crash, perhaps: unknown, unless the other side shows a whole answer.
- The broker relays no more bytes than the node released. Fewer are possible: a reader may go away.
- A node may say «answered whole» of what the broker's ledger says nothing came of (unreachable, cancelled, malformed,
  timed out): so does a node that lies, and one whose line broke at that moment. It is a warning, and a fault alone
  where the line held and the broker waited for much longer. Where a part came, the two differ as a break lets them.

Example::

    check_accesses(books, found)
"""

from __future__ import annotations

from typing import Final

from permslip.auditing.codes import Code
from permslip.auditing.finding import Findings
from permslip.auditing.reconcile_books import Books
from permslip.decision import MAX_CLOCK_SKEW, MAX_QUERY_LIFETIME

__all__ = ["check_accesses"]

# How long an end may take to be on the disk, behind the answer that it is about.
_BEHIND: Final = 1_000
# How long a broker may be told to wait for an answer, and for who reads it.
_LONGEST_ANSWER: Final = 600_000
# By so much a node must have answered before the broker gave up, for the answer not just to have been late.
_LATE: Final = 2_000
# How long a broker waits for its witnesses' cosignatures, and shows an earlier checkpoint then.
_WITNESSES: Final = 2_000

_UNROUTED: Final = """
    SELECT n.ledger, n.position, n.query_id, n.reason, n.recorded_at, n.routed_position, b.reason, at.position IS NULL,
        at.leaf IS NULL
    FROM decided n
    LEFT JOIN decided routed ON routed.query_id = n.query_id AND routed.ledger = 1 AND routed.reason = 'ALLOWED'
    LEFT JOIN decided b ON b.query_id = n.query_id AND b.ledger = 1
    LEFT JOIN entry at ON at.ledger = 1 AND at.position = n.routed_position
    WHERE n.ledger <> 1 AND routed.query_id IS NULL GROUP BY n.ledger, n.position
"""
_POSITION: Final = """
    SELECT n.ledger, n.position, n.query_id, n.routed_position, min(b.position)
    FROM decided n JOIN decided b ON b.query_id = n.query_id AND b.ledger = 1 AND b.reason = 'ALLOWED'
    WHERE n.ledger <> 1
    GROUP BY n.ledger, n.position HAVING sum(b.position = coalesce(n.routed_position, -1)) = 0
"""
_UNSERVED: Final = """
    SELECT l.ledger, b.position, b.query_id, a.reason, a.sealed_bytes, a.recorded_at
    FROM decided b
    JOIN ledger l ON l.root = b.node AND l.kind = 'node'
    LEFT JOIN decided n ON n.query_id = b.query_id AND n.ledger = l.ledger
    LEFT JOIN answered a ON a.query_id = b.query_id AND a.ledger = 1
    WHERE b.ledger = 1 AND b.reason = 'ALLOWED' AND n.query_id IS NULL
"""
# Each allowed access that both sides show, with both ends.
_ENDS: Final = """
    SELECT n.ledger, n.position, b.position, n.query_id,
        na.reason, na.sealed_bytes, na.manifest_sha256, na.recorded_at,
        ba.reason, ba.sealed_bytes, ba.manifest_sha256, ba.recorded_at
    FROM decided n
    JOIN decided b ON b.query_id = n.query_id AND b.ledger = 1 AND b.reason = 'ALLOWED'
    LEFT JOIN answered na ON na.query_id = n.query_id AND na.ledger = n.ledger
    LEFT JOIN answered ba ON ba.query_id = n.query_id AND ba.ledger = 1
    WHERE n.ledger <> 1 AND n.reason = 'ALLOWED'
        AND (na.query_id IS NULL OR ba.query_id IS NULL OR na.reason IS NOT ba.reason
            OR na.sealed_bytes <> ba.sealed_bytes OR na.manifest_sha256 IS NOT ba.manifest_sha256)
"""
_UNDECIDED: Final = """
    SELECT a.ledger, a.position, a.query_id, a.reason
    FROM answered a
    LEFT JOIN decided d ON d.query_id = a.query_id AND d.ledger = a.ledger AND d.reason = 'ALLOWED'
        AND d.position < a.position
    WHERE d.query_id IS NULL
"""
_TWICE: Final = """
    SELECT ledger, max(position), query_id, min(position)
    FROM answered GROUP BY ledger, query_id HAVING count(*) > 1
"""
_APART: Final = """
    SELECT n.ledger, min(n.position), count(*), min(n.decided_at - b.decided_at), max(n.decided_at - b.decided_at)
    FROM decided n JOIN decided b ON b.query_id = n.query_id AND b.ledger = 1 AND b.reason = 'ALLOWED'
    WHERE n.ledger <> 1 AND n.decided_at - b.decided_at NOT BETWEEN ? AND ?
    GROUP BY n.ledger
"""


def check_accesses(books: Books, found: Findings) -> None:
    """Compare what was routed with what was served.

    Args:
        books: the ledgers side by side.
        found: takes what differs.
    """
    found.count("routed", _number(books, "SELECT count(*) FROM decided WHERE ledger = 1 AND reason = 'ALLOWED'"))
    found.count("served", _number(books, "SELECT count(*) FROM decided WHERE ledger <> 1 AND reason = 'ALLOWED'"))
    _check_unrouted(books, found)
    _check_positions(books, found)
    _check_unserved(books, found)
    _check_ends(books, found)
    _check_single_ends(books, found)
    _check_clocks(books, found)


def _number(books: Books, query: str) -> int:
    return int(books.db.execute(query).fetchone()[0])


def _check_unrouted(books: Books, found: Findings) -> None:
    broker = books.broker
    for row in books.each(_UNROUTED):
        ledger, position, query_id, reason, recorded_at, routed, at_broker, is_absent, is_hidden = row
        is_beyond = routed is not None and is_absent and routed >= broker.size
        if is_beyond and (not broker.is_whole or broker.fetched_at < books.nodes[ledger].fetched_at):
            found.count("beyond the broker's entries")
            continue
        is_old = is_beyond and broker.as_of < recorded_at + _WITNESSES
        if routed is not None and not is_absent and is_hidden:
            found.count("unknown")
            continue
        says = "does not know the query" if at_broker is None else f"says {at_broker}"
        if is_beyond:
            says = f"had {broker.size} entries, and its newest checkpoint is " + ("older" if is_old else "newer")
        found.add(
            Code.SERVED_UNROUTED,
            f"the node decided {reason} on a query that it says was routed at {routed}; the broker's ledger {says}.",
            ledger=ledger,
            position=position,
            severity="warning" if is_old else "fault",
            query=query_id,
            routed_position=routed,
        )


def _check_positions(books: Books, found: Findings) -> None:
    for ledger, position, query_id, told, routed in books.each(_POSITION):
        found.add(
            Code.ROUTED_POSITION,
            f"the node says that the query was routed at {told}; the broker's ledger shows it at {routed}.",
            ledger=ledger,
            position=position,
            query=query_id,
        )


def _check_unserved(books: Books, found: Findings) -> None:
    broker = books.broker
    for ledger, position, query_id, reason, sealed, ended_at in books.each(_UNSERVED):
        node = books.nodes.get(ledger)
        if node is None:
            found.count("routed to nodes that were not fetched")
        elif reason is None:
            found.count("unknown")
        elif reason != "ALLOWED" and not sealed:
            found.count("routed and not served")
        elif node.hidden or (node.fetched_at < broker.fetched_at and node.fetched_at < ended_at + _BEHIND):
            found.count("unknown")
        else:
            found.add(
                Code.SERVED_UNLOGGED,
                f"the broker relayed {sealed} bytes of an answer by {node.name}, whose ledger does not know the query.",
                ledger=broker.ledger,
                position=position,
                query=query_id,
                node=node.root,
            )


def _check_ends(books: Books, found: Findings) -> None:
    for row in books.each(_ENDS):
        ledger, position, routed, query_id, *ends = row
        node_reason, node_bytes, node_digest, node_at, reason, sealed, digest, ended_at = ends
        node = books.nodes.get(ledger)
        if node is None:
            continue
        where = {"ledger": ledger, "position": position, "query": query_id, "routed_position": routed}
        if node_reason is None or reason is None:
            _check_missing_end(books, found, row)
            continue
        if digest is not None and node_digest is not None and digest != node_digest:
            found.add(
                Code.ANSWER_DIFFERS,
                f"{node.name} answered with manifest {node_digest.hex()}, the broker relayed {digest.hex()}.",
                **where,
            )
        elif reason == node_reason == "ALLOWED" and digest != node_digest:
            found.add(Code.ANSWER_DIFFERS, "only one side names the manifest of a whole answer.", **where)
        if sealed > node_bytes or (reason == node_reason == "ALLOWED" and sealed != node_bytes):
            found.add(
                Code.ANSWER_SIZE, f"{node.name} released {node_bytes} bytes, the broker relayed {sealed}.", **where
            )
        if node_reason == "ALLOWED" and node_bytes and reason != "ALLOWED" and not sealed:
            waited = ended_at - node_at
            found.add(
                Code.ANSWER_NEVER_CAME,
                f"{node.name} says that it released {node_bytes} bytes; the broker got nothing, and says {reason} "
                f"({waited} ms later).",
                severity="fault" if reason == "TIMED_OUT" and waited >= _LATE else "warning",
                **where,
            )


def _check_missing_end(books: Books, found: Findings, row: tuple[object, ...]) -> None:
    ledger, position, routed, query_id, node_reason, node_bytes, _, node_at, reason, sealed, _, ended_at = row
    node, broker = books.nodes[int(str(ledger))], books.broker
    if node_reason is None and reason == "ALLOWED" and sealed:
        known = not node.hidden and node.fetched_at >= int(str(ended_at)) + _BEHIND
        message = f"the broker relayed a whole answer; the ledger of {node.name} does not say how it ended."
    elif reason is None and node_reason == "ALLOWED" and node_bytes:
        known = not broker.hidden and broker.fetched_at >= int(str(node_at)) + _LONGEST_ANSWER
        message = f"{node.name} released a whole answer; the broker's ledger does not say how it ended."
    else:
        known, message = False, ""
    if not known:
        found.count("unknown")
        return
    found.add(
        Code.ANSWER_UNLOGGED,
        message,
        ledger=int(str(ledger)),
        position=int(str(position)),
        query=query_id,
        routed_position=routed,
    )


def _check_single_ends(books: Books, found: Findings) -> None:
    for ledger, position, query_id, reason in books.each(_UNDECIDED):
        if books.horizon(ledger).hidden:
            found.count("unknown")
            continue
        found.add(
            Code.ANSWERED_UNDECIDED,
            f"the ledger says that an access ended {reason}, and not that it was allowed.",
            ledger=ledger,
            position=position,
            query=query_id,
        )
    for ledger, position, query_id, first in books.each(_TWICE):
        found.add(
            Code.ANSWERED_TWICE,
            f"how the access ended stands at {first} already.",
            ledger=ledger,
            position=position,
            query=query_id,
        )


def _check_clocks(books: Books, found: Findings) -> None:
    # A node decides after the broker, and no later than the query lives.
    bounds = -MAX_CLOCK_SKEW, MAX_QUERY_LIFETIME + MAX_CLOCK_SKEW
    for ledger, position, number, least, most in books.each(_APART, *bounds):
        worst = least if least < bounds[0] else most
        found.add(
            Code.CLOCKS_APART,
            f"{number} queries were decided by a clock that was {worst / 1_000:.0f} s away from the broker's.",
            ledger=ledger,
            position=position,
            queries=number,
            least_ms=least,
            most_ms=most,
        )

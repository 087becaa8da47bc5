"""Uses, counted again: how often a node's ledger shows that each grant and delegation was used.

The node counts in its own tables (DESIGN §4); an auditor counts by the node's entries and the queries they name.

Rules:

- Only grants and delegations with ``max_uses`` are counted; an allowed query debits every such link of its chain.
- A page, and the resumption of an answer that broke off, belong to the use of the first query, for an hour.
- A retry is free once, if the ledger shows that the first try ended without one byte having left.
- What the ledger cannot show is not held against the node: a node that was restarted let resumptions of what was open
  go free, and no entry says so. Then both costs are possible (:attr:`Account.costs`).

Example::

    account = uses.account(facts, query, position, now)
    for cost in account.costs: decide(replace(facts, uses=account.uses, use_cost=cost), query, now=now)
    uses.debit(account, cost)
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from permslip import statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.auditing.bundle import Bundle
from permslip.decision import Facts
from permslip.errors import MalformedError
from permslip.statements import Signed

__all__ = ["Account", "Uses"]

Link: TypeAlias = Signed[pb.Grant] | Signed[pb.Delegation] | None

# Milliseconds for which pages and resumptions belong to the first query's use.
PAGES_LAST: Final = 3_600_000
# Between the reading of the clock that counted and the one that the entry gives.
_MOMENT: Final = 1_000

_EARLIER: Final = """
    SELECT decided.decided_at, answered.reason, answered.sealed_bytes
    FROM entry decided
    LEFT JOIN entry answered ON answered.query_id = decided.query_id AND answered.ledger = decided.ledger
        AND answered.event = 'access_answered' AND answered.position < ?3
    WHERE decided.query_id = ?2 AND decided.ledger = ?1 AND decided.event = 'access_decided'
        AND decided.reason = 'ALLOWED' AND decided.position < ?3
    LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Account:
    """What one query costs, and what was used before it.

    Attributes:
        links: the chain, from the grant down.
        uses: of each link so far; 0 for those that are not counted.
        costs: what the query may cost, the likelier first.
        retries: the query that it may retry for nothing; empty where there is none.
    """

    links: tuple[Link, ...]
    uses: tuple[int, ...]
    costs: tuple[int, ...]
    retries: bytes = b""

    def debited(self, cost: int) -> tuple[int, ...]:
        """The uses of each link after it."""
        return tuple(
            used + cost if link is not None and link.payload.max_uses else used
            for link, used in zip(self.links, self.uses, strict=True)
        )


class Uses:
    """The counts of one node's ledger.

    Args:
        bundle: where earlier entries and queries are looked up.
        ledger: the node's, by its number.
        scratch: a database on the disk, so that memory does not grow.
    """

    def __init__(self, bundle: Bundle, ledger: int, scratch: sqlite3.Connection) -> None:
        self._bundle, self._ledger, self._scratch = bundle, ledger, scratch
        scratch.executescript(
            "CREATE TABLE used (id BLOB PRIMARY KEY, uses INTEGER NOT NULL) WITHOUT ROWID;"
            "CREATE TABLE retried (id BLOB PRIMARY KEY) WITHOUT ROWID;"
        )

    def account(self, facts: Facts, query: Signed[pb.Query], position: int, now: int) -> Account | None:
        """What a query costs; None where nothing of its chain is counted.

        Args:
            facts: grant and delegations, as of the decision.
            query: verified.
            position: of the decision.
            now: the decider's clock, UTC milliseconds.
        """
        links: tuple[Link, ...] = (facts.grant, *facts.delegations)
        if facts.grant is None or not any(link is not None and link.payload.max_uses for link in links):
            return None
        uses = tuple(0 if link is None or not link.payload.max_uses else self._used(link.id) for link in links)
        payload = query.payload
        if payload.continues:
            return Account(links, uses, self._costs_of_continuing(query, position, now))
        if payload.retry_of:
            costs = self._costs_of_retry(query, position)
            return Account(links, uses, costs, payload.retry_of if 0 in costs else b"")
        return Account(links, uses, (1,))

    def debit(self, account: Account, cost: int) -> None:
        """The query was allowed."""
        self.adopt(account, account.debited(cost))
        if account.retries and not cost:
            self._scratch.execute("INSERT OR IGNORE INTO retried VALUES (?)", (account.retries,))

    def adopt(self, account: Account, uses: Sequence[int]) -> None:
        """Count on from here."""
        for link, count in zip(account.links, uses, strict=True):
            if link is not None and link.payload.max_uses:
                self._scratch.execute("INSERT OR REPLACE INTO used VALUES (?, ?)", (link.id, count))

    def _used(self, identifier: bytes) -> int:
        row = self._scratch.execute("SELECT uses FROM used WHERE id = ?", (identifier,)).fetchone()
        return 0 if row is None else int(row[0])

    def _costs_of_continuing(self, query: Signed[pb.Query], position: int, now: int) -> tuple[int, ...]:
        first = self._earlier(query.payload.continues, position)
        if first is None:
            return (1,)
        same = self._asks_the_same(query, query.payload.continues)
        age = now - first.decided_at
        if same is False or age >= PAGES_LAST + _MOMENT:
            return (1,)
        if not query.payload.page and first.ended == "ALLOWED":
            return (1,)
        sure = same and age < PAGES_LAST - _MOMENT and (query.payload.page or first.ended is not None)
        return (0,) if sure else (0, 1)

    def _costs_of_retry(self, query: Signed[pb.Query], position: int) -> tuple[int, ...]:
        tried = query.payload.retry_of
        first = self._earlier(tried, position)
        if first is None or first.ended in (None, "ALLOWED") or first.released:
            return (1,)
        if self._scratch.execute("SELECT 1 FROM retried WHERE id = ?", (tried,)).fetchone() is not None:
            return (1,)
        same = self._asks_the_same(query, tried)
        return (0, 1) if same is None else (0,) if same else (1,)

    def _earlier(self, query_id: bytes, position: int) -> _First | None:
        row = self._bundle.db.execute(_EARLIER, (self._ledger, query_id, position)).fetchone()
        return None if row is None else _First(*row)

    def _asks_the_same(self, query: Signed[pb.Query], query_id: bytes) -> bool | None:
        """Whether an earlier query asked the same for the same requester; None where it is not there any more."""
        row = self._bundle.statement(query_id)
        if row is None:
            return None
        try:
            earlier = st.restore(st.QUERY, query_id, row.envelope)
        except MalformedError:
            return False
        return _question(earlier.payload) == _question(query.payload)


class _First(NamedTuple):
    """An allowed query, and how its answer ended; ``ended`` is None where no entry before says so."""

    decided_at: int
    ended: str | None
    released: int | None


def _question(query: pb.Query) -> tuple[object, ...]:
    return (
        query.signer.root,
        query.grant_id,
        tuple(query.delegation_ids),
        query.action,
        tuple(query.sections),
        query.records_from,
        query.records_until,
    )

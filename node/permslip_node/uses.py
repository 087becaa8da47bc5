"""Uses: counted by this node alone, in the transaction of the decision that debits them.

Rules:

- Only grants and delegations with ``max_uses`` are counted; every such link of the chain is debited.
- One use is one query with its pages and its resumes: ``continues`` names the first of them and costs nothing for an
  hour, if it is a page of this node's own making, or if the first one's answer broke off. The hour is the use's: what
  continues a resume has no hour of its own, else one use would last for ever.
- ``retry_of`` costs nothing if the ledger shows that the first try ended without one byte having left; once. After a
  crash nobody knows what left, so it shows nothing. The hour begins anew, unless what is tried again is itself a page
  or resume.
- A query from which no byte left is tried again or continued, not both.
- What a decision counted by is a subject of the ledger (:func:`uses_subject`): of two queries that race for the last
  use, the second is decided again under the head's lock and refused.

Example::

    account = read_account(connection, chain, query, paged=False, now=now)
    facts = replace(gather(reader, query), uses=account.uses, use_cost=account.cost)
    if decide(facts, query, now=now).reason == Reason.ALLOWED:
        account.debit(connection, query)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection, Row, insert, select, update

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.errors import UnavailableError
from permslip.quantities import Millis
from permslip.reasons import Reason
from permslip.statements import Signed
from permslip_node import schema
from permslip_node.paging import PAGES_LAST, scope_of

__all__ = ["Account", "Link", "close_answer", "forget_open_answers", "is_counted", "read_account", "uses_subject"]

Link: TypeAlias = Signed[pb.Grant] | Signed[pb.Delegation] | None
UNKNOWN: Final = -1


@dataclass(frozen=True, slots=True)
class Account:
    """What one query costs, and what was used before it.

    Attributes:
        links: the chain, from the grant down.
        uses: of each link so far; 0 for those that are not counted.
        cost: 1, or 0 where the query belongs to an earlier use.
        first_id: the query whose use it is.
        began: when that use began, UTC milliseconds.
        retries: the query that it retries for nothing; empty where it does not.
        continues: the query that it continues for nothing; empty where it does not.
    """

    links: tuple[Link, ...]
    uses: tuple[int, ...]
    cost: int
    first_id: bytes
    began: int
    retries: bytes = b""
    continues: bytes = b""

    @property
    def debited(self) -> tuple[int, ...]:
        """The uses of each link, this one included."""
        return tuple(
            used + self.cost if link is not None and link.payload.max_uses else used
            for link, used in zip(self.links, self.uses, strict=True)
        )

    def debit(self, connection: Connection, query: Signed[pb.Query]) -> None:
        """Write it down, in the transaction of the decision that allows the query.

        Raises:
            UnavailableError: the first try was let off for another retry meanwhile.
        """
        count, charged = schema.use_count, schema.charged_query
        for link, uses in zip(self.links, self.debited, strict=True):
            if link is None or not link.payload.max_uses or not self.cost:
                continue
            changed = connection.execute(update(count).where(count.c.subject == link.id).values(uses=uses))
            if not changed.rowcount:
                connection.execute(insert(count).values(subject=link.id, uses=uses))
        if self.retries:
            let_off = connection.execute(
                update(charged)
                .where(charged.c.query_id == self.retries, charged.c.retried.is_(False))
                .values(retried=True)
            )
            if let_off.rowcount != 1:
                raise UnavailableError("this query was retried already.", remedy="Send a new query.")
        if self.continues:
            connection.execute(update(charged).where(charged.c.query_id == self.continues).values(retried=True))
        connection.execute(
            insert(charged).values(
                query_id=query.id,
                first_id=self.first_id,
                grant_id=query.payload.grant_id,
                requester=query.payload.signer.root,
                scope=scope_of(query.payload),
                decided_at=self.began,
            )
        )


def is_counted(links: Sequence[Link]) -> bool:
    """Whether any link of a chain limits its uses."""
    return any(link is not None and link.payload.max_uses for link in links)


def uses_subject(identifier: bytes) -> bytes:
    """The ledger's name for «how often this was used»."""
    return sha256(b"permslip uses v1\x00" + identifier).digest()


def read_account(
    connection: Connection,
    links: tuple[Link, ...],
    query: Signed[pb.Query],
    *,
    paged: bool,
    resumed: bool = False,
    now: Millis,
) -> Account:
    """What a query costs, as the transaction sees it.

    Args:
        connection: where the counts are.
        links: the chain, from the grant down.
        query: verified.
        paged: its page token was opened, and is of the query that it continues.
        resumed: the answer that it continues broke off so lately that the ledger does not say so yet.
        now: the node's clock.
    """
    ids = [link.id for link in links if link is not None and link.payload.max_uses]
    count = schema.use_count.c
    rows = connection.execute(select(count.subject, count.uses).where(count.subject.in_(ids)))
    used = {bytes(row.subject): int(row.uses) for row in rows}
    uses = tuple(used.get(link.id, 0) if link is not None else 0 for link in links)
    payload = query.payload
    if payload.continues and (first := _earlier(connection, payload.continues, query)) is not None:
        broke_off = resumed or first.ended not in (0, int(Reason.ALLOWED))
        spent = first.ended != 0 and first.released == 0 and first.retried
        if (paged or broke_off) and not spent and now < first.decided_at + PAGES_LAST:
            return Account(links, uses, 0, bytes(first.first_id), first.decided_at, continues=payload.continues)
    elif payload.retry_of and (first := _earlier(connection, payload.retry_of, query)) is not None:
        ended = first.ended not in (0, int(Reason.ALLOWED))
        if ended and first.released == 0 and not first.retried:
            if bytes(first.first_id) == payload.retry_of:
                return Account(links, uses, 0, query.id, now, retries=payload.retry_of)
            if now < first.decided_at + PAGES_LAST:
                return Account(links, uses, 0, bytes(first.first_id), first.decided_at, retries=payload.retry_of)
    return Account(links, uses, 1, query.id, now)


def close_answer(connection: Connection, query_id: bytes, *, reason: Reason, released: int) -> None:
    """How the answer to a counted query ended, in the transaction of the entry that says so."""
    charged = schema.charged_query
    connection.execute(
        update(charged).where(charged.c.query_id == query_id).values(ended=int(reason), released=released)
    )


def forget_open_answers(connection: Connection) -> int:
    """At start: answers that were open when the node died ended, and nobody knows how much of them had left."""
    charged = schema.charged_query
    ended = connection.execute(
        update(charged).where(charged.c.ended == 0).values(ended=int(Reason.INTERNAL), released=UNKNOWN)
    )
    return int(ended.rowcount)


def _earlier(connection: Connection, query_id: bytes, query: Signed[pb.Query]) -> Row[Any] | None:
    """An earlier query for the very same thing by the same requester."""
    charged = schema.charged_query.c
    return connection.execute(
        select(schema.charged_query).where(
            charged.query_id == query_id,
            charged.grant_id == query.payload.grant_id,
            charged.requester == query.payload.signer.root,
            charged.scope == scope_of(query.payload),
        )
    ).one_or_none()

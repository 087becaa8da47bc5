"""Grants that wait for their node's word: so many may wait for one signer and for one node, and no more.

Anybody with a key can sign a grant, and only a node knows whether the key has any authority. Until it says so the grant
stands in the broker's ledger all the same. So what waits is bounded.

Rules:

- A grant counts for its node and for each key that signed it, from its deposit until its node says yes or no, it is
  revoked or superseded, or it ends.
- Beyond the signer's bound a grant is refused (``BUSY``), whoever signed it with her.
- Beyond the node's bound only those are let in whose earlier grants this very node has endorsed: who floods a school
  with new keys keeps newcomers of that school waiting, not its families, and nobody of another school.
- Counts are kept in the transaction that records the statement: none is read by counting.

Example::

    waiting.add(connection, signed.id, signed.payload, now=now)
    waiting.remove(connection, [endorsement.grant_id])
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sqlalchemy import Connection, text

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.errors import RefusedError
from permslip.quantities import Millis
from permslip.reasons import Reason

__all__ = ["Waiting"]

# Seconds: a school that is off line does not come back within milliseconds.
_TRY_AGAIN: Final = 60.0
_SWEPT: Final = 64
# Of a signer, so many of the newest grants are looked at for one that the node endorsed.
_LOOKED_AT: Final = 256

_ADD: Final = text(
    "INSERT INTO waiting_grant (grant_id, subject, expires_at) VALUES (:grant_id, :subject, :expires_at)"
)
_COUNT_UP: Final = text(
    "INSERT INTO waiting_count (subject, waiting) VALUES (:subject, 1) "
    "ON CONFLICT (subject) DO UPDATE SET waiting = waiting_count.waiting + 1 RETURNING waiting"
)
_REMOVE: Final = text("DELETE FROM waiting_grant WHERE grant_id = :grant_id RETURNING subject")
_COUNT_DOWN: Final = text("UPDATE waiting_count SET waiting = waiting - 1 WHERE subject = :subject RETURNING waiting")
_FORGET: Final = text("DELETE FROM waiting_count WHERE subject = :subject")
_ENDED: Final = text(
    "SELECT grant_id FROM waiting_grant WHERE subject = :subject AND expires_at <= :now ORDER BY expires_at LIMIT :most"
)
_ENDORSED_BEFORE: Final = text(
    "SELECT 1 FROM (SELECT grant_id FROM grant_signer WHERE key = :key ORDER BY position DESC LIMIT :most) AS hers "
    "JOIN grant_fact ON grant_fact.grant_id = hers.grant_id "
    "WHERE grant_fact.node = :node AND grant_fact.approval_id IS NOT NULL LIMIT 1"
)


class Waiting:
    """Counts what waits. Every method runs in the transaction of the ledger entry that makes it necessary.

    Args:
        per_signer: grants that may wait which one key signed.
        per_node: grants that may wait for one node.
    """

    def __init__(self, *, per_signer: int, per_node: int) -> None:
        self._per_signer, self._per_node = per_signer, per_node

    def add(self, connection: Connection, grant_id: bytes, grant: pb.Grant, *, now: Millis) -> None:
        """Count a grant that was just recorded.

        Raises:
            RefusedError: ``BUSY``: as many wait as may.
        """
        node, signers = grant.slice.node, list(grant.granted_by)
        waiting: dict[bytes, int] = {}
        for subject in (node, *signers):
            connection.execute(_ADD, {"grant_id": grant_id, "subject": subject, "expires_at": grant.expires_at})
            waiting[subject] = int(connection.execute(_COUNT_UP, {"subject": subject}).scalar_one())
        for key in signers:
            if self._is_over(connection, key, waiting[key], self._per_signer, now):
                raise _busy(
                    f"{self._per_signer} grants that this key signed wait for their schools' word.",
                    field="grant.granted_by",
                    remedy="Try again when the schools have been on line; or revoke consents that are not needed.",
                )
        if self._is_over(connection, node, waiting[node], self._per_node, now):
            parameters = {"node": node, "most": _LOOKED_AT}
            if not any(connection.execute(_ENDORSED_BEFORE, {"key": key, **parameters}).first() for key in signers):
                raise _busy(
                    f"{self._per_node} grants wait for this school's word.",
                    field="grant.slice.node",
                    remedy="Try again when the school has been on line. What it has endorsed goes on as before.",
                )

    def remove(self, connection: Connection, grant_ids: Iterable[bytes]) -> None:
        """These do not wait any more; those that did not wait are left out."""
        for grant_id in grant_ids:
            subjects = [row.subject for row in connection.execute(_REMOVE, {"grant_id": grant_id})]
            for subject in subjects:
                if not connection.execute(_COUNT_DOWN, {"subject": subject}).scalar():
                    connection.execute(_FORGET, {"subject": subject})

    def _is_over(self, connection: Connection, subject: bytes, waiting: int, most: int, now: Millis) -> bool:
        """Whether more wait for it than may; what ended is taken out only where that makes a difference."""
        if waiting <= most:
            return False
        ended = connection.execute(_ENDED, {"subject": subject, "now": now, "most": _SWEPT}).all()
        self.remove(connection, [row.grant_id for row in ended])
        return waiting - len(ended) > most


def _busy(message: str, *, field: str, remedy: str) -> RefusedError:
    return RefusedError(message, code=Reason.BUSY.name, field=field, remedy=remedy, retry_after=_TRY_AGAIN)

"""What has become of grants, told to those whom they concern: with the envelopes, so that nobody has to take our word.

Example::

    states = GrantStates(engine, tables, facts, clock)
    [state] = states.of([capability])
    state.status == session_pb2.GRANT_STATUS_ACTIVE
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Engine, Table, select

from permslip._pb.permslip.v1 import session_pb2, statement_pb2 as pb
from permslip.facts import Capability
from permslip.hosting.database import reading
from permslip.hosting.facts_store import FactStore, GrantRow
from permslip.quantities import Millis
from permslip.reasons import Reason
from permslip_broker.paging import Token
from permslip_broker.schema import BrokerTables

__all__ = ["GrantStates", "RevocationFact"]

# One page reads at most so many grants to find those with the statuses asked for.
_READ_AT_MOST = 2_000

_REFUSED = {
    pb.ENDORSEMENT_VERDICT_AUTHORITY_ENDED: session_pb2.GRANT_STATUS_AUTHORITY_ENDED,
}


class RevocationFact(NamedTuple):
    """A revocation, its target, and the acknowledgement by its node once there is one."""

    revocation_id: bytes
    target_id: bytes
    node: bytes
    position: int
    acknowledgement_id: bytes | None


class GrantStates:
    """Reads what has become of grants.

    Args:
        engine: the broker's database.
        tables: the broker's.
        facts: what is recorded.
        clock: the broker's.
    """

    def __init__(self, engine: Engine, tables: BrokerTables, facts: FactStore, clock: Callable[[], Millis]) -> None:
        self._engine, self._tables, self._facts, self._clock = engine, tables, facts, clock

    def of(self, capabilities: Sequence[Capability], *, with_consent: bool = True) -> list[session_pb2.GrantState]:
        """The states of these grants, in order.

        Args:
            capabilities: which.
            with_consent: tell with which others each was deposited; only grantee and signers know that.
        """
        ids = [each.grant.id for each in capabilities]
        consents, revocations = self._consents(ids), self._of_targets(ids)
        wanted = [each.revocation_id for each in revocations.values()]
        wanted += [each.acknowledgement_id for each in revocations.values() if each.acknowledgement_id is not None]
        envelopes = self._facts.envelopes(wanted)
        now = self._clock()
        states = []
        for capability in capabilities:
            grant = capability.grant
            revocation = revocations.get(grant.id)
            acknowledged = revocation is not None and revocation.acknowledgement_id is not None
            state = session_pb2.GrantState(
                grant=grant.envelope, grant_id=grant.id, status=_status(capability, acknowledged, now)
            )
            if capability.endorsement is not None:
                state.endorsement.CopyFrom(capability.endorsement.envelope)
            if revocation is not None:
                if (envelope := envelopes.get(revocation.revocation_id)) is not None:
                    state.revocation.CopyFrom(envelope)
                if (envelope := envelopes.get(revocation.acknowledgement_id or b"")) is not None:
                    state.acknowledgement.CopyFrom(envelope)
            if grant.payload.delegation_depth:
                state.delegations.extend(each.delegation.envelope for each in self._facts.delegations_of(grant.id))
            if (consent := consents.get(grant.id)) is not None:
                state.deposited_at = consent[1]
                if with_consent:
                    state.consent_id = consent[0]
            states.append(state)
        return states

    def one(self, grant_id: bytes) -> session_pb2.GrantState | None:
        """The state of one grant; None where it is not known."""
        capability = self._facts.capability(grant_id)
        return None if capability is None else self.of([capability])[0]

    def page(
        self,
        rows_after: Callable[[int, int], list[GrantRow]],
        statuses: Sequence[int],
        token: Token,
        size: int,
    ) -> tuple[list[session_pb2.GrantState], bytes]:
        """One page of a listing, and the token of the next one (empty after the last).

        Args:
            rows_after: reads so many grants after a position, in order.
            statuses: only these; empty: all.
            token: where the page begins.
            size: greatest number of states.
        """
        found: list[session_pb2.GrantState] = []
        after, read = token.after, 0
        while read < _READ_AT_MOST:
            rows = [row for row in rows_after(after, size) if row.position < token.until]
            read += len(rows)
            for row, state in zip(rows, self.of([row.capability for row in rows]), strict=True):
                after = row.position
                if not statuses or state.status in statuses:
                    found.append(state)
                if len(found) == size:
                    return found, Token(after, token.until).pack()
            if len(rows) < size:
                return found, b""
        return found, Token(after, token.until).pack()

    def revocations(self, ids: Iterable[bytes]) -> dict[bytes, RevocationFact]:
        """What is known of these revocations, by id."""
        fact, query = self._revocation_facts()
        with reading(self._engine) as connection:
            rows = connection.execute(query.where(fact.c.revocation_id.in_(list(ids)))).all()
        return {row.revocation_id: RevocationFact(*row) for row in rows}

    def _of_targets(self, ids: Sequence[bytes]) -> dict[bytes, RevocationFact]:
        """One revocation of each target: one that was acknowledged, if any was."""
        fact, query = self._revocation_facts()
        with reading(self._engine) as connection:
            rows = connection.execute(query.where(fact.c.target_id.in_(ids)).order_by(fact.c.position)).all()
        found: dict[bytes, RevocationFact] = {}
        for row in rows:
            known = found.get(row.target_id)
            if known is None or (known.acknowledgement_id is None and row.acknowledgement_id is not None):
                found[row.target_id] = RevocationFact(*row)
        return found

    def _revocation_facts(self) -> tuple[Table, Any]:
        fact = self._tables.revocation_fact
        columns = (fact.c.revocation_id, fact.c.target_id, fact.c.node, fact.c.position, fact.c.acknowledgement_id)
        return fact, select(*columns)

    def _consents(self, ids: Sequence[bytes]) -> dict[bytes, tuple[bytes, int]]:
        consent = self._tables.consent.c
        query = select(consent.grant_id, consent.consent_id, consent.deposited_at).where(consent.grant_id.in_(ids))
        with reading(self._engine) as connection:
            return {row.grant_id: (row.consent_id, row.deposited_at) for row in connection.execute(query)}


def _status(capability: Capability, acknowledged: bool, now: Millis) -> session_pb2.GrantStatus.ValueType:
    if capability.ended == Reason.GRANT_REVOKED:
        return session_pb2.GRANT_STATUS_REVOKED if acknowledged else session_pb2.GRANT_STATUS_REVOKING
    if capability.ended == Reason.GRANT_SUPERSEDED:
        return session_pb2.GRANT_STATUS_SUPERSEDED
    if now >= capability.grant.payload.expires_at:
        return session_pb2.GRANT_STATUS_EXPIRED
    if capability.endorsement is None:
        return session_pb2.GRANT_STATUS_PENDING
    word = capability.endorsement.payload
    if word.verdict != pb.ENDORSEMENT_VERDICT_ENDORSED:
        return _REFUSED.get(word.verdict, session_pb2.GRANT_STATUS_REFUSED)
    # The node renews it by itself while it is true.
    return session_pb2.GRANT_STATUS_ACTIVE if now < word.valid_until else session_pb2.GRANT_STATUS_PENDING

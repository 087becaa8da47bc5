"""Erasing at the broker, beside the running one or while none runs.

A revocation or delegation is pushed to the node of its grant, and a node asks again for the last push that it holds. So
a grant stays as long as something about it may still have to be pushed: until its node has acknowledged a revocation
that was recorded later.

Example::

    erased = await erase(settings, before, rule="before-2026-01-01", dry_run=False)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from sqlalchemy import Connection, Engine, MetaData, func, select

from permslip import statements as st
from permslip.armor import read_statement
from permslip.clock import system_clock
from permslip.hosting.database import migrate, open_engine, reading
from permslip.hosting.erasing import Erased, Erasing, Keep
from permslip.hosting.ledger import Ledger, LedgerReader
from permslip.quantities import Millis
from permslip_broker.configuration import BrokerSettings
from permslip_broker.schema import BrokerTables, broker_tables

__all__ = ["erase", "kept_for_pushes"]


async def erase(
    settings: BrokerSettings, before: int, *, rule: str, dry_run: bool, clock: Callable[[], Millis] = system_clock
) -> Erased:
    """Erase what was over before a moment; arguments and errors as :meth:`permslip.hosting.erasing.Erasing.erase`.

    Raises:
        ConfigurationError: the database cannot be used, or is not this broker's.
        UnavailableError: it holds no ledger yet.
    """
    cert = st.verify(st.KEY_CERT, read_statement(settings.cert_file, st.KEY_CERT), federation=settings.federation)
    engine = open_engine(settings.database, key="broker.database")
    try:
        await asyncio.to_thread(migrate, engine, "permslip_broker")
        tables = broker_tables(MetaData())
        # A broker that never ran has nothing to erase, and no ledger is to be begun for it.
        LedgerReader(engine, tables.ledger).read_head()
        ledger = await asyncio.to_thread(
            Ledger.open,
            engine,
            tables.ledger,
            federation=settings.federation,
            keeper=cert.payload.root,
            origin=settings.ledger_origin,
            clock=clock,
        )
        try:
            keep = await asyncio.to_thread(kept_for_pushes, engine, tables)
            erasing = Erasing(ledger, engine, tables.facts, tables.ledger, keep=keep)
            return await erasing.erase(before, rule=rule, dry_run=dry_run)
        finally:
            await ledger.close()
    finally:
        engine.dispose()


def kept_for_pushes(engine: Engine, tables: BrokerTables) -> Keep:
    """Which grants stay because of what their nodes may still have to be given.

    What nodes have acknowledged is read once, now: if they acknowledge more meanwhile, a little more stays.
    """
    revocation, delegation, grant = tables.revocation_fact.c, tables.facts.delegation_fact.c, tables.facts.grant_fact.c
    newest = select(revocation.node, func.max(revocation.position).label("position")).where(
        revocation.acknowledgement_id.is_not(None)
    )
    with reading(engine) as connection:
        held = {bytes(row.node): int(row.position) for row in connection.execute(newest.group_by(revocation.node))}

    def keep(connection: Connection, grants: Sequence[bytes]) -> set[bytes]:
        delegations = (
            select(grant.grant_id, grant.node, delegation.position)
            .join_from(tables.facts.grant_fact, tables.facts.delegation_fact, delegation.grant_id == grant.grant_id)
            .where(grant.grant_id.in_(grants))
        )
        of_grants = select(grant.grant_id, revocation.node, revocation.position).join_from(
            tables.facts.grant_fact, tables.revocation_fact, revocation.target_id == grant.grant_id
        )
        of_delegations = select(delegation.grant_id, revocation.node, revocation.position).join_from(
            tables.facts.delegation_fact, tables.revocation_fact, revocation.target_id == delegation.delegation_id
        )
        pushed = (
            delegations,
            of_grants.where(grant.grant_id.in_(grants)),
            of_delegations.where(delegation.grant_id.in_(grants)),
        )
        return {
            bytes(row.grant_id)
            for query in pushed
            for row in connection.execute(query)
            if row.position >= held.get(bytes(row.node), -1)
        }

    return keep

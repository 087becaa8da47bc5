"""Erasing at the node, beside the running one or while it is down.

What a broker has not confirmed yet is sent again from its own table; a grant stays as long as something about it stands
there, so that what the broker answers still finds it.

Example::

    erased = await erase(settings, before, rule="before-2026-01-01", dry_run=False)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from sqlalchemy import Connection, select

from permslip import statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.clock import system_clock
from permslip.hosting.erasing import Erased, Erasing
from permslip.hosting.ledger import LedgerReader
from permslip.quantities import Millis
from permslip_node import schema
from permslip_node.app import open_ledger, open_store
from permslip_node.configuration import NodeSettings
from permslip_node.identity import load_identity

__all__ = ["erase", "kept_for_brokers"]


async def erase(
    settings: NodeSettings, before: int, *, rule: str, dry_run: bool, clock: Callable[[], Millis] = system_clock
) -> Erased:
    """Erase what was over before a moment; arguments and errors as :meth:`permslip.hosting.erasing.Erasing.erase`.

    Raises:
        ConfigurationError: keys or database cannot be used.
        UnavailableError: the database holds no ledger yet.
    """
    identity = load_identity(settings, now=clock())
    with open_store(settings) as engine:
        # A node that never ran has nothing to erase, and no ledger is to be begun for it.
        LedgerReader(engine, schema.LEDGER).read_head()
        ledger = await asyncio.to_thread(open_ledger, settings, identity, engine, clock)
        try:
            erasing = Erasing(ledger, engine, schema.FACTS, schema.LEDGER, keep=kept_for_brokers)
            return await erasing.erase(before, rule=rule, dry_run=dry_run)
        finally:
            await ledger.close()


def kept_for_brokers(connection: Connection, grants: Sequence[bytes]) -> set[bytes]:
    """Which grants stay because a broker has not confirmed what was said about them."""
    outgoing, delegation = schema.outgoing.c, schema.FACTS.delegation_fact.c
    said = {_target(bytes(row.envelope)) for row in connection.execute(select(outgoing.envelope).distinct())}
    if not said:
        return set()
    below = select(delegation.delegation_id, delegation.grant_id).where(delegation.grant_id.in_(grants))
    found = {bytes(row.grant_id) for row in connection.execute(below) if bytes(row.delegation_id) in said}
    return found | (said & set(grants))


def _target(envelope: bytes) -> bytes:
    """The grant or delegation that an own statement is about; nothing for one that is about none."""
    parsed = pb.Envelope.FromString(envelope)
    if parsed.payload_type == st.ENDORSEMENT.payload_type:
        return bytes(pb.Endorsement.FromString(parsed.payload).grant_id)
    if parsed.payload_type == st.REVOCATION.payload_type:
        return bytes(pb.Revocation.FromString(parsed.payload).target_id)
    if parsed.payload_type == st.ACKNOWLEDGEMENT.payload_type:
        return bytes(pb.Acknowledgement.FromString(parsed.payload).target_id)
    return b""

"""This broker's ledger as files: which checkpoint they are for.

Example::

    export(settings, Path("tiles"), entries=False).tiles
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import MetaData

from permslip.clock import system_clock
from permslip.hosting.database import open_engine
from permslip.hosting.ledger import LedgerReader
from permslip.hosting.tile_export import Exported, export_tiles
from permslip.keyfile import Passphrase
from permslip_broker.app import read_identity
from permslip_broker.configuration import BrokerSettings
from permslip_broker.cosigned_store import ENOUGH, CosignedStore
from permslip_broker.schema import broker_tables

__all__ = ["export"]


def export(settings: BrokerSettings, folder: Path, *, entries: bool, passphrase: Passphrase | None = None) -> Exported:
    """Write tiles for the last checkpoint that enough witnesses cosigned, if the operator named them or it is the
    newest; else for the newest, signed by the broker alone.

    Raises:
        ConfigurationError: database, key or certificate cannot be used.
        UnavailableError: the broker never ran on this database.
        MalformedError: the folder cannot be used.
    """
    identity = read_identity(settings, now=system_clock(), passphrase=passphrase)
    engine = open_engine(settings.database, key="broker.database")
    try:
        tables = broker_tables(MetaData())
        ledger = LedgerReader(engine, tables.ledger)
        head = ledger.read_head()
        size, note = head.size, identity.checkpoint(head.size, head.root)
        kept = CosignedStore(engine, tables).read().get(ENOUGH)
        if kept is not None and (settings.witness_set_file is not None or kept.size == head.size):
            size, note = kept.size, identity.checkpoint(kept.size, kept.root) + kept.lines
        return export_tiles(ledger, folder, size, note, entries=entries)
    finally:
        engine.dispose()

"""How a broker is: read from its database, or asked of it while it runs.

Example::

    read_status(settings)["ledger_size"]
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
from sqlalchemy import MetaData

from permslip._pb.permslip.v1 import (
    auditor_pb2,
    auditor_pb2_grpc,
    operator_pb2,
    operator_pb2_grpc,
    session_pb2,
    session_pb2_grpc,
    statement_pb2 as pb,
)
from permslip.client.failures import error_of
from permslip.clock import system_clock
from permslip.errors import ConfigurationError
from permslip.greeting import make_hello
from permslip.hosting.database import open_engine, reading
from permslip.hosting.facts_store import FactStore
from permslip.hosting.ledger import read_head
from permslip.hosting.serving import channel_options
from permslip.keyfile import Passphrase, read_key_file
from permslip.keys import SigningKey, did_text
from permslip.notes import parse_signature_lines
from permslip_broker.app import read_identity
from permslip_broker.configuration import BrokerSettings
from permslip_broker.cosigned_store import ENOUGH, CosignedStore
from permslip_broker.identity import Identity
from permslip_broker.pushes import Pushes
from permslip_broker.schema import broker_tables
from permslip_broker.witness_choice import WitnessChoice, read_witness_set

__all__ = ["ask_status", "read_status"]

_PATIENCE = 10.0


def read_status(settings: BrokerSettings, *, passphrase: Passphrase | None = None) -> dict[str, Any]:
    """What the database says, with a checkpoint signed by the broker's key.

    Raises:
        ConfigurationError: database, key or certificate cannot be used.
        UnavailableError: the broker never ran on this database.
    """
    identity = read_identity(settings, now=system_clock(), passphrase=passphrase)
    engine = open_engine(settings.database, key="broker.database")
    try:
        tables = broker_tables(MetaData())
        with reading(engine) as connection:
            head = read_head(connection, tables.ledger)
        facts = FactStore(engine, tables.facts, tables.ledger)
        due = Pushes(engine, tables, facts).counts()
        return {
            "federation": settings.federation,
            "root": did_text(identity.root),
            "ledger_size": head.size,
            "root_hash": head.root.hex(),
            "grants": facts.count_grants(),
            "nodes": [{"root": did_text(node), "pushes_due": count} for node, count in sorted(due.items())],
            "witnesses": _witnesses(settings, identity, facts, CosignedStore(engine, tables)),
            "checkpoint": identity.checkpoint(head.size, head.root).decode(),
        }
    finally:
        engine.dispose()


def _witnesses(settings: BrokerSettings, identity: Identity, facts: FactStore, store: CosignedStore) -> dict[str, Any]:
    """Who must cosign checkpoints, and what was cosigned last."""
    choice = WitnessChoice(identity, facts, system_clock, read_witness_set(settings))
    kept = store.read().get(ENOUGH)
    lines = parse_signature_lines(kept.lines) if kept is not None and kept.lines else ()
    return {
        "pinned": choice.is_pinned,
        "needed": choice.needed,
        "of": choice.size,
        "cosigned_entries": kept.size if kept is not None else 0,
        "cosigned_at": kept.cosigned_at if kept is not None else 0,
        "cosigned_by": sorted({each.name for each in lines}),
    }


def ask_status(settings: BrokerSettings, operator_key: Path, *, passphrase: Passphrase | None = None) -> dict[str, Any]:
    """What the running broker says to the federation's operator.

    Raises:
        ConfigurationError: the configuration does not say which broker to ask.
        UnavailableError: it does not answer.
        RefusedError: it refused.
    """
    identity = read_identity(settings, now=system_clock(), passphrase=passphrase)
    key = read_key_file(operator_key, passphrase=passphrase).signing
    if settings.tls.certificate_file is not None:
        raise ConfigurationError(
            "a broker with TLS is asked through its public address.",
            key="broker.tls",
            remedy="Leave --operator-key out, and read the database.",
        )
    address = settings.listen
    if settings.ready_file is not None and settings.ready_file.exists():
        address = settings.ready_file.read_text(encoding="ascii").strip()
    try:
        return asyncio.run(_asked(settings, address, identity.root, key))
    except grpc.aio.AioRpcError as failure:
        raise error_of(failure) from failure


async def _asked(settings: BrokerSettings, address: str, broker: bytes, key: SigningKey) -> dict[str, Any]:
    async with grpc.aio.insecure_channel(address, options=channel_options()) as channel:
        sessions = session_pb2_grpc.SessionServiceStub(channel)
        given = await sessions.GetChallenge(
            session_pb2.GetChallengeRequest(federation=settings.federation), timeout=_PATIENCE
        )
        hello = make_hello(
            given.challenge,
            broker=broker,
            signer=pb.Signer(root=key.public.raw, key=key.public.raw),
            kind=pb.PRINCIPAL_KIND_OPERATOR,
            key=key,
            now=system_clock(),
        ).envelope
        said = await operator_pb2_grpc.OperatorServiceStub(channel).GetStatus(
            operator_pb2.GetStatusRequest(hello=hello), timeout=_PATIENCE
        )
        signed = await auditor_pb2_grpc.AuditorServiceStub(channel).GetCheckpoint(
            auditor_pb2.GetCheckpointRequest(hello=hello, ledger=broker), timeout=_PATIENCE
        )
    return {
        "federation": settings.federation,
        "root": did_text(broker),
        "ledger_size": said.ledger_size,
        "root_hash": said.root_hash.hex(),
        "grants": said.grants,
        "software_version": said.software_version,
        "started_at": said.started_at,
        "nodes": [
            {
                "root": did_text(node.root),
                "attached": node.attached,
                "last_tick_at": node.last_tick_at,
                "pushes_held": node.pushes_held,
                "pushes_due": node.pushes_due,
            }
            for node in said.nodes
        ],
        "checkpoint": signed.checkpoint.note.decode(),
    }

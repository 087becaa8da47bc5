"""A federation on the disk, before any of its processes run.

Everybody is admitted through a real broker that runs in this process for a moment. Grants and records, of which there
may be very many, are written by the real ledgers and the real record store, many at a time.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc.aio
from sqlalchemy import MetaData

from permslip import statements as st
from permslip._pb.permslip.v1 import operator_pb2, operator_pb2_grpc, statement_pb2 as pb
from permslip.armor import write_statements
from permslip.hosting.database import migrate, open_engine
from permslip.hosting.ledger import Ledger
from permslip.keyfile import PrincipalKind, StoredKeys, write_key_file
from permslip.keys import PublicKey
from permslip.quantities import Handle, Millis
from permslip_broker.app import open_broker
from permslip_broker.configuration import load_settings
from permslip_broker.development import make_development_broker
from permslip_broker.schema import broker_tables
from permslip_node import schema
from permslip_node.importing import ImportedRecord
from permslip_node.sql_sink import SqlSink
from tests.bench.bulk_grants import EndorsedGrant, endorsed_grant, record_in_bulk
from tests.bench.principals import Organization, now, organization, person, signer_of
from tests.bench.workload import FEDERATION, SECTION, grades

__all__ = ["Laid", "NodePlace", "lay_out", "write_node_config"]

Write = Callable[[Sequence[EndorsedGrant]], Awaitable[None]]

_OPERATOR: Final = "operator"
_IN_ONE_CALL: Final = 200
_AT_ONCE: Final = 1_000


@dataclass
class NodePlace:
    """One node on the disk.

    Attributes:
        itself: its keys.
        folder: where its files are.
        grant_ids: of the grants to the provider on its slices.
    """

    itself: Organization
    folder: Path
    grant_ids: list[bytes] = field(default_factory=list)

    @property
    def config(self) -> Path:
        """Its configuration file; written when the broker's port is known."""
        return self.folder / "node.toml"

    @property
    def origin(self) -> str:
        """Name of its ledger in checkpoints."""
        return f"{FEDERATION}/node/{self.folder.name}"


@dataclass
class Laid:
    """A federation on the disk.

    Attributes:
        folder: of all of it.
        broker_config: the broker's configuration file.
        broker: its root.
        at: when everybody's certificates were made.
        provider: to whom all grants are made out.
        guardian: who signed them, by name; see :func:`tests.bench.principals.person`.
        nodes: in the order of their numbers.
    """

    folder: Path
    broker_config: Path
    broker: PublicKey
    at: Millis
    provider: Organization
    guardian: str
    nodes: list[NodePlace]

    @property
    def operator(self) -> PublicKey:
        """The federation's operator."""
        return person(_OPERATOR).public


async def lay_out(folder: Path, *, nodes: int, grants: int, learners: int = 1, with_databases: bool = True) -> Laid:
    """Make a federation.

    Args:
        folder: an empty one.
        nodes: how many.
        grants: how many at each node, all to the one provider.
        learners: how many slices at each node hold records; grants are spread over them in turn.
        with_databases: the nodes are to run; else only the broker knows of them.
    """
    made = make_development_broker(
        folder / "broker",
        federation=FEDERATION,
        listen="127.0.0.1:0",
        now=now(),
        operator=person(_OPERATOR).public,
    )
    at = Millis(now() - 1000)
    laid = Laid(
        folder=folder,
        broker_config=made.config,
        broker=made.root,
        at=at,
        provider=organization("provider", FEDERATION, at=at),
        guardian="guardian",
        nodes=[
            NodePlace(organization(f"node {number}", FEDERATION, at=at), folder / f"node-{number}")
            for number in range(nodes)
        ],
    )
    await _admit_all(laid)
    async with AsyncExitStack() as stack:
        write = await _broker_ledger(stack, laid)
        for number, node in enumerate(laid.nodes):
            if with_databases:
                handles = _make_node(node, number, learners)
                await _record(laid, node, handles, grants, (write, await _node_ledger(stack, node)))
            else:
                await _record(laid, node, [os.urandom(16)], grants, (write,))
    return laid


async def _record(laid: Laid, node: NodePlace, handles: Sequence[bytes], grants: int, ledgers: Sequence[Write]) -> None:
    """Make the grants and record them, a portion at a time: there may be more than memory should hold."""
    guardian, grantee = person(laid.guardian), laid.provider.root.public.raw
    for start in range(0, grants, _AT_ONCE):
        some = [
            endorsed_grant(guardian, node.itself, grantee, handles[number % len(handles)], FEDERATION)
            for number in range(start, min(start + _AT_ONCE, grants))
        ]
        node.grant_ids += [each.grant.id for each in some]
        for write in ledgers:
            await write(some)


async def _admit_all(laid: Laid) -> None:
    operator = person(_OPERATOR)
    statements: list[pb.Envelope] = []
    everybody = [(laid.provider, pb.PRINCIPAL_KIND_PROVIDER)]
    everybody += [(node.itself, pb.PRINCIPAL_KIND_NODE) for node in laid.nodes]
    for number, (each, kind) in enumerate(everybody):
        admission = pb.Admission(
            federation=FEDERATION,
            nonce=os.urandom(16),
            created_at=laid.at,
            signer=signer_of(operator),
            root=each.root.public.raw,
            kind=kind,
            name=f"Organization {number}",
            agreement_id="bench",
        )
        statements += [st.sign(st.ADMISSION, admission, [operator]).envelope, each.cert.envelope]
    async with (
        open_broker(load_settings(laid.broker_config, {})) as broker,
        grpc.aio.insecure_channel(f"127.0.0.1:{broker.port}") as channel,
    ):
        stub = operator_pb2_grpc.OperatorServiceStub(channel)
        for start in range(0, len(statements), _IN_ONE_CALL):
            request = operator_pb2.AdmitRequest(statements=statements[start : start + _IN_ONE_CALL])
            response = await stub.Admit(request)
            if any(each.refusal.code != pb.REASON_ALLOWED for each in response.results):
                raise RuntimeError(f"not everybody was admitted: {response}")


async def _broker_ledger(stack: AsyncExitStack, laid: Laid) -> Write:
    settings = load_settings(laid.broker_config, {})
    engine = open_engine(settings.database)
    tables = broker_tables(MetaData())
    ledger = Ledger.open(
        engine,
        tables.ledger,
        federation=FEDERATION,
        keeper=laid.broker.raw,
        origin=settings.ledger_origin,
        clock=now,
    )
    stack.callback(engine.dispose)
    stack.push_async_callback(ledger.close)
    return lambda grants: record_in_bulk(ledger, tables.facts, grants, consent=tables.consent)


async def _node_ledger(stack: AsyncExitStack, node: NodePlace) -> Write:
    engine = open_engine(_database(node))
    ledger = Ledger.open(
        engine,
        schema.LEDGER,
        federation=FEDERATION,
        keeper=node.itself.root.public.raw,
        origin=node.origin,
        clock=now,
    )
    stack.callback(engine.dispose)
    stack.push_async_callback(ledger.close)
    return lambda grants: record_in_bulk(ledger, schema.FACTS, grants)


def _database(node: NodePlace) -> str:
    return f"sqlite:///{node.folder / 'node.db'}"


def _make_node(node: NodePlace, number: int, learners: int) -> list[Handle]:
    """Keys, certificate, database and records of one node; the handles of its learners."""
    node.folder.mkdir()
    itself = node.itself
    write_key_file(node.folder / "node.key", StoredKeys(PrincipalKind.NODE, itself.key, itself.sealing))
    write_statements(node.folder / "node.cert", [itself.cert.envelope])
    engine = open_engine(_database(node))
    migrate(engine, "permslip_node")
    sink = SqlSink(engine, clock=now)
    handles: list[Handle] = []
    for learner in range(learners):
        handle = sink.learner(f"learner {learner}")
        rows = [
            ImportedRecord(
                handle, each.record_id, SECTION, each.observed_on, each.SerializeToString(deterministic=True)
            )
            for each in grades(b"node %d learner %d" % (number, learner))
        ]
        sink.put_records(rows)
        handles.append(handle)
    engine.dispose()
    return handles


def write_node_config(laid: Laid, node: NodePlace, broker_address: str) -> None:
    """Once it is known where the broker listens."""
    node.config.write_text(
        f"""\
[node]
name = "{node.folder.name}"
federation = "{FEDERATION}"
operator = "{laid.operator.did}"
root = "{node.itself.root.public.did}"
key_file = "node.key"
cert_file = "node.cert"
database = "{_database(node)}"
brokers = ["{broker_address}={laid.broker.did}"]
origin = "{node.origin}"
ready_file = "node.ready"
""",
        encoding="utf-8",
    )

"""A broker, wired: database, ledger, facts, services, server.

Start: configuration → database (migrated) → ledger → facts → services → listening. A restart loses nothing: everything
that was acknowledged is in the database, and what must be remembered beside it (which queries were decided in the last
minutes) is read from the ledger's tail.

End (SIGTERM): health says not serving; requesters and nodes are told; open answers get their time; then streams end,
the ledger is written to its last entry, and the process exits with 0.

Example::

    async with open_broker(settings, clock=now) as broker:
        print(broker.port)
        await stop.wait()
        await broker.drain()
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from sqlalchemy import MetaData

from permslip import statements as st
from permslip._pb.permslip.v1 import auditor_pb2, guardian_pb2, node_pb2, operator_pb2, provider_pb2, session_pb2
from permslip.armor import read_statement
from permslip.clock import system_clock
from permslip.errors import ConfigurationError
from permslip.hosting.database import migrate, open_engine
from permslip.hosting.facts_store import FactStore
from permslip.hosting.last_cosigned import LastCosigned
from permslip.hosting.ledger import Ledger
from permslip.hosting.ledger_pages import LedgerPages
from permslip.hosting.logs import get_log
from permslip.hosting.metrics import Metrics, exposed
from permslip.hosting.serving import Service, Tls
from permslip.hosting.tile_serving import TilePages
from permslip.keyfile import Passphrase, PrincipalKind, read_key_file
from permslip.keys import PublicKey
from permslip.quantities import Millis
from permslip_broker.accesses import Accesses
from permslip_broker.announcements import Announcements
from permslip_broker.attach import Attach
from permslip_broker.attachments import Attachments
from permslip_broker.auditors import Auditors
from permslip_broker.checkpoints import GivenCheckpoints
from permslip_broker.configuration import BrokerSettings, LimitSettings, TlsSettings
from permslip_broker.cosigned_store import CosignedStore
from permslip_broker.deciding import Deciding, restore_replays
from permslip_broker.deposits import Deposits
from permslip_broker.effects import Effects
from permslip_broker.exchange import Exchange
from permslip_broker.grant_states import GrantStates
from permslip_broker.greetings import Greetings
from permslip_broker.guardians import Guardians
from permslip_broker.identity import Identity, make_identity
from permslip_broker.ledger_calls import LedgerCalls
from permslip_broker.links import Links
from permslip_broker.measures import watch_broker, watch_witnessing
from permslip_broker.methods import add_methods
from permslip_broker.node_checkpoints import NodeCheckpoints
from permslip_broker.operators import Operators
from permslip_broker.own_grants import OwnGrants
from permslip_broker.providers import Providers
from permslip_broker.pushes import Pushes
from permslip_broker.recording import Recorder
from permslip_broker.refused_requests import RefusedRequests
from permslip_broker.replays import Replays
from permslip_broker.routing import Routing
from permslip_broker.routing_limits import RoutingLimits
from permslip_broker.schema import broker_tables
from permslip_broker.sessions import Sessions
from permslip_broker.waiting import Waiting
from permslip_broker.witness_choice import WitnessChoice, read_witness_set
from permslip_broker.witnessing import Witnessing

__all__ = ["Broker", "open_broker", "read_identity"]

_log = get_log(__name__)


@dataclass(frozen=True, slots=True)
class Broker:
    """A running broker.

    Attributes:
        identity: its names and keys.
        port: where it listens.
        ledger, routing, attachments: what others may look at.
    """

    identity: Identity
    port: int
    ledger: Ledger
    routing: Routing
    attachments: Attachments
    recorder: Recorder
    auditors: Auditors
    witnessing: Witnessing
    service: Service
    limits: LimitSettings

    async def drain(self) -> None:
        """End in order; returns when nothing is left to be done."""
        self.routing.drain()
        self.auditors.end()
        closing = asyncio.ensure_future(self.service.drain(self.limits.drain_seconds))
        try:
            async with asyncio.timeout(self.limits.drain_seconds):
                await self.routing.idle()
        except TimeoutError:
            _log.warning("answers_cut_off", open=self.routing.open_queries)
        self.routing.close()
        for node in self.attachments:
            node.outbox.put(node_pb2.BrokerFrame(draining=provider_pb2.Draining()))
            node.end(None)
        await closing
        await self.recorder.settle()


@asynccontextmanager
async def open_broker(
    settings: BrokerSettings,
    *,
    clock: Callable[[], Millis] = system_clock,
    passphrase: Passphrase | None = None,
    routing_limits: RoutingLimits | None = None,
) -> AsyncIterator[Broker]:
    """Run a broker while the block lasts.

    Args:
        settings: checked.
        clock: UTC milliseconds; called from several threads.
        passphrase: of a protected key file.
        routing_limits: other bounds than those of ``settings.limits``.

    Raises:
        ConfigurationError: something is wrong with files, keys or database; names the key.
        KeyFileError: the key file cannot be used.
    """
    identity = read_identity(settings, now=clock(), passphrase=passphrase)
    witness_set = read_witness_set(settings)
    metrics = Metrics()
    engine = open_engine(settings.database, key="broker.database")
    with ExitStack() as resources:
        resources.callback(engine.dispose)
        await asyncio.to_thread(migrate, engine, "permslip_broker")
        tables = broker_tables(MetaData())
        ledger = await asyncio.to_thread(
            Ledger.open,
            engine,
            tables.ledger,
            federation=settings.federation,
            keeper=identity.root,
            origin=settings.ledger_origin,
            clock=clock,
            on_batch=metrics.batch_appended,
        )
        facts = FactStore(engine, tables.facts, tables.ledger)
        recorder = Recorder(ledger, facts)
        limits = routing_limits or _routing_limits(settings.limits)
        refusals = RefusedRequests(recorder, clock, per_second=settings.limits.refusals_per_second)
        attachments, announcements = Attachments(), Announcements()
        attachments.on_change(announcements.announce)
        greetings = Greetings(identity, facts, clock)
        replays = Replays()
        restored = await asyncio.to_thread(restore_replays, ledger, replays, now=clock())
        deciding = Deciding(settings.federation, facts, replays, clock)
        routing = Routing(deciding, recorder, attachments, refusals, limits)
        pushes = Pushes(engine, tables, facts)
        waiting = Waiting(
            per_signer=settings.limits.waiting_grants_per_signer, per_node=settings.limits.waiting_grants_per_node
        )
        deposits = Deposits(identity, facts, recorder, pushes, tables, refusals, waiting, clock)
        deposits.on_recorded(Effects(attachments, routing, announcements).take)
        links = Links(within=settings.limits.link_seconds)
        states = GrantStates(engine, tables, facts, clock)
        own_grants = OwnGrants(facts)
        ledger_calls = LedgerCalls(attachments, within=settings.limits.link_seconds)
        witnessing = Witnessing(
            identity,
            WitnessChoice(identity, facts, clock, witness_set),
            ledger,
            CosignedStore(engine, tables),
            attachments,
            clock=clock,
            every=settings.ledger.checkpoint_ms / 1_000,
        )
        node_checkpoints = NodeCheckpoints(
            identity,
            facts,
            ledger_calls,
            LastCosigned(engine, tables.node_checkpoint, "node"),
            recorder,
            attachments,
            clock=clock,
            every=settings.ledger.node_checkpoint_s,
        )
        auditors = Auditors(
            identity=identity,
            greetings=greetings,
            facts=facts,
            pages=LedgerPages(ledger, engine, tables.facts, tables.ledger),
            calls=ledger_calls,
            checkpoints=GivenCheckpoints(ledger, witnessing, node_checkpoints),
        )
        watch_broker(metrics, routing, refusals, attachments)
        watch_witnessing(metrics, witnessing, node_checkpoints)
        metrics.watch_ledger(lambda: ledger.size)

        handlers = {
            session_pb2.DESCRIPTOR.services_by_name["SessionService"]: Sessions(
                identity, greetings, facts, attachments
            ),
            operator_pb2.DESCRIPTOR.services_by_name["OperatorService"]: Operators(
                greetings=greetings,
                deposits=deposits,
                ledger=ledger,
                facts=facts,
                pushes=pushes,
                attachments=attachments,
                clock=clock,
            ),
            guardian_pb2.DESCRIPTOR.services_by_name["GuardianService"]: Guardians(
                identity=identity,
                greetings=greetings,
                deposits=deposits,
                facts=facts,
                states=states,
                own_grants=own_grants,
                accesses=Accesses(identity, engine, tables, ledger, own_grants),
                witnessing=witnessing,
                attachments=attachments,
                announcements=announcements,
                links=links,
                ledger_calls=ledger_calls,
            ),
            provider_pb2.DESCRIPTOR.services_by_name["ProviderService"]: Providers(
                greetings=greetings,
                exchange=Exchange(greetings, routing, limits),
                deposits=deposits,
                facts=facts,
                states=states,
            ),
            node_pb2.DESCRIPTOR.services_by_name["NodeService"]: Attach(
                identity=identity,
                engine=engine,
                ledger=ledger,
                facts=facts,
                greetings=greetings,
                attachments=attachments,
                pushes=pushes,
                deposits=deposits,
                routing=routing,
                links=links,
                witnessing=witnessing,
                ledger_calls=ledger_calls,
                limits=limits,
                clock=clock,
            ),
            auditor_pb2.DESCRIPTOR.services_by_name["AuditorService"]: auditors,
        }
        if settings.metrics.listen:
            host, _, port = settings.metrics.listen.rpartition(":")
            pages = TilePages(lambda: _published(witnessing), ledger)
            resources.enter_context(exposed(metrics, host, int(port), pages=pages))

        def adding(descriptor: ServiceDescriptor, handler: object) -> Callable[[grpc.aio.Server], None]:
            return lambda server: add_methods(server, descriptor, handler, refusals)

        await witnessing.open()
        asking_nodes = asyncio.ensure_future(node_checkpoints.keep())
        service = await Service.start(
            settings.listen,
            {descriptor.full_name: adding(descriptor, handler) for descriptor, handler in handlers.items()},
            tls=_tls(settings.tls),
            metrics=metrics,
            key="broker.listen",
        )
        _log.info("broker_started", ledger_size=ledger.size, recent_queries=restored, port=service.port)
        broker = Broker(
            identity,
            service.port,
            ledger,
            routing,
            attachments,
            recorder,
            auditors,
            witnessing,
            service,
            settings.limits,
        )
        try:
            yield broker
        finally:
            routing.close()
            for node in attachments:
                node.end(None)
            await service.drain(0)
            await recorder.settle()
            asking_nodes.cancel()
            await asyncio.gather(asking_nodes, return_exceptions=True)
            await witnessing.close()
            await ledger.close()


def read_identity(settings: BrokerSettings, *, now: Millis, passphrase: Passphrase | None = None) -> Identity:
    """Key and certificate of a broker, from its files.

    Raises:
        ConfigurationError: they do not belong together, or are not a broker's.
        KeyFileError: the key file cannot be used.
        MalformedError: the certificate's file cannot be read.
    """
    keys = read_key_file(settings.key_file, passphrase=passphrase)
    if keys.kind != PrincipalKind.BROKER:
        raise ConfigurationError(f"holds the key of a {keys.kind}, not of a broker.", key="broker.key_file")
    cert = st.verify(st.KEY_CERT, read_statement(settings.cert_file, st.KEY_CERT), federation=settings.federation)
    if settings.root is not None and PublicKey.from_did(settings.root).raw != cert.payload.root:
        raise ConfigurationError("is not by the root in broker.root.", key="broker.cert_file")
    return make_identity(
        federation=settings.federation,
        operator=PublicKey.from_did(settings.operator),
        cert=cert,
        key=keys.signing,
        sealing=keys.sealing,
        origin=settings.ledger_origin,
        now=now,
    )


def _published(witnessing: Witnessing) -> tuple[int, bytes] | None:
    published = witnessing.published
    return None if published is None else (published.size, published.note)


def _routing_limits(limits: LimitSettings) -> RoutingLimits:
    return RoutingLimits(
        max_open=limits.open_queries,
        default_deadline=limits.default_deadline_ms,
        max_deadline=limits.max_deadline_ms,
        high_water=limits.requester_bytes,
        memory=limits.memory_bytes,
        first_credit=limits.first_credit_bytes,
        answer_credit=limits.answer_credit_bytes,
    )


def _tls(tls: TlsSettings) -> Tls | None:
    if tls.certificate_file is None or tls.key_file is None:
        if tls.certificate_file is not None or tls.key_file is not None:
            raise ConfigurationError("certificate_file and key_file belong together.", key="broker.tls")
        return None
    return Tls(tls.certificate_file, tls.key_file, tls.client_ca_file)

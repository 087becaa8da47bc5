"""A running node: its parts put together, started, kept, and ended in order.

Example::

    async with open_node(settings) as node:
        await stop.wait()
        await node.drain()
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any, Final

from sqlalchemy import Engine

from permslip._pb.permslip.v1 import node_pb2
from permslip.clock import system_clock
from permslip.errors import ConfigurationError, PermslipError
from permslip.hosting import database
from permslip.hosting.facts_store import FactStore
from permslip.hosting.ledger import Ledger
from permslip.hosting.logs import get_log
from permslip.hosting.metrics import Metrics, exposed
from permslip.quantities import Millis
from permslip.reasons import Reason
from permslip.statements import Signed
from permslip_node import schema
from permslip_node.answering import Answerer
from permslip_node.attach import Attachment
from permslip_node.configuration import NodeSettings
from permslip_node.deciding import Decider, decided_lately
from permslip_node.endorsing import Endorser
from permslip_node.identity import Identity, load_identity
from permslip_node.instance import claim, note_noticed
from permslip_node.ledger_answers import LedgerAnswers
from permslip_node.majority import Majorities
from permslip_node.pushes import Pushes
from permslip_node.recording import Recording
from permslip_node.records_store import RecordsStore
from permslip_node.rotation import Rotation
from permslip_node.slice_answers import SliceAnswers
from permslip_node.slips import Slips
from permslip_node.streams import BrokerStream
from permslip_node.uses import forget_open_answers
from permslip_node.witness_store import WitnessStore
from permslip_node.witnessing import Witness

__all__ = ["RunningNode", "boot_millis", "ledger_origin", "open_ledger", "open_node", "open_store"]

_log = get_log(__name__)

_SECOND_MS: Final = 1_000


def boot_millis() -> int:
    """Milliseconds of a clock that never jumps and also runs while the machine sleeps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


@contextmanager
def open_store(settings: NodeSettings) -> Iterator[Engine]:
    """The node's database, with the schema of this software."""
    engine = database.open_engine(settings.database, key="node.database")
    try:
        database.migrate(engine, "permslip_node")
        yield engine
    finally:
        engine.dispose()


def ledger_origin(settings: NodeSettings, identity: Identity) -> str:
    """The name of the node's ledger in checkpoints."""
    return settings.origin or f"{settings.federation}/node/{identity.root.hex()[:16]}"


def open_ledger(
    settings: NodeSettings,
    identity: Identity,
    engine: Engine,
    clock: Callable[[], Millis],
    on_batch: Callable[[int, float], None] | None = None,
) -> Ledger:
    """The node's own ledger."""
    return Ledger.open(
        engine,
        schema.LEDGER,
        federation=identity.federation,
        keeper=identity.root,
        origin=ledger_origin(settings, identity),
        clock=clock,
        on_batch=on_batch,
    )


class RunningNode:
    """The parts of one node. Made by :func:`open_node`.

    Args:
        settings: what it was told.
        identity: who it is.
        engine: its database.
        ledger: its ledger, open.
        clock: UTC milliseconds now.
        monotonic: see :func:`boot_millis`.
        metrics: its instruments.
    """

    def __init__(
        self,
        settings: NodeSettings,
        identity: Identity,
        engine: Engine,
        ledger: Ledger,
        *,
        clock: Callable[[], Millis],
        monotonic: Callable[[], int],
        metrics: Metrics,
    ) -> None:
        self.settings, self.identity, self.engine, self.ledger = settings, identity, engine, ledger
        self.clock, self.monotonic, self.metrics = clock, monotonic, metrics
        addresses = settings.broker_addresses
        self.facts = FactStore(engine, schema.FACTS, schema.LEDGER)
        self.recording = Recording(engine, ledger, self.facts, [each.root for each in addresses])
        self.recording.on_word(self._send_word)
        self.store = RecordsStore(engine)
        decider = Decider(identity.root, engine, self.facts, clock=clock, seen=decided_lately(ledger, clock()))
        self.answerer = Answerer(
            identity,
            self.store,
            self.recording,
            decider,
            limits=settings.limits,
            clock=clock,
            monotonic=monotonic,
            metrics=metrics,
        )
        self.pushes = Pushes(identity, engine, self.recording, self._stop, clock=clock)
        self.endorser = Endorser(identity, engine, self.recording, default_rule=settings.quorum, clock=clock)
        self.majorities = Majorities(identity.root, engine, self.recording, self.endorser, clock=clock)
        self.rotation = Rotation(identity, self.recording, self.endorser, clock=clock)
        self.slips = Slips(
            identity,
            engine,
            self.endorser,
            tries=settings.limits.slip_tries,
            default_rule=settings.quorum,
            clock=clock,
        )
        origin = ledger_origin(settings, identity)
        self.ledger_answers = LedgerAnswers(identity, engine, self.recording, origin=origin, clock=clock)
        self.slice_answers = SliceAnswers(
            identity,
            engine,
            self.recording,
            origin=origin,
            default_rule=settings.quorum,
            clock=clock,
        )
        self.witness = Witness(
            identity,
            WitnessStore(engine),
            self.recording,
            self.recording.brokers,
            clock=clock,
            monotonic=monotonic,
            metrics=metrics,
        )
        self.streams: list[BrokerStream] = []
        self.attachments = [Attachment(each, self) for each in addresses]
        self.fit = asyncio.Event()
        """Set once this node may answer for the first time."""
        metrics.watch_ledger(lambda: ledger.size)
        metrics.watch_lease(self._lease_age)

    def became_fit(self) -> None:
        """A lease is fresh."""
        if self.fit.is_set():
            return
        self.fit.set()
        _log.info("may_answer", root=self.identity.root.hex())
        if self.settings.ready_file is not None:
            self.settings.ready_file.write_text(f"{self.identity.cert.payload.root.hex()}\n", encoding="ascii")

    def send_unconfirmed(self, stream: BrokerStream) -> None:
        """Tell a broker what it has not confirmed."""
        for envelope in self.recording.unconfirmed(stream.broker):
            stream.put(node_pb2.NodeFrame(statement=envelope))

    async def notice(self) -> None:
        """Look for what other processes wrote into the database, and act on it."""
        if not self.recording.notice():
            return
        for stream in self.streams:
            await stream.settled(answer_subjects(stream))
            self.send_unconfirmed(stream)
        await self.recording.aside(note_noticed, self.engine, self.facts.position)
        _log.info("noticed", position=self.facts.position)

    async def keep_watch(self) -> None:
        """Notice what others do, again and again."""
        while True:
            await self._carefully("notice", self.notice())
            await asyncio.sleep(self.settings.timing.notice_ms / _SECOND_MS)

    async def come_of_age(self) -> None:
        """Let authority pass to the learners whose day has come."""
        await self._carefully("majority", self._come_of_age())

    async def keep_of_age(self) -> None:
        """Let authority pass on the very day, again and again."""
        while True:
            await self.come_of_age()
            await asyncio.sleep(self.settings.timing.notice_ms / _SECOND_MS)

    async def keep_true(self) -> None:
        """Renew endorsements that end soon, and erase secrets that are over, again and again."""
        while True:
            await self._carefully("renew", self._renew())
            await asyncio.sleep(self.settings.timing.renew_s)

    async def drain(self) -> None:
        """Take no new queries, let open answers end, then end the streams."""
        await self.answerer.drain(self.settings.timing.drain_s)
        for attachment in self.attachments:
            attachment.end()

    async def _renew(self) -> None:
        renewed = await self.endorser.renew_due()
        erased = await self.recording.aside(self.slips.erase_ended)
        if renewed or erased:
            _log.info("kept_true", endorsements_renewed=renewed, slips_erased=erased)

    async def _come_of_age(self) -> None:
        while await self.majorities.look():
            pass

    async def _carefully(self, what: str, work: Coroutine[Any, Any, None]) -> None:
        """Whatever fails now may succeed the next time."""
        try:
            await work
        except PermslipError as error:
            _log.error("background_work_failed", what=what, error=type(error).__name__, detail=error.message)

    async def _stop(self, target: bytes, reason: Reason) -> None:
        self.answerer.stop_under([target], reason)
        for stream in self.streams:
            await stream.settled([target])

    def _send_word(self, signed: Signed[Any]) -> None:
        for stream in self.streams:
            stream.put(node_pb2.NodeFrame(statement=signed.envelope))

    def _lease_age(self) -> float:
        ages = [stream.lease.age(self.monotonic()) / _SECOND_MS for stream in self.streams]
        return min(ages, default=float("inf"))


@asynccontextmanager
async def open_node(
    settings: NodeSettings,
    *,
    clock: Callable[[], Millis] = system_clock,
    monotonic: Callable[[], int] = boot_millis,
) -> AsyncIterator[RunningNode]:
    """Start a node; it ends with the block.

    Args:
        settings: checked.
        clock: UTC milliseconds now.
        monotonic: see :func:`boot_millis`.

    Raises:
        ConfigurationError: keys, database or addresses cannot be used, or this node is running already.
    """
    with ExitStack() as stack:
        identity = load_identity(settings, now=clock())
        engine = stack.enter_context(open_store(settings))
        stack.enter_context(claim(engine, identity.root))
        metrics = Metrics()
        if settings.metrics.listen:
            host, _, port = settings.metrics.listen.rpartition(":")
            if not port.isdigit():
                raise ConfigurationError("expected HOST:PORT.", key="node.metrics.listen")
            stack.enter_context(exposed(metrics, host.strip("[]"), int(port)))
        with database.writing(engine) as connection:
            interrupted = forget_open_answers(connection)
        ledger = open_ledger(settings, identity, engine, clock, metrics.batch_appended)
        node = RunningNode(settings, identity, engine, ledger, clock=clock, monotonic=monotonic, metrics=metrics)
        stack.callback(node.store.close)
        _log.info(
            "node_started",
            name=settings.name,
            root=identity.root.hex(),
            ledger_size=ledger.size,
            interrupted_answers=interrupted,
        )
        # Whoever came of age while the node was down: before anybody can ask.
        await node.come_of_age()
        tasks = [asyncio.ensure_future(each) for each in (node.keep_watch(), node.keep_true(), node.keep_of_age())]
        attached = [asyncio.ensure_future(each.keep()) for each in node.attachments]
        try:
            yield node
            for attachment in node.attachments:
                attachment.end()
            await asyncio.wait(attached, timeout=settings.timing.drain_s) if attached else None
        finally:
            for task in (*tasks, *attached):
                task.cancel()
            await asyncio.gather(*tasks, *attached, return_exceptions=True)
            await node.witness.close()
            await node.recording.close()
            await ledger.close()
            _log.info("node_stopped")


def answer_subjects(stream: BrokerStream) -> list[bytes]:
    """What the answers that are leaving through a stream, and were stopped, depend on."""
    return [subject for answer in stream.leaving() if answer.stopped != Reason.ALLOWED for subject in answer.subjects]

"""Watching real ledgers: silence while all is right, an alert as soon as a broker logs what is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from permslip._pb.permslip.v1 import ledger_pb2, statement_pb2 as pb
from permslip.auditing.alerts import Alert
from permslip.auditing.bundle import Bundle
from permslip.auditing.codes import Code
from permslip.auditing.feeding import ClientFeed
from permslip.auditing.fetching import new_meta
from permslip.auditing.replaying import replay
from permslip.auditing.results import Result, Trust
from permslip.auditing.stopping import Stop
from permslip.auditing.verifying import verify
from permslip.auditing.watching import Watch
from permslip.client.auditing import AsyncAuditorClient
from permslip.hosting.drafts import Draft
from permslip.keyfile import PrincipalKind, StoredKeys
from permslip.keys import did_text
from permslip.reasons import Reason
from tests.e2e.broker.small_federation import FEDERATION, SmallFederation
from tests.federation.consents import Asked
from tests.federation.principals import Organization, admit

PATIENCE = 30.0


class Watching:
    """A watch that goes on beside the test.

    Attributes:
        told: its alerts, as they come.
        grown: set whenever it looked at new entries.
    """

    def __init__(self, federation: SmallFederation, client: AsyncAuditorClient, bundle: Bundle) -> None:
        self.trust = Trust(FEDERATION, broker_root=federation.root, operator=federation.operator.public)
        self.bundle, self.stop = bundle, Stop()
        self.told: asyncio.Queue[Alert] = asyncio.Queue()
        self.grown = asyncio.Event()
        self.watch = Watch(
            ClientFeed(client, bundle, self.trust, nodes=[]),
            bundle,
            self.trust,
            tell=self.told.put_nowait,
            stop=self.stop,
            every=0.05,
            progress=lambda *_: self.grown.set(),
        )

    async def until_at(self, size: int) -> None:
        """Wait until so many of the broker's entries were looked at."""
        async with asyncio.timeout(PATIENCE):
            while sum(each.fetched for each in self.bundle.ledgers()) < size:
                self.grown.clear()
                await self.grown.wait()


@asynccontextmanager
async def watching(federation: SmallFederation, path: Path) -> AsyncIterator[tuple[Watching, asyncio.Task[Result]]]:
    auditor = Organization.new("State Auditor", pb.PRINCIPAL_KIND_AUDITOR, FEDERATION, now=federation.now())
    await federation.admit(admit(federation.operator, auditor, now=federation.now()), auditor.cert)
    client = AsyncAuditorClient(
        broker=federation.address,
        broker_root=did_text(federation.root),
        federation=FEDERATION,
        operator=did_text(federation.operator.public),
        keys=StoredKeys(PrincipalKind.AUDITOR, auditor.key, auditor.sealing),
        cert=auditor.cert.envelope,
        now=federation.now,
    )
    async with client:
        with Bundle.create(path, await new_meta(client)) as bundle:
            made = Watching(federation, client, bundle)
            task = asyncio.create_task(made.watch.run())
            try:
                yield made, task
            finally:
                made.stop.ask()
                await task


async def access(federation: SmallFederation) -> Asked:
    """An access at a school, answered; the query."""
    async with federation.attached() as node, federation.requester(federation.tutor) as tutor:
        grant = await federation.endorsed_grant()
        query = federation.query(federation.tutor, grant)
        await tutor.ask(query)
        assert node is not None
    await federation.broker.recorder.settle()
    return query


async def test_honest_accesses_are_looked_at_in_silence(federation: SmallFederation, tmp_path: Path) -> None:
    async with watching(federation, tmp_path / "audit.db") as (watch, task):
        for _ in range(3):
            await access(federation)
            await watch.until_at(federation.broker.ledger.size)
        watch.stop.ask()
        result = await task

        assert (result.word, watch.told.qsize()) == ("clean", 0)
        assert result.counts["decisions"] == 3
        assert verify(watch.bundle, watch.trust).faults == 0
        assert replay(watch.bundle, watch.trust).faults == 0


async def test_a_wrong_verdict_is_told_as_soon_as_the_broker_logs_it(
    federation: SmallFederation, tmp_path: Path
) -> None:
    async with watching(federation, tmp_path / "audit.db") as (watch, task):
        query = await access(federation)
        await watch.until_at(federation.broker.ledger.size)
        size = federation.broker.ledger.size
        lie = ledger_pb2.AccessDecided(
            query_id=query.id,
            envelope_sha256=query.query.sha256,
            requester=query.query.payload.signer,
            grant_id=query.query.payload.grant_id,
            action=query.query.payload.action,
            purpose=pb.PURPOSE_TUTORING,
            reason=Reason.ALLOWED.wire,
            decided_at=federation.now(),
            facts_position=size,
        )
        slice_ = (federation.school.root, federation.handle)
        await federation.broker.ledger.append(Draft("access_decided", lie, slice=slice_))

        async with asyncio.timeout(PATIENCE):
            alert = await watch.told.get()
        watch.stop.ask()
        result = await task

    assert (alert.code, alert.position) == (Code.VERDICT_DIFFERS, size)
    assert result.exit_code == 1

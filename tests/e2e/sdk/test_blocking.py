"""The clients without ``await`` do what their twins do, from any thread."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from permslip import Client, GuardianClient, OperatorClient, RefusedError, StoredKeys, Wallet
from permslip._pb.permslip.v1 import provider_pb2
from permslip.client.timeouts import Timeout
from permslip.keyfile import PrincipalKind
from tests.e2e.sdk.simulated import Asked, SimulatedBroker, World, attendance, seal
from tests.e2e.sdk.three_schools import CHILD, TERMS, ThreeSchools

pytestmark = pytest.mark.e2e

T = TypeVar("T")
PATIENT = Timeout(connect=20, call=20, answer=20)


async def elsewhere(function: Callable[[], T]) -> T:
    """In a thread: the broker lives in this one's event loop."""
    return await asyncio.to_thread(function)


async def test_a_provider_reads_without_await(world: World, broker: SimulatedBroker) -> None:
    for number in range(5):
        world.consent(f"learner-{number}", "Lincoln")

    def read() -> tuple[int, int, set[str], int, int]:
        with Client(**broker.trust(), keys=world.provider.keys, cert=world.provider.cert, timeout=PATIENT) as client:
            grants = list(client.grants())
            one = client.profile("learner-1")
            many = {each.reference for each in client.profiles([f"learner-{number}" for number in range(5)])}
            entries = list(client.records("learner-1", section="personal.attendance"))
            return len(grants), len(one.attendance), many, len(entries), len(client.organizations())

    grants, records, many, entries, organizations = await elsewhere(read)

    assert (grants, records, entries, organizations) == (5, 3, 3, 4)
    assert many == {f"learner-{number}" for number in range(5)}
    assert broker.streams_opened == 1
    assert not [each for each in threading.enumerate() if each.name == "permslip-client"]


async def test_several_threads_share_one_stream(world: World, broker: SimulatedBroker) -> None:
    world.consent("learner-1", "Lincoln")

    def read() -> int:
        with (
            Client(**broker.trust(), keys=world.provider.keys, cert=world.provider.cert, timeout=PATIENT) as client,
            ThreadPoolExecutor(4) as pool,
        ):
            return sum(pool.map(lambda _: len(client.profile("learner-1").attendance), range(8)))

    assert await elsewhere(read) == 24
    assert broker.streams_opened == 1


async def test_leaving_an_iterator_early_cancels_the_query(world: World, broker: SimulatedBroker) -> None:
    async def endless(asked: Asked) -> AsyncIterator[provider_pb2.Answer]:
        sealed = seal(asked, [attendance(number, text="x" * 4000) for number in range(45)], per_chunk=10)
        yield asked.piece(opening=sealed.opening, chunks=sealed.chunks[:1])

    world.consent("learner-1", "Lincoln")
    broker.script = endless

    cancelled = threading.Event()

    def read() -> str:
        with Client(**broker.trust(), keys=world.provider.keys, cert=world.provider.cert, timeout=PATIENT) as client:
            for entry in client.records("learner-1", section="personal.attendance"):
                name = entry.node_name
                break
            gc.collect()  # on an interpreter that does not end an abandoned iterator at once
            # Closing the client would end the query as well; it is the iterator that has to.
            cancelled.wait(60)
        return name

    reading = asyncio.ensure_future(elsewhere(read))
    assert await broker.cancelled.get() == broker.queries[0].id
    cancelled.set()
    assert await reading == "Lincoln"


async def test_errors_are_the_products_own(world: World, broker: SimulatedBroker) -> None:
    def read() -> None:
        with Client(**broker.trust(), keys=world.provider.keys, cert=world.provider.cert, timeout=PATIENT) as client:
            client.profile("learner-1")

    with pytest.raises(RefusedError):
        await elsewhere(read)


def test_a_client_that_was_never_used_starts_no_thread(world: World) -> None:
    client = Client(
        broker="127.0.0.1:9",
        broker_root=world.broker.did,
        federation="fed.example",
        operator=world.operator.public.did,
        keys=world.provider.keys,
        cert=world.provider.cert,
    )

    client.close()
    client.close()

    assert not [each for each in threading.enumerate() if each.name == "permslip-client"]


async def test_a_parent_links_grants_reads_and_revokes_without_await(tmp_path: Path) -> None:
    async with ThreeSchools.running(tmp_path) as schools:
        slip = (await schools.school("Lincoln")).slip(CHILD).slip.text()
        Wallet.create(tmp_path / "family")

        def act() -> tuple[str, bool, int, int, int]:
            with GuardianClient(**schools.trust(), wallet=tmp_path / "family", timeout=PATIENT) as guardian:
                linked = guardian.link(slip, learner="Mia")
                draft = guardian.draft(schools.tutor_root, learner="Mia", **TERMS)
                consent = guardian.deposit(draft)
                records = len(guardian.profile(learner="Mia").attendance)
                last = list(guardian.revoke(consent))[-1]
                accesses = len(guardian.accesses())
                written = guardian.revocation_file(consent, tmp_path / "file")
                assert guardian.wallet is not None
                assert guardian.public == guardian.wallet.public
                assert len(list(guardian.grants())) == 2
                return linked.learner, last.is_complete, records, accesses, written

        learner, revoked, records, accesses, written = await elsewhere(act)

    assert (learner, revoked, records, written) == ("Mia", True, 7, 1)
    assert accesses > 0


async def test_the_operator_admits_and_suspends_without_await(tmp_path: Path) -> None:
    async with ThreeSchools.running(tmp_path) as schools:
        trust = schools.trust()
        del trust["operator"]
        keys = StoredKeys(PrincipalKind.OPERATOR, schools.federation.operator.key)
        clinic = schools.federation.clinic

        def act() -> tuple[list[str], int]:
            with OperatorClient(**trust, keys=keys, timeout=PATIENT) as operator:
                operator.suspend(clinic.root)
                operator.admit(clinic.root, kind="provider", name="New Clinic", agreement_id="NDPA-9")
                operator.register([clinic.rotated(now=schools.federation.now()).cert.envelope])
                return [each.name for each in operator.organizations()], operator.status().grants

        names, grants = await elsewhere(act)

    assert "New Clinic" in names
    assert grants == 0

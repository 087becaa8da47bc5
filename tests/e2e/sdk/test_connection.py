"""The connection: found, lost, found again, drained, refused; and never an error of gRPC's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme

from permslip._pb.permslip.v1 import provider_pb2, session_pb2, statement_pb2 as pb
from permslip.client.providing import AsyncClient
from permslip.client.timeouts import Timeout
from permslip.errors import (
    ConfigurationError,
    KeyRejectedError,
    MalformedError,
    RefusedError,
    UnavailableError,
)
from permslip.quantities import Millis
from permslip.reasons import Reason
from tests.e2e.sdk.simulated import Asked, Party, SimulatedBroker, World, attendance, clock, seal

pytestmark = pytest.mark.e2e

Pieces = AsyncIterator[provider_pb2.Answer]
PATIENT = Timeout(connect=20, call=20, answer=20)


async def silent(asked: Asked) -> Pieces:
    pieces: list[provider_pb2.Answer] = []
    for piece in pieces:
        yield piece


async def part(asked: Asked) -> Pieces:
    sealed = seal(asked, [attendance(number, text="x" * 4000) for number in range(45)], per_chunk=10)
    yield asked.piece(opening=sealed.opening, chunks=sealed.chunks[:1])


async def honestly(asked: Asked) -> Pieces:
    yield seal(asked).answer(asked)


async def test_a_query_whose_stream_breaks_before_any_byte_is_retried_for_free(
    world: World, broker: SimulatedBroker, client: AsyncClient
) -> None:
    world.consent("learner-17", "Lincoln")
    broker.script = silent

    profile = asyncio.ensure_future(client.profile("learner-17"))
    await broker.arrived.wait()
    broker.script = honestly
    broker.cut()

    assert len((await profile).attendance) == 3
    first, second = broker.queries
    assert second.payload.retry_of == first.id
    assert second.payload.continues == b""
    assert broker.streams_opened == 2


async def test_a_query_whose_answer_breaks_off_continues_as_the_same_use(
    world: World, broker: SimulatedBroker, client: AsyncClient
) -> None:
    relayed = asyncio.Event()

    async def breaks_off(asked: Asked) -> Pieces:
        async for piece in part(asked):
            yield piece
        relayed.set()

    world.consent("learner-17", "Lincoln")
    broker.script = breaks_off

    profile = asyncio.ensure_future(client.profile("learner-17"))
    await relayed.wait()
    broker.script = honestly
    broker.cut()

    assert len((await profile).attendance) == 3
    first, second = broker.queries
    assert second.payload.continues == first.id
    assert second.payload.retry_of == b""


async def test_records_that_were_handed_out_are_not_asked_for_again(
    world: World, broker: SimulatedBroker, client: AsyncClient
) -> None:
    world.consent("learner-17", "Lincoln")
    broker.script = part

    stream = await client.record_stream("learner-17", sections=["personal.attendance"])
    await anext(aiter(stream))
    broker.cut()
    with pytest.raises(UnavailableError):
        _ = [each async for each in stream]

    assert len(broker.queries) == 1


async def test_a_draining_broker_finishes_what_is_open_while_new_queries_take_a_new_stream(
    world: World, broker: SimulatedBroker, client: AsyncClient
) -> None:
    go_on = asyncio.Event()

    async def waits(asked: Asked) -> Pieces:
        await go_on.wait()
        yield seal(asked).answer(asked)

    world.consent("learner-17", "Lincoln")
    broker.script = waits
    open_now = asyncio.ensure_future(client.profile("learner-17"))
    await broker.arrived.wait()

    broker.say(provider_pb2.ExchangeReply(draining=provider_pb2.Draining()))
    broker.script = honestly
    while broker.streams_opened < 2:
        await client.profile("learner-17")
    go_on.set()

    assert len((await open_now).attendance) == 3
    assert broker.queries[0].payload.retry_of == b""


@pytest.mark.parametrize("reason", [Reason.BUSY, Reason.DRAINING])
async def test_a_broker_that_is_busy_is_asked_again_after_the_time_it_names(
    world: World, broker: SimulatedBroker, client: AsyncClient, reason: Reason
) -> None:
    async def busy_once(asked: Asked) -> Pieces:
        if len(broker.queries) == 1:
            refusal = session_pb2.Refusal(code=reason.wire, retry_after=20)
            yield asked.piece(outcome=provider_pb2.Outcome(refusal=refusal))
        else:
            yield seal(asked).answer(asked)

    world.consent("learner-17", "Lincoln")
    broker.script = busy_once

    assert len((await client.profile("learner-17")).attendance) == 3
    assert len(broker.queries) == 2


async def test_a_broker_that_comes_up_late_is_found(world: World) -> None:
    world.consent("learner-17", "Lincoln")
    broker = SimulatedBroker(world)
    await broker.start()
    await broker.stop()

    async with AsyncClient(
        **broker.trust(), keys=world.provider.keys, cert=world.provider.cert, timeout=PATIENT
    ) as client:
        profile = asyncio.ensure_future(client.profile("learner-17"))
        await asyncio.sleep(0)
        await broker.start()

        assert len((await profile).attendance) == 3
    await broker.stop()


async def test_a_broker_that_restarts_is_found_again(
    world: World, broker: SimulatedBroker, client: AsyncClient
) -> None:
    world.consent("learner-17", "Lincoln")
    await client.profile("learner-17")

    await broker.stop()
    await broker.start()

    assert len((await client.profile("learner-17")).attendance) == 3


async def test_the_next_replica_is_asked_when_one_is_down(world: World, broker: SimulatedBroker) -> None:
    world.consent("learner-17", "Lincoln")
    down = SimulatedBroker(world)
    await down.start()
    await down.stop()
    trust = broker.trust()
    trust["broker"] = f"127.0.0.1:{down.port}, {trust['broker']}"

    async with AsyncClient(**trust, keys=world.provider.keys, cert=world.provider.cert, timeout=PATIENT) as client:
        assert len((await client.profile("learner-17")).attendance) == 3


async def test_nobody_at_the_address_is_unavailable_and_no_error_of_grpcs(world: World) -> None:
    broker = SimulatedBroker(world)
    await broker.start()
    await broker.stop()

    timeout = Timeout(connect=0.3, call=0.3, answer=0.3)
    async with AsyncClient(
        **broker.trust(), keys=world.provider.keys, cert=world.provider.cert, timeout=timeout
    ) as client:
        with pytest.raises(UnavailableError, match="cannot be reached") as caught:
            await client.profile("learner-17")

    assert caught.value.remedy


@pytest.mark.parametrize("reason", [Reason.REQUESTER_SUSPENDED, Reason.KEY_EXPIRED])
async def test_a_client_that_is_not_taken_gets_the_reason_at_once(
    world: World, broker: SimulatedBroker, client: AsyncClient, reason: Reason
) -> None:
    world.consent("learner-17", "Lincoln")
    broker.refuse_hello = reason

    with pytest.raises(RefusedError) as caught:
        await client.profile("learner-17")

    assert (caught.value.code, caught.value.remedy) == (reason.name, reason.remedy)


async def test_a_greeting_that_is_too_old_is_made_anew(
    world: World, broker: SimulatedBroker, client: AsyncClient
) -> None:
    world.consent("learner-17", "Lincoln")
    broker.refuse_next_reads = 1

    assert len([each async for each in client.grants()]) == 1


async def test_a_closed_client_says_so(client: AsyncClient) -> None:
    await client.aclose()

    with pytest.raises(UnavailableError, match="closed"):
        _ = [each async for each in client.grants()]


async def test_closing_ends_what_is_open(world: World, broker: SimulatedBroker, client: AsyncClient) -> None:
    world.consent("learner-17", "Lincoln")
    broker.script = silent
    profile = asyncio.ensure_future(client.profile("learner-17"))
    await broker.arrived.wait()

    await client.aclose()

    with pytest.raises(UnavailableError, match="closed"):
        await profile


async def test_another_federation_is_refused(world: World, broker: SimulatedBroker) -> None:
    trust = broker.trust()
    trust["federation"] = "other.example"
    provider = Party("Ana", pb.PRINCIPAL_KIND_PROVIDER, federation="other.example")

    async with AsyncClient(**trust, keys=provider.keys, cert=provider.cert) as client:
        with pytest.raises(MalformedError, match="federation"):
            await client.profile("learner-17")


async def test_a_broker_whose_certificate_has_ended_is_refused(world: World, broker: SimulatedBroker) -> None:
    later = 40 * 86_400_000
    provider = world.provider
    provider.lifetime = 80 * 86_400_000
    async with AsyncClient(
        **broker.trust(), keys=provider.keys, cert=provider.cert, now=lambda: Millis(clock() + later)
    ) as client:
        with pytest.raises(KeyRejectedError, match="has ended"):
            await client.profile("learner-17")


# ---------------------------------------------------------------------------------------------- TLS


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "ca.pem")
    return made


async def test_tls_with_the_named_authority(world: World, tmp_path: Path, authority: trustme.CA) -> None:
    world.consent("learner-17", "Lincoln")
    async with SimulatedBroker(world, tls=authority.issue_cert("localhost")) as broker:
        trust = broker.trust()
        trust["broker"] = f"localhost:{broker.port}"
        async with AsyncClient(
            **trust, keys=world.provider.keys, cert=world.provider.cert, tls_ca=tmp_path / "ca.pem", timeout=PATIENT
        ) as client:
            assert len((await client.profile("learner-17")).attendance) == 3


async def test_tls_with_another_authority_is_refused(world: World, tmp_path: Path, authority: trustme.CA) -> None:
    async with SimulatedBroker(world, tls=trustme.CA().issue_cert("localhost")) as broker:
        trust = broker.trust()
        trust["broker"] = f"localhost:{broker.port}"
        async with AsyncClient(
            **trust,
            keys=world.provider.keys,
            cert=world.provider.cert,
            tls_ca=tmp_path / "ca.pem",
            timeout=Timeout(connect=0.5),
        ) as client:
            with pytest.raises(UnavailableError):
                await client.profile("learner-17")


@pytest.mark.parametrize(("content", "message"), [(None, "cannot be read"), ("hello", "no PEM certificate")])
async def test_a_file_of_authorities_that_is_none_is_named(
    world: World, broker: SimulatedBroker, tmp_path: Path, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "ca.pem").write_text(content)

    with pytest.raises(ConfigurationError, match=message):
        AsyncClient(**broker.trust(), keys=world.provider.keys, cert=world.provider.cert, tls_ca=tmp_path / "ca.pem")


# ---------------------------------------------------------------------------------------- identity, settings


def test_an_organization_without_certificate_is_told_how_to_make_one(world: World) -> None:
    with pytest.raises(ConfigurationError, match="permslip keys certify"):
        AsyncClient(
            broker="127.0.0.1:1",
            broker_root=world.broker.did,
            federation="fed.example",
            operator=world.operator.public.did,
            keys=world.provider.keys,
        )


def test_a_certificate_of_other_keys_is_refused(world: World) -> None:
    with pytest.raises(ConfigurationError, match="other keys"):
        AsyncClient(
            broker="127.0.0.1:1",
            broker_root=world.broker.did,
            federation="fed.example",
            operator=world.operator.public.did,
            keys=world.provider.keys,
            cert=world.schools["Lincoln"].cert,
        )


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"broker": "nowhere"}, "broker"),
        ({"broker": "host:0"}, "broker"),
        ({"broker_root": "did:web:example.org"}, "broker_root"),
        ({"operator": "me"}, "operator"),
    ],
)
def test_a_wrong_argument_is_named(world: World, changes: dict[str, str], key: str) -> None:
    arguments = {
        "broker": "127.0.0.1:1",
        "broker_root": world.broker.did,
        "federation": "fed.example",
        "operator": world.operator.public.did,
        **changes,
    }

    with pytest.raises(ConfigurationError) as caught:
        AsyncClient(
            broker=arguments["broker"],
            broker_root=arguments["broker_root"],
            federation=arguments["federation"],
            operator=arguments["operator"],
            keys=world.provider.keys,
            cert=world.provider.cert,
        )

    assert caught.value.key == key


@pytest.mark.parametrize("changes", [{"connect": 0}, {"call": -1}, {"answer": 121}, {"answer": float("nan")}])
def test_a_timeout_that_makes_no_sense_is_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=f"timeout.{next(iter(changes))}"):
        Timeout(**changes)

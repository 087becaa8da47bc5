"""A broker that lies, and a node that does: what the client believes, and what it says instead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from permslip import statements as st
from permslip._pb.permslip.v1 import guardian_pb2, provider_pb2, record_pb2, session_pb2, statement_pb2 as pb
from permslip.armor import read_statements
from permslip.client.guarding import AsyncGuardianClient
from permslip.client.providing import AsyncClient
from permslip.client.revoking import RevocationState
from permslip.client.timeouts import Timeout
from permslip.consents import make_revocation
from permslip.coverage import Held
from permslip.directory import Directory
from permslip.errors import (
    AuthorityError,
    ConfigurationError,
    KeyRejectedError,
    MalformedError,
    PermslipError,
    RefusedError,
    SealError,
    SignatureError,
    TooLargeError,
)
from permslip.grant_views import view_of
from permslip.keyformat import PrincipalKind, StoredKeys
from permslip.keys import SealingKey, SigningKey
from permslip.linking import LearnerCard, check_link_mac, make_link_response, open_link_request
from permslip.quantities import Millis, StatementId
from permslip.reasons import Reason
from permslip.slip import new_slip
from permslip.statements import Signed
from permslip.wallet import GivenGrant, Wallet
from tests.e2e.sdk.simulated import (
    ALLOWED,
    FEDERATION,
    Asked,
    Party,
    Script,
    SimulatedBroker,
    World,
    acknowledgement,
    attendance,
    clock,
    seal,
)

pytestmark = pytest.mark.e2e

Pieces = AsyncIterator[provider_pb2.Answer]


async def collected(stream: AsyncIterator[object]) -> int:
    return len([each async for each in stream])


def many() -> list[record_pb2.Record]:
    """Enough for several chunks."""
    return [attendance(number, text="x" * 4000) for number in range(45)]


# ---------------------------------------------------------------------------------- answers of a lying broker


def from_query_before() -> Script:
    """The answer to the query before this one, with this one's id."""
    kept: list[provider_pb2.Answer] = []

    async def swapped(asked: Asked) -> Pieces:
        whole = seal(asked).answer(asked)
        kept.append(whole)
        if len(kept) == 1:
            yield whole
        else:
            old = provider_pb2.Answer()
            old.CopyFrom(kept[0])
            old.query_id = asked.query.id
            yield old

    return swapped


async def sealed_by_the_broker(asked: Asked) -> Pieces:
    """The broker seals records of its own to the reply key."""
    yield seal(asked, [attendance(1, text="Suspended")], signer=asked.world.broker).answer(asked)


async def sealed_by_another_school(asked: Asked) -> Pieces:
    other = next(each for each in asked.world.schools.values() if each is not asked.school)
    yield seal(asked, signer=other).answer(asked)


async def genuine_opening_with_chunks_of_the_brokers(asked: Asked) -> Pieces:
    genuine, forged = seal(asked), seal(asked, [attendance(1, text="Suspended")])
    yield asked.piece(opening=genuine.opening, chunks=forged.chunks, outcome=forged.outcome(asked))


async def truncated(asked: Asked) -> Pieces:
    sealed = seal(asked, many(), per_chunk=10)
    yield asked.piece(opening=sealed.opening, chunks=sealed.chunks[:-1], outcome=sealed.outcome(asked))


async def nothing_but_allowed(asked: Asked) -> Pieces:
    yield asked.piece(outcome=provider_pb2.Outcome(refusal=ALLOWED))


async def chunk_replayed(asked: Asked) -> Pieces:
    sealed = seal(asked, many(), per_chunk=10)
    chunks = [*sealed.chunks[:2], sealed.chunks[1], *sealed.chunks[2:]]
    yield asked.piece(opening=sealed.opening, chunks=chunks, outcome=sealed.outcome(asked))


async def chunks_reordered(asked: Asked) -> Pieces:
    sealed = seal(asked, many(), per_chunk=10)
    chunks = [sealed.chunks[1], sealed.chunks[0], *sealed.chunks[2:]]
    yield asked.piece(opening=sealed.opening, chunks=chunks, outcome=sealed.outcome(asked))


async def chunk_altered(asked: Asked) -> Pieces:
    sealed = seal(asked)
    chunk = bytearray(sealed.chunks[-1])
    chunk[100] ^= 1
    yield asked.piece(opening=sealed.opening, chunks=[bytes(chunk)], outcome=sealed.outcome(asked))


async def chunk_before_the_opening(asked: Asked) -> Pieces:
    sealed = seal(asked)
    yield asked.piece(chunks=sealed.chunks)
    yield asked.piece(opening=sealed.opening, outcome=sealed.outcome(asked))


async def second_opening(asked: Asked) -> Pieces:
    one, other = seal(asked), seal(asked)
    yield asked.piece(opening=one.opening)
    yield other.answer(asked)


async def another_manifests_digest(asked: Asked) -> Pieces:
    sealed = seal(asked)
    outcome = sealed.outcome(asked)
    outcome.manifest_sha256 = sha256(b"another").digest()
    yield asked.piece(opening=sealed.opening, chunks=sealed.chunks, outcome=outcome)


async def chunk_larger_than_allowed(asked: Asked) -> Pieces:
    yield asked.piece(opening=seal(asked).opening, chunks=[bytes(70_000)])


# ----------------------------------------------------------------------------------- answers of a lying node


async def manifest_for_another_query(asked: Asked) -> Pieces:
    yield seal(asked, manifest_of=replace(asked.query, id=StatementId(bytes(32)))).answer(asked)


async def counts_more_than_came(asked: Asked) -> Pieces:
    yield seal(asked, counts={"personal.attendance": 4}).answer(asked)


async def counts_in_another_section(asked: Asked) -> Pieces:
    yield seal(asked, counts={"transcript.grades": 3}).answer(asked)


async def section_not_asked_for(asked: Asked) -> Pieces:
    record = attendance(1)
    record.section = "personal.health"
    yield seal(asked, [record]).answer(asked)


LIES: list[tuple[Script, type[PermslipError], str]] = [
    (sealed_by_the_broker, AuthorityError, "not signed by the node"),
    (sealed_by_another_school, AuthorityError, "not signed by the node"),
    (genuine_opening_with_chunks_of_the_brokers, SealError, "altered"),
    (truncated, SealError, "cut short"),
    (nothing_but_allowed, SealError, "cut short"),
    (chunk_replayed, SealError, "out of order"),
    (chunks_reordered, SealError, "out of order"),
    (chunk_altered, SealError, "altered"),
    (chunk_before_the_opening, SealError, "before the opening"),
    (second_opening, SealError, "second opening"),
    (another_manifests_digest, SealError, "another manifest"),
    (chunk_larger_than_allowed, MalformedError, "66048"),
    (manifest_for_another_query, AuthorityError, "another query"),
    (counts_more_than_came, SealError, "count the records of each section"),
    (counts_in_another_section, SealError, "count the records of each section"),
    (section_not_asked_for, SealError, "count the records of each section"),
]
WANTED = ["personal.attendance", "transcript.grades"]


@pytest.mark.parametrize(("script", "error", "words"), LIES, ids=[each[0].__name__ for each in LIES])
async def test_a_lie_is_an_error_of_records_and_a_fault_of_a_profile(
    world: World,
    broker: SimulatedBroker,
    client: AsyncClient,
    script: Script,
    error: type[PermslipError],
    words: str,
) -> None:
    world.consent("learner-17", "Lincoln")
    broker.script = script

    profile = await client.profile("learner-17", sections=WANTED)
    with pytest.raises(error, match=words):
        await collected(await client.record_stream("learner-17", sections=WANTED))

    assert profile.entries == ()
    assert {each.state for each in profile.coverage} == {Held.UNREACHABLE}
    ((name, fault),) = profile.faults
    assert name == "Lincoln"
    assert isinstance(fault, error)


async def test_a_swapped_answer_is_refused(world: World, broker: SimulatedBroker, client: AsyncClient) -> None:
    world.consent("learner-17", "Lincoln")
    broker.script = from_query_before()

    honest = await client.profile("learner-17")
    swapped = await client.profile("learner-17")

    assert len(honest.attendance) == 3
    assert swapped.entries == ()
    assert isinstance(swapped.faults[0][1], AuthorityError)


async def test_one_lying_school_costs_nothing_of_the_others(
    world: World, broker: SimulatedBroker, client: AsyncClient
) -> None:
    world.consent("learner-17")
    broker.scripts["Birch"] = sealed_by_the_broker

    profile = await client.profile("learner-17")

    assert {each.node_name for each in profile.attendance} == {"Lincoln", "Cedar"}
    assert [name for name, _ in profile.faults] == ["Birch"]


async def test_an_answer_to_a_query_that_was_never_made_is_ignored(
    world: World, broker: SimulatedBroker, client: AsyncClient
) -> None:
    async def stray_first(asked: Asked) -> Pieces:
        yield provider_pb2.Answer(query_id=bytes(32), outcome=provider_pb2.Outcome(refusal=ALLOWED))
        yield seal(asked).answer(asked)
        yield asked.refused(Reason.GRANT_REVOKED)

    world.consent("learner-17", "Lincoln")
    broker.script = stray_first

    assert len((await client.profile("learner-17")).attendance) == 3


async def test_a_broker_that_sends_more_than_there_is_room_for_is_cut_off(
    world: World, broker: SimulatedBroker, client: AsyncClient
) -> None:
    async def heeds_no_credit(asked: Asked) -> Pieces:
        sealed = seal(asked, [attendance(number, text="x" * 4000) for number in range(400)], per_chunk=15)
        yield asked.piece(opening=sealed.opening)
        for chunk in sealed.chunks:
            yield asked.piece(chunks=[chunk])

    world.consent("learner-17", "Lincoln")
    broker.script = heeds_no_credit

    stream = await client.record_stream("learner-17", sections=["personal.attendance"])
    await anext(aiter(stream))
    assert await broker.cancelled.get() == broker.queries[0].id
    with pytest.raises(MalformedError, match="room for"):
        await collected(stream)


async def test_an_answer_that_is_larger_than_the_client_allows_is_a_gap_that_names_the_remedy(
    world: World, broker: SimulatedBroker
) -> None:
    async def goes_on(asked: Asked) -> Pieces:
        sealed = seal(asked, [attendance(number, text="x" * 4000) for number in range(400)], per_chunk=15)
        yield asked.piece(opening=sealed.opening)
        for chunk in sealed.chunks:
            yield asked.piece(chunks=[chunk])
            await asyncio.sleep(0)

    world.consent("learner-17", "Lincoln")
    broker.script = goes_on
    keys, cert = world.provider.keys, world.provider.cert
    async with AsyncClient(**broker.trust(), keys=keys, cert=cert, max_answer_bytes=100_000) as client:
        profile = await client.profile("learner-17", sections=["personal.attendance"])
        assert await broker.cancelled.get() == broker.queries[0].id
    [told] = profile.slices

    assert isinstance(told.error, TooLargeError)
    assert "max_answer_bytes" in told.error.message
    assert "records()" in told.error.remedy
    assert (told.records, told.fault) == ((), None)
    assert {each.reason for each in told.coverage} == {Reason.TOO_LARGE}


async def test_a_bound_for_answers_of_nothing_is_refused(world: World, broker: SimulatedBroker) -> None:
    provider = world.provider
    with pytest.raises(ConfigurationError, match="max_answer_bytes"):
        AsyncClient(**broker.trust(), keys=provider.keys, cert=provider.cert, max_answer_bytes=0)


async def test_a_record_of_a_section_that_was_not_asked_for_is_never_handed_out(
    world: World, broker: SimulatedBroker, client: AsyncClient
) -> None:
    async def adds_health(asked: Asked) -> Pieces:
        records = many()
        records[0].section = "personal.health"
        yield seal(asked, records, per_chunk=10).answer(asked)

    world.consent("learner-17", "Lincoln")
    broker.script = adds_health

    stream = await client.record_stream("learner-17", sections=["personal.attendance"])
    with pytest.raises(SealError, match="not asked for"):
        await anext(aiter(stream))


async def test_records_that_were_handed_out_before_the_lie_were_genuine(
    world: World, broker: SimulatedBroker, client: AsyncClient
) -> None:
    async def lies_later(asked: Asked) -> Pieces:
        sealed = seal(asked, many(), per_chunk=10)
        yield asked.piece(opening=sealed.opening, chunks=[*sealed.chunks[:2], sealed.chunks[0]])

    world.consent("learner-17", "Lincoln")
    broker.script = lies_later

    stream = await client.record_stream("learner-17", sections=["personal.attendance"])
    first = [(await anext(aiter(stream))).record.record_id for _ in range(20)]
    with pytest.raises(SealError):
        await collected(stream)

    assert first == [number.to_bytes(16, "big") for number in range(20)]
    assert await broker.cancelled.get() == broker.queries[0].id


async def test_what_a_school_releases_beyond_the_consent_is_refused(
    world: World, broker: SimulatedBroker, client: AsyncClient
) -> None:
    async def releases_health(asked: Asked) -> Pieces:
        wider = pb.Grant()
        wider.CopyFrom(asked.grant.payload)
        wider.sections.append("personal.health")
        records = many()[:2]
        records[1].section = "personal.health"
        yield seal(replace(asked, grant=replace(asked.grant, payload=wider)), records).answer(asked)

    async def says_none_held(asked: Asked) -> Pieces:
        wider = pb.Grant()
        wider.CopyFrom(asked.grant.payload)
        wider.sections.append("personal.health")
        yield seal(replace(asked, grant=replace(asked.grant, payload=wider)), []).answer(asked)

    world.consent("learner-17", "Lincoln")
    wanted = ["personal.attendance", "personal.health"]
    for script in (releases_health, says_none_held):
        broker.script = script
        profile = await client.profile("learner-17", sections=wanted)
        assert profile.entries == ()
        ((_, fault),) = profile.faults
        assert "not granted" in str(fault)
        with pytest.raises(SealError, match="not granted"):
            await collected(await client.record_stream("learner-17", sections=wanted))


async def test_a_refusal_never_says_of_a_section_that_it_was_allowed(
    world: World, broker: SimulatedBroker, client: AsyncClient
) -> None:
    async def refused_and_allowed(asked: Asked) -> Pieces:
        answer = asked.refused(Reason.GRANT_REVOKED)
        answer.outcome.sections.add(section="personal.attendance", reason=pb.REASON_ALLOWED)
        yield answer

    world.consent("learner-17", "Lincoln")
    broker.script = refused_and_allowed

    profile = await client.profile("learner-17", sections=["personal.attendance"])

    assert [(each.state, each.reason) for each in profile.coverage] == [(Held.DENIED, Reason.GRANT_REVOKED)]


# -------------------------------------------------------------------------------------------- certificates


async def test_a_new_key_of_a_school_is_learned_while_its_answer_waits(
    world: World, broker: SimulatedBroker, client: AsyncClient
) -> None:
    world.consent("learner-17", "Lincoln")
    await client.profile("learner-17")
    school = world.schools["Lincoln"]
    school.rotate()
    broker.directory = [
        session_pb2.DirectoryEntry(admission=each.admission, key_cert=school.cert) if _is(each, school) else each
        for each in broker.directory
    ]
    before = broker.directory_calls

    profile = await client.profile("learner-17")

    assert len(profile.attendance) == 3
    assert broker.directory_calls > before


async def test_a_replaced_key_cannot_be_brought_back_with_its_old_certificate(
    world: World, broker: SimulatedBroker, client: AsyncClient
) -> None:
    world.consent("learner-17", "Lincoln")
    school = world.schools["Lincoln"]
    stolen = Party(school.name, school.kind, school.root, school.signing, school.sealing)
    old = broker.directory
    school.rotate()
    broker.directory = [
        session_pb2.DirectoryEntry(admission=each.admission, key_cert=school.cert) if _is(each, school) else each
        for each in broker.directory
    ]
    await client.profile("learner-17")

    async def signed_with_the_stolen_key(asked: Asked) -> Pieces:
        yield seal(asked, [attendance(1, text="Suspended")], signer=stolen).answer(asked)

    broker.directory, broker.script = old, signed_with_the_stolen_key
    profile = await client.profile("learner-17")

    assert profile.entries == ()
    assert isinstance(profile.faults[0][1], KeyRejectedError)


async def test_a_school_that_the_operator_never_admitted_is_not_believed(
    world: World, broker: SimulatedBroker, client: AsyncClient
) -> None:
    world.consent("learner-17", "Lincoln")
    school = world.schools["Lincoln"]
    broker.directory = [each for each in broker.directory if not _is(each, school)]

    profile = await client.profile("learner-17")

    assert profile.entries == ()
    assert isinstance(profile.faults[0][1], KeyRejectedError)


async def test_a_school_admitted_by_somebody_else_is_an_error(
    world: World, broker: SimulatedBroker, client: AsyncClient
) -> None:
    world.consent("learner-17", "Lincoln")
    school = world.schools["Lincoln"]
    broker.directory.append(
        session_pb2.DirectoryEntry(admission=world.admission(school, by=SigningKey.generate()), key_cert=school.cert)
    )

    with pytest.raises(AuthorityError, match="operator"):
        await client.profile("learner-17")


async def test_another_broker_than_the_pinned_one_is_refused(world: World, broker: SimulatedBroker) -> None:
    world.consent("learner-17", "Lincoln")
    broker.broker_cert = Party("Other", pb.PRINCIPAL_KIND_BROKER).cert

    async with AsyncClient(**broker.trust(), keys=world.provider.keys, cert=world.provider.cert) as client:
        with pytest.raises(KeyRejectedError, match="another broker"):
            await client.profile("learner-17")


async def test_an_earlier_certificate_of_the_broker_is_refused_by_who_saw_a_newer_one(
    world: World, broker: SimulatedBroker
) -> None:
    ahead = 0
    stolen = world.broker.cert
    world.broker.rotate()
    broker.broker_cert = world.broker.cert
    keys, cert = world.provider.keys, world.provider.cert

    async with AsyncClient(**broker.trust(), keys=keys, cert=cert, now=lambda: Millis(clock() + ahead)) as client:
        assert [each async for each in client.grants()] == []
        broker.broker_cert = stolen
        ahead = 45_000  # the last greeting is too old to be used again
        with pytest.raises(KeyRejectedError, match="number 2 or a later one, got number 1"):
            _ = [each async for each in client.grants()]


async def test_a_wallet_remembers_the_broker_s_newest_certificate(
    world: World, broker: SimulatedBroker, tmp_path: Path
) -> None:
    wallet = Wallet.create(tmp_path / "family")
    stolen = world.broker.cert
    world.broker.rotate()
    broker.broker_cert = world.broker.cert
    async with AsyncGuardianClient(**broker.trust(), wallet=wallet) as guardian:
        assert [each async for each in guardian.grants()] == []

    broker.broker_cert = stolen
    async with AsyncGuardianClient(**broker.trust(), wallet=wallet.folder) as again:
        with pytest.raises(KeyRejectedError, match="number 2 or a later one, got number 1"):
            _ = [each async for each in again.grants()]

    broker.broker_cert = world.broker.cert
    async with AsyncGuardianClient(**broker.trust(), wallet=wallet.folder) as genuine:
        assert [each async for each in genuine.grants()] == []


# ------------------------------------------------------------------------------------------------- grants


def replace_grant(state: session_pb2.GrantState, world: World) -> None:
    state.grant.CopyFrom(world.grants[-1].grant)


def altered_grant(state: session_pb2.GrantState, world: World) -> None:
    grant = pb.Grant.FromString(state.grant.payload)
    grant.sections.append("voice")
    state.grant.payload = grant.SerializeToString(deterministic=True)


def endorsed_by_the_broker(state: session_pb2.GrantState, world: World) -> None:
    grant, _ = world.by_id[state.grant_id]
    state.endorsement.CopyFrom(world.endorsement(grant, world.broker))


@pytest.mark.parametrize(
    ("lie", "error"),
    [(replace_grant, AuthorityError), (altered_grant, SignatureError), (endorsed_by_the_broker, AuthorityError)],
)
async def test_a_grant_that_was_not_signed_as_it_is_shown_is_an_error(
    world: World,
    client: AsyncClient,
    lie: Callable[[session_pb2.GrantState, World], None],
    error: type[PermslipError],
) -> None:
    world.consent("learner-17", "Lincoln")
    world.consent("learner-18", "Lincoln")

    lie(world.grants[0], world)

    with pytest.raises(error):
        _ = [each async for each in client.grants()]


# -------------------------------------------------------------------------------------------- revocations


Word = Callable[[World, Party, Signed[pb.Revocation]], pb.Envelope]


def by_the_school(world: World, school: Party, revocation: Signed[pb.Revocation]) -> pb.Envelope:
    return acknowledgement(school, revocation)


def by_the_broker_in_its_name(world: World, school: Party, revocation: Signed[pb.Revocation]) -> pb.Envelope:
    return acknowledgement(school, revocation, by=world.broker)


def by_another_school(world: World, school: Party, revocation: Signed[pb.Revocation]) -> pb.Envelope:
    return acknowledgement(world.schools["Birch"], revocation)


def about_another_revocation(world: World, school: Party, revocation: Signed[pb.Revocation]) -> pb.Envelope:
    return acknowledgement(school, revocation, about=bytes(31) + b"1")


def of_another_grant(world: World, school: Party, revocation: Signed[pb.Revocation]) -> pb.Envelope:
    return acknowledgement(school, revocation, of=bytes(31) + b"1")


def altered(world: World, school: Party, revocation: Signed[pb.Revocation]) -> pb.Envelope:
    envelope = acknowledgement(school, revocation)
    envelope.signatures[0].signature = bytes(64)
    return envelope


def something_else(world: World, school: Party, revocation: Signed[pb.Revocation]) -> pb.Envelope:
    return revocation.envelope


async def revoked(world: World, broker: SimulatedBroker, folder: Path, word: Word) -> RevocationState:
    """The last state of a revocation to which the broker shows this word."""
    (grant,) = world.consent("learner-17", "Lincoln")
    school = world.schools["Lincoln"]
    broker.acknowledge = lambda revocation: word(world, school, revocation)
    wallet = Wallet.create(folder / "family")
    kept = GivenGrant(
        grant.id, b"", school.root.public.raw, bytes(16), world.provider.root.public.raw, "", "Mia", "", "", "", 1, 2
    )
    wallet.add_grants([kept])
    async with AsyncGuardianClient(**broker.trust(), wallet=wallet, timeout=Timeout(connect=20, call=20)) as guardian:
        states = [state async for state in guardian.revoke(grant.id)]
    assert wallet.grants[0].revoked == states[-1].is_complete
    return states[-1]


@pytest.mark.parametrize("role", [pb.REVOKER_ROLE_GUARDIAN, pb.REVOKER_ROLE_NODE, pb.REVOKER_ROLE_GRANTEE])
async def test_a_revocation_that_the_broker_made_up_does_not_stand_in_the_way_of_a_genuine_one(
    world: World, broker: SimulatedBroker, tmp_path: Path, role: pb.RevokerRole.ValueType
) -> None:
    """The school would refuse it: a parent who carried it there would have revoked nothing."""
    keys = StoredKeys(PrincipalKind.GUARDIAN, world.parent, SealingKey.generate())
    [grant] = world.consent("learner-17", "Lincoln")
    [state] = world.grants
    brokers = SigningKey.generate()
    roots = {
        pb.REVOKER_ROLE_GUARDIAN: brokers.public.raw,
        pb.REVOKER_ROLE_NODE: grant.payload.slice.node,
        pb.REVOKER_ROLE_GRANTEE: grant.payload.grantee,
    }
    made_up = make_revocation(
        grant.id,
        grant.payload.slice.node,
        federation=FEDERATION,
        signer=pb.Signer(root=roots[role], key=brokers.public.raw),
        role=role,
        key=brokers,
        now=clock(),
    )
    state.revocation.CopyFrom(made_up.envelope)
    directory = Directory(federation=FEDERATION, operator=world.operator.public.raw)
    view = view_of(state, federation=FEDERATION, directory=directory, sealing=None, now=clock())

    async with AsyncGuardianClient(**broker.trust(), keys=keys) as guardian:
        await guardian.revocation_file(view, tmp_path / "revoke.txt")

    [envelope] = read_statements(tmp_path / "revoke.txt")
    own = st.verify(st.REVOCATION, envelope, federation=FEDERATION).payload
    assert own.signer.key == world.parent.public.raw


async def test_the_schools_own_word_confirms_a_revocation(
    world: World, broker: SimulatedBroker, tmp_path: Path
) -> None:
    last = await revoked(world, broker, tmp_path, by_the_school)

    assert last.text == "1 of 1 place confirmed."


@pytest.mark.parametrize(
    ("word", "error"),
    [
        (by_the_broker_in_its_name, KeyRejectedError),
        (by_another_school, AuthorityError),
        (about_another_revocation, AuthorityError),
        (of_another_grant, AuthorityError),
        (altered, SignatureError),
        (something_else, MalformedError),
    ],
)
async def test_nothing_but_the_schools_own_word_confirms_a_revocation(
    world: World, broker: SimulatedBroker, tmp_path: Path, word: Word, error: type[PermslipError]
) -> None:
    last = await revoked(world, broker, tmp_path, word)

    assert not last.is_complete
    assert isinstance(last.grants[0].error, error)
    assert last.text == "0 of 1 place confirmed, 1 confirmed in a way that cannot be believed."


# ------------------------------------------------------------------------------------------------ linking


async def test_the_brokers_own_key_in_place_of_the_schools_is_refused_at_linking(
    world: World, broker: SimulatedBroker
) -> None:
    school = world.schools["Lincoln"]
    slip = new_slip(school.root.public.raw)
    relayed: list[guardian_pb2.RelayLinkRequest] = []

    def listening(request: guardian_pb2.RelayLinkRequest) -> guardian_pb2.RelayLinkResponse:
        relayed.append(request)
        return guardian_pb2.RelayLinkResponse()

    forged = replace_key(school, by=world.broker)
    broker.directory = [
        session_pb2.DirectoryEntry(admission=each.admission, key_cert=forged) if _is(each, school) else each
        for each in broker.directory
    ]
    broker.relay = listening

    async with guardian_of(broker) as guardian:
        with pytest.raises(KeyRejectedError, match="not the one on the slip"):
            await guardian.link(slip.text())

    assert relayed == []


async def test_an_answer_to_a_link_by_somebody_who_does_not_know_the_secret_is_refused(
    world: World, broker: SimulatedBroker
) -> None:
    school = world.schools["Lincoln"]
    slip = new_slip(school.root.public.raw)
    card = LearnerCard(handle=bytes(16), learner_name="Mia", node_name="Lincoln", quorum_rule="any")

    def guesses(request: guardian_pb2.RelayLinkRequest) -> guardian_pb2.RelayLinkResponse:
        opened = open_link_request(
            request.sealed_request,
            sealing_key=school.sealing,
            federation=FEDERATION,
            node=school.root.public.raw,
        )
        sealed = make_link_response(opened, b"guess one.", card, signer=school.signer, key=school.signing, now=clock())
        return guardian_pb2.RelayLinkResponse(sealed_response=sealed)

    broker.relay = guesses

    async with guardian_of(broker) as guardian:
        with pytest.raises(AuthorityError, match="does not know the secret"):
            await guardian.link(slip.text())


async def test_an_honest_school_is_linked_and_a_broker_that_refuses_says_why(
    world: World, broker: SimulatedBroker
) -> None:
    school = world.schools["Lincoln"]
    slip = new_slip(school.root.public.raw)
    card = LearnerCard(handle=b"h" * 16, learner_name="Mia Ortiz", node_name="Lincoln", quorum_rule="any")

    def honestly(request: guardian_pb2.RelayLinkRequest) -> guardian_pb2.RelayLinkResponse:
        opened = open_link_request(
            request.sealed_request,
            sealing_key=school.sealing,
            federation=FEDERATION,
            node=school.root.public.raw,
        )
        check_link_mac(opened, slip.secret)
        sealed = make_link_response(opened, slip.secret, card, signer=school.signer, key=school.signing, now=clock())
        return guardian_pb2.RelayLinkResponse(sealed_response=sealed)

    async with guardian_of(broker) as guardian:
        broker.relay = honestly
        linked = await guardian.link(slip.text())
        broker.relay = lambda _: guardian_pb2.RelayLinkResponse(
            refusal=session_pb2.Refusal(code=pb.REASON_LINK_REFUSED)
        )
        with pytest.raises(RefusedError) as caught:
            await guardian.link(slip.text())

    assert (linked.handle, linked.learner) == (b"h" * 16, "Mia Ortiz")
    assert caught.value.code == "LINK_REFUSED"


def guardian_of(broker: SimulatedBroker) -> AsyncGuardianClient:
    keys = StoredKeys(PrincipalKind.GUARDIAN, SigningKey.generate(), SealingKey.generate())
    return AsyncGuardianClient(**broker.trust(), keys=keys, timeout=Timeout(connect=20, call=20))


def replace_key(school: Party, *, by: Party) -> pb.Envelope:
    """A certificate that names the school's root, and the broker's own keys; the broker can sign it only by itself."""
    now = clock()
    payload = pb.KeyCert(
        federation=FEDERATION,
        nonce=bytes(15) + b"1",
        created_at=now,
        root=by.root.public.raw,
        signing_key=by.signing.public.raw,
        sealing_key=by.sealing.public,
        seq=9,
        valid_until=now + 1_000_000,
    )
    return st.sign(st.KEY_CERT, payload, [by.root]).envelope


def _is(entry: session_pb2.DirectoryEntry, party: Party) -> bool:
    return pb.Admission.FromString(entry.admission.payload).root == party.root.public.raw

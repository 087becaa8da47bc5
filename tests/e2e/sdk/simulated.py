"""A simulated broker with simulated nodes, in this process: for what a real one never does.

It speaks the contract over a real socket, so the client under test is the whole client. A :class:`Script` says what is
answered to a query; the honest one is :func:`honest`. Tests of the straight line run against real processes instead.

Example::

    async with SimulatedBroker(world) as broker:
        broker.script = swapped
        client = AsyncClient(**broker.trust(), keys=world.provider.keys, cert=world.provider.cert)
"""

# ruff: noqa: N802  # methods of services have the contract's names

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from hashlib import sha256
from types import TracebackType
from typing import Any, Self, TypedDict

import grpc
import trustme

from permslip import statements as st
from permslip._pb.permslip.v1 import (
    guardian_pb2,
    guardian_pb2_grpc,
    provider_pb2,
    provider_pb2_grpc,
    record_pb2,
    session_pb2,
    session_pb2_grpc,
    statement_pb2 as pb,
)
from permslip.consents import ConsentTerms, make_grant
from permslip.greeting import check_hello, make_server_nonce
from permslip.keyformat import PrincipalKind, StoredKeys
from permslip.keys import SealingKey, SigningKey
from permslip.quantities import Millis
from permslip.reasons import Reason
from permslip.sections import expand
from permslip.slices import SliceWriter
from permslip.statements import Signed

FEDERATION = "fed.example"
DAY = 86_400_000
ALLOWED = session_pb2.Refusal(code=pb.REASON_ALLOWED)


def clock() -> Millis:
    return Millis(time.time_ns() // 1_000_000)


@dataclass
class Party:
    """An organization with its root, online keys and certificate."""

    name: str
    kind: pb.PrincipalKind.ValueType
    root: SigningKey = field(default_factory=SigningKey.generate)
    signing: SigningKey = field(default_factory=SigningKey.generate)
    sealing: SealingKey = field(default_factory=SealingKey.generate)
    seq: int = 1
    federation: str = FEDERATION
    lifetime: int = 30 * DAY

    @property
    def did(self) -> str:
        return self.root.public.did

    @property
    def signer(self) -> pb.Signer:
        return pb.Signer(root=self.root.public.raw, key=self.signing.public.raw)

    @property
    def keys(self) -> StoredKeys:
        name = pb.PrincipalKind.Name(self.kind).removeprefix("PRINCIPAL_KIND_").lower()
        return StoredKeys(PrincipalKind(name), self.signing, self.sealing)

    @property
    def cert(self) -> pb.Envelope:
        now = clock()
        payload = pb.KeyCert(
            federation=self.federation,
            nonce=os.urandom(16),
            created_at=now,
            root=self.root.public.raw,
            signing_key=self.signing.public.raw,
            sealing_key=self.sealing.public,
            seq=self.seq,
            valid_until=now + self.lifetime,
        )
        return st.sign(st.KEY_CERT, payload, [self.root]).envelope

    def rotate(self) -> None:
        """A new online key, with the next number."""
        self.signing, self.seq = SigningKey.generate(), self.seq + 1


class World:
    """The operator, a broker, schools, a provider and a parent, with consents for one child or several."""

    def __init__(self, *schools: str) -> None:
        self.operator = SigningKey.generate()
        self.broker = Party("Broker", pb.PRINCIPAL_KIND_BROKER)
        self.schools = {name: Party(name, pb.PRINCIPAL_KIND_NODE) for name in schools or ("Lincoln", "Birch", "Cedar")}
        self.provider = Party("Ana's Tutoring", pb.PRINCIPAL_KIND_PROVIDER)
        self.parent = SigningKey.generate()
        self.records: dict[tuple[bytes, bytes], list[record_pb2.Record]] = {}
        self.grants: list[session_pb2.GrantState] = []
        self.by_id: dict[bytes, tuple[Signed[pb.Grant], Party]] = {}

    def school(self, root: bytes) -> Party:
        return next(each for each in self.schools.values() if each.root.public.raw == root)

    def admission(self, party: Party, *, by: SigningKey | None = None) -> pb.Envelope:
        operator = by or self.operator
        payload = pb.Admission(
            federation=FEDERATION,
            nonce=os.urandom(16),
            created_at=clock(),
            signer=pb.Signer(root=operator.public.raw, key=operator.public.raw),
            root=party.root.public.raw,
            kind=party.kind,
            name=party.name,
            agreement_id="NDPA-1",
        )
        return st.sign(st.ADMISSION, payload, [operator]).envelope

    def consent(
        self,
        reference: str,
        *schools: str,
        sections: tuple[str, ...] = ("transcript", "personal.attendance"),
        records: int = 3,
        parent: SigningKey | None = None,
    ) -> list[Signed[pb.Grant]]:
        """One consent to the provider, endorsed by every school, and some records at each."""
        signer, consent_id = parent or self.parent, os.urandom(16)
        made = []
        for name in schools or tuple(self.schools):
            school = self.schools[name]
            place = pb.Slice(node=school.root.public.raw, handle=sha256((reference + name).encode()).digest()[:16])
            terms = ConsentTerms(
                grantee=self.provider.root.public.raw,
                sections=sections,
                purpose=pb.PURPOSE_TUTORING,
                purpose_text="Help with reading",
                expires_at=clock() + 90 * DAY,
                reference=reference,
            )
            grant = make_grant(
                terms,
                place,
                federation=FEDERATION,
                granted_by=[signer.public.raw],
                names={},
                recipients=[school.sealing.public, self.provider.sealing.public],
                now=clock(),
            )
            signed = st.sign(st.GRANT, grant, [signer])
            self.by_id[signed.id] = (signed, school)
            self.grants.append(
                session_pb2.GrantState(
                    grant=signed.envelope,
                    grant_id=signed.id,
                    status=session_pb2.GRANT_STATUS_ACTIVE,
                    endorsement=self.endorsement(signed, school),
                    consent_id=consent_id,
                    deposited_at=clock(),
                )
            )
            self.records[place.node, place.handle] = [attendance(number) for number in range(records)]
            made.append(signed)
        return made

    def endorsement(self, grant: Signed[pb.Grant], school: Party) -> pb.Envelope:
        now = clock()
        payload = pb.Endorsement(
            federation=FEDERATION,
            nonce=os.urandom(16),
            created_at=now,
            signer=school.signer,
            grant_id=grant.id,
            verdict=pb.ENDORSEMENT_VERDICT_ENDORSED,
            quorum_rule="any",
            revokers=[bytes(32)],
            valid_until=now + DAY,
        )
        return st.sign(st.ENDORSEMENT, payload, [school.signing]).envelope


def attendance(number: int, *, text: str = "In Attendance") -> record_pb2.Record:
    return record_pb2.Record(
        record_id=number.to_bytes(16, "big"),
        section="personal.attendance",
        observed_on="2026-05-01",
        recorded_at=1_790_000_000_000,
        version=1,
        attendance=record_pb2.Attendance(event=text),
    )


# ------------------------------------------------------------------------------------------------ answers


@dataclass
class Asked:
    """One query as it arrived, and what a script needs to answer it."""

    world: World
    query: Signed[pb.Query]
    grant: Signed[pb.Grant]
    school: Party
    credit: asyncio.Event = field(default_factory=asyncio.Event)
    room: int = 0
    cancelled: bool = False

    @property
    def records(self) -> list[record_pb2.Record]:
        place = self.grant.payload.slice
        return self.world.records[place.node, place.handle]

    def piece(self, **parts: Any) -> provider_pb2.Answer:
        return provider_pb2.Answer(query_id=self.query.id, **parts)

    def refused(self, reason: Reason) -> provider_pb2.Answer:
        return self.piece(outcome=provider_pb2.Outcome(refusal=session_pb2.Refusal(code=reason.wire)))


Script = Callable[[Asked], AsyncIterator[provider_pb2.Answer]]


@dataclass
class Sealed:
    """A whole sealed slice, in parts that a script can tamper with."""

    opening: pb.Envelope
    chunks: list[bytes]
    manifest: Signed[pb.Manifest]

    def answer(self, asked: Asked) -> provider_pb2.Answer:
        return asked.piece(opening=self.opening, chunks=self.chunks, outcome=self.outcome(asked))

    def outcome(self, asked: Asked) -> provider_pb2.Outcome:
        return provider_pb2.Outcome(
            refusal=ALLOWED,
            manifest_sha256=self.manifest.sha256,
            sealed_bytes=sum(map(len, self.chunks)),
            said_by=asked.school.root.public.raw,
        )


def seal(
    asked: Asked,
    records: list[record_pb2.Record] | None = None,
    *,
    manifest_of: Signed[pb.Query] | None = None,
    signer: Party | None = None,
    counts: dict[str, int] | None = None,
    per_chunk: int = 0,
    next_page: bytes = b"",
) -> Sealed:
    """The slice that an honest node would seal, unless told otherwise."""
    school = signer or asked.school
    held = asked.records if records is None else records
    writer = SliceWriter(asked.query, signer=school.signer, key=school.signing, now=clock())
    chunks: list[bytes] = []
    size = per_chunk or max(len(held), 1)
    for start in range(0, len(held), size):
        some = held[start : start + size]
        chunks += writer.add(record_pb2.SlicePart(records=some).SerializeToString(deterministic=True), len(some))
    counted = counts if counts is not None else dict.fromkeys({each.section for each in held}, 0)
    if counts is None:
        for each in held:
            counted[each.section] += 1
    covered = [_cover(asked.grant.payload, leaf, counted) for leaf in expand(asked.query.payload.sections)]
    writer._query = manifest_of or asked.query
    rest, manifest = writer.finish(covered, slice_seq=7, now=clock(), next_page=next_page)
    return Sealed(writer.opening, [*chunks, *rest], manifest)


def _cover(grant: pb.Grant, leaf: str, counted: dict[str, int]) -> pb.SectionCoverage:
    granted = any(leaf == path or leaf.startswith(path + ".") for path in grant.sections)
    if not granted:
        return pb.SectionCoverage(section=leaf, reason=pb.REASON_SECTION_NOT_GRANTED)
    return pb.SectionCoverage(section=leaf, reason=pb.REASON_ALLOWED, returned=counted.get(leaf, 0))


def acknowledgement(
    school: Party, revocation: Signed[pb.Revocation], *, by: Party | None = None, about: bytes = b"", of: bytes = b""
) -> pb.Envelope:
    """What a school says when it acts on a revocation, unless told otherwise."""
    signer = by or school
    payload = pb.Acknowledgement(
        federation=FEDERATION,
        nonce=os.urandom(16),
        created_at=clock(),
        signer=pb.Signer(root=school.root.public.raw, key=signer.signing.public.raw),
        statement_id=about or revocation.id,
        target_id=of or revocation.payload.target_id,
        ledger_size=7,
    )
    return st.sign(st.ACKNOWLEDGEMENT, payload, [signer.signing]).envelope


async def honest(asked: Asked) -> AsyncIterator[provider_pb2.Answer]:
    """Everything in one piece."""
    yield seal(asked).answer(asked)


# ------------------------------------------------------------------------------------------------- broker


class Trust(TypedDict):
    """The arguments by which a client knows whom to trust."""

    broker: str
    broker_root: str
    federation: str
    operator: str


class SimulatedBroker(
    session_pb2_grpc.SessionServiceServicer,
    provider_pb2_grpc.ProviderServiceServicer,
    guardian_pb2_grpc.GuardianServiceServicer,
):
    """Serves on a free port of this machine; what it answers is for the test to say."""

    def __init__(self, world: World, *, tls: trustme.LeafCert | None = None) -> None:
        self.world, self._tls = world, tls
        self.refuse_next_reads = 0
        self.script: Script = honest
        self.scripts: dict[str, Script] = {}
        self.secret = os.urandom(32)
        self.directory: list[session_pb2.DirectoryEntry] = [
            session_pb2.DirectoryEntry(admission=world.admission(each), key_cert=each.cert, attached=True)
            for each in (*world.schools.values(), world.provider)
        ]
        self.broker_cert = world.broker.cert
        self.refuse_hello: Reason | None = None
        self.relay: Callable[[guardian_pb2.RelayLinkRequest], guardian_pb2.RelayLinkResponse] | None = None
        self.acknowledge: Callable[[Signed[pb.Revocation]], pb.Envelope | None] = lambda _: None
        self.welcome = provider_pb2.Welcome(version=1, initial_credit=256 << 10, max_open=512)
        self.queries: list[Signed[pb.Query]] = []
        self.messages: list[int] = []  # queries in each message of a client
        self.directory_calls = 0
        self.open: dict[bytes, Asked] = {}
        self.arrived = asyncio.Event()
        self.cancelled: asyncio.Queue[bytes] = asyncio.Queue()
        self.streams: list[asyncio.Queue[provider_pb2.ExchangeReply | None]] = []
        self.streams_opened = 0
        self.port = 0

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        options = (
            ("grpc.so_reuseport", 0),
            ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
            ("grpc.http2.max_ping_strikes", 0),
        )
        self._server = grpc.aio.server(options=options)
        session_pb2_grpc.add_SessionServiceServicer_to_server(self, self._server)
        provider_pb2_grpc.add_ProviderServiceServicer_to_server(self, self._server)
        guardian_pb2_grpc.add_GuardianServiceServicer_to_server(self, self._server)
        address = f"127.0.0.1:{self.port}"
        if self._tls is None:
            self.port = self._server.add_insecure_port(address)
        else:
            chain = b"".join(each.bytes() for each in self._tls.cert_chain_pems)
            credentials = grpc.ssl_server_credentials([(self._tls.private_key_pem.bytes(), chain)])
            self.port = self._server.add_secure_port(address, credentials)
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(None)

    def trust(self) -> Trust:
        """What a client is configured with."""
        return {
            "broker": f"127.0.0.1:{self.port}",
            "broker_root": self.world.broker.did,
            "federation": FEDERATION,
            "operator": self.world.operator.public.did,
        }

    def say(self, reply: provider_pb2.ExchangeReply) -> None:
        """To every open stream."""
        for stream in self.streams:
            stream.put_nowait(reply)

    def cut(self) -> None:
        """Break every open stream."""
        for stream in self.streams:
            stream.put_nowait(None)

    async def GetChallenge(
        self, request: session_pb2.GetChallengeRequest, context: Any
    ) -> session_pb2.GetChallengeResponse:
        challenge = session_pb2.Challenge(
            federation=FEDERATION,
            broker_cert=self.broker_cert,
            server_nonce=make_server_nonce(self.secret, now=clock()),
            versions=[1],
            server_time=clock(),
        )
        return session_pb2.GetChallengeResponse(challenge=challenge)

    async def ListDirectory(
        self, request: session_pb2.ListDirectoryRequest, context: Any
    ) -> session_pb2.ListDirectoryResponse:
        self.directory_calls += 1
        entries = [
            each
            for each in self.directory
            if not request.roots or pb.Admission.FromString(each.admission.payload).root in request.roots
        ]
        return session_pb2.ListDirectoryResponse(entries=entries)

    async def ListGrants(
        self, request: provider_pb2.ListGrantsRequest, context: Any
    ) -> provider_pb2.ListGrantsResponse:
        self._greeted(request.hello)
        if self.refuse_next_reads:
            self.refuse_next_reads -= 1
            await abort(context, Reason.HELLO_REFUSED)
        start = int.from_bytes(request.page.token, "big")
        end = start + 2  # small pages, so that paging is always driven
        following = end.to_bytes(4, "big") if end < len(self.world.grants) else b""
        return provider_pb2.ListGrantsResponse(grants=self.world.grants[start:end], next_page=following)

    async def ListConsents(
        self, request: guardian_pb2.ListConsentsRequest, context: Any
    ) -> guardian_pb2.ListConsentsResponse:
        self._greeted(request.hello)
        return guardian_pb2.ListConsentsResponse()

    async def Exchange(self, requests: Any, context: Any) -> AsyncIterator[provider_pb2.ExchangeResponse]:
        first = await anext(requests)
        self._greeted(first.calls[0].hello)
        if self.refuse_hello is not None:
            await abort(context, self.refuse_hello)
        self.streams_opened += 1
        replies: asyncio.Queue[provider_pb2.ExchangeReply | None] = asyncio.Queue()
        self.streams.append(replies)
        replies.put_nowait(provider_pb2.ExchangeReply(welcome=self.welcome))
        reading = asyncio.ensure_future(self._read(requests, replies))
        try:
            while (reply := await replies.get()) is not None:
                yield provider_pb2.ExchangeResponse(replies=[reply])
            await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
        finally:
            reading.cancel()
            self.streams.remove(replies)

    async def _read(self, requests: Any, replies: asyncio.Queue[provider_pb2.ExchangeReply | None]) -> None:
        answering = set()
        async for request in requests:
            self.messages.append(sum(call.HasField("query") for call in request.calls))
            for call in request.calls:
                if call.HasField("query"):
                    task = asyncio.ensure_future(self._answer(call.query.query, replies))
                    answering.add(task)
                    task.add_done_callback(answering.discard)
                elif call.HasField("credit") and call.credit.query_id in self.open:
                    asked = self.open[call.credit.query_id]
                    asked.room += call.credit.bytes
                    asked.credit.set()
                elif call.HasField("cancel"):
                    if call.cancel.query_id in self.open:
                        self.open[call.cancel.query_id].cancelled = True
                        self.open[call.cancel.query_id].credit.set()
                    self.cancelled.put_nowait(call.cancel.query_id)

    async def _answer(self, envelope: pb.Envelope, replies: asyncio.Queue[provider_pb2.ExchangeReply | None]) -> None:
        query = st.verify(st.QUERY, envelope, federation=FEDERATION)
        self.queries.append(query)
        self.arrived.set()
        grant, school = self.world.by_id[query.payload.grant_id]
        asked = Asked(self.world, query, grant, school, room=self.welcome.initial_credit)
        self.open[query.id] = asked
        async for piece in self.scripts.get(school.name, self.script)(asked):
            replies.put_nowait(provider_pb2.ExchangeReply(answer=piece))

    def _greeted(self, hello: pb.Envelope) -> None:
        check_hello(
            hello, secret=self.secret, broker=self.world.broker.root.public.raw, federation=FEDERATION, now=clock()
        )

    async def RelayLink(self, request: guardian_pb2.RelayLinkRequest, context: Any) -> guardian_pb2.RelayLinkResponse:
        assert self.relay is not None
        return self.relay(request)

    async def _unused(self, request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "real processes serve this")

    Deposit = DepositConsent = ListAccesses = ListInbox = ReadNodeLedger = _unused

    async def Revoke(
        self, request: guardian_pb2.RevokeRequest, context: Any
    ) -> AsyncIterator[guardian_pb2.RevokeResponse]:
        for envelope in request.revocations:
            revocation = st.verify(st.REVOCATION, envelope, federation=FEDERATION)
            state = guardian_pb2.RevocationState(
                revocation_id=revocation.id,
                target_id=revocation.payload.target_id,
                node=revocation.payload.node,
                node_attached=True,
                acknowledgement=self.acknowledge(revocation),
            )
            yield guardian_pb2.RevokeResponse(states=[state])


async def abort(context: Any, reason: Reason) -> None:
    """End a call as a broker does: with a refusal in the status's details."""
    from permslip.errors import RefusedError
    from permslip.hosting.refusals import abort_with

    await abort_with(context, RefusedError(reason.meaning, code=reason.name, remedy=reason.remedy))

"""Both chains about one's slices, fetched: the broker's, and each school's own through the broker.

The order matters. A school's chain is read first and the broker's after it: the broker records a query before it
routes it, so whatever the school had by then, the broker must have too. What the broker has beyond that, the school is
asked for once more: it records before it releases.

Rules:

- The broker's chain must be whole and proved, or nothing is told (:class:`~permslip.errors.ProofError`).
- What a school's node says is believed or not by itself: its error stands in that slice's report.
- Each page from a school has a greeting and a reply key of its own; its answer names that greeting.

Example::

    report = await read_accesses(session, (), wallet=wallet)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from google.protobuf.message import DecodeError

from permslip import statements as st
from permslip._pb.permslip.v1 import guardian_pb2, guardian_pb2_grpc, ledger_pb2, statement_pb2 as pb
from permslip.bounds import check_bounds
from permslip.client.access_joining import join
from permslip.client.accesses import Access, AccessReport, SliceReport
from permslip.client.session import Session
from permslip.errors import MalformedError, PermslipError, ProofError, RefusedError
from permslip.keys import SealingKey
from permslip.reasons import Reason
from permslip.sealing import open_sealed
from permslip.slice_chains import ChainChecker, ChainEntry, chain_context, check_chain_end
from permslip.statements import Signed
from permslip.wallet import LinkedSlice, Wallet
from permslip.witnesses import WitnessPolicy, verify_witness_sets, witness_policy

__all__ = ["read_accesses"]

_PAGE: Final = 256
_AT_ONCE: Final = 4
_Place = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class _SchoolChain:
    """A school's own chain, as far as it was read."""

    checker: ChainChecker
    entries: tuple[ChainEntry, ...]
    end: Signed[pb.ChainEnd]


@dataclass(frozen=True, slots=True)
class _BrokerChain:
    """The broker's chain of one slice."""

    entries: tuple[ChainEntry, ...]
    unwitnessed: PermslipError | None


async def read_accesses(
    session: Session,
    slices: Sequence[LinkedSlice],
    *,
    wallet: Wallet | None = None,
    witnesses: Sequence[pb.Envelope] = (),
) -> AccessReport:
    """What broker and schools say about accesses, joined.

    Args:
        session: with the broker.
        slices: only these; else those that are linked, and every slice on which the caller holds a consent.
        wallet: the caller's, if there is one.
        witnesses: the federation's sets of witnesses; empty where no cosignatures are demanded.

    Raises:
        ProofError: an entry is not in the broker's ledger, or one was left out.
        SignatureError: the checkpoint is not the broker's.
        RefusedError: the broker does not tell of a slice that was asked for.
    """
    newest = _newest_set(session, witnesses)
    policy = await _policy(session, newest)
    linked = wallet.slices if wallet is not None else ()
    signed = frozenset(each.grant_id for each in wallet.grants) if wallet is not None else frozenset()
    wanted = {(each.node, each.handle): each for each in (slices or linked)}
    places: list[_Place] = list(wanted)
    if not slices:
        places += [each for each in await _told_by_broker(session) if each not in wanted]
    names = {each.node: each.node_name for each in linked}
    await session.know({node for node, _ in places})
    turn = asyncio.Semaphore(_AT_ONCE)

    async def read(place: _Place) -> tuple[SliceReport, list[Access]]:
        async with turn:
            name = names.get(place[0]) or session.directory.name(place[0])
            return await _read_slice(session, SliceReport(place[0], name, place[1]), policy, signed, must=bool(slices))

    tasks = [asyncio.ensure_future(read(place)) for place in places]
    try:
        read_slices = [await each for each in tasks]
    finally:
        for each in tasks:
            each.cancel()
    accesses = sorted((each for _, found in read_slices for each in found), key=lambda each: each.decided_at)
    await session.know({each.requester for each in accesses if each.requester})
    directory = session.directory
    named = tuple(
        replace(each, requester_name=directory.name(each.requester)) if each.requester else each for each in accesses
    )
    certified = dict.fromkeys(
        [*(node for node, _ in places), *(newest.payload.witnesses if newest is not None else ())]
    )
    certificates = [session.broker_cert, *map(directory.cert, certified)]
    return AccessReport(
        named,
        tuple(report for report, _ in read_slices),
        tuple(each for each in certificates if each is not None),
        tuple(witnesses),
    )


async def _read_slice(
    session: Session, report: SliceReport, policy: WitnessPolicy | None, signed: frozenset[bytes], *, must: bool
) -> tuple[SliceReport, list[Access]]:
    place = report.node, report.handle
    # (1) the school's own chain
    school = None
    try:
        school = await _school_chain(session, place)
    except PermslipError as error:
        report = replace(report, error=error)
    # (2) the broker's, which must hold whatever the school was asked
    try:
        broker = await _broker_chain(session, place, policy)
    except RefusedError as error:
        if must or error.code != Reason.NOT_ALLOWED.name:
            raise
        report = replace(report, broker_tells=False)
    else:
        report = replace(report, broker=broker.entries, unwitnessed=broker.unwitnessed)
    if school is None:
        return report, join(report, signed=signed)
    # (3) what the broker has beyond it, the school must hold by now
    report = replace(report, school=school.entries, end=school.end)
    settled = school.checker.seq
    found = join(report, settled=settled, signed=signed)
    if any(each.difference for each in found):
        try:
            school = await _school_chain(session, place, school)
        except PermslipError as error:
            report = replace(report, error=error)
        else:
            report = replace(report, school=school.entries, end=school.end)
        found = join(report, settled=settled, signed=signed)
    return report, found


# ----------------------------------------------------------------------------------------------- the broker


async def _told_by_broker(session: Session) -> list[_Place]:
    """The slices on which the broker knows a consent of the caller."""
    # Where the chains end is told with the first page.
    first = await anext(_broker_pages(session, []), guardian_pb2.ListAccessesResponse())
    return [(head.slice.node, head.slice.handle) for head in first.heads]


async def _broker_chain(session: Session, place: _Place, policy: WitnessPolicy | None) -> _BrokerChain:
    wanted = pb.Slice(node=place[0], handle=place[1])
    checker: ChainChecker | None = None
    entries: list[ChainEntry] = []
    head: ledger_pb2.SliceHead | None = None
    async for response in _broker_pages(session, [wanted]):
        if checker is None:
            checker = ChainChecker(
                wanted,
                federation=session.server.federation,
                ledger=session.server.broker_root,
                key=session.broker_key,
                policy=policy,
            )
        for each in response.heads:
            if each.slice != wanted or head is not None:
                raise ProofError("the broker tells of another slice than was asked for.")
            head = each
        entries += checker.check(response.entries, response.proofs, response.checkpoint.note)
    if checker is None or head is None:
        raise ProofError("the broker does not say where the chain about this slice ends.")
    checker.finish(head.slice_seq, head.leaf_hash)
    return _BrokerChain(tuple(entries), checker.unwitnessed)


def _broker_pages(session: Session, slices: Sequence[pb.Slice]) -> AsyncIterator[guardian_pb2.ListAccessesResponse]:
    return session.pages(
        guardian_pb2_grpc.GuardianServiceStub,
        "ListAccesses",
        lambda hello, page: guardian_pb2.ListAccessesRequest(hello=hello, page=page, slices=slices),
    )


# ----------------------------------------------------------------------------------------------- a school


async def _school_chain(session: Session, place: _Place, begun: _SchoolChain | None = None) -> _SchoolChain:
    """A school's own chain, from the beginning or from where it was read to.

    Raises:
        UnavailableError: it is not connected, or did not answer in time.
        RefusedError: it does not tell the caller.
        VerificationError: what it says is not to be believed.
    """
    node, handle = place
    wanted = pb.Slice(node=node, handle=handle)
    key = _certified_key(session, node)
    checker = begun.checker if begun is not None else _checker(session, wanted, key)
    entries = list(begun.entries) if begun is not None else []
    while True:
        hello_id, told = await _school_page(session, wanted, checker.seq)
        if _signer_of(told.chain_end) != key and not entries:
            # It may have new keys since its certificate was asked for.
            await session.learn_anew(node)
            key = _certified_key(session, node)
            checker = _checker(session, wanted, key)
        end = check_chain_end(
            told.chain_end,
            federation=session.server.federation,
            node=node,
            key=key,
            hello_id=hello_id,
            place=wanted,
        )
        found = checker.check(told.entries, told.proofs, told.checkpoint.note)
        entries += found
        if not found or checker.seq >= end.payload.slice_seq:
            checker.finish(end.payload.slice_seq, end.payload.leaf_hash)
            return _SchoolChain(checker, tuple(entries), end)


def _checker(session: Session, place: pb.Slice, key: bytes) -> ChainChecker:
    return ChainChecker(place, federation=session.server.federation, ledger=place.node, key=key)


def _certified_key(session: Session, node: bytes) -> bytes:
    cert = session.directory.cert(node)
    if cert is None:
        raise RefusedError(
            "the school's node is not admitted, has registered no key, or is suspended.",
            code=Reason.NODE_UNKNOWN.name,
            remedy=Reason.NODE_UNKNOWN.remedy,
        )
    key: bytes = cert.payload.signing_key
    session.directory.check_signer(pb.Signer(root=node, key=key), kind=pb.PRINCIPAL_KIND_NODE, at=session.now())
    return key


async def _school_page(session: Session, place: pb.Slice, after: int) -> tuple[bytes, guardian_pb2.SliceLedger]:
    reply_key = SealingKey.generate()
    hello = await session.greet_node(place.node, reply_key.public)
    request = guardian_pb2.ReadNodeLedgerRequest(hello=hello.envelope, slice=place, after=after, limit=_PAGE)
    response = await session.call(guardian_pb2_grpc.GuardianServiceStub, "ReadNodeLedger", request)
    opened = open_sealed(reply_key, response.sealed, context=chain_context(hello.id))
    try:
        told = guardian_pb2.SliceLedger.FromString(opened)
    except DecodeError:
        raise MalformedError("expected a SliceLedger.", field="sealed") from None
    check_bounds(told, "slice-ledger")
    return hello.id, told


def _signer_of(envelope: pb.Envelope) -> bytes:
    """The key that a chain's end names; nothing is believed by it."""
    payload = st.decode_strictly(pb.ChainEnd, envelope.payload, "chain-end")
    return bytes(payload.signer.key)


# ----------------------------------------------------------------------------------------------- witnesses


def _newest_set(session: Session, witnesses: Sequence[pb.Envelope]) -> Signed[pb.WitnessSet] | None:
    server = session.server
    if not witnesses:
        return None
    return verify_witness_sets(witnesses, federation=server.federation, operator=server.operator)


async def _policy(session: Session, newest: Signed[pb.WitnessSet] | None) -> WitnessPolicy | None:
    if newest is None:
        return None
    directory = await session.know(newest.payload.witnesses)

    def signing_key(root: bytes) -> bytes | None:
        cert = directory.cert(root)
        return None if cert is None else bytes(cert.payload.signing_key)

    return witness_policy(newest, signing_key=signing_key)

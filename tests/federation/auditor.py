"""An auditor who speaks the wire by hand: what she is given, and how she is refused.

Example::

    async with calling(address, auditor, federation=federation, broker=root, now=now) as calls:
        entries = await calls.entries(root)
        reason = await refused(calls.proofs(root, size=5))
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc.status_pb2 import Status

from permslip._pb.permslip.v1 import (
    auditor_pb2,
    auditor_pb2_grpc,
    ledger_pb2,
    session_pb2,
    session_pb2_grpc,
    statement_pb2 as pb,
)
from permslip.audit_scope import entries_context, statements_context
from permslip.dsse import statement_id
from permslip.greeting import make_hello
from permslip.hosting.serving import channel_options
from permslip.keys import SealingKey
from permslip.quantities import Millis
from permslip.reasons import Reason
from permslip.sealing import open_sealed
from tests.federation.principals import Organization, Person

__all__ = ["AuditorCalls", "Fetched", "calling", "entry_of", "refused"]


@dataclass
class Fetched:
    """Statements, by id; and which ones are no more."""

    statements: dict[bytes, pb.Envelope]
    erased: list[bytes]


class AuditorCalls:
    """Calls of AuditorService over one channel, as anybody.

    Args:
        channel: to a broker.
        who: calls.
        federation, broker, now: as everywhere.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        who: Organization | Person,
        *,
        federation: str,
        broker: bytes,
        now: Callable[[], Millis],
    ) -> None:
        self.channel, self.who = channel, who
        self.federation, self.broker, self.now = federation, broker, now
        self.stub = auditor_pb2_grpc.AuditorServiceStub(channel)
        self.reply_key = SealingKey.generate()
        self.kind: pb.PrincipalKind.ValueType = pb.PRINCIPAL_KIND_AUDITOR
        self.hello_for: bytes | None = None
        """Greet for this node, whichever ledger is asked for."""

    async def hello(self, ledger: bytes) -> pb.Envelope:
        """A fresh greeting for a ledger."""
        session = session_pb2_grpc.SessionServiceStub(self.channel)
        given = await session.GetChallenge(session_pb2.GetChallengeRequest(federation=self.federation))
        ledger = ledger if self.hello_for is None else self.hello_for
        own = ledger == self.broker
        return make_hello(
            given.challenge,
            broker=self.broker,
            signer=self.who.signer,
            kind=self.kind,
            key=self.who.key,
            now=self.now(),
            node=b"" if own else ledger,
            reply_key=b"" if own else self.reply_key.public,
        ).envelope

    async def checkpoint(self, ledger: bytes) -> bytes:
        """The note."""
        request = auditor_pb2.GetCheckpointRequest(hello=await self.hello(ledger), ledger=ledger)
        return bytes((await self.stub.GetCheckpoint(request, timeout=20)).checkpoint.note)

    async def proofs(
        self, ledger: bytes, size: int, positions: Sequence[int] = (), old_size: int = 0
    ) -> auditor_pb2.GetProofsResponse:
        """Proofs."""
        request = auditor_pb2.GetProofsRequest(
            hello=await self.hello(ledger), ledger=ledger, size=size, positions=positions, old_size=old_size
        )
        response: auditor_pb2.GetProofsResponse = await self.stub.GetProofs(request, timeout=20)
        return response

    async def entry_pages(
        self, ledger: bytes, start: int = 0, end: int = 0, *, follow: bool = False, hello: pb.Envelope | None = None
    ) -> AsyncGenerator[list[ledger_pb2.LedgerLeaf], None]:
        """Leaves, message by message, unsealed."""
        hello = hello or await self.hello(ledger)
        request = auditor_pb2.FetchEntriesRequest(
            hello=hello, ledger=ledger, until=end, follow=follow, **{"from": start}
        )
        context = entries_context(statement_id(hello.payload_type, hello.payload))
        async for response in self.stub.FetchEntries(request, timeout=60):
            if response.sealed:
                assert not response.entries
                opened = open_sealed(self.reply_key, response.sealed, context=context)
                response = auditor_pb2.FetchEntriesResponse.FromString(opened)
            yield list(response.entries)

    async def entries(self, ledger: bytes, start: int = 0, end: int = 0, **options: Any) -> list[ledger_pb2.LedgerLeaf]:
        """Leaves."""
        return [each async for page in self.entry_pages(ledger, start, end, **options) for each in page]

    async def statements(self, ledger: bytes, start: int = 0, end: int = 0, *, ids: Sequence[bytes] = ()) -> Fetched:
        """Statements that a range names, or by their ids."""
        hello = await self.hello(ledger)
        request = auditor_pb2.FetchStatementsRequest(
            hello=hello, ledger=ledger, statement_ids=ids, until=end, **{"from": start}
        )
        context = statements_context(statement_id(hello.payload_type, hello.payload))
        fetched = Fetched({}, [])
        async for response in self.stub.FetchStatements(request, timeout=60):
            if response.sealed:
                assert not response.statements
                assert not response.erased
                opened = open_sealed(self.reply_key, response.sealed, context=context)
                response = auditor_pb2.FetchStatementsResponse.FromString(opened)
            for each in response.statements:
                fetched.statements[statement_id(each.payload_type, each.payload)] = each
            fetched.erased += response.erased
        return fetched


@asynccontextmanager
async def calling(
    address: str, who: Organization | Person, *, federation: str, broker: bytes, now: Callable[[], Millis]
) -> AsyncIterator[AuditorCalls]:
    """Calls to a broker."""
    async with grpc.aio.insecure_channel(address, options=channel_options()) as channel:
        yield AuditorCalls(channel, who, federation=federation, broker=broker, now=now)


async def refused(call: Awaitable[Any]) -> Reason:
    """The reason with which a call is refused."""
    try:
        found = await call
    except grpc.aio.AioRpcError as error:
        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin" and isinstance(value, bytes):
                refusal = session_pb2.Refusal()
                assert Status.FromString(value).details[0].Unpack(refusal)
                return Reason(refusal.code)
        raise
    raise AssertionError(f"it was not refused: {found}")


def entry_of(leaf: ledger_pb2.LedgerLeaf) -> ledger_pb2.LogEntry:
    """What a leaf says."""
    return ledger_pb2.LogEntry.FromString(leaf.leaf)

"""One ``Exchange`` stream spoken by hand: whatever envelope is given goes out as it is.

The SDK makes only sound queries. To show that a broker and a node refuse the others, somebody has to send them.

Example::

    with RawExchange(address, caller) as exchange:
        outcome = exchange.ask(envelope)
    Reason(outcome.refusal.code)
"""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Final

import grpc

from permslip._pb.permslip.v1 import provider_pb2, provider_pb2_grpc, statement_pb2 as pb
from permslip.dsse import statement_id
from permslip.errors import TimedOutError, UnavailableError
from permslip.greeting import make_hello
from permslip.keys import SigningKey
from permslip.quantities import Millis

__all__ = ["RawCaller", "RawExchange"]

_PATIENCE: Final = 20.0


@dataclass(frozen=True, slots=True)
class RawCaller:
    """As whom a stream is opened.

    Attributes:
        federation: its name.
        broker: root key of the broker meant.
        signer: root and online key.
        key: the private key of ``signer.key``.
    """

    federation: str
    broker: bytes
    signer: pb.Signer
    key: SigningKey


class RawExchange:
    """An open stream of a provider; plaintext, so for loopback only.

    Args:
        address: HOST:PORT of the broker.
        caller: who greets.

    Raises:
        UnavailableError: the broker does not answer, or does not let it in.
    """

    def __init__(self, address: str, caller: RawCaller) -> None:
        self._calls: queue.SimpleQueue[provider_pb2.ExchangeRequest | None] = queue.SimpleQueue()
        self._channel = grpc.insecure_channel(address)
        try:
            self._replies = self._open(caller)
        except grpc.RpcError as error:
            self._channel.close()
            raise _broken(error) from error

    def __enter__(self) -> RawExchange:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._calls.put(None)
        self._channel.close()

    def ask(self, query: pb.Envelope) -> provider_pb2.Outcome:
        """Send one query as it is; returns what becomes of it. Its records, if any come, are thrown away.

        Raises:
            TimedOutError: nothing came of it.
            UnavailableError: the stream broke.
        """
        query_id = statement_id(query.payload_type, query.payload)
        self._say(provider_pb2.ExchangeCall(query=provider_pb2.QueryCall(query=query)))
        try:
            for batch in self._replies:
                for reply in batch.replies:
                    if reply.answer.query_id == query_id and reply.answer.HasField("outcome"):
                        return reply.answer.outcome
        except grpc.RpcError as error:
            raise _broken(error) from error
        raise UnavailableError("the broker ended the stream without an outcome.")

    def _open(self, caller: RawCaller) -> Iterator[provider_pb2.ExchangeResponse]:
        stub = provider_pb2_grpc.ProviderServiceStub(self._channel)
        replies = iter(stub.Exchange(iter(self._calls.get, None), timeout=_PATIENCE))
        challenge = next(replies).replies[0].challenge
        hello = make_hello(
            challenge,
            broker=caller.broker,
            signer=caller.signer,
            kind=pb.PRINCIPAL_KIND_PROVIDER,
            key=caller.key,
            now=Millis(time.time_ns() // 1_000_000),
        )
        self._say(provider_pb2.ExchangeCall(hello=hello.envelope))
        next(replies)  # the welcome
        return replies

    def _say(self, call: provider_pb2.ExchangeCall) -> None:
        self._calls.put(provider_pb2.ExchangeRequest(calls=[call]))


def _broken(error: grpc.RpcError) -> UnavailableError:
    code = getattr(error, "code", None)  # a call's error has it; the stubs do not say so
    if code is not None and code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return TimedOutError("no outcome came for a query.")
    return UnavailableError(f"the stream broke: {error}.")

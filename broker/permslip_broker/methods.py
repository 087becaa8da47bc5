"""How the contract's methods become handlers of the gRPC server.

A class that handles a service has a method for each call that this broker answers, under the contract's name in small
letters (``GetChallenge`` → ``get_challenge``); calls without one are answered ``UNIMPLEMENTED``.

Rules:

- Bytes that are no message at all are refused like any other malformed request, not by gRPC's own error.
- A stream of answers whose next one the caller does not take for :data:`TAKEN_WITHIN` seconds is ended, and its handler
  with it: nobody holds a place by not listening.
- Whatever a handler refuses is recorded (:mod:`permslip_broker.refused_requests`) before the caller hears of it, with
  the organization that had proved to be calling.

Example::

    add_methods(server, session_pb2.DESCRIPTOR.services_by_name["SessionService"], sessions, refusals)
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from permslip.errors import MalformedError, PermslipError, TimedOutError
from permslip_broker.greetings import proved_caller
from permslip_broker.refused_requests import RefusedRequests

__all__ = ["Context", "add_methods"]

Context = grpc.aio.ServicerContext[Any, Any]

# Seconds that a caller has to take each answer of a stream.
TAKEN_WITHIN = 30.0


@dataclass(frozen=True, slots=True)
class _Unreadable:
    """Bytes that came where a message was expected."""

    raw: bytes


def add_methods(
    server: grpc.aio.Server, service: ServiceDescriptor, handlers: object, refusals: RefusedRequests
) -> None:
    """Let a server answer those methods of a service that ``handlers`` has."""
    known = {
        method.name: _method_handler(method, handler, refusals)
        for method in service.methods
        if (handler := getattr(handlers, _small(method.name), None)) is not None
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, known),))


def _small(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _method_handler(method: MethodDescriptor, handler: Callable[..., Any], refusals: RefusedRequests) -> Any:
    read = _reader(GetMessageClass(method.input_type))
    write = _serialized
    name = method.name
    if method.client_streaming:
        return grpc.stream_stream_rpc_method_handler(_conversing(handler, name, refusals), read, write)
    if method.server_streaming:
        return grpc.unary_stream_rpc_method_handler(_streaming(handler, name, refusals), read, write)
    return grpc.unary_unary_rpc_method_handler(_answering(handler, name, refusals), read, write)


def _reader(cls: type[Message]) -> Callable[[bytes], Message | _Unreadable]:
    def read(raw: bytes) -> Message | _Unreadable:
        try:
            return cls.FromString(raw)
        except DecodeError:
            return _Unreadable(raw)

    return read


def _serialized(response: Any) -> bytes:
    """A message, or the bytes of one that were put together already."""
    return response if isinstance(response, bytes) else response.SerializeToString()


def _readable(request: Any, name: str) -> Any:
    if isinstance(request, _Unreadable):
        raise MalformedError(
            f"expected a {name} message, got {len(request.raw)} bytes that are none.",
            field="request",
            remedy="Is the client built from another contract?",
        )
    return request


def _raw(request: Any) -> bytes:
    return request.raw if isinstance(request, _Unreadable) else request.SerializeToString()


def _answering(handler: Callable[..., Any], name: str, refusals: RefusedRequests) -> Callable[..., Any]:
    async def answer(request: Any, context: Context) -> Any:
        try:
            return await handler(_readable(request, name), context)
        except PermslipError as error:
            refusals.refuse(error, name, request=_raw(request), caller=proved_caller())
            raise

    return answer


def _streaming(handler: Callable[..., Any], name: str, refusals: RefusedRequests) -> Callable[..., Any]:
    async def answer(request: Any, context: Context) -> None:
        try:
            async with aclosing(handler(_readable(request, name), context)) as responses:
                async for response in responses:
                    await _write(response, context)
        except PermslipError as error:
            refusals.refuse(error, name, request=_raw(request), caller=proved_caller())
            raise

    return answer


async def _write(response: Any, context: Context) -> None:
    try:
        async with asyncio.timeout(TAKEN_WITHIN):
            await context.write(response)
    except TimeoutError:
        raise TimedOutError(
            "the next answer of this stream was not taken in time.", remedy="Call again, and read what comes."
        ) from None


def _conversing(handler: Callable[..., Any], name: str, refusals: RefusedRequests) -> Callable[..., Any]:
    async def converse(requests: Any, context: Context) -> None:
        async def readable() -> AsyncIterator[Any]:
            async for request in requests:
                yield _readable(request, name)

        try:
            await handler(readable(), context)
        except PermslipError as error:
            refusals.refuse(error, name, caller=proved_caller())
            raise

    return converse

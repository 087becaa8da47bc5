"""A lying broker: it stands where the broker should, has the broker's own keys, and says what a test wants said.

Behind it is the real broker. Every call is passed on as it comes, byte for byte, unless the test alters it:

- ``up[method]`` and ``down[method]`` are given each message of a call, may change it, and return what goes on: the
  message, or None for nothing.
- A :class:`Line` is one call. With :meth:`Line.say_down` the broker says something of its own.

Nobody can tell it from the broker by its keys: whatever it is caught by is what the statements themselves say.

Example::

    async with LyingBroker(address, broker_folder) as liar:
        liar.down["Attach"] = lambda message, line: None if withheld(message) else message
        school.cable.target = liar.port
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from permslip import statements as st
from permslip._pb.permslip.v1 import (  # noqa: F401 (their descriptors are looked up by name)
    auditor_pb2,
    guardian_pb2,
    node_pb2,
    operator_pb2,
    provider_pb2,
    session_pb2,
    statement_pb2 as pb,
)
from permslip.armor import read_statement
from permslip.hosting.serving import channel_options, server_options
from permslip.keyfile import read_key_file

__all__ = ["Line", "LyingBroker"]

Alter = Callable[[Any, "Line"], Message | None]


class Line:
    """One call that passes through.

    Args:
        method: the contract's name, such as ``Attach``.
        context: towards who called.
    """

    def __init__(self, method: str, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        self.method, self._context = method, context
        self._turn = asyncio.Lock()
        self.ended = asyncio.Event()

    async def say_down(self, message: Message) -> None:
        """Say something to who called."""
        await self.pass_down(message.SerializeToString())

    async def pass_down(self, raw: bytes) -> None:
        """Write one message; gRPC takes one at a time."""
        async with self._turn:
            await self._context.write(raw)


class LyingBroker:
    """Passes calls on, and lies.

    Args:
        target: HOST:PORT of the real broker.
        folder: of the real broker, with its online key.
    """

    def __init__(self, target: str, folder: Path) -> None:
        self._target = target
        self.key = read_key_file(folder / "broker.key").signing
        self.cert = pb.KeyCert.FromString(read_statement(folder / "broker.cert", st.KEY_CERT).payload)
        self.up: dict[str, Alter] = {}
        self.down: dict[str, Alter] = {}
        self.lines: list[Line] = []
        self.port = 0
        self._changed = asyncio.Event()

    @property
    def address(self) -> str:
        """Where to dial."""
        return f"127.0.0.1:{self.port}"

    @property
    def signer(self) -> pb.Signer:
        """As the broker signs."""
        return pb.Signer(root=self.cert.root, key=self.cert.signing_key)

    async def __aenter__(self) -> Self:
        self._channel = grpc.aio.insecure_channel(self._target, options=channel_options())
        self._server = grpc.aio.server(options=server_options())
        self._server.add_generic_rpc_handlers((_PassingOn(self),))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._server.stop(0)
        await self._channel.close()

    async def line(self, method: str, number: int = 1) -> Line:
        """Wait for the call of this method with this number, counted from 1."""
        while len(found := [each for each in self.lines if each.method == method]) < number:
            self._changed.clear()
            await self._changed.wait()
        return found[number - 1]

    def sign_tick(self, payload: pb.Tick) -> pb.Envelope:
        """Sign a tick with the broker's key."""
        return st.sign(st.TICK, payload, [self.key]).envelope

    async def pass_on(self, path: str, requests: Any, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        """One call."""
        service, method = path.removeprefix("/").split("/")
        described = descriptor_pool.Default().FindServiceByName(service).methods_by_name[method]
        asked, said = GetMessageClass(described.input_type), GetMessageClass(described.output_type)
        line = Line(method, context)
        self.lines.append(line)
        self._changed.set()
        call: Any = self._channel.stream_stream(path)(timeout=context.time_remaining())
        climbing = asyncio.ensure_future(self._climb(line, asked, requests, call))
        try:
            with suppress(grpc.aio.AioRpcError):
                while isinstance(raw := await call.read(), bytes):
                    if (kept := _altered(self.down, line, said, raw)) is not None:
                        await line.pass_down(kept)
            code = await call.code()
            if code != grpc.StatusCode.OK:
                trailing = tuple(await call.trailing_metadata())
                await context.abort(code, await call.details(), trailing)
        finally:
            climbing.cancel()
            call.cancel()
            line.ended.set()

    async def _climb(self, line: Line, asked: type[Message], requests: Any, call: Any) -> None:
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, grpc.aio.UsageError):
            async for raw in requests:
                if (kept := _altered(self.up, line, asked, raw)) is not None:
                    await call.write(kept)
            await call.done_writing()


class _PassingOn(grpc.GenericRpcHandler):
    """Every method of every service."""

    def __init__(self, liar: LyingBroker) -> None:
        self._liar = liar

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        path = handler_call_details.method

        async def converse(requests: Any, context: Any) -> None:
            await self._liar.pass_on(path, requests, context)

        return grpc.stream_stream_rpc_method_handler(converse)


def _altered(alterations: dict[str, Alter], line: Line, cls: type[Message], raw: bytes) -> bytes | None:
    alter = alterations.get(line.method)
    if alter is None:
        return raw
    message = alter(cls.FromString(raw), line)
    return None if message is None else message.SerializeToString()

"""The gRPC server of a broker or node: where it listens, how it is kept alive, how it ends.

Rules:

- Without TLS a server listens on loopback alone; any other address is refused at start.
- Keepalive is set on both sides, with all three settings that it takes: without ``http2.ping_timeout_ms`` a frozen peer
  goes unnoticed for more than a minute.
- Handlers are thin and raise the product's errors; :class:`~permslip.hosting.guarding.Guard` makes statuses of them.
- SIGTERM and SIGINT drain: health says ``NOT_SERVING``, handlers see :attr:`Service.draining`, open calls get a grace
  period to end, then the rest is cancelled. A second signal cuts the grace period short.

Example::

    >>> async def main(stop: asyncio.Event) -> None:                                        # doctest: +SKIP
    ...     service = await Service.start(
    ...         "127.0.0.1:7443", {name: lambda server: add_SessionServiceServicer_to_server(session, server)})
    ...     await stop.wait()
    ...     await service.drain(10)
    >>> run(main)                                                                            # doctest: +SKIP
"""

from __future__ import annotations

import asyncio
import ipaddress
import signal
import stat
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_reflection.v1alpha import reflection

from permslip.errors import ConfigurationError
from permslip.hosting.guarding import Guard
from permslip.hosting.logs import get_log
from permslip.hosting.metrics import Metrics

__all__ = ["MAX_MESSAGE_BYTES", "Service", "Tls", "channel_options", "is_loopback", "run", "server_options"]

_T = TypeVar("_T")
Option = tuple[str, int]

MAX_MESSAGE_BYTES: Final = 4 << 20

# A peer that froze is noticed after about twice this time, well inside a lease.
_KEEPALIVE_MS: Final = 2_000
_MOST_STREAMS: Final = 1_024

_log = get_log(__name__)


@dataclass(frozen=True, slots=True)
class Tls:
    """The files of a server's TLS.

    Args:
        certificate: PEM, the server's certificate first, then those between it and its root.
        private_key: PEM; readable by its owner alone.
        client_authorities: PEM; where given, clients must show a certificate of one of these (mTLS).
    """

    certificate: Path
    private_key: Path
    client_authorities: Path | None = None


def channel_options() -> list[Option]:
    """Options of a channel that a service itself opens, such as a node's to its brokers."""
    return [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_MS),
        ("grpc.http2.ping_timeout_ms", _KEEPALIVE_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]


def server_options() -> list[Option]:
    """Options of a server."""
    return [
        *channel_options(),
        # Clients ping as often as channel_options() says; a server that calls that abuse would cut them off.
        ("grpc.http2.min_ping_interval_without_data_ms", _KEEPALIVE_MS // 2),
        ("grpc.http2.max_ping_strikes", 0),
        # Of one connection; more of them wait at the caller.
        ("grpc.max_concurrent_streams", _MOST_STREAMS),
        # A second server on the same port must fail to start, not take half of the calls.
        ("grpc.so_reuseport", 0),
    ]


class Service:
    """A running gRPC server. Made by :meth:`start`, ended by :meth:`drain`."""

    def __init__(self, server: grpc.aio.Server, checks: health.aio.HealthServicer, port: int) -> None:
        self._server = server
        self._health = checks
        self.port = port
        """The port it listens on."""
        self.draining = asyncio.Event()
        """Set when the server is about to end: handlers of long streams then end them."""

    @classmethod
    async def start(
        cls,
        listen: str,
        servicers: Mapping[str, Callable[[grpc.aio.Server], None]],
        *,
        tls: Tls | None = None,
        metrics: Metrics | None = None,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
        key: str = "listen",
    ) -> Service:
        """Listen and serve.

        Args:
            listen: ``HOST:PORT``; port 0 takes any.
            servicers: full name of each gRPC service → what adds it to the server.
            tls: files of the certificate; may be missing on loopback alone.
            metrics: where calls are counted.
            interceptors: run inside the one that makes statuses of errors.
            key: dotted configuration key of the address, for messages.

        Raises:
            ConfigurationError: the address, or a file of ``tls``, cannot be used.
        """
        host = _host_of(listen, key)
        credentials = None if tls is None else _credentials(tls, key)
        if credentials is None and not is_loopback(host):
            raise ConfigurationError(
                f"{listen} can be reached by others, and there is no certificate.",
                key=key,
                remedy="Name the files of a certificate and its key, or listen on 127.0.0.1.",
            )
        guard = Guard(metrics)
        server = grpc.aio.server(options=server_options(), interceptors=[guard, *interceptors])
        for add in servicers.values():
            add(server)
        checks = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(checks, server)
        names = (*servicers, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
        try:
            if credentials is None:
                port = server.add_insecure_port(listen)
            else:
                port = server.add_secure_port(listen, credentials)
        except RuntimeError as error:
            await server.stop(None)
            raise ConfigurationError(
                f"nothing can listen at {listen}.",
                key=key,
                remedy="Name an address of this machine and a free port; perhaps the service is running already.",
            ) from error
        await server.start()
        for name in servicers:
            await checks.set(name, HealthCheckResponse.SERVING)
        _log.info("listening", address=f"{host}:{port}", tls=tls is not None)
        return cls(server, checks, port)

    async def drain(self, grace: float) -> None:
        """End: no new calls, ``grace`` seconds for those that are open. Safe to call twice."""
        if not self.draining.is_set():
            _log.info("draining", grace_seconds=grace)
            self.draining.set()
            await self._health.enter_graceful_shutdown()
        await self._server.stop(grace)
        _log.info("stopped")


def run(main: Callable[[asyncio.Event], Coroutine[Any, Any, _T]]) -> _T:
    """Run a service until it ends or is told to.

    Args:
        main: gets an event that SIGTERM and SIGINT set. A second signal cancels it.

    Returns:
        what ``main`` returns.
    """

    async def until_signalled() -> _T:
        stop = asyncio.Event()
        task = asyncio.ensure_future(main(stop))

        def signalled() -> None:
            if stop.is_set():
                task.cancel()
            stop.set()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, signalled)
        return await task

    return asyncio.run(until_signalled())


def is_loopback(host: str) -> bool:
    """Can only this machine itself reach an address?"""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host_of(listen: str, key: str) -> str:
    host, colon, port = listen.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65_535:
        raise ConfigurationError(
            f"expected an address to listen at, got {listen!r}.", key=key, remedy="Write HOST:PORT or [IPv6]:PORT."
        )
    return host.removeprefix("[").removesuffix("]")


def _credentials(tls: Tls, key: str) -> grpc.ServerCredentials:
    private_key = _read(tls.private_key, key)
    if stat.S_IMODE(tls.private_key.stat().st_mode) & 0o077:
        raise ConfigurationError(
            f"{tls.private_key} can be read by others.", key=key, remedy=f"Run chmod 600 {tls.private_key}."
        )
    pair = (private_key, _read(tls.certificate, key))
    authorities = None if tls.client_authorities is None else _read(tls.client_authorities, key)
    return grpc.ssl_server_credentials(
        [pair], root_certificates=authorities, require_client_auth=authorities is not None
    )


def _read(path: Path, key: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read: {error.strerror}.", key=key, remedy="Name a PEM file that this user may read."
        ) from error
    if b"-----BEGIN " not in content:
        raise ConfigurationError(f"{path} is not a PEM file.", key=key, remedy="Convert it to PEM.")
    return content

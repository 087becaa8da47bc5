"""Channels to a broker's replicas: TLS, keepalive, and which replica comes next.

Rules:

- TLS everywhere; without it only to this very machine, when no certificates to trust were named.
- A frozen peer is noticed within seconds: keepalive takes all three settings, ``http2.ping_timeout_ms`` included.
- Replicas are tried in turn, beginning with the first.

Example::

    channels = Channels(server)
    channel = channels.current()
    channels.leave(channel, grace=30)          # the next call of current() opens one to the next replica
"""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Final

import grpc

from permslip.client.settings import Server
from permslip.errors import ConfigurationError

__all__ = ["Channels"]

_KEEPALIVE_MS: Final = 5_000
# A batch is at most 1 MiB, but one piece of an answer may hold 64 chunks of 64 KiB.
_MESSAGE_BYTES: Final = 8 << 20

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", _MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", _KEEPALIVE_MS),
    ("grpc.http2.ping_timeout_ms", _KEEPALIVE_MS),
    ("grpc.http2.max_pings_without_data", 0),
    # The client's own back-off decides when to try again, not the channel's.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Channels of one process would otherwise share one connection, and a new one would be no other replica.
    ("grpc.use_local_subchannel_pool", 1),
)


class Channels:
    """Opens channels, one at a time. To be used within one event loop.

    Args:
        server: the addresses, and which certificates to trust.

    Raises:
        ConfigurationError: the file of certificates cannot be read.
    """

    def __init__(self, server: Server) -> None:
        self._addresses = server.addresses
        self._authorities = _authorities(server)
        self._next = 0
        self._current: grpc.aio.Channel | None = None
        self._closing: dict[asyncio.Future[None], grpc.aio.Channel] = {}

    def current(self) -> grpc.aio.Channel:
        """The channel in use; a new one, to the next replica, when the last was left."""
        if self._current is None:
            self._current = self._open(self._addresses[self._next % len(self._addresses)])
        return self._current

    def leave(self, channel: grpc.aio.Channel, *, grace: float) -> None:
        """Ask the next replica from now on; what is open on this channel gets ``grace`` seconds to end.

        With one replica only a channel that is going away is worth leaving, so see :meth:`renew`.
        """
        if len(self._addresses) > 1:
            self.renew(channel, grace=grace)

    def renew(self, channel: grpc.aio.Channel, *, grace: float) -> None:
        """Use ``channel`` for nothing new, even if there is no other replica."""
        if self._current is channel:
            self._current = None
            self._next += 1
            closing = asyncio.ensure_future(channel.close(grace))
            self._closing[closing] = channel
            closing.add_done_callback(lambda ended: self._closing.pop(ended, None))

    async def close(self) -> None:
        """Close every channel now."""
        for closing, channel in list(self._closing.items()):
            closing.cancel()
            await channel.close()
        current, self._current = self._current, None
        if current is not None:
            await current.close()

    def _open(self, address: str) -> grpc.aio.Channel:
        if self._authorities is None and _is_loopback(address):
            return grpc.aio.insecure_channel(address, options=_OPTIONS)
        credentials = grpc.ssl_channel_credentials(root_certificates=self._authorities)
        return grpc.aio.secure_channel(address, credentials, options=_OPTIONS)


def _authorities(server: Server) -> bytes | None:
    if server.tls_ca is None:
        return None
    try:
        content = server.tls_ca.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{server.tls_ca} cannot be read: {error.strerror}.", key="tls_ca") from error
    if b"-----BEGIN CERTIFICATE-----" not in content:
        raise ConfigurationError(f"{server.tls_ca} holds no PEM certificate.", key="tls_ca")
    return content


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].removeprefix("[").removesuffix("]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

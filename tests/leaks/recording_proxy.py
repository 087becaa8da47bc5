"""A TCP proxy that records what passes, and an HTTP/2 reader that gives back what was said.

The proxy stands between every party and the broker. Over plaintext loopback what it records is the decrypted traffic.
HTTP/2 cuts a stream into frames and mixes streams, so nothing is sought in the raw bytes alone:

- DATA frames are put together per connection, direction and stream, and gRPC's length prefixes taken out, so that a
  message is found however it was cut;
- header blocks are decoded (HPACK), because a text in a status or header may be Huffman-coded.

Rules:

- A compressed gRPC message fails the reading: nothing may hide behind a compression.
- What was recorded when a connection is cut in the middle of a frame is read as far as it goes.

Example::

    with RecordingProxy(broker_port) as proxy:
        client = connect(f"127.0.0.1:{proxy.port}")
    for name, stretch in proxy.said():
        hits.extend(search.hits(stretch, name))
"""

from __future__ import annotations

import socket
import threading
from collections import defaultdict
from collections.abc import Iterator
from types import TracebackType

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _CONTINUATION = 0, 1, 9
_END_HEADERS, _PADDED, _PRIORITY = 0x4, 0x8, 0x20


class RecordingProxy:
    """Listens on a loopback port of its own and passes everything on to another."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._recorded: list[tuple[str, bytearray]] = []
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> RecordingProxy:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            everything = [self._listener, *self._sockets]
        for each in everything:
            _shut(each)
            each.close()
        for thread in self._threads:
            thread.join(10)

    def recorded(self) -> list[tuple[str, bytes]]:
        """The raw bytes of each connection and direction so far."""
        with self._lock:
            return [(name, bytes(stretch)) for name, stretch in self._recorded]

    def said(self) -> Iterator[tuple[str, bytes]]:
        """What was said on each stream so far, and all headers."""
        for name, raw in self.recorded():
            yield from streams_of(raw, name)

    def _accept(self) -> None:
        number = 0
        while True:
            try:
                party, _ = self._listener.accept()
            except OSError:
                return
            number += 1
            try:
                broker = socket.create_connection(("127.0.0.1", self._target_port))
            except OSError:
                party.close()
                continue
            with self._lock:
                self._sockets += [party, broker]
            for name, source, sink in (("up", party, broker), ("down", broker, party)):
                stretch = bytearray()
                thread = threading.Thread(target=self._pass_on, args=(source, sink, stretch), daemon=True)
                with self._lock:
                    self._recorded.append((f"connection {number} {name}", stretch))
                    self._threads.append(thread)
                thread.start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, stretch: bytearray) -> None:
        while True:
            try:
                block = source.recv(65536)
                if not block:
                    break
                with self._lock:
                    stretch += block
                sink.sendall(block)
            except OSError:
                break
        _shut(source)
        _shut(sink)


def streams_of(raw: bytes, name: str) -> Iterator[tuple[str, bytes]]:
    """What one direction of an HTTP/2 connection says: each stream's messages, then all decoded headers."""
    messages: dict[int, bytearray] = defaultdict(bytearray)
    decoder = hpack.Decoder()
    decoder.max_allowed_table_size = 1 << 20
    headers, block = bytearray(), bytearray()
    for kind, flags, stream, payload in frames_of(raw):
        if kind == _DATA:
            messages[stream] += _unpadded(payload, flags)
        elif kind in {_HEADERS, _CONTINUATION}:
            body = _unpadded(payload, flags) if kind == _HEADERS else payload
            block += body[5:] if kind == _HEADERS and flags & _PRIORITY else body
            if flags & _END_HEADERS:
                for key, value in decoder.decode(bytes(block), raw=True):
                    headers += key + b": " + value + b"\n"
                block.clear()
    for stream, data in messages.items():
        yield f"{name}, stream {stream}", b"".join(messages_of(bytes(data)))
    yield f"{name}, headers", bytes(headers)


def frames_of(raw: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Type, flags, stream and payload of each whole frame (RFC 9113 §4.1)."""
    at = len(PREFACE) if raw.startswith(PREFACE) else 0
    while at + 9 <= len(raw):
        length = int.from_bytes(raw[at : at + 3], "big")
        payload = raw[at + 9 : at + 9 + length]
        yield raw[at + 3], raw[at + 4], int.from_bytes(raw[at + 5 : at + 9], "big") & 0x7FFFFFFF, payload
        at += 9 + length


def messages_of(data: bytes) -> Iterator[bytes]:
    """gRPC's messages, without their five bytes of prefix; the last may be cut."""
    at = 0
    while at + 5 <= len(data):
        if data[at] != 0:
            raise AssertionError("a compressed message: what it says cannot be searched as it stands")
        length = int.from_bytes(data[at + 1 : at + 5], "big")
        yield data[at + 5 : at + 5 + length]
        at += 5 + length


def _unpadded(payload: bytes, flags: int) -> bytes:
    return payload[1 : len(payload) - payload[0]] if flags & _PADDED else payload


def _shut(each: socket.socket) -> None:
    try:
        each.shutdown(socket.SHUT_RDWR)
    except OSError:
        return

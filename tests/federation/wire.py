"""What one direction of a recorded HTTP/2 connection said, message by message, in the order of the wire.

Two streams of one connection share one wire, so what came first is no matter of anybody's clock or buffers.

Example::

    [(name, raw)] = [each for each in proxy.recorded() if each[0].endswith("down")]
    for message in messages_on(raw):
        print(message.stream, message.begins, message.ends, len(message.body))
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from tests.leaks.recording_proxy import frames_of

__all__ = ["WireMessage", "messages_on"]

_DATA, _PADDED = 0, 0x8
_PREFIX = 5


@dataclass(frozen=True)
class WireMessage:
    """One gRPC message.

    Attributes:
        stream: of which call.
        begins, ends: numbers of the first and last frame that carry any of it.
        body: the message, whole.
    """

    stream: int
    begins: int
    ends: int
    body: bytes


def messages_on(raw: bytes) -> list[WireMessage]:
    """Every whole message, in the order in which they ended."""
    found: list[WireMessage] = []
    waiting: dict[int, bytearray] = defaultdict(bytearray)
    begins: dict[int, int] = {}
    for number, (kind, flags, stream, payload) in enumerate(frames_of(raw)):
        if kind != _DATA:
            continue
        if not waiting[stream]:
            begins[stream] = number
        waiting[stream] += payload[1 : len(payload) - payload[0]] if flags & _PADDED else payload
        while len(data := waiting[stream]) >= _PREFIX:
            ends = _PREFIX + int.from_bytes(data[1:_PREFIX], "big")
            if len(data) < ends:
                break
            assert data[0] == 0, "nothing is compressed"
            found.append(WireMessage(stream, begins[stream], number, bytes(data[_PREFIX:ends])))
            del data[:ends]
            begins[stream] = number
    return found

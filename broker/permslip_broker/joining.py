"""Replies joined into one message from bytes that are serialized already.

A sealed slice goes through the broker as it is. Putting it as a message into a message into a message would copy it
each time; its bytes with three small headers before them are the same message.

Rules:

- The bytes are those that protobuf would write: fields that hold a message, in ascending order.

Example::

    >>> from permslip._pb.permslip.v1.provider_pb2 import Answer, ExchangeReply, ExchangeResponse
    >>> answer = Answer(query_id=bytes(32))
    >>> joined([answer_reply(answer)]) == ExchangeResponse(replies=[ExchangeReply(answer=answer)]).SerializeToString()
    True
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from google.protobuf.descriptor import Descriptor

from permslip._pb.permslip.v1 import provider_pb2

__all__ = ["answer_reply", "joined"]

_LENGTH_DELIMITED: Final = 2


def _tag(message: Descriptor, name: str) -> bytes:
    return bytes([message.fields_by_name[name].number << 3 | _LENGTH_DELIMITED])


_ANSWER: Final = _tag(provider_pb2.ExchangeReply.DESCRIPTOR, "answer")
_REPLY: Final = _tag(provider_pb2.ExchangeResponse.DESCRIPTOR, "replies")


def answer_reply(answer: provider_pb2.Answer) -> bytes:
    """The bytes of an ``ExchangeReply`` that holds this answer."""
    raw = answer.SerializeToString()
    return b"".join((_ANSWER, _varint(len(raw)), raw))


def joined(replies: Iterable[bytes]) -> bytes:
    """The bytes of an ``ExchangeResponse`` of these replies."""
    return b"".join([part for raw in replies for part in (_REPLY, _varint(len(raw)), raw)])


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)

"""The bytes of ledger leaves, made fast enough for every access to have one.

A leaf is a ``LogEntry`` serialized deterministically. Building that message in Python and serializing it costs several
times what its bytes cost when they are joined by hand: version, federation and ledger never change, and fields stand in
ascending order, so that a leaf is a constant prefix, a few scalars and one already serialized event.

Rules:

- The bytes are exactly those of ``LogEntry(...).SerializeToString(deterministic=True)``; a property test compares.
- The event is one of ``LogEntry``'s own, of the type the contract gives it, and a leaf is at most 64 KiB.
- The nonce is random: without it a leaf's hash would confirm a guess of what the leaf says.

Example::

    >>> from permslip._pb.permslip.v1.ledger_pb2 import LedgerOpened, LogEntry
    >>> encoder = LeafEncoder("grand-bend", bytes(32))
    >>> event = encode_event("ledger_opened", LedgerOpened(origin="grand-bend/broker"))
    >>> LogEntry.FromString(encoder.encode(bytes(16), encode_time(1_000), event)).ledger_opened.origin
    'grand-bend/broker'
"""

from __future__ import annotations

from typing import Final

from google.protobuf.message import DecodeError, EncodeError, Message

from permslip._pb.permslip.v1.ledger_pb2 import LogEntry
from permslip.errors import MalformedError
from permslip.quantities import HANDLE_BYTES

__all__ = ["MAX_LEAF_BYTES", "NONCE_BYTES", "VERSION", "LeafEncoder", "decode_leaf", "encode_event", "encode_time"]

VERSION: Final = 1
NONCE_BYTES: Final = 16
KEY_BYTES: Final = 32
MAX_LEAF_BYTES: Final = 65_536

_LENGTH_DELIMITED: Final = 2
_UINT64_MASK: Final = 2**64 - 1


def varint(value: int) -> bytes:
    """A base-128 varint; negative numbers as the 64-bit two's complement that protobuf's int64 uses."""
    if 0 <= value < 0x4000:
        return _SHORT[value]
    value &= _UINT64_MASK
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


# Lengths and numbers of entries: nearly all varints of a leaf.
_SHORT: Final = [bytes([low]) for low in range(0x80)] + [
    bytes([low | 0x80, high]) for high in range(1, 0x80) for low in range(0x80)
]


def _tag(name: str, wire_type: int) -> bytes:
    return varint(LogEntry.DESCRIPTOR.fields_by_name[name].number << 3 | wire_type)


_NONCE: Final = _tag("nonce", _LENGTH_DELIMITED) + varint(NONCE_BYTES)
_RECORDED_AT: Final = _tag("recorded_at", 0)
# A slice is always 32 bytes of root key and 16 of handle: field 1, 32 bytes, field 2, 16 bytes.
_SLICE_NODE: Final = _tag("slice", _LENGTH_DELIMITED) + varint(52) + b"\x0a\x20"
_SLICE_HANDLE: Final = b"\x12\x10"
_SLICE_SEQ: Final = _tag("slice_seq", 0)
_SLICE_PREV: Final = _tag("slice_prev", _LENGTH_DELIMITED) + varint(32)

_EVENTS: Final = {
    field.name: (_tag(field.name, _LENGTH_DELIMITED), type(getattr(LogEntry(), field.name)))
    for field in LogEntry.DESCRIPTOR.oneofs_by_name["event"].fields
}


def encode_event(event: str, body: Message) -> bytes:
    """The last field of a leaf: what happened.

    Args:
        event: name of the member of ``LogEntry.event``, e.g. ``"access_decided"``.
        body: the message of that member.

    Raises:
        MalformedError: there is no such event, or its message is of another type.
    """
    known = _EVENTS.get(event)
    if known is None:
        raise MalformedError(f"expected one of {', '.join(_EVENTS)}, got {event!r}.", field="event")
    tag, expected = known
    if type(body) is not expected:
        raise MalformedError(f"expected a {expected.__name__}, got a {type(body).__name__}.", field=event)
    try:
        encoded = body.SerializeToString()  # deterministic as it is: the contract has no maps
    except EncodeError as error:
        raise MalformedError(f"it cannot be serialized: {error}.", field=event) from error
    return tag + varint(len(encoded)) + encoded


def encode_time(recorded_at: int) -> bytes:
    """The leaf's field that says when, UTC milliseconds; one for all leaves of a batch."""
    return _RECORDED_AT + varint(recorded_at) if recorded_at else b""


def decode_leaf(leaf: bytes) -> LogEntry:
    """Read back the bytes of a leaf of one's own ledger; leaves of others are for the strict decoder.

    Raises:
        MalformedError: these bytes are no ``LogEntry``.
    """
    try:
        return LogEntry.FromString(leaf)
    except DecodeError as error:
        raise MalformedError(f"expected the bytes of a LogEntry: {error}.", field="leaf") from None


class LeafEncoder:
    """Makes the leaves of one ledger.

    Args:
        federation: name of the federation.
        keeper: root key of the broker or node whose ledger it is, 32 bytes.
    """

    def __init__(self, federation: str, keeper: bytes) -> None:
        self._prefix = (
            LogEntry(version=VERSION, federation=federation, ledger=keeper).SerializeToString(deterministic=True)
            + _NONCE
        )

    def encode(
        self,
        nonce: bytes,
        time: bytes,
        event: bytes,
        where: tuple[bytes, bytes] | None = None,
        slice_seq: int = 0,
        slice_prev: bytes = b"",
    ) -> bytes:
        """The bytes of one leaf.

        Args:
            nonce: 16 random bytes.
            time: from :func:`encode_time`.
            event: from :func:`encode_event`.
            where: node root and handle of the slice that it is about, if it is about one.
            slice_seq: the entry's number in that slice, from 1.
            slice_prev: leaf hash of the slice's entry before; empty for the first.

        Raises:
            MalformedError: the leaf would be larger than 64 KiB, or the slice's key or handle is not of its length.
        """
        if where is None:
            leaf = b"".join((self._prefix, nonce, time, event))
        else:
            node, handle = where
            if len(node) != KEY_BYTES or len(handle) != HANDLE_BYTES:
                raise MalformedError(
                    f"expected a root key of {KEY_BYTES} bytes and a handle of {HANDLE_BYTES}, "
                    f"got {len(node)} and {len(handle)}.",
                    field="slice",
                )
            leaf = b"".join(
                (
                    self._prefix,
                    nonce,
                    time,
                    _SLICE_NODE,
                    node,
                    _SLICE_HANDLE,
                    handle,
                    _SLICE_SEQ,
                    varint(slice_seq),
                    _SLICE_PREV + slice_prev if slice_prev else b"",
                    event,
                )
            )
        if len(leaf) > MAX_LEAF_BYTES:
            raise MalformedError(f"expected a leaf of at most {MAX_LEAF_BYTES} bytes, got {len(leaf)}.", field="leaf")
        return leaf

"""Packed pages: whole records, pre-encoded, so that a slice is read and not built.

A page's ``records`` are the bytes of a ``SlicePart`` with records only: for each record the tag ``0x0a``, its length as
a varint, and the record's bytes. Joining two pages is joining their bytes; nothing is encoded again on the way to the
sealed chunk.

Example::

    >>> packed = pack(b"first") + pack(b"second")
    >>> split(packed)
    [b'first', b'second']
"""

from __future__ import annotations

from typing import Final

from permslip.errors import MalformedError

__all__ = ["MAX_RECORD_BYTES", "pack", "split"]

# A packed record must fit into one chunk's body (permslip.slices.MAX_BODY_BYTES) with its tag and length.
MAX_RECORD_BYTES: Final = 65_000
_TAG: Final = 0x0A


def pack(record: bytes) -> bytes:
    """One record as it stands in a page.

    Raises:
        MalformedError: it is too long for one chunk.
    """
    size = len(record)
    if size > MAX_RECORD_BYTES:
        raise MalformedError(f"expected a record of at most {MAX_RECORD_BYTES} bytes, got {size}.", field="record")
    if size < 0x80:
        return b"\x0a%c%b" % (size, record)
    if size < 0x4000:
        return b"\x0a%c%c%b" % (size & 0x7F | 0x80, size >> 7, record)
    return b"\x0a%c%c%c%b" % (size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14, record)


def split(packed: bytes) -> list[bytes]:
    """The records of a page.

    Raises:
        MalformedError: the page is damaged.
    """
    return [packed[start:end] for start, end in _bounds(packed)]


def _bounds(packed: bytes) -> list[tuple[int, int]]:
    """Where each record's own bytes begin and end."""
    bounds: list[tuple[int, int]] = []
    at, whole = 0, len(packed)
    while at < whole:
        start, size, shift = at + 1, 0, 0
        while start < whole:
            byte = packed[start]
            start += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        if packed[at] != _TAG or not 0 < shift <= 21 or start + size > whole:
            raise MalformedError(
                "a stored page cannot be read.", field="page.records", remedy="Restore the database from a backup."
            )
        bounds.append((start, start + size))
        at = start + size
    return bounds

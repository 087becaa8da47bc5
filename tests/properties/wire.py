"""The protobuf wire format by hand, so that tests can write what no library would.

``read`` divides serialized bytes into fields, ``write`` puts fields together again, byte for byte; between the two a
test moves, repeats or misspells them (https://protobuf.dev/programming-guides/encoding/).
"""

from __future__ import annotations

from dataclasses import dataclass

VARINT, I64, LEN, I32 = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class Field:
    """One field as it stands in the bytes: its number, wire type and raw value (a LEN field's without length)."""

    number: int
    type: int
    value: bytes

    def write(self) -> bytes:
        """The field's bytes."""
        tag = varint(self.number << 3 | self.type)
        return tag + (varint(len(self.value)) if self.type == LEN else b"") + self.value


def varint(value: int, *, more: int = 0) -> bytes:
    """A base-128 varint; ``more`` bytes longer than it need be."""
    groups = []
    while True:
        groups.append(value & 0x7F)
        value >>= 7
        if not value:
            break
    groups += [0] * more
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


def read(raw: bytes) -> list[Field]:
    """The fields of a message, in their order."""
    fields, at = [], 0
    while at < len(raw):
        tag, at = _varint_at(raw, at)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            _, end = _varint_at(raw, at)
        elif kind == LEN:
            length, at = _varint_at(raw, at)
            end = at + length
        else:
            end = at + (8 if kind == I64 else 4)
        fields.append(Field(number, kind, raw[at:end]))
        at = end
    return fields


def write(fields: list[Field]) -> bytes:
    """The message of these fields."""
    return b"".join(field.write() for field in fields)


def _varint_at(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at

"""Strict decoding, for any message: one encoding, and nothing that differs from it by a byte."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings, strategies as s

from permslip import statements as st
from permslip._pb.permslip.v1 import rules_pb2
from permslip.errors import MalformedError, PermslipError
from tests.properties import wire
from tests.properties.messages import messages
from tests.scenarios.samples import signed_samples
from tests.scenarios.world import FEDERATION

KINDS = list(st.KINDS.values())
SIGNED = signed_samples()


def verify(signed: st.Signed[Any], raw: bytes) -> st.Signed[Any]:
    return st.verify(signed.kind, st.parse_envelope(raw), federation=FEDERATION)


@pytest.mark.parametrize("kind", KINDS, ids=repr)
@settings(max_examples=25)
@given(data=s.data())
def test_what_parses_serializes_to_the_very_same_bytes(kind: st.Kind[Any], data: s.DataObject) -> None:
    message = data.draw(messages(kind.message))
    raw = message.SerializeToString(deterministic=True)

    parsed = st.decode_strictly(kind.message, raw, kind.name)

    assert parsed == message
    assert parsed.SerializeToString(deterministic=True) == raw


@pytest.mark.parametrize("kind", KINDS, ids=repr)
@settings(max_examples=15)
@given(data=s.data())
def test_no_other_order_of_the_fields_is_accepted(kind: st.Kind[Any], data: s.DataObject) -> None:
    raw = data.draw(messages(kind.message)).SerializeToString(deterministic=True)
    fields = wire.read(raw)
    shuffled = wire.write(data.draw(s.permutations(fields)))

    if shuffled == raw:
        st.decode_strictly(kind.message, shuffled, kind.name)
    else:
        with pytest.raises(MalformedError):
            st.decode_strictly(kind.message, shuffled, kind.name)


@pytest.mark.parametrize("kind", KINDS, ids=repr)
@settings(max_examples=15)
@given(data=s.data())
def test_no_field_is_accepted_twice_or_with_one_more(kind: st.Kind[Any], data: s.DataObject) -> None:
    raw = data.draw(messages(kind.message)).SerializeToString(deterministic=True)
    fields = wire.read(raw)
    place = data.draw(s.integers(0, len(fields) - 1))
    unknown = wire.Field(data.draw(s.integers(200, 2**20)), wire.LEN, data.draw(s.binary(max_size=8)))
    single = kind.message.DESCRIPTOR.fields_by_number[fields[place].number]
    wrong = [wire.write([*fields[:place], unknown, *fields[place:]])]
    if not single.is_repeated:
        wrong.append(wire.write([*fields[: place + 1], *fields[place:]]))

    for each in wrong:
        with pytest.raises(MalformedError):
            st.decode_strictly(kind.message, each, kind.name)


@pytest.mark.parametrize("kind", KINDS, ids=repr)
@settings(max_examples=15)
@given(data=s.data())
def test_a_field_that_is_left_out_is_named_or_optional(kind: st.Kind[Any], data: s.DataObject) -> None:
    message = data.draw(messages(kind.message))
    fields = wire.read(message.SerializeToString(deterministic=True))
    number = data.draw(s.sampled_from(sorted({field.number for field in fields})))
    name = kind.message.DESCRIPTOR.fields_by_number[number].name
    raw = wire.write([field for field in fields if field.number != number])

    if kind.message.DESCRIPTOR.fields_by_number[number].GetOptions().Extensions[rules_pb2.rule].optional:
        st.decode_strictly(kind.message, raw, kind.name)
    else:
        with pytest.raises(MalformedError) as caught:
            st.decode_strictly(kind.message, raw, kind.name)
        assert caught.value.field == f"{kind.name}.{name}"


@settings(max_examples=300)
@given(kind=s.sampled_from(KINDS), raw=s.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_but_our_errors(kind: st.Kind[Any], raw: bytes) -> None:
    with pytest.raises(MalformedError):
        st.decode_strictly(kind.message, raw, kind.name)
    with pytest.raises(MalformedError):
        st.parse_envelope(raw)


@pytest.mark.parametrize("name", SIGNED)
def test_no_envelope_with_one_flipped_bit_is_believed(name: str) -> None:
    signed = SIGNED[name]
    assert verify(signed, signed.raw).id == signed.id
    bits = random.Random(name)

    for place in range(len(signed.raw)):
        altered = bytearray(signed.raw)
        altered[place] ^= 1 << bits.randrange(8)
        with pytest.raises(PermslipError):
            verify(signed, bytes(altered))


@settings(max_examples=200)
@given(name=s.sampled_from(list(SIGNED)), data=s.data())
def test_no_envelope_cut_or_grown_is_believed(name: str, data: s.DataObject) -> None:
    signed = SIGNED[name]
    place = data.draw(s.integers(0, len(signed.raw)))
    more = data.draw(s.binary(max_size=4))
    cut = data.draw(s.integers(0, 4))
    altered = signed.raw[:place] + more + signed.raw[place + cut :]

    if altered != signed.raw:
        with pytest.raises(PermslipError):
            verify(signed, altered)


@settings(max_examples=60)
@given(value=s.integers(0, 2**64 - 1), more=s.integers(1, 3))
def test_a_longer_varint_reads_the_same_so_the_bytes_must_be_compared(value: int, more: int) -> None:
    short, long = wire.varint(value), wire.varint(value, more=more)

    assert len(long) == len(short) + more
    assert wire.read(b"\x08" + short) == [wire.Field(1, wire.VARINT, short)]
    assert wire.read(b"\x08" + long) == [wire.Field(1, wire.VARINT, long)]

"""Leaves joined by hand are, to the byte, what protobuf serializes."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given, strategies as st

from permslip._pb.permslip.v1 import ledger_pb2 as pb
from permslip._pb.permslip.v1.statement_pb2 import Signer, Slice
from permslip.errors import MalformedError
from permslip.hosting.leaves import MAX_LEAF_BYTES, LeafEncoder, decode_leaf, encode_event, encode_time, varint

FEDERATION, KEEPER = "grand-bend", bytes(range(32))

keys = st.binary(min_size=32, max_size=32)
int64s = st.integers(-(2**63), 2**63 - 1)
uint64s = st.integers(0, 2**64 - 1)
events: st.SearchStrategy[tuple[str, Message]] = st.one_of(
    st.builds(lambda text: ("ledger_opened", pb.LedgerOpened(origin=text)), st.text(max_size=200)),
    st.builds(lambda key: ("statement_recorded", pb.StatementRecorded(statement_id=key)), keys),
    st.builds(
        lambda key, number, reason, sections: (
            "access_decided",
            pb.AccessDecided(
                query_id=key,
                requester=Signer(root=key, key=key),
                decided_at=number,
                sections=[pb.SectionVerdict(section=section, reason=reason) for section in sections],
            ),
        ),
        keys,
        int64s,
        st.sampled_from([0, 1, 36]),
        st.lists(st.text(max_size=96), max_size=40),
    ),
    st.builds(lambda reason: ("request_refused", pb.RequestRefused(reason=reason)), st.sampled_from([0, 10])),
    st.builds(lambda ids: ("statements_erased", pb.StatementsErased(statement_ids=ids)), st.lists(keys, max_size=500)),
)


@given(
    nonce=st.binary(min_size=16, max_size=16),
    recorded_at=int64s,
    event=events,
    link=st.none() | st.tuples(keys, st.binary(min_size=16, max_size=16), st.integers(1, 2**63), st.none() | keys),
)
def test_leaf_is_what_protobuf_serializes(
    nonce: bytes, recorded_at: int, event: tuple[str, Message], link: tuple[bytes, bytes, int, bytes | None] | None
) -> None:
    name, body = event
    expected: dict[str, Any] = {name: body}
    chain: tuple[Any, ...] = ()
    if link is not None:
        node, handle, seq, prev = link
        expected |= {"slice": Slice(node=node, handle=handle), "slice_seq": seq, "slice_prev": prev or b""}
        chain = ((node, handle), seq, prev or b"")

    leaf = LeafEncoder(FEDERATION, KEEPER).encode(nonce, encode_time(recorded_at), encode_event(name, body), *chain)

    entry = pb.LogEntry(
        version=1, federation=FEDERATION, ledger=KEEPER, nonce=nonce, recorded_at=recorded_at, **expected
    )
    assert leaf == entry.SerializeToString(deterministic=True)
    assert decode_leaf(leaf) == entry


@given(uint64s | st.sampled_from([0x7F, 0x80, 0x3FFF, 0x4000]))
def test_varint_is_protobufs_own(value: int) -> None:
    encoded = pb.LedgerOpened(previous_size=value).SerializeToString()

    assert encoded == (b"\x18" + varint(value) if value else b"")


def test_every_event_of_the_contract_is_known() -> None:
    for field in pb.LogEntry.DESCRIPTOR.oneofs_by_name["event"].fields:
        body = getattr(pb.LogEntry(), field.name)
        encoded = encode_event(field.name, type(body)())

        assert pb.LogEntry.FromString(encoded).WhichOneof("event") == field.name


def test_event_that_the_contract_does_not_have_is_malformed() -> None:
    with pytest.raises(MalformedError):
        encode_event("no_such_event", pb.LedgerOpened())


def test_largest_leaf_fits_and_one_byte_more_is_refused() -> None:
    encoder = LeafEncoder(FEDERATION, KEEPER)
    empty = len(encoder.encode(bytes(16), b"", encode_event("ledger_opened", pb.LedgerOpened(origin="x" * 60_000))))
    most = 60_000 + MAX_LEAF_BYTES - empty

    largest = encoder.encode(bytes(16), b"", encode_event("ledger_opened", pb.LedgerOpened(origin="x" * most)))

    assert len(largest) == MAX_LEAF_BYTES
    with pytest.raises(MalformedError, match="at most 65536 bytes"):
        encoder.encode(bytes(16), b"", encode_event("ledger_opened", pb.LedgerOpened(origin="x" * (most + 1))))


def test_bytes_that_are_no_leaf_are_malformed() -> None:
    with pytest.raises(MalformedError, match="LogEntry"):
        decode_leaf(b"\xff\xff\xff")

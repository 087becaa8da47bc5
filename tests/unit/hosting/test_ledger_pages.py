"""permslip.hosting.ledger_pages: pages put together by hand are the contract's own messages."""

from __future__ import annotations

from hypothesis import given, strategies as some

from permslip._pb.permslip.v1 import auditor_pb2, ledger_pb2
from permslip.hosting.ledger_pages import _encode_leaf


@given(
    position=some.integers(0, 2**63 - 1),
    leaf_hash=some.binary(min_size=32, max_size=32),
    leaf=some.none() | some.binary(max_size=400),
)
def test_a_leaf_is_encoded_as_the_contract_says(position: int, leaf_hash: bytes, leaf: bytes | None) -> None:
    message = auditor_pb2.FetchEntriesResponse(
        entries=[ledger_pb2.LedgerLeaf(position=position, leaf_hash=leaf_hash, leaf=leaf or b"")]
    )

    assert _encode_leaf(position, leaf_hash, leaf) == message.SerializeToString(deterministic=True)

"""Page tokens: only this node makes them, for one question, and nobody else reads or changes them."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as hs

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.errors import MalformedError
from permslip.sections import LEAVES
from permslip_node.paging import PageToken, open_token, scope_of, seal_token
from permslip_node.records_store import Place

KEY = bytes(range(32))


def query(**changes: object) -> pb.Query:
    asked = pb.Query(
        grant_id=b"g" * 32, action=pb.ACTION_READ, sections=["transcript.grades"], records_from="2010-01-01"
    )
    asked.signer.root = b"r" * 32
    for name, value in changes.items():
        setattr(asked, name, value)
    return asked


@given(
    hs.binary(min_size=32, max_size=32),
    hs.integers(0, 2**62),
    hs.sampled_from(LEAVES),
    hs.integers(0, 2**31),
    hs.integers(0, 2**31),
)
def test_token_is_read_back_by_the_node_that_made_it(
    first: bytes, position: int, section: str, page_no: int, offset: int
) -> None:
    token = PageToken(first, position, 1_790_000_000_000, scope_of(query()), Place(section, page_no, offset))
    sealed = seal_token(KEY, token)
    assert open_token(KEY, sealed) == token
    assert len(sealed) <= 512
    assert first not in sealed


@given(hs.data())
def test_altered_token_is_refused(data: hs.DataObject) -> None:
    sealed = bytearray(seal_token(KEY, PageToken(bytes(32), 1, 2, bytes(32), Place("voice.goals", 0, 0))))
    place = data.draw(hs.integers(0, len(sealed) - 1))
    sealed[place] ^= data.draw(hs.integers(1, 255))
    with pytest.raises(MalformedError, match="no page of this node"):
        open_token(KEY, bytes(sealed))


@pytest.mark.parametrize("sealed", [b"", b"x" * 10, b"x" * 200])
def test_invented_token_is_refused(sealed: bytes) -> None:
    with pytest.raises(MalformedError):
        open_token(KEY, sealed)


def test_token_of_another_node_is_refused() -> None:
    sealed = seal_token(bytes(32), PageToken(bytes(32), 1, 2, bytes(32), Place("voice.goals", 0, 0)))
    with pytest.raises(MalformedError):
        open_token(KEY, sealed)


@pytest.mark.parametrize(
    "change",
    [
        {"grant_id": b"G" * 32},
        {"action": pb.ACTION_WATCH},
        {"records_from": "2010-01-02"},
        {"records_until": "2010-01-02"},
    ],
)
def test_scope_differs_with_whatever_is_asked(change: dict[str, object]) -> None:
    assert scope_of(query(**change)) != scope_of(query())


def test_scope_differs_with_requester_sections_and_delegations_but_not_with_page_or_nonce() -> None:
    other = query()
    other.signer.root = b"s" * 32
    assert scope_of(other) != scope_of(query())
    other = query()
    other.sections.append("voice.goals")
    assert scope_of(other) != scope_of(query())
    other = query()
    other.delegation_ids.append(b"d" * 32)
    assert scope_of(other) != scope_of(query())
    assert scope_of(query(nonce=b"n" * 16, page=b"p", page_size=5, continues=b"c" * 32)) == scope_of(query())

"""Sealing: only the addressee opens, only for the same purpose, and only the whole slice counts."""

from __future__ import annotations

from hashlib import sha256
from itertools import pairwise

import pytest
from hypothesis import given, settings, strategies as st
from nacl.bindings import (
    crypto_box_seal,
    crypto_secretstream_xchacha20poly1305_init_push,
    crypto_secretstream_xchacha20poly1305_push,
    crypto_secretstream_xchacha20poly1305_state,
    crypto_secretstream_xchacha20poly1305_TAG_PUSH,
    crypto_secretstream_xchacha20poly1305_TAG_REKEY,
)

from permslip.errors import KeyRejectedError, MalformedError, SealError
from permslip.keys import SealingKey
from permslip.sealing import (
    CHUNK_OVERHEAD,
    HEADER_BYTES,
    MAX_CHUNK_BYTES,
    SEAL_OVERHEAD,
    SEALED_KEY_BYTES,
    SliceOpener,
    SliceSealer,
    open_sealed,
    padme,
    salted_digest,
    seal,
)

NODE = SealingKey.from_seed(bytes(range(32)))
REPLY = SealingKey.from_seed(bytes(range(1, 33)))
QUERY = sha256(b"a query").digest()
OTHER_QUERY = sha256(b"another query").digest()
SECRET = b"the purpose, in the parent's own words"
SEALED = seal(NODE.public, SECRET, context=b"grant-private")
UNUSABLE_X25519 = bytes(32)


# ------------------------------------------------------------------------------------ sealed messages


@given(st.binary(max_size=300), st.binary(max_size=60))
def test_the_addressee_opens_what_was_sealed(plaintext: bytes, context: bytes) -> None:
    sealed = seal(NODE.public, plaintext, context=context)
    assert len(sealed) == len(plaintext) + SEAL_OVERHEAD
    assert open_sealed(NODE, sealed, context=context) == plaintext


@given(st.integers(0, len(SEALED) - 1), st.integers(1, 255))
def test_a_sealed_message_with_any_byte_altered_is_refused(place: int, change: int) -> None:
    altered = bytearray(SEALED)
    altered[place] ^= change
    with pytest.raises(SealError, match="altered"):
        open_sealed(NODE, bytes(altered), context=b"grant-private")


@given(st.integers(0, len(SEALED) - 1))
def test_a_sealed_message_cut_anywhere_is_refused(length: int) -> None:
    with pytest.raises(SealError):
        open_sealed(NODE, SEALED[:length], context=b"grant-private")


def test_a_sealed_message_with_bytes_appended_is_refused() -> None:
    with pytest.raises(SealError):
        open_sealed(NODE, SEALED + b"\x00", context=b"grant-private")


@given(st.binary(max_size=60).filter(lambda context: context != b"grant-private"))
def test_a_message_presented_for_another_purpose_is_refused(context: bytes) -> None:
    with pytest.raises(SealError, match="another purpose"):
        open_sealed(NODE, SEALED, context=context)


def test_nobody_but_the_addressee_opens() -> None:
    with pytest.raises(SealError, match="not for the key"):
        open_sealed(REPLY, SEALED, context=b"grant-private")


def test_the_same_message_never_seals_alike() -> None:
    assert seal(NODE.public, SECRET, context=b"grant-private") != SEALED


def test_a_bare_sealed_box_is_no_sealed_message() -> None:
    with pytest.raises(SealError, match="at least 80 bytes"):
        open_sealed(NODE, crypto_box_seal(bytes(31), NODE.public), context=b"")
    with pytest.raises(SealError, match="another purpose"):
        open_sealed(NODE, crypto_box_seal(bytes(32), NODE.public), context=b"")


def test_an_unusable_key_is_not_sealed_to() -> None:
    with pytest.raises(KeyRejectedError, match="^recipient_public: "):
        seal(UNUSABLE_X25519, SECRET, context=b"")


# ------------------------------------------------------------------------------------ sealed slices

PIECES = [b"first", b"", b"third" * 100, b"last"]


def sealed_slice(pieces: list[bytes]) -> tuple[SliceSealer, list[bytes]]:
    sealer = SliceSealer(REPLY.public, QUERY)
    return sealer, [sealer.chunk(piece, number == len(pieces) - 1) for number, piece in enumerate(pieces)]


SEALER, CHUNKS = sealed_slice(PIECES)


def opener(*, key: SealingKey = REPLY, binding: bytes = QUERY) -> SliceOpener:
    return SliceOpener(key, SEALER.sealed_key, SEALER.header, binding)


def open_whole(chunks: list[bytes]) -> list[bytes]:
    """What a careful reader does; raises unless the slice is whole."""
    stream = opener()
    opened = [stream.open(chunk)[0] for chunk in chunks]
    stream.finish()
    return opened


@settings(max_examples=50)
@given(st.lists(st.binary(max_size=500), min_size=1, max_size=8))
def test_the_requester_opens_the_slice_chunk_by_chunk(pieces: list[bytes]) -> None:
    sealer, chunks = sealed_slice(pieces)
    stream = SliceOpener(REPLY, sealer.sealed_key, sealer.header, QUERY)
    assert [stream.open(chunk) for chunk in chunks] == [
        (piece, number == len(pieces) - 1) for number, piece in enumerate(pieces)
    ]
    stream.finish()


def test_sizes_are_those_of_the_format() -> None:
    assert (len(SEALER.sealed_key), len(SEALER.header)) == (SEALED_KEY_BYTES, HEADER_BYTES) == (80, 24)
    assert [len(chunk) for chunk in CHUNKS] == [len(piece) + CHUNK_OVERHEAD for piece in PIECES]


def test_an_empty_slice_is_one_empty_last_chunk() -> None:
    sealer, chunks = sealed_slice([b""])
    stream = SliceOpener(REPLY, sealer.sealed_key, sealer.header, QUERY)
    assert stream.open(chunks[0]) == (b"", True)
    stream.finish()


def test_a_full_chunk_passes_and_a_longer_one_is_refused_on_both_sides() -> None:
    sealer = SliceSealer(REPLY.public, QUERY)
    with pytest.raises(MalformedError, match="^chunk: expected at most 65536 bytes, got 65537"):
        sealer.chunk(bytes(MAX_CHUNK_BYTES + 1), last=False)
    full = sealer.chunk(bytes(MAX_CHUNK_BYTES), last=True)
    stream = SliceOpener(REPLY, sealer.sealed_key, sealer.header, QUERY)
    assert stream.open(full) == (bytes(MAX_CHUNK_BYTES), True)
    with pytest.raises(SealError, match="expected a chunk of 17 to 65553 bytes, got 65554"):
        opener().open(full + b"\x00")
    with pytest.raises(SealError, match="got 16"):
        opener().open(bytes(16))


def test_nothing_is_sealed_after_the_last_chunk() -> None:
    with pytest.raises(SealError, match="the slice has ended"):
        SEALER.chunk(b"more", last=True)


@given(st.data())
def test_a_chunk_with_any_byte_altered_is_refused_and_the_rest_with_it(data: st.DataObject) -> None:
    which = data.draw(st.integers(0, len(CHUNKS) - 1))
    place = data.draw(st.integers(0, len(CHUNKS[which]) - 1))
    altered = bytearray(CHUNKS[which])
    altered[place] ^= data.draw(st.integers(1, 255))
    stream = opener()
    for chunk in CHUNKS[:which]:
        stream.open(chunk)
    with pytest.raises(SealError, match="altered, is out of order"):
        stream.open(bytes(altered))
    with pytest.raises(SealError, match="an earlier chunk of this slice was refused"):
        stream.open(CHUNKS[which])
    with pytest.raises(SealError, match="not whole"):
        stream.finish()


@given(st.lists(st.sampled_from(range(len(CHUNKS))), max_size=6).filter(lambda order: order != [0, 1, 2, 3]))
def test_chunks_in_any_order_but_their_own_are_refused(order: list[int]) -> None:
    """Left out, repeated, exchanged, cut short, appended: all of them."""
    with pytest.raises(SealError):
        open_whole([CHUNKS[number] for number in order])


def test_chunks_in_their_own_order_are_opened() -> None:
    assert open_whole(CHUNKS) == PIECES


@pytest.mark.parametrize("count", range(len(CHUNKS)))
def test_a_slice_cut_short_is_not_whole(count: int) -> None:
    with pytest.raises(SealError, match="its last chunk never came"):
        open_whole(CHUNKS[:count])


def test_a_chunk_after_the_last_undoes_the_whole() -> None:
    stream = opener()
    for chunk in CHUNKS:
        stream.open(chunk)
    stream.finish()
    for _ in range(2):
        with pytest.raises(SealError):
            stream.open(CHUNKS[-1])
    with pytest.raises(SealError):
        stream.finish()


def test_chunks_of_another_slice_are_refused() -> None:
    _, others = sealed_slice(PIECES)
    with pytest.raises(SealError):
        open_whole([CHUNKS[0], others[1]])


def test_chunks_do_not_answer_another_query() -> None:
    with pytest.raises(SealError):
        opener(binding=OTHER_QUERY).open(CHUNKS[0])


def test_another_reply_key_does_not_open_the_slice() -> None:
    with pytest.raises(SealError, match="not for the key"):
        opener(key=NODE)


@given(st.integers(0, HEADER_BYTES - 1), st.integers(1, 255))
def test_an_altered_header_is_refused_at_the_first_chunk(place: int, change: int) -> None:
    altered = bytearray(SEALER.header)
    altered[place] ^= change
    with pytest.raises(SealError):
        SliceOpener(REPLY, SEALER.sealed_key, bytes(altered), QUERY).open(CHUNKS[0])


@given(st.integers(0, SEALED_KEY_BYTES - 1), st.integers(1, 255))
def test_an_altered_content_key_is_refused(place: int, change: int) -> None:
    altered = bytearray(SEALER.sealed_key)
    altered[place] ^= change
    with pytest.raises(SealError):
        SliceOpener(REPLY, bytes(altered), SEALER.header, QUERY)


@pytest.mark.parametrize("length", [0, 79, 81])
def test_a_content_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(SealError, match=f"sealed content key of 80 bytes, got {length}"):
        SliceOpener(REPLY, bytes(length), SEALER.header, QUERY)


@pytest.mark.parametrize("length", [0, 23, 25])
def test_a_header_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(SealError, match=f"stream header of 24 bytes, got {length}"):
        SliceOpener(REPLY, SEALER.sealed_key, bytes(length), QUERY)


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_binding_that_is_no_statement_id_is_refused(length: int) -> None:
    with pytest.raises(MalformedError, match="^binding: "):
        SliceSealer(REPLY.public, bytes(length))
    with pytest.raises(MalformedError, match="^binding: "):
        opener(binding=bytes(length))


def test_an_unusable_reply_key_is_not_sealed_to() -> None:
    with pytest.raises(KeyRejectedError, match="^reply_key: "):
        SliceSealer(UNUSABLE_X25519, QUERY)


@pytest.mark.parametrize(
    "tag",
    [crypto_secretstream_xchacha20poly1305_TAG_PUSH, crypto_secretstream_xchacha20poly1305_TAG_REKEY],
)
def test_a_chunk_with_a_tag_that_the_format_does_not_use_is_refused(tag: int) -> None:
    content_key = bytes(32)
    state = crypto_secretstream_xchacha20poly1305_state()
    header = crypto_secretstream_xchacha20poly1305_init_push(state, content_key)
    chunk = crypto_secretstream_xchacha20poly1305_push(state, b"text", QUERY, tag)
    stream = SliceOpener(REPLY, crypto_box_seal(content_key, REPLY.public), header, QUERY)
    with pytest.raises(SealError, match=f"tagged as message or final, got tag {tag}"):
        stream.open(chunk)
    with pytest.raises(SealError, match="an earlier chunk"):
        stream.open(chunk)


# ------------------------------------------------------------------------------------ padding, digests


@pytest.mark.parametrize(
    ("length", "padded"),
    [(0, 0), (1, 1), (2, 2), (8, 8), (9, 10), (15, 16), (17, 18), (100, 104), (1000, 1024), (1025, 1088)],
)
def test_padme_of_known_lengths(length: int, padded: int) -> None:
    assert padme(length) == padded


def test_padme_is_monotone_and_stable_over_all_small_lengths() -> None:
    padded = [padme(length) for length in range(20_000)]
    assert all(first <= second for first, second in pairwise(padded))
    assert all(padme(length) == length for length in padded)


@given(st.integers(0, 2**60))
def test_padme_costs_at_most_12_percent(length: int) -> None:
    assert length <= padme(length) <= length * 1.12


@given(st.integers(1, 2**60), st.integers(0, 2**60))
def test_padme_is_monotone(length: int, more: int) -> None:
    assert padme(length) <= padme(length + more)


def test_padme_leaves_few_sizes_to_tell_apart() -> None:
    assert len({padme(length) for length in range(1, 2**16)}) < 200


def test_padme_of_a_negative_length_is_malformed() -> None:
    with pytest.raises(MalformedError, match="^length: "):
        padme(-1)


@given(st.binary(min_size=16, max_size=16), st.binary(max_size=100))
def test_a_salted_digest_is_what_its_definition_says(salt: bytes, data: bytes) -> None:
    assert salted_digest(salt, data) == sha256(b"permslip/salted/v1\n" + salt + data).digest()


@pytest.mark.parametrize("length", [0, 15, 17])
def test_a_salt_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(MalformedError, match="^salt: expected 16 bytes"):
        salted_digest(bytes(length), b"")

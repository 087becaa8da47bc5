"""Envelopes: exactly the named keys sign, over exactly these bytes, in one encoding."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given, strategies as st

from permslip.dsse import MAX_SIGNERS, SignedCache, pae, sign, statement_id, verify_signatures
from permslip.errors import KeyRejectedError, MalformedError, SignatureError
from permslip.keys import SigningKey

TYPE = "application/vnd.permslip.grant.v1+protobuf"
PAYLOAD = b"one grant"
KEYS = sorted((SigningKey.from_seed(bytes([number]) * 32) for number in range(4)), key=lambda key: key.public.raw)
MOTHER, FATHER, LEARNER, STRANGER = KEYS
PARENTS = [MOTHER.public.raw, FATHER.public.raw]
SIGNATURES = sign(TYPE, PAYLOAD, [MOTHER, FATHER])
ID = statement_id(TYPE, PAYLOAD)


# ------------------------------------------------------------------------------------ what is signed


@given(st.text(), st.binary(), st.text(), st.binary())
def test_two_pairs_of_type_and_payload_never_share_an_encoding(
    type_1: str, payload_1: bytes, type_2: str, payload_2: bytes
) -> None:
    try:
        same = pae(type_1, payload_1) == pae(type_2, payload_2)
    except MalformedError:
        return
    assert same == ((type_1, payload_1) == (type_2, payload_2))


def test_lengths_count_bytes_and_not_characters() -> None:
    assert pae("é", b"\x00") == b"DSSEv1 2 \xc3\xa9 1 \x00"


def test_a_type_that_utf8_cannot_carry_is_malformed() -> None:
    with pytest.raises(MalformedError, match="^payload_type: "):
        pae("\ud800", b"")


def test_the_id_is_the_digest_of_what_is_signed() -> None:
    assert sha256(b"DSSEv1 42 application/vnd.permslip.grant.v1+protobuf 9 one grant").digest() == ID


# ------------------------------------------------------------------------------------ who signs


@given(st.binary(max_size=100), st.permutations(KEYS), st.integers(1, 4))
def test_what_the_named_keys_sign_verifies_in_any_order_of_naming(
    payload: bytes, keys: list[SigningKey], count: int
) -> None:
    signatures = sign(TYPE, payload, keys[:count])
    required = [key.public.raw for key in keys[:count]]
    assert verify_signatures(TYPE, payload, signatures, required) == statement_id(TYPE, payload)
    assert signatures == sorted(signatures)


def test_a_missing_signature_is_refused_by_the_keys_name() -> None:
    with pytest.raises(SignatureError, match=f"^missing: no signature by {FATHER.public.did},"):
        verify_signatures(TYPE, PAYLOAD, SIGNATURES[:1], PARENTS)


def test_no_signature_at_all_is_refused() -> None:
    with pytest.raises(SignatureError, match=f"^missing: no signature by {MOTHER.public.did},"):
        verify_signatures(TYPE, PAYLOAD, [], PARENTS)


def test_an_unnamed_signature_is_refused_though_it_is_valid() -> None:
    signatures = sign(TYPE, PAYLOAD, [MOTHER, FATHER, STRANGER])
    with pytest.raises(SignatureError, match=f"^unnamed: {STRANGER.public.did} signed,"):
        verify_signatures(TYPE, PAYLOAD, signatures, PARENTS)


def test_a_stranger_in_a_parents_place_is_refused() -> None:
    signatures = sign(TYPE, PAYLOAD, [MOTHER, STRANGER])
    with pytest.raises(SignatureError, match="^unnamed: "):
        verify_signatures(TYPE, PAYLOAD, signatures, PARENTS)


def test_a_duplicate_signature_is_refused() -> None:
    with pytest.raises(SignatureError, match=f"^duplicate: {MOTHER.public.did} signed more than once"):
        verify_signatures(TYPE, PAYLOAD, [SIGNATURES[0], *SIGNATURES], PARENTS)


def test_a_duplicate_does_not_stand_for_the_missing_one() -> None:
    with pytest.raises(SignatureError, match="^duplicate: "):
        verify_signatures(TYPE, PAYLOAD, [SIGNATURES[0], SIGNATURES[0]], PARENTS)


def test_signatures_out_of_order_are_refused() -> None:
    with pytest.raises(SignatureError, match="^out of order: "):
        verify_signatures(TYPE, PAYLOAD, SIGNATURES[::-1], PARENTS)


def test_signatures_swapped_between_their_keys_are_refused() -> None:
    (first, one), (second, other) = SIGNATURES
    with pytest.raises(SignatureError, match=f"^invalid signature: not made by {MOTHER.public.did}"):
        verify_signatures(TYPE, PAYLOAD, [(first, other), (second, one)], PARENTS)


def test_the_last_signature_is_checked_too() -> None:
    garbage = (SIGNATURES[1][0], bytes(64))
    with pytest.raises(SignatureError, match=f"^invalid signature: not made by {FATHER.public.did}"):
        verify_signatures(TYPE, PAYLOAD, [SIGNATURES[0], garbage], PARENTS)


def test_nobody_required_is_no_success() -> None:
    with pytest.raises(SignatureError, match="expected 1 to 32 required keys, got 0"):
        verify_signatures(TYPE, PAYLOAD, [], [])


def test_a_key_required_twice_is_refused() -> None:
    with pytest.raises(SignatureError, match=f"^duplicate: {MOTHER.public.did} stands twice among the required"):
        verify_signatures(TYPE, PAYLOAD, SIGNATURES, [MOTHER.public.raw, FATHER.public.raw, MOTHER.public.raw])


def test_too_many_required_keys_are_refused_before_any_is_checked() -> None:
    required = [bytes([number]) * 32 for number in range(MAX_SIGNERS + 1)]
    with pytest.raises(SignatureError, match="expected 1 to 32 required keys, got 33"):
        verify_signatures(TYPE, PAYLOAD, [], required)


def test_as_many_signers_as_allowed_pass() -> None:
    keys = [SigningKey.from_seed(bytes([number]) * 32) for number in range(MAX_SIGNERS)]
    required = [key.public.raw for key in keys]
    assert verify_signatures(TYPE, PAYLOAD, sign(TYPE, PAYLOAD, keys), required) == ID


def test_too_many_signatures_are_refused_before_any_is_checked() -> None:
    with pytest.raises(SignatureError, match="expected 2 signatures, got 33"):
        verify_signatures(TYPE, PAYLOAD, [SIGNATURES[0]] * (MAX_SIGNERS + 1), PARENTS)


def test_a_small_order_key_does_not_sign_even_where_it_is_required() -> None:
    small = (1).to_bytes(32, "little")
    with pytest.raises(KeyRejectedError, match=r"^signatures\.key: "):
        verify_signatures(TYPE, PAYLOAD, [(small, bytes(64))], [small])


def test_a_key_of_another_length_is_refused_without_its_bytes_in_the_message() -> None:
    with pytest.raises(SignatureError, match="^unnamed: a key of 5 bytes signed"):
        verify_signatures(TYPE, PAYLOAD, [(b"short", bytes(64))], PARENTS)


def test_signing_with_no_key_or_one_key_twice_is_refused() -> None:
    with pytest.raises(SignatureError, match="expected 1 to 32 signing keys, got 0"):
        sign(TYPE, PAYLOAD, [])
    with pytest.raises(SignatureError, match="stands twice among the signing keys"):
        sign(TYPE, PAYLOAD, [MOTHER, MOTHER])


@given(st.data())
def test_any_byte_altered_anywhere_is_refused(data: st.DataObject) -> None:
    parts = [TYPE.encode(), PAYLOAD, *(part for pair in SIGNATURES for part in pair)]
    which = data.draw(st.integers(0, len(parts) - 1))
    place = data.draw(st.integers(0, len(parts[which]) - 1))
    altered = bytearray(parts[which])
    altered[place] ^= data.draw(st.integers(1, 127))
    parts[which] = bytes(altered)
    signatures = [(parts[2], parts[3]), (parts[4], parts[5])]
    with pytest.raises(SignatureError):
        verify_signatures(parts[0].decode("latin-1"), parts[1], signatures, PARENTS)


# ------------------------------------------------------------------------------------ the cache


def test_a_cached_signature_verifies_again() -> None:
    cache = SignedCache(16)
    for _ in range(2):
        assert verify_signatures(TYPE, PAYLOAD, SIGNATURES, PARENTS, cache=cache) == ID
    assert len(cache) == 2


def test_a_garbage_signature_is_refused_after_the_genuine_one_was_cached() -> None:
    cache = SignedCache(16)
    verify_signatures(TYPE, PAYLOAD, SIGNATURES, PARENTS, cache=cache)
    with pytest.raises(SignatureError, match="^invalid signature"):
        verify_signatures(TYPE, PAYLOAD, [(SIGNATURES[0][0], bytes(64)), SIGNATURES[1]], PARENTS, cache=cache)


def test_a_cached_signature_does_not_speak_for_another_payload_or_key() -> None:
    cache = SignedCache(16)
    verify_signatures(TYPE, PAYLOAD, SIGNATURES, PARENTS, cache=cache)
    with pytest.raises(SignatureError):
        verify_signatures(TYPE, PAYLOAD + b"!", SIGNATURES, PARENTS, cache=cache)
    with pytest.raises(SignatureError):
        verify_signatures(TYPE, PAYLOAD, [(LEARNER.public.raw, SIGNATURES[0][1])], [LEARNER.public.raw], cache=cache)


def test_the_cache_says_nothing_about_who_must_sign() -> None:
    cache = SignedCache(16)
    verify_signatures(TYPE, PAYLOAD, SIGNATURES, PARENTS, cache=cache)
    with pytest.raises(SignatureError, match="^missing: "):
        verify_signatures(TYPE, PAYLOAD, SIGNATURES, [*PARENTS, LEARNER.public.raw], cache=cache)
    with pytest.raises(SignatureError, match="^unnamed: "):
        verify_signatures(TYPE, PAYLOAD, SIGNATURES, PARENTS[:1], cache=cache)


def test_a_refused_signature_is_not_remembered() -> None:
    cache = SignedCache(16)
    for _ in range(2):
        with pytest.raises(SignatureError):
            verify_signatures(TYPE, PAYLOAD, [(MOTHER.public.raw, bytes(64))], PARENTS[:1], cache=cache)
    assert len(cache) == 0


@pytest.mark.parametrize("most", [0, 1, 2, 3, 10, 11])
def test_the_cache_never_holds_more_than_it_may(most: int) -> None:
    cache = SignedCache(most)
    for number in range(30):
        payload = b"%d" % number
        verify_signatures(TYPE, payload, sign(TYPE, payload, [MOTHER]), PARENTS[:1], cache=cache)
        assert len(cache) <= max(2, most)


def test_what_is_used_outlives_what_is_not() -> None:
    cache = SignedCache(4)
    message = pae(TYPE, PAYLOAD)
    cache.verify(ID, message, MOTHER.public, SIGNATURES[0][1])
    for number in range(20):
        other = b"%d" % number
        verify_signatures(TYPE, other, sign(TYPE, other, [MOTHER]), PARENTS[:1], cache=cache)
        # Remembered: what is handed in as its message is not even looked at.
        cache.verify(ID, b"", MOTHER.public, SIGNATURES[0][1])


def test_what_is_not_used_is_forgotten_and_verified_anew() -> None:
    cache = SignedCache(4)
    cache.verify(ID, pae(TYPE, PAYLOAD), MOTHER.public, SIGNATURES[0][1])
    for number in range(20):
        other = b"%d" % number
        verify_signatures(TYPE, other, sign(TYPE, other, [MOTHER]), PARENTS[:1], cache=cache)
    with pytest.raises(SignatureError):
        cache.verify(ID, b"", MOTHER.public, SIGNATURES[0][1])

"""Keys: which are refused, what a signature proves, and that secrets do not slip out."""

from __future__ import annotations

import copy
import pickle
from hashlib import sha512

import pytest
from hypothesis import given, strategies as st
from nacl.bindings import (
    crypto_core_ed25519_add,
    crypto_scalarmult,
    crypto_scalarmult_ed25519_base_noclamp,
    crypto_sign_open,
)
from nacl.exceptions import CryptoError

from permslip.errors import KeyRejectedError, MalformedError, SealError, SignatureError
from permslip.keys import PublicKey, SealingKey, SigningKey, did_text, parse_sealing_key
from permslip.sealing import seal

FIELD = 2**255 - 19
KEY = SigningKey.from_seed(bytes(range(32)))
MESSAGE = b"one slice of one learner"
SIGNATURE = KEY.sign(MESSAGE)

# Points of order 1, 2, 4, 4, 8, 8, 8, 8 on edwards25519, by the y-coordinate and the sign of x.
ORDER_EIGHT = bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")
ORDER_EIGHT_Y = int.from_bytes(ORDER_EIGHT, "little")
SMALL_ORDER = [
    (1).to_bytes(32, "little"),
    (FIELD - 1).to_bytes(32, "little"),
    bytes(32),
    (1 << 255).to_bytes(32, "little"),
    ORDER_EIGHT,
    (ORDER_EIGHT_Y | 1 << 255).to_bytes(32, "little"),
    (FIELD - ORDER_EIGHT_Y).to_bytes(32, "little"),
    (FIELD - ORDER_EIGHT_Y | 1 << 255).to_bytes(32, "little"),
]
NOT_CANONICAL = [
    FIELD.to_bytes(32, "little"),
    (FIELD + 1).to_bytes(32, "little"),
    (1 | 1 << 255).to_bytes(32, "little"),  # x = 0 with the sign bit set
    b"\xff" * 32,
]
MIXED_ORDER = crypto_core_ed25519_add(KEY.public.raw, ORDER_EIGHT)
NOT_ON_CURVE = (2).to_bytes(32, "little")

seeds = st.binary(min_size=32, max_size=32)


# ------------------------------------------------------------------------------------ public keys


@pytest.mark.parametrize("raw", [*SMALL_ORDER, *NOT_CANONICAL, MIXED_ORDER, NOT_ON_CURVE], ids=bytes.hex)
def test_an_unusable_ed25519_key_is_refused_by_field_name(raw: bytes) -> None:
    with pytest.raises(KeyRejectedError, match=r"^grant\.grantee: [0-9a-f]{64} is not a usable") as caught:
        PublicKey.parse(raw, field="grant.grantee")
    assert caught.value.remedy


def test_a_mixed_order_key_is_refused_though_libsodium_would_verify_with_it() -> None:
    # Signatures by hand (RFC 8032 §5.1.6) under A + T with T of order 8: those whose challenge is a multiple of 8
    # satisfy the equation without cofactor, which is the one that libsodium checks.
    secret = sha512(bytes(range(32))).digest()[:32]
    scalar = (int.from_bytes(secret, "little") & ((1 << 254) - 8)) | 1 << 254
    order = 2**252 + 27742317777372353535851937790883648493
    commitment = crypto_scalarmult_ed25519_base_noclamp((7).to_bytes(32, "little"))
    challenges = (
        (message, int.from_bytes(sha512(commitment + MIXED_ORDER + message).digest(), "little") % order)
        for message in (b"%d" % number for number in range(1000))
    )
    message, challenge = next(found for found in challenges if found[1] % 8 == 0)
    signature = commitment + ((7 + challenge * scalar) % order).to_bytes(32, "little")
    assert crypto_sign_open(signature + message, MIXED_ORDER) == message
    with pytest.raises(KeyRejectedError):
        PublicKey.parse(MIXED_ORDER)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(KeyRejectedError, match=rf"^key: expected an Ed25519 public key of 32 bytes, got {length}"):
        PublicKey.parse(bytes(length))


def test_the_constructor_checks_as_parse_does() -> None:
    with pytest.raises(KeyRejectedError):
        PublicKey(bytes(32))
    assert PublicKey(KEY.public.raw) == KEY.public


def test_a_key_seen_again_is_the_same_object() -> None:
    assert PublicKey.parse(KEY.public.raw) is PublicKey.parse(bytes(bytearray(KEY.public.raw)))


def test_equal_keys_hash_alike_and_cannot_be_altered() -> None:
    first, second = PublicKey(KEY.public.raw), PublicKey(bytes(KEY.public.raw))
    assert {first: 1}[second] == 1
    assert first != SigningKey.generate().public
    with pytest.raises(AttributeError):
        first.raw = bytes(32)  # type: ignore[misc]  # that it is refused is what is tested


# ------------------------------------------------------------------------------------ did:key


def test_the_did_of_a_published_key_is_the_published_one() -> None:
    # W3C CCG did:key, Ed25519 test vector.
    raw = bytes.fromhex("3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29")
    assert PublicKey.parse(raw).did == "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp"
    assert PublicKey.from_did("did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp").raw == raw


@given(seeds)
def test_a_key_survives_its_did(seed: bytes) -> None:
    key = SigningKey.from_seed(seed).public
    assert key.did.startswith("did:key:z6Mk")
    assert PublicKey.from_did(key.did) == key
    assert str(key) == key.did
    assert repr(key) == f"PublicKey({key.did})"


@given(st.binary(min_size=32, max_size=32))
def test_any_32_bytes_have_a_name_for_messages_of_one_length(raw: bytes) -> None:
    assert len(did_text(raw)) == 56


@given(st.integers(8, 55), st.characters())
def test_a_did_with_one_character_changed_never_names_the_same_key(place: int, other: str) -> None:
    text = KEY.public.did
    altered = text[:place] + other + text[place + 1 :]
    if altered == text:
        assert PublicKey.from_did(altered) == KEY.public
        return
    try:
        found = PublicKey.from_did(altered)
    except (MalformedError, KeyRejectedError):
        return
    assert found != KEY.public


@pytest.mark.parametrize(
    "text",
    [
        "",
        "did:key:",
        KEY.public.did[:-1],
        KEY.public.did + "1",
        KEY.public.did.upper(),
        " " + KEY.public.did[:-1],
        KEY.public.did.replace("did:key:z", "did:web:z"),
        KEY.public.did.replace("z6Mk", "z6LS"),  # an X25519 multikey
        "did:key:z" + "1" * 47,
        "did:key:z" + "z" * 47,
        "did:key:z" + "0" * 47,
        "x" * 1000,
    ],
)
def test_a_text_that_is_no_ed25519_did_is_malformed(text: str) -> None:
    with pytest.raises(MalformedError, match="^grantee: expected an Ed25519 key written did:key:z6Mk") as caught:
        PublicKey.from_did(text, field="grantee")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("raw", SMALL_ORDER, ids=bytes.hex)
def test_a_small_order_key_is_refused_in_its_text_form_too(raw: bytes) -> None:
    with pytest.raises(KeyRejectedError):
        PublicKey.from_did(did_text(raw))


def test_bytes_of_another_length_have_no_did() -> None:
    with pytest.raises(MalformedError):
        did_text(bytes(31))


# ------------------------------------------------------------------------------------ signatures


@given(st.binary(max_size=200), seeds)
def test_what_a_key_signs_its_public_key_verifies(message: bytes, seed: bytes) -> None:
    key = SigningKey.from_seed(seed)
    key.public.verify(message, key.sign(message))


@given(st.integers(0, 63), st.integers(1, 255))
def test_a_signature_with_any_byte_altered_is_refused(place: int, change: int) -> None:
    altered = bytearray(SIGNATURE)
    altered[place] ^= change
    with pytest.raises(SignatureError, match="invalid signature: not made by did:key:z6Mk"):
        KEY.public.verify(MESSAGE, bytes(altered))


@given(st.integers(0, len(MESSAGE) - 1), st.integers(1, 255))
def test_a_message_with_any_byte_altered_is_refused(place: int, change: int) -> None:
    altered = bytearray(MESSAGE)
    altered[place] ^= change
    with pytest.raises(SignatureError):
        KEY.public.verify(bytes(altered), SIGNATURE)


@pytest.mark.parametrize(
    ("message", "signature"),
    [
        (MESSAGE[1:], SIGNATURE + MESSAGE[:1]),  # the same bytes, cut one further
        (SIGNATURE[-1:] + MESSAGE, SIGNATURE[:-1]),
        (SIGNATURE + MESSAGE, b""),
        (MESSAGE, SIGNATURE * 2),
    ],
)
def test_a_signature_of_another_length_is_refused_even_if_the_bytes_fit(message: bytes, signature: bytes) -> None:
    with pytest.raises(SignatureError, match="expected a signature of 64 bytes"):
        KEY.public.verify(message, signature)


def test_another_key_does_not_verify() -> None:
    with pytest.raises(SignatureError):
        SigningKey.generate().public.verify(MESSAGE, SIGNATURE)


def test_generated_keys_differ() -> None:
    assert SigningKey.generate().public != SigningKey.generate().public
    assert SealingKey.generate().public != SealingKey.generate().public


# ------------------------------------------------------------------------------------ secrets


@given(seeds)
def test_a_key_comes_back_from_its_seed(seed: bytes) -> None:
    assert SigningKey.from_seed(seed).secret_seed() == seed
    assert SigningKey.from_seed(SigningKey.from_seed(seed).secret_seed()).public == SigningKey.from_seed(seed).public
    assert SealingKey.from_seed(seed).secret_seed() == seed


def test_a_generated_sealing_key_comes_back_from_its_seed() -> None:
    key = SealingKey.generate()
    assert SealingKey.from_seed(key.secret_seed()).public == key.public


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_seed_of_another_length_is_refused_by_field_name(length: int) -> None:
    with pytest.raises(MalformedError, match="^signing_seed: expected a seed of 32 bytes"):
        SigningKey.from_seed(bytes(length), field="signing_seed")
    with pytest.raises(MalformedError, match="^seed: expected a seed of 32 bytes"):
        SealingKey.from_seed(bytes(length))


@pytest.mark.parametrize("key", [KEY, SealingKey.from_seed(bytes(range(32)))], ids=["signing", "sealing"])
def test_a_secret_key_neither_prints_pickles_nor_copies(key: SigningKey | SealingKey) -> None:
    assert repr(key).startswith(f"{type(key).__name__}(")
    assert key.secret_seed().hex() not in repr(key) + str(key)
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="neither pickled nor copied"):
            attempt(key)


# ------------------------------------------------------------------------------------ sealing keys

SMALL_ORDER_U = [
    0,
    1,
    FIELD - 1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
]


@pytest.mark.parametrize("u", SMALL_ORDER_U)
def test_a_small_order_x25519_key_is_refused_and_libsodium_agrees(u: int) -> None:
    raw = u.to_bytes(32, "little")
    with pytest.raises(CryptoError):
        crypto_scalarmult(bytes(range(32)), raw)
    with pytest.raises(KeyRejectedError, match=r"^query\.reply_key: [0-9a-f]{64} is not a usable X25519"):
        parse_sealing_key(raw, "query.reply_key")


@pytest.mark.parametrize("u", [FIELD, FIELD + 1, 9 + FIELD, 2**255 - 1, 9 | 1 << 255, 2**256 - 1])
def test_a_second_spelling_of_an_x25519_key_is_refused(u: int) -> None:
    with pytest.raises(KeyRejectedError):
        parse_sealing_key(u.to_bytes(32, "little"), "key")


@pytest.mark.parametrize("length", [0, 31, 33])
def test_an_x25519_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(KeyRejectedError, match=rf"^key: expected an X25519 public key of 32 bytes, got {length}"):
        parse_sealing_key(b"\x09" * length, "key")


@given(seeds)
def test_every_made_sealing_key_passes(seed: bytes) -> None:
    public = SealingKey.from_seed(seed).public
    assert parse_sealing_key(public, "key") == public


def test_unseal_refuses_what_is_shorter_than_an_empty_box() -> None:
    key = SealingKey.generate()
    with pytest.raises(SealError, match="at least 48 bytes, got 47"):
        key.unseal(bytes(47))


def test_unseal_refuses_what_is_sealed_to_another_key() -> None:
    sealed = seal(SealingKey.generate().public, b"secret", context=b"")
    with pytest.raises(SealError, match="altered or is not for the key"):
        SealingKey.generate().unseal(sealed)


def test_a_did_with_a_wrong_letter_is_to_be_compared_not_made_anew() -> None:
    did = SigningKey.generate().public.did
    mistyped = (f"{did[:-1]}{letter}" for letter in "23456789ABCDEFGH" if letter != did[-1])
    remedies = []
    for text in mistyped:
        try:
            PublicKey.from_did(text, field="DID")
        except KeyRejectedError as error:
            remedies.append(error.remedy)
    assert remedies
    assert all("Compare it" in each for each in remedies)

"""Signed notes: one form, nothing believed before a known key signed it."""

from __future__ import annotations

import base64
from hashlib import sha256

import pytest
from hypothesis import given, strategies as st

from permslip.errors import KeyRejectedError, MalformedError, SignatureError, VerificationError
from permslip.keys import SigningKey
from permslip.notes import (
    MAX_LINES,
    MAX_NAME_BYTES,
    MAX_NOTE_BYTES,
    MAX_SIGNATURES,
    Ed25519Signer,
    Ed25519Verifier,
    NoteSignature,
    SignatureType,
    VerifierKey,
    append_signatures,
    decode_base64,
    open_note,
    parse_note,
    parse_signature_lines,
    sign_note,
)

TEXT = "Term begins.\n\nOn Monday, às oito.\n"
ALICE = Ed25519Signer("alice.example/log", SigningKey.from_seed(bytes([1] * 32)))
BOB = Ed25519Signer("bob.example/log", SigningKey.from_seed(bytes([2] * 32)))
SIGNED = sign_note(TEXT, [ALICE, BOB])
UNKNOWN = NoteSignature("carol.example", b"\x00\x01\x02\x03", b"whatever")

lines = st.text(st.characters(exclude_categories=["Cs"], min_codepoint=0x20), max_size=20)
texts = st.lists(lines, min_size=1, max_size=6).map(lambda all_lines: "".join(f"{line}\n" for line in all_lines))


def note_of(*signature_lines: str, text: str = TEXT) -> bytes:
    return f"{text}\n{''.join(signature_lines)}".encode()


# -------------------------------------------------------------------------------------------- signing, opening


def test_a_note_opens_with_each_of_its_signers_and_with_both() -> None:
    for verifiers in ([ALICE.verifier], [BOB.verifier], [BOB.verifier, ALICE.verifier]):
        note = open_note(SIGNED, verifiers)
        assert (note.raw, note.text) == (SIGNED, TEXT)
        assert {each.name for each in note.signatures} == {verifier.key.name for verifier in verifiers}
        assert len(note.signatures) + len(note.unverified) == 2


@given(text=texts)
def test_whatever_was_signed_comes_back(text: str) -> None:
    assert open_note(sign_note(text, [ALICE]), [ALICE.verifier]).text == text


@given(raw=st.binary(max_size=200) | texts.map(str.encode))
def test_bytes_that_parse_are_the_only_form_of_what_they_say(raw: bytes) -> None:
    try:
        note = parse_note(raw)
    except MalformedError:
        return
    assert note_of(*(each.line() for each in note.signatures), text=note.untrusted_text) == raw


@given(position=st.integers(0, len(SIGNED) * 8 - 1))
def test_flipping_any_bit_is_refused_or_makes_a_signature_that_is_not_counted(position: int) -> None:
    changed = bytearray(SIGNED)
    changed[position // 8] ^= 1 << position % 8
    try:
        note = open_note(bytes(changed), [ALICE.verifier, BOB.verifier])
    except (MalformedError, VerificationError):
        return
    assert note.text == TEXT
    assert len(note.signatures) == 1


def test_a_known_keys_false_signature_refuses_the_note_though_another_holds() -> None:
    false = NoteSignature(BOB.key.name, BOB.key.key_id, bytes(64))
    raw = append_signatures(sign_note(TEXT, [ALICE]), [false])
    with pytest.raises(SignatureError):
        open_note(raw, [ALICE.verifier, BOB.verifier])
    assert open_note(raw, [ALICE.verifier]).unverified == (false,)


def test_a_known_keys_second_signature_is_verified_as_well() -> None:
    second = NoteSignature(ALICE.key.name, ALICE.key.key_id, bytes(64))
    with pytest.raises(SignatureError):
        open_note(append_signatures(SIGNED, [second]), [ALICE.verifier])


def test_repeated_signatures_count_once() -> None:
    line = NoteSignature(ALICE.key.name, ALICE.key.key_id, ALICE.sign(TEXT)).line()
    note = open_note(note_of(line, UNKNOWN.line(), line, UNKNOWN.line()), [ALICE.verifier])
    assert len(note.signatures) == 1
    assert note.unverified == (UNKNOWN,)


@pytest.mark.parametrize(("name", "key_id"), [(ALICE.key.name, BOB.key.key_id), (BOB.key.name, ALICE.key.key_id)])
def test_a_signature_that_shares_only_name_or_id_with_a_known_key_is_unknown(name: str, key_id: bytes) -> None:
    raw = note_of(NoteSignature(name, key_id, ALICE.sign(TEXT)).line())
    with pytest.raises(SignatureError, match=r"a known key of alice\.example/log, got none"):
        open_note(raw, [ALICE.verifier])


def test_a_note_without_a_known_signature_is_refused() -> None:
    with pytest.raises(SignatureError, match=r"expected a signature by a known key of alice\.example/log"):
        open_note(sign_note(TEXT, [BOB]), [ALICE.verifier])
    with pytest.raises(SignatureError, match="expected a signature by a known key of nobody"):
        open_note(SIGNED, [])


def test_a_signature_over_another_text_is_refused() -> None:
    line = NoteSignature(ALICE.key.name, ALICE.key.key_id, ALICE.sign(TEXT)).line()
    with pytest.raises(SignatureError):
        open_note(note_of(line, text=TEXT + "\n"), [ALICE.verifier])


def test_two_verifiers_of_one_name_and_id_are_refused() -> None:
    with pytest.raises(KeyRejectedError, match="two verifiers have the name and key id"):
        open_note(SIGNED, [ALICE.verifier, Ed25519Verifier(ALICE.key)])


def test_an_ed25519_verifier_refuses_a_key_of_another_type() -> None:
    key = VerifierKey("w", SignatureType.COSIGNATURE_V1, ALICE.key.public)
    with pytest.raises(KeyRejectedError, match="expected w to be a key of type ED25519, got COSIGNATURE_V1"):
        Ed25519Verifier(key)


@pytest.mark.parametrize("text", ["", "no newline", "tab\t\n", "null\x00\n", "\x1f\n", "cr\r\n", "\ud800\n"])
def test_text_that_a_note_cannot_carry_is_not_signed(text: str) -> None:
    with pytest.raises(MalformedError, match="expected text that ends in a newline, without control characters"):
        sign_note(text, [ALICE])


def test_a_note_needs_a_signer_and_each_but_once() -> None:
    with pytest.raises(MalformedError, match="expected signature lines"):
        sign_note(TEXT, [])
    with pytest.raises(MalformedError, match="expected each signer once"):
        sign_note(TEXT, [ALICE, ALICE])


def test_appending_keeps_the_note_and_adds_only_new_lines() -> None:
    raw = sign_note(TEXT, [ALICE])
    added = append_signatures(raw, [UNKNOWN, *parse_note(SIGNED).signatures, UNKNOWN])
    assert added.startswith(raw)
    assert parse_note(added).signatures == (
        parse_note(raw).signatures[0],
        UNKNOWN,
        parse_note(SIGNED).signatures[1],
    )
    assert append_signatures(added, [UNKNOWN]) == added


# ------------------------------------------------------------------------------------------------ strict form


GOOD_LINE = UNKNOWN.line()


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "no empty line"),
        (b"text\n", "no empty line"),
        (GOOD_LINE.encode(), "no empty line"),
        (b"text\n\n", "signature lines that end in a newline"),
        (b"text\n\n\n", "signature lines that end in a newline"),
        (note_of(GOOD_LINE[:-1]), "signature lines that end in a newline"),
        (note_of(GOOD_LINE, "\n"), "signature lines that end in a newline"),
        (note_of(GOOD_LINE, "more text\n"), "em dash"),
        (note_of(GOOD_LINE.replace("\u2014", "-")), "em dash"),
        (note_of(GOOD_LINE.replace("\u2014 ", "\u2014")), "em dash"),
        (note_of(GOOD_LINE.replace(" ", "  ")), "em dash"),
        (note_of(GOOD_LINE.replace("\n", " \n")), "em dash"),
        (note_of("\u2014 carol.example\n"), "em dash"),
        (note_of("\u2014  AAECA3g=\n"), "key name"),
        (note_of("\u2014 ca+rol AAECA3g=\n"), "key name"),
        (note_of("\u2014 ca\u00a0rol AAECA3g=\n"), "key name"),
        (note_of("\u2014 ca\u2028rol AAECA3g=\n"), "key name"),
        (note_of(f"\u2014 {'x' * 256} AAECA3g=\n"), "at most 255 bytes"),
        (note_of("\u2014 carol AAECA3g\n"), "expected base64"),
        (note_of("\u2014 carol AAECA3h=\n"), "canonical base64"),
        (note_of("\u2014 carol AAECA3g==\n"), "base64"),
        (note_of("\u2014 carol AAEC_3g=\n"), "expected base64"),
        (note_of("\u2014 carol AAEC\u00e93g=\n"), "expected base64"),
        (note_of("\u2014 carol AAECAw==\n"), "a key id and a signature, got 4 bytes"),
        (note_of(GOOD_LINE, text="cr\r\n"), r"no control characters, got U\+000D"),
        (note_of(GOOD_LINE, text="tab\t\n"), r"no control characters, got U\+0009"),
        (note_of(GOOD_LINE, text="unit\x1f\n"), r"no control characters, got U\+001F"),
        (b"\xff" + note_of(GOOD_LINE), "expected UTF-8, got a bad byte at 0"),
        (b"\xed\xa0\x80" + note_of(GOOD_LINE), "expected UTF-8, got a bad byte at 0"),
    ],
)
def test_anything_but_the_one_form_is_refused(raw: bytes, why: str) -> None:
    with pytest.raises(MalformedError, match=why):
        parse_note(raw)


def test_a_bad_line_is_named_by_its_number() -> None:
    with pytest.raises(MalformedError) as caught:
        parse_note(note_of(GOOD_LINE, "\u2014 carol AAECAw==\n"))
    assert caught.value.field == "note.signatures[1]"


def test_characters_that_are_no_ascii_controls_may_stand_in_the_text() -> None:
    text = " \x7f \x85 \u2028 \u202e \U0001f600\n"
    assert parse_note(note_of(GOOD_LINE, text=text)).untrusted_text == text


def test_a_text_may_look_like_signatures_without_being_taken_for_them() -> None:
    text = f"\n{GOOD_LINE}\n{GOOD_LINE}"
    assert open_note(sign_note(text, [ALICE]), [ALICE.verifier]).text == text


def test_the_caps_on_size_lines_and_signatures_are_exact() -> None:
    fits = note_of(GOOD_LINE, text="x" * (MAX_NOTE_BYTES - 2 - len(GOOD_LINE.encode())) + "\n")
    assert len(parse_note(fits).raw) == MAX_NOTE_BYTES
    with pytest.raises(MalformedError, match=f"expected at most {MAX_NOTE_BYTES} bytes, got {MAX_NOTE_BYTES + 1}"):
        parse_note(b"x" + fits)
    parse_note(note_of(GOOD_LINE, text="\n" * (MAX_LINES - 2)))
    with pytest.raises(MalformedError, match=f"expected at most {MAX_LINES} lines, got {MAX_LINES + 1}"):
        parse_note(note_of(GOOD_LINE, text="\n" * (MAX_LINES - 1)))
    assert len(parse_note(note_of(*[GOOD_LINE] * MAX_SIGNATURES)).signatures) == MAX_SIGNATURES
    with pytest.raises(MalformedError, match=f"expected at most {MAX_SIGNATURES} signatures, got 101"):
        parse_note(note_of(*[GOOD_LINE] * (MAX_SIGNATURES + 1)))


def test_signatures_are_not_appended_beyond_the_cap() -> None:
    full = note_of(*[GOOD_LINE] * MAX_SIGNATURES)
    with pytest.raises(MalformedError, match="signatures, got 101"):
        append_signatures(full, [NoteSignature("dave", b"abcd", b"x")])


def test_signature_lines_parse_alone() -> None:
    assert parse_signature_lines((GOOD_LINE * 2).encode()) == (UNKNOWN, UNKNOWN)
    for bad in (b"", b"\n", GOOD_LINE.encode() + b"\n", b"\xff"):
        with pytest.raises(MalformedError):
            parse_signature_lines(bad)
    with pytest.raises(MalformedError, match=f"expected at most {MAX_NOTE_BYTES} bytes"):
        parse_signature_lines(b"x" * (MAX_NOTE_BYTES + 1))


@given(data=st.binary(max_size=40))
def test_base64_comes_back_and_has_no_second_spelling(data: bytes) -> None:
    text = base64.b64encode(data).decode()
    assert decode_base64(text, field="f") == data
    for other in (text + "\n", " " + text, text + "=", text + "A", text[:-1] + "\n"):
        with pytest.raises(MalformedError):
            decode_base64(other, field="f")


# ------------------------------------------------------------------------------------------------ verifier keys


def test_key_id_is_the_hash_of_name_type_and_key() -> None:
    for kind in SignatureType:
        key = VerifierKey("alice", kind, ALICE.key.public)
        expected = sha256(b"alice\n" + bytes([kind]) + ALICE.key.public.raw).digest()[:4]
        assert key.key_id == expected
        assert VerifierKey.parse(str(key)) == key


MATERIAL = base64.b64encode(b"\x01" + ALICE.key.public.raw).decode()
KEY_ID = ALICE.key.key_id.hex()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "alice.example/log",
        f"alice.example/log+{KEY_ID}",
        f"{KEY_ID}+{MATERIAL}",
        f"+{KEY_ID}+{MATERIAL}",
        f"alice.example/log+{KEY_ID[:-1]}+{MATERIAL}",
        f"alice.example/log+{KEY_ID.upper()}+{MATERIAL}",
        f"alice.example/log+0{KEY_ID}+{MATERIAL}",
        f"alice.example/log+{KEY_ID}\n+{MATERIAL}",
        f"alice.example/log+{KEY_ID}+{MATERIAL}\n",
        f"alice.example/log+{KEY_ID}+",
        f"alice.example/log+{KEY_ID}+{MATERIAL[:-1]}",
        f"bob.example/log+{KEY_ID}+{MATERIAL}",
        f"alice.example/log+00000000+{MATERIAL}",
        f"alice.example/log+{KEY_ID}+{base64.b64encode(bytes([2]) + ALICE.key.public.raw).decode()}",
        f"alice.example/log+{KEY_ID}+{base64.b64encode(bytes([4]) + ALICE.key.public.raw).decode()}",
        f"alice example/log+{KEY_ID}+{MATERIAL}",
        f"{'x' * 600}+{KEY_ID}+{MATERIAL}",
    ],
)
def test_anything_but_a_verifier_key_is_refused(text: str) -> None:
    assert VerifierKey.parse(f"alice.example/log+{KEY_ID}+{MATERIAL}") == ALICE.key
    with pytest.raises(MalformedError):
        VerifierKey.parse(text)


def test_a_verifier_key_of_a_small_order_or_short_public_key_is_refused() -> None:
    for material in (b"\x01" + bytes(32), b"\x01" + ALICE.key.public.raw[:-1]):
        text = f"alice.example/log+{KEY_ID}+{base64.b64encode(material).decode()}"
        with pytest.raises(KeyRejectedError):
            VerifierKey.parse(text)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\tb", "a\x00b", "a\u3000b", "a\ud800b", "é" * 128])
def test_a_name_that_a_note_cannot_carry_is_refused(name: str) -> None:
    with pytest.raises(MalformedError, match="expected a key name"):
        Ed25519Signer(name, SigningKey.from_seed(bytes(32)))


def test_the_longest_name_is_accepted() -> None:
    name = "é" * 127 + "x"
    assert len(name.encode()) == MAX_NAME_BYTES
    signer = Ed25519Signer(name, SigningKey.from_seed(bytes(32)))
    assert open_note(sign_note(TEXT, [signer]), [signer.verifier]).signatures[0].name == name
    assert VerifierKey.parse(str(signer.key)) == signer.key

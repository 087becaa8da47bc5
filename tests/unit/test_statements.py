"""permslip.statements: an envelope is believed whole, in its one encoding, signed by exactly whom it names, or not."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
from google.protobuf.message import Message

from permslip import bounds, dsse, statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.errors import KeyRejectedError, MalformedError, SignatureError
from permslip.keys import SigningKey
from tests.properties import wire
from tests.scenarios.samples import samples, signed_samples
from tests.scenarios.world import FEDERATION, seed

KINDS = list(st.KINDS.values())
NAMES = [kind.name for kind in KINDS]


@pytest.fixture(autouse=True)
def compiled_anew() -> None:
    """No check serves a test that was compiled by another."""
    bounds._compiled.cache_clear()


def verify(signed: st.Signed[Any], envelope: pb.Envelope | None = None) -> st.Signed[Any]:
    return st.verify(signed.kind, envelope or signed.envelope, federation=FEDERATION)


def altered(signed: st.Signed[Any], **changes: Any) -> pb.Envelope:
    envelope = pb.Envelope()
    envelope.CopyFrom(signed.envelope)
    for name, value in changes.items():
        setattr(envelope, name, value)
    return envelope


def resigned(signed: st.Signed[Any], payload: bytes) -> pb.Envelope:
    """Other payload bytes, genuinely signed by the same keys: only the decoder can refuse them."""
    keys = samples()[signed.kind.name][2]
    signatures = dsse.sign(signed.kind.payload_type, payload, keys)
    return pb.Envelope(
        payload_type=signed.kind.payload_type,
        payload=payload,
        signatures=[pb.Signature(key=key, signature=signature) for key, signature in signatures],
    )


@pytest.fixture(scope="module")
def good() -> dict[str, st.Signed[Any]]:
    return signed_samples()


# ---------------------------------------------------------------------------------------------- signing and verifying


def test_there_is_a_sample_of_every_kind() -> None:
    assert sorted(samples()) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_what_was_signed_is_believed_and_keeps_its_id(name: str, good: dict[str, st.Signed[Any]]) -> None:
    signed = good[name]

    believed = verify(signed)

    assert believed.payload == signed.payload
    assert believed.raw == signed.raw
    assert believed.kind is signed.kind
    assert believed.id == sha256(dsse.pae(signed.kind.payload_type, signed.envelope.payload)).digest()
    assert believed.sha256 == sha256(signed.raw).digest()


@pytest.mark.parametrize("kind", KINDS, ids=repr)
def test_payload_types_are_made_from_the_kinds_name(kind: st.Kind[Any]) -> None:
    assert kind.payload_type == f"application/vnd.permslip.{kind.name}.v1+protobuf"
    assert repr(kind) == f"<Kind {kind.name}>"
    assert st.KINDS[kind.payload_type] is kind


def test_a_kind_is_made_of_its_name_its_message_and_who_must_sign() -> None:
    kind = st._kind("key-cert", pb.KeyCert, lambda payload: (payload.root,))

    assert (kind.name, kind.message) == ("key-cert", pb.KeyCert)
    assert kind.payload_type == st.KEY_CERT.payload_type
    assert kind.required(pb.KeyCert(root=b"root")) == (b"root",)


@pytest.mark.parametrize("name", NAMES)
def test_a_statement_of_one_kind_is_not_believed_as_another(name: str, good: dict[str, st.Signed[Any]]) -> None:
    for kind in KINDS:
        if kind.name != name:
            with pytest.raises(MalformedError) as caught:
                st.verify(kind, good[name].envelope, federation=FEDERATION)
            assert caught.value.field == "envelope.payload_type"


@pytest.mark.parametrize("name", NAMES)
def test_a_statement_under_another_kinds_type_is_not_believed(name: str, good: dict[str, st.Signed[Any]]) -> None:
    other: st.Kind[Any] = st.GRANT if name != "grant" else st.QUERY
    envelope = altered(good[name], payload_type=other.payload_type)

    with pytest.raises((MalformedError, SignatureError)):
        st.verify(other, envelope, federation=FEDERATION)


@pytest.mark.parametrize("name", NAMES)
def test_a_statement_of_another_federation_is_refused(name: str, good: dict[str, st.Signed[Any]]) -> None:
    with pytest.raises(MalformedError) as caught:
        st.verify(good[name].kind, good[name].envelope, federation="other.example")

    assert caught.value.field == f"{name}.federation"


@pytest.mark.parametrize("name", NAMES)
def test_a_signature_by_another_key_is_refused(name: str, good: dict[str, st.Signed[Any]]) -> None:
    envelope = altered(good[name])
    stranger = SigningKey.from_seed(seed("stranger"))
    message = dsse.pae(envelope.payload_type, envelope.payload)
    envelope.signatures[0].signature = stranger.sign(message)

    with pytest.raises(SignatureError):
        verify(good[name], envelope)


@pytest.mark.parametrize("name", NAMES)
def test_every_named_key_must_have_signed(name: str, good: dict[str, st.Signed[Any]]) -> None:
    for number in range(len(good[name].envelope.signatures)):
        envelope = altered(good[name])
        del envelope.signatures[number]

        with pytest.raises(SignatureError):
            verify(good[name], envelope)


@pytest.mark.parametrize("name", NAMES)
def test_nobody_else_may_have_signed(name: str, good: dict[str, st.Signed[Any]]) -> None:
    envelope = altered(good[name])
    stranger = SigningKey.from_seed(seed("stranger"))
    signature = stranger.sign(dsse.pae(envelope.payload_type, envelope.payload))
    envelope.signatures.add(key=stranger.public.raw, signature=signature)

    with pytest.raises(SignatureError, match="unnamed"):
        verify(good[name], envelope)


@pytest.mark.parametrize(
    ("name", "required"),
    [
        ("grant", lambda body: body.granted_by),
        ("key-cert", lambda body: [body.root]),
        ("device-key", lambda body: [body.signer.key, body.device]),
        ("witness-set", lambda body: [body.signer.key, *body.old_witnesses]),
        ("query", lambda body: [body.signer.key]),
        ("endorsement", lambda body: [body.signer.key]),
    ],
)
def test_who_must_sign_is_what_the_payload_says(name: str, required: Any, good: dict[str, st.Signed[Any]]) -> None:
    signed = good[name]

    assert [each.key for each in signed.envelope.signatures] == sorted(required(signed.payload))


def test_a_device_that_is_retired_need_not_sign() -> None:
    kind, body, keys = samples()["device-key"]
    body.retired = True

    assert len(st.sign(kind, body, keys[:1]).envelope.signatures) == 1
    with pytest.raises(SignatureError):
        st.sign(kind, body, keys)


def test_a_device_that_names_itself_signs_once() -> None:
    kind, body, keys = samples()["device-key"]
    body.device = body.signer.key

    assert len(st.sign(kind, body, keys[:1]).envelope.signatures) == 1


def test_signing_with_other_keys_than_the_named_ones_is_refused() -> None:
    kind, body, keys = samples()["grant"]

    with pytest.raises(SignatureError):
        st.sign(kind, body, keys[:1])
    with pytest.raises(SignatureError):
        st.sign(kind, body, [*keys, SigningKey.from_seed(seed("stranger"))])


def test_signing_what_breaks_a_bound_is_refused() -> None:
    kind, body, keys = samples()["query"]
    body.reply_key = b"short"

    with pytest.raises(MalformedError) as caught:
        st.sign(kind, body, keys)

    assert caught.value.field == "query.reply_key"


def test_a_witness_set_whose_operator_is_a_witness_cannot_be_signed_twice_by_one_key() -> None:
    kind, body, keys = samples()["witness-set"]
    body.old_witnesses[:] = sorted([body.signer.key, *body.old_witnesses])

    with pytest.raises(SignatureError):
        st.sign(kind, body, keys)


def test_a_key_of_small_order_is_refused_whatever_it_signed() -> None:
    kind, body, _ = samples()["query"]
    neutral = b"\x01" + bytes(31)
    body.signer.key = neutral
    raw = body.SerializeToString(deterministic=True)
    envelope = pb.Envelope(
        payload_type=kind.payload_type,
        payload=raw,
        signatures=[pb.Signature(key=neutral, signature=neutral + bytes(32))],
    )

    with pytest.raises(KeyRejectedError):
        st.verify(kind, envelope, federation=FEDERATION)


def test_a_cache_remembers_signatures_and_nothing_else(good: dict[str, st.Signed[Any]]) -> None:
    cache = dsse.SignedCache(16)
    signed = good["query"]
    st.verify(st.QUERY, signed.envelope, federation=FEDERATION, cache=cache)
    assert len(cache) == 1

    forged = altered(signed)
    forged.signatures[0].signature = bytes(64)

    with pytest.raises(SignatureError):
        st.verify(st.QUERY, forged, federation=FEDERATION, cache=cache)
    with pytest.raises(MalformedError):
        st.verify(st.QUERY, signed.envelope, federation="other.example", cache=cache)


# ---------------------------------------------------------------------------------------------- the envelope


def test_what_is_believed_is_independent_of_the_message_it_came_in(good: dict[str, st.Signed[Any]]) -> None:
    envelope = altered(good["query"])
    believed = verify(good["query"], envelope)

    envelope.signatures[0].signature = bytes(64)
    envelope.payload = b"changed"

    assert believed.raw == good["query"].raw


@pytest.mark.parametrize("place", ["envelope", "signature"])
def test_an_envelope_with_unknown_fields_is_refused_although_signatures_hold(
    place: str, good: dict[str, st.Signed[Any]]
) -> None:
    unknown = wire.Field(15, wire.LEN, b"more").write()
    if place == "envelope":
        envelope = pb.Envelope.FromString(good["query"].raw + unknown)
    else:
        envelope = altered(good["query"])
        envelope.signatures[0].MergeFromString(unknown)

    with pytest.raises(MalformedError) as caught:
        verify(good["query"], envelope)

    assert caught.value.field == "envelope"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"payload_type": "application/x" * 8}, "envelope.payload_type"),
        ({"payload": bytes(65537)}, "envelope.payload"),
        ({"payload": b""}, "query"),
    ],
)
def test_an_envelope_out_of_bounds_is_refused(
    changes: dict[str, Any], field: str, good: dict[str, st.Signed[Any]]
) -> None:
    with pytest.raises(MalformedError) as caught:
        verify(good["query"], altered(good["query"], **changes))

    assert caught.value.field.startswith(field)


def test_an_envelope_with_too_many_signatures_is_refused_before_any_is_checked(
    good: dict[str, st.Signed[Any]],
) -> None:
    envelope = altered(good["query"])
    for _ in range(16):
        envelope.signatures.add(key=bytes(32), signature=bytes(64))

    with pytest.raises(MalformedError) as caught:
        verify(good["query"], envelope)

    assert caught.value.field == "envelope.signatures"


def test_parsing_an_envelope_gives_back_what_was_serialized(good: dict[str, st.Signed[Any]]) -> None:
    for signed in good.values():
        assert st.parse_envelope(signed.raw) == signed.envelope


@pytest.mark.parametrize("raw", [b"", b"\xff", b"\x0a\x05abc", b"\x00"])
def test_bytes_that_are_no_envelope_are_refused(raw: bytes) -> None:
    with pytest.raises(MalformedError) as caught:
        st.parse_envelope(raw, "file")

    assert caught.value.field.startswith("file")
    with pytest.raises(MalformedError, match=r"^envelope(\.|:)"):
        st.parse_envelope(raw)


def test_the_largest_envelope_that_verifies_can_be_parsed_again() -> None:
    largest = pb.Envelope(
        payload_type="t" * 96,
        payload=bytes(st.MAX_PAYLOAD),
        signatures=[pb.Signature(key=bytes(32), signature=bytes(64))] * 16,
    )
    raw = largest.SerializeToString(deterministic=True)

    assert len(raw) <= st.MAX_ENVELOPE
    assert st.parse_envelope(raw) == largest


def test_a_longer_envelope_is_refused_unparsed() -> None:
    with pytest.raises(MalformedError) as caught:
        st.parse_envelope(bytes(st.MAX_ENVELOPE + 1), "file")

    assert caught.value.field == "file"
    assert str(st.MAX_ENVELOPE) in caught.value.message


# ---------------------------------------------------------------------------------------------- kinds


def test_an_envelope_claims_its_kind(good: dict[str, st.Signed[Any]]) -> None:
    for signed in good.values():
        assert st.kind_of(signed.envelope) is signed.kind


@pytest.mark.parametrize("payload_type", ["", "application/vnd.permslip.grant.v2+protobuf", "text/plain"])
def test_an_unknown_kind_is_refused(payload_type: str) -> None:
    with pytest.raises(MalformedError) as caught:
        st.kind_of(pb.Envelope(payload_type=payload_type))

    assert caught.value.field == "envelope.payload_type"


def test_a_kind_that_is_not_expected_here_is_refused(good: dict[str, st.Signed[Any]]) -> None:
    assert st.kind_of(good["grant"].envelope, [st.GRANT, st.OBJECTION]) is st.GRANT

    with pytest.raises(MalformedError, match="grant, objection"):
        st.kind_of(good["query"].envelope, [st.GRANT, st.OBJECTION])


# ---------------------------------------------------------------------------------------------- what was stored


def test_what_was_recorded_is_restored_without_checking_signatures_again(good: dict[str, st.Signed[Any]]) -> None:
    for signed in good.values():
        restored = st.restore(signed.kind, signed.id, signed.raw)

        assert (restored.id, restored.raw, restored.payload) == (signed.id, signed.raw, signed.payload)
        assert restored.kind is signed.kind


def test_stored_bytes_of_another_id_or_kind_are_refused(good: dict[str, st.Signed[Any]]) -> None:
    signed = good["query"]

    wrong: list[tuple[st.Kind[Any], bytes]] = [(st.QUERY, seed("another")), (st.RECEIPT, signed.id)]
    for kind, identifier in wrong:
        with pytest.raises(MalformedError, match="id they were recorded under") as caught:
            st.restore(kind, identifier, signed.raw)
        assert caught.value.field == f"stored {kind.name}"


def test_stored_bytes_that_are_damaged_are_refused_by_what_they_were(good: dict[str, st.Signed[Any]]) -> None:
    with pytest.raises(MalformedError) as caught:
        st.restore(st.QUERY, good["query"].id, good["query"].raw[:-1])
    assert caught.value.field == "stored query"

    nothing = resigned(good["query"], b"\x0a\x01x")
    with pytest.raises(MalformedError) as caught:
        st.restore(st.QUERY, dsse.statement_id(st.QUERY.payload_type, nothing.payload), nothing.SerializeToString())
    assert caught.value.field == "query.nonce"


# ---------------------------------------------------------------------------------------------- strict decoding


def grant_fields() -> tuple[st.Signed[Any], list[wire.Field]]:
    signed = signed_samples()["grant"]
    return signed, wire.read(signed.envelope.payload)


def refused_payload(signed: st.Signed[Any], payload: bytes) -> MalformedError:
    """The error for a payload that is genuinely signed; it must be the decoder that refuses it."""
    with pytest.raises(MalformedError) as caught:
        verify(signed, resigned(signed, payload))
    return caught.value


def test_the_wire_is_read_and_written_back_as_it_was() -> None:
    signed, fields = grant_fields()

    assert wire.write(fields) == signed.envelope.payload


def test_fields_in_another_order_are_refused() -> None:
    signed, fields = grant_fields()

    assert refused_payload(signed, wire.write([*fields[1:], fields[0]])).field == "grant"


def test_an_unknown_field_is_refused_at_any_depth() -> None:
    signed, fields = grant_fields()
    unknown = wire.Field(100, wire.VARINT, b"\x01")
    assert refused_payload(signed, wire.write([*fields, unknown])).field == "grant"

    place = next(number for number, field in enumerate(fields) if field.number == 5)
    deeper = wire.Field(5, wire.LEN, fields[place].value + unknown.write())

    assert refused_payload(signed, wire.write([*fields[:place], deeper, *fields[place + 1 :]])).field == "grant"


def test_a_number_written_longer_than_it_need_be_is_refused() -> None:
    signed, fields = grant_fields()
    longer = [
        wire.Field(field.number, field.type, wire.varint(40, more=1)) if field.number == 14 else field
        for field in fields
    ]

    assert refused_payload(signed, wire.write(longer)).field == "grant"


def test_a_length_written_longer_than_it_need_be_is_refused() -> None:
    signed, fields = grant_fields()
    first = fields[0]
    tag = wire.varint(first.number << 3 | first.type)
    raw = tag + wire.varint(len(first.value), more=2) + first.value + wire.write(fields[1:])

    assert refused_payload(signed, raw).field == "grant"


def test_a_tag_written_longer_than_it_need_be_is_refused() -> None:
    signed, fields = grant_fields()
    raw = signed.envelope.payload

    assert refused_payload(signed, wire.varint(0x0A, more=1) + raw[1:]).field == "grant"
    assert raw[0] == 0x0A
    assert fields[0].number == 1


def test_a_default_value_that_is_written_out_is_refused() -> None:
    kind, body, keys = samples()["grant"]
    body.ClearField("erase_within_days")
    signed = st.sign(kind, body, keys)
    fields = wire.read(signed.envelope.payload)
    place = next(number for number, field in enumerate(fields) if field.number == 18)
    zero = wire.Field(17, wire.VARINT, b"\x00")

    assert refused_payload(signed, wire.write([*fields[:place], zero, *fields[place:]])).field == "grant"


def test_a_packed_field_that_is_split_is_refused() -> None:
    signed, fields = grant_fields()
    place = next(number for number, field in enumerate(fields) if field.number == 7)
    assert fields[place].value == b"\x01\x03"
    halves = [wire.Field(7, wire.LEN, b"\x01"), wire.Field(7, wire.LEN, b"\x03")]
    unpacked = [wire.Field(7, wire.VARINT, b"\x01"), wire.Field(7, wire.VARINT, b"\x03")]

    for instead in (halves, unpacked):
        assert refused_payload(signed, wire.write([*fields[:place], *instead, *fields[place + 1 :]])).field == "grant"


def test_a_single_field_that_stands_twice_is_refused() -> None:
    signed, fields = grant_fields()

    assert refused_payload(signed, wire.write([fields[0], *fields])).field == "grant"


def test_a_number_too_large_for_its_type_is_refused() -> None:
    signed, fields = grant_fields()
    too_large = [
        wire.Field(field.number, field.type, wire.varint((1 << 32) + 40)) if field.number == 14 else field
        for field in fields
    ]

    assert refused_payload(signed, wire.write(too_large)).field == "grant"


def test_a_boolean_other_than_zero_and_one_is_refused() -> None:
    signed = signed_samples()["access-request"]
    fields = wire.read(signed.envelope.payload)
    assert fields[-1] == wire.Field(9, wire.VARINT, b"\x01")

    raw = wire.write([*fields[:-1], wire.Field(9, wire.VARINT, b"\x02")])

    assert refused_payload(signed, raw).field == "access-request"


def test_text_that_is_not_utf8_is_refused() -> None:
    signed, fields = grant_fields()
    raw = wire.write([wire.Field(1, wire.LEN, b"fed\xff"), *fields[1:]])

    assert refused_payload(signed, raw).field == "grant"


def test_a_payload_cut_short_or_with_bytes_after_it_is_refused() -> None:
    signed, _ = grant_fields()
    raw = signed.envelope.payload

    for wrong in (raw[:-1], raw + b"\x00", raw + raw, b""):
        assert refused_payload(signed, wrong).field.startswith("grant")


def test_bounds_hold_for_what_is_received_too() -> None:
    signed, fields = grant_fields()
    raw = wire.write([field for field in fields if field.number != 9])

    assert refused_payload(signed, raw).field == "grant.purpose"


def test_deep_nesting_is_an_error_like_any_other() -> None:
    raw = b""
    for _ in range(200):
        raw = wire.Field(5, wire.LEN, raw).write()

    with pytest.raises(MalformedError):
        st.decode_strictly(pb.Grant, raw, "grant")


@pytest.mark.parametrize(("length", "passes"), [(st.MAX_PAYLOAD, True), (st.MAX_PAYLOAD + 1, False)])
def test_a_payload_may_be_64_kib_long_and_no_longer(length: int, passes: bool) -> None:
    grown = pb.Envelope(payload_type="t", payload=bytes(length - 100), signatures=[])
    grown.signatures.add(key=bytes(32), signature=bytes(64))
    overhead = grown.ByteSize() - (length - 100)
    grown.payload = bytes(length - overhead)
    raw = grown.SerializeToString(deterministic=True)
    assert len(raw) == length

    if passes:
        assert st.decode_strictly(pb.Envelope, raw, "it") == grown
    else:
        with pytest.raises(MalformedError, match=str(st.MAX_PAYLOAD)):
            st.decode_strictly(pb.Envelope, raw, "it")


def test_a_payload_too_long_is_not_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    kind, body, keys = samples()["grant"]
    monkeypatch.setattr(st, "MAX_PAYLOAD", body.ByteSize() - 1)

    with pytest.raises(MalformedError) as caught:
        st.sign(kind, body, keys)

    assert caught.value.field == "grant"


def test_a_parsed_message_is_of_the_class_that_was_asked_for() -> None:
    raw = pb.Slice(node=bytes(32), handle=bytes(16)).SerializeToString()

    parsed: Message = st.decode_strictly(pb.Slice, raw, "slice")

    assert parsed == pb.Slice(node=bytes(32), handle=bytes(16))

"""Vectors of statements: a good envelope of every kind, and bad ones, each with the failure that it must cause."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.json_format import MessageToDict

from permslip import dsse, statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.keys import SigningKey
from tests.properties import wire
from tests.scenarios.samples import Sample, samples
from tests.scenarios.world import FEDERATION, seed

Case = dict[str, Any]


def good() -> list[Case]:
    """One envelope of every kind, with everything that leads to it."""
    return [_good(name, sample) for name, sample in samples().items()]


def _good(name: str, sample: Sample) -> Case:
    kind, payload, keys = sample
    signed = st.sign(kind, payload, keys)
    seeds = {key.public.raw: key.secret_seed().hex() for key in keys}
    return {
        "name": name,
        "payload_type": kind.payload_type,
        "fields": MessageToDict(payload, preserving_proto_field_name=True),
        "payload": signed.envelope.payload.hex(),
        "pae": dsse.pae(kind.payload_type, signed.envelope.payload).hex(),
        "id": signed.id.hex(),
        "signatures": [
            {"seed": seeds[each.key], "key": each.key.hex(), "signature": each.signature.hex()}
            for each in signed.envelope.signatures
        ],
        "envelope": signed.raw.hex(),
        "envelope_sha256": signed.sha256.hex(),
    }


def bad() -> list[Case]:
    """Envelopes that nobody may believe. Where only the payload is wrong, its signatures hold."""
    return [*_encodings(), *_bounds(), *_signatures(), *_envelopes()]


# ---------------------------------------------------------------------------------------------- making


def _case(name: str, kind: st.Kind[Any], envelope: bytes, error: str, field: str = "", **more: str) -> Case:
    return {
        "name": name,
        "kind": kind.name,
        "federation": FEDERATION,
        "envelope": envelope.hex(),
        "error": error,
        "field": field,
        **more,
    }


def _sealed(kind: st.Kind[Any], payload: bytes, keys: list[SigningKey]) -> pb.Envelope:
    """An envelope over any payload bytes, with signatures that hold."""
    return pb.Envelope(
        payload_type=kind.payload_type,
        payload=payload,
        signatures=[
            pb.Signature(key=key, signature=signature) for key, signature in dsse.sign(kind.payload_type, payload, keys)
        ],
    )


def _raw(envelope: pb.Envelope) -> bytes:
    return envelope.SerializeToString(deterministic=True)


def _encodings() -> list[Case]:
    """Payloads in another encoding than the one there is."""
    kind, body, keys = samples()["grant"]
    raw = body.SerializeToString(deterministic=True)
    fields = wire.read(raw)

    def instead(number: int, *others: wire.Field) -> bytes:
        place = next(at for at, field in enumerate(fields) if field.number == number)
        return wire.write([*fields[:place], *others, *fields[place + 1 :]])

    slice_field = next(field for field in fields if field.number == 5)
    first = fields[0]
    long_length = wire.varint(first.number << 3 | first.type) + wire.varint(len(first.value), more=1) + first.value
    payloads = {
        "fields in another order": wire.write([*fields[1:], fields[0]]),
        "an unknown field": wire.write([*fields, wire.Field(100, wire.VARINT, b"\x01")]),
        "an unknown field in a message within": instead(
            5, wire.Field(5, wire.LEN, slice_field.value + wire.Field(9, wire.VARINT, b"\x01").write())
        ),
        "a number written longer than it need be": instead(14, wire.Field(14, wire.VARINT, wire.varint(40, more=1))),
        "a length written longer than it need be": long_length + wire.write(fields[1:]),
        "a tag written longer than it need be": wire.varint(0x0A, more=1) + raw[1:],
        "a number that its type cannot hold": instead(14, wire.Field(14, wire.VARINT, wire.varint(2**32 + 40))),
        "a packed list cut in two": instead(7, wire.Field(7, wire.LEN, b"\x01"), wire.Field(7, wire.LEN, b"\x03")),
        "a packed list unpacked": instead(7, wire.Field(7, wire.VARINT, b"\x01"), wire.Field(7, wire.VARINT, b"\x03")),
        "a single field twice": wire.write([fields[0], *fields]),
        "text that is not UTF-8": instead(1, wire.Field(1, wire.LEN, b"fed.\xff")),
        "cut short by a byte": raw[:-1],
        "a byte more at the end": raw + b"\x00",
        "empty": b"",
    }
    cases = [
        _case(name, kind, _raw(_sealed(kind, payload, keys)), "MalformedError", "grant")
        for name, payload in payloads.items()
        if payload
    ]
    kind, body, keys = samples()["query"]
    body.ClearField("page_size")
    fields = wire.read(body.SerializeToString(deterministic=True))
    place = next(at for at, field in enumerate(fields) if field.number == 15)
    zero = wire.write([*fields[:place], wire.Field(12, wire.VARINT, b"\x00"), *fields[place:]])
    cases.append(_case("a default value written out", kind, _raw(_sealed(kind, zero, keys)), "MalformedError", "query"))
    kind, body, keys = samples()["access-request"]
    raw = body.SerializeToString(deterministic=True)
    two = raw[:-1] + b"\x02"
    cases.append(
        _case("a boolean that is two", kind, _raw(_sealed(kind, two, keys)), "MalformedError", "access-request")
    )
    return cases


def _bounds() -> list[Case]:
    """Payloads in the one encoding that break a bound of the contract."""

    def change(name: str, field: str, edit: Callable[[Any], object]) -> Case:
        kind, body, keys = samples()[name]
        edit(body)
        raw = body.SerializeToString(deterministic=True)
        return _case(f"{name}: {field}", kind, _raw(_sealed(kind, raw, keys)), "MalformedError", f"{name}.{field}")

    def put(field: str, value: Any) -> Callable[[Any], object]:
        return lambda body: setattr(body, field, value)

    def fill(field: str, values: list[Any]) -> Callable[[Any], object]:
        return lambda body: (body.ClearField(field), getattr(body, field).extend(values))

    wide = [bytes([number]) * 32 for number in range(33)]
    grant: list[tuple[str, Callable[[Any], object]]] = [
        ("purpose", put("purpose", 0)),
        ("purpose", put("purpose", 99)),
        ("sections", fill("sections", [])),
        ("sections[1]", fill("sections", ["voice", "transcript"])),
        ("sections[1]", fill("sections", ["voice", "voice"])),
        ("sections[0]", fill("sections", ["Voice"])),
        ("actions[0]", fill("actions", [0])),
        ("actions[1]", fill("actions", [1, 7])),
        ("actions", fill("actions", [1, 2, 3, 4])),
        ("grantee", put("grantee", bytes(31))),
        ("grantee", put("grantee", b"")),
        ("nonce", put("nonce", bytes(15))),
        ("created_at", put("created_at", -1)),
        ("expires_at", put("expires_at", 0)),
        ("records_from", put("records_from", "2026-02-30")),
        ("records_until", put("records_until", "2026-6-30")),
        ("delegation_depth", put("delegation_depth", 5)),
        ("erase_within_days", put("erase_within_days", 36_501)),
        ("onward_parties", fill("onward_parties", wide)),
        ("slice", lambda body: body.ClearField("slice")),
        ("slice.handle", lambda body: setattr(body.slice, "handle", bytes(17))),
        ("notice.language", lambda body: setattr(body.notice, "language", " en")),
        ("private.copies[0].sealed", lambda body: setattr(body.private.copies[0], "sealed", bytes(8193))),
    ]
    cases = [change("grant", field, edit) for field, edit in grant]
    cases += [
        change("query", "reply_key", put("reply_key", bytes(33))),
        change("query", "page_size", put("page_size", 1_000_001)),
        change("manifest", "coverage[1].returned", lambda body: setattr(body.coverage[1], "returned", 2**63)),
        change("admission", "name", put("name", "A\u202eB")),
        change("hello", "server_nonce", put("server_nonce", bytes(47))),
        change("hello", "versions[1]", fill("versions", [2, 1])),
        change("key-cert", "seq", put("seq", 0)),
    ]
    for number, case in enumerate(cases):
        case["name"] = f"{case['name']} (bound {number + 1})"
    return cases


def _signatures() -> list[Case]:
    """Genuine payloads with signatures that do not make them believed."""
    kind, body, keys = samples()["grant"]
    raw = body.SerializeToString(deterministic=True)
    stranger = SigningKey.from_seed(seed("stranger"))
    message = dsse.pae(kind.payload_type, raw)
    honest = _sealed(kind, raw, keys)

    def with_signatures(*signatures: pb.Signature) -> bytes:
        return _raw(pb.Envelope(payload_type=kind.payload_type, payload=raw, signatures=signatures))

    first, second = honest.signatures
    by_stranger = pb.Signature(key=stranger.public.raw, signature=stranger.sign(message))
    all_three = sorted([first, second, by_stranger], key=lambda each: each.key)
    flipped = bytes([first.signature[0] ^ 1]) + first.signature[1:]
    order = 2**252 + 27742317777372353535851937790883648493
    scalar = int.from_bytes(first.signature[32:], "little") + order
    malleable = first.signature[:32] + scalar.to_bytes(32, "little")
    without_context = pb.Signature(key=first.key, signature=_key_of(keys, first.key).sign(raw))
    cases = {
        "a signature is missing": ((first,), "SignatureError"),
        "a signature by a key that the payload does not name": (all_three, "SignatureError"),
        "a signature stands twice": ((first, first, second), "SignatureError"),
        "signatures out of order": ((second, first), "SignatureError"),
        "a signature altered": ((pb.Signature(key=first.key, signature=flipped), second), "SignatureError"),
        "a signature with S not reduced": (
            (pb.Signature(key=first.key, signature=malleable), second),
            "SignatureError",
        ),
        "a signature over the payload without its type": ((without_context, second), "SignatureError"),
        "signatures exchanged": (
            (
                pb.Signature(key=first.key, signature=second.signature),
                pb.Signature(key=second.key, signature=first.signature),
            ),
            "SignatureError",
        ),
    }
    found = [_case(name, kind, with_signatures(*signatures), error) for name, (signatures, error) in cases.items()]
    kind, body, _ = samples()["query"]
    neutral = b"\x01" + bytes(31)
    body.signer.key = neutral
    raw = body.SerializeToString(deterministic=True)
    envelope = pb.Envelope(payload_type=kind.payload_type, payload=raw)
    envelope.signatures.add(key=neutral, signature=neutral + bytes(32))
    return [*found, _case("a key of small order", kind, _raw(envelope), "KeyRejectedError")]


def _envelopes() -> list[Case]:
    """Envelopes that are not what is expected where they stand."""
    kind, body, keys = samples()["grant"]
    raw = body.SerializeToString(deterministic=True)
    honest = _sealed(kind, raw, keys)
    fields = wire.read(_raw(honest))
    other_type = pb.Envelope()
    other_type.CopyFrom(honest)
    other_type.payload_type = st.QUERY.payload_type
    too_long = pb.Envelope()
    too_long.CopyFrom(honest)
    too_long.payload_type = "t" * 97
    short_key = pb.Envelope()
    short_key.CopyFrom(honest)
    short_key.signatures[0].key = bytes(31)
    crowd = pb.Envelope(payload_type=kind.payload_type, payload=raw, signatures=[honest.signatures[0]] * 17)
    v2 = "application/vnd.permslip.grant.v2+protobuf"
    newer = pb.Envelope()
    newer.CopyFrom(honest)
    newer.payload_type = v2
    return [
        _case("an unknown field in the envelope", kind, _raw(honest) + b"\xfa\x01\x00", "MalformedError", "envelope"),
        _case(
            "the envelope's fields in another order",
            kind,
            wire.write([fields[1], fields[0], *fields[2:]]),
            "MalformedError",
            "envelope",
        ),
        _case("the type of another kind", kind, _raw(other_type), "MalformedError", "envelope.payload_type"),
        _case("a later version's type", kind, _raw(newer), "MalformedError", "envelope.payload_type"),
        _case("a type too long", kind, _raw(too_long), "MalformedError", "envelope.payload_type"),
        _case("a signature's key too short", kind, _raw(short_key), "MalformedError", "envelope.signatures[0].key"),
        _case("too many signatures", kind, _raw(crowd), "MalformedError", "envelope.signatures"),
        _case(
            "no signature",
            kind,
            _raw(pb.Envelope(payload_type=kind.payload_type, payload=raw)),
            "MalformedError",
            "envelope.signatures",
        ),
        _case("no payload", kind, _raw(pb.Envelope(payload_type="t")), "MalformedError", "envelope.payload"),
        _case("no envelope at all", kind, b"\xff\xff", "MalformedError", "envelope"),
        {
            **_case("another federation", kind, _raw(honest), "MalformedError", "grant.federation"),
            "federation": "other.example",
        },
    ]


def _key_of(keys: list[SigningKey], public: bytes) -> SigningKey:
    return next(key for key in keys if key.public.raw == public)

"""permslip.bounds: what the contract writes beside its fields is enforced, and the field is named."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from permslip import bounds, statements as st
from permslip._pb.permslip.v1 import (
    ledger_pb2,
    node_pb2,
    provider_pb2,
    record_pb2,
    rules_pb2,
    session_pb2,
    statement_pb2 as pb,
)
from permslip.bounds import check_bounds, check_strictly
from permslip.errors import MalformedError
from permslip.slices import MAX_BODY_BYTES
from tests.scenarios.world import World


@pytest.fixture(autouse=True)
def compiled_anew() -> None:
    """No check serves a test that was compiled by another."""
    bounds._compiled.cache_clear()


def refused(message: Message, name: str = "it", *, strictly: bool = True) -> MalformedError:
    with pytest.raises(MalformedError) as caught:
        (check_strictly if strictly else check_bounds)(message, name)
    return caught.value


def slice_of(node: bytes = bytes(32), handle: bytes = bytes(16)) -> pb.Slice:
    return pb.Slice(node=node, handle=handle)


def grant() -> pb.Grant:
    world = World()
    body = world.grant(world.person("mother"), world.organization("school"), world.organization("tutor")).payload
    copy = pb.Grant()
    copy.CopyFrom(body)
    return copy


# ---------------------------------------------------------------------------------------------- presence


def test_a_complete_statement_is_accepted() -> None:
    check_strictly(grant(), "grant")


def test_an_absent_required_scalar_is_refused_by_name() -> None:
    body = grant()
    body.purpose = pb.PURPOSE_UNSPECIFIED

    assert refused(body, "grant").field == "grant.purpose"


def test_an_absent_required_message_is_refused_by_name() -> None:
    body = grant()
    body.ClearField("slice")

    assert refused(body, "grant").field == "grant.slice"


def test_an_empty_required_list_is_refused_by_name() -> None:
    body = grant()
    del body.sections[:]

    assert refused(body, "grant").field == "grant.sections"


@pytest.mark.parametrize(
    "name",
    [field.name for field in pb.Grant.DESCRIPTOR.fields if not field.GetOptions().Extensions[rules_pb2.rule].optional],
)
def test_a_grant_without_any_required_field_is_refused_by_that_fields_name(name: str) -> None:
    body: Any = grant()
    body.ClearField(name)

    assert refused(body, "grant").field == f"grant.{name}"


@pytest.mark.parametrize("name", ["records_from", "max_uses", "onward_parties", "supersedes", "erase_within_days"])
def test_optional_fields_may_be_absent(name: str) -> None:
    body: Any = grant()
    body.ClearField(name)

    check_strictly(body, "grant")


def test_an_optional_message_may_be_absent_but_is_checked_where_it_stands() -> None:
    entry = ledger_pb2.LogEntry(slice=slice_of(handle=b"short"))

    assert refused(entry, strictly=False).field == "it.slice.handle"


def test_a_message_without_any_member_of_its_choice_is_refused() -> None:
    world = World()
    entry = ledger_pb2.LogEntry(
        version=1, federation=world.federation, ledger=bytes(32), nonce=bytes(16), recorded_at=world.now
    )

    error = refused(entry, "leaf")

    assert error.field == "leaf"
    assert "event" in error.message


def test_the_chosen_member_is_checked_and_the_others_are_not_required() -> None:
    world = World()
    entry = ledger_pb2.LogEntry(
        version=1,
        federation=world.federation,
        ledger=bytes(32),
        nonce=bytes(16),
        recorded_at=world.now,
        ledger_opened=ledger_pb2.LedgerOpened(origin="fed.example/broker"),
    )
    check_strictly(entry, "leaf")

    entry.ledger_opened.origin = ""

    assert refused(entry, "leaf").field == "leaf.ledger_opened.origin"


def test_an_absent_boolean_is_false_and_not_missing() -> None:
    check_strictly(pb.SectionCoverage(section="voice.goals", reason=pb.REASON_ALLOWED), "coverage")


# ---------------------------------------------------------------------------------------------- lengths and counts


@pytest.mark.parametrize("length", [1, 15, 17, 32])
@pytest.mark.parametrize("strictly", [True, False])
def test_bytes_of_another_length_are_refused(length: int, strictly: bool) -> None:
    error = refused(slice_of(handle=bytes(length)), "slice", strictly=strictly)

    assert error.field == "slice.handle"
    assert f"16 bytes, got {length}" in error.message


def test_bytes_up_to_the_greatest_length_are_accepted_and_one_more_is_not() -> None:
    check_strictly(pb.SealedCopy(recipient=bytes(32), sealed=bytes(8192)), "copy")

    assert refused(pb.SealedCopy(recipient=bytes(32), sealed=bytes(8193)), "copy").field == "copy.sealed"


def test_text_is_measured_in_bytes_of_utf8() -> None:
    check_strictly(pb.Notice(template="t", version="v1", language="ü" * 17, salted_sha256=bytes(32)), "notice")

    error = refused(pb.Notice(template="t", version="v1", language="ü" * 18, salted_sha256=bytes(32)), "notice")

    assert error.field == "notice.language"


@pytest.mark.parametrize("strictly", [True, False])
def test_text_without_a_form_has_a_greatest_length_too(strictly: bool) -> None:
    signatures = [pb.Signature(key=bytes(32), signature=bytes(64))]
    envelope = pb.Envelope(payload_type="T" * 96, payload=b"x", signatures=signatures)
    (check_strictly if strictly else check_bounds)(envelope, "it")

    envelope.payload_type += "T"

    assert refused(envelope, strictly=strictly).field == "it.payload_type"


@pytest.mark.parametrize("strictly", [True, False])
def test_one_element_more_than_allowed_is_refused(strictly: bool) -> None:
    body = grant()
    body.granted_by[:] = [bytes([each]) * 32 for each in range(8)]
    (check_strictly if strictly else check_bounds)(body, "grant")

    body.granted_by.append(b"\xff" * 32)

    error = refused(body, "grant", strictly=strictly)
    assert error.field == "grant.granted_by"
    assert "at most 8" in error.message


def test_a_list_without_a_greatest_count_may_be_long() -> None:
    check_bounds(record_pb2.SlicePart(records=[record_pb2.Record()] * 1000), "part")


@pytest.mark.parametrize("strictly", [True, False])
def test_elements_are_checked_one_by_one_and_named_by_their_number(strictly: bool) -> None:
    body = grant()
    body.private.copies.add(recipient=bytes(32), sealed=bytes(9000))

    assert refused(body, "grant", strictly=strictly).field == "grant.private.copies[1].sealed"


def test_scalar_elements_are_checked_one_by_one_and_named_by_their_number() -> None:
    body = grant()
    body.onward_parties[:] = [bytes(32), bytes(31)]

    assert refused(body, "grant").field == "grant.onward_parties[1]"


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("granted_by", [b"\x02" * 32, b"\x01" * 32]),
        ("granted_by", [b"\x01" * 32, b"\x01" * 32]),
        ("sections", ["voice.goals", "transcript"]),
        ("sections", ["voice.goals", "voice.goals"]),
        ("actions", [pb.ACTION_WATCH, pb.ACTION_READ]),
        ("actions", [pb.ACTION_READ, pb.ACTION_READ]),
    ],
)
@pytest.mark.parametrize("strictly", [True, False])
def test_a_set_out_of_order_or_with_a_repetition_is_refused(name: str, values: list[object], strictly: bool) -> None:
    body = grant()
    getattr(body, name)[:] = values

    assert refused(body, "grant", strictly=strictly).field == f"grant.{name}[1]"


def test_text_in_a_set_is_ordered_by_its_bytes() -> None:
    body = grant()
    body.sections[:] = ["personal.attendance", "personal_"]  # "." is 0x2e, "_" is 0x5f

    check_strictly(body, "grant")


def test_numbers_in_a_set_are_ordered_as_numbers() -> None:
    hello = pb.Hello(versions=[2, 10])
    check_bounds(hello, "hello")

    assert refused(pb.Hello(versions=[10, 2]), "hello", strictly=False).field == "hello.versions[1]"


# ---------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("number", [4, 99, -1, 2**31 - 1])
def test_an_unknown_enum_value_is_refused(number: int) -> None:
    body = grant()
    body.actions[:] = [number]  # type: ignore[list-item]  # an open enum takes any number

    assert refused(body, "grant").field == "grant.actions[0]"


def test_the_zero_value_of_an_enum_in_a_list_is_refused() -> None:
    body = grant()
    body.actions[:] = [pb.ACTION_UNSPECIFIED, pb.ACTION_READ]

    assert refused(body, "grant").field == "grant.actions[0]"


def test_an_unknown_enum_value_of_a_single_field_is_refused() -> None:
    body = grant()
    body.purpose = 1000  # type: ignore[assignment]  # an open enum takes any number

    assert refused(body, "grant").field == "grant.purpose"


@pytest.mark.parametrize("value", [-1, -(2**63)])
def test_a_negative_integer_is_refused(value: int) -> None:
    body = grant()
    body.not_before = value

    assert refused(body, "grant").field == "grant.not_before"


def test_an_integer_beyond_its_greatest_value_is_refused() -> None:
    body = grant()
    body.delegation_depth = 4
    check_strictly(body, "grant")

    body.delegation_depth = 5

    assert refused(body, "grant").field == "grant.delegation_depth"


def test_an_unsigned_integer_that_no_signed_one_can_hold_is_refused() -> None:
    cover = pb.SectionCoverage(section="voice.goals", reason=pb.REASON_ALLOWED, returned=2**63 - 1)
    check_strictly(cover, "coverage")

    cover.returned = 2**63

    assert refused(cover, "coverage").field == "coverage.returned"


def test_zero_in_a_list_of_numbers_is_a_number() -> None:
    world = World()
    hello = pb.Hello(
        federation=world.federation,
        nonce=bytes(16),
        created_at=world.now,
        signer=world.operator.signer,
        kind=pb.PRINCIPAL_KIND_OPERATOR,
        broker=bytes(32),
        server_nonce=bytes(48),
        expires_at=world.now,
        versions=[0, 1],
    )

    check_strictly(hello, "hello")


def test_transport_messages_are_held_to_counts_and_lengths_alone() -> None:
    hello = node_pb2.NodeHello(pushes_held=2**63)
    check_bounds(hello, "hello")
    check_bounds(provider_pb2.Outcome(refusal=session_pb2.Refusal(code=9999)), "outcome")  # type: ignore[arg-type]  # open enum


# ---------------------------------------------------------------------------------------------- forms


def named(form: str, value: str) -> tuple[Message, str]:
    """A message in which this text stands in a field of that form; and the field."""
    if form == "name":
        return pb.Notice(template=value, version="v1", language="en", salted_sha256=bytes(32)), "it.template"
    if form == "section":
        return pb.SectionCoverage(section=value, reason=pb.REASON_ALLOWED), "it.section"
    if form == "line":
        return pb.Notice(template="t", version="v1", language=value, salted_sha256=bytes(32)), "it.language"
    if form == "date":
        record = record_pb2.Course(began_on=value)
        return record, "it.began_on"
    return record_pb2.Value(text=value), "it.text"


GOOD = {
    "name": ["a", "fed.example", "k-12.v2", "a" * 64],
    "section": ["voice", "voice.goals", "a_b.c_d.e", "_"],
    "line": ["en", "Frau Müller", "a  b", "«x»", "יוסי", "a\u200db"],
    "date": ["2026-02-28", "2024-02-29", "0001-01-01", "9999-12-31"],
    "text": ["a\nb\tc", " leading and trailing ", "«x»", "é"],
}
BAD = {
    "name": ["A", "1a", "-a", ".a", "a_b", "a b", "ä", "a\n", "é"],
    "section": ["Voice", "voice.", ".voice", "voice..goals", "voice goals", "voice.1", "voice-goals", "voice.goals\n"],
    "line": [
        *[" en", "en ", "\u00a0en", "en\u3000", "\ufeffen", "en\u200a"],
        *["e\nn", "en\n", "e\tn", "e\x00n", "e\x7fn", "e\x85n", "e\u2028n", "e\u2029n", "e\u202en", "e\u2066n"],
    ],
    "date": [
        *["2026-02-29", "2026-13-01", "2026-00-10", "0000-01-01", "2026-1-01", "20260101", "2026-W01-1"],
        *["2026-01-01\n", "٢٠٢٦-٠١-٠١"],
    ],
    "text": ["a\x00b", "a\rb", "a\x0bb", "a\x7fb", "a\x9fb", "a\u2028b", "a\u202eb", "a\u2069b"],
}


@pytest.mark.parametrize(("form", "value"), [(form, value) for form, values in GOOD.items() for value in values])
def test_text_of_the_right_form_is_accepted(form: str, value: str) -> None:
    message, _ = named(form, value)

    check_strictly(message, "it")
    check_bounds(message, "it")


@pytest.mark.parametrize(("form", "value"), [(form, value) for form, values in BAD.items() for value in values])
@pytest.mark.parametrize("strictly", [True, False])
def test_text_of_another_form_is_refused(form: str, value: str, strictly: bool) -> None:
    message, field = named(form, value)

    assert refused(message, strictly=strictly).field == field


# ---------------------------------------------------------------------------------------------- the contract itself


def statement_fields() -> Iterator[FieldDescriptor]:
    """Every field that a statement, record or leaf can hold, at any depth."""
    seen: set[Descriptor] = set()
    waiting = [kind.message.DESCRIPTOR for kind in st.KINDS.values()]
    waiting += [
        pb.Envelope.DESCRIPTOR,
        pb.GrantPrivate.DESCRIPTOR,
        pb.AccessTerms.DESCRIPTOR,
        pb.ContributedContent.DESCRIPTOR,
        ledger_pb2.LogEntry.DESCRIPTOR,
        record_pb2.Record.DESCRIPTOR,
    ]
    while waiting:
        descriptor = waiting.pop()
        if descriptor in seen:
            continue
        seen.add(descriptor)
        for field in descriptor.fields:
            yield field
            if field.message_type is not None:
                waiting.append(field.message_type)


FIELDS = {field.full_name: field for field in statement_fields()}


@pytest.mark.parametrize("name", FIELDS)
def test_no_statement_has_a_field_without_bounds(name: str) -> None:
    field = FIELDS[name]
    rule = field.GetOptions().Extensions[rules_pb2.rule]

    if field.is_repeated:
        assert rule.max_items
    if field.type in (FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_STRING):
        assert rule.len or rule.max_len
    assert field.type not in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_GROUP)
    if field.message_type is not None:
        assert not field.message_type.GetOptions().map_entry
        assert field.message_type.full_name != "google.protobuf.Any"


@pytest.mark.parametrize("kind", st.KINDS.values(), ids=lambda kind: kind.name)
def test_every_statement_begins_with_federation_and_nonce_and_time(kind: st.Kind[Message]) -> None:
    fields = kind.message.DESCRIPTOR.fields_by_number

    assert [fields[number].name for number in (1, 2, 3)] == ["federation", "nonce", "created_at"]


def test_every_witness_set_can_be_followed_by_another_one() -> None:
    """More than half of a set must sign the next one, beside the operator, in one envelope."""
    fields = pb.WitnessSet.DESCRIPTOR.fields_by_name
    rule = rules_pb2.rule
    witnesses = fields["witnesses"].GetOptions().Extensions[rule].max_items
    signers = fields["old_witnesses"].GetOptions().Extensions[rule].max_items
    envelope = pb.Envelope.DESCRIPTOR.fields_by_name["signatures"].GetOptions().Extensions[rule].max_items

    assert witnesses // 2 + 1 <= signers < envelope
    assert fields["quorum"].GetOptions().Extensions[rule].max == signers


def test_a_contributed_record_fits_into_one_chunk_together_with_its_author_s_word() -> None:
    record = pb.ContributedContent.DESCRIPTOR.fields_by_name["record"].GetOptions().Extensions[rules_pb2.rule].max_len
    words = pb.Contribution(
        federation="f" * 64,
        nonce=bytes(16),
        created_at=2**62,
        signer=pb.Signer(root=bytes(32), key=bytes(32)),
        expires_at=2**62,
        grant_id=bytes(32),
        delegation_ids=[bytes(32)] * 4,
        slice=pb.Slice(node=bytes(32), handle=bytes(16)),
        section="s" * 96,
        content_salted_sha256=bytes(32),
    )
    envelope = pb.Envelope(
        payload_type=st.CONTRIBUTION.payload_type,
        payload=words.SerializeToString(),
        signatures=[pb.Signature(key=bytes(32), signature=bytes(64))],
    )
    beside = record_pb2.Record(contribution=envelope, contribution_salt=bytes(16)).ByteSize()
    framing = 8

    assert record + beside + framing <= MAX_BODY_BYTES

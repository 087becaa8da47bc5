"""Messages that keep every bound of the contract, made from the contract itself.

The strategies read the same rules that :mod:`permslip.bounds` enforces, so they follow the contract when it grows.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as s

from permslip._pb.permslip.v1 import rules_pb2

Rule = rules_pb2.Rule

_LINE = s.text(s.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1, max_size=12)
_FORMS: dict[int, s.SearchStrategy[str]] = {
    Rule.FORM_UNSPECIFIED: s.text("abc/.+-", min_size=1, max_size=12),
    Rule.FORM_NAME: s.from_regex(r"[a-z][a-z0-9.-]{0,11}\Z", fullmatch=True),
    Rule.FORM_SECTION: s.from_regex(r"[a-z_]{1,5}(\.[a-z_]{1,5}){0,2}\Z", fullmatch=True),
    Rule.FORM_LINE: _LINE,
    Rule.FORM_DATE: s.dates().map(lambda day: day.isoformat()),
    Rule.FORM_TEXT: s.lists(_LINE, min_size=1, max_size=3).map("\n".join),
}


def messages(kind: type[Message]) -> s.SearchStrategy[Any]:
    """Messages of one class; optional fields come and go."""
    return _fields(kind.DESCRIPTOR).map(lambda given: kind(**given))


def _fields(descriptor: Any) -> s.SearchStrategy[dict[str, Any]]:
    required: dict[str, s.SearchStrategy[Any]] = {}
    optional: dict[str, s.SearchStrategy[Any]] = {}
    for field in descriptor.fields:
        rule = field.GetOptions().Extensions[rules_pb2.rule]
        if field.containing_oneof is not None:
            continue
        (optional if rule.optional else required)[field.name] = _field(field, rule)
    return s.fixed_dictionaries(required, optional=optional)


def _field(field: FieldDescriptor, rule: rules_pb2.Rule) -> s.SearchStrategy[Any]:
    one = _value(field, rule)
    if not field.is_repeated:
        return one
    most = min(rule.max_items, 3)
    if not rule.ascending:
        return s.lists(one, min_size=1, max_size=most)
    return s.lists(one, min_size=1, max_size=most, unique=True).map(_ascending)


def _ascending(values: list[Any]) -> list[Any]:
    return sorted(values, key=lambda each: each.encode() if isinstance(each, str) else each)


def _value(field: FieldDescriptor, rule: rules_pb2.Rule) -> s.SearchStrategy[Any]:
    if field.message_type is not None:
        return _fields(field.message_type)
    if field.enum_type is not None:
        return s.sampled_from(sorted(number for number in field.enum_type.values_by_number if number))
    if field.type == FieldDescriptor.TYPE_BOOL:
        return s.booleans()
    if field.type == FieldDescriptor.TYPE_BYTES:
        if rule.len:
            return s.binary(min_size=rule.len, max_size=rule.len)
        return s.binary(min_size=1, max_size=min(rule.max_len, 40))
    if field.type == FieldDescriptor.TYPE_STRING:
        most = rule.len or rule.max_len
        return _FORMS[rule.form].filter(lambda text: len(text.encode()) <= most)
    most_bits = 32 if field.type == FieldDescriptor.TYPE_UINT32 else 63
    return s.integers(1, rule.max or 2**most_bits - 1)

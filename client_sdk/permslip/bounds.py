"""Enforces the bounds that the wire contract writes beside its fields (``protos/permslip/v1/rules.proto``).

Two strengths:

- :func:`check_strictly`, for what is signed, logged or sealed: every field is present unless its rule says
  ``optional``, every enum value is known, every integer is not negative, every count and length is within its rule.
- :func:`check_bounds`, for transport messages: counts and lengths only. An absent field is the receiver's business.

The checks are compiled once for each message type from its descriptor, so the contract stays the only place where a
bound is written.

Example::

    >>> from permslip._pb.permslip.v1 import statement_pb2 as pb
    >>> check_strictly(pb.Slice(node=bytes(32), handle=bytes(3)), "slice")
    Traceback (most recent call last):
    permslip.errors.MalformedError: slice.handle: expected 16 bytes, got 3.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from functools import cache
from typing import Any, Final, NamedTuple

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, OneofDescriptor
from google.protobuf.message import Message

from permslip._pb.permslip.v1 import rules_pb2
from permslip.errors import MalformedError

__all__ = ["check_bounds", "check_strictly"]

# Checks a value; told where it stands and what it is called, for the message.
_Check = Callable[[Any, str, str], None]
_WholeCheck = Callable[[Any, str], None]
_MessageCheck = Callable[[Any, str], None]

_NAME: Final = re.compile(r"[a-z][a-z0-9.-]*\Z")
_SECTION: Final = re.compile(r"[a-z_]+(\.[a-z_]+)*\Z")
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")
# C0, DEL and C1 controls, line and paragraph separators, and the bidirectional overrides that can make a printed line
# read otherwise than it is.
_NOT_IN_LINE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
# What may not begin or end a line: every blank of Unicode, and U+FEFF, which some languages trim and some do not.
_BLANK: Final = "[ \u00a0\u1680\u2000-\u200a\u202f\u205f\u3000\ufeff]"
_BLANK_AT_END: Final = re.compile(f"\\A{_BLANK}|{_BLANK}\\Z")
_NOT_IN_TEXT: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def check_strictly(message: Message, field: str) -> None:
    """Check a message that is signed, logged or sealed.

    Args:
        message: parsed; not changed.
        field: what the message is called in errors, e.g. ``grant``.

    Raises:
        MalformedError: names the dotted path of the first field that does not hold.
    """
    _compiled(message.DESCRIPTOR, True)(message, field)


def check_bounds(message: Message, field: str) -> None:
    """Check a transport message; arguments and errors as for :func:`check_strictly`."""
    _compiled(message.DESCRIPTOR, False)(message, field)


class _Field(NamedTuple):
    """One field's check.

    Attributes:
        name: the field's.
        length: exact length of its bytes; 0 for any.
        value: checks a value that is there.
        required: whether it must be there.
        whole: checks the field of a message instead of its value; nothing else counts then.
    """

    name: str
    length: int
    value: _Check | None
    required: bool
    whole: _WholeCheck | None


@cache
def _compiled(descriptor: Descriptor, strict: bool) -> _MessageCheck:
    # Every statement and every leaf goes through here: one loop, and no path is written before something is wrong.
    fields = [one for field in descriptor.fields if (one := _field(field, strict)) is not None]
    choices = [_choice(oneof, strict) for oneof in descriptor.oneofs]

    def check(message: Any, path: str) -> None:
        for name, length, value, required, whole in fields:
            if whole is not None:
                whole(message, path)
                continue
            given = getattr(message, name)
            if not given:
                if required:
                    raise MalformedError("is required.", field=f"{path}.{name}", remedy="Set it and sign again.")
            elif length:
                if len(given) != length:
                    raise MalformedError(f"expected {length} bytes, got {len(given)}.", field=f"{path}.{name}")
            elif value is not None:
                value(given, path, name)
        for choice in choices:
            choice(message, path)

    return check


def _choice(oneof: OneofDescriptor, strict: bool) -> _WholeCheck:
    """Checks which of its fields is there, and that one."""
    name = oneof.name
    messages = {field.name: field.message_type for field in oneof.fields if field.message_type is not None}

    def check(message: Any, path: str) -> None:
        chosen = message.WhichOneof(name)
        if chosen is None:
            if strict:
                raise MalformedError(f"expected one {name}, got none.", field=path)
            return
        descriptor = messages.get(chosen)
        if descriptor is not None:
            # Looked up late: messages may contain one another.
            _compiled(descriptor, strict)(getattr(message, chosen), f"{path}.{chosen}")

    return check


def _field(field: FieldDescriptor, strict: bool) -> _Field | None:
    rule = field.GetOptions().Extensions[rules_pb2.rule]
    if field.is_repeated:
        return _Field(field.name, 0, None, False, _repeated_check(field, rule, strict))
    if field.message_type is not None:
        if field.containing_oneof is not None:
            return None
        return _Field(field.name, 0, None, False, _message_check(field, rule, strict))
    value = _value_check(field, rule, strict)
    if value is None and not strict:
        return None
    may_be_absent = rule.optional or field.containing_oneof is not None or field.type == FieldDescriptor.TYPE_BOOL
    length = rule.len if field.type == FieldDescriptor.TYPE_BYTES else 0
    return _Field(field.name, length, value, strict and not may_be_absent, None)


def _message_check(field: FieldDescriptor, rule: rules_pb2.Rule, strict: bool) -> _WholeCheck:
    name, descriptor = field.name, field.message_type
    required = strict and not rule.optional

    def check(message: Any, path: str) -> None:
        if message.HasField(name):
            # Looked up late: messages may contain one another.
            _compiled(descriptor, strict)(getattr(message, name), f"{path}.{name}")
        elif required:
            raise MalformedError("is required.", field=f"{path}.{name}", remedy="Set it and sign again.")

    return check


def _repeated_check(field: FieldDescriptor, rule: rules_pb2.Rule, strict: bool) -> _WholeCheck:
    name, descriptor, most = field.name, field.message_type, rule.max_items
    value = None if descriptor is not None else _value_check(field, rule, strict)
    required = strict and not rule.optional

    def check(message: Any, path: str) -> None:
        given = getattr(message, name)
        count = len(given)
        if not count:
            if required:
                raise MalformedError("needs at least one element.", field=f"{path}.{name}")
            return
        if most and count > most:
            raise MalformedError(f"expected at most {most} elements, got {count}.", field=f"{path}.{name}")
        if descriptor is not None:
            inner = _compiled(descriptor, strict)
            for number, element in enumerate(given):
                inner(element, f"{path}.{name}[{number}]")
            return
        previous = None
        for number, element in enumerate(given):
            if value is not None:
                value(element, path, f"{name}[{number}]")
            if rule.ascending:
                key = element.encode() if isinstance(element, str) else element
                if previous is not None and key <= previous:
                    raise MalformedError(
                        "expected ascending order without repetition.", field=f"{path}.{name}[{number}]"
                    )
                previous = key

    return check


def _value_check(field: FieldDescriptor, rule: rules_pb2.Rule, strict: bool) -> _Check | None:
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _bytes_check(rule)
    if field.type == FieldDescriptor.TYPE_STRING:
        return _string_check(rule)
    if field.enum_type is not None:
        return _enum_check(field.enum_type) if strict else None
    if field.type == FieldDescriptor.TYPE_BOOL:
        return None
    return _integer_check(rule) if strict else None


def _bytes_check(rule: rules_pb2.Rule) -> _Check | None:
    exact, most = rule.len, rule.max_len
    if not exact and not most:
        return None

    def check_exact(given: bytes, path: str, name: str) -> None:
        if len(given) != exact:
            raise MalformedError(f"expected {exact} bytes, got {len(given)}.", field=f"{path}.{name}")

    def check_most(given: bytes, path: str, name: str) -> None:
        if len(given) > most:
            raise MalformedError(f"expected at most {most} bytes, got {len(given)}.", field=f"{path}.{name}")

    return check_exact if exact else check_most


def _string_check(rule: rules_pb2.Rule) -> _Check | None:
    most = rule.len or rule.max_len
    form = _FORMS.get(rule.form)
    if not most and form is None:
        return None

    def check(given: str, path: str, name: str) -> None:
        if most and len(given.encode()) > most:
            raise MalformedError(f"expected at most {most} bytes of text.", field=f"{path}.{name}")
        if form is not None:
            form(given, path, name)

    return check


def _integer_check(rule: rules_pb2.Rule) -> _Check:
    most = rule.max or 2**63 - 1

    def check(given: int, path: str, name: str) -> None:
        if not 0 <= given <= most:
            raise MalformedError(f"expected 0 to {most}, got {given}.", field=f"{path}.{name}")

    return check


def _enum_check(enum: EnumDescriptor) -> _Check:
    known = frozenset(number for number in enum.values_by_number if number)

    def check(given: int, path: str, name: str) -> None:
        if given not in known:
            raise MalformedError(
                f"{given} is not a known value.", field=f"{path}.{name}", remedy="Is this software up to date?"
            )

    return check


def _name(given: str, path: str, name: str) -> None:
    if not _NAME.match(given):
        raise MalformedError("expected lower-case letters, digits, '-' and '.'.", field=f"{path}.{name}")


def _section(given: str, path: str, name: str) -> None:
    if not _SECTION.match(given):
        raise MalformedError("expected a section path such as 'transcript.grades'.", field=f"{path}.{name}")


def _line(given: str, path: str, name: str) -> None:
    if _NOT_IN_LINE.search(given) or _BLANK_AT_END.search(given):
        raise MalformedError(
            "expected one line without control characters or blanks at its ends.", field=f"{path}.{name}"
        )


def _text(given: str, path: str, name: str) -> None:
    if _NOT_IN_TEXT.search(given):
        raise MalformedError("expected text without control characters.", field=f"{path}.{name}")


def _date(given: str, path: str, name: str) -> None:
    try:
        if not _DATE.match(given):
            raise ValueError
        date.fromisoformat(given)
    except ValueError:
        raise MalformedError("expected a day as YYYY-MM-DD.", field=f"{path}.{name}") from None


_FORMS: Final[dict[int, _Check]] = {
    rules_pb2.Rule.FORM_NAME: _name,
    rules_pb2.Rule.FORM_SECTION: _section,
    rules_pb2.Rule.FORM_LINE: _line,
    rules_pb2.Rule.FORM_DATE: _date,
    rules_pb2.Rule.FORM_TEXT: _text,
}

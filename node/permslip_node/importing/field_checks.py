"""Checks one text of a source against the bounds of the record field it is to fill.

The bounds stand in the wire contract beside the fields (``protos/permslip/v1/record.proto``) and are read from there,
so an importer cannot write a record that a reader would refuse. :mod:`permslip.bounds` checks a finished message and
names the *record's* field; an operator needs the *source's* field and one bad value must cost one row, so the texts
are checked before the message is built, each with the name it has in the file.

Example::

    >>> check = text_check("context", "room")
    >>> check("120", "Section/Location")
    >>> check("x" * 500, "Section/Location")
    Traceback (most recent call last):
    permslip.errors.MalformedError: Section/Location: expected at most 128 bytes of text, got 500.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from functools import lru_cache
from typing import Final, Literal

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from permslip._pb.permslip.v1 import record_pb2, rules_pb2
from permslip.errors import MalformedError

__all__ = [
    "Check",
    "Form",
    "check_day",
    "check_form",
    "is_repeated",
    "max_elements",
    "read_flag",
    "surely_short",
    "text_check",
]

# Raises MalformedError when the text (first argument) cannot stand in the field; the second names it in the source.
Check = Callable[[str, str], None]
# What the source's own schema says of a text beyond the record's bounds.
Form = Literal["", "decimal"]

_DECIMAL: Final = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)\Z")
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")
# What permslip.bounds refuses: controls, line separators, and the overrides that make a line read otherwise than it is.
_NOT_IN_LINE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_BLANK: Final = "[ \u00a0\u1680\u2000-\u200a\u202f\u205f\u3000\ufeff]"
_BLANK_AT_END: Final = re.compile(f"\\A{_BLANK}|{_BLANK}\\Z")
_NOT_IN_TEXT: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_FLAGS: Final = {"true": True, "1": True, "false": False, "0": False}


@lru_cache(maxsize=1024)
def text_check(*path: str) -> Check:
    """The check for a string field of ``Record``.

    Args:
        path: the field names from ``Record`` down, e.g. ``"grade", "marks", "value", "text"``.
    """
    rule = _field(path).GetOptions().Extensions[rules_pb2.rule]
    most = rule.max_len or rule.len
    if rule.form == rules_pb2.Rule.FORM_DATE:
        return check_day
    is_line = rule.form != rules_pb2.Rule.FORM_TEXT
    forbidden = _NOT_IN_LINE if is_line else _NOT_IN_TEXT
    short = surely_short(*path)

    def check(text: str, field: str) -> None:
        if len(text) <= short and text.isprintable() and text[:1] != " " != text[-1:]:
            return
        size = len(text.encode("utf-8", "surrogatepass"))
        if size > most:
            raise MalformedError(f"expected at most {most} bytes of text, got {size}.", field=field)
        found = forbidden.search(text)
        if found is not None:
            raise MalformedError(f"the character {found.group()!r} cannot stand here.", field=field)
        if is_line and _BLANK_AT_END.search(text):
            raise MalformedError("expected no blanks at the ends.", field=field)

    return check


def surely_short(*path: str) -> int:
    """A printable text of at most so many characters, without blanks at its ends, passes :func:`text_check` for sure.

    A character takes at most four bytes in UTF-8. 0 where length and printing are not all there is to check.
    """
    rule = _field(path).GetOptions().Extensions[rules_pb2.rule]
    return 0 if rule.form == rules_pb2.Rule.FORM_DATE else int(rule.max_len or rule.len) // 4


def max_elements(*path: str) -> int:
    """The greatest number of elements of a repeated field of ``Record``; arguments as for :func:`text_check`."""
    return int(_field(path).GetOptions().Extensions[rules_pb2.rule].max_items)


def is_repeated(*path: str) -> bool:
    """Whether a field of ``Record`` is a list; arguments as for :func:`text_check`."""
    return bool(_field(path).is_repeated)


def check_form(form: Form, text: str, field: str) -> None:
    """Check a text against the source's own type.

    Raises:
        MalformedError: ``decimal`` and not a decimal number.
    """
    if form == "decimal" and not _DECIMAL.match(text):
        raise MalformedError(f"expected a decimal number, got {_shown(text)}.", field=field)


def check_day(text: str, field: str) -> None:
    """Check that a text is a day of the calendar, written YYYY-MM-DD.

    Raises:
        MalformedError: it is not.
    """
    if not _is_day(text):
        raise MalformedError(f"expected a day as YYYY-MM-DD, got {_shown(text)}.", field=field)


def read_flag(text: str | None, field: str) -> bool | None:
    """Read an xs:boolean; an absent one is ``None``.

    Raises:
        MalformedError: neither ``true``, ``false``, ``1`` nor ``0``.
    """
    if text is None:
        return None
    flag = _FLAGS.get(text)
    if flag is None:
        raise MalformedError(f"expected true or false, got {_shown(text)}.", field=field)
    return flag


@lru_cache(maxsize=65536)
def _is_day(text: str) -> bool:
    try:
        return _DAY.match(text) is not None and date.fromisoformat(text) is not None
    except ValueError:
        return False


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "…")


def _field(path: tuple[str, ...]) -> FieldDescriptor:
    message: Descriptor = record_pb2.Record.DESCRIPTOR
    for name in path[:-1]:
        inner = message.fields_by_name[name].message_type
        if inner is None:
            raise KeyError(f"{name} of {message.name} is no message")
        message = inner
    return message.fields_by_name[path[-1]]

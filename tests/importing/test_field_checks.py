"""The checks of single texts agree with the contract's own check of the finished record."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from permslip._pb.permslip.v1 import record_pb2
from permslip.bounds import check_bounds
from permslip.errors import MalformedError
from permslip_node.importing.field_checks import check_form, read_flag, surely_short, text_check


def _record(path: tuple[str, ...], text: str) -> record_pb2.Record:
    content: Any = text
    for name in reversed(path):
        content = {name: content}
    return record_pb2.Record(**content)


def _accepts(check: Any, *arguments: Any) -> bool:
    try:
        check(*arguments)
    except MalformedError:
        return False
    return True


FIELDS = [("context", "room"), ("grade", "comment"), ("value", "text"), ("demographics", "suffix"), ("observed_on",)]

texts = st.one_of(
    st.text(min_size=1, max_size=200),
    st.text("aé\ufeff\u00a0 \n\t\u202e", min_size=1, max_size=40),
    st.integers(20, 140).map("é".__mul__),
    st.dates().map(str),
)


@pytest.mark.parametrize("path", FIELDS, ids=".".join)
@given(text=texts)
@example(text="2026-02-30")
@example(text="2026-02-28")
@example(text="\ufeffx")
@example(text="x ")
def test_a_text_passes_exactly_when_the_record_would(path: tuple[str, ...], text: str) -> None:
    passes = _accepts(text_check(*path), text, "Field")
    assert passes == _accepts(check_bounds, _record(path, text), "record")


@pytest.mark.parametrize("path", FIELDS, ids=".".join)
@given(text=texts)
def test_what_is_surely_short_passes(path: tuple[str, ...], text: str) -> None:
    if len(text) <= surely_short(*path) and text.isprintable() and text == text.strip():
        text_check(*path)(text, "Field")


def test_a_fault_names_the_sources_field_and_says_what_came() -> None:
    with pytest.raises(MalformedError, match=r"Section/Location: expected at most 128 bytes of text, got 129\."):
        text_check("context", "room")("x" * 129, "Section/Location")


@pytest.mark.parametrize("text", ["60", "60.5", "-1", "+.5", "007"])
def test_decimal_numbers_pass(text: str) -> None:
    check_form("decimal", text, "Grade")


@pytest.mark.parametrize("text", ["A?", "", "1e3", "1,5", "٣", "60 ", "NaN", "."])
def test_what_is_no_decimal_number_is_refused(text: str) -> None:
    with pytest.raises(MalformedError, match="expected a decimal number"):
        check_form("decimal", text, "Grade")


def test_flags_are_read_and_absence_stays_absence() -> None:
    assert [read_flag(text, "F") for text in ("true", "1", "false", "0", None)] == [True, True, False, False, None]
    with pytest.raises(MalformedError, match="F: expected true or false, got 'yes'"):
        read_flag("yes", "F")

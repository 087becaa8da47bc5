"""Distinct types: the right length or range passes, anything else is refused by the field's name."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from permslip.errors import MalformedError
from permslip.quantities import (
    handle,
    handle_text,
    millis,
    parse_handle,
    parse_statement_id,
    position,
    statement_id,
    statement_id_text,
)


@given(st.binary(min_size=16, max_size=16))
def test_a_handle_survives_its_text_form(raw: bytes) -> None:
    assert parse_handle(handle_text(handle(raw, "handle"))) == raw


@given(st.binary(min_size=32, max_size=32))
def test_a_statement_id_survives_its_text_form(raw: bytes) -> None:
    assert parse_statement_id(statement_id_text(statement_id(raw, "id"))) == raw


@pytest.mark.parametrize("length", [0, 15, 17, 32])
def test_a_handle_of_another_length_is_refused_by_field_name(length: int) -> None:
    with pytest.raises(MalformedError, match=rf"^query\.handle: expected 16 bytes, got {length}") as caught:
        handle(bytes(length), "query.handle")
    assert caught.value.field == "query.handle"


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_statement_id_of_another_length_is_refused_by_field_name(length: int) -> None:
    with pytest.raises(MalformedError, match=rf"^grant\.id: expected 32 bytes, got {length}") as caught:
        statement_id(bytes(length), "grant.id")
    assert caught.value.field == "grant.id"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00" * 15,
        "00" * 17,
        "0x" + "00" * 15,
        "AB" * 16,
        " " + "0" * 31,
        "0" * 31 + "\n",
        "0_" * 16,
        "٠" * 32,  # Arabic-Indic digits: int() would take them
        "g" * 32,
    ],
)
def test_only_one_spelling_of_a_handle_is_read(text: str) -> None:
    with pytest.raises(MalformedError, match="^handle: expected 32 lower-case hexadecimal digits"):
        parse_handle(text)


def test_a_message_about_a_long_text_stays_short() -> None:
    with pytest.raises(MalformedError) as caught:
        parse_statement_id("z" * 100_000, "id")
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("value", [0, 1, 2**63 - 1])
def test_positions_of_a_ledger_pass(value: int) -> None:
    assert position(value, "position") == value


@pytest.mark.parametrize("value", [-1, 2**63])
def test_a_position_outside_the_ledgers_range_is_refused(value: int) -> None:
    with pytest.raises(MalformedError, match="^after: expected a ledger position"):
        position(value, "after")


@pytest.mark.parametrize("value", [-(2**63), 0, 2**63 - 1])
def test_any_int64_is_a_time(value: int) -> None:
    assert millis(value, "now") == value


@pytest.mark.parametrize("value", [-(2**63) - 1, 2**63])
def test_a_time_that_int64_cannot_hold_is_refused(value: int) -> None:
    with pytest.raises(MalformedError, match="^expires_at: expected UTC milliseconds"):
        millis(value, "expires_at")

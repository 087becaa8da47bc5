"""The jagged profile draws every observation on its own scale and computes nothing from them."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, strategies as some

from permslip._pb.permslip.v1 import record_pb2
from permslip.entries import decimal_of
from permslip.jagged import Jagged, JaggedRow
from permslip.profile import Profile, SliceAnswer
from tests.unit.profile_samples import answer, grade, observation, slices

DIGITS = ("Digits", "0", "9")
SVG = "{http://www.w3.org/2000/svg}"


def jagged(*records: record_pb2.Record) -> Jagged:
    return Profile("", (answer("Lincoln", *records),)).jagged()


def row(*records: record_pb2.Record) -> JaggedRow:
    (only,) = jagged(*records).rows
    return only


def test_a_number_stands_between_the_bounds_of_its_scale() -> None:
    only = row(observation("working memory", "3", scale=DIGITS))

    assert only.position(only.marks[0]) == pytest.approx(1 / 3)
    assert only.scale_text == "Digits, 0 to 9"
    assert only.bounds_given


def test_each_scale_of_a_dimension_has_a_row_of_its_own() -> None:
    rows = jagged(
        observation("reading", "3", scale=DIGITS), observation("reading", "400", scale=("Score", "300", "500"))
    ).rows

    assert [(each.dimension, each.scale) for each in rows] == [("reading", "Digits"), ("reading", "Score")]


def test_the_line_passes_the_latest_number_never_a_mean() -> None:
    only = row(
        observation("pace", "2", scale=DIGITS, day="2026-05-01"),
        observation("pace", "8", scale=DIGITS, day="2025-05-01"),
    )

    assert only.latest is not None
    assert only.latest.text == "2"
    assert [each.text for each in only.marks] == ["8", "2"]


def test_without_bounds_the_observed_range_is_named_as_such() -> None:
    only = row(observation("pace", "31", scale=("Words", "", "")), observation("pace", "44", scale=("Words", "", "")))

    assert only.scale_text == "Words, 31 to 44 observed"
    assert not only.bounds_given


def test_a_single_number_without_bounds_has_no_place() -> None:
    only = row(observation("pace", "31", scale=("Words", "", "")))

    assert only.position(only.marks[0]) is None
    assert only.latest is None
    assert only.scale_text == "Words, bounds not known"


@pytest.mark.parametrize("scale", [("Digits", "9", "0"), ("Digits", "0", "x"), ("Digits", "0", "2")])
def test_bounds_that_do_not_hold_are_not_used(scale: tuple[str, str, str]) -> None:
    assert not row(observation("memory", "7", scale=scale)).bounds_given


def test_a_value_that_is_no_number_is_kept_as_a_label() -> None:
    shown = jagged(observation("persistence", "high, with a friend"))

    assert shown.rows[0].marks[0].number is None
    assert "high, with a friend" in shown.to_svg()
    assert "high, with a friend" in shown.to_text()


def test_marks_of_a_grade_are_observations_but_its_names_are_not() -> None:
    shown = jagged(grade("85", dimension="mathematics"))

    assert [(each.dimension, [mark.text for mark in each.marks]) for each in shown.rows] == [
        ("mathematics: Final", ["85"])
    ]


def test_only_the_sections_asked_for_are_arranged() -> None:
    seen = Profile("", (answer("Lincoln", grade("85"), observation("reading", "high")),))

    assert [each.dimension for each in seen.jagged(sections=["variability"]).rows] == ["reading"]


def test_contexts_say_where_and_under_what_conditions() -> None:
    record = observation("reading", "3", scale=DIGITS, place="Library")
    record.context.conditions.append("large print")

    assert jagged(record).contexts == ("Library, large print",)


def test_nothing_observed_is_said() -> None:
    assert jagged().to_text() == "Nothing was observed."
    assert "Nothing was observed." in jagged().to_svg()


def test_the_drawing_can_be_read_by_a_screen_reader() -> None:
    root = ElementTree.fromstring(
        jagged(observation("reading", "3", scale=DIGITS)).to_svg(title="Profile of learner-17")
    )

    title, description = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == "t d"
    assert title is not None
    assert title.text == "Profile of learner-17"
    assert description is not None
    assert description.text == "reading, Digits, 0 to 9: 3 on 2026-05-01 at Lincoln."


def test_the_drawing_is_legible_in_grey() -> None:
    svg = jagged(observation("reading", "3", scale=DIGITS), observation("pace", "4", scale=DIGITS)).to_svg()

    colours = set(re.findall("#([0-9a-f]{6})", svg))
    assert all(each[:2] == each[2:4] == each[4:] for each in colours)


def test_a_row_without_a_place_breaks_no_line_between_the_others() -> None:
    svg = jagged(
        observation("a", "3", scale=DIGITS), observation("b", "high"), observation("c", "4", scale=DIGITS)
    ).to_svg()

    (points,) = [each.get("points", "") for each in ElementTree.fromstring(svg).iter(f"{SVG}polyline")]
    assert len(points.split()) == 2


@given(slices())
def test_every_observation_is_drawn_and_told(answers: tuple[SliceAnswer, ...]) -> None:
    seen = Profile("", answers)
    shown = seen.jagged()

    texts = sorted(mark.text for each in shown.rows for mark in each.marks)
    assert texts == sorted(fact.text for fact in seen.facts() if fact.name in ("value", "marks.Final"))
    described = ElementTree.fromstring(shown.to_svg()).findtext(f"{SVG}desc") or ""
    assert all(text in described for text in texts)


@given(some.text())
def test_no_text_of_a_record_becomes_markup(text: str) -> None:
    record = observation("reading", "3", scale=DIGITS)
    record.dimension = record.value.text = record.context.place = text
    record.value.scale.name = text

    root = ElementTree.fromstring(jagged(record).to_svg(title=text))

    assert {each.tag.removeprefix(SVG) for each in root.iter()} <= {
        "svg",
        "title",
        "desc",
        "rect",
        "text",
        "line",
        "polyline",
        "circle",
        "path",
    }


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("85", "85"),
        ("-3.50", "-3.50"),
        ("+1", "1"),
        ("85%", None),
        ("1e5", None),
        ("", None),
        ("٣", None),
        ("NaN", None),
    ],
)
def test_only_a_whole_decimal_text_is_a_number(text: str, number: str | None) -> None:
    found = decimal_of(text)

    assert (None if found is None else str(found)) == number

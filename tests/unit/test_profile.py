"""The profile keeps every value with its provenance, names every gap, and merges nothing."""

from __future__ import annotations

import json
import sys
from collections import Counter

import pytest
from hypothesis import given

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.coverage import UNANSWERED, Held, coverage_of, uncovered
from permslip.errors import ConfigurationError, SealError
from permslip.profile import Profile, SliceAnswer
from permslip.reasons import Reason
from tests.unit.profile_samples import (
    SECTIONS,
    altered,
    answer,
    grade,
    node_key,
    observation,
    person,
    silence,
    slices,
)


def profile(*answers: SliceAnswer) -> Profile:
    return Profile("learner-17", answers, 1_790_000_000_000)


# ------------------------------------------------------------------------------------------- coverage


def test_what_came_and_what_is_not_held_are_no_gaps() -> None:
    seen = profile(answer("Lincoln", grade("85")))

    assert [(each.section, each.state, each.returned) for each in seen.coverage] == [
        ("identity.demographics", Held.NONE_HELD, 0),
        ("personal.attendance", Held.NONE_HELD, 0),
        ("transcript.grades", Held.RETURNED, 1),
        ("variability.cognition", Held.NONE_HELD, 0),
    ]
    assert seen.is_complete
    assert seen.gaps() == ()


@pytest.mark.parametrize("reason", [each for each in Reason if each != Reason.ALLOWED])
def test_every_reason_leaves_a_gap_that_says_what_can_be_done(reason: Reason) -> None:
    seen = profile(answer("Lincoln"), silence("Birch", reason))

    expected = Held.WITHHELD if reason == Reason.WITHHELD else Held.UNREACHABLE if reason in UNANSWERED else Held.DENIED
    assert {each.state for each in seen.gaps()} == {expected}
    assert {each.remedy for each in seen.gaps()} == {reason.remedy}
    assert not seen.is_complete


def test_records_that_may_have_been_kept_back_are_a_gap_beside_those_that_came() -> None:
    key = node_key("Lincoln")
    manifest = [pb.SectionCoverage(section="transcript.grades", reason=pb.REASON_ALLOWED, returned=1, withheld=True)]
    cover = coverage_of(manifest, node=key, node_name="Lincoln")

    seen = profile(SliceAnswer(key, "Lincoln", key[:16], key, cover, (grade("85"),)))

    assert [(each.state, each.is_gap) for each in seen.coverage] == [(Held.RETURNED, True)]


def test_a_section_keeps_the_reason_it_was_given_of_its_own() -> None:
    key = node_key("Lincoln")

    cover = uncovered(
        ["personal.health", "transcript.grades"],
        Reason.SECTION_NOT_GRANTED,
        node=key,
        node_name="Lincoln",
        known={"personal.health": Reason.SECTION_SENSITIVE},
    )

    assert [each.reason for each in cover] == [Reason.SECTION_SENSITIVE, Reason.SECTION_NOT_GRANTED]


def test_a_slice_that_failed_verification_is_a_fault_and_a_gap() -> None:
    seen = profile(answer("Lincoln", grade("85")), altered("Birch"))

    assert [(name, type(error)) for name, error in seen.faults] == [("Birch", SealError)]
    assert {each.state for each in seen.gaps()} == {Held.UNREACHABLE}
    assert len(seen.grades) == 1


@given(slices())
def test_each_node_and_section_asked_for_has_exactly_one_state(answers: tuple[SliceAnswer, ...]) -> None:
    told = Counter((each.node, each.section) for each in profile(*answers).coverage)

    assert told == Counter((each.node, path) for each in answers for path in SECTIONS)


@given(slices())
def test_what_is_covered_as_returned_is_there_and_nothing_else_is(answers: tuple[SliceAnswer, ...]) -> None:
    seen = profile(*answers)

    held = Counter((each.node, each.section) for each in seen.entries)

    assert held == Counter({(each.node, each.section): each.returned for each in seen.coverage if each.returned})
    assert not [each for each in seen.coverage if each.returned and each.state != Held.RETURNED]


# --------------------------------------------------------------------------------- entries and values


def test_typed_sections_hold_the_body_that_belongs_there() -> None:
    seen = profile(answer("Lincoln", grade("85"), person("Mia", "Ortiz"), observation("reading", "high")))

    assert [each.body and each.body.course_title for each in seen.grades] == ["Mathematics 7"]
    assert [each.body and each.body.first_name for each in seen.demographics] == ["Mia"]
    assert [each.body and each.body.factor for each in seen.observations] == ["reading"]
    others = (seen.courses, seen.credits, seen.assessments, seen.attendance, seen.work_habits, seen.services)
    assert not any((*others, seen.works, seen.voice))


def test_a_path_gives_everything_below_it_and_nothing_beside_it() -> None:
    seen = profile(answer("Lincoln", grade("85"), observation("reading", "high")))

    assert len(seen.section("transcript")) == 1
    assert seen.section("trans") == ()


def test_a_value_carries_where_it_came_from() -> None:
    seen = profile(answer("Lincoln", grade("85", number=7)))

    row = next(each for each in seen.facts() if each.name == "marks.Final").to_dict()

    assert (row["node_name"], row["text"], row["number"], row["scale"], row["scale_maximum"]) == (
        "Lincoln",
        "85",
        85.0,
        "Percent",
        "100",
    )
    assert (row["author"], row["author_role"], row["place"], row["observed_on"]) == (
        "Ms. Ito",
        "teacher",
        "Room 7",
        "2026-05-01",
    )
    assert (row["source_system"], row["source_file"], row["source_native_id"], row["version"]) == (
        "ed-fi-1.0",
        "Grades.xml",
        "7",
        1,
    )


@given(slices())
def test_every_text_of_every_record_is_told_verbatim(answers: tuple[SliceAnswer, ...]) -> None:
    seen = profile(*answers)

    told = Counter((each.entry.node, each.text) for each in seen.facts() if each.name in ("value", "marks.Final"))

    held: Counter[tuple[bytes, str]] = Counter()
    for each in answers:
        for record in each.records:
            held.update((each.node, mark.value.text) for mark in record.grade.marks)
            if record.HasField("value"):
                held[each.node, record.value.text] += 1
    assert told == held


# ------------------------------------------------------------------------------------------ conflicts


def test_two_nodes_that_differ_stand_side_by_side() -> None:
    seen = profile(answer("Birch", grade("92")), answer("Lincoln", grade("85")))

    (conflict,) = seen.conflicts()

    assert (conflict.section, conflict.name) == ("transcript.grades", "marks.Final")
    assert conflict.about == "Final / MATH-7 / Mathematics 7 / 2026-05-01"
    assert [(each.entry.node_name, each.text) for each in conflict.facts] == [("Birch", "92"), ("Lincoln", "85")]
    assert len(seen.grades) == 2


@pytest.mark.parametrize(
    "other",
    [
        grade("85"),
        grade("92", day="2026-05-02"),
        grade("92", course="ELA-7"),
        grade("92", dimension="mathematics"),
    ],
    ids=["the same value", "another day", "another course", "another dimension"],
)
def test_nodes_that_agree_or_speak_of_something_else_do_not_conflict(other: object) -> None:
    assert profile(answer("Birch", other), answer("Lincoln", grade("85"))).conflicts() == ()  # type: ignore[arg-type]  # parametrized


def test_the_same_number_on_two_scales_is_a_conflict() -> None:
    points = grade("85", scale=("Points", "0", "200"))

    assert len(profile(answer("Birch", points), answer("Lincoln", grade("85"))).conflicts()) == 1


def test_two_values_of_one_node_are_no_conflict_between_nodes() -> None:
    assert profile(answer("Lincoln", grade("85"), grade("92", number=2))).conflicts() == ()


def test_demographics_conflict_field_by_field() -> None:
    seen = profile(answer("Birch", person("Maria", "Ortiz")), answer("Lincoln", person("Mia", "Ortiz")))

    assert [(each.name, [fact.text for fact in each.facts]) for each in seen.conflicts()] == [
        ("first_name", ["Maria", "Mia"])
    ]


@given(slices())
def test_a_conflict_shows_the_values_of_at_least_two_nodes_and_invents_none(answers: tuple[SliceAnswer, ...]) -> None:
    seen = profile(*answers)
    told = {(each.entry.node, each.entry.record.record_id, each.name, each.text) for each in seen.facts()}

    for conflict in seen.conflicts():
        assert len({each.entry.node for each in conflict.facts}) > 1
        assert len({(each.text, each.scale.name if each.scale else "") for each in conflict.facts}) > 1
        assert told >= {(each.entry.node, each.entry.record.record_id, each.name, each.text) for each in conflict.facts}


# --------------------------------------------------------------------------------------------- output


@given(slices())
def test_the_profile_is_written_as_json_whole(answers: tuple[SliceAnswer, ...]) -> None:
    seen = profile(*answers)

    document = json.loads(seen.to_json(indent=2))

    assert sum(map(len, document["sections"].values())) == len(seen.entries)
    assert len(document["coverage"]) == len(seen.coverage)
    assert document["complete"] == seen.is_complete


@given(slices())
def test_the_order_in_which_answers_arrive_changes_nothing(answers: tuple[SliceAnswer, ...]) -> None:
    forwards, backwards = profile(*answers).to_dict(), profile(*reversed(answers)).to_dict()

    for key in ("coverage", "conflicts", "complete"):
        assert forwards[key] == backwards[key]


def test_the_frame_has_one_row_for_each_value() -> None:
    frame = profile(answer("Lincoln", grade("85"), person("Mia", "Ortiz"))).to_frame()

    assert list(frame["text"]) == ["Mia", "Ortiz", "Final", "MATH-7", "Mathematics 7", "85"]
    assert frame.loc[frame["name"] == "marks.Final", "number"].item() == 85.0


def test_the_frame_of_an_empty_profile_has_its_columns() -> None:
    assert "scale_minimum" in profile().to_frame().columns


def test_without_pandas_the_frame_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)

    with pytest.raises(ConfigurationError, match=r"pip install 'permslip\[frames\]'"):
        profile().to_frame()

"""Answers of invented nodes, for the tests of the profile: by hand, and drawn by hypothesis."""

from __future__ import annotations

from hashlib import sha256

from hypothesis import strategies as some

from permslip._pb.permslip.v1 import record_pb2
from permslip.coverage import Coverage, Held, uncovered
from permslip.errors import SealError
from permslip.profile import SliceAnswer
from permslip.reasons import Reason

SECTIONS = ("identity.demographics", "personal.attendance", "transcript.grades", "variability.cognition")


def node_key(name: str) -> bytes:
    return sha256(name.encode()).digest()


def grade(
    mark: str,
    *,
    course: str = "MATH-7",
    day: str = "2026-05-01",
    dimension: str = "",
    scale: tuple[str, str, str] = ("Percent", "0", "100"),
    number: int = 1,
) -> record_pb2.Record:
    name, minimum, maximum = scale
    value = record_pb2.Value(text=mark, scale=record_pb2.Scale(name=name, minimum=minimum, maximum=maximum))
    return record_pb2.Record(
        record_id=number.to_bytes(16, "big"),
        section="transcript.grades",
        observed_on=day,
        recorded_at=1_790_000_000_000,
        dimension=dimension,
        version=1,
        author=record_pb2.Author(name="Ms. Ito", role="teacher"),
        context=record_pb2.Context(place="Room 7"),
        source=record_pb2.Source(system="ed-fi-1.0", file="Grades.xml", entity="Grade", native_id=str(number)),
        grade=record_pb2.Grade(
            kind="Final",
            course_code=course,
            course_title="Mathematics 7",
            marks=[record_pb2.NamedValue(name="Final", value=value)],
        ),
    )


def person(first: str, last: str, *, number: int = 1) -> record_pb2.Record:
    return record_pb2.Record(
        record_id=number.to_bytes(16, "big"),
        section="identity.demographics",
        recorded_at=1_790_000_000_000,
        version=1,
        demographics=record_pb2.Demographics(first_name=first, last_name=last),
    )


def observation(
    dimension: str,
    text: str,
    *,
    scale: tuple[str, str, str] | None = None,
    day: str = "2026-05-01",
    place: str = "Lincoln",
    number: int = 1,
) -> record_pb2.Record:
    value = record_pb2.Value(text=text)
    if scale is not None:
        value.scale.CopyFrom(record_pb2.Scale(name=scale[0], minimum=scale[1], maximum=scale[2]))
    return record_pb2.Record(
        record_id=number.to_bytes(16, "big"),
        section="variability.cognition",
        observed_on=day,
        recorded_at=1_790_000_000_000,
        dimension=dimension,
        value=value,
        version=1,
        context=record_pb2.Context(place=place),
        observation=record_pb2.Observation(factor=dimension),
    )


def answer(name: str, *records: record_pb2.Record, sections: tuple[str, ...] = SECTIONS) -> SliceAnswer:
    """A whole slice whose manifest counts what is in it."""
    key = node_key(name)
    counts = {path: sum(record.section == path for record in records) for path in sections}
    coverage = tuple(
        Coverage(key, name, path, Held.RETURNED if count else Held.NONE_HELD, count) for path, count in counts.items()
    )
    return SliceAnswer(key, name, key[:16], key, coverage, tuple(records))


def silence(name: str, reason: Reason, *, sections: tuple[str, ...] = SECTIONS) -> SliceAnswer:
    """No slice, and why."""
    key = node_key(name)
    return SliceAnswer(key, name, key[:16], key, uncovered(sections, reason, node=key, node_name=name))


def altered(name: str) -> SliceAnswer:
    """A slice that failed verification."""
    key = node_key(name)
    coverage = uncovered(SECTIONS, Reason.INTERNAL, node=key, node_name=name)
    return SliceAnswer(key, name, key[:16], key, coverage, fault=SealError("a chunk was altered."))


_WORDS = some.sampled_from(["A", "B", "85", "92.5", "-3", "late", "high", "12 of 20", "<b>&", ""])
_DAYS = some.sampled_from(["", "2025-09-01", "2026-05-01"])
_RECORDS = some.one_of(
    some.builds(grade, _WORDS, course=some.sampled_from(["MATH-7", "ELA-7"]), day=_DAYS, number=some.integers(1, 9)),
    some.builds(person, some.sampled_from(["Mia", "Maria"]), some.sampled_from(["Ortiz", "Ortiz Lee"])),
    some.builds(
        observation,
        some.sampled_from(["reading", "working memory"]),
        _WORDS,
        scale=some.sampled_from([None, ("Digits", "0", "9"), ("Score", "", ""), ("Score", "9", "x")]),
        day=_DAYS,
        number=some.integers(1, 9),
    ),
)


@some.composite
def slices(draw: some.DrawFn) -> tuple[SliceAnswer, ...]:
    """Answers of up to four nodes: some whole, some silent, some altered."""
    answers = []
    for name in draw(some.lists(some.sampled_from(["Ada", "Birch", "Cedar", "Dove"]), unique=True, max_size=4)):
        fate = draw(some.sampled_from(["whole", "whole", "silent", "altered"]))
        if fate == "whole":
            answers.append(answer(name, *draw(some.lists(_RECORDS, max_size=6))))
        elif fate == "silent":
            answers.append(silence(name, draw(some.sampled_from([each for each in Reason if each != Reason.ALLOWED]))))
        else:
            answers.append(altered(name))
    return tuple(answers)

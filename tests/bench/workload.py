"""What is asked for: one learner's grades as a school's information system gives them, 50 for each node.

The records are what the importer makes of one ``StudentGrade`` element, without the facts that have no field of their
own; the floor moves exactly the bytes that the product moves.

Example::

    page = page_of(grades(b"node 0", RECORDS))
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from permslip._pb.permslip.v1 import record_pb2

__all__ = ["FEDERATION", "RECORDS", "SECTION", "grades", "page_of"]

FEDERATION: Final = "bench.example"
SECTION: Final = "transcript.grades"
RECORDS: Final = 50

_COURSES: Final = ("ENG-1", "ALG-1", "BIO-1", "WHIST", "ART-1", "PE-1", "SPAN-1")
_MARKS: Final = ("98", "91", "87", "84", "79", "76", "93")


def grades(of: bytes, count: int = RECORDS) -> list[record_pb2.Record]:
    """``count`` different records; the same for the same ``of``."""
    return [_grade(of, number) for number in range(count)]


def page_of(records: Sequence[record_pb2.Record]) -> bytes:
    """The records as they are sealed."""
    return record_pb2.SlicePart(records=records).SerializeToString(deterministic=True)


def _grade(of: bytes, number: int) -> record_pb2.Record:
    identity = sha256(b"grade\0%b\0%d" % (of, number)).digest()
    course, mark = _COURSES[number % len(_COURSES)], _MARKS[number * 3 % len(_MARKS)]
    return record_pb2.Record(
        record_id=identity[:16],
        section=SECTION,
        observed_on=f"2011-{1 + number % 12:02}-{1 + number % 28:02}",
        recorded_at=1_790_000_000_000,
        context=record_pb2.Context(place_id="255901001", school_year="2010-2011", term="Fall Semester"),
        value=record_pb2.Value(text=mark, scale=record_pb2.Scale(name="Numeric grade")),
        version=1,
        source=record_pb2.Source(
            system="ed-fi-1.0", file="StudentGrade.xml", entity="StudentGrade", native_id=f"{identity[:5].hex()}"
        ),
        grade=record_pb2.Grade(kind="Six weeks", grading_period="First Six Weeks", course_code=course),
    )

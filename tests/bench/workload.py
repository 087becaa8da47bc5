"""What is asked for: one learner's grades as a school's information system gives them, 50 for each node.

The records are of the shape and size (about 290 bytes) of what the importer makes of one ``Grade`` of an Ed-Fi
``StudentGrade.xml``; the floor moves exactly the bytes that the product moves.

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

_COURSES: Final = ("ART2-EM", "ALG-01", "ELA-03", "SCI-02", "HIST-1", "PHED-1", "SPAN-2", "MUS-01")
_PERIODS: Final = ("First Six Weeks", "Second Six Weeks", "Third Six Weeks", "Fourth Six Weeks", "Fifth Six Weeks")


def grades(of: bytes, count: int = RECORDS) -> list[record_pb2.Record]:
    """``count`` different records; the same for the same ``of``."""
    return [_grade(of, number) for number in range(count)]


def page_of(records: Sequence[record_pb2.Record]) -> bytes:
    """The records as they are sealed."""
    return record_pb2.SlicePart(records=records).SerializeToString(deterministic=True)


def _grade(of: bytes, number: int) -> record_pb2.Record:
    identity = sha256(b"grade\0%b\0%d" % (of, number)).digest()
    course, period = _COURSES[number % len(_COURSES)], _PERIODS[number // len(_COURSES) % len(_PERIODS)]
    school, room = "255901001", str(300 + number % 40)
    key = (identity[:3].hex(), school, course, "2010-2011", "Spring Semester", "03 - Traditional", room, period)
    return record_pb2.Record(
        record_id=identity[:16],
        section=SECTION,
        recorded_at=1_790_000_000_000,
        context=record_pb2.Context(
            place_id=school, school_year="2010-2011", term="Spring Semester", period="03 - Traditional", room=room
        ),
        value=record_pb2.Value(text=str(60 + number * 7 % 40), scale=record_pb2.Scale(name="Numeric grade")),
        version=1,
        source=record_pb2.Source(
            system="ed-fi-1.0", file="StudentGrade.xml", entity="Grade", native_id="|".join((*key, "Grading Period"))
        ),
        grade=record_pb2.Grade(kind="Grading Period", grading_period=period, course_code=course),
    )

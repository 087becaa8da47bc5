"""Canvas-style LMS extract: which table becomes which record.

====================  =========================  ==============================================================
table                 section                    one record for each
====================  =========================  ==============================================================
users                 identity.demographics      learner (role ``student``)
section-associations  transcript.courses         section attended
submissions           personal.assessments       work handed in and graded: points on the scale 0 to ``MaxPoints``
submissions           personal.work_habits       assignment: on time, late or missing, with due day and day done
====================  =========================  ==============================================================

Choices:

- A *missing* submission carries zero points in these extracts. Zero is what the platform counts, not what a learner was
  seen to know, so it gives a work habit and no assessment.
- A work habit carries no points and no grade: who may see how work is handed in need not see what it was worth.
- ``sections`` and ``assignments`` complete the records of the others.
- Never imported: e-mail addresses; assignments' descriptions (they speak of the task); the extract's own book-keeping
  (``CreateDate``, ``LastModifiedDate`` …), which would make a new version of every record with every extract.
- The day a learner joined a section is the extract's ``CreateDate``: when it was first seen.

Paths are the columns; ``User/``, ``Section/`` and ``Assignment/`` stand before the columns of the row referred to.
"""

from __future__ import annotations

from typing import Final

from permslip_node.importing.mapping import Mapping, Score, Take

__all__ = ["COLUMNS", "MAPPINGS", "STUDENT_ROLE", "SYSTEM"]

SYSTEM: Final = "canvas-extract"
STUDENT_ROLE: Final = "student"

# Table → the columns that must be there; tables that others refer to stand before those.
COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "users": ("SourceSystemIdentifier", "UserRole", "SISUserIdentifier", "Name"),
    "sections": ("SourceSystemIdentifier", "Title"),
    "assignments": ("SourceSystemIdentifier", "Title", "MaxPoints", "LMSSectionSourceSystemIdentifier"),
    "section-associations": (
        "SourceSystemIdentifier",
        "LMSUserSourceSystemIdentifier",
        "LMSSectionSourceSystemIdentifier",
    ),
    "submissions": (
        "SourceSystemIdentifier",
        "SubmissionStatus",
        "EarnedPoints",
        "AssignmentSourceSystemIdentifier",
        "LMSUserSourceSystemIdentifier",
    ),
}

_KEY: Final = ("SourceSystemIdentifier",)
_LEARNER: Final = "User/SISUserIdentifier"
_BOOK_KEEPING: Final = (
    "SourceSystemIdentifier",
    "SourceSystem",
    "CreateDate",
    "LastModifiedDate",
    "SourceCreateDate",
    "SourceLastModifiedDate",
    "LMSUserSourceSystemIdentifier",
    "LMSSectionSourceSystemIdentifier",
    "AssignmentSourceSystemIdentifier",
)
# Of what is referred to only the columns that the tables take: the rest is its own row's business.
_WHERE: Final = (
    Take("context.place", "Platform"),
    Take("context.term", "Section/Term"),
    Take("context.with_whom", "Section/SISSectionIdentifier"),
)

MAPPINGS: Final[tuple[Mapping, ...]] = (
    Mapping(
        "users",
        "identity.demographics",
        "demographics",
        learner="SISUserIdentifier",
        key=_KEY,
        takes=(
            Take("demographics.full_name", "Name", required=True),
            Take("demographics.local_ids", "LocalUserIdentifier"),
            Take("context.place", "Platform"),
        ),
        omit=(*_BOOK_KEEPING, "EmailAddress", "UserRole"),
    ),
    Mapping(
        "section-associations",
        "transcript.courses",
        "course",
        learner=_LEARNER,
        key=_KEY,
        takes=(
            *_WHERE,
            Take("course.code", "Section/Title", required=True),
            Take("course.title", "Section/SectionDescription"),
            Take("course.result", "EnrollmentStatus"),
            Take("observed_on", "CreateDate", day_of=True),
        ),
        omit=(*_BOOK_KEEPING, "User", "Section"),
    ),
    Mapping(
        "submissions",
        "personal.assessments",
        "assessment",
        part="graded",
        learner=_LEARNER,
        key=_KEY,
        unless=("SubmissionStatus", "Missing"),
        takes=(
            *_WHERE,
            Take("assessment.title", "Assignment/Title", required=True),
            Take("assessment.family", "Assignment/AssignmentCategory"),
            Take("assessment.administration", "SubmissionStatus"),
            Take("context.subject", "Section/SectionDescription|Section/Title"),
            Take("dimension", "Section/SectionDescription|Section/Title"),
            Take("context.conditions", "Assignment/SubmissionType"),
            Take("observed_on", "SubmissionDateTime|Assignment/DueDateTime", day_of=True),
        ),
        scores=(
            Score("EarnedPoints", "Points", "decimal", maximum="Assignment/MaxPoints"),
            Score("Grade", "Grade"),
        ),
        also="assessment.scores",
        omit=(*_BOOK_KEEPING, "User", "Section", "Assignment"),
    ),
    Mapping(
        "submissions",
        "personal.work_habits",
        "work_habit",
        part="habit",
        learner=_LEARNER,
        key=_KEY,
        fixed={"work_habit.habit": "assignment submission"},
        takes=(
            *_WHERE,
            Take("work_habit.task", "Assignment/Title", required=True),
            Take("work_habit.status", "SubmissionStatus", required=True),
            Take("work_habit.due_on", "Assignment/DueDateTime", day_of=True),
            Take("work_habit.done_on", "SubmissionDateTime", day_of=True),
            Take("observed_on", "SubmissionDateTime|Assignment/DueDateTime", day_of=True),
            Take("context.subject", "Section/SectionDescription|Section/Title"),
        ),
        omit=(*_BOOK_KEEPING, "User", "Section", "Assignment", "EarnedPoints", "Grade"),
    ),
)

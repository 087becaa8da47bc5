"""The learning platform's extract of the sample district: the high school's mathematics and English.

Written as Canvas-style extractors write it: UTF-8 with a byte order mark, one folder for each section and assignment.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from permslip_node.sample_district.edfi_learners import letter
from permslip_node.sample_district.edfi_organization import course_code
from permslip_node.sample_district.people import SUBJECTS, YEAR, Chance, Learner, People
from permslip_node.sample_district.school_year import PERIODS, school_day

__all__ = ["write_lms"]

_FILE: Final = "2026-06-01-00-00-00.csv"
_WRITTEN: Final = "2026-06-01 00:00:00"
_TAUGHT: Final = (0, 1)
_TASKS: Final = ("Essay", "Quiz", "Project", "Homework", "Portfolio piece", "Presentation")
_STAMPS: Final = ("CreateDate", "LastModifiedDate", "SourceCreateDate", "SourceLastModifiedDate")
_STAMPED: Final = ("2025-08-20 00:00:00", _WRITTEN, "", "")


def write_lms(folder: Path, people: People, chance: Chance) -> list[Learner]:
    """Write the extract below ``folder``; the learners who are in it."""
    school = people.schools[0]
    learners = [learner for learner in people.learners if learner.school is school]
    _write(
        folder / "users",
        ("SourceSystemIdentifier", "SourceSystem", "UserRole", "LocalUserIdentifier", "SISUserIdentifier", "Name"),
        (
            (_user(learner), "Canvas", "student", _login(learner), learner.identifier, _name(learner))
            for learner in learners
        ),
    )
    sections = [(subject, grade) for subject in _TAUGHT for grade in school.grades]
    _write(
        folder / "sections",
        (
            "SourceSystemIdentifier", "SourceSystem", "SISSectionIdentifier", "Title", "SectionDescription", "Term",
            "LMSSectionStatus",
        ),
        (
            (
                _section(subject, grade), "Canvas", f"{school.identifier}-{course_code(subject, grade)}",
                course_code(subject, grade), f"{SUBJECTS[subject][1]}, Grade {grade}", YEAR, "Active",
            )
            for subject, grade in sections
        ),
    )  # fmt: skip
    for subject, grade in sections:
        attending = [learner for learner in learners if learner.grade == grade]
        _write_section(folder, subject, grade, attending, chance)
    return learners


def _write_section(folder: Path, subject: int, grade: int, learners: list[Learner], chance: Chance) -> None:
    section = _section(subject, grade)
    below = folder / f"section={section}"
    _write(
        below / "section-associations",
        (
            "SourceSystemIdentifier", "SourceSystem", "EnrollmentStatus", "LMSUserSourceSystemIdentifier",
            "LMSSectionSourceSystemIdentifier",
        ),
        ((f"{section}{_user(learner)}", "Canvas", "Active", _user(learner), section) for learner in learners),
    )  # fmt: skip
    assignments = [(f"{section}{number}", number) for number in range(len(_TASKS))]
    _write(
        below / "assignments",
        (
            "SourceSystemIdentifier", "SourceSystem", "Title", "AssignmentCategory", "AssignmentDescription",
            "DueDateTime", "SubmissionType", "MaxPoints", "LMSSectionSourceSystemIdentifier",
        ),
        (
            (
                assignment, "Canvas", f"{_TASKS[number]} {number + 1}", "Assignment", "", _due(number) + " 00:00:00",
                "online_upload", "20", section,
            )
            for assignment, number in assignments
        ),
    )  # fmt: skip
    for assignment, number in assignments:
        _write(
            below / f"assignment={assignment}" / "submissions",
            (
                "SourceSystemIdentifier", "SourceSystem", "SubmissionStatus", "SubmissionDateTime", "EarnedPoints",
                "Grade", "AssignmentSourceSystemIdentifier", "LMSUserSourceSystemIdentifier",
            ),
            [
                (f"{assignment}{_user(learner)}", "Canvas", *_submission(learner, subject, number, chance), assignment,
                 _user(learner))
                for learner in learners
            ],
        )  # fmt: skip


def _submission(learner: Learner, subject: int, number: int, chance: Chance) -> tuple[str, str, str, str]:
    """Status, moment, points and grade of one submission."""
    if chance.happens(5):
        return "Missing", "", "0", "F"
    is_late = chance.happens(15)
    mark = chance.around(learner.strength[subject], 16, 40, 100)
    day = school_day(PERIODS[number], 27) if is_late else _due(number)
    return "Late" if is_late else "Graded", f"{day} 00:00:00", str(mark // 5), letter(mark)


def _due(number: int) -> str:
    return school_day(PERIODS[number], 20)


def _user(learner: Learner) -> str:
    return f"1{learner.identifier}"


def _login(learner: Learner) -> str:
    return f"{learner.first_name}.{learner.last_name}".lower()


def _name(learner: Learner) -> str:
    return f"{learner.first_name} {learner.last_name}"


def _section(subject: int, grade: int) -> str:
    return f"{50 + subject}{grade:02d}"


def _write(folder: Path, columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _FILE).open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow((*columns, *_STAMPS))
        writer.writerows((*row, *_STAMPED) for row in rows)

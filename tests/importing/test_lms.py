"""The learning platform's extract: against an independent count, row by row, and when it is broken."""

from __future__ import annotations

import csv
import json
import random
from collections import Counter
from pathlib import Path

import pytest

from permslip._pb.permslip.v1 import record_pb2
from permslip.bounds import check_strictly
from permslip.errors import ImportFileError
from permslip_node.importing import MemorySink, import_lms
from permslip_node.importing.lms_csv import MAX_LINE
from permslip_node.sample_district import District, generate_district


@pytest.fixture
def district(tmp_path: Path) -> District:
    return generate_district(tmp_path / "district", learners=12, seed=5)


def _rows(folder: Path, pattern: str) -> list[dict[str, str]]:
    """Nothing but a CSV reader."""
    found = []
    for path in sorted(folder.glob(f"{pattern}/*.csv")):
        with path.open(encoding="utf-8-sig", newline="") as stream:
            found += list(csv.DictReader(stream))
    return found


def _records(sink: MemorySink, body: str) -> dict[str, record_pb2.Record]:
    """Native id of the row → record."""
    parsed = (record_pb2.Record.FromString(versions[-1].content) for versions in sink.records.values())
    return {
        record.source.native_id.rpartition("|")[2]: record for record in parsed if record.WhichOneof("body") == body
    }


def _file(folder: Path, pattern: str) -> Path:
    return min(folder.glob(f"{pattern}/*.csv"))


@pytest.mark.data
def test_the_real_extract_equals_the_source_in_counts_and_values(shared_data: Path, sink: MemorySink) -> None:
    folder = shared_data / "grandbend" / "lms-canvas"
    report = import_lms(folder, sink)
    users = {row["SourceSystemIdentifier"]: row for row in _rows(folder, "users")}
    sections = {row["SourceSystemIdentifier"]: row for row in _rows(folder, "sections")}
    assignments = {row["SourceSystemIdentifier"]: row for row in _rows(folder, "section=*/assignments")}
    associations = _rows(folder, "section=*/section-associations")
    submissions = {row["SourceSystemIdentifier"]: row for row in _rows(folder, "*/*/submissions")}
    handed_in = [row for row in submissions.values() if row["SubmissionStatus"] != "Missing"]
    assert (len(users), len(associations), len(submissions), len(handed_in)) == (49, 196, 901, 860)
    assert report.records == {
        "identity.demographics": len(users),
        "transcript.courses": len(associations),
        "personal.assessments": len(handed_in),
        "personal.work_habits": len(submissions),
    }
    assert (report.rejected, report.learners, report.unmapped) == (0, 49, {})

    assessments, habits = _records(sink, "assessment"), _records(sink, "work_habit")
    for identity in random.Random(49).sample(sorted(assessments), 100):
        row, record = submissions[identity], assessments[identity]
        assignment = assignments[row["AssignmentSourceSystemIdentifier"]]
        section = sections[assignment["LMSSectionSourceSystemIdentifier"]]
        assert record.source.native_id.startswith(users[row["LMSUserSourceSystemIdentifier"]]["SISUserIdentifier"])
        assert (record.value.text, record.value.scale.maximum) == (row["EarnedPoints"], assignment["MaxPoints"])
        assert [score.value.text for score in record.assessment.scores] == [row["EarnedPoints"], row["Grade"].strip()]
        assert (record.assessment.title, record.dimension) == (assignment["Title"], section["SectionDescription"])
        assert record.observed_on == row["SubmissionDateTime"][:10]
    for identity in random.Random(50).sample(sorted(habits), 100):
        row, habit = submissions[identity], habits[identity].work_habit
        assignment = assignments[row["AssignmentSourceSystemIdentifier"]]
        assert (habit.status, habit.task) == (row["SubmissionStatus"], assignment["Title"])
        assert (habit.due_on, habit.done_on) == (assignment["DueDateTime"][:10], row["SubmissionDateTime"][:10])


def test_records_are_within_the_contracts_bounds(district: District, sink: MemorySink) -> None:
    import_lms(district.lms, sink, node_name="Alder Creek Online")
    for versions in sink.records.values():
        record = record_pb2.Record.FromString(versions[-1].content)
        record.record_id, record.recorded_at, record.version = bytes(16), 1, 1
        check_strictly(record, record.source.entity)
        assert record.context.place == "Alder Creek Online"


def test_a_missing_submission_is_a_habit_and_no_assessment(district: District, sink: MemorySink) -> None:
    import_lms(district.lms, sink)
    statuses = Counter(row["SubmissionStatus"] for row in _rows(district.lms, "*/*/submissions"))
    assert statuses["Missing"] > 0
    habits = _records(sink, "work_habit")
    assert Counter(record.work_habit.status for record in habits.values()) == statuses
    assert len(_records(sink, "assessment")) == statuses["Graded"] + statuses["Late"]


def test_a_work_habit_does_not_tell_the_grade(district: District, sink: MemorySink) -> None:
    import_lms(district.lms, sink)
    for record in _records(sink, "work_habit").values():
        assert not record.HasField("value")
        assert [fact.name for fact in record.source.further if fact.name in ("Grade", "EarnedPoints")] == []


def test_bad_rows_are_rejected_and_the_rest_arrives(district: District, sink: MemorySink, tmp_path: Path) -> None:
    clean = import_lms(district.lms, MemorySink())
    path = _file(district.lms, "*/*/submissions")
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    original = lines[1].split(",")
    bad_points = [*original[:4], "many", *original[5:]]
    nobody = [*original[:7], "999", *original[8:]]
    added = [bad_points, nobody, original[:3], ["x"], ['"', *original[1:]]]
    path.write_text("\n".join([*lines, *(",".join([f"N{n}", *row[1:]]) for n, row in enumerate(added))]) + "\n")
    rejects = tmp_path / "rejects.jsonl"
    report = import_lms(district.lms, sink, rejects=rejects)
    assert report.exit_code == 3
    found = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert [(reject["line"] - len(lines), reject["field"]) for reject in found] == [
        (1, "EarnedPoints"),
        (2, "User/SISUserIdentifier"),
        (3, "SubmissionDateTime"),
        (4, "SourceSystem"),
    ]
    assert {(reject["file"], reject["entity"]) for reject in found} == {(str(path), "submissions")}
    # The row that is bad only as an assessment has said how the work was handed in; so has the last one, which is good.
    assert report.records["personal.assessments"] == clean.records["personal.assessments"] + 1


def test_the_newest_extract_of_a_folder_counts(district: District, sink: MemorySink) -> None:
    clean = import_lms(district.lms, sink)
    path = _file(district.lms, "users")
    newer = path.with_name("2026-09-01-00-00-00.csv")
    newer.write_text(path.read_text(encoding="utf-8-sig").replace(" ", "-", 1), encoding="utf-8")
    report = import_lms(district.lms, sink)
    changed = [versions for versions in sink.records.values() if len(versions) > 1]
    assert (report.versioned, len(changed)) == (1, 1)
    assert (report.inserted, report.unchanged, report.repeated) == (0, clean.inserted - 1, clean.rows["users"])


def test_staff_give_no_records_and_unknown_folders_are_counted(district: District, sink: MemorySink) -> None:
    path = _file(district.lms, "users")
    path.write_text(path.read_text(encoding="utf-8-sig").replace(",student,", ",teacher,", 1), encoding="utf-8")
    other = district.lms / "system-activities"
    other.mkdir()
    (other / "2026.csv").write_text("SourceSystemIdentifier,ActivityType\n1,sign-in\n2,sign-in\n")
    report = import_lms(district.lms, sink)
    assert report.unmapped == {"system-activities": 2, "users (teacher)": 1}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff\xfeS\x00", "expected UTF-8"),
        (b"SourceSystemIdentifier,UserRole,Name\n", "the column SISUserIdentifier is missing"),
        (b"SourceSystemIdentifier,UserRole,SISUserIdentifier,Name,Name\n", "stands twice"),
        (b"x" * (MAX_LINE + 1), "a line longer than"),
        (b'"x" y,UserRole\n', "cannot be read"),
    ],
    ids=["encoding", "column missing", "column twice", "line too long", "no CSV"],
)
def test_a_file_that_is_no_such_table_is_refused_by_name(
    district: District, sink: MemorySink, content: bytes, reason: str
) -> None:
    path = _file(district.lms, "users")
    path.write_bytes(content)
    with pytest.raises(ImportFileError, match=reason) as caught:
        import_lms(district.lms, sink)
    assert caught.value.file == str(path)


def test_a_folder_that_is_no_extract_is_refused(tmp_path: Path, sink: MemorySink) -> None:
    with pytest.raises(ImportFileError, match="expected a folder with users"):
        import_lms(tmp_path, sink)


def test_an_empty_file_holds_no_rows(district: District, sink: MemorySink) -> None:
    _file(district.lms, "*/*/submissions").write_bytes(b"")
    assert import_lms(district.lms, sink).rejected == 0


def test_progress_is_told_for_every_file(district: District, sink: MemorySink) -> None:
    told: list[str] = []
    report = import_lms(district.lms, sink, on_progress=lambda file, _done, _size: told.append(file))
    assert told == report.files

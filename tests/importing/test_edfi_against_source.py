"""Acceptance: counts and values of an import against an independent reading of the same files (`edfi_source`)."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from permslip._pb.permslip.v1 import record_pb2
from permslip.bounds import check_strictly
from permslip.sections import LEAVES
from permslip_node.importing import ImportReport, MemorySink, import_edfi
from tests.importing.edfi_source import expected, held, scan

pytestmark = pytest.mark.data

# Entities that become exactly one record each.
MAPPED = (
    "Student",
    "StudentSchoolAssociation",
    "StudentSectionAssociation",
    "StudentAcademicRecord",
    "CourseTranscript",
    "Grade",
    "StudentAssessment",
    "StudentObjectiveAssessment",
    "AttendanceEvent",
    "StudentDisciplineIncidentAssociation",
    "DisciplineAction",
    "StudentProgramAssociation",
)


def _records(sink: MemorySink) -> list[tuple[str, record_pb2.Record]]:
    learner_of = {handle: learner for learner, handle in sink.handles.items()}
    return [
        (learner_of[versions[-1].handle], record_pb2.Record.FromString(versions[-1].content))
        for versions in sink.records.values()
    ]


def _is_main(record: record_pb2.Record) -> bool:
    """Not one of the further records that a Student row gives."""
    return record.source.entity != "Student" or record.WhichOneof("body") == "demographics"


def _compare(source: Path, sink: MemorySink, report: ImportReport, sample: int) -> None:
    """Counts of every entity, and ``sample`` random records value by value."""
    records = [(learner, record) for learner, record in _records(sink) if _is_main(record)]
    drawn = random.Random(20101).sample(records, sample)
    # One of every entity at least: the small ones would seldom be drawn.
    drawn += [next(pair for pair in records if pair[1].source.entity == entity) for entity in MAPPED]
    wanted = {(record.source.entity, learner) for learner, record in drawn}
    counts, kept = scan(source, lambda entity, learner: (entity, learner) in wanted)

    assert report.rows == dict(counts)
    of_entity = Counter(record.source.entity for _, record in records)
    assert dict(of_entity) == {entity: counts[entity] for entity in MAPPED}
    assert report.guardian_links == len(sink.guardians) == counts["StudentParentAssociation"]
    assert report.learners == len(sink.names) == counts["Student"]

    said_to_be = Counter((record.source.file, record.source.entity, learner) for learner, record in records)
    for learner, record in drawn:
        entity = record.source.entity
        candidates = kept[record.source.file, entity, learner]
        assert len(candidates) == said_to_be[record.source.file, entity, learner]
        values = held(entity, record)
        assert values in [expected(entity, candidate) for candidate in candidates]


def test_subset_equals_the_source_in_counts_and_values(edfi_subset: Path) -> None:
    sink = MemorySink()
    report = import_edfi([edfi_subset], sink)
    assert (report.rejected, report.exit_code) == (0, 0)
    _compare(edfi_subset, sink, report, 200)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_full_set_equals_the_source_in_counts_and_values(edfi_zip: Path) -> None:
    sink = MemorySink()
    report = import_edfi([edfi_zip], sink)
    assert (report.learners, report.guardian_links, report.rejected) == (960, 1872, 0)
    _compare(edfi_zip, sink, report, 200)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("school", "learners"), [("255901001", 320), ("255901044", 240), ("255901107", 400)])
def test_only_one_schools_learners_are_kept(edfi_zip: Path, school: str, learners: int) -> None:
    sink = MemorySink()
    report = import_edfi([edfi_zip], sink, only_school=school)
    assert report.learners == learners
    enrolments = [
        record.context.place_id for _, record in _records(sink) if record.source.entity == "StudentSchoolAssociation"
    ]
    assert enrolments == [school] * learners


def test_every_record_is_within_the_contracts_bounds_and_in_a_leaf_section(subset_sink: MemorySink) -> None:
    for learner, record in _records(subset_sink):
        assert record.section in LEAVES
        assert not record.record_id, "the sink sets it"
        record.record_id, record.recorded_at, record.version = bytes(16), 1, 1
        check_strictly(record, f"{learner}.{record.source.entity}")


def test_no_social_security_number_address_or_telephone_is_kept(subset_sink: MemorySink, edfi_subset: Path) -> None:
    _, kept = scan(edfi_subset, lambda entity, _learner: entity == "Student")
    private = {
        value
        for found in (element for elements in kept.values() for element in elements)
        for value in (
            found.texts("StudentIdentificationCode/IdentificationCode")[1],
            found.text("Address/StreetNumberName"),
            *found.texts("Telephone/TelephoneNumber"),
            *found.texts("ElectronicMail/EmailAddress"),
        )
    }
    assert len(private) > 3 * 128
    content = b"\n".join(versions[-1].content for versions in subset_sink.records.values())
    assert [value for value in private if value.encode() in content] == []


def test_titles_subjects_and_days_come_from_the_files_that_explain_codes(subset_sink: MemorySink) -> None:
    grades = [record for _, record in _records(subset_sink) if record.source.entity == "Grade"]
    algebra = next(record for record in grades if record.grade.course_code == "ALG-1")
    assert (algebra.grade.course_title, algebra.dimension) == ("Algebra I", "Mathematics")
    first = next(record for record in grades if record.grade.grading_period == "First Six Weeks")
    assert (first.observed_on, first.context.place != "") == ("2010-10-03", True)


def test_state_tests_and_supplemental_tests_are_told_apart(subset_sink: MemorySink) -> None:
    sections: dict[str, set[str]] = {}
    for _, record in _records(subset_sink):
        if record.source.entity == "StudentAssessment":
            sections.setdefault(record.assessment.title.partition(" ")[0], set()).add(record.section)
    state = {title for title, found in sections.items() if found == {"transcript.assessments.state"}}
    supplemental = {title for title, found in sections.items() if found == {"personal.assessments"}}
    assert (state, supplemental) == ({"TAKS", "TAKS-M", "TELPAS"}, {"ACT", "SAT", "PSAT", "AP", "IB"})


def test_guardians_carry_relation_and_contact_facts_verbatim(subset_sink: MemorySink) -> None:
    relations = Counter(link.relation for link in subset_sink.guardians.values())
    assert set(relations) == {"Mother", "Father", "Father, step"}
    away = [link for link in subset_sink.guardians.values() if link.lives_with is False]
    assert away
    assert all(link.display_name and link.primary_contact is not None for link in subset_sink.guardians.values())

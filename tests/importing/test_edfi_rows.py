"""One bad row costs one row: it is rejected with file, line, field and reason, and everything else arrives."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from permslip._pb.permslip.v1 import record_pb2
from permslip.errors import ImportFileError
from permslip_node.importing import SOME_REJECTED, ImportReport, MemorySink, import_edfi, import_families
from tests.importing.conftest import WriteEdFi


def grade(learner: str, mark: str = "60", *, course: str = "ALG-1", extra: str = "") -> str:
    return f"""<Grade><NumericGradeEarned>{mark}</NumericGradeEarned><GradeType>Final</GradeType>{extra}
<StudentSectionAssociationReference><StudentSectionAssociationIdentity>
<StudentIdentity><StudentUniqueStateId>{learner}</StudentUniqueStateId></StudentIdentity>
<SectionIdentity><LocalCourseCode>{course}</LocalCourseCode></SectionIdentity>
</StudentSectionAssociationIdentity></StudentSectionAssociationReference></Grade>
"""


def student(learner: str, extra: str = "") -> str:
    return f"""<Student id="S{learner}"><StudentUniqueStateId>{learner}</StudentUniqueStateId>
<Name><FirstName>Ada</FirstName><LastSurname>Byron</LastSurname></Name>{extra}</Student>
"""


PARENT = """<Parent id="P1"><ParentUniqueStateId>G1</ParentUniqueStateId>
<Name><FirstName>Anne</FirstName><LastSurname>Byron</LastSurname></Name></Parent>
"""


def link(learner: str = "S1", guardian: str = "P1", extra: str = "") -> str:
    return (
        f'<StudentParentAssociation><StudentReference ref="{learner}"/><ParentReference ref="{guardian}"/>'
        f"<Relation>Mother</Relation>{extra}</StudentParentAssociation>"
    )


def run(path: Path, sink: MemorySink, rejects: Path, **options: Any) -> tuple[ImportReport, list[dict[str, Any]]]:
    report = import_edfi([path], sink, rejects=rejects, **options)
    lines = rejects.read_text().splitlines() if rejects.exists() else []
    assert len(lines) == report.rejected
    return report, [json.loads(line) for line in lines]


def records(sink: MemorySink) -> list[record_pb2.Record]:
    return [record_pb2.Record.FromString(versions[-1].content) for versions in sink.records.values()]


def test_bad_rows_are_rejected_by_line_and_field_and_the_rest_arrives(
    write_edfi: WriteEdFi, sink: MemorySink, tmp_path: Path
) -> None:
    path = write_edfi("StudentGrade", grade("1") + grade("2", "A?") + grade("", "70") + grade("3", course="x" * 200))
    report, rejected = run(path, sink, tmp_path / "rejects.jsonl")
    assert report.exit_code == SOME_REJECTED
    assert [record.value.text for record in records(sink)] == ["60"]
    section = "StudentSectionAssociation/Section/LocalCourseCode"
    student_id = "StudentSectionAssociation/Student/StudentUniqueStateId"
    assert [(reject["file"], reject["entity"]) for reject in rejected] == [(str(path), "Grade")] * 3
    assert [(reject["line"], reject["field"], reject["reason"]) for reject in rejected] == [
        (8, "NumericGradeEarned", "expected a decimal number, got 'A?'."),
        (13, student_id, "the row names no learner that can be found."),
        (18, section, "expected at most 128 bytes of text, got 200."),
    ]


def test_the_rejects_file_is_for_its_owner_alone_and_begun_anew(
    write_edfi: WriteEdFi, sink: MemorySink, tmp_path: Path
) -> None:
    rejects = tmp_path / "rejects.jsonl"
    run(write_edfi("StudentGrade", grade("2", "A?")), sink, rejects)
    assert stat.S_IMODE(rejects.stat().st_mode) == 0o600
    run(write_edfi("StudentGrade", grade("2", "60")), sink, rejects)
    assert not rejects.exists()


def test_a_rejects_file_that_cannot_be_written_is_an_error(
    write_edfi: WriteEdFi, sink: MemorySink, tmp_path: Path
) -> None:
    with pytest.raises(ImportFileError, match="rejects file cannot be written"):
        import_edfi([write_edfi("StudentGrade", grade("2", "A?"))], sink, rejects=tmp_path / "none" / "rejects.jsonl")


@pytest.mark.parametrize(
    ("row", "field"),
    [
        (grade("1").replace("<GradeType>Final</GradeType>", ""), "GradeType"),
        (grade("1", extra="<DiagnosticStatement>&#x202e;</DiagnosticStatement>"), "DiagnosticStatement"),
        (grade("1", extra=f"<Own>{'x' * 5000}</Own>"), "Own"),
        (grade("1", extra="".join(f"<Own{number}>x</Own{number}>" for number in range(300))), "Grade"),
        (grade("1", extra="".join(f"<Own{number}>{'x' * 4000}</Own{number}>" for number in range(20))), "Grade"),
        (grade("1" * 600), "StudentSectionAssociation/Student/StudentUniqueStateId"),
    ],
    ids=["missing", "bidirectional override", "text too long", "too many facts", "too large", "learner id too long"],
)
def test_a_row_that_no_record_can_hold_is_rejected(
    write_edfi: WriteEdFi, sink: MemorySink, tmp_path: Path, row: str, field: str
) -> None:
    _, [rejected] = run(write_edfi("StudentGrade", row), sink, tmp_path / "rejects")
    assert rejected["field"] == field
    assert sink.records == {}


def test_what_has_no_field_of_its_own_is_kept_under_its_path(write_edfi: WriteEdFi, sink: MemorySink) -> None:
    import_edfi([write_edfi("StudentGrade", grade("1", extra="<Own><Thing>7</Thing></Own>"))], sink)
    [record] = records(sink)
    assert [(fact.name, fact.text) for fact in record.source.further] == [("Own/Thing", "7")]


def test_a_second_place_for_a_value_is_kept_only_when_it_says_something_else(
    write_edfi: WriteEdFi, sink: MemorySink
) -> None:
    period = "<GradingPeriodReference><GradingPeriodIdentity><SchoolYear>{}</SchoolYear></GradingPeriodIdentity>"
    rows = [
        grade("1", extra=period.format(year) + "</GradingPeriodReference><SchoolYear>2026</SchoolYear>")
        for year in ("2026", "2027")
    ]
    import_edfi([write_edfi("StudentGrade", "".join(rows))], sink)
    assert [
        (record.context.school_year, [(fact.name, fact.text) for fact in record.source.further])
        for record in records(sink)
    ] == [("2026", []), ("2027", [("SchoolYear", "2026")])]


def test_rows_with_the_same_key_stand_side_by_side(write_edfi: WriteEdFi, sink: MemorySink) -> None:
    report = import_edfi([write_edfi("StudentGrade", grade("1", "60") + grade("1", "60") + grade("1", "70"))], sink)
    assert report.inserted == 3
    assert [record.source.native_id[-2:] for record in records(sink)] == ["al", "#2", "#3"]


def test_a_student_repeated_word_for_word_is_one_record_and_a_different_one_stands_beside(
    write_edfi: WriteEdFi, sink: MemorySink
) -> None:
    rows = student("1") + student("1") + student("1", "<Sex>Female</Sex>")
    report = import_edfi([write_edfi("StudentParent", rows)], sink)
    assert (report.inserted, report.repeated) == (2, 1)


def test_a_part_of_a_student_that_cannot_be_read_costs_that_part_alone(
    write_edfi: WriteEdFi, sink: MemorySink, tmp_path: Path
) -> None:
    characteristic = "<StudentCharacteristics><Characteristic>{}</Characteristic><BeginDate>{}</BeginDate></{}>"
    extra = "".join(
        characteristic.format(name, day, "StudentCharacteristics")
        for name, day in (("Migratory", "20013-04-20"), ("Immigrant", "2013-04-20"))
    )
    _, [rejected] = run(write_edfi("StudentParent", student("1", extra)), sink, tmp_path / "rejects")
    assert rejected["field"] == "StudentCharacteristics/BeginDate"
    assert [record.WhichOneof("body") for record in records(sink)] == ["demographics", "observation"]


def test_sensitive_facts_of_a_student_stand_in_sensitive_sections(write_edfi: WriteEdFi, sink: MemorySink) -> None:
    extra = (
        "<EconomicDisadvantaged>true</EconomicDisadvantaged>"
        "<Disabilities><Disability>Deaf-Blindness</Disability></Disabilities>"
    )
    import_edfi([write_edfi("StudentParent", student("1", extra))], sink)
    found = {record.section: record for record in records(sink)}
    assert found["variability.background.socioeconomic_status"].value.text == "true"
    assert found["personal.health"].health.kind == "Deaf-Blindness"
    assert b"Deaf" not in found["identity.demographics"].SerializeToString()


def test_a_link_carries_custody_and_contact_verbatim(write_edfi: WriteEdFi, sink: MemorySink) -> None:
    facts = "<LivesWith>false</LivesWith><ContactRestrictions>No pickup</ContactRestrictions>"
    import_edfi([write_edfi("StudentParent", student("1") + PARENT + link(extra=facts))], sink)
    [guardian] = sink.guardians.values()
    assert (guardian.display_name, guardian.relation, guardian.contact_restrictions) == (
        "Anne Byron",
        "Mother",
        "No pickup",
    )
    assert (guardian.lives_with, guardian.primary_contact) == (False, None)
    assert sink.names["1"].display_name == "Ada Byron"


def test_a_learners_birth_date_goes_with_her_name(write_edfi: WriteEdFi, sink: MemorySink) -> None:
    born = "<BirthData><BirthDate>2008-02-29</BirthDate></BirthData>"
    import_edfi([write_edfi("Student", student("1", born) + student("2"))], sink)
    assert {each.native_learner_id: each.birth_date for each in sink.names.values()} == {"1": "2008-02-29", "2": ""}


@pytest.mark.parametrize(
    ("row", "field"),
    [
        (link("S9"), "Student/StudentUniqueStateId"),
        (link("S1", "P9"), "Parent/ParentUniqueStateId"),
        (link(extra="<LivesWith>sometimes</LivesWith>"), "LivesWith"),
    ],
    ids=["unknown learner", "unknown guardian", "no flag"],
)
def test_a_link_that_cannot_be_followed_is_rejected(
    write_edfi: WriteEdFi, sink: MemorySink, tmp_path: Path, row: str, field: str
) -> None:
    _, [rejected] = run(write_edfi("StudentParent", student("1") + PARENT + row), sink, tmp_path / "rejects")
    assert (rejected["entity"], rejected["field"]) == ("StudentParentAssociation", field)
    assert sink.guardians == {}


def test_a_row_may_refer_to_one_that_comes_later(write_edfi: WriteEdFi, sink: MemorySink) -> None:
    report = import_edfi([write_edfi("StudentParent", link() + student("1") + PARENT)], sink)
    assert (report.rejected, report.guardian_links) == (0, 1)


def test_entities_that_nothing_maps_are_counted_by_name(write_edfi: WriteEdFi, sink: MemorySink) -> None:
    report = import_edfi([write_edfi("StudentGrade", "<Diploma/><Diploma><A>1</A></Diploma>" + grade("1"))], sink)
    assert (report.unmapped, report.exit_code) == ({"Diploma": 2}, 0)


def test_a_school_that_no_enrolment_names_is_an_error(write_edfi: WriteEdFi, sink: MemorySink) -> None:
    with pytest.raises(ImportFileError, match="no learner is enrolled at the school '7'"):
        import_edfi([write_edfi("StudentGrade", grade("1"))], sink, only_school="7")


def test_families_alone_are_read_for_a_platforms_learners(write_edfi: WriteEdFi, sink: MemorySink) -> None:
    write_edfi("StudentGrade", grade("1"))
    path = write_edfi("StudentParent", student("1") + student("2") + PARENT + link() + link("S2"))
    report = import_families([path.parent], sink, learners=["2"])
    assert [guardian.native_learner_id for guardian in sink.guardians.values()] == ["2"]
    assert (sink.records, report.guardian_links, report.elsewhere) == ({}, 1, 1)


def test_progress_is_told_up_to_the_end_of_each_file(write_edfi: WriteEdFi, sink: MemorySink) -> None:
    path = write_edfi("StudentGrade", grade("1"))
    told: list[tuple[str, int, int]] = []
    import_edfi([path], sink, on_progress=lambda *progress: told.append(progress))
    size = path.stat().st_size
    assert told[-1] == (str(path), size, size)


def test_ids_hold_within_one_file(write_edfi: WriteEdFi, sink: MemorySink, tmp_path: Path) -> None:
    first = write_edfi("StudentParent", student("1") + PARENT + link())
    second = tmp_path / "edfi" / "StudentParent2.xml"
    other = (student("2") + PARENT + link()).replace('id="S2"', 'id="S1"').replace("G1", "G2").replace("Anne", "Bea")
    second.write_text(first.read_text().replace(student("1") + PARENT + link(), other))
    report, _ = run(first.parent, sink, tmp_path / "rejects")
    assert sorted(sink.guardians) == [("1", "G1"), ("2", "G2")]
    assert report.rejected == 0

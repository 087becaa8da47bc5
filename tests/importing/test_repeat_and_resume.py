"""Importing twice, importing a newer export, and going on after an interruption."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from permslip_node.importing import ImportedRecord, MemorySink, PutCounts, import_edfi, import_lms
from permslip_node.sample_district import District, generate_district
from tests.importing.conftest import WriteEdFi
from tests.importing.test_edfi_rows import grade, link


class PowerCutError(Exception):
    pass


class FailingSink(MemorySink):
    """A store that goes away after so many batches of records."""

    def __init__(self, batches: int) -> None:
        super().__init__()
        self.batches_left = batches

    def put_records(self, records: Sequence[ImportedRecord]) -> PutCounts:
        if self.batches_left == 0:
            raise PowerCutError
        self.batches_left -= 1
        return super().put_records(records)


@pytest.fixture(scope="module")
def district(tmp_path_factory: pytest.TempPathFactory) -> District:
    return generate_district(tmp_path_factory.mktemp("district"), learners=60, seed=3)


def _contents(sink: MemorySink) -> list[tuple[str, bytes]]:
    """What is stored, whatever the handles."""
    return sorted((versions[-1].section, versions[-1].content) for versions in sink.records.values())


def test_the_same_files_twice_change_nothing(district: District, sink: MemorySink) -> None:
    first = import_edfi([district.edfi], sink)
    versions = {identity: len(found) for identity, found in sink.records.items()}
    second = import_edfi([district.edfi], sink)
    assert first.inserted == len(sink.records) > 4000
    assert (second.inserted, second.versioned, second.unchanged) == (0, 0, first.inserted)
    assert {identity: len(found) for identity, found in sink.records.items()} == versions


def test_the_same_extract_twice_changes_nothing(district: District, sink: MemorySink) -> None:
    first, second = import_lms(district.lms, sink), import_lms(district.lms, sink)
    assert (second.inserted, second.versioned, second.unchanged) == (0, 0, first.inserted)


def test_a_newer_file_makes_versions_of_what_changed(write_edfi: WriteEdFi, sink: MemorySink) -> None:
    import_edfi([write_edfi("StudentGrade", grade("1", "60") + grade("2", "70"))], sink)
    report = import_edfi([write_edfi("StudentGrade", grade("1", "65") + grade("2", "70") + grade("3", "80"))], sink)
    assert (report.inserted, report.versioned, report.unchanged) == (1, 1, 1)
    assert sorted(len(versions) for versions in sink.records.values()) == [1, 1, 2]


def test_what_a_newer_file_leaves_out_stays(write_edfi: WriteEdFi, sink: MemorySink) -> None:
    import_edfi([write_edfi("StudentGrade", grade("1") + grade("2"))], sink)
    import_edfi([write_edfi("StudentGrade", grade("1"))], sink)
    assert len(sink.records) == 2


def test_rows_in_another_order_are_the_same_rows(write_edfi: WriteEdFi, sink: MemorySink) -> None:
    import_edfi([write_edfi("StudentGrade", grade("1") + grade("2"))], sink)
    report = import_edfi([write_edfi("StudentGrade", grade("2") + grade("1"))], sink)
    assert report.unchanged == 2


@pytest.mark.parametrize("batches", [0, 1, 2])
def test_an_interrupted_import_goes_on_at_its_last_checkpoint(district: District, batches: int) -> None:
    sink = FailingSink(batches)
    with pytest.raises(PowerCutError):
        import_edfi([district.edfi], sink)
    stored = len(sink.records)
    [position] = sink.checkpoints.values() or [0]
    sink.batches_left = -1
    report = import_edfi([district.edfi], sink)
    assert report.resumed_at == position
    assert (report.inserted, report.unchanged) == (len(sink.records) - stored, 0)
    assert sink.checkpoints == {}

    whole = MemorySink()
    import_edfi([district.edfi], whole)
    assert _contents(sink) == _contents(whole)
    assert (sink.guardians, sink.names) == (whole.guardians, whole.names)


def test_repeated_keys_keep_their_numbers_across_an_interruption(write_edfi: WriteEdFi) -> None:
    path = write_edfi("StudentGrade", "".join(grade("1", str(mark)) for mark in range(5000)))
    sink, whole = FailingSink(1), MemorySink()
    with pytest.raises(PowerCutError):
        import_edfi([path], sink)
    sink.batches_left = -1
    report = import_edfi([path], sink)
    import_edfi([path], whole)
    assert (report.inserted, report.versioned) == (3000, 0)
    assert _contents(sink) == _contents(whole)


def test_other_files_or_another_school_do_not_continue_an_interrupted_import(
    district: District, tmp_path: Path
) -> None:
    sink = FailingSink(1)
    with pytest.raises(PowerCutError):
        import_edfi([district.edfi], sink)
    sink.batches_left = -1
    assert import_edfi([district.edfi], sink, only_school=district.schools[0].identifier).resumed_at == 0
    other = generate_district(tmp_path, learners=9, seed=4)
    assert import_edfi([other.edfi], sink).resumed_at == 0


def test_rejects_before_the_interruption_stand_once_in_the_file(write_edfi: WriteEdFi, tmp_path: Path) -> None:
    rejects = tmp_path / "rejects.jsonl"
    path = write_edfi("StudentGrade", grade("1", "A?") + "".join(grade("1", str(mark)) for mark in range(5000)))
    sink = FailingSink(1)
    with pytest.raises(PowerCutError):
        import_edfi([path], sink, rejects=rejects)
    sink.batches_left = -1
    import_edfi([path], sink, rejects=rejects)
    assert len(rejects.read_text().splitlines()) == 1


def test_no_checkpoint_passes_a_row_that_waits_for_a_later_one(write_edfi: WriteEdFi) -> None:
    """The waiting row is delivered at the file's end; until then an interruption must not lose it."""
    enrolments = "".join(
        f"""<StudentSchoolAssociation><StudentReference ref="S"/><SchoolReference><EducationalOrgIdentity>
<StateOrganizationId>{school}</StateOrganizationId></EducationalOrgIdentity></SchoolReference>
<EntryDate>2026-01-05</EntryDate><EntryGradeLevel>Ninth grade</EntryGradeLevel></StudentSchoolAssociation>"""
        for school in range(4100)
    )
    late = '<StudentReference id="S"><StudentIdentity><StudentUniqueStateId>1</StudentUniqueStateId></StudentIdentity>'
    path = write_edfi("StudentEnrollment", enrolments + late + "</StudentReference>")
    sink = FailingSink(1)
    with pytest.raises(PowerCutError):
        import_edfi([path], sink)
    assert sink.checkpoints == {}
    sink.batches_left = -1
    import_edfi([path], sink)
    assert len(sink.records) == 4100


def test_a_link_read_again_replaces_nothing(write_edfi: WriteEdFi, sink: MemorySink) -> None:
    rows = (
        '<Student id="S1"><StudentUniqueStateId>1</StudentUniqueStateId><Name><FirstName>A</FirstName>'
        "<LastSurname>B</LastSurname></Name></Student>"
        '<Parent id="P1"><ParentUniqueStateId>G1</ParentUniqueStateId><Name><FirstName>C</FirstName></Name></Parent>'
    )
    path = write_edfi("StudentParent", rows + link() + link())
    report = import_edfi([path], sink)
    assert (report.guardian_links, len(sink.guardians)) == (1, 1)

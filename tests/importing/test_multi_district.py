"""Two other dialects of Ed-Fi 1.0: references by natural key, ids that are words, custody and pick-up restrictions."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from permslip_node.importing import MemorySink, import_edfi

pytestmark = pytest.mark.data

NS = {"e": "http://ed-fi.org/0100"}


@pytest.fixture
def prior(shared_data: Path) -> Path:
    return shared_data / "multi-district" / "PriorDataSet"


def test_custody_and_pick_up_restrictions_are_kept_verbatim(prior: Path, sink: MemorySink) -> None:
    report = import_edfi([prior], sink)
    root = ET.parse(prior / "InterchangeStudentParent.xml").getroot()
    said = {
        (
            link.findtext(".//e:StudentUniqueStateId", "", NS),
            link.findtext(".//e:ParentUniqueStateId", "", NS),
        ): link.findtext("e:ContactRestrictions", "", NS)
        for link in root.findall("e:StudentParentAssociation", NS)
    }
    assert {key: link.contact_restrictions for key, link in sink.guardians.items()} == said
    assert set(said.values()) == {"", "No pickup", "Custody on Mondays, Wednesdays, Fridays only"}
    assert (report.learners, report.guardian_links) == (104, 208)


def test_repeated_students_are_one_record_for_each_different_wording(prior: Path, sink: MemorySink) -> None:
    report = import_edfi([prior], sink)
    root = ET.parse(prior / "InterchangeStudentParent.xml").getroot()
    students = root.findall("e:Student", NS)
    assert len(students) == report.rows["Student"] == 117
    demographics = [versions for versions in sink.records.values() if versions[-1].section == "identity.demographics"]
    assert 104 < len(demographics) < 117


def test_days_that_no_calendar_has_are_rejected_by_field(prior: Path, sink: MemorySink, tmp_path: Path) -> None:
    """The data set was aged by a program that wrote years of five digits."""
    report = import_edfi([prior], sink, rejects=tmp_path / "rejects")
    fields = Counter(json.loads(line)["field"] for line in (tmp_path / "rejects").read_text().splitlines())
    assert fields == {"StudentCharacteristics/BeginDate": 117, "ProgramParticipations/BeginDate": 117}
    assert report.exit_code == 3


def test_a_complete_set_by_natural_keys_equals_the_source_in_counts(shared_data: Path, sink: MemorySink) -> None:
    report = import_edfi([shared_data / "multi-district" / "odin" / "OdinSampleDataSet.zip"], sink)
    assert (report.rejected, report.learners, report.guardian_links) == (0, 10, 20)
    mapped = {entity: count for entity, count in report.records_by_entity.items() if "/" not in entity}
    assert mapped == {entity: report.rows[entity] for entity in mapped}
    assert mapped.keys() >= {"Grade", "ReportCard", "StudentCompetency", "StudentGradebookEntry", "CourseTranscript"}
    assert (mapped["Grade"], mapped["StudentGradebookEntry"], mapped["StudentCompetency"]) == (75, 1222, 375)

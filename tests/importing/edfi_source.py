"""An independent reader of Ed-Fi 1.0 files for the tests: nothing but ElementTree, and none of the importer's tables.

:func:`scan` counts the children of every root, and keeps those elements that a test asks for, with what they refer to.
:func:`expected` says, entity by entity and in XPath, which values a record of an element must carry; :func:`held` reads
the same values from a record. A test compares the two dictionaries.
"""

from __future__ import annotations

import copy
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any
from xml.etree import ElementTree as ET

from permslip._pb.permslip.v1 import record_pb2

NS = {"e": "http://ed-fi.org/0100"}

Wanted = Callable[[str, str], bool]


class Found:
    """An element with the elements of its file that it refers to by id."""

    def __init__(self, element: ET.Element, ids: dict[str, ET.Element]) -> None:
        self.element = element
        self.ids = {ref: ids[ref] for node in element.iter() if (ref := node.get("ref")) is not None and ref in ids}
        for referred in list(self.ids.values()):
            for node in referred.iter():
                ref = node.get("ref")
                if ref in ids:
                    self.ids[ref] = ids[ref]

    def text(self, path: str) -> str:
        """The text at a path of local names, through references by id; empty when there is none."""
        return next(iter(self.texts(path)), "")

    def texts(self, path: str) -> list[str]:
        nodes = [self.element]
        for step in path.split("/"):
            below: list[ET.Element] = []
            for node in nodes:
                referred = self.ids.get(node.get("ref", ""))
                below += node.findall(f"e:{step}", NS) + (
                    referred.findall(f"e:{step}", NS) if referred is not None else []
                )
            nodes = below
        return [text for node in nodes if (text := (node.text or "").strip())]

    def attributes(self, path: str, name: str) -> list[str]:
        found = self.element.findall("/".join(f"e:{step}" for step in path.split("/")), NS)
        return [value for node in found if (value := node.get(name))]


def members(source: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Every XML file of a folder or archive."""
    if source.is_dir():
        for path in sorted(source.glob("*.xml")):
            with path.open("rb") as stream:
                yield path.name, stream
    else:
        with zipfile.ZipFile(source) as archive:
            for name in archive.namelist():
                if name.endswith(".xml"):
                    with archive.open(name) as stream:
                        yield name.rpartition("/")[2], stream


def scan(source: Path, wanted: Wanted) -> tuple[Counter[str], dict[tuple[str, str, str], list[Found]]]:
    """Read everything.

    Args:
        source: folder or archive.
        wanted: (entity, learner) → whether to keep such elements.

    Returns:
        How many there are of each child of a root, and (file, entity, learner) → elements that were wanted.
    """
    counts: Counter[str] = Counter()
    kept: dict[tuple[str, str, str], list[Found]] = {}
    for name, stream in members(source):
        ids: dict[str, ET.Element] = {}
        learner_of_id: dict[str, str] = {}
        depth = 0
        root: ET.Element | None = None
        for event, element in ET.iterparse(stream, events=("start", "end")):
            if event == "start":
                depth += 1
                root = element if root is None else root
                continue
            depth -= 1
            if depth != 1:
                continue
            entity = element.tag.rpartition("}")[2]
            counts[entity] += 1
            learner = _learner(element, learner_of_id)
            if (xml_id := element.get("id")) is not None:
                ids[xml_id] = copy.deepcopy(element)
                learner_of_id[xml_id] = learner
            if learner and wanted(entity, learner):
                kept.setdefault((name, entity, learner), []).append(Found(copy.deepcopy(element), ids))
            assert root is not None
            root.clear()
    return counts, kept


def _learner(element: ET.Element, learner_of_id: dict[str, str]) -> str:
    own = element.find(".//e:StudentUniqueStateId", NS)
    if own is not None:
        return (own.text or "").strip()
    refs = (learner_of_id.get(node.get("ref", ""), "") for node in element.iter())
    return next((learner for learner in refs if learner), "")


_SECTION = {
    "place_id": "StateOrganizationId",
    "school_year": "SchoolYear",
    "term": "Term",
    "period": "ClassPeriodName",
    "room": "Location",
}


def _section(found: Found, path: str) -> dict[str, Any]:
    return {name: found.text(f"{path}/{step}") for name, step in _SECTION.items()}


def _test(found: Found, path: str) -> dict[str, Any]:
    return {
        "title": found.text(f"{path}/AssessmentTitle"),
        "subject": found.text(f"{path}/AcademicSubject"),
        "grade_level": found.text(f"{path}/GradeLevelAssessed"),
        "form_version": found.text(f"{path}/Version"),
    }


def _scores(found: Found) -> list[tuple[str, str]]:
    methods = found.attributes("ScoreResults", "AssessmentReportingMethod")
    return list(zip(methods, found.texts("ScoreResults/Result"), strict=True))


def expected(entity: str, found: Found) -> dict[str, Any]:
    """What a record of this element must hold."""
    text = found.text
    graded = "StudentSectionAssociationReference/StudentSectionAssociationIdentity/SectionIdentity"
    session = "StudentAcademicRecordReference/SessionReference/SessionIdentity"
    test = "StudentTestAssessmentReference/AssessmentReference/AssessmentIdentity"
    incident = "DisciplineIncidentReference"
    match entity:
        case "Grade":
            return {
                **_section(found, graded),
                "value": text("NumericGradeEarned"),
                "kind": text("GradeType"),
                "grading_period": text("GradingPeriodReference/GradingPeriodIdentity/GradingPeriod"),
                "code": text(f"{graded}/LocalCourseCode"),
            }
        case "CourseTranscript":
            return {
                "value": text("FinalNumericGradeEarned"),
                "marks": [text("FinalNumericGradeEarned"), text("FinalLetterGradeEarned")],
                "code": text("CourseReference/CourseIdentity/CourseCode/ID"),
                "result": text("CourseAttemptResult"),
                "method": text("MethodCreditEarned"),
                "credits": (text("CreditsAttempted/Credit"), text("CreditsEarned/Credit")),
                "grade_level": text("GradeLevelWhenTaken"),
                "place_id": text("EducationOrganizationReference/EducationalOrgIdentity/StateOrganizationId"),
                "school_year": text(f"{session}/SchoolYear"),
                "term": text(f"{session}/Term"),
            }
        case "StudentAcademicRecord":
            return {
                "totals": [("CumulativeCreditsEarned", text("CumulativeCreditsEarned/Credit"))],
                "place_id": text("SessionReference/SessionIdentity/StateOrganizationId"),
                "school_year": text("SessionReference/SessionIdentity/SchoolYear"),
                "term": text("SessionReference/SessionIdentity/Term"),
            }
        case "StudentSectionAssociation":
            return {
                **_section(found, "SectionReference/SectionIdentity"),
                "code": text("SectionReference/SectionIdentity/LocalCourseCode"),
                "span": (text("BeginDate"), text("EndDate")),
                "observed_on": text("BeginDate"),
            }
        case "StudentSchoolAssociation":
            return {
                "place_id": text("SchoolReference/EducationalOrgIdentity/StateOrganizationId"),
                "level": text("EntryGradeLevel"),
                "span": (text("EntryDate"), text("ExitWithdrawDate")),
                "observed_on": text("EntryDate"),
            }
        case "Student":
            codes = zip(
                found.attributes("StudentIdentificationCode", "IdentificationSystem"),
                found.texts("StudentIdentificationCode/IdentificationCode"),
                strict=True,
            )
            return {
                "names": tuple(
                    text(f"Name/{part}") for part in ("FirstName", "MiddleName", "LastSurname", "GenerationCodeSuffix")
                ),
                "birth_date": text("BirthData/BirthDate"),
                "sex": text("Sex"),
                "languages": found.texts("HomeLanguages/Language"),
                "local_ids": [code for system, code in codes if system != "SSN"],
            }
        case "StudentAssessment":
            return {
                **_test(found, "AssessmentReference/AssessmentIdentity"),
                "scores": _scores(found),
                "levels": list(
                    zip(
                        found.texts("PerformanceLevels/Description"),
                        found.texts("PerformanceLevels/PerformanceLevelMet"),
                        strict=True,
                    )
                ),
                "accommodations": found.texts("SpecialAccommodations/SpecialAccommodation"),
                "not_tested": text("ReasonNotTested"),
                "observed_on": text("AdministrationDate"),
            }
        case "StudentObjectiveAssessment":
            return {
                **_test(found, test),
                "objective": text(
                    "ObjectiveAssessmentReference/ObjectiveAssessmentIdentity/ObjectiveAssessmentIdentificationCode"
                ),
                "scores": _scores(found),
                "observed_on": text("StudentTestAssessmentReference/AdministrationDate"),
            }
        case "AttendanceEvent":
            return {
                **_section(found, "SectionReference/SectionIdentity"),
                "event": text("AttendanceEventCategory"),
                "kind": text("AttendanceEventType"),
                "reason": text("AttendanceEventReason"),
                "observed_on": text("EventDate"),
            }
        case "StudentDisciplineIncidentAssociation":
            return {
                "incident": text(f"{incident}/IncidentIdentifier"),
                "participation": text("StudentParticipationCode"),
                "behaviors": found.texts(f"{incident}/Behaviors/Description"),
                "observed_on": text(f"{incident}/IncidentDate"),
            }
        case "DisciplineAction":
            return {
                "incident": text(f"{incident}/DisciplineIncidentIdentity/IncidentIdentifier"),
                "actions": found.texts("Disciplines/ShortDescription"),
                "observed_on": text("DisciplineDate"),
            }
        case "StudentProgramAssociation":
            return {
                "program": text("ProgramReference/ProgramIdentity/ProgramType"),
                "span": (text("BeginDate"), text("EndDate")),
                "reason_exited": text("ReasonExited"),
                "services": found.texts("Services/ShortDescription"),
                "provider": text("EducationOrganizationReference/EducationalOrgIdentity/StateOrganizationId"),
            }
        case _:
            raise AssertionError(f"no expectation is written for {entity}")


def held(entity: str, record: record_pb2.Record) -> dict[str, Any]:
    """The same values, as the record holds them."""
    context = record.context
    where = {name: getattr(context, name) for name in _SECTION}
    match entity:
        case "Grade":
            grade = record.grade
            return {
                **where,
                "value": record.value.text,
                "kind": grade.kind,
                "grading_period": grade.grading_period,
                "code": grade.course_code,
            }
        case "CourseTranscript":
            course = record.course
            return {
                "value": record.value.text,
                "marks": [mark.value.text for mark in course.marks],
                "code": course.code,
                "result": course.result,
                "method": course.method,
                "credits": (course.credits_attempted, course.credits_earned),
                "grade_level": context.grade_level,
                "place_id": context.place_id,
                "school_year": context.school_year,
                "term": context.term,
            }
        case "StudentAcademicRecord":
            return {
                "totals": [(total.name, total.value.text) for total in record.credit_summary.totals],
                "place_id": context.place_id,
                "school_year": context.school_year,
                "term": context.term,
            }
        case "StudentSectionAssociation":
            return {
                **where,
                "code": record.course.code,
                "span": (record.course.began_on, record.course.ended_on),
                "observed_on": record.observed_on,
            }
        case "StudentSchoolAssociation":
            return {
                "place_id": context.place_id,
                "level": record.course.level,
                "span": (record.course.began_on, record.course.ended_on),
                "observed_on": record.observed_on,
            }
        case "Student":
            person = record.demographics
            return {
                "names": (person.first_name, person.middle_name, person.last_name, person.suffix),
                "birth_date": person.birth_date,
                "sex": person.sex,
                "languages": list(person.languages),
                "local_ids": list(person.local_ids),
            }
        case "StudentAssessment" | "StudentObjectiveAssessment":
            return _held_assessment(entity, record)
        case "AttendanceEvent":
            attendance = record.attendance
            return {
                **where,
                "event": attendance.event,
                "kind": attendance.kind,
                "reason": attendance.reason,
                "observed_on": record.observed_on,
            }
        case "StudentDisciplineIncidentAssociation":
            return {
                "incident": record.discipline.incident,
                "participation": record.discipline.participation,
                "behaviors": list(record.discipline.behaviors),
                "observed_on": record.observed_on,
            }
        case "DisciplineAction":
            return {
                "incident": record.discipline.incident,
                "actions": [action.name for action in record.discipline.actions],
                "observed_on": record.observed_on,
            }
        case "StudentProgramAssociation":
            service = record.service
            return {
                "program": service.program,
                "span": (service.began_on, service.ended_on),
                "reason_exited": service.reason_exited,
                "services": list(service.services),
                "provider": service.provider,
            }
        case _:
            raise AssertionError(f"no expectation is written for {entity}")


def _held_assessment(entity: str, record: record_pb2.Record) -> dict[str, Any]:
    assessment, context = record.assessment, record.context
    test = {
        "title": assessment.title,
        "subject": context.subject,
        "grade_level": context.grade_level,
        "form_version": assessment.form_version,
        "observed_on": record.observed_on,
    }
    if entity == "StudentObjectiveAssessment":
        [objective] = assessment.objectives
        return {
            **test,
            "objective": objective.name,
            "scores": [(score.name, score.value.text) for score in objective.scores],
        }
    return {
        **test,
        "scores": [(score.name, score.value.text) for score in assessment.scores],
        "levels": [(level.name, level.value.text) for level in assessment.performance_levels],
        "accommodations": list(assessment.accommodations),
        "not_tested": assessment.reason_not_tested,
    }

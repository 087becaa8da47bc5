"""A school district that does not exist: real file formats, invented people, for demonstrations and tests.

Rules:

- Deterministic: the same ``learners`` and ``seed`` give the same bytes on every machine.
- Read by the real importers, without a reject.
- Three schools (Ed-Fi Core 1.0 XML in ``edfi/``) and a learning platform with the high school's learners (Canvas-style
  CSV in ``lms/``). The learners of the platform have the same numbers at both.

Example::

    >>> district = generate_district(Path("build/district"), learners=36, seed=7)
    >>> [school.name for school in district.schools]
    ['Alder Creek High School', 'Alder Creek Middle School', 'Alder Creek Elementary School']
    >>> import_edfi([district.edfi], sink, only_school=district.schools[0].identifier).learners
    12
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from permslip_node.sample_district import edfi_learners, edfi_organization
from permslip_node.sample_district.lms_files import write_lms
from permslip_node.sample_district.people import Chance, School, draw_people
from permslip_node.sample_district.xml_writing import write_interchange

__all__ = ["District", "School", "generate_district"]


@dataclass(frozen=True, slots=True)
class District:
    """What was generated.

    Attributes:
        edfi: folder of Ed-Fi Core 1.0 XML.
        lms: folder of a Canvas-style extract.
        schools: high school, middle school, elementary school.
        learners: how many, at all schools together.
        lms_learners: native ids of the learners who are on the platform too.
        guardian_links: links between a guardian and a learner.
    """

    edfi: Path
    lms: Path
    schools: tuple[School, ...]
    learners: int
    lms_learners: tuple[str, ...]
    guardian_links: int


def generate_district(folder: Path, *, learners: int = 36, seed: int = 1) -> District:
    """Write a district's files.

    Args:
        folder: created where it is missing; its ``edfi`` and ``lms`` are written.
        learners: how many.
        seed: any integer.
    """
    people = draw_people(learners=learners, seed=seed)
    edfi, lms = folder / "edfi", folder / "lms"
    edfi.mkdir(parents=True, exist_ok=True)
    write_interchange(edfi, "EducationOrganization", edfi_organization.organization_rows(people))
    write_interchange(edfi, "EducationOrgCalendar", edfi_organization.calendar_rows(people))
    write_interchange(edfi, "StaffAssociation", edfi_organization.staff_rows(people))
    write_interchange(edfi, "AssessmentMetadata", edfi_organization.assessment_rows())
    write_interchange(edfi, "StudentParent", edfi_learners.family_rows(people))
    write_interchange(edfi, "StudentEnrollment", edfi_learners.enrolment_rows(people))
    # Each file draws from a sequence of its own: a change to one leaves the others as they are.
    for number, (name, rows) in enumerate(
        (
            ("StudentGrade", edfi_learners.grade_rows),
            ("StudentAttendance", edfi_learners.attendance_rows),
            ("StudentDiscipline", edfi_learners.discipline_rows),
            ("StudentProgram", edfi_learners.program_rows),
            ("StudentAssessment", edfi_learners.state_test_rows),
        ),
        start=1,
    ):
        write_interchange(edfi, name, rows(people, Chance(seed * 1000 + number)))
    on_platform = write_lms(lms, people, Chance(seed * 1000))
    return District(
        edfi=edfi,
        lms=lms,
        schools=people.schools,
        learners=len(people.learners),
        lms_learners=tuple(learner.identifier for learner in on_platform),
        guardian_links=sum(len(learner.guardians) for learner in people.learners),
    )

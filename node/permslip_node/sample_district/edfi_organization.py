"""Ed-Fi files of the sample district that speak of no learner: organizations, calendar, staff, tests.

Every function returns the rows of one interchange; :mod:`permslip_node.sample_district` writes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from permslip_node.sample_district.people import SUBJECTS, YEAR, People, School
from permslip_node.sample_district.school_year import PERIODS, TERMS
from permslip_node.sample_district.xml_writing import Element, element, identity

__all__ = [
    "DISTRICT_ID",
    "STATE_TEST",
    "assessment_rows",
    "calendar_rows",
    "course_code",
    "organization_rows",
    "section_identity",
    "staff_rows",
]

DISTRICT_ID: Final = "480901"
DISTRICT_NAME: Final = "Alder Creek Independent School District"
STATE_TEST: Final = "Prairie State Assessment"
_TEST_GRADES: Final = ("Third", "Fourth", "Fifth", "Sixth", "Seventh", "Eighth", "Ninth", "Tenth", "Eleventh")


def course_code(subject: int, grade: int) -> str:
    """The code of the course in a subject at a grade, e.g. ``MATH-09``."""
    return f"{SUBJECTS[subject][0]}-{grade:02d}"


def organization(reference: str, identifier: str) -> Element:
    """A reference to an organization."""
    return identity(reference, "EducationalOrgIdentity", element("StateOrganizationId", identifier))


def section_identity(school: School, subject: int, grade: int, term: int) -> Element:
    """What identifies the section of a course: one for each course and term."""
    return element(
        "SectionIdentity",
        element("StateOrganizationId", school.identifier),
        element("LocalCourseCode", course_code(subject, grade)),
        element("SchoolYear", YEAR),
        element("Term", TERMS[term].name),
        element("ClassPeriodName", f"{subject + 1:02d} - Traditional"),
        element("Location", str(100 * (1 + subject) + grade)),
    )


def organization_rows(people: People) -> Iterator[Element]:
    """The district, its schools and their courses."""
    yield element(
        "LocalEducationAgency",
        element("StateOrganizationId", DISTRICT_ID),
        element("NameOfInstitution", DISTRICT_NAME),
        id=f"LEAG_{DISTRICT_ID}",
    )
    for school in people.schools:
        yield element(
            "School",
            element("StateOrganizationId", school.identifier),
            element("NameOfInstitution", school.name),
            element("SchoolCategories", element("SchoolCategory", school.category)),
            element("LocalEducationAgencyReference", ref=f"LEAG_{DISTRICT_ID}"),
            id=f"SCOL_{school.identifier}",
        )
    for school in people.schools:
        for grade in school.grades:
            for subject, (_, title, area) in enumerate(SUBJECTS):
                yield element(
                    "Course",
                    element("CourseTitle", f"{title}, Grade {grade}"),
                    element("NumberOfParts", "1"),
                    element(
                        "CourseCode",
                        element("ID", course_code(subject, grade)),
                        IdentificationSystem="LEA course code",
                    ),
                    element("SubjectArea", area),
                    element("EducationOrganizationReference", ref=f"SCOL_{school.identifier}"),
                )


def calendar_rows(people: People) -> Iterator[Element]:
    """Sessions and grading periods."""
    for school in people.schools:
        for number, term in enumerate(TERMS):
            yield element(
                "Session",
                element("SessionName", "Traditional"),
                element("SchoolYear", YEAR),
                element("Term", term.name),
                element("BeginDate", term.begin),
                element("EndDate", term.end),
                organization("EducationOrganizationReference", school.identifier),
                *(
                    element("GradingPeriodReference", ref=f"GRDP_{period.begin}")
                    for period in PERIODS
                    if period.term == number
                ),
            )
    for period in PERIODS:
        yield element(
            "GradingPeriod",
            element("GradingPeriod", period.name),
            element("BeginDate", period.begin),
            element("EndDate", period.end),
            id=f"GRDP_{period.begin}",
        )


def staff_rows(people: People) -> Iterator[Element]:
    """Teachers, and which sections they teach."""
    for number, (first, last) in enumerate(people.teachers):
        yield element(
            "Teacher",
            element("StaffUniqueStateId", str(900001 + number)),
            element("Name", element("FirstName", first), element("LastSurname", last)),
        )
    for school in people.schools:
        for grade in school.grades:
            for subject in range(len(SUBJECTS)):
                for term in range(len(TERMS)):
                    staff = str(900001 + people.teacher_number(school, subject))
                    yield element(
                        "TeacherSectionAssociation",
                        identity("TeacherReference", "StaffIdentity", element("StaffUniqueStateId", staff)),
                        element("SectionReference", section_identity(school, subject, grade, term)),
                        element("ClassroomPosition", "Teacher of Record"),
                    )


def assessment_rows() -> Iterator[Element]:
    """The state test, in two subjects at each grade that takes it, and a college entrance exam."""
    for grade in _TEST_GRADES:
        for subject in ("Mathematics", "Reading"):
            yield _assessment(STATE_TEST, "State summative assessment 3-8 general", subject, f"{grade} grade")
    for subject in ("Mathematics", "Critical Reading"):
        yield _assessment("PSAT", "College entrance exam", subject, "Eleventh grade")


def _assessment(title: str, category: str, subject: str, grade: str) -> Element:
    return element(
        "Assessment",
        element("AssessmentTitle", title),
        element("AssessmentCategory", category),
        element("AcademicSubject", subject),
        element("GradeLevelAssessed", grade),
        element("Version", "1"),
    )

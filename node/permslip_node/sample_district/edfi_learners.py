"""Ed-Fi files of the sample district that speak of learners.

Every function returns the rows of one interchange; :mod:`permslip_node.sample_district` writes them. References are
written in both of Ed-Fi 1.0's ways, by id and by natural key, as real exports mix them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from permslip_node.sample_district.edfi_organization import (
    DISTRICT_ID,
    STATE_TEST,
    course_code,
    organization,
    section_identity,
)
from permslip_node.sample_district.people import SUBJECTS, YEAR, Chance, Guardian, Learner, People
from permslip_node.sample_district.school_year import PERIODS, TERMS, school_day
from permslip_node.sample_district.xml_writing import Element, element, identity

__all__ = [
    "attendance_rows",
    "discipline_rows",
    "enrolment_rows",
    "family_rows",
    "grade_rows",
    "program_rows",
    "state_test_rows",
]

_LETTERS: Final = ((90, "A"), (80, "B"), (70, "C"), (60, "D"), (0, "F"))
_ABSENCES: Final = (
    ("Excused Absence", "Absent excused"),
    ("Unexcused Absence", "Absent unexcused"),
    ("Tardy", "Late bus"),
)
_PROGRAMS: Final = (
    ("Gifted and Talented", "Enrichment"),
    ("Bilingual", "Language support"),
    ("Special Education", "Speech therapy"),
    ("Career and Technical Education", "Workplace visits"),
)
_CONDUCT: Final = (("DISRUPT", "Disruption of class"), ("DEVICE", "Use of a telephone in class"))


def letter(mark: int) -> str:
    """The letter for a mark out of 100."""
    return next(name for least, name in _LETTERS if mark >= least)


def student(learner: Learner) -> Element:
    """A reference to a learner by natural key."""
    return identity("StudentReference", "StudentIdentity", element("StudentUniqueStateId", learner.identifier))


def family_rows(people: People) -> Iterator[Element]:
    """Learners, guardians, and the links between them."""
    for learner in people.learners:
        yield element(
            "Student",
            element("StudentUniqueStateId", learner.identifier),
            element(
                "StudentIdentificationCode",
                element("IdentificationCode", learner.identifier[-4:]),
                IdentificationSystem="Local",
            ),
            element("Name", element("FirstName", learner.first_name), element("LastSurname", learner.last_name)),
            element("Sex", learner.sex),
            element("BirthData", element("BirthDate", learner.birth_date)),
            element("HomeLanguages", element("Language", learner.language) if learner.language else None),
            id=f"STUD_{learner.identifier}",
        )
    guardians: dict[str, Guardian] = {
        guardian.identifier: guardian for learner in people.learners for guardian in learner.guardians
    }
    for guardian in guardians.values():
        yield element(
            "Parent",
            element("ParentUniqueStateId", guardian.identifier),
            element("Name", element("FirstName", guardian.first_name), element("LastSurname", guardian.last_name)),
            element("Sex", guardian.sex),
            id=f"PRNT_{guardian.identifier}",
        )
    for learner in people.learners:
        for guardian in learner.guardians:
            yield element(
                "StudentParentAssociation",
                element("StudentReference", ref=f"STUD_{learner.identifier}"),
                element("ParentReference", ref=f"PRNT_{guardian.identifier}"),
                element("Relation", guardian.relation),
                element("PrimaryContactStatus", _flag(guardian.primary)),
                element("LivesWith", _flag(guardian.lives_with)),
                element("EmergencyContactStatus", _flag(guardian.primary)),
                element("ContactRestrictions", guardian.restrictions) if guardian.restrictions else None,
            )


def enrolment_rows(people: People) -> Iterator[Element]:
    """Schools and sections attended."""
    for learner in people.learners:
        yield element(
            "StudentSchoolAssociation",
            student(learner),
            organization("SchoolReference", learner.school.identifier),
            element("EntryDate", TERMS[0].begin),
            element("EntryGradeLevel", learner.grade_name),
        )
    for learner in people.learners:
        for subject in range(len(SUBJECTS)):
            for number, term in enumerate(TERMS):
                yield element(
                    "StudentSectionAssociation",
                    student(learner),
                    element("SectionReference", section_identity(learner.school, subject, learner.grade, number)),
                    element("BeginDate", term.begin),
                    element("EndDate", term.end),
                    element("HomeroomIndicator", _flag(subject == 0)),
                )


def grade_rows(people: People, chance: Chance) -> Iterator[Element]:
    """Credits, courses finished, and a grade for each subject and grading period."""
    subjects = range(len(SUBJECTS))
    for learner in people.learners:
        for number, term in enumerate(TERMS):
            yield element(
                "StudentAcademicRecord",
                element("CumulativeCreditsEarned", element("Credit", str(len(SUBJECTS) * (number + 1)))),
                student(learner),
                identity(
                    "SessionReference",
                    "SessionIdentity",
                    element("StateOrganizationId", learner.school.identifier),
                    element("SchoolYear", YEAR),
                    element("Term", term.name),
                ),
                id=f"SAR_{number + 1}_{learner.identifier}",
            )
    for learner in people.learners:
        for number in range(len(TERMS)):
            for subject in subjects:
                yield _transcript(learner, number, subject, chance.around(learner.strength[subject], 8, 50, 100))
    for learner in people.learners:
        for subject in subjects:
            for period in PERIODS:
                mark = chance.around(learner.strength[subject], 14, 45, 100)
                yield element(
                    "Grade",
                    element("NumericGradeEarned", str(mark)),
                    element("GradeType", "Grading Period"),
                    element(
                        "StudentSectionAssociationReference",
                        element(
                            "StudentSectionAssociationIdentity",
                            element("StudentIdentity", element("StudentUniqueStateId", learner.identifier)),
                            section_identity(learner.school, subject, learner.grade, period.term),
                        ),
                    ),
                    identity(
                        "GradingPeriodReference",
                        "GradingPeriodIdentity",
                        element("GradingPeriod", period.name),
                        element("SchoolYear", YEAR),
                        element("StateOrganizationId", learner.school.identifier),
                    ),
                )


def _transcript(learner: Learner, term: int, subject: int, mark: int) -> Element:
    return element(
        "CourseTranscript",
        element("CourseAttemptResult", "Pass" if mark >= 60 else "Fail"),
        element("CreditsAttempted", element("Credit", "1")),
        element("CreditsEarned", element("Credit", "1" if mark >= 60 else "0")),
        element("GradeLevelWhenTaken", learner.grade_name),
        element("MethodCreditEarned", "Classroom credit"),
        element("FinalLetterGradeEarned", letter(mark)),
        element("FinalNumericGradeEarned", str(mark)),
        identity(
            "CourseReference",
            "CourseIdentity",
            element(
                "CourseCode",
                element("ID", course_code(subject, learner.grade)),
                IdentificationSystem="LEA course code",
            ),
        ),
        organization("EducationOrganizationReference", learner.school.identifier),
        element("StudentAcademicRecordReference", ref=f"SAR_{term + 1}_{learner.identifier}"),
    )


def attendance_rows(people: People, chance: Chance) -> Iterator[Element]:
    """A few absences for most learners; a day and section never twice for one of them."""
    for learner in people.learners:
        for period in PERIODS:
            if not chance.happens(60):
                continue
            category, reason = chance.of(_ABSENCES)
            subject = chance.below(len(SUBJECTS))
            yield element(
                "AttendanceEvent",
                element("EventDate", school_day(period, chance.below(25))),
                element("AttendanceEventType", "Section Attendance"),
                element("AttendanceEventCategory", category),
                element("AttendanceEventReason", reason),
                element("EducationalEnvironment", "Classroom"),
                student(learner),
                element("SectionReference", section_identity(learner.school, subject, learner.grade, period.term)),
            )


def discipline_rows(people: People, chance: Chance) -> Iterator[Element]:
    """An incident and what followed, for one learner in eight."""
    for number, learner in enumerate(people.learners):
        if number % 8 != 3:
            continue
        code, description = chance.of(_CONDUCT)
        day = school_day(PERIODS[chance.below(len(PERIODS))], chance.below(25))
        incident = f"DISC_{number}_{learner.school.identifier}"
        yield element(
            "DisciplineIncident",
            element("IncidentIdentifier", str(number)),
            element("IncidentDate", day),
            element("IncidentLocation", "Classroom"),
            element("Behaviors", element("CodeValue", code), element("Description", description)),
            organization("SchoolReference", learner.school.identifier),
            id=incident,
        )
        yield element(
            "StudentDisciplineIncidentAssociation",
            student(learner),
            element("DisciplineIncidentReference", ref=incident),
            element("StudentParticipationCode", "Perpetrator"),
        )
        yield element(
            "DisciplineAction",
            element("DisciplineActionIdentifier", f"{number}-1"),
            element("Disciplines", element("CodeValue", "1"), element("ShortDescription", "Conversation at home")),
            element("DisciplineDate", day),
            student(learner),
            identity(
                "DisciplineIncidentReference",
                "DisciplineIncidentIdentity",
                element("IncidentIdentifier", str(number)),
                element("StateOrganizationId", learner.school.identifier),
            ),
            organization("ResponsibilitySchoolReference", learner.school.identifier),
        )


def program_rows(people: People, chance: Chance) -> Iterator[Element]:
    """A program for one learner in three."""
    for learner in people.learners:
        if not chance.happens(33):
            continue
        program, service = chance.of(_PROGRAMS)
        yield element(
            "StudentProgramAssociation",
            student(learner),
            identity(
                "ProgramReference",
                "ProgramIdentity",
                element("ProgramType", program),
                element("StateOrganizationId", DISTRICT_ID),
            ),
            element("BeginDate", TERMS[0].begin),
            element("EndDate", TERMS[1].end) if chance.happens(30) else None,
            organization("EducationOrganizationReference", DISTRICT_ID),
            element("Services", element("ShortDescription", service)),
        )


def state_test_rows(people: People, chance: Chance) -> Iterator[Element]:
    """The state test from third to eleventh grade, with one objective each; PSAT in eleventh."""
    for learner in people.learners:
        tests = [(STATE_TEST, 1, "Mathematics"), (STATE_TEST, 0, "Reading")] if 3 <= learner.grade <= 11 else []
        if learner.grade == 11:
            tests += [("PSAT", 1, "Mathematics"), ("PSAT", 0, "Critical Reading")]
        for title, subject, name in tests:
            mark = chance.around(learner.strength[subject], 12, 40, 100)
            xml_id = f"STA_{title}_{name}_{learner.identifier}".replace(" ", "")
            yield element(
                "StudentAssessment",
                element("AdministrationDate", "2026-04-14" if title == STATE_TEST else "2025-10-15"),
                element("AdministrationLanguage", "English"),
                element("AdministrationEnvironment", "School"),
                element("RetestIndicator", "Primary Administration"),
                element("ScoreResults", element("Result", str(mark // 2)), AssessmentReportingMethod="Raw score"),
                element(
                    "ScoreResults", element("Result", str(1200 + mark * 8)), AssessmentReportingMethod="Scale score"
                ),
                element(
                    "PerformanceLevels",
                    element("Description", "Met Standard"),
                    element("PerformanceLevelMet", _flag(mark >= 65)),
                ),
                student(learner),
                identity(
                    "AssessmentReference",
                    "AssessmentIdentity",
                    element("AssessmentTitle", title),
                    element("AcademicSubject", name),
                    element("GradeLevelAssessed", learner.grade_name),
                    element("Version", "1"),
                ),
                id=xml_id,
            )
            if title == STATE_TEST:
                yield element(
                    "StudentObjectiveAssessment",
                    element("ScoreResults", element("Result", str(mark // 10)), AssessmentReportingMethod="Raw score"),
                    element("StudentTestAssessmentReference", ref=xml_id),
                    identity(
                        "ObjectiveAssessmentReference",
                        "ObjectiveAssessmentIdentity",
                        element("ObjectiveAssessmentIdentificationCode", f"{name}-1"),
                    ),
                )


def _flag(flag: bool) -> str:
    return "true" if flag else "false"

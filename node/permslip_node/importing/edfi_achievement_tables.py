"""Ed-Fi Core 1.0: credits, courses, grades, assessments and mastery.

Part of the mapping that :mod:`permslip_node.importing.edfi_tables` describes as a whole.
"""

from __future__ import annotations

from typing import Any, Final

from permslip_node.importing.edfi_sections import SESSION, STUDENT, below, course_finds, section_key, where
from permslip_node.importing.mapping import Find, Many, Mapping, Score, Tables, Take, Values

__all__ = ["ASSESSMENTS", "STATE_TITLES", "TRANSCRIPTS", "assessment_section"]

STATE_TITLES: Final = frozenset({"TAKS", "TAKS-A", "TAKS-Alt", "TAKS-M", "TELPAS", "STAAR"})

# The identity of a test below what refers to it.
_TEST: Final = ("AssessmentTitle", "AcademicSubject", "GradeLevelAssessed", "Version")
_GRADED: Final = "StudentSectionAssociation/Section"
_TRANSCRIPT: Final = "StudentAcademicRecord/Session"


def assessment_section(values: Values, tables: Tables) -> str:
    """The section of a test; see :mod:`permslip_node.importing.edfi_tables`."""
    for prefix in ("Assessment", "StudentTestAssessment/Assessment", "StudentAssessment/Assessment"):
        test = tuple(values.get(f"{prefix}/{name}", "") for name in _TEST)
        if any(test):
            break
    category = tables["assessment_category"].get(test, "")
    if category.startswith("State") or (not category and test[0] in STATE_TITLES):
        return "transcript.assessments.state"
    return "transcript.assessments.district" if category.startswith("Benchmark") else "personal.assessments"


TRANSCRIPTS: Final = (
    Mapping(
        "StudentAcademicRecord",
        "transcript.credits",
        "credit_summary",
        learner=STUDENT,
        key=(*below("Session", SESSION), "SchoolYear"),
        takes=(
            Take("context.place_id", "Session/StateOrganizationId"),
            Take("context.school_year", "Session/SchoolYear|SchoolYear"),
            Take("context.term", "Session/Term|Session/SessionName"),
            *(
                Take("credit_summary.totals", path, "decimal", name=path.partition("/")[0])
                for path in (
                    "CumulativeCreditsEarned/Credit",
                    "CumulativeCreditsAttempted/Credit",
                    "CumulativeGradePointsEarned",
                    "CumulativeGradePointAverage",
                    "SessionCreditsEarned/Credit",
                    "SessionCreditsAttempted/Credit",
                    "SessionGradePointsEarned",
                    "SessionGradePointAverage",
                )
            ),
        ),
        finds=(
            Find("context.place", "school", ("Session/StateOrganizationId",)),
            Find("observed_on", "term_end", below("Session", SESSION)),
        ),
        omit=("ReportCard",),
    ),
    Mapping(
        "CourseTranscript",
        "transcript.courses",
        "course",
        learner=f"StudentAcademicRecord/{STUDENT}",
        key=(
            *below(_TRANSCRIPT, SESSION),
            "StudentAcademicRecord/SchoolYear",
            "EducationOrganization/StateOrganizationId",
            "Course/CourseCode/ID|Course/UniqueCourseId",
        ),
        takes=(
            Take(
                "context.place_id",
                f"EducationOrganization/StateOrganizationId|{_TRANSCRIPT}/StateOrganizationId",
            ),
            Take("context.school_year", f"{_TRANSCRIPT}/SchoolYear|StudentAcademicRecord/SchoolYear"),
            Take("context.term", f"{_TRANSCRIPT}/Term|{_TRANSCRIPT}/SessionName"),
            Take("context.grade_level", "GradeLevelWhenTaken"),
            Take("course.code", "Course/CourseCode/ID|Course/UniqueCourseId", required=True),
            Take("course.method", "MethodCreditEarned"),
            Take("course.result", "CourseAttemptResult", required=True),
            Take("course.credits_attempted", "CreditsAttempted/Credit", "decimal"),
            Take("course.credits_earned", "CreditsEarned/Credit", "decimal"),
            Take("course.credit_type", "CreditsEarned@CreditType"),
        ),
        scores=(
            Score("FinalNumericGradeEarned", "Final numeric grade", "decimal"),
            Score("FinalLetterGradeEarned", "Final letter grade"),
        ),
        also="course.marks",
        finds=(
            Find("context.place", "school", ("EducationOrganization/StateOrganizationId",)),
            *(
                Find(to, table, ("EducationOrganization/StateOrganizationId", "Course/CourseCode/ID"))
                for to, table in (
                    ("course.title", "course_title"),
                    ("context.subject", "course_subject"),
                    ("dimension", "course_subject"),
                )
            ),
            Find("observed_on", "term_end", below(_TRANSCRIPT, SESSION)),
        ),
    ),
    Mapping(
        "Grade",
        "transcript.grades",
        "grade",
        learner=f"StudentSectionAssociation/{STUDENT}",
        key=(
            *section_key(_GRADED),
            "GradingPeriod",
            "GradeType",
            "SchoolYear",
            "StudentSectionAssociation/BeginDate",
        ),
        takes=(
            *where(_GRADED, school="|GradingPeriod/StateOrganizationId", year="|GradingPeriod/SchoolYear|SchoolYear"),
            Take("grade.kind", "GradeType", required=True),
            Take("grade.grading_period", "GradingPeriod"),
            Take("grade.course_code", f"{_GRADED}/LocalCourseCode"),
            Take("grade.section_id", f"{_GRADED}/UniqueSectionCode"),
            Take("grade.comment", "DiagnosticStatement"),
        ),
        scores=(Score("NumericGradeEarned", "Numeric grade", "decimal"), Score("LetterGradeEarned", "Letter grade")),
        also="grade.marks",
        finds=(
            *course_finds(_GRADED, "grade.course_title"),
            Find(
                "observed_on",
                "period_end",
                (f"{_GRADED}/StateOrganizationId", f"{_GRADED}/SchoolYear", "GradingPeriod"),
            ),
        ),
    ),
    Mapping(
        "ReportCard",
        "transcript.credits",
        "credit_summary",
        learner=STUDENT,
        key=("GradingPeriod/StateOrganizationId", "SchoolYear", "GradingPeriod", "GradingPeriod/BeginDate"),
        takes=(
            Take("context.place_id", "GradingPeriod/StateOrganizationId"),
            Take("context.school_year", "SchoolYear"),
            Take("context.term", "GradingPeriod"),
            *(
                Take("credit_summary.totals", path, "decimal", name=path)
                for path in ("GPAGivenGradingPeriod", "GPACumulative", "NumberOfDaysAbsent", "NumberOfDaysTardy")
            ),
        ),
        finds=(Find("context.place", "school", ("GradingPeriod/StateOrganizationId",)),),
        # What the card refers to is imported as what it is.
        omit=("Grade", "StudentCompetency"),
    ),
)


def _test_takes(prefix: str) -> tuple[Take, ...]:
    return (
        Take("assessment.title", f"{prefix}/AssessmentTitle", required=True),
        Take("assessment.form_version", f"{prefix}/Version"),
        Take("context.subject", f"{prefix}/AcademicSubject"),
        Take("context.grade_level", f"{prefix}/GradeLevelAssessed"),
    )


_SCORES: Final = Many(
    "assessment.scores", "ScoreResults", "values", "Result", "@AssessmentReportingMethod", headline="Scale score"
)
_LEVELS: Final = Many(
    "assessment.performance_levels",
    "PerformanceLevels",
    "values",
    "PerformanceLevelMet",
    "Description|CodeValue|PerformanceLevel/Description",
)
_OBJECTIVE: Final = "ObjectiveAssessment/ObjectiveAssessmentIdentificationCode"


def _as_objective(assessment: dict[str, Any]) -> None:
    """Move the results of an objective below its name."""
    moved = {name: assessment.pop(name) for name in ("scores", "performance_levels") if name in assessment}
    assessment["objectives"] = [{"name": assessment.pop("family"), **moved}]


ASSESSMENTS: Final = (
    Mapping(
        "StudentAssessment",
        assessment_section,
        "assessment",
        learner=STUDENT,
        key=(*below("Assessment", _TEST), "AdministrationDate"),
        takes=(
            *_test_takes("Assessment"),
            Take("dimension", "Assessment/AcademicSubject"),
            Take("observed_on", "AdministrationDate", required=True),
            Take("assessment.administration", "RetestIndicator"),
            Take("assessment.reason_not_tested", "ReasonNotTested"),
            Take("context.conditions", "AdministrationEnvironment"),
            Take("context.conditions", "AdministrationLanguage"),
        ),
        many=(
            _SCORES,
            _LEVELS,
            Many("assessment.accommodations", "SpecialAccommodations/SpecialAccommodation", "lines", ""),
            Many("assessment.accommodations", "LinguisticAccommodations/LinguisticAccommodation", "lines", ""),
        ),
        finds=(Find("assessment.family", "assessment_category", below("Assessment", _TEST)),),
    ),
    Mapping(
        "StudentObjectiveAssessment",
        assessment_section,
        "assessment",
        learner=f"StudentTestAssessment/{STUDENT}|StudentAssessment/{STUDENT}",
        key=(
            *(
                f"StudentTestAssessment/{path}|StudentAssessment/{path}"
                for path in (*below("Assessment", _TEST), "AdministrationDate")
            ),
            _OBJECTIVE,
        ),
        takes=(
            *(
                Take(
                    take.to,
                    f"StudentTestAssessment/{take.paths}|StudentAssessment/{take.paths}",
                    required=take.required,
                )
                for take in (*_test_takes("Assessment"), Take("observed_on", "AdministrationDate", required=True))
            ),
            Take("assessment.family", _OBJECTIVE, required=True),  # _as_objective moves it
        ),
        many=(_SCORES, _LEVELS),
        finds=(Find("dimension", "objective", (_OBJECTIVE,)),),
        finish=_as_objective,
    ),
    Mapping(
        "StudentGradebookEntry",
        "personal.assessments",
        "assessment",
        learner=f"StudentSectionAssociation/{STUDENT}",
        key=(
            *section_key(_GRADED),
            "GradebookEntry/GradebookEntryType",
            "GradebookEntry/DateAssigned",
            "DateFulfilled",
        ),
        takes=(
            *where(_GRADED, school="|GradebookEntry/Section/StateOrganizationId"),
            Take("assessment.title", "GradebookEntry/GradebookEntryType", required=True),
            Take("observed_on", "DateFulfilled"),
        ),
        scores=(Score("NumericGradeEarned", "Numeric grade", "decimal"), Score("LetterGradeEarned", "Letter grade")),
        also="assessment.scores",
        finds=course_finds(_GRADED),
    ),
    Mapping(
        "StudentCompetency",
        "personal.mastery",
        "mastery",
        learner=f"StudentSectionAssociation/{STUDENT}",
        key=(
            *section_key(_GRADED),
            "StudentSectionAssociation/BeginDate",
            "LearningObjective/Objective",
            "LearningObjective/AcademicSubject",
            "LearningObjective/ObjectiveGradeLevel",
        ),
        takes=(
            *where(_GRADED),
            Take("mastery.standard", "LearningObjective/Objective", required=True),
            Take("mastery.level", "CompetencyLevel/CodeValue"),
            Take("context.subject", "LearningObjective/AcademicSubject"),
            Take("dimension", "LearningObjective/AcademicSubject"),
            Take("context.grade_level", "LearningObjective/ObjectiveGradeLevel"),
        ),
    ),
)

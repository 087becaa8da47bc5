"""Ed-Fi Core 1.0: who the learner is, where she is enrolled, how her days go, what services she receives.

Part of the mapping that :mod:`permslip_node.importing.edfi_tables` describes as a whole.
"""

from __future__ import annotations

from typing import Final

from permslip_node.importing.edfi_sections import STUDENT, course_finds, section_key, where
from permslip_node.importing.mapping import Find, Many, Mapping, Score, Take

__all__ = ["DAYS", "DEMOGRAPHICS", "ENROLMENT"]

_INCIDENT: Final = "DisciplineIncident"
_CHARACTERISTIC: Final = "StudentCharacteristics"
_PARTICIPATION: Final = "ProgramParticipations"

DEMOGRAPHICS: Final = (
    Mapping(
        "Student",
        "identity.demographics",
        "demographics",
        learner="StudentUniqueStateId",
        key=(),
        drop_repeats=True,
        takes=(
            Take("demographics.first_name", "Name/FirstName", required=True),
            Take("demographics.middle_name", "Name/MiddleName"),
            Take("demographics.last_name", "Name/LastSurname", required=True),
            Take("demographics.suffix", "Name/GenerationCodeSuffix"),
            Take("demographics.birth_date", "BirthData/BirthDate"),
            Take("demographics.sex", "Sex"),
            Take("demographics.further", "HispanicLatinoEthnicity", name="HispanicLatinoEthnicity"),
            Take("demographics.further", "OldEthnicity", name="OldEthnicity"),
            Take("demographics.further", "LimitedEnglishProficiency", name="LimitedEnglishProficiency"),
        ),
        many=(
            Many("demographics.languages", "HomeLanguages/Language", "lines", ""),
            Many("demographics.languages", "Languages/Language", "lines", ""),
            Many(
                "demographics.local_ids",
                "StudentIdentificationCode",
                "lines",
                "IdentificationCode",
                unless=("@IdentificationSystem", "SSN"),
            ),
        ),
        omit=(
            "Address",
            "Telephone",
            "ElectronicMail",
            "LoginId",
            "ProfileThumbnail",
            "Name@Verification",
            _CHARACTERISTIC,
            "EconomicDisadvantaged",
            "SchoolFoodServicesEligibility",
            "Disabilities",
            "Section504Disabilities",
            _PARTICIPATION,
        ),
    ),
    Mapping(
        "Student",
        "variability.background.socioeconomic_status",
        "observation",
        part=_CHARACTERISTIC,
        each=_CHARACTERISTIC,
        carry=("StudentUniqueStateId",),
        learner="StudentUniqueStateId",
        key=(f"{_CHARACTERISTIC}/Characteristic", f"{_CHARACTERISTIC}/BeginDate"),
        drop_repeats=True,
        takes=(
            Take("observation.factor", f"{_CHARACTERISTIC}/Characteristic", required=True),
            Take("observed_on", f"{_CHARACTERISTIC}/BeginDate"),
            Take("author.name", f"{_CHARACTERISTIC}/DesignatedBy"),
        ),
    ),
    *(
        Mapping(
            "Student",
            "variability.background.socioeconomic_status",
            "observation",
            part=fact,
            when=fact,
            carry=("StudentUniqueStateId",),
            learner="StudentUniqueStateId",
            key=(),
            drop_repeats=True,
            fixed={"observation.factor": fact},
            scores=(Score(fact, fact),),
        )
        for fact in ("EconomicDisadvantaged", "SchoolFoodServicesEligibility")
    ),
    *(
        Mapping(
            "Student",
            "personal.health",
            "health",
            part=group,
            each=group,
            carry=("StudentUniqueStateId",),
            learner="StudentUniqueStateId",
            key=(f"{group}/{kind}",),
            drop_repeats=True,
            takes=(
                Take("health.kind", f"{group}/{kind}", required=True),
                Take("health.note", f"{group}/DisabilityDiagnosis"),
            ),
        )
        for group, kind in (("Disabilities", "Disability"), ("Section504Disabilities", "Section504Disability"))
    ),
    Mapping(
        "Student",
        "personal.services",
        "service",
        part=_PARTICIPATION,
        each=_PARTICIPATION,
        carry=("StudentUniqueStateId",),
        learner="StudentUniqueStateId",
        key=(f"{_PARTICIPATION}/Program", f"{_PARTICIPATION}/BeginDate"),
        drop_repeats=True,
        takes=(
            Take("service.program", f"{_PARTICIPATION}/Program", required=True),
            Take("service.began_on", f"{_PARTICIPATION}/BeginDate"),
            Take("observed_on", f"{_PARTICIPATION}/BeginDate"),
            Take("service.ended_on", f"{_PARTICIPATION}/EndDate"),
            Take("author.name", f"{_PARTICIPATION}/DesignatedBy"),
        ),
    ),
)

ENROLMENT: Final = (
    Mapping(
        "StudentSchoolAssociation",
        "transcript.courses",
        "course",
        learner=STUDENT,
        key=("School/StateOrganizationId", "EntryDate"),
        takes=(
            Take("context.place_id", "School/StateOrganizationId", required=True),
            Take("context.school_year", "SchoolYear"),
            Take("context.grade_level", "EntryGradeLevel"),
            Take("course.level", "EntryGradeLevel", required=True),
            Take("observed_on", "EntryDate", required=True),
            Take("course.began_on", "EntryDate"),
            Take("course.ended_on", "ExitWithdrawDate"),
        ),
        finds=(Find("context.place", "school", ("School/StateOrganizationId",)),),
    ),
    Mapping(
        "StudentSectionAssociation",
        "transcript.courses",
        "course",
        learner=STUDENT,
        key=(*section_key("Section"), "BeginDate"),
        takes=(
            *where("Section"),
            Take("course.code", "Section/LocalCourseCode|Section/UniqueSectionCode", required=True),
            Take("course.began_on", "BeginDate"),
            Take("observed_on", "BeginDate"),
            Take("course.ended_on", "EndDate"),
        ),
        finds=course_finds("Section", "course.title"),
    ),
)

DAYS: Final = (
    Mapping(
        "AttendanceEvent",
        "personal.attendance",
        "attendance",
        learner=STUDENT,
        key=("EventDate", "AttendanceEventType", "School/StateOrganizationId", *section_key("Section")),
        takes=(
            *where("Section", school="|School/StateOrganizationId", year="|SchoolYear"),
            Take("observed_on", "EventDate", required=True),
            Take("attendance.event", "AttendanceEventCategory", required=True),
            Take("attendance.kind", "AttendanceEventType"),
            Take("attendance.reason", "AttendanceEventReason"),
            Take("attendance.section_id", "Section/UniqueSectionCode"),
            Take("context.conditions", "EducationalEnvironment"),
        ),
        finds=course_finds("Section")[:2],
    ),
    Mapping(
        "StudentDisciplineIncidentAssociation",
        "personal.discipline",
        "discipline",
        learner=STUDENT,
        key=(
            f"{_INCIDENT}/School/StateOrganizationId|{_INCIDENT}/StateOrganizationId",
            f"{_INCIDENT}/IncidentIdentifier",
        ),
        takes=(
            Take("context.place_id", f"{_INCIDENT}/School/StateOrganizationId|{_INCIDENT}/StateOrganizationId"),
            Take("discipline.incident", f"{_INCIDENT}/IncidentIdentifier", required=True),
            Take("discipline.participation", "StudentParticipationCode"),
            Take("observed_on", f"{_INCIDENT}/IncidentDate"),
            Take("context.conditions", f"{_INCIDENT}/IncidentLocation"),
        ),
        many=tuple(
            Many("discipline.behaviors", group, "lines", "Description|ShortDescription|CodeValue")
            for group in (f"{_INCIDENT}/Behaviors", "Behaviors")
        ),
        finds=(Find("context.place", "school", (f"{_INCIDENT}/School/StateOrganizationId",)),),
    ),
    Mapping(
        "DisciplineAction",
        "personal.discipline",
        "discipline",
        learner=STUDENT,
        key=("ResponsibilitySchool/StateOrganizationId", "DisciplineActionIdentifier", "DisciplineDate"),
        takes=(
            Take("context.place_id", f"ResponsibilitySchool/StateOrganizationId|{_INCIDENT}/StateOrganizationId"),
            Take("discipline.incident", f"{_INCIDENT}/IncidentIdentifier", required=True),
            Take("observed_on", "DisciplineDate"),
        ),
        many=(
            Many("discipline.actions", "Disciplines", "texts", "Description", "ShortDescription|CodeValue|Description"),
        ),
        finds=(Find("context.place", "school", ("ResponsibilitySchool/StateOrganizationId",)),),
    ),
    Mapping(
        "StudentProgramAssociation",
        "personal.services",
        "service",
        learner=STUDENT,
        key=("Program/ProgramType|Program/ProgramId", "Program/StateOrganizationId", "BeginDate"),
        takes=(
            Take("service.program", "Program/ProgramType|Program/ProgramId", required=True),
            Take("service.program_type", "Program/ProgramType"),
            Take("service.provider", "EducationOrganization/StateOrganizationId|Program/StateOrganizationId"),
            Take("service.began_on", "BeginDate"),
            Take("observed_on", "BeginDate"),
            Take("service.ended_on", "EndDate"),
            Take("service.reason_exited", "ReasonExited"),
        ),
        many=(Many("service.services", "Services", "lines", "ShortDescription|Description|CodeValue"),),
    ),
)

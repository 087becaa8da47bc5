"""Ed-Fi Core 1.0: which entity becomes which record. The whole mapping, as tables.

======================================  ===========================================  =======================
entity                                  section                                      one record for each
======================================  ===========================================  =======================
Student                                 identity.demographics                        learner
Student: characteristics, economic      variability.background.socioeconomic_status  fact
disadvantage, food services
Student: disabilities                   personal.health                              disability
Student: program participations         personal.services                            participation
StudentSchoolAssociation                transcript.courses (a learning level)        enrolment
StudentSectionAssociation               transcript.courses                           section attended
CourseTranscript                        transcript.courses                           course finished
Grade                                   transcript.grades                            grade
StudentAcademicRecord, ReportCard       transcript.credits                           session, report card
StudentAssessment,                      transcript.assessments.state or .district,   test taken, objective
StudentObjectiveAssessment              failing both personal.assessments            tested
StudentGradebookEntry                   personal.assessments                         entry
StudentCompetency                       personal.mastery                             objective
StudentProgramAssociation               personal.services                            participation
AttendanceEvent                         personal.attendance                          event
StudentDisciplineIncidentAssociation,   personal.discipline                          participation, action
DisciplineAction
======================================  ===========================================  =======================

Choices:

- A test is a *state* assessment when the assessment's own metadata say so (``AssessmentCategory`` begins with
  «State»), or, where the export has no metadata, when its title is one of :data:`STATE_TITLES`. Benchmark tests are
  *district*. Everything else (ACT, SAT, PSAT, AP, IB …) is supplemental: ``personal.assessments``.
- Never imported: addresses, telephone numbers, e-mail addresses, log-ins, portraits, Social Security numbers, and the
  names of those who reported an incident. A record is for others to read; nobody needs these for what they are shown.
- Guardians are no records: :mod:`permslip_node.importing.edfi_families` reads them.
- Entities that are in no table here are counted by name and reported.

Paths are those of :mod:`permslip_node.importing.edfi_xml`.
"""

from __future__ import annotations

from typing import Final

from permslip_node.importing.edfi_achievement_tables import ASSESSMENTS, STATE_TITLES, TRANSCRIPTS
from permslip_node.importing.edfi_learner_tables import DAYS, DEMOGRAPHICS, ENROLMENT
from permslip_node.importing.mapping import Mapping

__all__ = ["MAPPINGS", "STATE_TITLES", "SYSTEM"]

SYSTEM: Final = "ed-fi-1.0"
MAPPINGS: Final[tuple[Mapping, ...]] = (*DEMOGRAPHICS, *ENROLMENT, *TRANSCRIPTS, *ASSESSMENTS, *DAYS)

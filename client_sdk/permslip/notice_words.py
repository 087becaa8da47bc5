"""The words of the notices, in each language: template ``grant``, version ``v1``.

A published template never changes, because grants carry digests of its text: a mended word is a new version beside this
one. Both languages say the same, sentence by sentence.

Example::

    >>> WORDS["es"].labels["transcript.grades"]
    'Calificaciones'
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from permslip._pb.permslip.v1 import statement_pb2 as pb

__all__ = ["LANGUAGES", "WORDS", "Words"]


@dataclass(frozen=True, slots=True)
class Words:
    """One language's words; the braces in a sentence are filled from the grant's fields."""

    title: str
    opening: str
    own: str
    sections: str
    purpose: str
    times: str
    records_between: str
    records_from: str
    records_until: str
    uses: str
    onward: str
    not_onward: str
    erase: str
    supersedes: str
    revocable: str
    conjunction: str
    actions: dict[int, str]
    purposes: dict[int, str]
    labels: dict[str, str]


_ENGLISH: Final = Words(
    title="Permission for data about your child",
    opening="You allow {grantee} to {actions} what {school} keeps about your child.",
    own="You allow yourself to {actions} what {school} keeps about your child.",
    sections="Only in these areas:",
    purpose="Only for this purpose: {purpose}. In the words of whoever asks:",
    times="From {start} until {end}.",
    records_between="Only what was observed from {first} to {last}.",
    records_from="Only what was observed on or after {first}.",
    records_until="Only what was observed on or before {last}.",
    uses="At most {count} times.",
    onward="It may be passed on, in whole or in part, to: {parties}.",
    not_onward="It may not be passed on to anybody else.",
    erase="What was received must be erased within {days} days after the end.",
    supersedes="It takes the place of an earlier permission of yours.",
    revocable="You can take this back at any time. The school then stops, and tells you so.",
    conjunction=" and ",
    actions={
        pb.ACTION_READ: "read",
        pb.ACTION_APPEND: "add to",
        pb.ACTION_WATCH: "be told of changes in",
    },
    purposes={
        pb.PURPOSE_INSTRUCTION: "instruction",
        pb.PURPOSE_TUTORING: "tutoring",
        pb.PURPOSE_THERAPY: "therapy",
        pb.PURPOSE_ENRICHMENT: "enrichment",
        pb.PURPOSE_COUNSELLING: "counselling",
        pb.PURPOSE_ADMISSION: "admission to a school or programme",
        pb.PURPOSE_EVALUATION: "evaluation",
        pb.PURPOSE_RESEARCH: "research",
        pb.PURPOSE_FAMILY: "the family's own use",
        pb.PURPOSE_SELF: "the learner's own use",
    },
    labels={
        "transcript": "Learning transcript",
        "transcript.courses": "Courses and learning levels",
        "transcript.grades": "Grades",
        "transcript.credits": "Credits",
        "transcript.assessments": "State and district tests",
        "transcript.assessments.state": "State tests",
        "transcript.assessments.district": "District tests",
        "personal": "Personalized learning (without discipline and health)",
        "personal.assessments": "Other tests and checks of learning",
        "personal.services": "Programmes and services received",
        "personal.work_habits": "Work habits",
        "personal.activities": "Activities outside class",
        "personal.experience": "Work and service experience",
        "personal.attendance": "Attendance",
        "personal.mastery": "Mastery of standards",
        "personal.plan": "Learning plan",
        "personal.discipline": "Discipline (sensitive)",
        "personal.health": "Health (sensitive)",
        "portfolio": "Portfolio",
        "portfolio.works": "Best works",
        "variability": "How your child learns (without what is sensitive)",
        "variability.background": "Background (without what is sensitive)",
        "variability.background.context": "Background: surroundings",
        "variability.background.adverse_experiences": "Adverse experiences (sensitive)",
        "variability.background.safety": "Safety (sensitive)",
        "variability.background.socioeconomic_status": "Socioeconomic status (sensitive)",
        "variability.social_emotional": "Social and emotional learning (without what is sensitive)",
        "variability.social_emotional.skills": "Social and emotional skills",
        "variability.social_emotional.identity": "Identity (sensitive)",
        "variability.social_emotional.stereotype_threat": "Stereotype threat (sensitive)",
        "variability.cognition": "Cognition",
        "variability.content": "Content areas",
        "voice": "Your child's own voice",
        "voice.goals": "Goals your child writes",
        "voice.interests": "Interests your child writes",
        "voice.reflections": "Reflections your child writes",
        "identity.demographics": "Name, birth date and language (sensitive)",
    },
)

_SPANISH: Final = Words(
    title="Permiso sobre datos de su hijo o hija",
    opening="Usted permite a {grantee} {actions} lo que {school} guarda sobre su hijo o hija.",
    own="Usted se permite a sí mismo {actions} lo que {school} guarda sobre su hijo o hija.",
    sections="Solo en estas áreas:",
    purpose="Solo para este fin: {purpose}. En palabras de quien lo pide:",
    times="Desde {start} hasta {end}.",
    records_between="Solo lo observado entre {first} y {last}.",
    records_from="Solo lo observado desde {first}.",
    records_until="Solo lo observado hasta {last}.",
    uses="Como máximo {count} veces.",
    onward="Puede transmitirse, en todo o en parte, a: {parties}.",
    not_onward="No puede transmitirse a nadie más.",
    erase="Lo recibido debe borrarse en un plazo de {days} días tras el final.",
    supersedes="Sustituye a un permiso suyo anterior.",
    revocable="Usted puede retirarlo en cualquier momento. La escuela entonces se detiene y se lo confirma.",
    conjunction=" y ",
    actions={
        pb.ACTION_READ: "leer",
        pb.ACTION_APPEND: "añadir a",
        pb.ACTION_WATCH: "recibir aviso de cambios en",
    },
    purposes={
        pb.PURPOSE_INSTRUCTION: "enseñanza",
        pb.PURPOSE_TUTORING: "tutoría",
        pb.PURPOSE_THERAPY: "terapia",
        pb.PURPOSE_ENRICHMENT: "enriquecimiento",
        pb.PURPOSE_COUNSELLING: "orientación",
        pb.PURPOSE_ADMISSION: "admisión en una escuela o programa",
        pb.PURPOSE_EVALUATION: "evaluación",
        pb.PURPOSE_RESEARCH: "investigación",
        pb.PURPOSE_FAMILY: "uso de la propia familia",
        pb.PURPOSE_SELF: "uso de la propia alumna o alumno",
    },
    labels={
        "transcript": "Expediente de aprendizaje",
        "transcript.courses": "Cursos y niveles de aprendizaje",
        "transcript.grades": "Calificaciones",
        "transcript.credits": "Créditos",
        "transcript.assessments": "Pruebas estatales y del distrito",
        "transcript.assessments.state": "Pruebas estatales",
        "transcript.assessments.district": "Pruebas del distrito",
        "personal": "Aprendizaje personalizado (sin disciplina ni salud)",
        "personal.assessments": "Otras pruebas y controles del aprendizaje",
        "personal.services": "Programas y servicios recibidos",
        "personal.work_habits": "Hábitos de trabajo",
        "personal.activities": "Actividades fuera de clase",
        "personal.experience": "Experiencia de trabajo y servicio",
        "personal.attendance": "Asistencia",
        "personal.mastery": "Dominio de los estándares",
        "personal.plan": "Plan de aprendizaje",
        "personal.discipline": "Disciplina (sensible)",
        "personal.health": "Salud (sensible)",
        "portfolio": "Portafolio",
        "portfolio.works": "Mejores trabajos",
        "variability": "Cómo aprende su hijo o hija (sin lo sensible)",
        "variability.background": "Entorno (sin lo sensible)",
        "variability.background.context": "Entorno: circunstancias",
        "variability.background.adverse_experiences": "Experiencias adversas (sensible)",
        "variability.background.safety": "Seguridad (sensible)",
        "variability.background.socioeconomic_status": "Situación socioeconómica (sensible)",
        "variability.social_emotional": "Aprendizaje social y emocional (sin lo sensible)",
        "variability.social_emotional.skills": "Habilidades sociales y emocionales",
        "variability.social_emotional.identity": "Identidad (sensible)",
        "variability.social_emotional.stereotype_threat": "Amenaza del estereotipo (sensible)",
        "variability.cognition": "Cognición",
        "variability.content": "Áreas de contenido",
        "voice": "La voz de su hijo o hija",
        "voice.goals": "Metas que escribe su hijo o hija",
        "voice.interests": "Intereses que escribe su hijo o hija",
        "voice.reflections": "Reflexiones que escribe su hijo o hija",
        "identity.demographics": "Nombre, fecha de nacimiento e idioma (sensible)",
    },
)

WORDS: Final[dict[str, Words]] = {"en": _ENGLISH, "es": _SPANISH}
LANGUAGES: Final = tuple(WORDS)

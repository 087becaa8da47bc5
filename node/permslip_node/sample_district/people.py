"""The people of a sample district: schools, teachers, learners and their families, drawn from a seed.

Rules:

- The same seed and number of learners give the same district on every machine: only ``random()`` of Python's own
  generator is used, whose sequence is fixed for a seed.
- Families are of every kind that authority over a record has to deal with: one guardian, two, two and a step-parent;
  a guardian who does not live with the child; one whose contact a court has restricted; brothers and sisters. Nine
  learners are enough to have each of the first kinds at each school.

Example::

    >>> people = draw_people(learners=36, seed=1)
    >>> len(people.learners), people.schools[0].name
    (36, 'Alder Creek High School')
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from permslip_node.sample_district.names import FEMALE, LANGUAGES, LAST, MALE

__all__ = ["SUBJECTS", "YEAR", "Chance", "Guardian", "Learner", "People", "School", "draw_people"]

YEAR: Final = "2025-2026"
_FIRST_YEAR: Final = 2025

# Code, title, Ed-Fi's subject area.
SUBJECTS: Final = (
    ("ELA", "English Language Arts", "ELA"),
    ("MATH", "Mathematics", "Mathematics"),
    ("SCI", "Science", "Science"),
    ("SOC", "Social Studies", "Social Studies"),
    ("ART", "Art", "Fine and Performing Arts"),
    ("PE", "Physical Education", "Physical, Health, and Safety Education"),
)
_GRADES: Final = (
    "First", "Second", "Third", "Fourth", "Fifth", "Sixth", "Seventh", "Eighth", "Ninth", "Tenth", "Eleventh",
    "Twelfth",
)  # fmt: skip

_T = TypeVar("_T")


class Chance:
    """Draws that are the same on every version of Python."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed).random  # noqa: S311  a sample, not a secret

    def below(self, bound: int) -> int:
        """A number from 0 to ``bound - 1``."""
        return int(self._random() * bound)

    def of(self, choices: Sequence[_T]) -> _T:
        """One of these."""
        return choices[self.below(len(choices))]

    def happens(self, percent: int) -> bool:
        """True so often in a hundred."""
        return self._random() * 100 < percent

    def around(self, middle: int, spread: int, least: int, most: int) -> int:
        """A number near ``middle``: the sum of three draws, bounded."""
        drawn = middle + int((self._random() + self._random() + self._random() - 1.5) * spread)
        return max(least, min(most, drawn))


@dataclass(frozen=True, slots=True)
class School:
    """A school: its identifier, name, category, and the grades it teaches (1 to 12)."""

    identifier: str
    name: str
    category: str
    grades: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Guardian:
    """A guardian and what the school knows about her and the child."""

    identifier: str
    first_name: str
    last_name: str
    sex: str
    relation: str
    lives_with: bool
    primary: bool
    restrictions: str


@dataclass(frozen=True, slots=True)
class Learner:
    """A learner. ``strength`` is what her marks vary around, one number for each of :data:`SUBJECTS`."""

    identifier: str
    first_name: str
    last_name: str
    sex: str
    birth_date: str
    language: str
    school: School
    grade: int
    strength: tuple[int, ...]
    guardians: tuple[Guardian, ...]

    @property
    def grade_name(self) -> str:
        """As Ed-Fi writes it."""
        return f"{_GRADES[self.grade - 1]} grade"


@dataclass(frozen=True, slots=True)
class People:
    """Everyone. ``teachers`` has one name for each subject at each school, in their order."""

    schools: tuple[School, ...]
    learners: tuple[Learner, ...]
    teachers: tuple[tuple[str, str], ...]

    def teacher(self, school: School, subject: int) -> tuple[str, str]:
        """First and last name of the teacher of a subject at a school."""
        return self.teachers[self.teacher_number(school, subject)]

    def teacher_number(self, school: School, subject: int) -> int:
        """The teacher's place in ``teachers``."""
        return self.schools.index(school) * len(SUBJECTS) + subject


_SCHOOLS: Final = (
    School("480901001", "Alder Creek High School", "High School", (9, 10, 11, 12)),
    School("480901041", "Alder Creek Middle School", "Middle School", (6, 7, 8)),
    School("480901101", "Alder Creek Elementary School", "Elementary School", (1, 2, 3, 4, 5)),
)
_EVERY_KIND: Final = 9
_RESTRICTIONS: Final = ("Custody on alternate weekends only", "May not pick the child up")


def draw_people(*, learners: int, seed: int) -> People:
    """Draw a district.

    Args:
        learners: how many; each school gets a third.
        seed: any integer.
    """
    chance = Chance(seed)
    teachers = tuple((chance.of(FEMALE + MALE), chance.of(LAST)) for _ in range(len(_SCHOOLS) * len(SUBJECTS)))
    drawn: list[Learner] = []
    family: tuple[Guardian, ...] = ()
    for number in range(learners):
        # Now and then the child of the family before: brothers and sisters go to different schools.
        is_sibling = number >= _EVERY_KIND and chance.happens(15)
        if not is_sibling:
            family = _family(chance, number)
        drawn.append(_learner(chance, number, family))
    return People(_SCHOOLS, tuple(drawn), teachers)


def _learner(chance: Chance, number: int, family: tuple[Guardian, ...]) -> Learner:
    school = _SCHOOLS[number % len(_SCHOOLS)]
    grade = chance.of(school.grades)
    is_girl = chance.happens(50)
    middle = chance.around(82, 24, 62, 96)
    return Learner(
        identifier=str(700001 + number),
        first_name=chance.of(FEMALE if is_girl else MALE),
        last_name=family[0].last_name,
        sex="Female" if is_girl else "Male",
        birth_date=f"{_FIRST_YEAR - 6 - grade + 1}-{1 + chance.below(12):02d}-{1 + chance.below(28):02d}",
        language=chance.of(LANGUAGES) if chance.happens(25) else "",
        school=school,
        grade=grade,
        # Jagged: strong in one subject says little about the next.
        strength=tuple(chance.around(middle, 30, 55, 99) for _ in SUBJECTS),
        guardians=family,
    )


def _family(chance: Chance, number: int) -> tuple[Guardian, ...]:
    last_name = chance.of(LAST)
    # With nine learners every kind of family occurs at every school.
    relations = (("Mother",), ("Mother", "Father"), ("Mother", "Father", "Father, step"))[number // len(_SCHOOLS) % 3]
    if relations == ("Mother",) and chance.happens(25):
        relations = (chance.of(("Father", "Grandmother")),)
    is_split = "Father, step" in relations
    guardians = []
    for place, relation in enumerate(relations):
        is_woman = relation in ("Mother", "Grandmother")
        is_away = is_split and relation == "Father"
        guardians.append(
            Guardian(
                identifier=str(810001 + number * 4 + place),
                first_name=chance.of(FEMALE if is_woman else MALE),
                last_name=last_name if place == 0 or chance.happens(60) else chance.of(LAST),
                sex="Female" if is_woman else "Male",
                relation=relation,
                lives_with=not is_away,
                primary=place == 0,
                restrictions=chance.of(_RESTRICTIONS)
                if is_away and (number < _EVERY_KIND or chance.happens(40))
                else "",
            )
        )
    return tuple(guardians)

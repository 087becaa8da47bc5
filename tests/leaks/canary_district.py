"""A district in which every name, id, date, free text and file name is a canary: a text that occurs nowhere else.

The sample district's files are rewritten, value by value: the same learner keeps the same canary in every file, so that
the real importers read what they would read from a school.

Rules:

- A canary is ``Zq`` and 14 letters and digits from the operating system's random numbers: no chance hit is possible.
- Every date becomes one of the years 1603–1697, when nobody now alive and no epoch was born.
- What the importers must understand (grade levels, marks, the public name of the school) stays.

Example::

    canaries = write_canary_district(folder, learners=9)
    canaries.texts        # what must not be found at the broker
"""

from __future__ import annotations

import csv
import re
import secrets
import string
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path

from permslip_node.sample_district import District, generate_district

_ALPHABET = string.ascii_letters + string.digits
_NAMESPACE = "http://ed-fi.org/0100"

# Ed-Fi elements whose text is a person's, or could be.
_XML_TEXTS = frozenset(
    {
        "AttendanceEventReason", "ContactRestrictions", "CourseTitle", "Description", "DisciplineActionIdentifier",
        "FirstName", "IdentificationCode", "IncidentIdentifier", "LastSurname", "MiddleName", "ParentUniqueStateId",
        "ShortDescription", "StaffUniqueStateId", "StudentUniqueStateId",
    }
)  # fmt: skip
# How the exports write a date, and a moment.
_DATE = re.compile(r"(\d{4}-\d{2}-\d{2})( 00:00:00)?")
# Columns of the platform's extract. Ids of users are their own; those of sections and assignments hold them together.
_CSV_TEXTS = frozenset({"LocalUserIdentifier", "SISUserIdentifier", "Name", "Title", "SectionDescription"})
_CSV_IDS = frozenset({"SourceSystemIdentifier", "LMSUserSourceSystemIdentifier"})


def canary() -> str:
    """A text that occurs nowhere else."""
    return "Zq" + "".join(secrets.choice(_ALPHABET) for _ in range(14))


@dataclass(slots=True)
class Canaries:
    """What was hidden, and where its files are.

    Attributes:
        district: the files.
        given: original value → its canary.
        dates: original date → its canary.
        files: canaries in file names.
    """

    district: District
    given: dict[str, str] = field(default_factory=dict)
    dates: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)

    @property
    def texts(self) -> set[str]:
        """Every canary."""
        return {*self.given.values(), *self.dates.values(), *self.files}

    def of(self, value: str) -> str:
        """The canary of a value, always the same."""
        return self.given.setdefault(value, canary())

    def of_date(self, value: str) -> str:
        """The canary of a date."""
        return self.dates.setdefault(value, _canary_date(set(self.dates.values())))


def write_canary_district(folder: Path, *, learners: int = 9) -> Canaries:
    """Write the sample district below ``folder`` and turn it into canaries."""
    district = generate_district(folder, learners=learners, seed=1871)
    canaries = Canaries(district)
    for path in sorted(district.edfi.glob("*.xml")):
        _rewrite_xml(path, canaries)
    # Users before the rest: whoever is in the platform is known by the school's number.
    for path in sorted(district.lms.rglob("*.csv"), key=lambda path: (path.parent.name != "users", str(path))):
        _rewrite_csv(path, canaries)
    return canaries


def _rewrite_xml(path: Path, canaries: Canaries) -> None:
    ET.register_namespace("", _namespace_of(path))
    tree = ET.parse(path)
    for each in tree.iter():
        name = each.tag.rpartition("}")[2]
        text = (each.text or "").strip()
        if text and name in _XML_TEXTS:
            each.text = canaries.of(text)
        elif _DATE.fullmatch(text):
            each.text = canaries.of_date(text)
        for attribute in ("id", "ref"):
            if (value := each.get(attribute)) and value.startswith(
                ("STUD_", "PRNT_", "STAF_", "DISC_", "STA_", "SAR_")
            ):
                each.set(attribute, canaries.of(value))
    name = canary()
    canaries.files.append(name)
    tree.write(path.with_name(f"{path.stem}-{name}.xml"), encoding="utf-8", xml_declaration=True)
    path.unlink()


def _rewrite_csv(path: Path, canaries: Canaries) -> None:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    if not rows:
        path.unlink()
        return
    table = path.parent.name
    for row in rows:
        for column, value in row.items():
            is_user_id = column in _CSV_IDS and (table == "users" or column != "SourceSystemIdentifier")
            is_submission = column == "SourceSystemIdentifier" and table in {"submissions", "section-associations"}
            if value and (column in _CSV_TEXTS or is_user_id or is_submission):
                row[column] = canaries.of(value)
            elif found := _DATE.fullmatch(value or ""):
                row[column] = canaries.of_date(found[1]) + (found[2] or "")
    name = canary()
    canaries.files.append(name)
    with path.with_name(f"{path.stem}-{name}.csv").open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    path.unlink()


def _namespace_of(path: Path) -> str:
    root = next(ET.iterparse(path, events=("start",)))[1]
    return root.tag[1:].partition("}")[0] if root.tag.startswith("{") else _NAMESPACE


def _canary_date(taken: set[str]) -> str:
    while True:
        day = f"{1603 + secrets.randbelow(95)}-{1 + secrets.randbelow(12):02d}-{1 + secrets.randbelow(28):02d}"
        if day not in taken:
            return day

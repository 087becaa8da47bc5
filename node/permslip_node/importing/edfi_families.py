"""Reads guardians, their links to learners, and learners' names from Ed-Fi Core 1.0 rows.

Rules:

- Relation, custody and contact restrictions are kept verbatim. What the source does not say is ``None``, not «no».
- An address or a telephone number is not read: slips are handed over, and Permslip calls nobody.
- A link whose parent is in no row is rejected: there would be nobody to print a slip for.

Example::

    >>> guardian_of(row)          # a StudentParentAssociation, its references resolved
    ImportedGuardian(native_learner_id='604821', native_guardian_id='778393', display_name='Carmen Dyer', ...)
"""

from __future__ import annotations

from typing import Final

from permslip.errors import MalformedError
from permslip_node.importing.edfi_xml import Row
from permslip_node.importing.field_checks import read_flag, text_check
from permslip_node.importing.sink import ImportedGuardian, ImportedName

__all__ = ["GUARDIAN_ENTITY", "PARENT_ENTITY", "guardian_of", "name_of"]

GUARDIAN_ENTITY: Final = "StudentParentAssociation"
PARENT_ENTITY: Final = "Parent"

_LINE: Final = text_check("author", "name")
_TEXT: Final = text_check("source", "further", "text")


def guardian_of(row: Row) -> ImportedGuardian:
    """The guardian that a link describes, but for the learner's id, which the importer has already found.

    Raises:
        MalformedError: the link names no guardian, or one that is in no row, or holds a text that cannot be kept.
    """
    values = row.values
    guardian = _line(values, "Parent/ParentUniqueStateId")
    first, last, suffix = (
        _line(values, f"Parent/Name/{name}") for name in ("FirstName", "LastSurname", "GenerationCodeSuffix")
    )
    if not guardian or not (first or last):
        raise MalformedError("the row names no guardian that can be found.", field="Parent/ParentUniqueStateId")
    restrictions = values.get("ContactRestrictions", "")
    _TEXT(restrictions, "ContactRestrictions")
    return ImportedGuardian(
        native_learner_id=_line(values, "Student/StudentUniqueStateId"),
        native_guardian_id=guardian,
        display_name=" ".join(filter(None, (first, last, suffix))),
        first_name=first,
        last_name=last,
        relation=_line(values, "Relation"),
        lives_with=read_flag(values.get("LivesWith"), "LivesWith"),
        primary_contact=read_flag(values.get("PrimaryContactStatus"), "PrimaryContactStatus"),
        emergency_contact=read_flag(values.get("EmergencyContactStatus"), "EmergencyContactStatus"),
        legal_guardian=read_flag(values.get("LegalGuardian"), "LegalGuardian"),
        contact_restrictions=restrictions,
        contact_priority=_line(values, "ContactPriority"),
    )


def name_of(row: Row) -> ImportedName:
    """What to call the learner of a ``Student`` row.

    Raises:
        MalformedError: a part of the name cannot be printed on one line.
    """
    parts = (_line(row.values, f"Name/{name}") for name in ("FirstName", "LastSurname", "GenerationCodeSuffix"))
    born = row.values.get("BirthData/BirthDate", "")
    return ImportedName(row.values["StudentUniqueStateId"], " ".join(filter(None, parts)), born)


def _line(values: dict[str, str], path: str) -> str:
    text = values.get(path, "")
    _LINE(text, path)
    return text

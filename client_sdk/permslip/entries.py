"""Entries: one record of a profile with where it came from, and the single values in it.

Rules:

- Every value carries its provenance: node, section, record, version, source, day, author, context.
- A value is the text that the source wrote, on the source's own scale. A number is read from it only where the whole
  text is a decimal number; nothing is converted, rounded or derived.

Example::

    for entry in profile.section("transcript.grades"):
        for fact in entry.facts():
            print(entry.node_name, entry.observed_on, fact.name, fact.text, fact.scale)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Generic, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from permslip._pb.permslip.v1 import record_pb2
from permslip.keys import did_text

__all__ = ["Entry", "Fact", "decimal_of", "message_dict"]

B_co = TypeVar("B_co", bound=Message, covariant=True)

_DECIMAL: Final = re.compile(r"[+-]?[0-9]{1,30}(\.[0-9]{1,30})?\Z")

# Which fields of a body say what the record is about, so that two nodes' words about one thing can be found.
_TOPIC: Final[dict[str, tuple[str, ...]]] = {
    "course": ("code", "title"),
    "grade": ("kind", "grading_period", "course_code", "course_title"),
    "assessment": ("title", "form_version", "administration"),
    "service": ("program", "program_type", "provider"),
    "work_habit": ("habit", "task"),
    "activity": ("name",),
    "experience": ("organization", "role"),
    "attendance": ("kind", "section_id"),
    "mastery": ("standard",),
    "plan": ("title",),
    "work": ("title",),
    "observation": ("factor",),
    "discipline": ("incident",),
    "health": ("kind",),
}


@dataclass(frozen=True, slots=True)
class Fact:
    """One value of one record.

    Attributes:
        entry: the record it stands in, with its provenance.
        name: which value of the record, e.g. ``value``, ``marks.Final`` or ``first_name``.
        text: as the source wrote it.
        scale: what is needed to read it; None where the source gives none.
    """

    entry: Entry[Message]
    name: str
    text: str
    scale: record_pb2.Scale | None = None

    @property
    def number(self) -> Decimal | None:
        """The text as a number, where the whole of it is one."""
        return decimal_of(self.text)

    def to_dict(self) -> dict[str, Any]:
        """The value with its provenance, flat: what one row of a table holds."""
        record, scale = self.entry.record, self.scale or record_pb2.Scale()
        context, source = record.context, record.source
        return {
            "node": did_text(self.entry.node),
            "node_name": self.entry.node_name,
            "section": record.section,
            "record_id": record.record_id.hex(),
            "version": record.version,
            "observed_on": record.observed_on,
            "recorded_at": record.recorded_at,
            "dimension": record.dimension,
            "topic": " / ".join(self.entry.topic),
            "name": self.name,
            "text": self.text,
            "number": None if self.number is None else float(self.number),
            "scale": scale.name,
            "scale_minimum": scale.minimum,
            "scale_maximum": scale.maximum,
            "scale_uri": scale.uri,
            "author": record.author.name,
            "author_role": record.author.role,
            "place": context.place,
            "with_whom": context.with_whom,
            "conditions": "; ".join(context.conditions),
            "school_year": context.school_year,
            "term": context.term,
            "grade_level": context.grade_level,
            "subject": context.subject,
            "source_system": source.system,
            "source_file": source.file,
            "source_entity": source.entity,
            "source_native_id": source.native_id,
        }


@dataclass(frozen=True, slots=True, repr=False)
class Entry(Generic[B_co]):
    """One record, with who served it.

    Attributes:
        node: root key of the node that holds it.
        node_name: its public name.
        grant_id: the grant under which it was released.
        record: as the node sent it.
        body: what kind of thing it is, e.g. a ``Grade``; None where the node sent no body.
    """

    node: bytes
    node_name: str
    grant_id: bytes
    record: record_pb2.Record
    body: B_co | None

    @classmethod
    def of(cls, record: record_pb2.Record, *, node: bytes, node_name: str, grant_id: bytes) -> Entry[Message]:
        """Wrap a record."""
        kind = record.WhichOneof("body")
        body: Message | None = getattr(record, kind) if kind is not None else None
        return Entry(node, node_name, grant_id, record, body)

    def __repr__(self) -> str:
        # For logs: where a record stands, not what stands in it.
        where = f"{self.section} {self.record.record_id.hex()} version {self.record.version}"
        return f"<Entry {where} of {self.node_name!r}>"

    @property
    def section(self) -> str:
        """The leaf section."""
        return self.record.section

    @property
    def observed_on(self) -> str:
        """The day, YYYY-MM-DD; empty when the source does not say."""
        return self.record.observed_on

    @property
    def topic(self) -> tuple[str, ...]:
        """What it is about: the texts that name the course, test, habit or factor."""
        kind = self.record.WhichOneof("body")
        if kind is None or self.body is None:
            return ()
        texts = (getattr(self.body, name) for name in _TOPIC.get(kind, ()))
        return tuple(text for text in texts if text)

    @property
    def place(self) -> str:
        """Where it was observed; the node's name where the record does not say."""
        return self.record.context.place or self.node_name

    def facts(self) -> Iterator[Fact]:
        """Every single value of the record: its own, then those of its body, in the contract's order."""
        entry: Entry[Message] = self
        if self.record.HasField("value"):
            yield Fact(entry, "value", self.record.value.text, _scale(self.record.value))
        if self.body is not None:
            for name, text, scale in _values(self.body, ""):
                yield Fact(entry, name, text, scale)

    def to_dict(self) -> dict[str, Any]:
        """The whole record as JSON can hold it, with its provenance; bytes as hexadecimal."""
        return {
            "node": did_text(self.node),
            "node_name": self.node_name,
            "grant_id": self.grant_id.hex(),
            **message_dict(self.record),
        }


def decimal_of(text: str) -> Decimal | None:
    """The number that a text is, or None where it is anything else."""
    return Decimal(text) if _DECIMAL.match(text) else None


def message_dict(message: Message) -> dict[str, Any]:
    """A message as JSON can hold it: the contract's field names, enums by name, bytes as hexadecimal."""
    return {
        field.name: [_json(field, each) for each in value] if field.is_repeated else _json(field, value)
        for field, value in message.ListFields()
    }


def _json(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None:
        return message_dict(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return value if known is None else known.name
    return value.hex() if field.type == FieldDescriptor.TYPE_BYTES else value


def _values(message: Message, prefix: str) -> Iterator[tuple[str, str, record_pb2.Scale | None]]:
    for field, value in message.ListFields():
        for each in value if field.is_repeated else (value,):
            name = f"{prefix}{field.name}"
            if isinstance(each, record_pb2.NamedValue):
                yield f"{name}.{each.name}", each.value.text, _scale(each.value)
            elif isinstance(each, record_pb2.NamedText):
                yield f"{name}.{each.name}", each.text, None
            elif isinstance(each, record_pb2.ObjectiveResult):
                yield from _values(each, f"{name}.{each.name}.")
            elif isinstance(each, str):
                yield name, each, None


def _scale(value: record_pb2.Value) -> record_pb2.Scale | None:
    return value.scale if value.HasField("scale") else None

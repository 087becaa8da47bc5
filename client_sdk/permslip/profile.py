"""The profile: what several nodes hold about one learner, side by side, with every gap named.

Pure: answers go in, a :class:`Profile` comes out.

Rules:

- A gap is never mistaken for a fact. For each node and section that was asked for there is one :class:`Coverage`:
  returned *n*, none held, withheld, denied (with the reason), or unreachable.
- Only a whole, verified slice counts. What was cut short or failed verification contributes no record; it is listed
  among :attr:`Profile.faults`, and its sections are unreachable.
- Nothing is merged, averaged or ranked. Two nodes that say different things about the same thing stand side by side in
  :meth:`Profile.conflicts`.

Example::

    profile = client.profile("learner-17")
    for gap in profile.gaps():
        print(gap.node_name, gap.section, gap.state, gap.remedy)
    for entry in profile.grades:
        print(entry.node_name, entry.observed_on, entry.body.course_title)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from google.protobuf.message import Message

from permslip._pb.permslip.v1 import record_pb2
from permslip.coverage import Coverage
from permslip.entries import Entry, Fact
from permslip.errors import ConfigurationError, PermslipError

if TYPE_CHECKING:
    import pandas

    from permslip.jagged import Jagged

__all__ = ["COLUMNS", "Conflict", "Profile", "SliceAnswer"]

B = TypeVar("B", bound=Message)


@dataclass(frozen=True, slots=True, repr=False)
class SliceAnswer:
    """What one node said to one query.

    Attributes:
        node, node_name: who was asked.
        handle: the learner's at that node.
        grant_id: under which grant.
        coverage: one for each leaf section asked for.
        records: of a whole, verified slice; else none.
        fault: set when what came must not be believed.
        error: why there is no slice, as an error with its remedy; set with a fault too.
        slice_seq: the node's number of the latest ledger entry about this slice; 0 where unknown.
    """

    node: bytes
    node_name: str
    handle: bytes
    grant_id: bytes
    coverage: tuple[Coverage, ...]
    records: tuple[record_pb2.Record, ...] = ()
    fault: PermslipError | None = None
    error: PermslipError | None = None
    slice_seq: int = 0

    def __repr__(self) -> str:
        return f"<SliceAnswer of {self.node_name!r}, records: {len(self.records)}>"


@dataclass(frozen=True, slots=True)
class Conflict:
    """What two or more nodes say differently about the same thing.

    Attributes:
        section: where it stands.
        about: the dimension, topic and day that they share, as text.
        name: which value.
        facts: every node's value with its provenance, in the order of the nodes' names.
    """

    section: str
    about: str
    name: str
    facts: tuple[Fact, ...]

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        values = [each.to_dict() for each in self.facts]
        return {"section": self.section, "about": self.about, "name": self.name, "values": values}


@dataclass(frozen=True, slots=True, repr=False)
class Profile:
    """A learner's records from several nodes.

    Attributes:
        reference: the caller's own for the learner, where the consents gave one.
        slices: the answers it was assembled from.
        assembled_at: the caller's clock, UTC milliseconds.
    """

    reference: str
    slices: tuple[SliceAnswer, ...]
    assembled_at: int = 0
    _entries: list[Entry[Message]] = field(init=False, repr=False, compare=False, default_factory=list)

    def __repr__(self) -> str:
        # For logs: no reference and no value.
        count = sum(len(each.records) for each in self.slices)
        gaps = "complete" if self.is_complete else f"gaps: {len(self.gaps())}"
        return f"<Profile from {', '.join(repr(each.node_name) for each in self.slices)}, records: {count}, {gaps}>"

    @property
    def entries(self) -> tuple[Entry[Message], ...]:
        """Every record with its provenance; by section, day and node."""
        if not self._entries:  # arranged when somebody looks
            entries = (
                Entry.of(record, node=each.node, node_name=each.node_name, grant_id=each.grant_id)
                for each in self.slices
                for record in each.records
            )
            self._entries[:] = sorted(
                entries,
                key=lambda entry: (entry.section, entry.observed_on, entry.node_name, entry.record.record_id),
            )
        return tuple(self._entries)

    @property
    def coverage(self) -> tuple[Coverage, ...]:
        """One for each node and section asked for, by node and section."""
        all_of_them = (cover for each in self.slices for cover in each.coverage)
        return tuple(sorted(all_of_them, key=lambda cover: (cover.node_name, cover.node, cover.section)))

    @property
    def faults(self) -> tuple[tuple[str, PermslipError], ...]:
        """Node name and error of each slice that must not be believed: it was altered, swapped or cut."""
        return tuple((each.node_name, each.fault) for each in self.slices if each.fault is not None)

    @property
    def is_complete(self) -> bool:
        """Whether every section asked for was answered by every node, with nothing kept back."""
        return not any(cover.is_gap for each in self.slices for cover in each.coverage)

    def gaps(self) -> tuple[Coverage, ...]:
        """Where something may be held that was not received, and why."""
        return tuple(each for each in self.coverage if each.is_gap)

    def section(self, path: str) -> tuple[Entry[Message], ...]:
        """The entries of one leaf section, or of everything below a path; by day, then node."""
        return tuple(each for each in self.entries if each.section == path or each.section.startswith(path + "."))

    def facts(self) -> Iterator[Fact]:
        """Every single value with its provenance."""
        for entry in self.entries:
            yield from entry.facts()

    def conflicts(self) -> tuple[Conflict, ...]:
        """Values in which nodes differ about the same thing: the same section, dimension, topic and day.

        Demographics have no topic: there is one learner, so every field is the same thing.
        """
        told: dict[tuple[str, str, tuple[str, ...], str, str], dict[bytes, list[Fact]]] = {}
        for entry in self.entries:
            of_person = isinstance(entry.body, record_pb2.Demographics)
            if not (of_person or entry.topic or entry.record.dimension):
                continue  # nothing says what it is about
            record = entry.record
            topic = () if of_person else entry.topic
            dimension, day = ("", "") if of_person else (record.dimension, record.observed_on)
            for fact in entry.facts():
                key = (entry.section, dimension, topic, day, fact.name)
                told.setdefault(key, {}).setdefault(entry.node, []).append(fact)
        return tuple(
            Conflict(section, " / ".join(filter(None, (dimension, *topic, day))), name, facts)
            for (section, dimension, topic, day, name), by_node in sorted(told.items())
            if (facts := _differing(by_node))
        )

    def jagged(self, *, sections: Iterable[str] = ()) -> Jagged:
        """The dimensions × contexts of the learner's dated observations, each on its own scale; never a mean.

        Args:
            sections: only what is below these paths; empty is everything that has a value.
        """
        from permslip.jagged import jagged_of

        return jagged_of(self.entries, sections=tuple(sections))

    def to_dict(self) -> dict[str, Any]:
        """The whole profile as JSON can hold it."""
        sections: dict[str, list[dict[str, Any]]] = {}
        for entry in self.entries:
            sections.setdefault(entry.section, []).append(entry.to_dict())
        return {
            "reference": self.reference,
            "assembled_at": self.assembled_at,
            "complete": self.is_complete,
            "coverage": [each.to_dict() for each in self.coverage],
            "faults": [{"node_name": name, "message": str(error)} for name, error in self.faults],
            "sections": sections,
            "conflicts": [each.to_dict() for each in self.conflicts()],
        }

    def to_json(self, *, indent: int | None = None) -> str:
        """The whole profile as JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=indent)

    def to_frame(self) -> pandas.DataFrame:
        """One row for each single value, with its provenance.

        Raises:
            ConfigurationError: pandas is not installed.
        """
        try:
            import pandas
        except ModuleNotFoundError:
            raise ConfigurationError(
                "to_frame() needs pandas.", key="pandas", remedy="Install it with: pip install 'permslip[frames]'"
            ) from None
        return pandas.DataFrame([fact.to_dict() for fact in self.facts()], columns=list(COLUMNS))

    # The sections of the mission by the kind of thing they hold.

    @property
    def courses(self) -> tuple[Entry[record_pb2.Course], ...]:
        """``transcript.courses``"""
        return self._typed("transcript.courses", record_pb2.Course)

    @property
    def grades(self) -> tuple[Entry[record_pb2.Grade], ...]:
        """``transcript.grades``"""
        return self._typed("transcript.grades", record_pb2.Grade)

    @property
    def credits(self) -> tuple[Entry[record_pb2.CreditSummary], ...]:
        """``transcript.credits``"""
        return self._typed("transcript.credits", record_pb2.CreditSummary)

    @property
    def assessments(self) -> tuple[Entry[record_pb2.Assessment], ...]:
        """``transcript.assessments`` and ``personal.assessments``"""
        below = self._typed("transcript.assessments", record_pb2.Assessment)
        return below + self._typed("personal.assessments", record_pb2.Assessment)

    @property
    def attendance(self) -> tuple[Entry[record_pb2.Attendance], ...]:
        """``personal.attendance``"""
        return self._typed("personal.attendance", record_pb2.Attendance)

    @property
    def work_habits(self) -> tuple[Entry[record_pb2.WorkHabit], ...]:
        """``personal.work_habits``"""
        return self._typed("personal.work_habits", record_pb2.WorkHabit)

    @property
    def services(self) -> tuple[Entry[record_pb2.ServiceReceived], ...]:
        """``personal.services``"""
        return self._typed("personal.services", record_pb2.ServiceReceived)

    @property
    def works(self) -> tuple[Entry[record_pb2.Work], ...]:
        """``portfolio.works``"""
        return self._typed("portfolio.works", record_pb2.Work)

    @property
    def observations(self) -> tuple[Entry[record_pb2.Observation], ...]:
        """``variability``"""
        return self._typed("variability", record_pb2.Observation)

    @property
    def voice(self) -> tuple[Entry[record_pb2.Voice], ...]:
        """``voice``"""
        return self._typed("voice", record_pb2.Voice)

    @property
    def demographics(self) -> tuple[Entry[record_pb2.Demographics], ...]:
        """``identity.demographics``"""
        return self._typed("identity.demographics", record_pb2.Demographics)

    def _typed(self, path: str, body: type[B]) -> tuple[Entry[B], ...]:
        return tuple(cast("Entry[B]", each) for each in self.section(path) if isinstance(each.body, body))


_NOTHING: Final = Entry.of(record_pb2.Record(), node=bytes(32), node_name="", grant_id=b"")
# The columns of a profile as a table.
COLUMNS: Final = tuple(Fact(_NOTHING, "", "").to_dict())


def _differing(by_node: Mapping[bytes, list[Fact]]) -> tuple[Fact, ...]:
    """All facts, when the nodes do not all say the same; else nothing."""
    said = [{(fact.text, fact.scale.name if fact.scale else "") for fact in facts} for facts in by_node.values()]
    if all(each == said[0] for each in said):
        return ()
    every = (fact for facts in by_node.values() for fact in facts)
    return tuple(sorted(every, key=lambda fact: (fact.entry.node_name, fact.entry.node, fact.text)))

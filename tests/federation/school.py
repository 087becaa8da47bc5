"""A school for tests: a real node's files, its learners and families, started in this process or as one of its own.

Example::

    school = School.made(folder, operator, broker, now=now)
    ada = school.learner("604822", grades=50, guardians=["P1"])
    async with school.running() as node: ...
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from permslip._pb.permslip.v1 import record_pb2, statement_pb2 as pb
from permslip.armor import write_statements
from permslip.keyfile import PrincipalKind, StoredKeys, write_key_file
from permslip.keys import did_text
from permslip.linking import make_link_request
from permslip.quantities import Handle, Millis
from permslip_node.administration import Office, open_office
from permslip_node.app import RunningNode, boot_millis, open_node, open_store
from permslip_node.configuration import LimitSettings, NodeSettings, TimingSettings
from permslip_node.importing.sink import ImportedGuardian, ImportedName, ImportedRecord, record_id
from permslip_node.slips import IssuedSlip, issue_slip
from permslip_node.sql_sink import SqlSink
from tests.federation.principals import Organization, Person
from tests.federation.simulated_broker import AttachedNode

__all__ = ["ATTENDANCE", "GRADES", "School"]

GRADES = "transcript.grades"
ATTENDANCE = "personal.attendance"

# Short enough for tests, long enough for a busy machine.
QUICK = TimingSettings(
    lease_interval_ms=50, lease_ms=5_000, first_retry_ms=20, longest_retry_ms=100, notice_ms=20, drain_s=5.0
)


@dataclass
class School:
    """One node's folder.

    Attributes:
        organization: its keys.
        settings: as its configuration file would say.
        now: UTC milliseconds; tests may move it.
    """

    organization: Organization
    settings: NodeSettings
    now: Callable[[], Millis]
    monotonic: Callable[[], int] = field(default=boot_millis)

    @classmethod
    def made(
        cls,
        folder: Path,
        operator: Person,
        brokers: Sequence[tuple[str, bytes]],
        *,
        federation: str,
        now: Callable[[], Millis],
        timing: TimingSettings = QUICK,
        limits: LimitSettings | None = None,
        quorum: Any = "any",
        database: str = "",
    ) -> School:
        """Keys, certificate and settings in ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        organization = Organization.new("Grand Bend High", pb.PRINCIPAL_KIND_NODE, federation, now=now())
        keys = StoredKeys(PrincipalKind.NODE, organization.key, organization.sealing)
        write_key_file(folder / "node.key", keys)
        write_statements(folder / "node.cert", [organization.cert.envelope])
        settings = NodeSettings(
            key_file=folder / "node.key",
            cert_file=folder / "node.cert",
            name="Grand Bend High",
            federation=federation,
            operator=did_text(operator.public),
            database=database or f"sqlite:///{folder / 'node.db'}",
            brokers=tuple(f"{address}={did_text(root)}" for address, root in brokers),
            quorum=quorum,
            timing=timing,
            limits=limits or LimitSettings(),
        )
        return cls(organization, settings, now)

    @property
    def root(self) -> bytes:
        """The node's."""
        return self.organization.root

    def with_timing(self, **changes: Any) -> School:
        """The same school, with other times."""
        timing = replace(self.settings.timing, **changes)
        return replace(self, settings=replace(self.settings, timing=timing))

    def with_limits(self, **changes: Any) -> School:
        """The same school, with other limits."""
        limits = replace(self.settings.limits, **changes)
        return replace(self, settings=replace(self.settings, limits=limits))

    def rotated(self) -> School:
        """The same school with new online keys, in its files too."""
        organization = self.organization.rotated(now=self.now())
        keys = StoredKeys(PrincipalKind.NODE, organization.key, organization.sealing)
        write_key_file(self.settings.key_file, keys, overwrite=True)
        write_statements(self.settings.cert_file, [organization.cert.envelope])
        return replace(self, organization=organization)

    # ------------------------------------------------------------------------------------- what it holds

    def learner(
        self,
        native_id: str,
        *,
        grades: int = 0,
        attendance: int = 0,
        guardians: Sequence[str] = ("P1",),
        text: str = "B",
        days: Sequence[str] = ("2010-10-03",),
    ) -> Handle:
        """A learner with records and guardians, imported as an importer would."""
        with open_store(self.settings) as engine:
            sink = SqlSink(engine, clock=self.now)
            handle = sink.learner(native_id)
            sink.put_names([ImportedName(native_id, f"Learner {native_id}")])
            sink.put_persons([guardian_of(native_id, each) for each in guardians])
            for section, count in ((GRADES, grades), (ATTENDANCE, attendance)):
                for start in range(0, count, 2_000):
                    batch = range(start, min(start + 2_000, count))
                    sink.put_records([grade_of(handle, each, section, days[each % len(days)], text) for each in batch])
            return handle

    def slip(self, native_id: str, person_id: str = "P1") -> IssuedSlip:
        """Print a slip."""
        with open_store(self.settings) as engine:
            return issue_slip(
                engine, self.root, native_id, person_id, days=self.settings.limits.slip_days, now=self.now()
            )

    # ------------------------------------------------------------------------------------- running

    @asynccontextmanager
    async def running(self) -> AsyncIterator[RunningNode]:
        """Run the node in this process."""
        async with open_node(self.settings, clock=self.now, monotonic=self.monotonic) as node:
            yield node

    @asynccontextmanager
    async def office(self) -> AsyncIterator[Office]:
        """Its operator's desk: a second user of the database."""
        async with open_office(self.settings, clock=self.now) as office:
            yield office

    async def link(
        self, node: AttachedNode, native_id: str, person_id: str = "P1", who: Person | None = None
    ) -> Person:
        """Print a slip, and link a new person's key by it."""
        person = who or Person.new()
        slip = self.slip(native_id, person_id).slip
        keys = StoredKeys(PrincipalKind.GUARDIAN, person.key, person.sealing)
        sealed, pending = make_link_request(
            slip, self.organization.federation, keys, self.organization.cert.envelope, self.now()
        )
        result = await node.link(sealed)
        assert not result.HasField("refusal"), result.refusal.message
        pending.open_response(result.sealed_response)
        return person

    def write_config(self, folder: Path) -> Path:
        """The settings as a file, for a process of its own."""
        timing = self.settings.timing
        lines = [
            "[node]",
            f'name = "{self.settings.name}"',
            f'federation = "{self.settings.federation}"',
            f'operator = "{self.settings.operator}"',
            f'key_file = "{self.settings.key_file}"',
            f'cert_file = "{self.settings.cert_file}"',
            f'database = "{self.settings.database}"',
            f"brokers = [{', '.join(repr(each) for each in self.settings.brokers)}]",
            "[node.timing]",
            *(f"{name} = {getattr(timing, name)}" for name in timing.__dataclass_fields__),
        ]
        path = folder / "node.toml"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    @staticmethod
    def command(*words: str) -> list[str]:
        """``permslip node …`` as a process of its own."""
        return [sys.executable, "-c", "from permslip.cli import main; main()", "node", *words]


def grade_of(handle: Handle, number: int, section: str, day: str, text: str) -> ImportedRecord:
    """One record."""
    record = record_pb2.Record(section=section, observed_on=day, value=record_pb2.Value(text=text))
    if section == GRADES:
        record.grade.SetInParent()
    else:
        record.attendance.event = "In Attendance"
    content = record.SerializeToString(deterministic=True)
    return ImportedRecord(handle, record_id(handle, "test", section, [str(number)], 1), section, day, content)


def guardian_of(native_id: str, person_id: str) -> ImportedGuardian:
    """One guardian."""
    return ImportedGuardian(
        native_learner_id=native_id,
        native_guardian_id=person_id,
        display_name=f"Person {person_id}",
        first_name="Person",
        last_name=person_id,
        relation="Mother",
        lives_with=None,
        primary_contact=None,
        emergency_contact=None,
        legal_guardian=None,
        contact_restrictions="",
        contact_priority="",
    )

"""The honest federation that every planted fault begins with: real processes, lived through, stopped in order.

Mia is known at ``high`` and ``platform``, with her mother and her father as guardians; ``library`` holds nobody and
only bears witness. The witness set names all three, two of them must cosign. What happened is told by :class:`Honest`:
each grant and query by its name in ``grants`` and ``queries``.

Example::

    honest = Honest.lived(folder)
    honest.queries["first"].id, honest.schools[0].root
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import grpc

from permslip import statements as st
from permslip._pb.permslip.v1 import (
    guardian_pb2,
    guardian_pb2_grpc,
    provider_pb2,
    provider_pb2_grpc,
    record_pb2,
    session_pb2,
    statement_pb2 as pb,
)
from permslip.armor import write_statements
from permslip.keyfile import PrincipalKind, StoredKeys, write_key_file
from permslip.keys import did_text
from permslip.linking import make_link_request
from permslip.reasons import Reason
from permslip.slices import SliceReader
from permslip.statements import Signed
from permslip_node.app import open_store
from permslip_node.importing.sink import ImportedGuardian, ImportedName, ImportedRecord
from permslip_node.slips import issue_slip
from permslip_node.sql_sink import SqlSink
from tests.federation.consents import Asked, make_delegation, make_grant
from tests.federation.district import ATTENDANCE, CHILD, GRADES, SECTIONS, District
from tests.federation.principals import Organization, Person, admit
from tests.federation.processes import now
from tests.federation.requester import Requester
from tests.federation.school_process import SchoolProcess, until

__all__ = ["FEDERATION", "Honest"]

FEDERATION = "fed.test"
NODES = ("high", "platform", "library")
MOTHER, FATHER = "P1", "P2"
_PATIENCE = 20.0


class Honest(District):
    """Everybody. Made by :meth:`lived`.

    Args:
        folder: where everything is made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.father, self.stranger = Person.new(), Person.new()
        self.auditor = Organization.new("State Auditor", pb.PRINCIPAL_KIND_AUDITOR, FEDERATION, now=now())
        self.narrow = Organization.new("Platform's Auditor", pb.PRINCIPAL_KIND_AUDITOR, FEDERATION, now=now())
        self.grants: dict[str, Signed[pb.Grant]] = {}
        self.delegations: dict[str, Signed[pb.Delegation]] = {}
        self.revocations: dict[str, Signed[pb.Revocation]] = {}
        self.queries: dict[str, Asked] = {}
        super().__init__(folder)

    # ------------------------------------------------------------------------------------- beginning and end

    def _make(self) -> None:
        processes = self.processes
        with ThreadPoolExecutor(len(NODES)) as side_by_side:
            self.schools = tuple(side_by_side.map(lambda name: SchoolProcess(processes, name), NODES))
        for each in self.schools[:2]:
            self.handles[each.root] = _learner(each)
        self._name_witnesses()
        processes.start_broker()
        processes.admit([*(each.organization for each in self.schools), self.tutor, self.clinic, self.auditor])
        scope = pb.AuditScope(nodes=[self.platform.root])
        processes.record(admit(processes.operator, self.narrow, now=now(), audit_scope=scope), self.narrow.cert)
        for each in self.schools:
            each.start()
        self._write_settings()

    @classmethod
    def lived(cls, folder: Path) -> Honest:
        """The whole history; nothing runs any more when this returns."""
        honest = cls(folder)
        with honest:
            asyncio.run(honest._live())
            honest.stop()
        return honest

    def stop(self) -> None:
        """End everything in order; what is left are databases without logs beside them."""
        for each in self.schools:
            assert each.end() == 0, each.name
        assert self.processes.broker.end() == 0
        for database in self.databases.values():
            with closing(sqlite3.connect(database)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @property
    def library(self) -> SchoolProcess:
        """The third school."""
        return self.schools[2]

    @property
    def databases(self) -> dict[str, Path]:
        """Whose database is where: ``broker`` and each node's name."""
        broker = self.processes.broker_folder / "broker.db"
        return {"broker": broker, **{each.name: each.folder / "node.db" for each in self.schools}}

    def copy_to(self, folder: Path) -> dict[str, Path]:
        """The databases once more; a test does with them as it likes."""
        return {name: Path(shutil.copy(file, folder / f"{name}.db")) for name, file in self.databases.items()}

    @property
    def witnesses_file(self) -> Path:
        """The operator's set of witnesses."""
        return self.folder / "witnesses.txt"

    def settings_file(self, folder: Path, address: str, **changes: Path | str) -> Path:
        """The auditor's ``permslip.toml`` for a broker that listens there."""
        values: dict[str, Path | str] = {
            "broker": address,
            "broker_root": did_text(self.root),
            "federation": FEDERATION,
            "operator": did_text(self.processes.operator.public),
            "key": self.folder / "auditor.key",
            "cert": self.folder / "auditor.cert",
            "witnesses": self.witnesses_file,
            **changes,
        }
        path = folder / "permslip.toml"
        path.write_text("".join(f'{key} = "{value}"\n' for key, value in values.items() if value), encoding="utf-8")
        return path

    def ledger_root(self, name: str) -> bytes:
        """The root key of whose ledger that is."""
        return self.root if name == "broker" else next(each.root for each in self.schools if each.name == name)

    def _name_witnesses(self) -> None:
        folder = self.processes.broker_folder
        self.processes.command(
            *("operator", "--config", str(folder / "permslip.toml"), "--key", str(folder / "operator.key")),
            *("witnesses", *(did_text(each.root) for each in self.schools)),
            *("--quorum", "2", "--out", str(self.witnesses_file)),
        )
        with self.processes.broker_config.open("a", encoding="utf-8") as file:
            file.write(f'witness_set_file = "{self.witnesses_file}"\n\n[broker.ledger]\ncheckpoint_ms = 50\n')
            file.write("node_checkpoint_s = 0.5\n")

    def _write_settings(self) -> None:
        for name, who in (("auditor", self.auditor), ("narrow", self.narrow)):
            write_key_file(self.folder / f"{name}.key", StoredKeys(PrincipalKind.AUDITOR, who.key, who.sealing))
            write_statements(self.folder / f"{name}.cert", [who.cert.envelope])

    # ------------------------------------------------------------------------------------- what happened

    async def _live(self) -> None:
        high, platform = self.high, self.platform
        await asyncio.gather(*(each.until_ready() for each in self.schools))
        for each in self.schools[:2]:
            await self.link_as(each, self.mother, MOTHER)
            await self.link_as(each, self.father, FATHER)
        await self._grant("plain", high)
        await self._grant("plain at platform", platform)
        await self._grant("attendance alone", high, sections=[ATTENDANCE])
        await self._grant("twice", high, max_uses=2)
        await self._grant("onward", high, delegation_depth=True)
        await self._grant("a stranger's", high, signers=[self.stranger], status=session_pb2.GRANT_STATUS_REFUSED)
        await self._grant("to be revoked", high)
        await self._grant("to be superseded", high)
        await self._grant("the father's", high, signers=[self.father])
        self.delegations["to the clinic"] = delegation = make_delegation(
            self.tutor, self.grants["onward"], self.clinic.root, [ATTENDANCE], now=now()
        )
        await self._deposit(delegation)
        async with self.requester() as tutor, self.requester(self.clinic) as clinic:
            await self._ask(tutor, "first", "plain")
            await self._ask(tutor, "second", "plain", [GRADES])
            await self._ask(tutor, "at platform", "plain at platform")
            await self._ask(tutor, "part", "attendance alone", ["identity.demographics", ATTENDANCE, GRADES])
            await self._ask(tutor, "not granted", "attendance alone", [GRADES], reason=Reason.SECTION_NOT_GRANTED)
            await self._ask(tutor, "refused", "a stranger's", reason=Reason.ENDORSEMENT_REFUSED)
            await self._ask(clinic, "not the clinic's", "plain", who=self.clinic, reason=Reason.NOT_GRANTEE)
            passed_on: dict[str, Any] = {"who": self.clinic, "delegations": [delegation.id]}
            await self._ask(clinic, "passed on", "onward", [ATTENDANCE], **passed_on)
            await self._ask(clinic, "too much", "onward", [GRADES], reason=Reason.SECTION_NOT_GRANTED, **passed_on)
            old = now() - 100_000
            await self._ask(tutor, "too old", "plain", now=old, lifetime=60_000, reason=Reason.QUERY_EXPIRED)
            await self._uses(tutor)
            await self._ask(tutor, "before its end", "to be revoked")
            await self._supersede(tutor)
            await self._revoke("revoked", "to be revoked")
            await self._ask(tutor, "after its end", "to be revoked", reason=Reason.GRANT_REVOKED)
            await self._unreachable(tutor, "in vain")
            await self._ask(tutor, "tried again", "plain at platform", retry_of=self.queries["in vain"].id)
        await self._suspend_father()
        await self._rotate()
        async with self.requester() as tutor:
            await self._ask(tutor, "with a new key", "plain")
            await self._ask(tutor, "last at platform", "plain at platform")
            await self._ask(tutor, "last", "plain")
            await self._unreachable(tutor, "unserved")
        await self._settled()

    async def _uses(self, tutor: Requester) -> None:
        """Two uses: one in two pages, one whole; then no more."""
        first = await self._ask(tutor, "page 1", "twice", [GRADES], page_size=3)
        page = _manifest(first, self.queries["page 1"], self.high.root).next_page
        assert page
        continued: dict[str, Any] = {"page_size": 3, "page": page, "continues": self.queries["page 1"].id}
        await self._ask(tutor, "page 2", "twice", [GRADES], **continued)
        await self._ask(tutor, "second use", "twice")
        await self._ask(tutor, "third use", "twice", reason=Reason.USES_EXHAUSTED)

    async def _supersede(self, tutor: Requester) -> None:
        before = self.grants["to be superseded"]
        await self._ask(tutor, "before it was superseded", "to be superseded")
        await self._grant("superseding", self.high, sections=[ATTENDANCE], supersedes=[before.id])
        await self._ask(tutor, "superseded", "to be superseded", reason=Reason.GRANT_SUPERSEDED)
        await self._ask(tutor, "under the new one", "superseding", [ATTENDANCE])

    async def _unreachable(self, tutor: Requester, name: str) -> None:
        """A query that no node got."""
        self.platform.cable.target = 9  # nobody listens there
        self.platform.cable.cut()
        await self.until_detached(self.platform)
        answer = await self._ask(tutor, name, "plain at platform", reason=Reason.UNREACHABLE)
        assert not answer.sealed_bytes
        attached = self.attachments(self.platform)
        self.platform.cable.target = self.port
        await self.until_fit(self.platform, attached=attached)

    async def _suspend_father(self) -> None:
        await asyncio.to_thread(
            self.processes.command, "node", "suspend", FATHER, CHILD, "--config", str(self.high.config)
        )

    async def _rotate(self) -> None:
        self.tutor = self.tutor.rotated(now=now())
        await asyncio.to_thread(self.processes.record, self.tutor.cert)
        for each in self.schools:
            await self.until_fit(each)

    async def _settled(self) -> None:
        """Every answer's end is recorded on both sides, and the broker cosigned every node's ledger."""
        for name in ("last", "last at platform"):
            for ledger in (self.broker_ledger, (self.high if name == "last" else self.platform).ledger):
                await self.endings(ledger, self.queries[name].id)
        for each in self.schools:
            await until(partial(self._is_cosigned, each), "the broker cosigned the node's ledger")

    def _is_cosigned(self, school: SchoolProcess) -> bool:
        with closing(sqlite3.connect(self.databases["broker"], timeout=_PATIENCE)) as connection:
            row = connection.execute("SELECT size FROM node_checkpoint WHERE node = ?", (school.root,)).fetchone()
        return row is not None and row[0] == len(school.ledger.entries())

    # ------------------------------------------------------------------------------------- single acts

    async def link_as(self, school: SchoolProcess, person: Person, native_id: str) -> None:
        """Link a guardian by a slip."""
        with open_store(school.settings) as engine:
            slip = issue_slip(engine, school.root, CHILD, native_id, days=1, now=now()).slip
        keys = StoredKeys(PrincipalKind.GUARDIAN, person.key, person.sealing)
        sealed, pending = make_link_request(slip, FEDERATION, keys, school.organization.cert.envelope, now())
        async with grpc.aio.insecure_channel(self.address) as channel:
            answer = await guardian_pb2_grpc.GuardianServiceStub(channel).RelayLink(
                guardian_pb2.RelayLinkRequest(federation=FEDERATION, node=school.root, sealed_request=sealed)
            )
        assert not answer.HasField("refusal"), answer.refusal
        pending.open_response(answer.sealed_response)

    def make_grant(self, school: SchoolProcess, **changes: Any) -> Signed[pb.Grant]:
        """A grant that nobody has seen yet; by the mother to the tutor unless changed."""
        given: dict[str, Any] = {"signers": [self.mother], "sections": SECTIONS, "now": now() - 1_000, **changes}
        if given.pop("delegation_depth", False):
            given |= {"depth": 1, "onward": [self.clinic.root]}
        grantee = given.pop("grantee", self.tutor.root)
        signers, sections = given.pop("signers"), given.pop("sections")
        return make_grant(
            signers, school.root, self.handles[school.root], grantee, sections, federation=FEDERATION, **given
        )

    def make_query(self, grant: Signed[pb.Grant], sections: Sequence[str] = SECTIONS, **changes: Any) -> Asked:
        """A query that nobody has seen yet; the tutor's unless changed."""
        more = {name: changes.pop(name) for name in ("page", "page_size") if name in changes}
        asked = self.query(grant, sections, **changes)
        if not more:
            return asked
        payload = pb.Query()
        payload.CopyFrom(asked.query.payload)
        for name, value in more.items():
            setattr(payload, name, value)
        return Asked(st.sign(st.QUERY, payload, [(changes.get("who") or self.tutor).key]), asked.reply_key)

    async def _grant(
        self,
        name: str,
        school: SchoolProcess,
        *,
        status: session_pb2.GrantStatus.ValueType = session_pb2.GRANT_STATUS_ACTIVE,
        **changes: Any,
    ) -> None:
        self.grants[name] = grant = self.make_grant(school, **changes)
        async with grpc.aio.insecure_channel(self.address) as channel:
            response = await guardian_pb2_grpc.GuardianServiceStub(channel).DepositConsent(
                guardian_pb2.DepositConsentRequest(statements=[grant.envelope], wait=20_000)
            )
        assert [each.grant.status for each in response.results] == [status], response

    async def _deposit(self, *statements: Signed[Any]) -> None:
        async with grpc.aio.insecure_channel(self.address) as channel:
            response = await provider_pb2_grpc.ProviderServiceStub(channel).Deposit(
                provider_pb2.DepositRequest(statements=[each.envelope for each in statements]), timeout=_PATIENCE
            )
        assert all(each.refusal.code == Reason.ALLOWED.wire for each in response.results), response
        for each in self.schools:
            await self.until_fit(each)

    async def _ask(
        self,
        requester: Requester,
        name: str,
        grant: str,
        sections: Sequence[str] = SECTIONS,
        *,
        reason: Reason = Reason.ALLOWED,
        **changes: Any,
    ) -> Any:
        self.queries[name] = asked = self.make_query(self.grants[grant], sections, **changes)
        answer = await requester.ask(asked)
        assert answer.reason == reason, (name, answer.outcome)
        return answer

    async def _revoke(self, name: str, grant: str) -> None:
        self.revocations[name] = revocation = self.revocation(self.grants[grant])
        state = await self.revoke(revocation)
        assert state.HasField("acknowledgement"), state


def _manifest(answer: Any, asked: Asked, node: bytes) -> pb.Manifest:
    reader = SliceReader(asked.query, asked.reply_key, node=node, check_signer=lambda _signer: None)
    for piece in answer.pieces:
        if piece.HasField("opening"):
            reader.open_with(piece.opening)
        for chunk in piece.chunks:
            reader.read(chunk)
    return reader.finish().payload


def _learner(school: SchoolProcess) -> bytes:
    """Mia, with both guardians and a few records."""
    with open_store(school.settings) as engine:
        sink = SqlSink(engine, clock=now)
        handle = sink.learner(CHILD)
        sink.put_names([ImportedName(CHILD, "Mia")])
        for person, relation in ((MOTHER, "Mother"), (FATHER, "Father")):
            named = (person, person, "", relation, None, None, None, None, "", "")
            sink.put_persons([ImportedGuardian(CHILD, person, *named)])
        sink.put_records([_record(handle, number, section) for section in SECTIONS for number in range(8)])
    return handle


def _record(handle: Any, number: int, section: str) -> ImportedRecord:
    record = record_pb2.Record(section=section, observed_on="2026-03-02", value=record_pb2.Value(text=f"{number}"))
    if section == GRADES:
        record.grade.SetInParent()
    else:
        record.attendance.event = "In Attendance"
    content = record.SerializeToString(deterministic=True)
    return ImportedRecord(handle, number.to_bytes(16, "big"), section, record.observed_on, content)

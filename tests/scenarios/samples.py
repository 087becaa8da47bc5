"""One good statement of every kind, with the keys that sign it: what vectors, properties and unit tests begin from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from permslip import statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.keys import SigningKey
from permslip.statements import Signed
from tests.scenarios.world import DAY, HOUR, MINUTE, Party, World, seed

Sample = tuple[st.Kind[Any], Any, list[SigningKey]]


def samples() -> dict[str, Sample]:
    """Kind's name → kind, payload, keys; made anew, so that a test may change the payload."""
    return {name: make() for name, make in _Samples().all().items()}


def signed_samples() -> dict[str, Signed[Any]]:
    """Kind's name → signed statement."""
    return {name: st.sign(kind, payload, keys) for name, (kind, payload, keys) in samples().items()}


class _Samples:
    def __init__(self) -> None:
        self.world = World()
        self.school, self.tutor = self.world.node("school"), self.world.provider("tutor")
        self.mother, self.father = self.world.person("mother"), self.world.person("father")
        self.place = pb.Slice(node=self.school.id, handle=seed("handle", "school")[:16])
        self.grant_id = seed("grant")

    def all(self) -> dict[str, Callable[[], Sample]]:
        return {
            "grant": self.grant,
            "endorsement": self.endorsement,
            "objection": self.objection,
            "delegation": self.delegation,
            "revocation": self.revocation,
            "acknowledgement": self.acknowledgement,
            "access-request": self.access_request,
            "query": self.query,
            "contribution": self.contribution,
            "opening": self.opening,
            "manifest": self.manifest,
            "receipt": self.receipt,
            "key-cert": self.key_cert,
            "device-key": self.device_key,
            "admission": self.admission,
            "suspension": self.suspension,
            "witness-set": self.witness_set,
            "hello": self.hello,
            "tick": self.tick,
            "link-request": self.link_request,
            "link-response": self.link_response,
            "chain-end": self.chain_end,
        }

    def common(self, by: Party) -> dict[str, Any]:
        return self.world.common(by)

    def grant(self) -> Sample:
        signed = self.world.grant(
            [self.mother, self.father],
            self.school,
            self.tutor,
            actions=[pb.ACTION_READ, pb.ACTION_WATCH],
            sections=["personal", "transcript.grades"],
            records_from="2026-08-01",
            records_until="2027-06-30",
            max_uses=40,
            delegation_depth=1,
            onward_parties=[seed("onward")],
            erase_within_days=30,
            supersedes=[seed("earlier grant")],
        )
        return st.GRANT, signed.payload, [self.mother.online, self.father.online]

    def endorsement(self) -> Sample:
        body = pb.Endorsement(
            **self.common(self.school),
            grant_id=self.grant_id,
            verdict=pb.ENDORSEMENT_VERDICT_ENDORSED,
            quorum_rule="any",
            revokers=sorted([seed("revoker", 1), seed("revoker", 2)]),
            valid_until=self.world.now + 30 * DAY,
        )
        return st.ENDORSEMENT, body, [self.school.online]

    def objection(self) -> Sample:
        body = pb.Objection(
            **self.common(self.father), slice=self.place, grantees=[self.tutor.id], sections=["personal.services"]
        )
        return st.OBJECTION, body, [self.father.online]

    def delegation(self) -> Sample:
        body = pb.Delegation(
            **self.common(self.tutor),
            parent_id=self.grant_id,
            delegatee=seed("onward"),
            actions=[pb.ACTION_READ],
            sections=["transcript.grades"],
            not_before=self.world.now,
            expires_at=self.world.now + 7 * DAY,
            records_from="2026-08-01",
            records_until="2027-06-30",
            max_uses=3,
        )
        return st.DELEGATION, body, [self.tutor.online]

    def revocation(self) -> Sample:
        body = pb.Revocation(
            **self.common(self.mother),
            target_id=self.grant_id,
            node=self.school.id,
            role=pb.REVOKER_ROLE_GUARDIAN,
        )
        return st.REVOCATION, body, [self.mother.online]

    def acknowledgement(self) -> Sample:
        body = pb.Acknowledgement(
            **self.common(self.school), statement_id=seed("revocation"), target_id=self.grant_id, ledger_size=12
        )
        return st.ACKNOWLEDGEMENT, body, [self.school.online]

    def access_request(self) -> Sample:
        body = pb.AccessRequest(
            **self.common(self.tutor),
            expires_at=self.world.now + 14 * DAY,
            guardian=self.mother.id,
            purpose=pb.PURPOSE_TUTORING,
            terms=b"sealed terms",
            terms_sealed=True,
        )
        return st.ACCESS_REQUEST, body, [self.tutor.online]

    def query(self) -> Sample:
        body = pb.Query(
            **self.common(self.tutor),
            expires_at=self.world.now + MINUTE,
            grant_id=self.grant_id,
            action=pb.ACTION_READ,
            sections=["transcript"],
            records_from="2026-08-01",
            page_size=50,
            reply_key=self.tutor.sealing.public,
        )
        return st.QUERY, body, [self.tutor.online]

    def contribution(self) -> Sample:
        body = pb.Contribution(
            **self.common(self.tutor),
            expires_at=self.world.now + HOUR,
            grant_id=self.grant_id,
            slice=self.place,
            section="personal.mastery",
            content_salted_sha256=seed("content"),
        )
        return st.CONTRIBUTION, body, [self.tutor.online]

    def opening(self) -> Sample:
        body = pb.Opening(
            **self.common(self.school),
            query_id=seed("query"),
            grant_id=self.grant_id,
            sealed_key=bytes(range(80)),
            header=bytes(range(24)),
        )
        return st.OPENING, body, [self.school.online]

    def manifest(self) -> Sample:
        body = pb.Manifest(
            **self.common(self.school),
            query_id=seed("query"),
            grant_id=self.grant_id,
            coverage=[
                pb.SectionCoverage(section="transcript.courses", reason=pb.REASON_ALLOWED),
                pb.SectionCoverage(section="transcript.grades", reason=pb.REASON_ALLOWED, returned=3, withheld=True),
                pb.SectionCoverage(section="voice.goals", reason=pb.REASON_SECTION_NOT_GRANTED),
            ],
            records=3,
            records_sha256=seed("records"),
            next_page=b"page",
            slice_seq=7,
        )
        return st.MANIFEST, body, [self.school.online]

    def receipt(self) -> Sample:
        body = pb.Receipt(
            **self.common(self.tutor),
            kind=pb.RECEIPT_KIND_RECEIVED,
            grant_id=self.grant_id,
            query_id=seed("query"),
            manifest_sha256=seed("manifest"),
        )
        return st.RECEIPT, body, [self.tutor.online]

    def key_cert(self) -> Sample:
        return st.KEY_CERT, self.world.key_cert(self.tutor).payload, [self.tutor.root]

    def device_key(self) -> Sample:
        device = self.world.person("mother's tablet")
        body = pb.DeviceKey(**self.common(self.mother), device=device.id, device_sealing_key=device.sealing.public)
        return st.DEVICE_KEY, body, [self.mother.online, device.online]

    def admission(self) -> Sample:
        body = pb.Admission(
            **self.common(self.world.operator),
            root=self.world.organization("auditor").id,
            kind=pb.PRINCIPAL_KIND_AUDITOR,
            name="State auditor",
            agreement_id="NDPA-2026-17",
            valid_until=self.world.now + 365 * DAY,
            audit_scope=pb.AuditScope(nodes=[self.school.id], until=self.world.now),
        )
        return st.ADMISSION, body, [self.world.operator.online]

    def suspension(self) -> Sample:
        body = pb.Suspension(**self.common(self.world.operator), root=self.tutor.id, agreement_id="NDPA-2026-17")
        return st.SUSPENSION, body, [self.world.operator.online]

    def witness_set(self) -> Sample:
        olds = [self.world.organization(f"witness {number}") for number in (1, 2)]
        body = pb.WitnessSet(
            **self.common(self.world.operator),
            seq=2,
            witnesses=sorted([self.school.id, olds[0].id, olds[1].id]),
            quorum=2,
            replaces=seed("witness set 1"),
            old_witnesses=sorted(each.id for each in olds),
        )
        return st.WITNESS_SET, body, [self.world.operator.online, *(each.root for each in olds)]

    def hello(self) -> Sample:
        body = pb.Hello(
            **self.common(self.tutor),
            kind=pb.PRINCIPAL_KIND_PROVIDER,
            broker=self.world.organization("broker").id,
            server_nonce=bytes(range(48)),
            expires_at=self.world.now + MINUTE,
            versions=[1],
            reply_key=self.tutor.sealing.public,
        )
        return st.HELLO, body, [self.tutor.online]

    def tick(self) -> Sample:
        broker = self.world.organization("broker")
        body = pb.Tick(
            **self.common(broker),
            node=self.school.id,
            lease_nonce=bytes(range(16)),
            ledger_size=1234,
            root_hash=seed("root"),
            push_count=17,
        )
        return st.TICK, body, [broker.online]

    def link_request(self) -> Sample:
        body = pb.LinkRequest(
            **self.common(self.mother),
            node=self.school.id,
            selector=bytes(range(8)),
            reply_key=self.mother.sealing.public,
            mac=seed("mac"),
            sealing_key=self.mother.sealing.public,
        )
        return st.LINK_REQUEST, body, [self.mother.online]

    def link_response(self) -> Sample:
        body = pb.LinkResponse(
            **self.common(self.school),
            request_id=seed("request"),
            slice=self.place,
            mac=seed("mac"),
            learner_name="A. Learner",
            node_name="Example School",
            relationship="Mother",
            quorum_rule="any",
            other_guardians=1,
            majority_at=self.world.now + 900 * DAY,
        )
        return st.LINK_RESPONSE, body, [self.school.online]

    def chain_end(self) -> Sample:
        body = pb.ChainEnd(
            **self.common(self.school),
            hello_id=seed("hello"),
            slice=self.place,
            slice_seq=7,
            leaf_hash=seed("leaf"),
            ledger_size=1234,
        )
        return st.CHAIN_END, body, [self.school.online]

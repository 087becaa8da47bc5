"""Vectors of answers: what a requester opens, and what it must refuse."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from permslip import statements as st
from permslip._pb.permslip.v1 import record_pb2, statement_pb2 as pb
from permslip.keys import SealingKey
from permslip.sealing import padme
from permslip.statements import Signed
from tests.scenarios.world import NOW, World, seed
from tests.vectors.making.sealed_by_hand import sealed_box, sealed_chunks

Case = dict[str, Any]


class _Answer:
    """One query and the honest answer to it, in pieces that a case can spoil."""

    def __init__(self, sizes: list[int]) -> None:
        self.world = World()
        self.school, self.tutor = self.world.node("school"), self.world.provider("tutor")
        grant = self.world.grant(self.world.person("mother"), self.school, self.tutor)
        self.reply = SealingKey.from_seed(seed("reply"))
        self.query = self.world.query(
            self.tutor, grant, ["transcript.courses", "transcript.grades"], reply_key=self.reply.public
        )
        self.content_key, self.header = seed("content key", len(sizes)), seed("header", len(sizes))[:24]
        self.records = [self._record(number, size) for number, size in enumerate(sizes)]
        self.bodies = [_part(record) for record in self.records]
        self.manifest = self._manifest()
        self.plaintexts = self._plaintexts()
        self.chunks = sealed_chunks(self.plaintexts, self.content_key, self.header, self.query.id)
        self.opening = self._opening(self.query)

    def case(self, name: str, **changes: Any) -> Case:
        """The honest answer, with what ``changes`` say."""
        return {
            "name": name,
            "federation": self.world.federation,
            "reply_seed": seed("reply").hex(),
            "node": self.school.id.hex(),
            "node_key": self.school.online.public.raw.hex(),
            "query": self.query.raw.hex(),
            "opening": self.opening.raw.hex(),
            "chunks": [chunk.hex() for chunk in self.chunks],
            **changes,
        }

    def good(self, name: str) -> Case:
        """With everything that comes out, and what the seal was made of."""
        return self.case(
            name,
            content_key=self.content_key.hex(),
            header=self.header.hex(),
            plaintexts=[plaintext.hex() for plaintext in self.plaintexts],
            records=[record.SerializeToString(deterministic=True).hex() for record in self.records],
            records_sha256=sha256(b"".join(self.bodies)).hexdigest(),
            manifest=self.manifest.raw.hex(),
        )

    def opening_for(self, query: Signed[pb.Query]) -> Signed[pb.Opening]:
        """An opening for another query, genuinely signed."""
        return self._opening(query)

    def _record(self, number: int, size: int) -> record_pb2.Record:
        return record_pb2.Record(
            record_id=seed("record", number)[:16],
            section="transcript.grades",
            observed_on="2026-09-01",
            recorded_at=NOW,
            value=record_pb2.Value(text="A" * size, scale=record_pb2.Scale(name="Letter grade")),
            version=1,
        )

    def _manifest(self) -> Signed[pb.Manifest]:
        body = pb.Manifest(
            **self.world.common(self.school),
            query_id=self.query.id,
            grant_id=self.query.payload.grant_id,
            coverage=[
                pb.SectionCoverage(section="transcript.courses", reason=pb.REASON_ALLOWED),
                pb.SectionCoverage(section="transcript.grades", reason=pb.REASON_ALLOWED, returned=len(self.records)),
            ],
            records=len(self.records),
            records_sha256=sha256(b"".join(self.bodies)).digest(),
            slice_seq=7,
        )
        return st.sign(st.MANIFEST, body, [self.school.online])

    def _opening(self, query: Signed[pb.Query]) -> Signed[pb.Opening]:
        body = pb.Opening(
            **self.world.common(self.school),
            query_id=query.id,
            grant_id=query.payload.grant_id,
            sealed_key=sealed_box(self.reply.public, self.content_key, seed("ephemeral")),
            header=self.header,
        )
        return st.sign(st.OPENING, body, [self.school.online])

    def _plaintexts(self) -> list[bytes]:
        """SPEC.md §3, step by step: full chunks, then the last with the manifest and the padding."""
        tail = record_pb2.SlicePart(manifest=self.manifest.envelope).SerializeToString(deterministic=True)
        groups: list[bytes] = [b""]
        for body in [*self.bodies, tail]:
            if len(groups[-1]) + len(body) > 65_532:
                groups.append(b"")
            groups[-1] += body
        full = [_framed(body).ljust(65_536, b"\x00") for body in groups[:-1]]
        last = _framed(groups[-1])
        whole = padme(max(65_536 * len(full) + len(last), 4096))
        return [*full, last.ljust(whole - 65_536 * len(full), b"\x00")]


def _part(record: record_pb2.Record) -> bytes:
    return record_pb2.SlicePart(records=[record]).SerializeToString(deterministic=True)


def _framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def good() -> list[Case]:
    """Answers that open, with all that leads to them."""
    return [
        _Answer([]).good("nothing is held"),
        _Answer([1]).good("one record"),
        _Answer([700, 800, 900]).good("three records"),
    ]


def bad() -> list[Case]:
    """Answers that must be refused, with the error."""
    answer = _Answer([1])
    [chunk] = answer.chunks
    two = sealed_chunks([_framed(answer.bodies[0]), _framed(b"")], answer.content_key, answer.header, answer.query.id)
    other = answer.world.query(
        answer.tutor,
        answer.world.grant(answer.world.person("mother"), answer.school, answer.tutor),
        reply_key=answer.reply.public,
    )
    forger = _Answer([1])
    forger.school = forger.world.node("another school")
    forged = forger.opening_for(forger.query)

    def resealed(*plaintexts: bytes) -> list[str]:
        chunks = sealed_chunks(plaintexts, answer.content_key, answer.header, answer.query.id)
        return [each.hex() for each in chunks]

    tail = answer.plaintexts[0][4 + len(answer.bodies[0]) :]
    no_records = _framed(tail.rstrip(b"\x00"))
    cases = [
        answer.case("the chunk altered", chunks=[(chunk[:-1] + bytes([chunk[-1] ^ 1])).hex()], error="SealError"),
        answer.case("the chunk cut short", chunks=[chunk[:-1].hex()], error="SealError"),
        answer.case("no chunk", chunks=[], error="SealError"),
        answer.case("the chunk twice", chunks=[chunk.hex(), chunk.hex()], error="SealError"),
        answer.case("the last chunk without manifest", chunks=[two[0].hex(), two[1].hex()], error="SealError"),
        answer.case("cut short after its first chunk", chunks=[two[0].hex()], error="SealError"),
        answer.case("chunks exchanged", chunks=[two[1].hex(), two[0].hex()], error="SealError"),
        answer.case(
            "padding that is not zero", chunks=resealed(answer.plaintexts[0][:-1] + b"\x01"), error="SealError"
        ),
        answer.case("a length beyond the chunk", chunks=resealed(b"\xff" * 4), error="SealError"),
        answer.case("a record left out of what the manifest counts", chunks=resealed(no_records), error="SealError"),
        answer.case(
            "chunks sealed for another query",
            chunks=[
                each.hex() for each in sealed_chunks(answer.plaintexts, answer.content_key, answer.header, other.id)
            ],
            error="SealError",
        ),
        answer.case(
            "an opening for another query", opening=answer.opening_for(other).raw.hex(), error="AuthorityError"
        ),
        answer.case("an opening by another node", opening=forged.raw.hex(), error="AuthorityError"),
        answer.case("no opening but a manifest", opening=answer.manifest.raw.hex(), error="MalformedError"),
    ]
    return [{key: value for key, value in case.items() if key != "plaintexts"} for case in cases]

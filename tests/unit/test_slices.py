"""permslip.slices: what the node answered, whole and in its own words, or an error; and sizes that tell little."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import pytest

from permslip import statements as st
from permslip._pb.permslip.v1 import record_pb2, statement_pb2 as pb
from permslip.errors import AuthorityError, KeyRejectedError, MalformedError, SealError, SignatureError
from permslip.keys import SealingKey
from permslip.sealing import CHUNK_OVERHEAD, MAX_CHUNK_BYTES, SliceSealer, padme
from permslip.slices import MAX_BODY_BYTES, MIN_SLICE_BYTES, SliceReader, SliceWriter
from permslip.statements import Signed
from tests.scenarios.world import World, seed

SECTIONS = ("transcript.courses", "transcript.grades")


def record(section: str = "transcript.grades", number: int = 0, size: int = 0) -> record_pb2.Record:
    return record_pb2.Record(
        record_id=seed("record", number)[:16],
        section=section,
        recorded_at=1_790_000_000_000,
        version=1,
        value=record_pb2.Value(text="A" * (size or 1)),
    )


def part(*records: record_pb2.Record) -> bytes:
    return record_pb2.SlicePart(records=records).SerializeToString(deterministic=True)


def covered(*counts: int) -> list[pb.SectionCoverage]:
    return [
        pb.SectionCoverage(section=section, reason=pb.REASON_ALLOWED, returned=count)
        for section, count in zip(SECTIONS, counts, strict=True)
    ]


def framed(body: bytes, padding: int = 0) -> bytes:
    return len(body).to_bytes(4, "big") + body + bytes(padding)


class Exchange:
    """One query, the node that answers it and the tutor who reads the answer."""

    def __init__(self, sections: Sequence[str] = SECTIONS) -> None:
        self.world = World()
        self.school, self.tutor = self.world.node("school"), self.world.provider("tutor")
        self.grant = self.world.granted(self.world.person("mother"), self.school, self.tutor)
        self.reply = SealingKey.from_seed(seed("reply"))
        self.query = self.world.query(self.tutor, self.grant, sections, reply_key=self.reply.public)
        self.checked: list[pb.Signer] = []

    def writer(self, query: Signed[pb.Query] | None = None) -> SliceWriter:
        return SliceWriter(query or self.query, signer=self.school.signer, key=self.school.online, now=self.world.now)

    def reader(self, query: Signed[pb.Query] | None = None) -> SliceReader:
        return SliceReader(query or self.query, self.reply, node=self.school.id, check_signer=self.checked.append)

    def answer(self, *parts: tuple[bytes, int], counts: tuple[int, int]) -> tuple[pb.Envelope, list[bytes]]:
        writer = self.writer()
        chunks = [chunk for body, count in parts for chunk in writer.add(body, count)]
        rest, _ = writer.finish(covered(*counts), slice_seq=7, now=self.world.now)
        return writer.opening, chunks + rest


@pytest.fixture
def exchange() -> Exchange:
    return Exchange()


def read_all(reader: SliceReader, opening: pb.Envelope, chunks: Sequence[bytes]) -> list[record_pb2.Record]:
    reader.open_with(opening)
    return [each for chunk in chunks for each in reader.read(chunk)]


# ---------------------------------------------------------------------------------------------- whole answers


def test_what_the_node_answers_is_what_the_requester_reads(exchange: Exchange) -> None:
    writer, reader = exchange.writer(), exchange.reader()
    page = part(record("transcript.courses", 1), record("transcript.grades", 2))
    assert writer.add(page, 2) == []

    chunks, made = writer.finish(covered(1, 1), slice_seq=7, now=exchange.world.now, next_page=b"more")
    records = read_all(reader, writer.opening, chunks)
    manifest = reader.finish()

    assert [each.record_id for each in records] == [seed("record", 1)[:16], seed("record", 2)[:16]]
    assert manifest.id == made.id
    assert manifest.payload.records == 2
    assert manifest.payload.records_sha256 == sha256(page).digest()
    assert manifest.payload.next_page == b"more"
    assert manifest.payload.slice_seq == 7
    assert list(manifest.payload.coverage) == covered(1, 1)
    assert exchange.checked == [exchange.school.signer] * 2


def test_an_empty_answer_is_one_chunk_with_a_manifest(exchange: Exchange) -> None:
    opening, chunks = exchange.answer(counts=(0, 0))
    reader = exchange.reader()

    assert len(chunks) == 1
    assert read_all(reader, opening, chunks) == []
    assert reader.finish().payload.records == 0


def test_an_answer_of_several_chunks_arrives_in_order(exchange: Exchange) -> None:
    parts = [(part(record("transcript.grades", number, 30_000)), 1) for number in range(7)]
    opening, chunks = exchange.answer(*parts, counts=(0, 7))
    reader = exchange.reader()

    records = read_all(reader, opening, chunks)

    assert len(chunks) == 4
    assert [each.record_id for each in records] == [seed("record", number)[:16] for number in range(7)]
    assert reader.finish().payload.records_sha256 == sha256(b"".join(body for body, _ in parts)).digest()


def test_a_page_as_long_as_a_chunk_is_taken_and_a_longer_one_is_not(exchange: Exchange) -> None:
    writer = exchange.writer()
    size = MAX_BODY_BYTES - len(part(record(size=MAX_BODY_BYTES - 200))) + MAX_BODY_BYTES - 200
    page = part(record(size=size))
    assert len(page) == MAX_BODY_BYTES

    assert writer.add(page, 1) == []
    assert [len(chunk) for chunk in writer.add(page, 1)] == [MAX_CHUNK_BYTES + CHUNK_OVERHEAD]
    with pytest.raises(MalformedError) as caught:
        writer.add(page + b"\x00", 1)

    assert caught.value.field == "records"


def test_a_manifest_that_does_not_fit_beside_the_records_comes_in_a_chunk_of_its_own(exchange: Exchange) -> None:
    opening, chunks = exchange.answer((part(record(size=65_300)), 1), counts=(0, 1))
    reader = exchange.reader()

    assert len(chunks) == 2
    assert len(read_all(reader, opening, chunks)) == 1
    reader.finish()


# ---------------------------------------------------------------------------------------------- sizes


def plaintext_lengths(chunks: Sequence[bytes]) -> list[int]:
    return [len(chunk) - CHUNK_OVERHEAD for chunk in chunks]


@pytest.mark.parametrize("size", [1, 100, 3000, 4000, 5000, 20_000, 60_000, 64_900, 65_000])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_sizes_add_up_to_a_padme_length_and_all_chunks_but_the_last_are_full(
    size: int, count: int, exchange: Exchange
) -> None:
    parts = [(part(record(number=number, size=size)), 1) for number in range(count)]
    opening, chunks = exchange.answer(*parts, counts=(0, count))

    lengths = plaintext_lengths(chunks)

    total = sum(lengths)
    assert total == padme(total)
    assert total >= MIN_SLICE_BYTES
    assert set(lengths[:-1]) <= {MAX_CHUNK_BYTES}
    assert 0 < lengths[-1] <= MAX_CHUNK_BYTES
    reader = exchange.reader()
    assert len(read_all(reader, opening, chunks)) == count
    reader.finish()


def test_small_answers_cannot_be_told_apart_by_their_size(exchange: Exchange) -> None:
    sizes = {
        tuple(map(len, exchange.answer((part(record(size=size)), 1), counts=(0, 1))[1])) for size in (1, 500, 3000)
    }

    assert sizes == {(MIN_SLICE_BYTES + CHUNK_OVERHEAD,)}


def test_padding_longer_than_a_chunk_goes_ahead_of_the_last(exchange: Exchange) -> None:
    page = part(record(size=65_000))
    parts = [(page, 1)] * 65  # just above 4 MiB, where Padmé rounds up by as much as 128 KiB
    opening, chunks = exchange.answer(*parts, counts=(0, 65))

    lengths = plaintext_lengths(chunks)

    assert len(lengths) == 66
    assert sum(lengths) == padme(65 * MAX_CHUNK_BYTES + 1000)
    reader = exchange.reader()
    assert len(read_all(reader, opening, chunks)) == 65
    reader.finish()


# ---------------------------------------------------------------------------------------------- a lying broker


def test_nothing_is_read_before_the_opening(exchange: Exchange) -> None:
    _, chunks = exchange.answer(counts=(0, 0))
    reader = exchange.reader()

    assert not reader.is_open
    with pytest.raises(SealError, match="before the opening"):
        reader.read(chunks[0])
    with pytest.raises(SealError, match="cut short"):
        reader.finish()


def test_an_opening_by_anybody_but_the_node_is_refused(exchange: Exchange) -> None:
    forger = exchange.world.node("another school")
    writer = SliceWriter(exchange.query, signer=forger.signer, key=forger.online, now=exchange.world.now)
    reader = exchange.reader()

    with pytest.raises(AuthorityError, match="not signed by the node"):
        reader.open_with(writer.opening)

    assert not reader.is_open


def test_an_opening_with_the_nodes_root_and_another_key_is_for_the_directory_to_refuse(exchange: Exchange) -> None:
    forger = exchange.school.signing_as(exchange.world.person("forger"))
    writer = SliceWriter(exchange.query, signer=forger.signer, key=forger.online, now=exchange.world.now)

    def not_certified(signer: pb.Signer) -> None:
        raise KeyRejectedError(f"{signer.key.hex()} is not certified.")

    reader = SliceReader(exchange.query, exchange.reply, node=exchange.school.id, check_signer=not_certified)

    with pytest.raises(KeyRejectedError):
        reader.open_with(writer.opening)
    assert not reader.is_open


def test_an_opening_for_another_query_is_refused(exchange: Exchange) -> None:
    other = exchange.world.query(exchange.tutor, exchange.grant, SECTIONS, reply_key=exchange.reply.public)

    with pytest.raises(AuthorityError, match="another query or grant"):
        exchange.reader().open_with(exchange.writer(other).opening)


def test_an_opening_that_names_another_grant_is_refused(exchange: Exchange) -> None:
    opening = st.verify(st.OPENING, exchange.writer().opening, federation=exchange.world.federation).payload
    opening.grant_id = seed("another grant")
    signed = st.sign(st.OPENING, opening, [exchange.school.online])

    with pytest.raises(AuthorityError, match="another query or grant"):
        exchange.reader().open_with(signed.envelope)


def test_a_second_opening_is_refused(exchange: Exchange) -> None:
    reader = exchange.reader()
    reader.open_with(exchange.writer().opening)
    assert reader.is_open

    with pytest.raises(SealError, match="second opening"):
        reader.open_with(exchange.writer().opening)


def test_an_altered_opening_is_refused(exchange: Exchange) -> None:
    opening = exchange.writer().opening
    opening.signatures[0].signature = bytes(64)

    with pytest.raises(SignatureError):
        exchange.reader().open_with(opening)


def test_what_is_no_opening_is_refused(exchange: Exchange) -> None:
    with pytest.raises(MalformedError):
        exchange.reader().open_with(exchange.query.envelope)


def test_records_sealed_by_the_broker_to_the_reply_key_are_refused(exchange: Exchange) -> None:
    opening, _ = exchange.answer(counts=(0, 0))
    forged = SliceSealer(exchange.reply.public, exchange.query.id)
    reader = exchange.reader()
    reader.open_with(opening)

    with pytest.raises(SealError):
        reader.read(forged.chunk(framed(part(record())), last=False))


def test_chunks_of_one_answer_do_not_serve_for_another(exchange: Exchange) -> None:
    other = exchange.world.query(exchange.tutor, exchange.grant, SECTIONS, reply_key=exchange.reply.public)
    swapped, _ = exchange.writer(other).finish(covered(0, 0), slice_seq=1, now=exchange.world.now)
    reader = exchange.reader()
    reader.open_with(exchange.writer().opening)

    with pytest.raises(SealError):
        reader.read(swapped[0])


def test_an_answer_cut_short_is_not_whole(exchange: Exchange) -> None:
    parts = [(part(record(number=number, size=40_000)), 1) for number in range(3)]
    opening, chunks = exchange.answer(*parts, counts=(0, 3))
    reader = exchange.reader()
    read_all(reader, opening, chunks[:-1])

    with pytest.raises(SealError, match="cut short"):
        reader.finish()


def test_a_chunk_left_out_or_repeated_is_refused(exchange: Exchange) -> None:
    parts = [(part(record(number=number, size=40_000)), 1) for number in range(3)]
    opening, chunks = exchange.answer(*parts, counts=(0, 3))

    for wrong in ([chunks[1]], [chunks[0], chunks[2]], [chunks[0], chunks[0]], [*chunks, chunks[-1]]):
        reader = exchange.reader()
        with pytest.raises(SealError):
            read_all(reader, opening, wrong)
        with pytest.raises(SealError):
            reader.finish()


# ---------------------------------------------------------------------------------------------- a lying node


class LyingNode(Exchange):
    """A node that signs an opening, and then seals whatever a test likes."""

    def __init__(self) -> None:
        super().__init__()
        self.sealer = SliceSealer(self.reply.public, self.query.id)
        opening = pb.Opening(
            **self.common(),
            query_id=self.query.id,
            grant_id=self.grant.id,
            sealed_key=self.sealer.sealed_key,
            header=self.sealer.header,
        )
        self.opening = st.sign(st.OPENING, opening, [self.school.online]).envelope
        self.requester = self.reader()
        self.requester.open_with(self.opening)

    def common(self) -> dict[str, Any]:
        return self.world.common(self.school)

    def manifest(self, body: bytes, *counts: int, **changes: Any) -> bytes:
        fields: dict[str, Any] = {
            "query_id": self.query.id,
            "grant_id": self.grant.id,
            "coverage": covered(*counts),
            "records": sum(counts),
            "records_sha256": sha256(body).digest(),
            "slice_seq": 7,
            **changes,
        }
        signed = st.sign(st.MANIFEST, pb.Manifest(**self.common(), **fields), [self.school.online])
        return record_pb2.SlicePart(manifest=signed.envelope).SerializeToString(deterministic=True)

    def refused(self, plaintext: bytes, *, last: bool, match: str) -> None:
        with pytest.raises(SealError, match=match):
            self.requester.read(self.sealer.chunk(plaintext, last=last))
        with pytest.raises(SealError):
            self.requester.finish()


@pytest.fixture
def liar() -> LyingNode:
    return LyingNode()


def test_an_honest_last_chunk_by_hand_is_accepted(liar: LyingNode) -> None:
    body = part(record())

    [only] = liar.requester.read(liar.sealer.chunk(framed(body + liar.manifest(body, 0, 1), 99), last=True))

    assert only == record()
    liar.requester.finish()


@pytest.mark.parametrize(
    "plaintext",
    [
        b"",
        b"\x00\x00\x00",
        (5).to_bytes(4, "big") + b"four",
        (2**32 - 1).to_bytes(4, "big"),
        framed(b"") + b"\x00\x00\x01",
        framed(b"") + b"\x01",
    ],
)
def test_a_wrong_length_or_padding_is_refused(plaintext: bytes, liar: LyingNode) -> None:
    liar.refused(plaintext, last=False, match="length or padding")


def test_a_body_that_cannot_be_read_is_refused(liar: LyingNode) -> None:
    liar.refused(framed(b"\xff"), last=False, match="cannot be read")


def test_a_last_chunk_without_manifest_is_refused(liar: LyingNode) -> None:
    liar.refused(framed(part(record())), last=True, match="manifest is missing")


def test_a_manifest_before_the_last_chunk_is_refused(liar: LyingNode) -> None:
    liar.refused(framed(liar.manifest(b"", 0, 0)), last=False, match="manifest is missing, or not in the last")


def test_a_manifest_ahead_of_records_is_refused(liar: LyingNode) -> None:
    body = part(record())

    liar.refused(framed(liar.manifest(body, 0, 1) + body), last=True, match="at the end")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"records": 2}, "describe the records"),
        ({"records_sha256": seed("other")}, "describe the records"),
        ({"coverage": covered(0, 1)[1:]}, "cover the sections"),
        ({"coverage": list(reversed(covered(0, 1)))}, "cover the sections"),
        ({"coverage": covered(1, 0)}, "count the records"),
        ({"coverage": covered(0, 2)}, "count the records"),
        ({"coverage": covered(0, 0)}, "count the records"),
    ],
)
def test_a_manifest_must_tell_what_came(changes: dict[str, Any], match: str, liar: LyingNode) -> None:
    body = part(record("transcript.grades"))

    liar.refused(framed(body + liar.manifest(body, 0, 1, **changes)), last=True, match=match)


def test_records_of_a_section_that_was_not_asked_for_are_refused(liar: LyingNode) -> None:
    body = part(record("voice.goals"))

    liar.refused(framed(body + liar.manifest(body, 0, 1)), last=True, match="count the records")


def test_records_of_a_section_that_is_said_to_be_denied_are_refused(liar: LyingNode) -> None:
    body = part(record("transcript.grades"))
    denied = covered(0, 1)
    denied[1].reason = pb.REASON_SECTION_NOT_GRANTED

    liar.refused(framed(body + liar.manifest(body, 0, 1, coverage=denied)), last=True, match="count the records")


@pytest.mark.parametrize("name", ["query_id", "grant_id"])
def test_a_manifest_about_something_else_is_refused(name: str, liar: LyingNode) -> None:
    with pytest.raises(AuthorityError, match="another query or grant"):
        liar.requester.read(liar.sealer.chunk(framed(liar.manifest(b"", 0, 0, **{name: seed("other")})), last=True))


def test_a_manifest_by_another_node_is_refused(liar: LyingNode) -> None:
    liar.school, node = liar.world.node("another school"), liar.school
    tail = liar.manifest(b"", 0, 0)
    liar.school = node

    with pytest.raises(AuthorityError, match="not signed by the node"):
        liar.requester.read(liar.sealer.chunk(framed(tail), last=True))


def test_a_reply_key_that_must_not_be_used_gets_no_answer(exchange: Exchange) -> None:
    query = exchange.world.query(exchange.tutor, exchange.grant, SECTIONS, reply_key=bytes(31) + b"\x80")

    with pytest.raises(KeyRejectedError):
        exchange.writer(query)

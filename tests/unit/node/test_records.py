"""What importers hand over is read back whole: versions, pages, days, places to go on from."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

import pytest
from sqlalchemy import Engine, func, select

from permslip._pb.permslip.v1 import record_pb2
from permslip.errors import MalformedError
from permslip.hosting.database import writing
from permslip.quantities import Handle
from permslip_node import schema
from permslip_node.importing.sink import ImportedGuardian, ImportedName, ImportedRecord, PutCounts, record_id
from permslip_node.packing import MAX_RECORD_BYTES, pack, split
from permslip_node.records_store import START, Place, RecordsStore
from permslip_node.sql_sink import SqlSink

NOW = 1_790_000_000_000
GRADES = "transcript.grades"
ATTENDANCE = "personal.attendance"


def row(
    handle: Handle, number: int, *, section: str = GRADES, day: str = "2010-10-03", text: str = "B"
) -> ImportedRecord:
    content = record_pb2.Record(
        section=section,
        observed_on=day,
        value=record_pb2.Value(text=text),
        grade=record_pb2.Grade(),
    ).SerializeToString(deterministic=True)
    return ImportedRecord(handle, record_id(handle, "test", section, [str(number)], 1), section, day, content)


@pytest.fixture
def sink(engine: Engine) -> SqlSink:
    return SqlSink(engine, clock=lambda: NOW)


@pytest.fixture
def store(engine: Engine) -> Iterator[RecordsStore]:
    store = RecordsStore(engine)
    yield store
    store.close()


def read_all(
    store: RecordsStore,
    handle: bytes,
    sections: tuple[str, ...] = (GRADES,),
    records_from: str = "",
    records_until: str = "",
) -> list[record_pb2.Record]:
    found: list[record_pb2.Record] = []
    place: Place | None = START
    while place is not None:
        portions, place = store.read(
            handle, sections, start=place, records_from=records_from, records_until=records_until
        )
        for portion in portions:
            part = record_pb2.SlicePart.FromString(portion.records)
            assert len(part.records) == portion.number
            found.extend(part.records)
    return found


# ------------------------------------------------------------------------------------------------- packing


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, MAX_RECORD_BYTES])
def test_packed_records_are_split_at_every_length(size: int) -> None:
    records = [bytes(size), b"next"]
    assert split(b"".join(map(pack, records))) == records


def test_record_that_fits_no_chunk_is_refused() -> None:
    with pytest.raises(MalformedError, match="at most"):
        pack(bytes(MAX_RECORD_BYTES + 1))


@pytest.mark.parametrize("damaged", [b"\x0b\x01a", b"\x0a\x05abc", b"\x0a", b"\x0a\xff\xff\xff\xff\x01"])
def test_damaged_page_is_noticed(damaged: bytes) -> None:
    with pytest.raises(MalformedError, match="cannot be read"):
        split(damaged)


# ------------------------------------------------------------------------------------------------- records


def test_same_batch_twice_changes_nothing(sink: SqlSink, store: RecordsStore, engine: Engine) -> None:
    ada = sink.learner("604822")
    rows = [row(ada, number) for number in range(100)]
    assert sink.put_records(rows) == PutCounts(inserted=100)
    before = read_all(store, ada)
    assert sink.put_records(rows) == PutCounts(unchanged=100)
    assert SqlSink(engine, clock=lambda: NOW + 5).put_records(rows) == PutCounts(unchanged=100)
    assert read_all(store, ada) == before
    assert len(before) == 100


def test_stored_record_has_what_only_the_node_knows(sink: SqlSink, store: RecordsStore) -> None:
    ada = sink.learner("604822")
    given = row(ada, 1)
    sink.put_records([given])
    [record] = read_all(store, ada)
    assert (record.record_id, record.recorded_at, record.version, record.supersedes) == (given.record_id, NOW, 1, b"")
    assert (record.section, record.observed_on, record.value.text) == (GRADES, "2010-10-03", "B")


def test_newer_content_becomes_a_version_in_its_place_and_the_old_one_is_kept(
    sink: SqlSink, store: RecordsStore, engine: Engine
) -> None:
    ada = sink.learner("604822")
    sink.put_records([row(ada, number) for number in range(5)])
    old = read_all(store, ada)
    assert sink.put_records([row(ada, 2, text="A")]) == PutCounts(versioned=1)

    new = read_all(store, ada)
    assert [each.record_id for each in new] == [each.record_id for each in old]
    assert (new[2].version, new[2].value.text) == (2, "A")
    assert new[2].supersedes == sha256(old[2].SerializeToString(deterministic=True)).digest()
    with engine.connect() as connection:
        kept = connection.execute(select(schema.record_old)).one()
    assert (kept.version, record_pb2.Record.FromString(kept.record)) == (1, old[2])


def test_record_that_changes_twice_in_one_batch_has_three_versions(sink: SqlSink, store: RecordsStore) -> None:
    ada = sink.learner("604822")
    assert sink.put_records([row(ada, 1), row(ada, 1, text="A"), row(ada, 1, text="C")]) == PutCounts(1, 2, 0)
    [record] = read_all(store, ada)
    assert (record.version, record.value.text) == (3, "C")


def test_pages_grow_small_but_a_large_batch_packs_them_full(sink: SqlSink, engine: Engine) -> None:
    ada, bob = sink.learner("1"), sink.learner("2")
    sink.put_records([row(ada, number) for number in range(2000)])
    for number in range(40):
        sink.put_records([row(bob, number, text="x" * 400)])
    with engine.connect() as connection:
        sizes = {
            handle: connection.execute(
                select(func.count(), func.max(func.length(schema.page.c.records))).where(schema.page.c.handle == handle)
            ).one()
            for handle in (ada, bob)
        }
    assert sizes[ada][0] <= 5
    assert 30_000 < sizes[ada][1] <= 32 * 1024
    assert 3 <= sizes[bob][0] <= 6


def test_versions_that_grow_beyond_a_chunk_move_to_another_page(
    sink: SqlSink, store: RecordsStore, engine: Engine
) -> None:
    ada = sink.learner("1")
    sink.put_records([row(ada, number, text="x" * 300) for number in range(80)])
    sink.put_records([row(ada, number, text="y" * 4000) for number in range(20)])
    found = read_all(store, ada)
    assert sorted(each.record_id for each in found) == sorted(row(ada, number).record_id for number in range(80))
    assert sum(each.version == 2 for each in found) == 20
    with engine.connect() as connection:
        assert connection.execute(select(func.max(func.length(schema.page.c.records)))).scalar_one() <= 60_000
    assert sink.put_records([row(ada, number, text="z") for number in range(80)]) == PutCounts(versioned=80)
    assert {each.value.text for each in read_all(store, ada)} == {"z"}


# ------------------------------------------------------------------------------------------------- slices


def test_slice_holds_only_the_sections_and_the_learner_asked_for(sink: SqlSink, store: RecordsStore) -> None:
    ada, bob = sink.learner("1"), sink.learner("2")
    sink.put_records(
        [row(who, number, section=s) for who in (ada, bob) for s in (GRADES, ATTENDANCE) for number in (1, 2)]
    )
    assert {each.section for each in read_all(store, ada)} == {GRADES}
    assert len(read_all(store, ada, (ATTENDANCE, GRADES))) == 4
    assert read_all(store, b"?" * 16, (ATTENDANCE, GRADES)) == []


def test_days_bound_a_slice_and_undated_records_are_outside_any_bound(sink: SqlSink, store: RecordsStore) -> None:
    ada = sink.learner("1")
    days = ["2010-09-01", "2010-10-01", "2010-10-31", "2010-11-01", ""]
    sink.put_records([row(ada, number, day=day) for number, day in enumerate(days)])

    def days_read(records_from: str = "", records_until: str = "") -> list[str]:
        return [each.observed_on for each in read_all(store, ada, (GRADES,), records_from, records_until)]

    assert days_read() == days
    assert days_read(records_from="2010-10-01", records_until="2010-10-31") == days[1:3]
    assert days_read(records_from="2010-10-02") == days[2:4]
    assert days_read(records_until="2010-09-30") == days[:1]
    assert days_read(records_from="2011-01-01") == []
    assert days_read(records_until="2010-08-31") == []


def test_pages_wholly_within_the_days_go_out_as_they_are(sink: SqlSink, store: RecordsStore, engine: Engine) -> None:
    ada = sink.learner("1")
    sink.put_records([row(ada, number, day="2010-10-05") for number in range(50)])
    with engine.connect() as connection:
        blob = connection.execute(select(schema.page.c.records)).scalar_one()
    portions, place = store.read(ada, (GRADES,), records_from="2010-10-01", records_until="2010-10-31")
    assert (portions[0].records, portions[0].number, place) == (blob, 50, None)


@pytest.mark.parametrize("first", ["", "2010-10-02"])
def test_reading_in_steps_meets_every_record_once(sink: SqlSink, store: RecordsStore, first: str) -> None:
    ada = sink.learner("1")
    days = ["2010-10-01", "2010-10-02", "2010-10-03"]
    for start in range(0, 300, 30):
        batch = range(start, start + 30)
        sink.put_records(
            [row(ada, n, section=s, day=days[n % 3], text="x" * 90) for s in (GRADES, ATTENDANCE) for n in batch]
        )
    whole = [each.record_id for each in read_all(store, ada, (ATTENDANCE, GRADES), first)]
    found: list[bytes] = []
    place: Place | None = START
    while place is not None:
        portions, place = store.read(ada, (ATTENDANCE, GRADES), start=place, most_records=7, records_from=first)
        records = [each for portion in portions for each in record_pb2.SlicePart.FromString(portion.records).records]
        assert len(records) <= 7
        found.extend(each.record_id for each in records)
    assert found == whole
    assert len(set(whole)) == (400 if first else 600)


def test_it_is_known_whether_anything_comes_after_a_place(sink: SqlSink, store: RecordsStore) -> None:
    ada = sink.learner("1")
    sink.put_records([row(ada, number, day="2010-10-01") for number in range(10)])
    portions, place = store.read(ada, (GRADES,), most_records=10)
    assert place is not None
    assert not store.is_more(ada, (GRADES,), ("", ""), place)
    _, place = store.read(ada, (GRADES,), most_records=9)
    assert place is not None
    assert store.is_more(ada, (GRADES,), ("", ""), place)
    assert not store.is_more(ada, (GRADES,), ("2010-11-01", ""), place)
    assert sum(each.number for each in portions) == 10


def test_records_imported_between_two_steps_come_at_the_end(sink: SqlSink, store: RecordsStore) -> None:
    ada = sink.learner("1")
    sink.put_records([row(ada, number) for number in range(10)])
    portions, place = store.read(ada, (GRADES,), most_records=6)
    sink.put_records([row(ada, number) for number in range(10, 20)])
    assert place is not None
    rest, end = store.read(ada, (GRADES,), start=place)
    assert sum(each.number for each in portions) + sum(each.number for each in rest) == 20
    assert end is None


# ---------------------------------------------------------------------------------- learners, families, runs


def test_learner_keeps_her_handle_from_import_to_import(sink: SqlSink, engine: Engine) -> None:
    ada = sink.learner("604822")
    assert sink.learner("604822") == ada
    assert sink.learner("604823") != ada
    sink.finish(bytes(32))
    assert SqlSink(engine, clock=lambda: NOW).learner("604822") == ada


def guardian(**changes: object) -> ImportedGuardian:
    base = ImportedGuardian("604822", "P1", "Carmen Dyer", "Carmen", "Dyer", "Mother", True, None, False, True, "", "1")
    return base._replace(**changes)  # type: ignore[arg-type]  # named fields of this very tuple


def test_guardians_are_stored_once_and_changed_links_are_versions(sink: SqlSink) -> None:
    assert sink.put_persons([guardian(), guardian(native_guardian_id="P2")]) == PutCounts(inserted=2)
    assert sink.put_persons([guardian()]) == PutCounts(unchanged=1)
    assert sink.put_persons([guardian(relation="Aunt")]) == PutCounts(versioned=1)
    assert sink.put_persons([guardian(relation="Aunt", display_name="C. Dyer")]) == PutCounts(versioned=1)
    assert sink.put_persons([guardian(native_learner_id="604823")]) == PutCounts(inserted=1)


def test_import_never_restores_a_suspended_guardian(sink: SqlSink, engine: Engine) -> None:
    sink.put_persons([guardian()])
    with writing(engine) as connection:
        connection.execute(schema.family.update().values(suspended_at=NOW))
    sink.put_persons([guardian(relation="Aunt")])
    with engine.connect() as connection:
        link = connection.execute(select(schema.family)).one()
    assert (link.suspended_at, link.relation, link.lives_with, link.primary_contact) == (NOW, "Aunt", True, None)


def test_names_are_given_kept_and_changed(sink: SqlSink) -> None:
    assert sink.put_names([ImportedName("1", "Ada"), ImportedName("2", "Bob")]) == PutCounts(inserted=2)
    assert sink.put_names([ImportedName("1", "Ada"), ImportedName("2", "Robert")]) == PutCounts(0, 1, 1)


def test_interrupted_import_goes_on_where_it_was(sink: SqlSink, engine: Engine) -> None:
    run = bytes(range(32))
    assert sink.resume_point(run) == 0
    sink.checkpoint(run, 2000)
    sink.checkpoint(run, 4000)
    assert SqlSink(engine, clock=lambda: NOW).resume_point(run) == 4000
    assert sink.resume_point(bytes(32)) == 0
    sink.finish(run)
    assert sink.resume_point(run) == 0


def test_failed_batch_leaves_nothing_behind(sink: SqlSink, store: RecordsStore) -> None:
    ada = sink.learner("1")
    bad = row(ada, 2)._replace(content=b"\xff")
    with pytest.raises(MalformedError):
        sink.put_records([row(ada, 1), bad])
    assert read_all(store, ada) == []
    assert sink.put_records([row(ada, 1)]) == PutCounts(inserted=1)

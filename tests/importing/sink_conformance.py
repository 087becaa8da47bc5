"""What every :class:`permslip_node.importing.RecordSink` must do: one suite, run against each implementation.

A test module subclasses :class:`SinkConformance` and says how to make an empty sink, and how to read it::

    class TestMemorySink(SinkConformance):
        @pytest.fixture
        def sink(self) -> MemorySink: ...
        def versions(self, sink: RecordSink, record: ImportedRecord) -> int: ...
"""

from __future__ import annotations

from typing import Any

from permslip._pb.permslip.v1 import record_pb2
from permslip_node.importing import ImportedGuardian, ImportedName, ImportedRecord, PutCounts, RecordSink, record_id

RUN = bytes(range(32))


def record_of(sink: RecordSink, learner: str, key: str, mark: str) -> ImportedRecord:
    """A grade of a learner, as an importer hands it over."""
    handle = sink.learner(learner)
    message = record_pb2.Record(
        section="transcript.grades",
        observed_on="2026-01-05",
        value=record_pb2.Value(text=mark),
        grade=record_pb2.Grade(kind="Final"),
    )
    content = message.SerializeToString(deterministic=True)
    identity = record_id(handle, "test", "Grade", (key,), 1)
    return ImportedRecord(handle, identity, "transcript.grades", "2026-01-05", content)


def guardian_of(learner: str, **changes: Any) -> ImportedGuardian:
    """A link with nothing unusual about it, but for ``changes``."""
    link = ImportedGuardian(
        native_learner_id=learner,
        native_guardian_id="G1",
        display_name="Carmen Dyer",
        first_name="Carmen",
        last_name="Dyer",
        relation="Mother",
        lives_with=True,
        primary_contact=True,
        emergency_contact=None,
        legal_guardian=None,
        contact_restrictions="",
        contact_priority="",
    )
    return link._replace(**changes)


class SinkConformance:
    """Inherited by the tests of every implementation; ``sink`` is a fixture that gives an empty one."""

    def versions(self, sink: Any, record: ImportedRecord) -> int:
        """How many versions of a record are stored."""
        raise NotImplementedError

    def test_a_learner_keeps_her_handle_and_shares_it_with_nobody(self, sink: RecordSink) -> None:
        ada, bela = sink.learner("1"), sink.learner("2")
        assert (len(ada), sink.learner("1") == ada, ada != bela) == (16, True, True)

    def test_a_record_is_inserted_then_unchanged_then_versioned(self, sink: RecordSink) -> None:
        first, second = record_of(sink, "1", "ALG-1", "81"), record_of(sink, "1", "ALG-1", "83")
        assert sink.put_records([first]) == PutCounts(1, 0, 0)
        assert sink.put_records([first]) == PutCounts(0, 0, 1)
        assert sink.put_records([second]) == PutCounts(0, 1, 0)
        assert self.versions(sink, second) == 2

    def test_the_newest_version_is_what_unchanged_means(self, sink: RecordSink) -> None:
        first, second = record_of(sink, "1", "ALG-1", "81"), record_of(sink, "1", "ALG-1", "83")
        for record in (first, second):
            sink.put_records([record])
        assert sink.put_records([first]) == PutCounts(0, 1, 0)

    def test_counts_of_one_call_add_up(self, sink: RecordSink) -> None:
        known = record_of(sink, "1", "ALG-1", "81")
        changed = record_of(sink, "2", "ALG-1", "70")
        sink.put_records([known, changed])
        batch = [known, record_of(sink, "2", "ALG-1", "71"), record_of(sink, "3", "ALG-1", "90")]
        assert sink.put_records(batch) == PutCounts(1, 1, 1)

    def test_nothing_put_is_nothing_done(self, sink: RecordSink) -> None:
        assert sink.put_records([]) == sink.put_persons([]) == sink.put_names([]) == PutCounts()

    def test_a_guardian_is_inserted_then_unchanged_then_replaced(self, sink: RecordSink) -> None:
        sink.learner("1")
        assert sink.put_persons([guardian_of("1")]) == PutCounts(1, 0, 0)
        assert sink.put_persons([guardian_of("1")]) == PutCounts(0, 0, 1)
        assert sink.put_persons([guardian_of("1", contact_restrictions="No pick-up")]) == PutCounts(0, 1, 0)

    def test_unsaid_is_not_no(self, sink: RecordSink) -> None:
        sink.learner("1")
        sink.put_persons([guardian_of("1", lives_with=None)])
        assert sink.put_persons([guardian_of("1", lives_with=False)]) == PutCounts(0, 1, 0)

    def test_one_guardian_can_have_two_learners(self, sink: RecordSink) -> None:
        for learner in ("1", "2"):
            sink.learner(learner)
        assert sink.put_persons([guardian_of("1"), guardian_of("2")]) == PutCounts(2, 0, 0)

    def test_a_name_is_inserted_then_unchanged_then_replaced(self, sink: RecordSink) -> None:
        sink.learner("1")
        assert sink.put_names([ImportedName("1", "Ada Byron")]) == PutCounts(1, 0, 0)
        assert sink.put_names([ImportedName("1", "Ada Byron")]) == PutCounts(0, 0, 1)
        assert sink.put_names([ImportedName("1", "Ada Lovelace")]) == PutCounts(0, 1, 0)

    def test_a_checkpoint_moves_on_and_is_forgotten_at_the_end(self, sink: RecordSink) -> None:
        assert sink.resume_point(RUN) == 0
        for position in (2000, 4000):
            sink.checkpoint(RUN, position)
            assert sink.resume_point(RUN) == position
        assert sink.resume_point(bytes(32)) == 0
        sink.finish(RUN)
        assert sink.resume_point(RUN) == 0

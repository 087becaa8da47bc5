"""The sink in memory keeps every promise of the interface; ids of records do what their docstring says."""

from __future__ import annotations

from typing import Any

import pytest

from permslip.quantities import Handle
from permslip_node.importing import ImportedRecord, MemorySink, RecordSink, record_id
from tests.importing.sink_conformance import SinkConformance

ADA, BELA = Handle(bytes(range(16))), Handle(bytes(range(16, 32)))


class TestMemorySink(SinkConformance):
    @pytest.fixture
    def sink(self) -> RecordSink:
        return MemorySink()

    def versions(self, sink: Any, record: ImportedRecord) -> int:
        return len(sink.records[record.record_id])


def test_a_record_id_is_the_same_at_every_import() -> None:
    once = record_id(ADA, "ed-fi-1.0", "Grade", ("ALG-1", "Fall"), 1)
    assert (len(once), once) == (16, record_id(ADA, "ed-fi-1.0", "Grade", ["ALG-1", "Fall"], 1))


@pytest.mark.parametrize(
    "other",
    [
        record_id(BELA, "ed-fi-1.0", "Grade", ("ALG-1", "Fall"), 1),
        record_id(ADA, "canvas-extract", "Grade", ("ALG-1", "Fall"), 1),
        record_id(ADA, "ed-fi-1.0", "CourseTranscript", ("ALG-1", "Fall"), 1),
        record_id(ADA, "ed-fi-1.0", "Grade", ("ALG-1", "Spring"), 1),
        record_id(ADA, "ed-fi-1.0", "Grade", ("ALG-1Fall", ""), 1),
        record_id(ADA, "ed-fi-1.0", "Grade", ("ALG-1", "Fall"), 2),
    ],
    ids=["learner", "system", "entity", "key", "division of the key", "occurrence"],
)
def test_a_record_id_depends_on_everything_that_tells_rows_apart(other: bytes) -> None:
    assert other != record_id(ADA, "ed-fi-1.0", "Grade", ("ALG-1", "Fall"), 1)

"""The node's SQL store keeps every promise of the importers' interface."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from permslip.hosting.database import migrate, open_engine
from permslip_node import schema
from permslip_node.importing import ImportedRecord, RecordSink, import_edfi, import_lms
from permslip_node.sample_district import generate_district
from permslip_node.sql_sink import SqlSink
from tests.importing.sink_conformance import SinkConformance


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine(f"sqlite:///{tmp_path / 'node.db'}")
    migrate(engine, "permslip_node")
    yield engine
    engine.dispose()


class TestSqlSink(SinkConformance):
    @pytest.fixture
    def sink(self, engine: Engine) -> RecordSink:
        self.engine = engine
        return SqlSink(engine, clock=lambda: 1)

    def versions(self, sink: Any, record: ImportedRecord) -> int:
        index = schema.record_index.c
        with self.engine.connect() as connection:
            found = connection.execute(select(index.version).where(index.record_id == record.record_id))
            return int(found.scalar_one())


def test_a_district_imported_again_after_a_restart_changes_nothing(engine: Engine, tmp_path: Path) -> None:
    district = generate_district(tmp_path / "district", learners=12, seed=1)
    reports = []
    for moment in (1, 2):
        sink = SqlSink(engine, clock=lambda moment=moment: moment)  # type: ignore[misc]  # a default binds the loop's
        reports.append((import_edfi([district.edfi], sink), import_lms(district.lms, sink)))
    for first, second in zip(*reports, strict=True):
        assert (first.rejected, second.inserted, second.versioned) == (0, 0, 0)
        assert second.unchanged == first.inserted > 0

"""Hands finished records to the sink in batches, numbers repetitions, and keeps the checkpoint.

Rules:

- A batch is :data:`BATCH` rows. Names and guardians go out before the records of the same batch.
- The checkpoint is set after a batch has been stored, to the last source row that is wholly in it.
- A native key that occurs again gets the next number, so that two source rows never become one record. Where the
  table says ``drop_repeats``, an identical repetition is dropped, and a different one stands beside the first.
- After an interruption the rows up to the resume point are read again, for their keys and for what later rows refer
  to, but not stored.

Example::

    delivery = Delivery(sink, "ed-fi-1.0", run, report)
    for row in rows:
        delivery.position += 1
        delivery.put(compiled, row.values, row.groups, tables, "StudentGrade.xml", "604822")
    delivery.finish()
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from permslip._pb.permslip.v1 import record_pb2
from permslip.errors import MalformedError
from permslip.quantities import Handle
from permslip_node.importing.mapping import Groups, Tables, Values
from permslip_node.importing.record_building import Compiled
from permslip_node.importing.report import ImportReport
from permslip_node.importing.sink import (
    MAX_CONTENT_BYTES,
    ImportedGuardian,
    ImportedName,
    ImportedRecord,
    RecordSink,
    record_id,
)

__all__ = ["BATCH", "Delivery"]

BATCH: Final = 2_000
_MAX_NATIVE_ID: Final = 512
_OCCURRENCE_BYTES: Final = 16


class Delivery:
    """One import's way into the sink.

    Args:
        sink: where to.
        system: name of the source system; it stands in every record.
        run: 32 bytes that stand for exactly these files and options.
        report: its counts are kept up to date.

    Attributes:
        position: source rows read so far; the importer counts it up.
        may_checkpoint: whether every row up to ``position`` has been delivered; the importer clears it while it holds
            rows back.
    """

    def __init__(self, sink: RecordSink, system: str, run: bytes, report: ImportReport) -> None:
        self._sink = sink
        self._system = system
        self._run = run
        self._report = report
        self._resume_at = sink.resume_point(run)
        report.resumed_at = self._resume_at
        self._handles: dict[str, Handle] = {}
        self._learners: set[str] = set()
        self._links: set[tuple[str, str]] = set()
        self._records: list[ImportedRecord] = []
        self._persons: list[ImportedGuardian] = []
        self._names: list[ImportedName] = []
        # Record id of a key's first occurrence → how often the key has occurred.
        self._occurrences: dict[bytes, int] = {}
        # The same, for tables that drop repetitions → digests of what has been said.
        self._said: dict[bytes, set[bytes]] = {}
        self.position = 0
        self.may_checkpoint = True

    @property
    def resuming(self) -> bool:
        """Whether the current row was stored before the interruption."""
        return self.position <= self._resume_at

    def put(self, compiled: Compiled, values: Values, groups: Groups, tables: Tables, file: str, learner: str) -> None:
        """Build a record and put it into the batch.

        Raises:
            MalformedError: the row cannot become a record; nothing has been put.
        """
        mapping = compiled.mapping
        key = compiled.key_of(values)
        native_id = "|".join((learner, *key)).rstrip("|")
        if len(native_id) > _MAX_NATIVE_ID // 4 and len(native_id.encode()) > _MAX_NATIVE_ID - _OCCURRENCE_BYTES:
            raise MalformedError(f"expected a key of at most {_MAX_NATIVE_ID} bytes.", field=mapping.entity)
        record = compiled.build(values, groups, tables)
        handle = self._handle(learner)
        self._learners.add(learner)
        identity = record_id(handle, self._system, mapping.label, key, 1)
        if mapping.drop_repeats and self._was_said(identity, record):
            self._report.repeated += 1
            return
        occurrence = self._occurrences[identity] = self._occurrences.get(identity, 0) + 1
        if self.resuming:
            return
        if occurrence > 1:
            identity = record_id(handle, self._system, mapping.label, key, occurrence)
            native_id = f"{native_id}|#{occurrence}"
        source = record.setdefault("source", {})
        source["system"] = self._system
        source["file"] = file
        source["entity"] = mapping.entity
        source["native_id"] = native_id
        content = record_pb2.Record(**record).SerializeToString(deterministic=True)
        if len(content) > MAX_CONTENT_BYTES:
            raise MalformedError(
                f"expected at most {MAX_CONTENT_BYTES} bytes as a record, got {len(content)}.", field=mapping.entity
            )
        section: str = record["section"]
        self._records.append(ImportedRecord(handle, identity, section, record.get("observed_on", ""), content))
        report = self._report
        report.records[section] = report.records.get(section, 0) + 1
        report.records_by_entity[mapping.label] = report.records_by_entity.get(mapping.label, 0) + 1

    def put_person(self, link: ImportedGuardian) -> None:
        """Put a guardian's link into the batch."""
        self._handle(link.native_learner_id)
        self._learners.add(link.native_learner_id)
        self._links.add((link.native_learner_id, link.native_guardian_id))
        if not self.resuming:
            self._persons.append(link)

    def put_name(self, name: ImportedName) -> None:
        """Put a learner's name into the batch."""
        self._handle(name.native_learner_id)
        if not self.resuming:
            self._names.append(name)

    def row_done(self) -> None:
        """Store the batch when it is full: call it when a source row has been dealt with."""
        if len(self._records) >= BATCH or len(self._persons) >= BATCH or len(self._names) >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Store what there is, then set the checkpoint."""
        if self._names:
            self._sink.put_names(self._names)
        if self._persons:
            self._sink.put_persons(self._persons)
        if self._records:
            counts = self._sink.put_records(self._records)
            self._report.inserted += counts.inserted
            self._report.versioned += counts.versioned
            self._report.unchanged += counts.unchanged
        self._names, self._persons, self._records = [], [], []
        if self.may_checkpoint and not self.resuming:
            self._sink.checkpoint(self._run, self.position)

    def finish(self) -> None:
        """Store the last batch and forget the checkpoint."""
        self.flush()
        self._sink.finish(self._run)
        self._report.learners = len(self._learners)
        self._report.guardian_links = len(self._links)

    def _handle(self, learner: str) -> Handle:
        handle = self._handles.get(learner)
        if handle is None:
            handle = self._handles[learner] = self._sink.learner(learner)
        return handle

    def _was_said(self, identity: bytes, record: dict[str, Any]) -> bool:
        said = self._said.setdefault(identity, set())
        digest = hashlib.sha256(record_pb2.Record(**record).SerializeToString(deterministic=True)).digest()
        if digest in said:
            return True
        said.add(digest)
        return False

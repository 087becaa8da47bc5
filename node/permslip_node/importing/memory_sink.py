"""A sink that keeps everything in memory: for dry runs and for tests.

It keeps every promise of :mod:`permslip_node.importing.sink` but durability.

Example::

    >>> sink = MemorySink()
    >>> report = import_edfi([Path("EdFiSampleData.zip")], sink)
    >>> len(sink.guardians)
    1872
"""

from __future__ import annotations

import secrets
from collections.abc import Hashable, Sequence
from typing import TypeVar

from permslip.quantities import HANDLE_BYTES, Handle
from permslip_node.importing.sink import ImportedGuardian, ImportedName, ImportedRecord, PutCounts

__all__ = ["MemorySink"]

_Key = TypeVar("_Key", bound=Hashable)
_Row = TypeVar("_Row")


class MemorySink:
    """Implements :class:`permslip_node.importing.sink.RecordSink` with dictionaries."""

    def __init__(self) -> None:
        self.handles: dict[str, Handle] = {}
        # Record id → its versions, the newest last.
        self.records: dict[bytes, list[ImportedRecord]] = {}
        # (learner, guardian) → link, both by their native ids.
        self.guardians: dict[tuple[str, str], ImportedGuardian] = {}
        self.names: dict[str, ImportedName] = {}
        # Imports that were begun and not finished.
        self.checkpoints: dict[bytes, int] = {}

    def learner(self, native_id: str) -> Handle:
        """See :meth:`RecordSink.learner`."""
        handle = self.handles.get(native_id)
        if handle is None:
            handle = self.handles[native_id] = Handle(secrets.token_bytes(HANDLE_BYTES))
        return handle

    def put_records(self, records: Sequence[ImportedRecord]) -> PutCounts:
        """See :meth:`RecordSink.put_records`."""
        inserted = versioned = unchanged = 0
        for record in records:
            versions = self.records.get(record.record_id)
            if versions is None:
                self.records[record.record_id] = [record]
                inserted += 1
            elif versions[-1] == record:
                unchanged += 1
            else:
                versions.append(record)
                versioned += 1
        return PutCounts(inserted, versioned, unchanged)

    def put_persons(self, links: Sequence[ImportedGuardian]) -> PutCounts:
        """See :meth:`RecordSink.put_persons`."""
        return _put(self.guardians, [((row.native_learner_id, row.native_guardian_id), row) for row in links])

    def put_names(self, names: Sequence[ImportedName]) -> PutCounts:
        """See :meth:`RecordSink.put_names`."""
        return _put(self.names, [(row.native_learner_id, row) for row in names])

    def resume_point(self, run: bytes) -> int:
        """See :meth:`RecordSink.resume_point`."""
        return self.checkpoints.get(run, 0)

    def checkpoint(self, run: bytes, position: int) -> None:
        """See :meth:`RecordSink.checkpoint`."""
        self.checkpoints[run] = position

    def finish(self, run: bytes) -> None:
        """See :meth:`RecordSink.finish`."""
        self.checkpoints.pop(run, None)


def _put(table: dict[_Key, _Row], rows: list[tuple[_Key, _Row]]) -> PutCounts:
    inserted = versioned = unchanged = 0
    for key, row in rows:
        before = table.get(key)
        if before is None:
            inserted += 1
        elif before == row:
            unchanged += 1
        else:
            versioned += 1
        table[key] = row
    return PutCounts(inserted, versioned, unchanged)

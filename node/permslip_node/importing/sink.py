"""Where imported things go: the one interface between the importers and whatever stores them.

An importer reads files and hands over finished rows; it knows nothing of SQL. The store knows nothing of XML. Between
them stand :class:`RecordSink` and the four row types of this module.

Rules (what a sink promises, and what it does not):

- **Order.** Rows of one call may be stored in any order; calls take effect in the order in which they are made.
- **Atomicity.** Each call is stored wholly or not at all, and is durable when it returns. Two calls are not one
  transaction.
- **Idempotence.** The same call made twice changes nothing the second time. ``content`` that equals what is stored
  byte for byte is *unchanged*; other content becomes a new *version* of the record, and the old one is kept.
- **Nothing is withdrawn.** What a newer file no longer mentions stays as it is.
- **Never the same record twice in one import.** An importer that meets a key again numbers it (:func:`record_id`).
- **Checkpoints.** :meth:`RecordSink.checkpoint` is called only after the puts that it covers have returned, so an
  interrupted import repeats at most one batch, which idempotence makes harmless.
- **One writer.** A sink is used by one importer at a time, from one thread.

Example::

    >>> sink = MemorySink()                                       # permslip_node.importing.memory_sink
    >>> ada = sink.learner("604822")
    >>> row = ImportedRecord(ada, record_id(ada, "ed-fi-1.0", "Grade", ("ALG-1", "First Six Weeks"), 1),
    ...                      "transcript.grades", "2010-10-03", content)
    >>> sink.put_records([row])
    PutCounts(inserted=1, versioned=0, unchanged=0)
    >>> sink.put_records([row])
    PutCounts(inserted=0, versioned=0, unchanged=1)
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from permslip.quantities import Handle

__all__ = [
    "MAX_CONTENT_BYTES",
    "RECORD_ID_BYTES",
    "ImportedGuardian",
    "ImportedName",
    "ImportedRecord",
    "PutCounts",
    "RecordSink",
    "record_id",
]

RECORD_ID_BYTES: Final = 16
# A record travels in one chunk of a slice (64 KiB); the rest is for what the sink sets and for framing.
MAX_CONTENT_BYTES: Final = 60_000

# Stands between the parts of a native key when it is hashed. XML 1.0 cannot contain it and the CSV reader refuses it,
# so two different keys never look alike.
_SEPARATOR: Final = "\x1f"


class ImportedRecord(NamedTuple):
    """One record, ready to be stored."""

    # The learner's handle at this node, from RecordSink.learner.
    handle: Handle
    # 16 bytes; see record_id().
    record_id: bytes
    # A leaf of permslip.sections.
    section: str
    # YYYY-MM-DD, or empty when the source does not say.
    observed_on: str
    # A serialized permslip.v1.Record. The sink sets what is unset: record_id, recorded_at, version and supersedes.
    # At most MAX_CONTENT_BYTES.
    content: bytes


class ImportedGuardian(NamedTuple):
    """One guardian of one learner, as the source describes the two of them.

    A key is (``native_learner_id``, ``native_guardian_id``). ``None`` means that the source does not say, which is not
    the same as «no».
    """

    native_learner_id: str
    native_guardian_id: str
    # The name to print on a slip, e.g. "Carmen Dyer".
    display_name: str
    first_name: str
    last_name: str
    # Verbatim, e.g. "Father, step".
    relation: str
    lives_with: bool | None
    primary_contact: bool | None
    emergency_contact: bool | None
    legal_guardian: bool | None
    # Verbatim text on custody and pick-up, e.g. "No pickup"; empty when there is none. Never acted upon by itself: the
    # operator reads it before a slip is printed.
    contact_restrictions: str
    # Verbatim, e.g. "1"; empty when there is none.
    contact_priority: str


class ImportedName(NamedTuple):
    """What an operator calls a learner, to print slips and to find her, and when she was born."""

    native_learner_id: str
    display_name: str
    # YYYY-MM-DD, or empty when the source does not say. Only to know when she comes of age.
    birth_date: str = ""


class PutCounts(NamedTuple):
    """What one call changed."""

    inserted: int = 0
    versioned: int = 0
    unchanged: int = 0


class RecordSink(Protocol):
    """Stores what importers read. The module's docstring says what is promised."""

    def learner(self, native_id: str) -> Handle:
        """The handle of this learner at this node: the one she has, or a new random one."""
        ...

    def put_records(self, records: Sequence[ImportedRecord]) -> PutCounts:
        """Store records; see the module's rules on idempotence and versions."""
        ...

    def put_persons(self, links: Sequence[ImportedGuardian]) -> PutCounts:
        """Store guardians and their links to learners. A changed link replaces the old one and counts as versioned.

        It never restores what the operator took away: a suspended guardian stays suspended.
        """
        ...

    def put_names(self, names: Sequence[ImportedName]) -> PutCounts:
        """Store what to call learners. A changed name replaces the old one and counts as versioned."""
        ...

    def resume_point(self, run: bytes) -> int:
        """How far the import with this digest came before it was interrupted; 0 when it never began or was finished.

        Args:
            run: 32 bytes that stand for exactly these files read with exactly these options.
        """
        ...

    def checkpoint(self, run: bytes, position: int) -> None:
        """Remember that everything up to ``position`` (a count of source rows, ascending) has been stored."""
        ...

    def finish(self, run: bytes) -> None:
        """Forget the checkpoint: the import came to its end, so the next one begins at the beginning."""
        ...


def record_id(handle: Handle, system: str, entity: str, native_key: Sequence[str], occurrence: int) -> bytes:
    """The lasting id of an imported record: the same source row gives the same id at every import.

    BLAKE2b with 16 bytes of output, keyed with the learner's random handle: two nodes that import the same file give
    ids that cannot be linked, and nobody without the handle can test a guess.

    Args:
        handle: the learner's handle at this node.
        system: e.g. ``"ed-fi-1.0"``.
        entity: the source's element or table, with the part of it that the record is about.
        native_key: what the source identifies the row by.
        occurrence: 1 for the first row of an import with this key, 2 for the second, and so on.
    """
    parts = (system, entity, *native_key, str(occurrence))
    digest = hashlib.blake2b(
        _SEPARATOR.join(parts).encode(), digest_size=RECORD_ID_BYTES, key=handle, person=b"permslip-record1"
    )
    return digest.digest()

"""Every finding of an audit, by code: what it means, and what to do about it.

Example::

    >>> Code.LEAF_HASH.meaning
    "A leaf's bytes are not those of its hash."
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

__all__ = ["Code"]


class Code(StrEnum):
    """A finding's code; its value is what the bundle, JSON and the report say."""

    # verify: checkpoints
    CHECKPOINT_MALFORMED = "CHECKPOINT_MALFORMED"
    CHECKPOINT_SIGNATURE = "CHECKPOINT_SIGNATURE"
    CHECKPOINT_KEY = "CHECKPOINT_KEY"
    CHECKPOINT_ROOT = "CHECKPOINT_ROOT"
    CHECKPOINT_FORK = "CHECKPOINT_FORK"
    CHECKPOINT_MISSING = "CHECKPOINT_MISSING"
    COSIGNATURES_MISSING = "COSIGNATURES_MISSING"
    COSIGNATURE_INVALID = "COSIGNATURE_INVALID"
    COSIGNATURE_NONE = "COSIGNATURE_NONE"
    # verify: leaves
    POSITION_GAP = "POSITION_GAP"
    LEAF_HASH = "LEAF_HASH"
    LEAF_MALFORMED = "LEAF_MALFORMED"
    LEAF_COLUMNS = "LEAF_COLUMNS"
    LEDGER_LABEL = "LEDGER_LABEL"
    LEDGER_OPENING = "LEDGER_OPENING"
    CLOCK_BACKWARD = "CLOCK_BACKWARD"
    SLICE_CHAIN = "SLICE_CHAIN"
    LEAF_HIDDEN = "LEAF_HIDDEN"
    LEAVES_BEYOND_CHECKPOINT = "LEAVES_BEYOND_CHECKPOINT"
    # verify: statements
    STATEMENT_MALFORMED = "STATEMENT_MALFORMED"
    STATEMENT_SIGNATURE = "STATEMENT_SIGNATURE"
    STATEMENT_ID = "STATEMENT_ID"
    STATEMENT_COLUMNS = "STATEMENT_COLUMNS"
    ENVELOPE_DIGEST = "ENVELOPE_DIGEST"
    STATEMENT_MISSING = "STATEMENT_MISSING"
    STATEMENT_UNNAMED = "STATEMENT_UNNAMED"
    EVIDENCE_ERASED = "EVIDENCE_ERASED"
    ERASURE_UNRECORDED = "ERASURE_UNRECORDED"
    # verify: logs of others
    TILE_MISMATCH = "TILE_MISMATCH"
    TILE_MISSING = "TILE_MISSING"

    @property
    def meaning(self) -> str:
        """What was found, in one sentence."""
        return _TEXTS[self][0]

    @property
    def remedy(self) -> str:
        """What to do next."""
        return _TEXTS[self][1]


_FETCH_AGAIN: Final = "Fetch into a new bundle. If it is found again, the ledger's keeper has to explain it."
_EXPLAIN: Final = "Keep the bundle as evidence, and ask the ledger's keeper to explain it."

# Code → meaning, remedy.
_TEXTS: Final[dict[Code, tuple[str, str]]] = {
    Code.CHECKPOINT_MALFORMED: ("A checkpoint is not a signed note of this ledger.", _FETCH_AGAIN),
    Code.CHECKPOINT_SIGNATURE: ("A checkpoint's signature does not hold.", _FETCH_AGAIN),
    Code.CHECKPOINT_KEY: ("A checkpoint was not signed by a key that the ledger's root certified.", _EXPLAIN),
    Code.CHECKPOINT_ROOT: ("The leaves do not make the root that the keeper signed.", _EXPLAIN),
    Code.CHECKPOINT_FORK: ("The keeper signed two histories that contradict each other.", _EXPLAIN),
    Code.CHECKPOINT_MISSING: ("No checkpoint covers the ledger's leaves.", "Fetch the bundle to its end."),
    Code.COSIGNATURES_MISSING: ("Fewer witnesses cosigned a checkpoint than the pinned set demands.", _EXPLAIN),
    Code.COSIGNATURE_INVALID: ("A witness's cosignature does not hold.", _FETCH_AGAIN),
    Code.COSIGNATURE_NONE: (
        "No witness set was given, so a history shown to others may be another one.",
        "Give the pinned set with --witnesses.",
    ),
    Code.POSITION_GAP: ("Leaves are missing between others.", _FETCH_AGAIN),
    Code.LEAF_HASH: ("A leaf's bytes are not those of its hash.", _FETCH_AGAIN),
    Code.LEAF_MALFORMED: ("A leaf is not a strictly encoded ledger entry.", _EXPLAIN),
    Code.LEAF_COLUMNS: ("The bundle's columns say something else than the leaf.", "Fetch into a new bundle."),
    Code.LEDGER_LABEL: ("A leaf names another ledger or federation than the one that holds it.", _EXPLAIN),
    Code.LEDGER_OPENING: ("A ledger does not begin with its opening, or opens twice.", _EXPLAIN),
    Code.CLOCK_BACKWARD: ("The keeper's clock went back from one leaf to a later one.", _EXPLAIN),
    Code.SLICE_CHAIN: ("The numbered chain of entries about one slice has a hole, a fork or a wrong link.", _EXPLAIN),
    Code.LEAF_HIDDEN: (
        "Leaves came as hashes alone: erased, or outside the auditor's scope.",
        "Nothing, where the scope says so.",
    ),
    Code.LEAVES_BEYOND_CHECKPOINT: (
        "The newest leaves are not yet under a checkpoint.",
        "Fetch again: a later checkpoint covers them.",
    ),
    Code.STATEMENT_MALFORMED: ("A statement is not a strictly encoded envelope.", _FETCH_AGAIN),
    Code.STATEMENT_SIGNATURE: ("A statement's signature does not hold.", _EXPLAIN),
    Code.STATEMENT_ID: ("A statement is filed under an id that is not its own.", _FETCH_AGAIN),
    Code.STATEMENT_COLUMNS: ("The bundle's columns say something else than the statement.", "Fetch into a new bundle."),
    Code.ENVELOPE_DIGEST: ("A leaf names another envelope than the one that was given for it.", _EXPLAIN),
    Code.STATEMENT_MISSING: ("A leaf names a statement that was neither given nor erased.", _EXPLAIN),
    Code.STATEMENT_UNNAMED: ("A statement was given that no leaf names.", "Nothing: it proves nothing."),
    Code.EVIDENCE_ERASED: (
        "Evidence was erased at the end of its retention: what it showed cannot be checked any more.",
        "Nothing, where the retention rule allowed it.",
    ),
    Code.ERASURE_UNRECORDED: ("The bundle says «erased» where no leaf of the ledger does.", _EXPLAIN),
    Code.TILE_MISMATCH: ("A tile does not hold the hashes of the entries or tiles below it.", _EXPLAIN),
    Code.TILE_MISSING: ("A tile or entry bundle of the signed size is not there.", "Get the whole log."),
}

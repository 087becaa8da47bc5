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

    # fetch
    LEDGER_UNREACHED = "LEDGER_UNREACHED"
    LEDGER_REPLACED = "LEDGER_REPLACED"
    # verify: checkpoints
    CHECKPOINT_MALFORMED = "CHECKPOINT_MALFORMED"
    CHECKPOINT_SIGNATURE = "CHECKPOINT_SIGNATURE"
    CHECKPOINT_KEY = "CHECKPOINT_KEY"
    CHECKPOINT_COLUMNS = "CHECKPOINT_COLUMNS"
    CHECKPOINT_ROOT = "CHECKPOINT_ROOT"
    CHECKPOINT_FORK = "CHECKPOINT_FORK"
    CHECKPOINT_ROLLBACK = "CHECKPOINT_ROLLBACK"
    CHECKPOINT_MISSING = "CHECKPOINT_MISSING"
    COSIGNATURES_MISSING = "COSIGNATURES_MISSING"
    COSIGNATURES_OLD = "COSIGNATURES_OLD"
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
    CLOCK_AHEAD = "CLOCK_AHEAD"
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
    ERASED_EARLY = "ERASED_EARLY"
    ERASURE_UNRECORDED = "ERASURE_UNRECORDED"
    # verify: logs of others
    TILE_MISMATCH = "TILE_MISMATCH"
    TILE_MISSING = "TILE_MISSING"
    # replay
    STATEMENT_KIND = "STATEMENT_KIND"
    STATEMENT_SUBJECT = "STATEMENT_SUBJECT"
    SLICE_DIFFERS = "SLICE_DIFFERS"
    NOT_ADMISSIBLE = "NOT_ADMISSIBLE"
    VERDICT_DIFFERS = "VERDICT_DIFFERS"
    DECISION_RACED = "DECISION_RACED"
    DECISION_MISDESCRIBED = "DECISION_MISDESCRIBED"
    DECISION_TIME = "DECISION_TIME"
    DATED_BEFORE_FACTS = "DATED_BEFORE_FACTS"
    DECISION_UNCHECKED = "DECISION_UNCHECKED"
    FACTS_POSITION = "FACTS_POSITION"
    USES_DIFFER = "USES_DIFFER"
    WITNESS_TIME = "WITNESS_TIME"
    # reconcile: accesses
    SERVED_UNROUTED = "SERVED_UNROUTED"
    SERVED_UNLOGGED = "SERVED_UNLOGGED"
    ROUTED_POSITION = "ROUTED_POSITION"
    ANSWER_DIFFERS = "ANSWER_DIFFERS"
    ANSWER_SIZE = "ANSWER_SIZE"
    ANSWER_NEVER_CAME = "ANSWER_NEVER_CAME"
    ANSWER_UNLOGGED = "ANSWER_UNLOGGED"
    ANSWERED_UNDECIDED = "ANSWERED_UNDECIDED"
    ANSWERED_TWICE = "ANSWERED_TWICE"
    ANSWERED_AFTER_REVOCATION = "ANSWERED_AFTER_REVOCATION"
    MANIFEST_DIFFERS = "MANIFEST_DIFFERS"
    USES_OVER_LIMIT = "USES_OVER_LIMIT"
    CLOCKS_APART = "CLOCKS_APART"
    # reconcile: statements
    REVOCATION_WITHHELD = "REVOCATION_WITHHELD"
    REVOCATION_UNKNOWN = "REVOCATION_UNKNOWN"
    PUSH_MISSING = "PUSH_MISSING"
    PUSH_DIFFERS = "PUSH_DIFFERS"
    PUSH_UNLOGGED = "PUSH_UNLOGGED"
    RECORDED_TWICE = "RECORDED_TWICE"
    ACKNOWLEDGED_UNHELD = "ACKNOWLEDGED_UNHELD"
    WORD_UNLOGGED = "WORD_UNLOGGED"
    QUORUM_NOT_MET = "QUORUM_NOT_MET"
    WITNESS_ALERTED = "WITNESS_ALERTED"

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

_CLOCK: Final = "Have the keeper compare its clock, and what else it decided at that time."
_DIRECTLY: Final = "Tell the guardian to bring the revocation to the school herself, and ask broker and school."

# Code → meaning, remedy.
_TEXTS: Final[dict[Code, tuple[str, str]]] = {
    Code.LEDGER_UNREACHED: ("A ledger could not be read.", "Fetch again when its keeper is connected."),
    Code.LEDGER_REPLACED: (
        "A ledger was replaced by another one of the same keeper.",
        "Fetch the new one into a new bundle; a restored ledger names the one before in its first leaf.",
    ),
    Code.CHECKPOINT_MALFORMED: ("A checkpoint is not a signed note of this ledger.", _FETCH_AGAIN),
    Code.CHECKPOINT_SIGNATURE: ("A checkpoint's signature does not hold.", _FETCH_AGAIN),
    Code.CHECKPOINT_KEY: ("A checkpoint was not signed by a key that the ledger's root certified.", _EXPLAIN),
    Code.CHECKPOINT_COLUMNS: ("The bundle's columns say something else than the note.", "Fetch into a new bundle."),
    Code.CHECKPOINT_ROOT: ("The leaves do not make the root that the keeper signed.", _EXPLAIN),
    Code.CHECKPOINT_FORK: ("The keeper signed two histories that contradict each other.", _EXPLAIN),
    Code.CHECKPOINT_ROLLBACK: ("The keeper signed a smaller ledger than before: leaves were taken away.", _EXPLAIN),
    Code.CHECKPOINT_MISSING: ("No checkpoint covers the ledger's leaves.", "Fetch the bundle to its end."),
    Code.COSIGNATURES_MISSING: (
        "A checkpoint lacks cosignatures: of the pinned witnesses, or, where it is a node's, of the broker.",
        _EXPLAIN,
    ),
    Code.COSIGNATURES_OLD: (
        "The broker showed a checkpoint that too few witnesses cosigned lately: later entries may have been kept back.",
        "Fetch again when the witnesses are connected. If it stays, ask witnesses for what they cosigned last.",
    ),
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
    Code.CLOCK_BACKWARD: ("A leaf is dated before the one that it follows.", _EXPLAIN),
    Code.CLOCK_AHEAD: ("A leaf is dated after the time at which it was fetched or witnessed.", _EXPLAIN),
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
    Code.ERASED_EARLY: (
        "Evidence was erased less than 30 days after its entry: hardly anybody can have checked it.",
        "Ask the ledger's keeper which rule demanded it, and compare what the other ledgers hold of it.",
    ),
    Code.ERASURE_UNRECORDED: ("The bundle says «erased» where no leaf of the ledger does.", _EXPLAIN),
    Code.TILE_MISMATCH: ("A tile does not hold the hashes of the entries or tiles below it.", _EXPLAIN),
    Code.TILE_MISSING: ("A tile or entry bundle of the signed size is not there.", "Get the whole log."),
    Code.STATEMENT_KIND: ("A ledger recorded a statement of a kind that none records.", _EXPLAIN),
    Code.STATEMENT_SUBJECT: ("An entry says that its statement is about something else than it is.", _EXPLAIN),
    Code.SLICE_DIFFERS: ("An entry is missing from the chain of the slice that it is about.", _EXPLAIN),
    Code.NOT_ADMISSIBLE: ("A statement was recorded that the rules do not allow.", _EXPLAIN),
    Code.VERDICT_DIFFERS: ("A decision is not the one that the ledger's own facts give.", _EXPLAIN),
    Code.DECISION_RACED: ("A decision rests on facts that had changed before it was recorded.", _EXPLAIN),
    Code.DECISION_MISDESCRIBED: ("A decision's entry says something else than the query that it names.", _EXPLAIN),
    Code.DECISION_TIME: ("A decision is dated more than a minute away from its entry.", _CLOCK),
    Code.DATED_BEFORE_FACTS: ("A decision is dated before the facts that it was made by.", _CLOCK),
    Code.DECISION_UNCHECKED: (
        "A decision could not be made again: evidence is missing that nobody says was erased.",
        _EXPLAIN,
    ),
    Code.FACTS_POSITION: ("A decision names facts later than its own entry.", _EXPLAIN),
    Code.USES_DIFFER: ("A node counted other uses than its ledger shows.", _EXPLAIN),
    Code.WITNESS_TIME: ("Entries are dated when, by the clocks of who cosigned, they cannot have been made.", _CLOCK),
    Code.SERVED_UNROUTED: ("A node decided a query that the broker's ledger does not show as routed.", _EXPLAIN),
    Code.SERVED_UNLOGGED: ("The broker relayed an answer that the node's ledger knows nothing of.", _EXPLAIN),
    Code.ROUTED_POSITION: ("A node names another of the broker's entries than its query's.", _EXPLAIN),
    Code.ANSWER_DIFFERS: ("Broker and node name different answers to one query.", _EXPLAIN),
    Code.ANSWER_SIZE: ("Broker and node count different bytes of one answer.", _EXPLAIN),
    Code.ANSWER_NEVER_CAME: ("A node says that it answered, and by the broker's ledger nothing came.", _EXPLAIN),
    Code.ANSWER_UNLOGGED: ("One ledger shows a whole answer, the other does not say how it ended.", _EXPLAIN),
    Code.ANSWERED_UNDECIDED: ("A ledger says how an access ended that it never allowed.", _EXPLAIN),
    Code.ANSWERED_TWICE: ("A ledger says twice how one access ended.", _EXPLAIN),
    Code.ANSWERED_AFTER_REVOCATION: ("An answer left after its consent's end was acknowledged.", _EXPLAIN),
    Code.MANIFEST_DIFFERS: ("A node's signed list of what it answered is not what its ledger decided.", _EXPLAIN),
    Code.USES_OVER_LIMIT: ("A consent was used more often than it allows.", _EXPLAIN),
    Code.CLOCKS_APART: ("The clocks of broker and node were too far apart.", _CLOCK),
    Code.REVOCATION_WITHHELD: ("The broker recorded a revocation or suspension that the node never got.", _DIRECTLY),
    Code.REVOCATION_UNKNOWN: ("A node holds a revocation that the broker's ledger does not show.", _EXPLAIN),
    Code.PUSH_MISSING: ("The broker recorded a statement that the node must hold and does not.", _EXPLAIN),
    Code.PUSH_DIFFERS: ("A node holds another statement under a push's number than the broker recorded.", _EXPLAIN),
    Code.PUSH_UNLOGGED: ("A node was pushed a statement that the broker's ledger does not show.", _EXPLAIN),
    Code.RECORDED_TWICE: ("A ledger recorded one statement twice.", _EXPLAIN),
    Code.ACKNOWLEDGED_UNHELD: ("A node acknowledged a revocation that its ledger does not show there.", _DIRECTLY),
    Code.WORD_UNLOGGED: ("The broker recorded a node's word that the node's ledger does not show.", _EXPLAIN),
    Code.QUORUM_NOT_MET: ("A node endorsed a consent that lacks a signature its rule demands.", _EXPLAIN),
    Code.WITNESS_ALERTED: ("A node refused a checkpoint of the broker, or the broker one of a node.", _EXPLAIN),
}

"""Verifying leaves: in one pass over a ledger, in order, with memory for one portion of them.

Each leaf is held to its hash, to the strict encoding, to its ledger, to the columns that the bundle shows of it, to the
keeper's clock, and to the statements that it names. The tree over all of them is computed anew and compared with every
checkpoint of the ledger on the way: so each leaf is proved to be in each of them, and each to continue the one before.

Rules:

- A keeper never dates a leaf before the one that it follows; where one is, it is told there, and its time counts from
  there on. No leaf is dated more than 60 s after the time at which its checkpoint was fetched or last cosigned.
- What a leaf names must be there, with the digest that the leaf gives, or must have been erased by a leaf of the same
  ledger: what another keeper erased, this one still has.
- A query that is presented again may come in another envelope than the first: that is for its refusal to say.

Example::

    check_leaves(bundle, row, trust, found, progress, hides=False)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from permslip._pb.permslip.v1 import ledger_pb2
from permslip.auditing.bundle import Bundle, LedgerRow
from permslip.auditing.codes import Code
from permslip.auditing.entry_rows import EntryRow, decode_entry, row_of
from permslip.auditing.finding import Findings, utc_text
from permslip.auditing.results import Progress, Trust
from permslip.auditing.verify_checkpoints import CheckpointRow, checkpoints_of
from permslip.errors import MalformedError
from permslip.merkle import HASH_BYTES, Frontier, leaf_hash
from permslip.reasons import Reason

__all__ = ["CLOCK_BOUND", "check_leaves"]

CLOCK_BOUND: Final = 60_000
"""Milliseconds that a keeper's clock may be ahead."""

# Milliseconds for which evidence is kept by any rule worth the name: what went sooner was hardly ever checked.
_DAY: Final = 86_400_000
_EARLY: Final = 30 * _DAY

_PORTION: Final = 1_024
_TELL_EVERY: Final = 8_192
_ALLOWED: Final = Reason.ALLOWED.wire
_REPLAYED: Final = Reason.QUERY_REPLAYED.wire


def check_leaves(
    bundle: Bundle, ledger: LedgerRow, trust: Trust, found: Findings, progress: Progress, *, hides: bool
) -> None:
    """Verify every leaf of one ledger.

    Args:
        bundle: where it is.
        ledger: which one.
        trust: whom the auditor trusts.
        found: takes the findings.
        progress: told how far it is.
        hides: whether the auditor's scope hides leaves; without one a leaf that did not come was withheld.
    """
    _Pass(bundle, ledger, trust, found, progress, hides).run()


class _Pass:
    """One pass over one ledger."""

    def __init__(
        self, bundle: Bundle, ledger: LedgerRow, trust: Trust, found: Findings, progress: Progress, hides: bool
    ) -> None:
        self._bundle, self._ledger, self._trust = bundle, ledger, trust
        self._found, self._progress, self._hides = found, progress, hides
        self._names = _Named(bundle, ledger, found)
        self._clock = _Clock(bundle, ledger.ledger, found)
        self._hidden = 0

    def run(self) -> None:
        ledger, tree = self._ledger, _Tree(self._bundle, self._ledger, self._found)
        expected = 0
        for row in self._bundle.entries(ledger.ledger):
            if row.position != expected:
                self._add(Code.POSITION_GAP, f"expected leaf {expected}, got leaf {row.position}.", row.position)
                tree.give_up()
            expected = row.position + 1
            self._check(row)
            tree.add(row.leaf_hash)
            if expected % _TELL_EVERY == 0:
                self._progress(f"{ledger.name}: leaves", expected, ledger.fetched)
        tree.finish()
        self._progress(f"{ledger.name}: leaves", expected, expected)
        self._found.count("leaves", expected)
        if expected < ledger.fetched:
            self._add(Code.POSITION_GAP, f"expected {ledger.fetched} leaves, got {expected}.", expected)
        if self._hidden:
            self._found.count("hidden", self._hidden)
            if self._hides:
                message = f"{ledger.name}: {self._hidden} leaves came as hashes alone."
                self._found.add(Code.LEAF_HIDDEN, message, ledger=ledger.ledger, severity="note")

    def _check(self, row: EntryRow) -> None:
        ledger = self._ledger
        if len(row.leaf_hash) != HASH_BYTES:
            self._add(Code.LEAF_HASH, f"expected a hash of {HASH_BYTES} bytes.", row.position)
        if row.leaf is None:
            self._hidden += 1
            if not self._hides:
                self._add(Code.LEAF_HIDDEN, "came as a hash alone, and the scope hides nothing.", row.position)
            if row.position == 0:
                self._add(Code.LEDGER_OPENING, "is not there, though no scope hides it.", 0)
            return
        # (1) its hash is that of its bytes
        computed = leaf_hash(row.leaf)
        if computed != row.leaf_hash:
            self._add(Code.LEAF_HASH, f"its bytes have hash {computed.hex()}, not {row.leaf_hash.hex()}.", row.position)
        # (2) it is strictly encoded
        try:
            entry = decode_entry(row.leaf)
        except MalformedError as error:
            self._add(Code.LEAF_MALFORMED, error.message, row.position)
            return
        # (3) it is of this ledger
        if entry.ledger != ledger.root or entry.federation != self._trust.federation:
            self._add(Code.LEDGER_LABEL, f"names {entry.federation!r}, {entry.ledger.hex()}.", row.position)
        opens = row.position == 0
        if (entry.WhichOneof("event") == "ledger_opened") != opens or (
            opens and entry.ledger_opened.origin != ledger.origin
        ):
            self._add(Code.LEDGER_OPENING, f"expected position 0 alone to open {ledger.origin}.", row.position)
        # (4) the columns say the same
        if row_of(entry, ledger.ledger, row.position, row.leaf_hash, row.leaf) != row:
            self._add(Code.LEAF_COLUMNS, "its columns are not those of its bytes.", row.position)
        # (5) the clock
        self._clock.check(row.position, entry.recorded_at)
        # (6) what it names is there
        self._names.check(row.position, entry)

    def _add(self, code: Code, message: str, position: int) -> None:
        told = f"{self._ledger.name}, leaf {position}: {message}"
        self._found.add(code, told, ledger=self._ledger.ledger, position=position)


class _Tree:
    """The tree over the leaves, compared with each checkpoint as it reaches its size."""

    def __init__(self, bundle: Bundle, ledger: LedgerRow, found: Findings) -> None:
        self._ledger, self._found = ledger, found
        self._checkpoints = iter(list(checkpoints_of(bundle, ledger.ledger)))
        self._next = next(self._checkpoints, None)
        self._frontier = Frontier()
        self._waiting: list[bytes] = []
        self._is_whole = True
        self._agreed: list[CheckpointRow] = []
        self._differing: list[tuple[CheckpointRow, bytes]] = []
        self._compare()

    def give_up(self) -> None:
        """A leaf is missing: no later root can be computed."""
        self._is_whole = False

    def add(self, digest: bytes) -> None:
        """The next leaf's hash."""
        if not self._is_whole or len(digest) != HASH_BYTES:
            self._is_whole = False
            return
        self._waiting.append(digest)
        size = self._frontier.size + len(self._waiting)
        if len(self._waiting) == _PORTION or (self._next is not None and size == self._next.size):
            self._frontier.extend(self._waiting)
            self._waiting.clear()
            self._compare()

    def finish(self) -> None:
        """Say which checkpoints the leaves do not make, or do not reach."""
        ledger, found = self._ledger, self._found
        self._frontier.extend(self._waiting)
        self._waiting.clear()
        # Where some checkpoints agree with the leaves and others do not, the keeper signed two histories.
        code = Code.CHECKPOINT_FORK if self._agreed else Code.CHECKPOINT_ROOT
        for row, root in self._differing:
            found.add(
                code,
                f"{ledger.name}: {row.size} leaves make root {root.hex()}, the keeper signed {row.root.hex()}.",
                ledger=ledger.ledger,
                size=row.size,
                visit=row.visit,
                computed=root,
                signed=row.root,
            )
        size = self._frontier.size
        last = max((row.size for row in self._agreed), default=0)
        if self._is_whole and last < size and not self._differing:
            told = f"{ledger.name}: the leaves from {last} to {size - 1} are under no checkpoint."
            found.add(Code.LEAVES_BEYOND_CHECKPOINT, told, ledger=ledger.ledger, severity="warning")
            found.leave_unchecked(told)
        if self._next is not None:
            found.leave_unchecked(
                f"{ledger.name}: a checkpoint signs {self._next.size} leaves, and the bundle holds {size}: fetch again."
            )

    def _compare(self) -> None:
        while self._next is not None and self._next.size == self._frontier.size:
            root = self._frontier.root()
            if root == self._next.root:
                self._agreed.append(self._next)
            else:
                self._differing.append((self._next, root))
            self._next = next(self._checkpoints, None)


class _Clock:
    """The keeper's clock: never back, hardly ahead of those who saw the ledger."""

    def __init__(self, bundle: Bundle, ledger: int, found: Findings) -> None:
        self._ledger, self._found = ledger, found
        self._before = 0
        # By size, descending: no leaf below a size is later than the earliest time at which somebody saw that many.
        bounds: list[tuple[int, int]] = []
        earliest = 2**63 - 1
        for row in sorted(checkpoints_of(bundle, ledger), key=lambda each: -each.size):
            seen = row.latest_cosignature
            if row.visit:
                earliest = min(earliest, row.fetched_at, 1_000 * seen + 999 if seen is not None else earliest)
            bounds.append((row.size, earliest))
        self._bounds = bounds

    def check(self, position: int, recorded_at: int) -> None:
        """Check one leaf's time."""
        if recorded_at < self._before:
            message = f"leaf {position} is dated {self._before - recorded_at} ms before the one before it."
            self._found.add(Code.CLOCK_BACKWARD, message, ledger=self._ledger, position=position)
        self._before = recorded_at
        while self._bounds and self._bounds[-1][0] <= position:
            self._bounds.pop()
        if self._bounds and recorded_at > self._bounds[-1][1] + CLOCK_BOUND:
            message = f"leaf {position} is dated {recorded_at - self._bounds[-1][1]} ms after it was seen."
            self._found.add(Code.CLOCK_AHEAD, message, ledger=self._ledger, position=position)


class _Named:
    """The statements that leaves name."""

    def __init__(self, bundle: Bundle, ledger: LedgerRow, found: Findings) -> None:
        self._db, self._ledger, self._found = bundle.db, ledger, found
        self._recorded_at = 0

    def check(self, position: int, entry: ledger_pb2.LogEntry) -> None:
        """What an entry names is there, unaltered, or was erased."""
        self._recorded_at = entry.recorded_at
        event = entry.WhichOneof("event")
        if event == "statement_recorded":
            recorded = entry.statement_recorded
            kind = recorded.payload_type.removeprefix("application/vnd.permslip.").removesuffix(".v1+protobuf")
            self._by_id(position, recorded.statement_id, recorded.envelope_sha256, kind)
        elif event == "access_decided":
            decided = entry.access_decided
            digest = decided.envelope_sha256 if decided.reason != _REPLAYED else b""
            self._by_id(position, decided.query_id, digest, "query")
        elif event == "access_answered" and self._ledger.kind == "node":
            answered = entry.access_answered
            if answered.manifest_sha256 and answered.reason == _ALLOWED:
                self._manifest(position, answered)
        elif event == "statements_erased":
            self._erasure(position, entry.statements_erased.statement_ids)

    def _by_id(self, position: int, identifier: bytes, digest: bytes, kind: str) -> None:
        self._found.count("statements named")
        row = self._db.execute("SELECT envelope_sha256, kind FROM statement WHERE id = ?", (identifier,)).fetchone()
        if row is None:
            self._missing(position, identifier, kind)
        elif digest and row[0] != digest:
            message = (
                f"leaf {position} names envelope {digest.hex()} of its {kind}, the one that came is {row[0].hex()}."
            )
            self._add(Code.ENVELOPE_DIGEST, message, position, statement=identifier)
        elif row[1] != kind:
            message = f"leaf {position} names a {kind}, the statement of that id is a {row[1]}."
            self._add(Code.ENVELOPE_DIGEST, message, position, statement=identifier)

    def _manifest(self, position: int, answered: ledger_pb2.AccessAnswered) -> None:
        self._found.count("statements named")
        row = self._db.execute(
            "SELECT 1 FROM statement WHERE envelope_sha256 = ? AND kind = 'manifest'", (answered.manifest_sha256,)
        ).fetchone()
        if row is None:
            # A leaf names a manifest by its digest alone; it is erased with the query that it answers.
            self._missing(position, answered.query_id, "manifest")

    def _missing(self, position: int, identifier: bytes, kind: str) -> None:
        erased = self._db.execute(
            "SELECT erased_at, rule FROM erased WHERE statement_id = ? AND ledger = ?",
            (identifier, self._ledger.ledger),
        ).fetchone()
        if erased is None:
            self._add(
                Code.STATEMENT_MISSING,
                f"leaf {position} names a {kind} that was neither given nor erased.",
                position,
                statement=identifier,
            )
            return
        self._found.count("erased")
        self._found.add(
            Code.EVIDENCE_ERASED,
            f"leaf {position}: evidence erased on {utc_text(erased[0])[:10]} ({erased[1]}): its {kind}.",
            ledger=self._ledger.ledger,
            position=position,
            severity="note",
            statement=identifier,
            erased_at=erased[0],
        )
        age = erased[0] - self._recorded_at
        if age < _EARLY:
            self._found.add(
                Code.ERASED_EARLY,
                f"leaf {position}: its {kind} was erased {max(0, age) // _DAY} days after it ({erased[1]}).",
                ledger=self._ledger.ledger,
                position=position,
                severity="warning",
                statement=identifier,
                erased_at=erased[0],
            )

    def _erasure(self, position: int, identifiers: Sequence[bytes]) -> None:
        """The bundle's table of what was erased says the same as the leaf."""
        for each in identifiers:
            row = self._db.execute(
                "SELECT position FROM erased WHERE statement_id = ? AND ledger = ?", (each, self._ledger.ledger)
            ).fetchone()
            if row is None:
                message = f"leaf {position} erases a statement, the bundle's table does not say so."
                self._add(Code.LEAF_COLUMNS, message, position, statement=each)

    def _add(self, code: Code, message: str, position: int, *, statement: bytes) -> None:
        told = f"{self._ledger.name}: {message}"
        self._found.add(code, told, ledger=self._ledger.ledger, position=position, statement=statement)

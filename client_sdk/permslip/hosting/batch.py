"""One batch of the ledger while its transaction is open: leaves, slices' chains, changes.

A batch is filled call by call. A call that fails is taken back whole: what it put into the lists is cut off, what its
callbacks wrote is rolled back to a savepoint. Only calls with callbacks pay for a savepoint. Nothing here outlives the
transaction; :class:`~permslip.hosting.appending.Appender` takes over what was committed.

Example::

    >>> outcome = batch.add((draft, another))                          # doctest: +SKIP
    >>> [leaf_hash for _, leaf_hash, _, _ in batch.leaves]             # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from permslip.errors import MalformedError, RefusedError, UnavailableError
from permslip.hosting.database import is_serialization_failure
from permslip.hosting.drafts import Draft, Recorded
from permslip.hosting.leaves import NONCE_BYTES, LeafEncoder, encode_event, encode_time
from permslip.hosting.schema import MARK_EVERY
from permslip.merkle import leaf_hash
from permslip.quantities import Position

__all__ = ["Batch", "Outcome", "Slice", "SliceEnd"]

Slice = tuple[bytes, bytes]
"""Node root and handle."""

Outcome = list[Recorded] | Exception
"""What became of one call: its entries, or why it was not appended."""


SliceEnd = tuple[int, int, bytes, int]
"""Where a slice's chain ends: the slice's number in the tables; its last entry's number, leaf hash and position."""


class Batch:
    """The entries of one transaction.

    Args:
        connection: in the transaction, with the head locked.
        encoder: makes the leaves.
        size: of the ledger that the batch extends.
        change_position: last position that changed anything, or -1.
        recorded_at: the time of all leaves, not before the last leaf's.
        clock_behind: milliseconds by which the clock is behind the last leaf, where that is more than allowed; else 0.
        nonces: random bytes, 16 for each draft.
        ends: the chain's end of every slice that has entries and that the drafts name.
        changes: for every subject that the drafts depend on, its last change, at least where that is at or after the
            draft's ``facts_position``.
    """

    def __init__(
        self,
        connection: Connection,
        encoder: LeafEncoder,
        *,
        size: int,
        change_position: int,
        recorded_at: int,
        clock_behind: int,
        nonces: bytes,
        ends: Mapping[Slice, SliceEnd],
        changes: Mapping[bytes, int],
    ) -> None:
        self._connection = connection
        self._cursor: Any = connection.connection.cursor()
        self._encode = encoder.encode
        self._size = size
        self._clock_behind = clock_behind
        self._nonces = nonces
        self._nonces_used = 0
        self._ends_before = ends
        self._changes_before = changes
        # How to take back what a call of several steps put into the mappings.
        self._journal: list[tuple[dict[Any, Any], Any, Any]] | None = None
        self._saved = False

        self.recorded_at = recorded_at
        self._time = encode_time(recorded_at)
        self.change_position = change_position
        self.leaves: list[tuple[int, bytes, bytes, int | None]] = []
        self.new_slices: list[tuple[int, bytes, bytes]] = []
        self.marks: list[tuple[int, int, int]] = []
        self.evidence: list[tuple[int, bytes]] = []
        self.ends: dict[Slice, SliceEnd] = {}
        self.changes: dict[bytes, int] = {}

    def add(self, drafts: tuple[Draft, ...]) -> Outcome:
        """Append the drafts of one call, or nothing of it.

        An error of a callback or draft is returned, since it is one call's own. What is raised ends the whole batch:
        the savepoint is gone when a callback ended the transaction, or SQLite did where its disk is full.
        """
        if len(drafts) == 1 and drafts[0].write is None and not self._must_recheck(drafts[0].facts_position):
            # The hot path has no callback, and changes nothing before the last thing that can fail.
            try:
                return [self._append(drafts[0])]
            except Exception as error:  # noqa: BLE001 (a bad draft is its own caller's business)
                return error
        lengths = len(self.leaves), len(self.new_slices), len(self.marks), len(self.evidence)
        change_position = self.change_position
        self._journal = []
        try:
            recorded = [self._append(draft) for draft in drafts]
        except Exception as error:
            if is_serialization_failure(error):
                raise
            self._cut(*lengths)
            self.change_position = change_position
            if self._saved:
                self._cursor.execute("ROLLBACK TO SAVEPOINT ledger_call")
                self._release()
            return error
        finally:
            self._journal = None
        if self._saved:
            self._release()
        return recorded

    def _append(self, draft: Draft) -> Recorded:
        position = Position(self._size + len(self.leaves))
        if self._clock_behind and not draft.despite_clock:
            raise RefusedError(
                f"this machine's clock is {self._clock_behind / 1000:.0f} s behind the last entry of its own ledger.",
                code="CLOCK",
                remedy="Set the clock right; nothing is answered until then.",
            )
        # (1) Does what it was decided by still hold?
        if self._must_recheck(draft.facts_position):
            draft = self._recheck(draft, position)
        # (2) The leaf, with its place in its slice's chain.
        used = self._nonces_used
        self._nonces_used = used + NONCE_BYTES
        nonce = self._nonces[used : used + NONCE_BYTES]
        event = encode_event(draft.event, draft.body)
        where = draft.slice
        seq, previous = 0, None
        if where is None:
            leaf = self._encode(nonce, self._time, event)
            digest = leaf_hash(leaf)
        else:
            ended = self.ends.get(where)
            before = ended or self._ends_before.get(where)
            if before is None:
                number, seq = int(position), 1
                leaf = self._encode(nonce, self._time, event, where, seq)
                self.new_slices.append((number, *where))
            else:
                number, seq, link, previous = before
                seq += 1
                leaf = self._encode(nonce, self._time, event, where, seq, link)
            digest = leaf_hash(leaf)
            if self._journal is not None:
                self._journal.append((self.ends, where, ended))
            self.ends[where] = (number, seq, digest, position)
            if not seq % MARK_EVERY:
                self.marks.append((number, seq, position))
        self.leaves.append((position, digest, leaf, previous))
        if draft.evidence:
            self.evidence.append((position, draft.evidence))
        # (3) What it changes, for the drafts after it.
        if draft.changes:
            for subject in draft.changes:
                if self._journal is not None:
                    self._journal.append((self.changes, subject, self.changes.get(subject)))
                self.changes[subject] = position
            self.change_position = position
        # (4) What it means in other tables.
        if draft.write is not None:
            self._save()
            draft.write(self._connection, position)
        return Recorded(position, digest, self.recorded_at, seq, draft)

    def _must_recheck(self, facts: int | None) -> bool:
        """False, without a look at any subject, where nothing at all changed since the facts were read."""
        return facts is not None and not self.change_position < facts <= self._size + len(self.leaves)

    def _recheck(self, draft: Draft, position: int) -> Draft:
        """The draft, or what its ``redo`` makes of it where the facts it was decided by hold no longer."""
        facts = draft.facts_position or 0
        if facts > position:
            raise MalformedError(
                f"expected the size of a ledger that was read, at most {position}, got {facts}.",
                field="facts_position",
            )
        for subject in draft.depends_on:
            if self.changes.get(subject, -1) >= facts or self._changes_before.get(subject, -1) >= facts:
                break
        else:
            return draft
        if draft.redo is None:
            raise UnavailableError(
                f"what this was decided by at ledger size {facts} changed before it was recorded.",
                remedy="Try again: it is then decided by what holds now.",
            )
        self._save()
        again = draft.redo(self._connection, position)
        if again.facts_position is not None and again.facts_position != position:
            raise MalformedError(
                f"expected a draft decided again by the facts at {position}, got one by those at "
                f"{again.facts_position}.",
                field="facts_position",
            )
        return again

    def _save(self) -> None:
        if not self._saved:
            self._cursor.execute("SAVEPOINT ledger_call")
            self._saved = True

    def _release(self) -> None:
        self._cursor.execute("RELEASE SAVEPOINT ledger_call")
        self._saved = False

    def _cut(self, leaves: int, slices: int, marks: int, evidence: int) -> None:
        del self.leaves[leaves:], self.new_slices[slices:], self.marks[marks:], self.evidence[evidence:]
        for entries, key, before in reversed(self._journal or ()):
            if before is None:
                del entries[key]
            else:
                entries[key] = before

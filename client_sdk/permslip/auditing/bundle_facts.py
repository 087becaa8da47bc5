"""Facts out of an audit bundle: what a ledger's statements meant at each of its positions.

The auditor's store of facts. It answers like those of broker and node (one conformance suite holds all of them to it),
but keeps only ids and states, in a scratch database on the disk; the statements themselves stay in the bundle.

Rules:

- Statements are recorded in the order of one ledger, after they were verified; reading checks their ids, not their
  signatures again.
- Memory does not grow with the ledger: what was used last is kept parsed, everything else is read when it is needed.
- What a ledger recorded and the bundle does not have any more is *lost*: :meth:`BundleFacts.lost` says so, and nobody
  takes a verdict for wrong whose evidence was erased. A newer statement of that kind about that subject heals it.

Example::

    facts = BundleFacts(bundle)
    facts.record(signed)
    decision = decide(gather(facts, query), query, now=decided_at)
    facts.close()
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final, Generic, NamedTuple, TypeVar

from permslip import statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.auditing.bundle import Bundle
from permslip.capabilities import Capability, Delegated
from permslip.errors import MalformedError
from permslip.reasons import Reason
from permslip.standing import Standing
from permslip.statements import Signed

__all__ = ["BundleFacts", "Lost"]

V = TypeVar("V")

# A grant with its endorsements takes about 6 KB parsed.
CACHE_ENTRIES: Final = 4096
_MOST_ABSENT: Final = 4096

_SCRATCH: Final = """
CREATE TABLE capability (
    id BLOB PRIMARY KEY, endorsement BLOB, approval BLOB, ended INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE delegated (id BLOB PRIMARY KEY, grant_id BLOB NOT NULL, ended INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE standing (root BLOB PRIMARY KEY, admission BLOB, suspension BLOB, cert BLOB) WITHOUT ROWID;
CREATE TABLE change (subject BLOB PRIMARY KEY, position INTEGER NOT NULL, recorded_at INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE lost (
    subject BLOB, kind TEXT, erased_at INTEGER, PRIMARY KEY (subject, kind)
) WITHOUT ROWID;
"""

# The states that name a statement, by its kind.
_RESTING: Final = {
    st.GRANT.name: "SELECT 1 FROM capability WHERE id = ?1 AND id = ?2",
    st.ENDORSEMENT.name: "SELECT 1 FROM capability WHERE id = ?1 AND ?2 IN (endorsement, approval)",
    st.DELEGATION.name: "SELECT 1 FROM delegated WHERE id = ?1 AND id = ?2",
    st.ADMISSION.name: "SELECT 1 FROM standing WHERE root = ?1 AND admission = ?2",
    st.SUSPENSION.name: "SELECT 1 FROM standing WHERE root = ?1 AND suspension = ?2",
    st.KEY_CERT.name: "SELECT 1 FROM standing WHERE root = ?1 AND cert = ?2",
}
_CHANGE: Final = "INSERT INTO change VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET position = ?2, recorded_at = ?3"


class Lost(NamedTuple):
    """Evidence that is not there.

    Attributes:
        subject: the grant, delegation or organization that it was about.
        kind: what it was.
        erased_at: when it was erased, UTC milliseconds; None where nothing says that it was.
    """

    subject: bytes
    kind: str
    erased_at: int | None


class BundleFacts:
    """Facts as of one position of one ledger; a :class:`permslip.facts.FactReader`.

    Args:
        bundle: where the statements are.
        cache_entries: greatest number of grants, of delegations and of organizations that are kept parsed.
    """

    def __init__(self, bundle: Bundle, *, cache_entries: int = CACHE_ENTRIES) -> None:
        self._bundle = bundle
        # Without a name it is SQLite's own temporary file: on the disk once it outgrows its cache, gone when closed.
        self.scratch: Final = sqlite3.connect("", isolation_level=None)
        self.scratch.executescript(f"PRAGMA journal_mode = OFF; PRAGMA cache_size = -16384; {_SCRATCH}")
        self._capabilities: _Recent[Capability] = _Recent(cache_entries)
        self._delegated: _Recent[Delegated] = _Recent(cache_entries)
        self._standings: _Recent[Standing] = _Recent(cache_entries)
        self._position = 0
        self._last_change = -1
        self._any_lost = False

    def rest_since(self, position: int) -> bool:
        """Whether nothing was recorded since a position, and no evidence is lost: then no subject need be asked."""
        return self._last_change < position and not self._any_lost

    def close(self) -> None:
        """Give the scratch database back."""
        self.scratch.close()

    # ---------------------------------------------------------------------------------------------- reading

    @property
    def position(self) -> int:
        """Ledger size whose facts these are."""
        return self._position

    def advance(self, position: int) -> None:
        """Entries that change no facts moved the ledger on to this size."""
        self._position = position

    def capability(self, grant_id: bytes) -> Capability | None:
        """See :class:`permslip.facts.FactReader`."""
        return self._capabilities.get(grant_id, self._read_capability)

    def delegated(self, delegation_id: bytes) -> Delegated | None:
        """See :class:`permslip.facts.FactReader`."""
        return self._delegated.get(delegation_id, self._read_delegated)

    def standing(self, root: bytes) -> Standing | None:
        """See :class:`permslip.facts.FactReader`."""
        return self._standings.get(root, self._read_standing)

    def changed_since(self, subjects: Iterable[bytes], position: int) -> bytes | None:
        """The first of these subjects of which something was recorded at or after a position; None where of none."""
        if self._last_change < position:
            return None
        for subject in subjects:
            row = self.scratch.execute("SELECT position FROM change WHERE subject = ?", (subject,)).fetchone()
            if row is not None and row[0] >= position:
                return subject
        return None

    def changed_at(self, subjects: Iterable[bytes]) -> int:
        """When the newest fact about these subjects was recorded, UTC milliseconds by the ledger; 0 where none was."""
        times = [
            row[0]
            for subject in subjects
            for row in self.scratch.execute("SELECT recorded_at FROM change WHERE subject = ?", (subject,))
        ]
        return max(times, default=0)

    def lost(self, subjects: Iterable[bytes]) -> Lost | None:
        """Evidence about one of these subjects that the bundle does not have; None where it has all."""
        if not self._any_lost:
            return None
        for subject in subjects:
            row = self.scratch.execute("SELECT subject, kind, erased_at FROM lost WHERE subject = ?", (subject,))
            if (found := row.fetchone()) is not None:
                return Lost(*found)
        return None

    def rest_on(self, kind: st.Kind[Any], subject: bytes, identifier: bytes) -> bool:
        """Whether what holds of a subject now is said by this very statement."""
        query = _RESTING.get(kind.name)
        return query is not None and self.scratch.execute(query, (subject, identifier)).fetchone() is not None

    # -------------------------------------------------------------------------------------------- recording

    def record(self, signed: Signed[Any], recorded_at: int = 0) -> None:
        """Record an admissible statement: the ledger is one longer now. Recording it again changes nothing more."""
        payload = signed.payload
        if signed.kind is st.GRANT:
            new = self.scratch.execute(
                "INSERT INTO capability VALUES (?, NULL, NULL, ?) ON CONFLICT DO NOTHING",
                (signed.id, int(Reason.ALLOWED)),
            ).rowcount
            self._changed(signed.id, recorded_at, st.GRANT)
            if new:
                self._capabilities.put(signed.id, Capability(signed))
        elif signed.kind is st.ENDORSEMENT:
            self._endorse(signed, recorded_at)
        elif signed.kind is st.DELEGATION:
            above = self.delegated(payload.parent_id)
            grant_id = payload.parent_id if above is None else above.grant_id
            self.scratch.execute(
                "INSERT INTO delegated VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                (signed.id, grant_id, int(Reason.ALLOWED)),
            )
            self._changed(signed.id, recorded_at, st.DELEGATION)
        elif signed.kind is st.REVOCATION:
            self._end(payload.target_id, Reason.GRANT_REVOKED, recorded_at)
        elif signed.kind in (st.ADMISSION, st.SUSPENSION, st.KEY_CERT):
            self._stand(signed, recorded_at)
        self._position += 1

    def lose(self, kind: st.Kind[Any], subject: bytes, erased_at: int | None, recorded_at: int = 0) -> None:
        """A ledger recorded a statement about this subject, and the bundle does not have it.

        What a revocation says is known without it: its entry names the target.

        Args:
            kind: which statement.
            subject: as the entry names it; of a grant or delegation its id.
            erased_at: when it was erased; None where nothing says so.
            recorded_at: when the ledger recorded it.
        """
        if kind is st.REVOCATION:
            self._end(subject, Reason.GRANT_REVOKED, recorded_at)
        self.scratch.execute(
            "INSERT INTO lost VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET erased_at = ?3",
            (subject, kind.name, erased_at),
        )
        self._any_lost = True

    def _endorse(self, signed: Signed[pb.Endorsement], recorded_at: int) -> None:
        grant_id = signed.payload.grant_id
        approved = signed.payload.verdict == pb.ENDORSEMENT_VERDICT_ENDORSED
        capability = self.capability(grant_id)
        if capability is None:
            return
        self.scratch.execute(
            "UPDATE capability SET endorsement = ?1, approval = CASE WHEN ?2 THEN ?1 ELSE approval END WHERE id = ?3",
            (signed.id, approved, grant_id),
        )
        self._changed(grant_id, recorded_at, st.ENDORSEMENT)
        approval = signed if approved else capability.approval
        self._capabilities.put(grant_id, replace(capability, endorsement=signed, approval=approval))
        for identifier in capability.grant.payload.supersedes if approved else ():
            self._end(identifier, Reason.GRANT_SUPERSEDED, recorded_at)

    def _end(self, identifier: bytes, reason: Reason, recorded_at: int) -> None:
        # A revocation outlives being superseded; nothing outlives a revocation.
        ended = self.scratch.execute(
            "UPDATE capability SET ended = ?1 WHERE id = ?2 AND ended <> ?3",
            (int(reason), identifier, int(Reason.GRANT_REVOKED)),
        ).rowcount
        if not ended:
            ended = self.scratch.execute(
                "UPDATE delegated SET ended = ? WHERE id = ?", (int(Reason.DELEGATION_REVOKED), identifier)
            ).rowcount
        if ended:
            self._changed(identifier, recorded_at)

    def _stand(self, signed: Signed[Any], recorded_at: int) -> None:
        root = signed.payload.root
        before = self.standing(root) or Standing(root)
        if signed.kind is st.ADMISSION:
            standing = before.admitted(signed)
        elif signed.kind is st.SUSPENSION:
            standing = before.suspended(signed)
        else:
            standing = before.certified(signed)
        ids = [None if each is None else each.id for each in (standing.admission, standing.suspension, standing.cert)]
        self.scratch.execute("INSERT OR REPLACE INTO standing VALUES (?, ?, ?, ?)", (root, *ids))
        self._changed(root, recorded_at, signed.kind)
        self._standings.put(root, standing)
        if signed.kind is st.ADMISSION:
            self._heal(root, st.SUSPENSION)

    def _changed(self, subject: bytes, recorded_at: int, kind: st.Kind[Any] | None = None) -> None:
        self._capabilities.forget(subject)
        self._delegated.forget(subject)
        self._standings.forget(subject)
        self.scratch.execute(_CHANGE, (subject, self._position, recorded_at))
        self._last_change = self._position
        if kind is not None:
            self._heal(subject, kind)

    def _heal(self, subject: bytes, kind: st.Kind[Any]) -> None:
        if self._any_lost:
            self.scratch.execute("DELETE FROM lost WHERE subject = ? AND kind = ?", (subject, kind.name))

    # ------------------------------------------------------------------------------------ out of the bundle

    def _read_capability(self, grant_id: bytes) -> Capability | None:
        row = self.scratch.execute(
            "SELECT endorsement, approval, ended FROM capability WHERE id = ?", (grant_id,)
        ).fetchone()
        grant = self._restored(st.GRANT, grant_id) if row is not None else None
        if row is None or grant is None:
            return None
        endorsement = self._restored(st.ENDORSEMENT, row[0])
        approval = endorsement if row[0] == row[1] else self._restored(st.ENDORSEMENT, row[1])
        return Capability(grant, endorsement, approval, Reason(row[2]))

    def _read_delegated(self, delegation_id: bytes) -> Delegated | None:
        row = self.scratch.execute("SELECT grant_id, ended FROM delegated WHERE id = ?", (delegation_id,)).fetchone()
        delegation = self._restored(st.DELEGATION, delegation_id) if row is not None else None
        return None if row is None or delegation is None else Delegated(delegation, row[0], Reason(row[1]))

    def _read_standing(self, root: bytes) -> Standing | None:
        row = self.scratch.execute(
            "SELECT admission, suspension, cert FROM standing WHERE root = ?", (root,)
        ).fetchone()
        if row is None:
            return None
        admission, suspension, cert = row
        return Standing(
            root,
            self._restored(st.ADMISSION, admission),
            self._restored(st.SUSPENSION, suspension),
            self._restored(st.KEY_CERT, cert),
        )

    def _restored(self, kind: st.Kind[Any], identifier: bytes | None) -> Signed[Any] | None:
        if identifier is None:
            return None
        row = self._bundle.statement(identifier)
        if row is None:
            raise MalformedError("was there when it was recorded, and is not any more.", field=f"bundle.{kind.name}")
        return st.restore(kind, identifier, row.envelope)


class _Recent(Generic[V]):
    """The values used last, and what was lately asked for and is not there."""

    def __init__(self, entries: int) -> None:
        self._entries = entries
        self._values: OrderedDict[bytes, V] = OrderedDict()
        self._absent: set[bytes] = set()

    def get(self, key: bytes, read: Callable[[bytes], V | None]) -> V | None:
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
            return value
        if key in self._absent:
            return None
        value = read(key)
        if value is None:
            if len(self._absent) >= _MOST_ABSENT:
                self._absent.clear()
            self._absent.add(key)
        else:
            self.put(key, value)
        return value

    def put(self, key: bytes, value: V) -> None:
        self._values[key] = value
        if len(self._values) > self._entries:
            self._values.popitem(last=False)

    def forget(self, key: bytes) -> None:
        self._values.pop(key, None)
        self._absent.discard(key)

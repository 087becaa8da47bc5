"""Replay: every decision of every ledger once more, by the same function and the facts as of its position.

Each ledger of a bundle is folded by itself, in order. A statement that it recorded is verified strictly, held against
what may be recorded (:mod:`permslip.auditing.replay_statements`), and becomes a fact; at each ``access_decided`` the
facts so far and the query go through :func:`permslip.facts.gather` and :func:`permslip.decision.decide`, as they did in
broker and node (:mod:`permslip.auditing.replay_decisions`).

Rules:

- A verdict that differs is a fault, with both verdicts and the facts that decided. What is not admissible is a fault
  and no fact: what rests on it differs too.
- A decision must hold by the facts as of its own position. One that was made by older facts, while one of them
  changed, is a fault whatever its verdict: its keeper did not look again under its lock.
- Where evidence was erased, the entry is noted as «evidence erased on …»: neither clean nor a fault. Evidence that is
  missing and was not erased is a fault.
- Entries outside the auditor's scope are hashes. What they may have changed (uses, queries decided before) is not held
  against the keeper.

What is judged is what the leaves say; that the leaves are the ledger's is the business of
:mod:`permslip.auditing.verifying`.

Example::

    result = replay(bundle, trust)
    sys.exit(result.exit_code)
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from google.protobuf.message import DecodeError

from permslip import statements as st
from permslip._pb.permslip.v1 import ledger_pb2
from permslip.auditing.bundle import Bundle, LedgerRow
from permslip.auditing.bundle_facts import BundleFacts
from permslip.auditing.codes import Code
from permslip.auditing.finding import Findings, utc_text
from permslip.auditing.replay_decisions import Decisions
from permslip.auditing.replay_evidence import Evidence
from permslip.auditing.replay_statements import Judge, needs_of, place_of, subject_of
from permslip.auditing.replay_times import WitnessedTimes
from permslip.auditing.replay_uses import Uses
from permslip.auditing.results import Progress, Result, Trust, silent
from permslip.dsse import SignedCache
from permslip.errors import ConfigurationError, PermslipError
from permslip.facts import RECORDED_KINDS
from permslip.statements import Signed

__all__ = ["LedgerReplay", "replay"]

_CACHED_SIGNATURES: Final = 65_536
_TELL_EVERY: Final = 1_000

_ENTRIES: Final = """
    SELECT entry.position, entry.leaf, statement.envelope
    FROM entry
    LEFT JOIN statement ON statement.id = CASE entry.event
        WHEN 'access_decided' THEN entry.query_id WHEN 'statement_recorded' THEN entry.statement_id END
    WHERE entry.ledger = ? AND entry.position >= ? ORDER BY entry.position
"""
_RECORDED_AS: Final = """
    SELECT payload_type, subject FROM entry
    WHERE statement_id = ? AND ledger = ? AND event = 'statement_recorded' LIMIT 1
"""


def replay(bundle: Bundle, trust: Trust, *, progress: Progress = silent) -> Result:
    """Decide everything again.

    Args:
        bundle: findings are kept in it.
        trust: federation, broker and operator.
        progress: told where it is.

    Raises:
        ConfigurationError: the bundle is of something else, or empty.
    """
    bundle.check_trust(trust)
    with bundle.findings("replay") as found:
        ledgers = bundle.ledgers()
        if not any(each.fetched for each in ledgers):
            raise ConfigurationError(
                "holds no entry of any ledger.", key=str(bundle.path), remedy="Fetch into it: permslip audit fetch."
            )
        cache = SignedCache(_CACHED_SIGNATURES)
        for ledger in ledgers:
            one = LedgerReplay(bundle, trust, found, ledger, cache=cache)
            try:
                one.run(progress=progress)
            finally:
                one.close()
    return found.result


@contextmanager
def _seldom_collected() -> Iterator[None]:
    """No garbage is looked for within, but by who asks for it: a fold makes a dozen short-lived objects for each entry,
    hardly ever a cycle, and Python's own turn for every few hundred of them would take a fifth of its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class LedgerReplay:
    """The replay of one ledger; it can go on where it stopped, as the ledger grows.

    Args:
        bundle: where entries and statements are.
        trust: whose word counts.
        found: takes what differs.
        ledger: which.
        cache: signatures that were verified before.
    """

    def __init__(self, bundle: Bundle, trust: Trust, found: Findings, ledger: LedgerRow, *, cache: SignedCache) -> None:
        self._bundle, self._ledger = bundle, ledger
        is_broker = ledger.kind == "broker"
        self._evidence = Evidence(bundle, trust, found, ledger, cache=cache)
        self._facts = BundleFacts(bundle)
        self._judge = Judge(bundle, trust, self._facts, root=ledger.root, is_broker=is_broker, cache=cache)
        uses = None if is_broker else Uses(bundle, ledger.ledger, self._facts.scratch)
        self._decisions = Decisions(self._facts, self._evidence, uses)
        self._witnessed = WitnessedTimes(bundle.db, ledger.ledger)
        self._recorded_at = 0
        self._decided = self._recorded = 0
        self._not_before = self._not_after = self._bounds_until = 0
        self._outside_witnessed = False

    @property
    def position(self) -> int:
        """Up to where it was replayed."""
        return self._facts.position

    def close(self) -> None:
        """Give back what it holds."""
        self._facts.close()

    def run(self, found: Findings | None = None, *, progress: Progress = silent) -> None:
        """Replay from where it stopped to the end of what was fetched.

        Args:
            found: takes what differs from here on; as before where none is given.
            progress: told where it is.
        """
        if found is not None:
            self._evidence.found = found
        facts, evidence, doing = self._facts, self._evidence, f"replay of {self._ledger.name}"
        self._witnessed, self._bounds_until = WitnessedTimes(self._bundle.db, self._ledger.ledger), 0
        started, hidden = facts.position, 0
        position = started - 1
        with _seldom_collected():
            for position, leaf, envelope in self._bundle.db.execute(_ENTRIES, (self._ledger.ledger, started)):
                evidence.position = position
                facts.advance(position)
                if leaf is None:
                    hidden += 1
                    self._decisions.some_hidden = True
                else:
                    self._entry(position, leaf, envelope)
                if not position % _TELL_EVERY:
                    progress(doing, position, self._ledger.fetched)
                    gc.collect(1)
        facts.advance(position + 1)
        progress(doing, facts.position, max(facts.position, self._ledger.fetched))
        evidence.found.count("entries", facts.position - started)
        evidence.found.count("hidden", hidden)
        evidence.found.count("decisions", self._decided)
        evidence.found.count("statements", self._recorded)
        self._decided = self._recorded = 0

    # ------------------------------------------------------------------------------------------ one entry

    def _entry(self, position: int, leaf: bytes, envelope: bytes | None) -> None:
        try:
            entry = ledger_pb2.LogEntry.FromString(leaf)
        except DecodeError:
            self._evidence.fault(Code.LEAF_MALFORMED, "expected a ledger entry.")
            return
        self._check_time(position, entry.recorded_at)
        event = entry.WhichOneof("event")
        if event == "access_decided":
            self._decided += 1
            self._decisions.replay(position, entry, envelope)
        elif event == "statement_recorded":
            self._recorded += 1
            self._statement(entry, envelope)
        elif event == "statements_erased":
            self._erased(entry)

    def _check_time(self, position: int, recorded_at: int) -> None:
        if recorded_at < self._recorded_at:
            self._evidence.fault(
                Code.CLOCK_BACKWARD,
                f"the entry is dated {utc_text(recorded_at)}, one before it {utc_text(self._recorded_at)}.",
                recorded_at=recorded_at,
                before=self._recorded_at,
            )
        self._recorded_at = recorded_at
        if position >= self._bounds_until:
            self._not_before, self._not_after, self._bounds_until = self._witnessed.bounds(position)
        first, last = self._not_before, self._not_after
        outside = recorded_at < first or 0 < last < recorded_at
        # One finding for a row of entries.
        if outside and not self._outside_witnessed:
            than = f"before {utc_text(first)}" if recorded_at < first else f"after {utc_text(last)}"
            self._evidence.fault(
                Code.WITNESS_TIME,
                f"dated {utc_text(recorded_at)}, {than}: by the clocks of those who cosigned the ledger it was not.",
                recorded_at=recorded_at,
                not_before=first,
                not_after=last,
            )
        self._outside_witnessed = outside

    # ----------------------------------------------------------------------------------------- statements

    def _statement(self, entry: ledger_pb2.LogEntry, envelope: bytes | None) -> None:
        body, evidence = entry.statement_recorded, self._evidence
        kind = st.KINDS.get(body.payload_type)
        if kind is None or kind not in RECORDED_KINDS:
            evidence.fault(Code.STATEMENT_KIND, f"a ledger records no {body.payload_type!r}.")
            return
        subject = body.statement_id if kind in (st.GRANT, st.DELEGATION) else body.subject
        if envelope is None:
            erased_at = evidence.missing(kind, body.statement_id)
            self._facts.lose(kind, subject, erased_at, entry.recorded_at)
            return
        signed = evidence.believed(kind, body.statement_id, body.envelope_sha256, envelope)
        if signed is None:
            return
        about = subject_of(signed)
        if body.subject != about:
            evidence.fault(
                Code.STATEMENT_SUBJECT,
                f"the entry of the {kind.name} names {body.subject.hex() or 'no subject'}, "
                f"the statement is about {about.hex() or 'none'}.",
            )
        evidence.check_place(entry, place_of(self._facts, signed))
        try:
            self._judge.check(signed, recorded_at=entry.recorded_at, push_number=body.push_number)
        except PermslipError as error:
            self._inadmissible(signed, error, subject, entry.recorded_at)
        else:
            self._facts.record(signed, entry.recorded_at)

    def _inadmissible(self, signed: Signed[Any], error: PermslipError, subject: bytes, recorded_at: int) -> None:
        lost = self._facts.lost(needs_of(signed))
        if lost is not None:
            self._evidence.note_lost(lost, f"whether this {signed.kind.name} was admissible")
            self._facts.lose(signed.kind, subject, lost.erased_at, recorded_at)
            return
        self._evidence.fault(
            Code.NOT_ADMISSIBLE,
            f"the {signed.kind.name} must not have been recorded: {error.message}",
            statement=signed.id,
            error=type(error).__name__,
        )

    def _erased(self, entry: ledger_pb2.LogEntry) -> None:
        """From here on the keeper itself decided without these."""
        for identifier in entry.statements_erased.statement_ids:
            row = self._bundle.db.execute(_RECORDED_AS, (identifier, self._ledger.ledger)).fetchone()
            if row is None or (kind := st.KINDS.get(row[0])) is None:
                continue
            subject = identifier if kind in (st.GRANT, st.DELEGATION) else row[1] or b""
            if self._facts.rest_on(kind, subject, identifier):
                self._facts.lose(kind, subject, entry.recorded_at, entry.recorded_at)

"""Watching: ledgers are fetched, verified and replayed as they grow, and what is wrong is told within seconds.

Rounds, one after the other:

1. Each ledger's newest checkpoint is asked for. Where size and root are those of the last round, nothing else is done.
2. What is new is fetched, and verified as it comes (:mod:`permslip.auditing.fetching`): signatures, hashes, strict
   encoding, the root that the leaves make, cosignatures, and that the history continues the one that was seen before.
3. What is new is linked to the chains of its slices, and replayed (:mod:`permslip.auditing.replaying`) from the facts
   where the last round stopped.

Rules:

- A finding is told once, and stays in the bundle: those of the replay under ``replay``, the others under ``watch``.
  After each round the bundle can be reported of.
- A ledger that cannot be reached is told once, and again when it can be reached. It is no fault.
- A checkpoint is asked for even when nothing grew: a history that was rewritten has another root at the same size.
- Memory does not grow with the ledgers. Whoever stops it waits for no more than the entries that are being looked at.
- Reconciling broker and nodes needs both sides' later entries: that stays with ``permslip audit reconcile``.

Example::

    with Bundle.open("audit.db") as bundle, stopping() as stop:
        result = await Watch(ClientFeed(client, bundle, trust), bundle, trust, tell=print, stop=stop).run()
    sys.exit(result.exit_code)
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

from permslip import statements as st
from permslip.auditing.alerts import Alert, AlertingFindings, Names
from permslip.auditing.bundle import BROKER, Bundle
from permslip.auditing.codes import Code
from permslip.auditing.feeding import Feed
from permslip.auditing.replaying import LedgerReplay
from permslip.auditing.results import Progress, Result, Trust, silent
from permslip.auditing.stopping import Stop
from permslip.auditing.verify_statements import check_links
from permslip.dsse import SignedCache
from permslip.errors import KeyRejectedError, PermslipError, RefusedError, UnavailableError

__all__ = ["Watch"]

T = TypeVar("T")

_CACHED_SIGNATURES: Final = 65_536
# At once, of a federation with many schools.
_ASKED_AT_ONCE: Final = 16
# Rounds after which ledgers are sought that could not be reached at all.
_SEEK_EVERY: Final = 60
# What changes whose ledgers there are.
_STANDINGS: Final = (st.ADMISSION.payload_type, st.SUSPENSION.payload_type, st.KEY_CERT.payload_type)
_OUT_OF_REACH: Final = (UnavailableError, RefusedError, KeyRejectedError)

# What fetching found and no round before it.
_NEWLY_FETCHED: Final = """
    SELECT finding, code, severity, ledger, position, message, details FROM finding f
    WHERE step = 'fetch' AND NOT EXISTS (
        SELECT 1 FROM finding w WHERE w.step = 'watch' AND w.code = f.code
            AND w.ledger IS f.ledger AND w.position IS f.position AND w.message = f.message)
    ORDER BY finding
"""
# Of many visits that saw the same, the first and the last say all.
_THIN_OUT: Final = """
    DELETE FROM checkpoint WHERE ledger = ?1 AND size = ?2 AND root = ?3
        AND visit > (SELECT min(visit) FROM checkpoint WHERE ledger = ?1 AND size = ?2 AND root = ?3)
        AND visit < (SELECT max(visit) FROM checkpoint WHERE ledger = ?1 AND size = ?2 AND root = ?3)
"""


class Watch:
    """A watch over the ledgers of one bundle.

    Args:
        feed: asks broker and nodes.
        bundle: what was fetched so far; goes on from there.
        trust: as the auditor was told.
        tell: called with each alert, at once.
        stop: ends it.
        every: seconds between two rounds.
        progress: told how far a long replay is.
    """

    def __init__(
        self,
        feed: Feed,
        bundle: Bundle,
        trust: Trust,
        *,
        tell: Callable[[Alert], None],
        stop: Stop,
        every: float = 1.0,
        progress: Progress = silent,
    ) -> None:
        self._feed, self._bundle, self._trust = feed, bundle, trust
        self._tell, self._stop, self._every, self._progress = tell, stop, every, progress
        self._names = Names(bundle)
        self._linked = AlertingFindings(bundle.db, "watch", names=self._names, tell=tell)
        self._replayed = AlertingFindings(bundle.db, "replay", names=self._names, tell=tell)
        self._replays: dict[int, LedgerReplay] = {}
        self._cache = SignedCache(_CACHED_SIGNATURES)
        # Ledger → the checkpoint that the last round was about.
        self._seen: dict[bytes, tuple[int, bytes]] = {}
        self._unreached: set[bytes] = set()
        self._codes: Counter[str] = Counter()
        self._faults = 0
        self._until_finding = self._has_looked = False

    async def run(self, *, once: bool = False, until_finding: bool = False) -> Result:
        """Watch until it is stopped.

        Args:
            once: end after the first round.
            until_finding: end with the first fault.

        Returns:
            what the whole watch found; «could not check» where a ledger could not be reached at its end.

        Raises:
            ConfigurationError: the bundle is of another federation, auditor or scope.
        """
        self._until_finding = until_finding
        self._bundle.check_trust(self._trust)
        self._replayed.begin()
        try:
            await self._rounds(once=once)
        except _OverError:
            pass
        except PermslipError as error:
            self._replayed.leave_unchecked(str(error))
            raise
        finally:
            self._close()
        return self._result()

    async def _rounds(self, *, once: bool) -> None:
        wanted: Sequence[bytes] | None = None  # all there are
        rounds = 0
        while True:
            rounds += 1
            if wanted is None or wanted:
                wanted = await self._round(wanted)
            if once or self._is_over() or await self._stop.wait(self._every):
                return
            if self._unreached and rounds % _SEEK_EVERY == 0:
                wanted = None
            if wanted is not None:
                wanted = await self._unless_stopped(self._changed())

    # ------------------------------------------------------------------------------------------ one round

    async def _round(self, wanted: Sequence[bytes] | None) -> Sequence[bytes] | None:
        """Fetch and check; returns what is to be fetched next without asking what changed: None for all."""
        before = {each.root: each for each in self._bundle.ledgers()}
        try:
            await self._unless_stopped(self._feed.fetch(wanted))
        except (UnavailableError, RefusedError) as error:
            for root in wanted or ():
                self._seen.pop(root, None)
            self._cannot_reach(self._trust.broker_root, str(error))
            return wanted
        unreached = self._take_fetched()
        for root in self._unreached - unreached:
            if wanted is None or root in wanted or root == self._trust.broker_root:
                self._reached(root)
        for row in self._bundle.ledgers():
            was = before.get(row.root)
            if row.head_size is not None and row.head_root is not None:
                if row.root not in self._seen or was is None or was.head_size != row.head_size:
                    self._seen[row.root] = row.head_size, row.head_root
                self._bundle.db.execute(_THIN_OUT, (row.ledger, row.head_size, row.head_root))
            if row.fetched > (since := 0 if was is None else was.fetched):
                check_links(self._bundle, row.ledger, since, self._linked)
        self._linked.flush()
        self._replay()
        self._replayed.end()
        self._has_looked = True
        broker = before.get(self._trust.broker_root)
        return None if broker is not None and self._standings_changed(broker.fetched) else ()

    def _take_fetched(self) -> set[bytes]:
        """Tell what fetching found, keep it beyond the next visit; returns the ledgers that were not reached."""
        unreached = set()
        for number, code, severity, ledger, position, message, details in self._bundle.db.execute(
            _NEWLY_FETCHED
        ).fetchall():
            if code == Code.LEDGER_UNREACHED:
                root = bytes.fromhex(json.loads(details)["root"])
                unreached.add(root)
                self._cannot_reach(root, message)
                continue
            self._bundle.db.execute("UPDATE finding SET step = 'watch' WHERE finding = ?", (number,))
            self._codes[code] += 1
            self._faults += severity == "fault"
            if severity != "note":
                self._tell(Alert.now("watch", code, severity, self._names.of(ledger), position, message))
        return unreached

    def _replay(self) -> None:
        for row in self._bundle.ledgers():
            replay = self._replays.get(row.ledger)
            if replay is None:
                replay = LedgerReplay(self._bundle, self._trust, self._replayed, row, cache=self._cache)
                self._replays[row.ledger] = replay
            if replay.position < row.fetched:
                replay.run(progress=self._checking)

    def _checking(self, doing: str, done: int, total: int) -> None:
        self._progress(doing, done, total)
        if self._is_over():
            raise _OverError

    # ------------------------------------------------------------------------------------------ what changed

    async def _changed(self) -> list[bytes]:
        """The ledgers whose newest checkpoint is another than the one of the last round."""
        free = asyncio.Semaphore(_ASKED_AT_ONCE)

        async def ask(root: bytes) -> bool:
            async with free:
                try:
                    head = await self._feed.head(root)
                except _OUT_OF_REACH as error:
                    self._cannot_reach(root, str(error))
                    return False
                except PermslipError:
                    return True  # fetching says what is wrong with it
            self._reached(root)
            changed = self._seen.get(root) != head
            self._seen[root] = head
            return changed

        roots = [each.root for each in self._bundle.ledgers() if self._feed.follows(each.root)]
        changed = await asyncio.gather(*(ask(root) for root in roots))
        return [root for root, has_changed in zip(roots, changed, strict=True) if has_changed]

    def _cannot_reach(self, root: bytes, why: str) -> None:
        self._seen.pop(root, None)
        if root not in self._unreached:
            self._unreached.add(root)
            self._tell(Alert.now("watch", Code.LEDGER_UNREACHED, "warning", self._names.of_root(root), None, why))

    def _reached(self, root: bytes) -> None:
        if root in self._unreached:
            self._unreached.remove(root)
            name, message = self._names.of_root(root), "can be reached again."
            self._tell(Alert.now("watch", "LEDGER_REACHED", "note", name, None, message))

    def _standings_changed(self, since: int) -> bool:
        """Whether somebody was admitted, suspended or certified: then there may be another ledger."""
        row = self._bundle.db.execute(
            "SELECT 1 FROM entry WHERE ledger = ? AND position >= ? AND payload_type IN (?, ?, ?) LIMIT 1",
            (BROKER, since, *_STANDINGS),
        ).fetchone()
        return row is not None

    # ------------------------------------------------------------------------------------------ the end

    async def _unless_stopped(self, doing: Coroutine[Any, Any, T]) -> T:
        """Do it; give it up when the watch is stopped."""
        task = asyncio.ensure_future(doing)
        stopped = asyncio.ensure_future(self._stop.wait(None))
        try:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise _OverError
            return task.result()
        finally:
            for each in (task, stopped):
                each.cancel()
            await asyncio.gather(task, stopped, return_exceptions=True)

    def _is_over(self) -> bool:
        return self._stop.asked or (self._until_finding and self._counted_faults() > 0)

    def _counted_faults(self) -> int:
        return self._faults + self._linked.faults + self._replayed.faults

    def _close(self) -> None:
        fetched = {each.ledger: each.fetched for each in self._bundle.ledgers()}
        replayed = {number: each.position for number, each in self._replays.items()}
        if fetched != replayed:
            self._replayed.leave_unchecked("The watch ended before all that was fetched was replayed.")
        for each in self._replays.values():
            each.close()
        self._replayed.end()

    def _result(self) -> Result:
        replayed, faults = self._replayed.result, self._counted_faults()
        names = ", ".join(sorted(self._names.of_root(each) for each in self._unreached))
        unchecked = f"These ledgers could not be reached: {names}." if names else replayed.unchecked
        if not self._has_looked:
            unchecked = unchecked or "The watch ended before its first round did."
        codes = self._codes + self._linked.codes + self._replayed.codes
        return Result("watch", replayed.counts, dict(codes), faults, "" if faults else unchecked)


class _OverError(Exception):
    """It was stopped, or found what it was to find."""

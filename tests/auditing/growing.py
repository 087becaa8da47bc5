"""Ledgers that grow while a watch looks at them: each time it asks for news, the next thing happens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from permslip.auditing.alerts import Alert
from permslip.auditing.bundle import Bundle
from permslip.auditing.codes import Code
from permslip.auditing.entry_rows import entry_row
from permslip.auditing.finding import Severity
from permslip.auditing.results import Result
from permslip.auditing.stopping import Stop
from permslip.auditing.watching import Watch
from permslip.errors import PermslipError
from permslip.keys import did_text
from permslip.merkle import Frontier, leaf_hash
from permslip.quantities import Position
from tests.auditing.ledgers import Audited, Keeper

__all__ = ["GrowingFeed", "empty_bundle", "watched"]

_FOREVER: Final = 10_000


def empty_bundle(fed: Audited, path: Path) -> Bundle:
    """A bundle into which nothing was fetched yet."""
    meta = {
        "federation": fed.federation,
        "broker_root": did_text(fed.broker.party.id),
        "operator": did_text(fed.operator.id),
        "scope": "{}",
    }
    return Bundle.create(path, meta)


class GrowingFeed:
    """A feed (:class:`permslip.auditing.feeding.Feed`) of ledgers in memory.

    Attributes:
        happens: what happens one after the other, each before the broker's newest checkpoint is given; then it stops.
        fails: ledger → the error that both calls raise for it.
        finds: what the next fetches find, beside what they fetch.
        forked: ledger → another root than that of its leaves.
        ignored: ledgers of which no news are wanted.
        asked: what was asked: ``("head", root)``, ``("fetch", wanted)``.
    """

    def __init__(self, fed: Audited, bundle: Bundle, stop: Stop, happens: Sequence[Callable[[], Any]] = ()) -> None:
        self.fed, self.bundle, self.stop = fed, bundle, stop
        self.happens = list(happens)
        self.fails: dict[bytes, PermslipError] = {}
        self.finds: list[tuple[Code, str, Severity]] = []
        self.forked: dict[bytes, bytes] = {}
        self.asked: list[tuple[str, Any]] = []
        self.ignored: set[bytes] = set()
        self.hangs = False

    @property
    def fetched(self) -> list[Any]:
        """What each fetch was for."""
        return [what for call, what in self.asked if call == "fetch"]

    def follows(self, root: bytes) -> bool:
        """See the interface."""
        return root not in self.ignored

    async def head(self, root: bytes) -> tuple[int, bytes]:
        """See the interface."""
        self.asked.append(("head", root))
        if root == self.fed.broker.party.id:
            self._go_on()
        if root in self.fails:
            raise self.fails[root]
        size, computed = _head(self._keeper(root))
        return size, self.forked.get(root, computed)

    async def fetch(self, wanted: Sequence[bytes] | None) -> Result:
        """See the interface."""
        self.asked.append(("fetch", None if wanted is None else list(wanted)))
        if self.hangs:
            self.stop.ask()
            await asyncio.Event().wait()
        broker = self.fed.broker.party.id
        if broker in self.fails:
            error = self.fails[broker]
            self._go_on()
            raise error
        visit = int(self.bundle.meta("visits") or 0) + 1
        self.bundle.set_meta("visits", str(visit))
        with self.bundle.findings("fetch") as found:
            for code, message, severity in self.finds:
                found.add(code, message, ledger=1, severity=severity)
            self.bundle.add_statements(each for each in self.fed.statements.values())
            for keeper in (self.fed.broker, *self.fed.nodes.values()):
                root = keeper.party.id
                if wanted is not None and root not in (*wanted, broker):
                    continue
                if root in self.fails:
                    message = f"{keeper.party.name}: {self.fails[root]}"
                    found.add(Code.LEDGER_UNREACHED, message, severity="warning", root=root)
                    found.leave_unchecked(message)
                elif root not in self.forked:
                    self._pull(keeper, visit)
        return found.result

    def _go_on(self) -> None:
        if self.happens:
            self.happens.pop(0)()
        else:
            self.stop.ask()
        assert len(self.asked) < _FOREVER, "the watch does not stop"

    def _keeper(self, root: bytes) -> Keeper:
        return self.fed.broker if root == self.fed.broker.party.id else self.fed.nodes[root]

    def _pull(self, keeper: Keeper, visit: int) -> None:
        bundle, kind = self.bundle, keeper.kind
        number = bundle.add_ledger(keeper.party.id, kind=kind, name=keeper.party.name, origin=keeper.origin)
        row = next(each for each in bundle.ledgers() if each.ledger == number)
        leaves = keeper.leaves()
        bundle.add_entries(
            entry_row(
                number,
                Position(position),
                leaf_hash(leaves[position]),
                leaves[position],
                federation=self.fed.federation,
                root=keeper.party.id,
            )
            for position in range(row.fetched, len(leaves))
        )
        size, root = _head(keeper)
        bundle.set_fetched(number, size)
        bundle.set_head(number, size, root)
        bundle.add_checkpoint(number, size, root, b"", vkey="", cosigners=[], visit=visit, fetched_at=self.fed.at)


async def watched(feed: GrowingFeed, **how: bool) -> tuple[Result, list[Alert]]:
    """Watch until nothing more happens; what it found and what it told."""
    told: list[Alert] = []
    watch = Watch(feed, feed.bundle, feed.fed.trust, tell=told.append, stop=feed.stop, every=0.0)
    return await watch.run(**how), told


def _head(keeper: Keeper) -> tuple[int, bytes]:
    frontier = Frontier()
    leaves = keeper.leaves()
    frontier.extend([leaf_hash(each) for each in leaves])
    return len(leaves), frontier.root()

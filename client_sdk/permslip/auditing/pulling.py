"""Pulling leaves: as they come into the bundle, held to their hashes and to the tree, and no more.

This part is as fast as the keeper sends: what a leaf says is looked at afterwards (:mod:`permslip.auditing.examining`),
when no connection waits for it.

Rules:

- Messages are kept as they came. With each batch of them stands the frontier of the tree over all leaves so far.
- A leaf whose bytes have another hash than it came with is noted, and kept: the tree is over the hashes.
- A leaf that is missing ends the pull: nothing after it could be proved.

Example::

    await pull(client, bundle, bundle.ledger(1), checkpoint, found, progress)
    frontier_of(bundle.ledger(1)).root() == checkpoint.root
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Final

from permslip.auditing.bundle import Bundle, LedgerRow
from permslip.auditing.codes import Code
from permslip.auditing.finding import Findings
from permslip.auditing.results import Progress
from permslip.client.auditing import AsyncAuditorClient, LedgerCheckpoint
from permslip.errors import MalformedError, ProofError
from permslip.merkle import HASH_BYTES, Frontier, leaf_hash

__all__ = ["LedgerEndedError", "frontier_of", "pull"]

_KEPT_AT_ONCE: Final = 4 << 20


class LedgerEndedError(Exception):
    """A ledger cannot be read further; what of it is there stays."""

    def __init__(self, code: Code, message: str, *, ledger: int | None = None, position: int | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.ledger, self.position = code, message, ledger, position


def frontier_of(row: LedgerRow) -> Frontier:
    """The frontier over the leaves that were pulled."""
    peaks = [row.frontier[at : at + HASH_BYTES] for at in range(0, len(row.frontier), HASH_BYTES)]
    return Frontier.of_peaks(row.pulled, peaks)


async def pull(
    client: AsyncAuditorClient,
    bundle: Bundle,
    row: LedgerRow,
    checkpoint: LedgerCheckpoint,
    found: Findings,
    progress: Progress,
) -> None:
    """Pull the leaves of a ledger up to a checkpoint.

    Raises:
        LedgerEndedError: a leaf is missing.
        RefusedError, UnavailableError: the keeper does not give them.
    """
    frontier = frontier_of(row)
    if frontier.size >= checkpoint.size:
        return
    keeping = _Keeping(bundle, row, found, progress, checkpoint.size)
    try:
        async with aclosing(client.entry_messages(row.root, frontier.size, checkpoint.size)) as messages:
            async for message in messages:
                hashes = [leaf.leaf_hash for leaf in message.entries]
                for leaf, digest in zip(message.entries, hashes, strict=True):
                    if leaf.leaf and leaf_hash(leaf.leaf) != digest:
                        keeping.altered.append(leaf.position)
                frontier.extend(hashes)
                keeping.take(message.SerializeToString())
                if keeping.size >= _KEPT_AT_ONCE:
                    await keeping.keep(frontier)
    except (ProofError, MalformedError) as error:
        told = f"{error.message} The keeper does not give what it signed."
        raise LedgerEndedError(Code.POSITION_GAP, told, ledger=row.ledger, position=frontier.size) from error
    finally:
        await keeping.keep(frontier)
        await keeping.end()


class _Keeping:
    """Writes what came while more of it comes."""

    def __init__(self, bundle: Bundle, row: LedgerRow, found: Findings, progress: Progress, total: int) -> None:
        self._bundle, self._row, self._found = bundle, row, found
        self._progress, self._total = progress, total
        self._messages: list[bytes] = []
        self._writing: asyncio.Task[None] | None = None
        self.altered: list[int] = []
        self.size = 0

    def take(self, message: bytes) -> None:
        """Keep it with the next ones."""
        self._messages.append(message)
        self.size += len(message)

    async def keep(self, frontier: Frontier) -> None:
        """Begin to write what was taken, once the last portion is written."""
        await self.end()
        if not self._messages:
            return
        portion, self._messages, self.size = self._messages, [], 0
        size, peaks = frontier.size, b"".join(frontier.peaks)
        write = asyncio.to_thread(self._bundle.add_arrived, self._row.ledger, portion, size, peaks)
        self._writing = asyncio.ensure_future(write)
        self._progress(f"{self._row.name}: pulling", size, self._total)

    async def end(self) -> None:
        """Wait until everything that was begun is written; tell which leaves are not those of their hashes."""
        if self._writing is not None:
            # Whoever gives up a pull waits for this: the bundle must not be closed under it.
            await asyncio.shield(self._writing)
            self._writing = None
        for position in self.altered:
            told = "its bytes have another hash than it came with."
            self._found.add(Code.LEAF_HASH, told, ledger=self._row.ledger, position=position)
        self.altered.clear()

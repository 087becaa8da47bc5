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

_KEPT_AT_ONCE: Final = 16 << 20


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
    doing, kept, waiting, size = f"{row.name}: pulling", frontier.size, list[bytes](), 0
    try:
        messages = client.entry_messages(row.root, frontier.size, checkpoint.size)
        async with aclosing(messages):
            async for message in messages:
                for leaf in message.entries:
                    if leaf.leaf and leaf_hash(leaf.leaf) != leaf.leaf_hash:
                        told = "its bytes have another hash than it came with."
                        found.add(Code.LEAF_HASH, told, ledger=row.ledger, position=leaf.position)
                frontier.extend([leaf.leaf_hash for leaf in message.entries])
                waiting.append(message.SerializeToString())
                size += len(waiting[-1])
                if size >= _KEPT_AT_ONCE or frontier.size >= checkpoint.size:
                    bundle.add_arrived(row.ledger, waiting, frontier.size, b"".join(frontier.peaks))
                    kept, size = frontier.size, 0
                    waiting.clear()
                    progress(doing, kept, checkpoint.size)
    except (ProofError, MalformedError) as error:
        told = f"{error.message} The keeper does not give what it signed."
        raise LedgerEndedError(Code.POSITION_GAP, told, ledger=row.ledger, position=kept) from error

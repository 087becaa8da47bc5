"""Where a watch has its news from: broker and nodes, behind two calls.

Example::

    feed = ClientFeed(client, bundle, trust)
    if await feed.head(trust.broker_root) != seen:
        result = await feed.fetch([trust.broker_root])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from permslip.auditing.bundle import Bundle
from permslip.auditing.fetching import Fetch
from permslip.auditing.results import Progress, Result, Trust, silent
from permslip.checkpoints import Checkpoint
from permslip.client.auditing import AsyncAuditorClient

__all__ = ["ClientFeed", "Feed"]


class Feed(Protocol):
    """What a watch asks; both calls may be given up at any moment."""

    def follows(self, root: bytes) -> bool:
        """Whether news of this ledger are wanted."""
        ...

    async def head(self, root: bytes) -> tuple[int, bytes]:
        """Size and root of a ledger's newest checkpoint, its keeper's signature verified.

        Raises:
            UnavailableError, RefusedError, KeyRejectedError: the ledger cannot be read now.
            PermslipError: there is something wrong with the checkpoint.
        """
        ...

    async def fetch(self, wanted: Sequence[bytes] | None) -> Result:
        """Bring the bundle up to date: these ledgers and the broker's, or (None) all that may be read.

        Raises:
            UnavailableError, RefusedError: the broker cannot be asked.
            ConfigurationError: the bundle is of another federation, auditor or scope.
        """
        ...


class ClientFeed:
    """A feed of an auditor's connection.

    Args:
        client: an auditor's.
        bundle, trust, nodes, last, progress: as for :class:`~permslip.auditing.fetching.Fetch`.
    """

    def __init__(
        self,
        client: AsyncAuditorClient,
        bundle: Bundle,
        trust: Trust,
        *,
        nodes: Sequence[bytes] | None = None,
        last: Sequence[Checkpoint] = (),
        progress: Progress = silent,
    ) -> None:
        self._client, self._bundle, self._trust = client, bundle, trust
        self._nodes, self._last, self._progress = nodes, last, progress

    def follows(self, root: bytes) -> bool:
        """See :meth:`Feed.follows`."""
        return self._nodes is None or root == self._trust.broker_root or root in self._nodes

    async def head(self, root: bytes) -> tuple[int, bytes]:
        """See :meth:`Feed.head`."""
        checkpoint = await self._client.checkpoint(root)
        return checkpoint.size, checkpoint.root

    async def fetch(self, wanted: Sequence[bytes] | None) -> Result:
        """See :meth:`Feed.fetch`."""
        nodes = self._nodes
        if wanted is not None:
            nodes = [each for each in wanted if each != self._trust.broker_root]
        fetch = Fetch(self._client, self._bundle, self._trust, nodes=nodes, last=self._last, progress=self._progress)
        return await fetch.run()

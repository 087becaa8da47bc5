"""``AuditorClient``: :class:`~permslip.client.auditing.AsyncAuditorClient` without ``await``.

Example::

    with AuditorClient(broker="broker.example:7443", …, keys="auditor.key", cert="auditor.cert") as client:
        checkpoint = client.checkpoint()
        for leaf in client.entries(until=checkpoint.size):
            ...
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

from permslip._pb.permslip.v1 import ledger_pb2, statement_pb2 as pb
from permslip.checkpoints import Checkpoint
from permslip.client.auditing import AsyncAuditorClient, FetchedStatements, LedgerCheckpoint
from permslip.client.identity import CertSource, KeySource
from permslip.client.loop_thread import BlockingClient
from permslip.client.session import system_clock
from permslip.client.timeouts import Timeout
from permslip.directory import Organization
from permslip.keyfile import Passphrase
from permslip.quantities import Millis

__all__ = ["AuditorClient"]


class AuditorClient(BlockingClient):
    """An auditor's connection; see :class:`~permslip.client.auditing.AsyncAuditorClient` for the arguments."""

    def __init__(
        self,
        *,
        broker: str,
        broker_root: str,
        federation: str,
        operator: str,
        keys: KeySource,
        cert: CertSource | None = None,
        passphrase: Passphrase | None = None,
        tls_ca: str | os.PathLike[str] | None = None,
        timeout: Timeout | None = None,
        now: Callable[[], Millis] = system_clock,
    ) -> None:
        self._client = AsyncAuditorClient(
            broker=broker,
            broker_root=broker_root,
            federation=federation,
            operator=operator,
            keys=keys,
            cert=cert,
            passphrase=passphrase,
            tls_ca=tls_ca,
            timeout=timeout,
            now=now,
        )
        super().__init__(self._client.aclose)

    def organizations(self) -> list[Organization]:
        """Every organization of the federation, verified."""
        return self._thread.run(self._client.organizations())

    def scope(self) -> pb.AuditScope:
        """See :meth:`~permslip.client.auditing.AsyncAuditorClient.scope`."""
        return self._thread.run(self._client.scope())

    def checkpoint(self, ledger: bytes | str | None = None) -> LedgerCheckpoint:
        """See :meth:`~permslip.client.auditing.AsyncAuditorClient.checkpoint`."""
        return self._thread.run(self._client.checkpoint(ledger))

    def entries(
        self, ledger: bytes | str | None = None, start: int = 0, until: int | None = None, *, follow: bool = False
    ) -> Iterator[ledger_pb2.LedgerLeaf]:
        """See :meth:`~permslip.client.auditing.AsyncAuditorClient.entries`."""
        return self._thread.iterate(self._client.entries(ledger, start, until, follow=follow))

    def statements(
        self, ledger: bytes | str | None = None, start: int = 0, until: int = 0, *, ids: Sequence[bytes] = ()
    ) -> Iterator[FetchedStatements]:
        """See :meth:`~permslip.client.auditing.AsyncAuditorClient.statements`."""
        return self._thread.iterate(self._client.statements(ledger, start, until, ids=ids))

    def prove_inclusion(self, checkpoint: LedgerCheckpoint, leaves: Sequence[tuple[int, bytes]]) -> None:
        """See :meth:`~permslip.client.auditing.AsyncAuditorClient.prove_inclusion`."""
        self._thread.run(self._client.prove_inclusion(checkpoint, leaves))

    def prove_consistency(self, earlier: Checkpoint, later: LedgerCheckpoint) -> list[bytes]:
        """See :meth:`~permslip.client.auditing.AsyncAuditorClient.prove_consistency`."""
        return self._thread.run(self._client.prove_consistency(earlier, later))

"""The lease: whether this node may answer now, as a state machine without clock, network or key.

About once a second the node sends a nonce; the broker answers a signed ``Tick`` that names it and says how many pushes
(revocations, suspensions, admissions, certificates) the node must hold, as of after the nonce arrived. The lease is
fresh while

- the newest answered nonce was *sent* less than ``lifetime`` ago, and
- the node holds at least as many pushes as any tick ever counted.

So a node that is cut off, or from which a revocation is kept back, answers nobody after the lease's lifetime; and a
broker cannot stretch that by answering late, since the age counts from the sending.

Rules:

- Times are milliseconds of one monotonic clock that also runs while the machine sleeps (``CLOCK_BOOTTIME``).
- A tick counts only for a nonce that is outstanding, once. An older nonce than the newest answered one changes nothing.
- Counts and ledger sizes never fall, and a ledger has one root at one size: a tick that says otherwise is a lie or a
  restored backup. A lease begins with what was known before its stream.
- Signatures are the caller's business: :meth:`Lease.accept` is given a tick that is believed to be the broker's.

Example::

    >>> lease = Lease(lifetime=5_000)
    >>> nonce = lease.ask(now=1_000)
    >>> lease.accept(pb.Tick(lease_nonce=nonce, push_count=7, ledger_size=40))
    >>> lease.is_fresh(now=5_999, pushes_held=7), lease.is_fresh(now=6_000, pushes_held=7)
    (True, False)
    >>> lease.is_fresh(now=2_000, pushes_held=6)
    False
"""

from __future__ import annotations

import os
from collections.abc import Callable

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.errors import AuthorityError

__all__ = ["Lease"]

_NONCE_BYTES = 16
_RESTORED = "Nobody is answered until it is as it was: ask the broker's operator whether a backup was restored."


class Lease:
    """The lease of one stream.

    Args:
        lifetime: milliseconds.
        push_count: how many pushes were counted before.
        ledger_size: the greatest size that was seen of the broker's ledger.
        root_hash: its root at that size; empty: not known.
        entropy: makes that many random bytes.
    """

    def __init__(
        self,
        *,
        lifetime: int,
        push_count: int = 0,
        ledger_size: int = 0,
        root_hash: bytes = b"",
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._lifetime = lifetime
        self._entropy = entropy
        self._outstanding: dict[bytes, int] = {}
        self._sent_at: int | None = None
        self._push_count, self._ledger_size, self._root_hash = push_count, ledger_size, root_hash

    @property
    def push_count(self) -> int:
        """The most pushes that a tick counted."""
        return self._push_count

    def ask(self, now: int) -> bytes:
        """A fresh nonce, sent now. Those that could not make the lease fresh any more are forgotten."""
        self._outstanding = {nonce: sent for nonce, sent in self._outstanding.items() if now - sent < self._lifetime}
        nonce = self._entropy(_NONCE_BYTES)
        self._outstanding[nonce] = now
        return nonce

    def accept(self, tick: pb.Tick) -> None:
        """Take a tick that the broker signed for this node.

        Raises:
            AuthorityError: its nonce is not outstanding, or it tells of less than was known, or of another ledger.
        """
        sent_at = self._outstanding.pop(tick.lease_nonce, None)
        if sent_at is None:
            raise AuthorityError("tick: it answers no lease request that is open: stale, repeated or somebody else's.")
        if tick.push_count < self._push_count or tick.ledger_size < self._ledger_size:
            raise AuthorityError(
                f"tick: expected at least {self._ledger_size} entries and {self._push_count} pushes, got "
                f"{tick.ledger_size} and {tick.push_count}: the broker's ledger or its pushes became fewer.",
                remedy=_RESTORED,
            )
        if tick.ledger_size == self._ledger_size and self._root_hash and tick.root_hash != self._root_hash:
            raise AuthorityError(
                f"tick: expected the root that the broker's ledger had at {self._ledger_size} entries, got another: "
                "it has two histories.",
                remedy=_RESTORED,
            )
        self._push_count, self._ledger_size = tick.push_count, tick.ledger_size
        self._root_hash = tick.root_hash
        if self._sent_at is None or sent_at > self._sent_at:
            self._sent_at = sent_at

    def is_fresh(self, now: int, pushes_held: int) -> bool:
        """Whether the node may answer now."""
        return self.age(now) < self._lifetime and pushes_held >= self._push_count

    def age(self, now: int) -> float:
        """Milliseconds since the newest answered nonce was sent; infinite while there is none."""
        return float("inf") if self._sent_at is None else now - self._sent_at

"""What has become of grants and delegations, and the interface through which it is read.

A broker, a node and a replaying auditor keep facts in stores of their own (memory in :mod:`permslip.facts`, SQL in
:mod:`permslip.hosting.facts_store`). Whoever decides or judges a statement reads them through :class:`FactReader` only.

Example::

    capability = reader.capability(query.payload.grant_id)
    if capability is not None and capability.ended == Reason.ALLOWED:
        ...
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.errors import MalformedError
from permslip.reasons import Reason
from permslip.standing import Standing
from permslip.statements import Signed

__all__ = ["Capability", "Delegated", "FactReader", "chain_of"]


@dataclass(frozen=True, slots=True)
class Capability:
    """A grant with what has become of it.

    Attributes:
        grant: as deposited.
        endorsement: the node's latest word.
        approval: the node's latest approval, also when the latest word is a refusal: it names who may revoke.
        ended: ``GRANT_REVOKED``, ``GRANT_SUPERSEDED``, or ``ALLOWED`` while it lives.
    """

    grant: Signed[pb.Grant]
    endorsement: Signed[pb.Endorsement] | None = None
    approval: Signed[pb.Endorsement] | None = None
    ended: Reason = Reason.ALLOWED


@dataclass(frozen=True, slots=True)
class Delegated:
    """A delegation, the grant it comes from, and whether it lives."""

    delegation: Signed[pb.Delegation]
    grant_id: bytes
    ended: Reason = Reason.ALLOWED


class FactReader(Protocol):
    """Facts as of one ledger position.

    Promises: the three reads see the same position; what they return is verified and immutable. Does not promise: that
    the position is the newest (a commit rechecks it).
    """

    @property
    def position(self) -> int:
        """Ledger size whose facts these are."""
        ...

    def capability(self, grant_id: bytes) -> Capability | None:
        """The grant with this id."""
        ...

    def delegated(self, delegation_id: bytes) -> Delegated | None:
        """The delegation with this id."""
        ...

    def standing(self, root: bytes) -> Standing | None:
        """The organization with this root."""
        ...


def chain_of(reader: FactReader, delegation_id: bytes) -> tuple[Signed[pb.Delegation], ...]:
    """The delegations from a grant down to this one, in order.

    Raises:
        MalformedError: it, or one above it, is not known.
    """
    chain: list[Signed[pb.Delegation]] = []
    while True:
        each = reader.delegated(delegation_id)
        if each is None:
            raise MalformedError("names a delegation that is not known here.", field="delegation.parent_id")
        chain.insert(0, each.delegation)
        delegation_id = each.delegation.payload.parent_id
        if delegation_id == each.grant_id:
            return tuple(chain)

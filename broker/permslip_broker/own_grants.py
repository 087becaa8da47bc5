"""The grants of one person: those she signed, and those of another guardian on the same slices that she may revoke.

The broker knows no families. What it can see is who signed, and the hashed keys that a node's endorsement names as
revokers; a hash tells nothing until the very key that it is of asks. So the slices of a person are those on which she
signed a grant, and beside her own she is shown the grants there whose endorsement names her.

Example::

    rows = own_grants.of(key, after=-1, limit=100)
"""

from __future__ import annotations

from typing import Final

from permslip._pb.permslip.v1 import session_pb2, statement_pb2 as pb
from permslip.facts import Capability
from permslip.grants import revoker_hash
from permslip.hosting.facts_store import FactStore, GrantRow

__all__ = ["OwnGrants", "may_see"]

# A guardian has a few children at a few schools; nobody is served more slices than this.
MOST_SLICES: Final = 256
_PAGE: Final = 500


def may_see(capability: Capability, key: bytes) -> bool:
    """Whether this person signed the grant, or its node says that she may revoke it."""
    return key in capability.grant.payload.granted_by or is_of_family(capability, key)


def is_of_family(capability: Capability, key: bytes) -> bool:
    """Whether the grant's node once named this person among those who decide. Signing alone does not: anybody who knows
    a handle can sign a grant on it."""
    approval = capability.approval
    return approval is not None and revoker_hash(capability.grant.id, key) in approval.payload.revokers


class OwnGrants:
    """Finds the grants of a person."""

    def __init__(self, facts: FactStore) -> None:
        self._facts = facts

    def of(self, key: bytes, *, after: int, limit: int) -> list[GrantRow]:
        """Grants of this person after a position, in the order of their deposit; fewer than ``limit`` at the end."""
        found = {row.position: row for row in self._facts.grants_for_signer(key, after=after, limit=limit)}
        for node, handle in self.slices(key):
            start, taken = after, 0
            while taken < limit:
                rows = self._facts.grants_on_slice(node, handle, after=start, limit=limit)
                shown = [row for row in rows if may_see(row.capability, key)]
                found.update((row.position, row) for row in shown)
                taken += len(shown)
                if len(rows) < limit:
                    break
                start = rows[-1].position
        return [found[position] for position in sorted(found)[:limit]]

    def slices(self, key: bytes) -> list[tuple[bytes, bytes]]:
        """Node root and handle of each slice on which this person signed a grant."""
        found: dict[tuple[bytes, bytes], None] = {}
        after = -1
        while rows := self._facts.grants_for_signer(key, after=after, limit=_PAGE):
            for row in rows:
                place = row.capability.grant.payload.slice
                found[place.node, place.handle] = None
            after = rows[-1].position
            if len(rows) < _PAGE or len(found) >= MOST_SLICES:
                break
        return list(found)[:MOST_SLICES]

    def on_slice(self, key: bytes, node: bytes, handle: bytes) -> set[bytes]:
        """Ids of the grants on one slice that this person may see; none unless its node once named her."""
        found: set[bytes] = set()
        of_family, after = False, -1
        while rows := self._facts.grants_on_slice(node, handle, after=after, limit=_PAGE):
            found.update(row.capability.grant.id for row in rows if may_see(row.capability, key))
            of_family = of_family or any(is_of_family(row.capability, key) for row in rows)
            after = rows[-1].position
            if len(rows) < _PAGE:
                break
        return found if of_family else set()

    @staticmethod
    def signed(state: session_pb2.GrantState, key: bytes) -> bool:
        """Whether this person signed the grant of a state."""
        return key in pb.Grant.FromString(state.grant.payload).granted_by

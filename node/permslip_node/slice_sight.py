"""Who may see which entries of a slice's chain, by this node's own roster.

Rules, in this order:

1. Whoever decides for the learner now, and the learner herself, sees every entry about the slice, where this node lets
   the guardians of that learner learn of one another (``guardians_visible``).
2. Where it does not, she sees what concerns the grants that she signed, and changes of authority that name nobody else.
3. A guardian who decides no more (suspended, removed, the learner of age) sees what concerns the grants that she
   signed and this node once approved: what she may revoke, she may watch.
4. Nobody else sees anything, and cannot tell a handle that exists from one that does not. A key that was retired is
   nobody's: it may be in the hands of whoever found the phone.

Of an entry that is not shown, number and hash are given: the chain needs them.

Example::

    sight = sight_of(connection, facts, node=root, handle=handle, key=key, default_rule="any", now=now)
    sight.shown(entries, before=earlier)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from permslip.errors import RefusedError
from permslip.facts import Capability
from permslip.hosting.facts_store import FactStore
from permslip.hosting.leaves import decode_leaf
from permslip.hosting.ledger import SliceEntry
from permslip.quantities import Millis
from permslip.reasons import Reason
from permslip.sealing import salted_digest
from permslip_node.roster import Authority, Guardian, find_family, read_authority

__all__ = ["Sight", "sight_of"]

_PAGE: Final = 200


@dataclass(frozen=True, slots=True)
class Sight:
    """What one person may see of one slice's chain.

    Attributes:
        everything: every entry.
        grants: else those about these grants.
        persons: and changes of authority that name one of these (salted digests of her own keys and id).
        is_family: and changes of authority that name nobody.
    """

    everything: bool
    grants: frozenset[bytes] = frozenset()
    persons: frozenset[bytes] = frozenset()
    is_family: bool = False

    def shown(self, entries: Sequence[SliceEntry], *, before: Sequence[SliceEntry] = ()) -> set[int]:
        """Numbers of the entries that may be shown.

        Args:
            entries: of the slice's chain, in order.
            before: entries right before them: an answer does not name its grant, the decision before it does.
        """
        if self.everything:
            return {each.seq for each in entries}
        queries: set[bytes] = set()
        found = {
            each.seq for each in (*before, *entries) if each.leaf is not None and self._may_see(each.leaf, queries)
        }
        return found & {each.seq for each in entries}

    def _may_see(self, leaf: bytes, queries: set[bytes]) -> bool:
        entry = decode_leaf(leaf)
        event = entry.WhichOneof("event")
        if event == "access_decided":
            mine = entry.access_decided.grant_id in self.grants
            if mine:
                queries.add(entry.access_decided.query_id)
            return mine
        if event == "access_answered":
            return entry.access_answered.query_id in queries
        if event == "statement_recorded":
            recorded = entry.statement_recorded
            return recorded.statement_id in self.grants or recorded.subject in self.grants
        if event == "authority_changed":
            named = entry.authority_changed.person_key_sha256
            return named in self.persons if named else self.is_family
        return False


def sight_of(
    connection: Connection,
    facts: FactStore,
    *,
    node: bytes,
    handle: bytes,
    key: bytes,
    default_rule: str,
    now: Millis,
) -> Sight:
    """What the person with this key may see of a slice's chain.

    Args:
        connection: to the node's database, for the roster.
        facts: the grants.
        node: this node's root.
        handle: of the learner.
        key: proved by a greeting.
        default_rule: quorum rule of learners who have none of their own.
        now: the node's clock.

    Raises:
        RefusedError: nothing; whether or not there is such a handle.
    """
    authority = read_authority(connection, handle, default_rule=default_rule)
    if authority is None or any(key in each.retired_keys for each in authority.persons):
        raise _not_allowed()
    person = authority.person_of(key)
    if person is not None and _decides(authority, person, now) and authority.visible:
        return Sight(everything=True)
    decides = person is not None and _decides(authority, person, now)
    keys = {key} if person is None else {*person.keys, *person.retired_keys}
    grants = frozenset(
        each.grant.id
        for each in _on_slice(facts, node, handle)
        if not keys.isdisjoint(each.grant.payload.granted_by) and (decides or each.approval is not None)
    )
    if not decides and not grants:
        raise _not_allowed()
    persons: frozenset[bytes] = frozenset()
    if person is not None:
        salt = find_family(connection, handle, person.person_id)
        persons = frozenset(salted_digest(salt, who) for who in (person.person_id.encode(), *keys))
    return Sight(everything=False, grants=grants, persons=persons, is_family=person is not None)


def _decides(authority: Authority, person: Guardian, now: Millis) -> bool:
    """Whether she decides for the learner, or is the learner."""
    return person in authority.deciders(now) or (person.is_learner and not person.suspended)


def _on_slice(facts: FactStore, node: bytes, handle: bytes) -> Iterator[Capability]:
    after = -1
    while rows := facts.grants_on_slice(node, handle, after=after, limit=_PAGE):
        yield from (row.capability for row in rows)
        after = rows[-1].position
        if len(rows) < _PAGE:
            return


def _not_allowed() -> RefusedError:
    reason = Reason.NOT_ALLOWED
    return RefusedError(reason.meaning, code=reason.name, field="slice", remedy=reason.remedy)

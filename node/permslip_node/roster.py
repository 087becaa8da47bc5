"""The roster: who may decide for a learner. Only the node knows; neither broker nor other nodes ever learn it.

Rules:

- Authority belongs to persons, never to keys: a quorum counts persons.
- A person holds authority over a learner when the source lists her as a guardian, unless the source says outright that
  she is no legal guardian, or the operator removed her. Suspended (a court order) is not removed: she may still revoke
  what she signed, and nothing else.
- Keys become hers by a slip, learner by learner (:mod:`permslip_node.slips`). A new one retires the old ones.
- From ``majority_at`` on the learner alone decides.
- Each change is an entry of the ledger that changes the subject :func:`authority_subject`; whatever is decided by the
  roster depends on that subject, so a commit notices a change by another process, too.

Example::

    with reading(engine) as connection:
        authority = read_authority(connection, handle, default_rule="any")
    [one.name for one in authority.deciders(now)]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from sqlalchemy import Connection, select, update

from permslip._pb.permslip.v1 import ledger_pb2
from permslip.errors import RefusedError
from permslip.hosting.drafts import Draft
from permslip.quantities import Handle, Millis, Position
from permslip.sealing import salted_digest
from permslip_node import schema

__all__ = [
    "LEARNER_PERSON",
    "QUORUM_RULES",
    "Authority",
    "Guardian",
    "authority_subject",
    "change_draft",
    "find_family",
    "find_learner",
    "read_authority",
    "set_family_state",
    "set_quorum",
    "set_visibility",
]

QUORUM_RULES = ("any", "all")
# Who the learner herself is among the persons of her own family.
LEARNER_PERSON = "self"


@dataclass(frozen=True, slots=True)
class Guardian:
    """One person as to one learner.

    Attributes:
        person_id: the source's id; ``self`` is the learner.
        name, relation: as the source writes them.
        keys: in use, ascending.
        retired_keys: no longer in use.
        sealing_keys: those of ``keys``, in the same order.
        suspended: by the operator.
        holds_authority: not removed, and not said to be no legal guardian.
        is_learner: the learner herself.
    """

    person_id: str
    name: str
    relation: str
    keys: tuple[bytes, ...] = ()
    retired_keys: tuple[bytes, ...] = ()
    sealing_keys: tuple[bytes, ...] = ()
    suspended: bool = False
    holds_authority: bool = True
    is_learner: bool = False


@dataclass(frozen=True, slots=True)
class Authority:
    """Who decides for one learner, and by which rule.

    Attributes:
        handle: of the learner.
        native_id, name: as the source writes them.
        quorum_rule: ``any`` or ``all``.
        visible: do guardians learn of one another?
        majority_at: UTC milliseconds; 0 is unknown.
        persons: everybody whom the source or the operator links to her.
        vetoes: (grantee, person): she revoked what this grantee held.
    """

    handle: Handle
    native_id: str
    name: str
    quorum_rule: str
    visible: bool
    majority_at: int
    persons: tuple[Guardian, ...] = ()
    vetoes: frozenset[tuple[bytes, str]] = frozenset()

    def of_age(self, now: Millis) -> bool:
        """Whether the learner decides herself."""
        return bool(self.majority_at) and now >= self.majority_at

    def deciders(self, now: Millis) -> tuple[Guardian, ...]:
        """The persons who hold authority now and are not suspended, with or without a key."""
        of_age = self.of_age(now)
        return tuple(
            each for each in self.persons if each.holds_authority and not each.suspended and each.is_learner == of_age
        )

    def person_of(self, key: bytes) -> Guardian | None:
        """Whose key in use it is."""
        return next((each for each in self.persons if key in each.keys), None)


def authority_subject(handle: bytes) -> bytes:
    """The ledger's name for «who decides for this learner»."""
    return sha256(b"permslip authority v1\x00" + handle).digest()


def read_authority(connection: Connection, handle: bytes, *, default_rule: str) -> Authority | None:
    """Who decides for a learner, as the transaction sees it; None for a handle that is not this node's."""
    learner, family, person = schema.learner.c, schema.family.c, schema.person.c
    row = connection.execute(select(schema.learner).where(learner.handle == handle)).one_or_none()
    if row is None:
        return None
    keys = connection.execute(
        select(schema.person_key).where(schema.person_key.c.handle == handle).order_by(schema.person_key.c.key)
    ).all()
    links = connection.execute(
        select(schema.family, person.display_name)
        .outerjoin(schema.person, person.person_id == family.person_id)
        .where(family.handle == handle)
        .order_by(family.person_id)
    )
    persons = tuple(
        Guardian(
            person_id=link.person_id,
            name=row.display_name if link.is_learner else link.display_name or link.person_id,
            relation=link.relation,
            keys=tuple(each.key for each in keys if each.person_id == link.person_id and not each.retired_at),
            retired_keys=tuple(each.key for each in keys if each.person_id == link.person_id and each.retired_at),
            sealing_keys=tuple(
                each.sealing_key for each in keys if each.person_id == link.person_id and not each.retired_at
            ),
            suspended=bool(link.suspended_at),
            holds_authority=not link.removed_at and link.legal_guardian is not False,
            is_learner=link.is_learner,
        )
        for link in links
    )
    vetoes = connection.execute(
        select(schema.veto.c.grantee, schema.veto.c.person_id).where(schema.veto.c.handle == handle)
    )
    return Authority(
        handle=Handle(row.handle),
        native_id=row.native_id,
        name=row.display_name or row.native_id,
        quorum_rule=row.quorum_rule or default_rule,
        visible=row.guardians_visible,
        majority_at=row.majority_at,
        persons=persons,
        vetoes=frozenset((each.grantee, each.person_id) for each in vetoes),
    )


def find_learner(connection: Connection, native_id: str) -> Handle:
    """The handle of the learner with the source's id.

    Raises:
        RefusedError: there is none.
    """
    row = connection.execute(
        select(schema.learner.c.handle).where(schema.learner.c.native_id == native_id)
    ).one_or_none()
    if row is None:
        raise RefusedError(
            f"there is no learner {native_id!r} at this node.",
            code="NOT_FOUND",
            field="learner",
            remedy="See: permslip node families.",
        )
    return Handle(row.handle)


def find_family(connection: Connection, handle: bytes, person_id: str) -> bytes:
    """The salt of a person's entries in the ledger as to a learner.

    Raises:
        RefusedError: the two are not linked.
    """
    family = schema.family.c
    row = connection.execute(
        select(family.salt).where(family.handle == handle, family.person_id == person_id)
    ).one_or_none()
    if row is None:
        raise RefusedError(
            f"{person_id!r} is no guardian of this learner.",
            code="NOT_FOUND",
            field="person",
            remedy="See: permslip node families.",
        )
    return bytes(row.salt)


def change_draft(
    change: ledger_pb2.AuthorityChange.ValueType,
    node: bytes,
    handle: bytes,
    write: Callable[[Connection, Position], None],
    *,
    salt: bytes = b"",
    who: bytes = b"",
) -> Draft:
    """The ledger's entry of a change of authority.

    Args:
        change: what changed.
        node: this node's root.
        handle: of the learner.
        write: makes the change in the entry's transaction.
        salt: of the person, where it is about one.
        who: her key, or her id where she has none; only its salted digest stands in the ledger.
    """
    body = ledger_pb2.AuthorityChanged(change=change)
    if who:
        body.person_key_sha256 = salted_digest(salt, who)
    return Draft("authority_changed", body, slice=(node, handle), changes=(authority_subject(handle),), write=write)


def set_family_state(
    connection: Connection,
    handle: bytes,
    person_id: str,
    *,
    suspended_at: int | None = None,
    removed_at: int | None = None,
) -> None:
    """Suspend, reinstate or remove; 0 takes back, None leaves as it is."""
    values = {
        name: value for name, value in (("suspended_at", suspended_at), ("removed_at", removed_at)) if value is not None
    }
    family = schema.family.c
    connection.execute(
        update(schema.family).where(family.handle == handle, family.person_id == person_id).values(values)
    )


def set_quorum(connection: Connection, handle: bytes, rule: str) -> None:
    """Set the quorum rule of one learner; empty: the node's own."""
    connection.execute(update(schema.learner).where(schema.learner.c.handle == handle).values(quorum_rule=rule))


def set_visibility(connection: Connection, handle: bytes, *, visible: bool) -> None:
    """Set whether the guardians of one learner learn of one another."""
    connection.execute(
        update(schema.learner).where(schema.learner.c.handle == handle).values(guardians_visible=visible)
    )

"""Slips at the node: printing them, and linking whoever proves to hold one.

Rules:

- A slip is for one person and one learner, for 14 days, for one key. Printing another voids what was printed before.
- Five wrong answers, and it is dead. Every refusal looks the same to the outside, and an unknown selector costs the
  same work as a known one; the log alone says why.
- Linking retires the keys that the person had for this learner: a lost phone ends there.
- A guardian whose answer was lost on the way asks again, with the same slip and key, and gets it: linking is idempotent
  until the slip ends. Therefore its secret is kept until then; it is of no use to another key any more.

Example::

    slip = slips.issue("604822", "2037")
    print(slip.text())
    result = await slips.answer(forward)
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Engine, Row, insert, or_, select, update

from permslip._pb.permslip.v1 import ledger_pb2, node_pb2, statement_pb2 as pb
from permslip.errors import AuthorityError, PermslipError, RefusedError
from permslip.hosting.database import reading, writing
from permslip.hosting.logs import get_log
from permslip.hosting.refusals import refusal_of
from permslip.linking import LearnerCard, check_link_mac, make_link_response, open_link_request
from permslip.quantities import Millis, Position
from permslip.reasons import Reason
from permslip.slip import SECRET_BYTES, Slip, new_slip
from permslip.statements import Signed
from permslip_node import schema
from permslip_node.endorsing import Endorser
from permslip_node.identity import Identity
from permslip_node.roster import LEARNER_PERSON, Authority, Guardian, change_draft, find_learner, read_authority

__all__ = ["IssuedSlip", "Slips", "issue_slip"]

_log = get_log(__name__)

_DAY: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class IssuedSlip:
    """A slip that was just printed.

    Attributes:
        slip: what stands on it.
        learner, person: their names, for the envelope.
        expires_at: UTC milliseconds.
    """

    slip: Slip
    learner: str
    person: str
    expires_at: int


def issue_slip(
    engine: Engine, node: bytes, native_id: str, person_id: str, *, days: int, now: Millis, default_rule: str = "any"
) -> IssuedSlip:
    """Print a slip.

    Args:
        engine: the node's database.
        node: the node's root.
        native_id: the learner's id in the source.
        person_id: the guardian's id in the source; ``self`` for the learner.
        days: that it is good for.
        now: the node's clock.
        default_rule: quorum rule of learners who have none of their own.

    Raises:
        RefusedError: there is no such learner or guardian, or she holds no authority, or is suspended.
    """
    slip = new_slip(node)
    expires_at = now + days * _DAY
    table = schema.slip
    with writing(engine) as connection:
        handle = find_learner(connection, native_id)
        if person_id == LEARNER_PERSON:
            _ensure_learner_person(connection, handle)
        authority = read_authority(connection, handle, default_rule=default_rule)
        person = _person(authority, person_id)
        if person is None:
            raise RefusedError(
                f"{person_id!r} is no guardian of {native_id!r}.",
                code="NOT_FOUND",
                field="person",
                remedy="See: permslip node families.",
            )
        if why := _unfit(authority, person, now):
            raise RefusedError(f"{person.name}: {why}.", code="NOT_ALLOWED", field="person")
        connection.execute(
            update(table)
            .where(table.c.handle == handle, table.c.person_id == person_id, table.c.used_at == 0)
            .values(secret=None, expires_at=now)
        )
        connection.execute(
            insert(table).values(
                selector=slip.selector,
                secret=slip.secret,
                handle=handle,
                person_id=person_id,
                issued_at=now,
                expires_at=expires_at,
            )
        )
    return IssuedSlip(slip, authority.name if authority is not None else native_id, person.name, expires_at)


class Slips:
    """Answers link requests. Belongs to one event loop.

    Args:
        identity: who signs and opens.
        engine: the node's database.
        endorser: told of whoever is new, so that she can revoke from now on.
        tries: wrong answers after which a slip is dead.
        default_rule: quorum rule of learners who have none of their own.
        clock: UTC milliseconds now.
    """

    def __init__(
        self,
        identity: Identity,
        engine: Engine,
        endorser: Endorser,
        *,
        tries: int,
        default_rule: str,
        clock: Callable[[], Millis],
    ) -> None:
        self._identity, self._engine, self._endorser = identity, engine, endorser
        self._tries, self._default_rule, self._clock = tries, default_rule, clock
        # One at a time: tries are counted exactly.
        self._turn = asyncio.Lock()

    async def answer(self, forward: node_pb2.LinkForward) -> node_pb2.LinkResult:
        """Answer one forwarded request; whatever is wrong with it, the refusal is the same."""
        try:
            sealed = await self._answer(forward.sealed_request)
        except PermslipError as error:
            _log.warning("link_refused", why=error.message)
            refusal = refusal_of(RefusedError(Reason.LINK_REFUSED.meaning, code=Reason.LINK_REFUSED.name))
            refusal.remedy = Reason.LINK_REFUSED.remedy
            return node_pb2.LinkResult(call_id=forward.call_id, refusal=refusal)
        return node_pb2.LinkResult(call_id=forward.call_id, sealed_response=sealed)

    def erase_ended(self) -> int:
        """Erase the secrets of slips that have ended; returns how many."""
        table = schema.slip
        with writing(self._engine) as connection:
            ended = connection.execute(
                update(table)
                .where(
                    table.c.secret.is_not(None),
                    or_(table.c.expires_at <= self._clock(), table.c.tries >= self._tries),
                )
                .values(secret=None)
            )
        return int(ended.rowcount)

    async def _answer(self, sealed: bytes) -> bytes:
        identity, now = self._identity, self._clock()
        request = open_link_request(
            sealed, sealing_key=identity.sealing, federation=identity.federation, node=identity.root
        )
        async with self._turn:
            row, secret = self._checked(request, self._slip(request.payload.selector), now)
            key = request.payload.signer.key
            handle, person_id = bytes(row.handle), str(row.person_id)
            if row.used_by is None:
                await self._link(handle, person_id, request, now)
            elif row.used_by != key:
                raise AuthorityError("link: the slip was used by another key.")
        with reading(self._engine) as connection:
            authority = read_authority(connection, handle, default_rule=self._default_rule)
        authority, person = _entitled(authority, person_id, now)
        _log.info("person_linked", key=key.hex())
        return make_link_response(
            request, secret, self._card(authority, person, now), signer=identity.signer, key=identity.key, now=now
        )

    def _slip(self, selector: bytes) -> Row[Any] | None:
        with reading(self._engine) as connection:
            return connection.execute(select(schema.slip).where(schema.slip.c.selector == selector)).one_or_none()

    def _checked(self, request: Signed[pb.LinkRequest], row: Row[Any] | None, now: Millis) -> tuple[Row[Any], bytes]:
        """The slip and its secret, when the request proves to know it and the slip is alive."""
        known = row.secret if row is not None else None
        # Without a secret the check is made all the same, against one that nobody knows.
        secret = bytes(known) if known is not None else secrets.token_bytes(SECRET_BYTES)
        alive = row is not None and known is not None and now < row.expires_at and row.tries < self._tries
        try:
            check_link_mac(request, secret)
        except AuthorityError:
            if alive:
                self._count_try(request.payload.selector)
            raise
        if row is None or not alive:
            raise AuthorityError("link: the slip has ended.")
        return row, secret

    def _count_try(self, selector: bytes) -> None:
        table = schema.slip
        with writing(self._engine) as connection:
            connection.execute(update(table).where(table.c.selector == selector).values(tries=table.c.tries + 1))

    async def _link(self, handle: bytes, person_id: str, request: Signed[pb.LinkRequest], now: Millis) -> None:
        payload = request.payload
        key = payload.signer.key
        with reading(self._engine) as connection:
            authority = read_authority(connection, handle, default_rule=self._default_rule)
            family = schema.family.c
            salt = connection.execute(
                select(family.salt).where(family.handle == handle, family.person_id == person_id)
            ).scalar_one()
        authority, person = _entitled(authority, person_id, now)
        holder = next((each for each in authority.persons if key in (*each.keys, *each.retired_keys)), None)
        if holder is not None and (holder.person_id != person_id or key in holder.retired_keys):
            raise AuthorityError("link: the key is another person's already, or was retired.")

        def write(connection: Connection, _position: Position) -> None:
            table, slip = schema.person_key, schema.slip
            used = connection.execute(
                update(slip)
                .where(slip.c.selector == payload.selector, slip.c.used_by.is_(None))
                .values(used_by=key, used_at=now)
            )
            if used.rowcount != 1:
                raise AuthorityError("link: the slip was used meanwhile.")
            connection.execute(
                update(table)
                .where(table.c.handle == handle, table.c.person_id == person_id, table.c.key != key)
                .where(table.c.retired_at == 0)
                .values(retired_at=now)
            )
            if key not in person.keys:
                connection.execute(
                    insert(table).values(
                        handle=handle,
                        key=key,
                        person_id=person_id,
                        sealing_key=payload.sealing_key,
                        linked_at=now,
                        retired_at=0,
                    )
                )

        change = change_draft(
            ledger_pb2.AUTHORITY_CHANGE_LINKED, self._identity.root, handle, write, salt=salt, who=key
        )
        await self._endorser.review(handle, change)

    def _card(self, authority: Authority, person: Guardian, now: Millis) -> LearnerCard:
        others = [each for each in authority.deciders(now) if each.person_id != person.person_id]
        return LearnerCard(
            handle=authority.handle,
            learner_name=_line(authority.name, 256) or "?",
            node_name=self._identity.name,
            quorum_rule=authority.quorum_rule,
            relationship=_line(person.relation, 128),
            other_guardians=len(others) if authority.visible else 0,
            majority_at=authority.majority_at,
        )


def _person(authority: Authority | None, person_id: str) -> Guardian | None:
    if authority is None:
        return None
    return next((each for each in authority.persons if each.person_id == person_id), None)


def _entitled(authority: Authority | None, person_id: str, now: Millis) -> tuple[Authority, Guardian]:
    """Learner and person, when the person may be linked.

    Raises:
        AuthorityError: she may not, or is no longer of the family.
    """
    person = _person(authority, person_id)
    if authority is None or person is None:
        raise AuthorityError("link: the person is no longer of the family.")
    if why := _unfit(authority, person, now):
        raise AuthorityError(f"link: {why}.")
    return authority, person


def _unfit(authority: Authority | None, person: Guardian, now: Millis) -> str:
    """Why this person may not be linked, or nothing."""
    if not person.holds_authority:
        return "she holds no authority over the learner"
    if person.suspended:
        return "her authority is suspended"
    if authority is not None and authority.of_age(now) and not person.is_learner:
        return "the learner is of age and decides herself"
    return ""


def _ensure_learner_person(connection: Connection, handle: bytes) -> None:
    """The learner among the persons of her own family."""
    family = schema.family
    known = connection.execute(
        select(family.c.person_id).where(family.c.handle == handle, family.c.person_id == LEARNER_PERSON)
    ).one_or_none()
    if known is None:
        connection.execute(
            insert(family).values(
                handle=handle,
                person_id=LEARNER_PERSON,
                relation="Self",
                is_learner=True,
                salt=secrets.token_bytes(16),
            )
        )


def _line(text: str, most: int) -> str:
    """As much of a text as one printed line of so many bytes holds."""
    printable = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return printable.encode()[:most].decode(errors="ignore").strip()

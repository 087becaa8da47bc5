"""What is to be revoked, as signed revocations: from the wallet where it can be, else from the broker's listing.

Example::

    revocations = await revocations_of(consent, session=session, wallet=wallet, grants=guardian.grants)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Final, TypeAlias

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.client.consenting import Consent
from permslip.client.revoking import RevokedGrant
from permslip.client.session import Session
from permslip.consents import make_revocation
from permslip.errors import AuthorityError, MalformedError, RefusedError
from permslip.grant_views import GrantView
from permslip.grants import check_revocation
from permslip.reasons import Reason
from permslip.statements import Signed
from permslip.wallet import Wallet

__all__ = ["Revocable", "revocations_of"]

_LIST: Final = "The id of a consent is printed when it is given; «permslip guardian grants» lists all."

# What can be revoked: a consent, grants, or ids of grants or consents as bytes or hexadecimal.
Revocable: TypeAlias = Consent | GrantView | bytes | str | Iterable[GrantView | bytes | str]


async def revocations_of(
    target: Revocable,
    *,
    session: Session,
    wallet: Wallet | None,
    grants: Callable[[], AsyncIterator[GrantView]],
) -> list[RevokedGrant]:
    """Signed revocations of what a target means, one for each grant.

    Args:
        target: see :data:`Revocable`.
        session: who signs, by which clock.
        wallet: where ids are looked up first; no broker is needed for what stands there.
        grants: lists what the signer may revoke.

    Raises:
        RefusedError: nothing is known by an id (``GRANT_UNKNOWN``).
        MalformedError: an id is none, or there is nothing to revoke.
    """
    found: list[RevokedGrant] = []
    listed: list[GrantView] | None = None
    for each in _parts(target):
        if isinstance(each, GrantView):
            found.append(_of_view(session, each))
            continue
        wanted = each if isinstance(each, bytes) else _id(each)
        kept = _in_wallet(session, wallet, wanted)
        if not kept:
            listed = listed if listed is not None else [view async for view in grants()]
            kept = [_of_view(session, view) for view in listed if wanted and wanted in (view.id, view.consent_id)]
        if not kept:
            reason = Reason.GRANT_UNKNOWN
            raise RefusedError(f"nothing is known by {wanted.hex()}.", code=reason.name, remedy=_LIST)
        found += kept
    if not found:
        raise MalformedError("there is nothing to revoke.", field="target")
    return list({each.grant_id: each for each in found}.values())


def _parts(target: Revocable) -> Iterable[GrantView | bytes | str]:
    if isinstance(target, Consent):
        return target.grants
    return (target,) if isinstance(target, GrantView | bytes | str) else target


def _of_view(session: Session, view: GrantView) -> RevokedGrant:
    # One that a school would not take must not stand in the way of one's own: the broker may have made it up.
    if view.revocation is not None and _is_proved(view.revocation, view):
        return RevokedGrant(view.revocation, view.node_name)
    return _revoked(session, view.id, view.node, view.node_name)


def _is_proved(revocation: Signed[pb.Revocation], view: GrantView) -> bool:
    """Whether it is a guardian's whom the grant or its endorsement names; an organization's key proves nothing here."""
    if revocation.payload.role != pb.REVOKER_ROLE_GUARDIAN:
        return False
    try:
        check_revocation(revocation, view.signed, view.endorsement)
    except AuthorityError:
        return False
    return True


def _in_wallet(session: Session, wallet: Wallet | None, wanted: bytes) -> list[RevokedGrant]:
    if wallet is None or not wanted:
        return []
    names = {(each.node, each.handle): each.node_name for each in wallet.slices}
    return [
        _revoked(session, each.grant_id, each.node, names.get((each.node, each.handle), ""))
        for each in wallet.grants
        if wanted in (each.grant_id, each.consent_id)
    ]


def _revoked(session: Session, grant_id: bytes, node: bytes, node_name: str) -> RevokedGrant:
    revocation = make_revocation(
        grant_id,
        node,
        federation=session.server.federation,
        signer=session.identity.signer,
        role=pb.REVOKER_ROLE_GUARDIAN,
        key=session.identity.keys.signing,
        now=session.now(),
    )
    return RevokedGrant(revocation, node_name)


def _id(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise MalformedError(
            f"expected an id in hexadecimal, got {text[:80]!r}.", field="target", remedy=_LIST
        ) from None

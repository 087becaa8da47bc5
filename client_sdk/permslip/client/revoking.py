"""Revocations on their way: what each school has confirmed so far, believed by its signature alone.

Rules:

- «Confirmed» is the node's signed acknowledgement of this very revocation, verified here; the broker's word is not.
- A grant whose revocation the broker already holds is not revoked anew: the same statement is followed on.
- Parents are told of places, not of grants: a school or a learning platform counts once, however many grants end there.

Example::

    async for state in guardian.revoke(consent):
        print(state.text)        # 2 of 3 places confirmed, 1 offline: it cannot answer anyone until it has caught up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import grpc

from permslip import statements as st
from permslip._pb.permslip.v1 import guardian_pb2, guardian_pb2_grpc, statement_pb2 as pb
from permslip.client.failures import error_of, error_of_refusal
from permslip.client.session import Session
from permslip.errors import AuthorityError, KeyRejectedError, PermslipError
from permslip.keys import did_text
from permslip.reasons import Reason
from permslip.statements import Signed

__all__ = ["RevocationState", "RevokedGrant", "check_acknowledgement", "follow", "merged"]


@dataclass(frozen=True, slots=True)
class RevokedGrant:
    """How far the end of one grant has come.

    Attributes:
        revocation: the signed revocation.
        node_name: the school.
        recorded: the broker holds it and has passed it on.
        attached: the broker says that the node is online; nobody signed this.
        acknowledgement: the node's own signed word that not one byte more leaves; verified.
        error: why it was not accepted, or why an acknowledgement is not believed.
    """

    revocation: Signed[pb.Revocation]
    node_name: str
    recorded: bool = False
    attached: bool = False
    acknowledgement: Signed[pb.Acknowledgement] | None = None
    error: PermslipError | None = None

    @property
    def grant_id(self) -> bytes:
        """The grant that ends."""
        return self.revocation.payload.target_id

    @property
    def confirmed(self) -> bool:
        """Whether the node itself said that it acts on it."""
        return self.acknowledgement is not None

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        return {
            "grant_id": self.grant_id.hex(),
            "revocation_id": self.revocation.id.hex(),
            "node": did_text(self.revocation.payload.node),
            "node_name": self.node_name,
            "recorded": self.recorded,
            "attached": self.attached,
            "confirmed": self.confirmed,
            "confirmed_at": self.acknowledgement.payload.created_at if self.acknowledgement is not None else 0,
            "error": str(self.error) if self.error is not None else "",
        }


@dataclass(frozen=True, slots=True)
class RevocationState:
    """How far a revocation has come at all its places."""

    grants: tuple[RevokedGrant, ...]

    @property
    def confirmed(self) -> int:
        """Of how many grants the end was confirmed."""
        return sum(each.confirmed for each in self.grants)

    @property
    def is_complete(self) -> bool:
        """Whether the end of every grant was confirmed."""
        return all(each.confirmed for each in self.grants)

    @property
    def text(self) -> str:
        """For the parent, in one sentence; a place stands where its least certain grant stands."""
        places: dict[bytes, _Stand] = {}
        for each in self.grants:
            node = each.revocation.payload.node
            places[node] = max(places.get(node, _Stand.CONFIRMED), _stand(each))
        count, found = len(places), Counter(places.values())
        parts = [f"{found[_Stand.CONFIRMED]} of {count} {'place' if count == 1 else 'places'} confirmed"]
        if waiting := found[_Stand.WAITING]:
            parts.append(f"{waiting} {'has' if waiting == 1 else 'have'} not answered yet")
        if offline := found[_Stand.OFFLINE]:
            they = (
                "it cannot answer anyone until it has" if offline == 1 else "they cannot answer anyone until they have"
            )
            parts.append(f"{offline} offline: {they} caught up")
        if doubtful := found[_Stand.DOUBTFUL]:
            parts.append(f"{doubtful} confirmed in a way that cannot be believed")
        if refused := found[_Stand.REFUSED]:
            parts.append(f"{refused} could not be revoked")
        return ", ".join(parts) + "."

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        return {
            "complete": self.is_complete,
            "text": self.text,
            "confirmed": self.confirmed,
            "grants": [each.to_dict() for each in self.grants],
        }


async def follow(session: Session, grants: Sequence[RevokedGrant]) -> AsyncIterator[RevocationState]:
    """Deposit revocations and tell each change, until every place confirmed or the call's time is over.

    Raises:
        RefusedError: the broker does not take the call.
        UnavailableError: no answer could be had; carry the revocation to the school instead.
    """
    known = {each.revocation.id: each for each in grants}
    request = guardian_pb2.RevokeRequest(revocations=[each.revocation.envelope for each in grants])
    stub = guardian_pb2_grpc.GuardianServiceStub(session.open_channel())
    call: Any = stub.Revoke(request, timeout=session.timeout.call, wait_for_ready=True)
    state = RevocationState(tuple(known.values()))
    told = False
    try:
        async for response in call:
            for each in response.states:
                if each.revocation_id in known:
                    known[each.revocation_id] = await merged(session, known[each.revocation_id], each)
            state, told = RevocationState(tuple(known.values())), True
            yield state
            if state.is_complete:
                return
    except grpc.aio.AioRpcError as failure:
        # Once the broker holds them, the end of the call's time is no failure: nodes may be offline for long.
        if not (told and failure.code() == grpc.StatusCode.DEADLINE_EXCEEDED):
            raise error_of(failure) from failure
    finally:
        call.cancel()


async def merged(session: Session, known: RevokedGrant, told: guardian_pb2.RevocationState) -> RevokedGrant:
    """What is known after the broker told more of one revocation; only what is signed counts as confirmed."""
    acknowledgement, error = known.acknowledgement, None
    refused = told.HasField("refusal") and told.refusal.code != Reason.ALLOWED.wire
    if refused:
        error = error_of_refusal(told.refusal)
    if told.HasField("acknowledgement"):
        try:
            acknowledgement = await check_acknowledgement(session, told.acknowledgement, known.revocation)
        except PermslipError as failure:
            error = failure
    return RevokedGrant(
        known.revocation,
        known.node_name,
        recorded=known.recorded or not refused,
        attached=told.node_attached,
        acknowledgement=acknowledgement,
        error=error,
    )


async def check_acknowledgement(
    session: Session, envelope: pb.Envelope, revocation: Signed[pb.Revocation]
) -> Signed[pb.Acknowledgement]:
    """Believe a node's acknowledgement of this very revocation, or raise.

    Raises:
        AuthorityError: about something else, or not by the node that the revocation names.
        KeyRejectedError: not signed with the node's current key.
        SignatureError: not signed by the key it names.
        MalformedError: not an acknowledgement.
    """
    signed = st.verify(st.ACKNOWLEDGEMENT, envelope, federation=session.server.federation)
    payload = signed.payload
    if payload.statement_id != revocation.id or payload.target_id != revocation.payload.target_id:
        raise AuthorityError("acknowledgement: it is about something else.")
    if payload.signer.root != revocation.payload.node:
        raise AuthorityError("acknowledgement: not by the school that must act on it.")
    directory = await session.know([payload.signer.root])
    try:
        directory.check_signer(payload.signer, kind=pb.PRINCIPAL_KIND_NODE, at=session.now())
    except KeyRejectedError:
        await session.learn_anew(payload.signer.root)
        directory.check_signer(payload.signer, kind=pb.PRINCIPAL_KIND_NODE, at=session.now())
    return signed


class _Stand(IntEnum):
    """Where the end of one grant stands, from certain to hopeless."""

    CONFIRMED = 0
    WAITING = 1
    OFFLINE = 2
    DOUBTFUL = 3
    REFUSED = 4


def _stand(grant: RevokedGrant) -> _Stand:
    if grant.confirmed:
        return _Stand.CONFIRMED
    if grant.error is not None:
        return _Stand.DOUBTFUL if grant.recorded else _Stand.REFUSED
    return _Stand.WAITING if grant.attached else _Stand.OFFLINE

"""GuardianService: link, grant, watch, revoke.

Statements speak for themselves, whoever brings them; reading one's own things takes a greeting.

Example::

    async for response in stub.Revoke(guardian_pb2.RevokeRequest(revocations=[revocation.envelope])):
        [state] = response.states       # position, then the node's acknowledgement
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from google.protobuf.message import DecodeError

from permslip import statements as st
from permslip._pb.permslip.v1 import guardian_pb2, node_pb2, session_pb2, statement_pb2 as pb
from permslip.bounds import check_bounds
from permslip.dsse import statement_id
from permslip.errors import RefusedError
from permslip.hosting.facts_store import FactStore
from permslip.reasons import Reason
from permslip.statements import Signed
from permslip_broker.accesses import Accesses
from permslip_broker.announcements import Announcements
from permslip_broker.attachments import Attachments
from permslip_broker.deposits import Deposited, Deposits
from permslip_broker.grant_states import GrantStates
from permslip_broker.greetings import PERSONS, Greetings
from permslip_broker.identity import Identity
from permslip_broker.ledger_calls import LedgerCalls
from permslip_broker.links import Links
from permslip_broker.methods import Context
from permslip_broker.outcomes import refusal
from permslip_broker.own_grants import OwnGrants
from permslip_broker.paging import page_size, read_token
from permslip_broker.witnessing import Witnessing

__all__ = ["Guardians"]

# The longest that a call waits for others.
_MOST_WAIT: Final = 60.0


class Guardians:
    """Handlers of GuardianService."""

    def __init__(
        self,
        *,
        identity: Identity,
        greetings: Greetings,
        deposits: Deposits,
        facts: FactStore,
        states: GrantStates,
        own_grants: OwnGrants,
        accesses: Accesses,
        witnessing: Witnessing,
        attachments: Attachments,
        announcements: Announcements,
        links: Links,
        ledger_calls: LedgerCalls,
    ) -> None:
        self._identity, self._greetings, self._deposits = identity, greetings, deposits
        self._facts, self._states, self._own_grants, self._accesses = facts, states, own_grants, accesses
        self._witnessing = witnessing
        self._attachments, self._announcements, self._links = attachments, announcements, links
        self._ledger_calls = ledger_calls

    async def relay_link(
        self, request: guardian_pb2.RelayLinkRequest, _context: Context
    ) -> guardian_pb2.RelayLinkResponse:
        """A sealed request to a node, its sealed answer back."""
        check_bounds(request, "request")
        if request.federation != self._identity.federation:
            raise _refused(Reason.WRONG_FEDERATION, "request.federation")
        standing = self._facts.standing(request.node)
        if standing is None or not standing.is_admitted(pb.PRINCIPAL_KIND_NODE, self._greetings.now()):
            raise _refused(Reason.NODE_UNKNOWN, "request.node")
        node = self._attachments.get(request.node)
        if node is None:
            return guardian_pb2.RelayLinkResponse(refusal=refusal(Reason.UNREACHABLE))
        return await self._links.relay(node, request.sealed_request)

    async def deposit_consent(
        self, request: guardian_pb2.DepositConsentRequest, _context: Context
    ) -> guardian_pb2.DepositConsentResponse:
        """Record the grants of one consent, and wait for the nodes' endorsements if asked to."""
        check_bounds(request, "request")
        consent_id = os.urandom(16)
        results = await self._deposits.deposit(
            request.statements, among=(st.GRANT,), method="DepositConsent", consent_id=consent_id
        )
        grants = [each.statement_id for each in results if each.is_recorded]
        await self._endorsed(grants, min(request.wait / 1_000, _MOST_WAIT))
        told = [self._result(each) for each in results]
        # A consent that was deposited before keeps the id it got then.
        known = next((each.grant.consent_id for each in told if each.HasField("grant")), consent_id)
        return guardian_pb2.DepositConsentResponse(results=told, consent_id=known)

    async def revoke(
        self, request: guardian_pb2.RevokeRequest, context: Context
    ) -> AsyncIterator[guardian_pb2.RevokeResponse]:
        """Record revocations, then tell each change until all nodes acknowledged or the caller's time is over."""
        check_bounds(request, "request")
        ids = [_named_id(each) for each in request.revocations]
        nodes = [_named_node(each) for each in request.revocations]
        remaining = min(context.time_remaining() or _MOST_WAIT, _MOST_WAIT)
        # A little early, so that the last state reaches the caller before its own deadline does.
        until = asyncio.get_running_loop().time() + remaining - min(0.25, remaining / 4)
        with self._announcements.subscribe([*ids, *nodes]) as changed:
            results = await self._deposits.deposit(request.revocations, among=(st.REVOCATION,), method="Revoke")
            states = self._revocation_states(results)
            yield guardian_pb2.RevokeResponse(states=states)
            waiting = [each for each in states if _is_open(each)]
            while waiting:
                try:
                    async with asyncio.timeout_at(until):
                        news = await changed.next()
                except TimeoutError:
                    return
                changed_states = [each for each in waiting if self._brought_up_to_date(each, news)]
                if changed_states:
                    yield guardian_pb2.RevokeResponse(states=changed_states)
                waiting = [each for each in waiting if _is_open(each)]

    async def list_consents(
        self, request: guardian_pb2.ListConsentsRequest, _context: Context
    ) -> guardian_pb2.ListConsentsResponse:
        """Grants that the caller signed or may revoke."""
        check_bounds(request, "request")
        caller = self._greetings.check(request.hello, as_one_of=PERSONS)
        token = read_token(request.page.token, now_until=self._facts.position)
        grants, following = self._states.page(
            lambda after, limit: self._own_grants.of(caller.key, after=after, limit=limit),
            request.statuses,
            token,
            page_size(request.page),
        )
        for each in grants:
            # Told to those who deposited together, not to another guardian.
            if not self._own_grants.signed(each, caller.key):
                each.ClearField("consent_id")
        return guardian_pb2.ListConsentsResponse(grants=grants, next_page=following)

    async def read_node_ledger(
        self, request: guardian_pb2.ReadNodeLedgerRequest, _context: Context
    ) -> guardian_pb2.ReadNodeLedgerResponse:
        """What a node's own ledger says about a slice, sealed to the caller: carried, not read.

        Whether the caller may hear it is for that node to say, which alone knows families.
        """
        check_bounds(request, "request")
        node = request.slice.node
        caller = self._greetings.check(request.hello, as_one_of=PERSONS, node=node)
        standing = self._facts.standing(node)
        if standing is None or not standing.is_admitted(pb.PRINCIPAL_KIND_NODE, self._greetings.now()):
            raise _refused(Reason.NODE_UNKNOWN, "request.slice.node")
        reply = await self._ledger_calls.ask(node, node_pb2.LedgerCall(slice=request), caller=caller.key)
        return guardian_pb2.ReadNodeLedgerResponse(sealed=reply.sealed_slice)

    async def list_accesses(
        self, request: guardian_pb2.ListAccessesRequest, _context: Context
    ) -> guardian_pb2.ListAccessesResponse:
        """Entries about the caller's slices, chained, with proofs."""
        check_bounds(request, "request")
        caller = self._greetings.check(request.hello, as_one_of=PERSONS)
        begun = await asyncio.to_thread(self._accesses.begin, caller.key, request)
        if not request.page.token:
            covering = await self._witnessing.covering(begun.size)
            begun = begun._replace(size=covering.size, note=covering.note)
        else:
            begun = begun._replace(note=self._witnessing.at(begun.size) or b"")
        return await asyncio.to_thread(self._accesses.page, caller.key, request, begun)

    # ------------------------------------------------------------------------------------- what is told

    async def _endorsed(self, grants: Sequence[bytes], wait: float) -> None:
        """Wait until each of them has its node's word, or the time is over."""
        with self._announcements.subscribe(grants) as changed:
            try:
                async with asyncio.timeout(wait):
                    while any(self._is_pending(each) for each in grants):
                        await changed.next()
            except TimeoutError:
                return

    def _is_pending(self, grant_id: bytes) -> bool:
        capability = self._facts.capability(grant_id)
        return capability is not None and capability.endorsement is None and capability.ended == Reason.ALLOWED

    def _result(self, done: Deposited) -> session_pb2.DepositResult:
        return session_pb2.DepositResult(
            statement_id=done.statement_id,
            refusal=done.refusal,
            position=done.position,
            grant=self._states.one(done.statement_id) if done.is_recorded else None,
        )

    def _brought_up_to_date(
        self, state: guardian_pb2.RevocationState, news: Mapping[bytes, Signed[Any] | None]
    ) -> bool:
        """Put what came to be known into a state; whether it says something else now."""
        was_attached = state.node_attached
        state.node_attached = self._attachments.get(state.node) is not None
        word = news.get(state.revocation_id)
        if word is not None and word.kind is st.ACKNOWLEDGEMENT:
            state.acknowledgement.CopyFrom(word.envelope)
            return True
        return state.node_attached != was_attached

    def _revocation_states(self, results: Sequence[Deposited]) -> list[guardian_pb2.RevocationState]:
        facts = self._states.revocations([each.statement_id for each in results if each.is_recorded])
        acknowledged = [each.acknowledgement_id for each in facts.values() if each.acknowledgement_id is not None]
        envelopes = self._facts.envelopes(acknowledged)
        return [
            guardian_pb2.RevocationState(
                revocation_id=each.statement_id,
                target_id=each.signed.payload.target_id if each.signed is not None else b"",
                node=each.signed.payload.node if each.signed is not None else b"",
                refusal=None if each.is_recorded else each.refusal,
                position=each.position,
                acknowledgement=envelopes.get(
                    (fact.acknowledgement_id if (fact := facts.get(each.statement_id)) is not None else None) or b""
                ),
                node_attached=each.signed is not None and self._attachments.get(each.signed.payload.node) is not None,
            )
            for each in results
        ]


def _is_open(state: guardian_pb2.RevocationState) -> bool:
    """Whether more is to come: it was accepted, and the node did not acknowledge yet."""
    return not state.HasField("refusal") and not state.HasField("acknowledgement")


def _named_id(envelope: pb.Envelope) -> bytes:
    return statement_id(envelope.payload_type, envelope.payload)


def _named_node(envelope: pb.Envelope) -> bytes:
    """The node that an unverified revocation names, to listen for its coming and going."""
    try:
        return bytes(pb.Revocation.FromString(envelope.payload).node)
    except DecodeError:
        return b""


def _refused(reason: Reason, field: str) -> RefusedError:
    return RefusedError(reason.meaning, code=reason.name, field=field, remedy=reason.remedy)

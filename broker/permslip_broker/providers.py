"""ProviderService: the grants that somebody holds, and the statements she may deposit about them.

Example::

    response = await stub.ListGrants(provider_pb2.ListGrantsRequest(hello=hello.envelope))
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

from permslip import statements as st
from permslip._pb.permslip.v1 import provider_pb2, session_pb2
from permslip.bounds import check_bounds
from permslip.facts import Capability
from permslip.hosting.facts_store import FactStore
from permslip_broker.deposits import Deposits
from permslip_broker.exchange import CALLERS, Exchange
from permslip_broker.grant_states import GrantStates
from permslip_broker.greetings import Caller, Greetings
from permslip_broker.methods import Context
from permslip_broker.paging import page_size, read_token

__all__ = ["Providers"]

STATEMENTS: Final[tuple[st.Kind[Any], ...]] = (st.DELEGATION, st.REVOCATION, st.KEY_CERT)


class Providers:
    """Handlers of ProviderService."""

    def __init__(
        self,
        *,
        greetings: Greetings,
        exchange: Exchange,
        deposits: Deposits,
        facts: FactStore,
        states: GrantStates,
    ) -> None:
        self._greetings, self._exchange = greetings, exchange
        self._deposits, self._facts, self._states = deposits, facts, states

    async def exchange(self, requests: AsyncIterator[provider_pb2.ExchangeRequest], context: Context) -> None:
        """Queries up, answers down."""
        await self._exchange.converse(requests, context)

    async def list_grants(
        self, request: provider_pb2.ListGrantsRequest, _context: Context
    ) -> provider_pb2.ListGrantsResponse:
        """Grants made out to the caller; by id also those that were passed on to it."""
        check_bounds(request, "request")
        caller = self._greetings.check(request.hello, as_one_of=CALLERS)
        if request.grant_ids:
            held = [one for each in request.grant_ids if (one := self._held(each, caller)) is not None]
            wanted = [each for each in self._states.of(held) if not request.statuses or each.status in request.statuses]
            return provider_pb2.ListGrantsResponse(grants=wanted)
        grants, following = self._states.page(
            lambda after, limit: self._facts.grants_for_grantee(caller.root, after=after, limit=limit),
            request.statuses,
            read_token(request.page.token, now_until=self._facts.position),
            page_size(request.page),
        )
        return provider_pb2.ListGrantsResponse(grants=grants, next_page=following)

    async def deposit(self, request: provider_pb2.DepositRequest, _context: Context) -> provider_pb2.DepositResponse:
        """Record delegations, revocations and certificates; each speaks for itself."""
        check_bounds(request, "request")
        results = await self._deposits.deposit(request.statements, among=STATEMENTS, method="Deposit")
        return provider_pb2.DepositResponse(
            results=[
                session_pb2.DepositResult(statement_id=each.statement_id, refusal=each.refusal, position=each.position)
                for each in results
            ]
        )

    def _held(self, grant_id: bytes, caller: Caller) -> Capability | None:
        capability = self._facts.capability(grant_id)
        if capability is None:
            return None
        if capability.grant.payload.grantee == caller.root:
            return capability
        below = self._facts.delegations_of(grant_id) if capability.grant.payload.delegation_depth else []
        passed_on = any(each.delegation.payload.delegatee == caller.root for each in below)
        return capability if passed_on else None

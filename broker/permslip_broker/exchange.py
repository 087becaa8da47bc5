"""ProviderService.Exchange: one stream a process, on which queries go up and sealed answers come down.

Rules:

- The broker speaks first (a challenge); the caller greets, alone in its first message; then anything goes.
- A query that cannot be believed is answered under the id it would have had, so that its sender learns which field was
  at fault; the stream goes on. A frame that is no call at all ends the stream.
- When the caller has said all it has to say, it still gets every answer that is due.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from permslip._pb.permslip.v1 import provider_pb2, statement_pb2 as pb
from permslip.dsse import statement_id
from permslip.errors import MalformedError, UnavailableError
from permslip.greeting import CONTRACT_VERSION
from permslip.reasons import Reason
from permslip_broker.conversing import conversing
from permslip_broker.greetings import PERSONS, Caller, Greetings, first_message
from permslip_broker.joining import joined
from permslip_broker.methods import Context
from permslip_broker.open_queries import Requester
from permslip_broker.outcomes import refusal, too_many
from permslip_broker.routing import Routing
from permslip_broker.routing_limits import RoutingLimits

__all__ = ["Exchange"]

CALLERS: Final = PERSONS | {pb.PRINCIPAL_KIND_PROVIDER}
_MOST_CALLS: Final = 1_024

Requests = AsyncIterator[provider_pb2.ExchangeRequest]


class Exchange:
    """The handler of one method; :class:`permslip_broker.providers.Providers` has the others of its service."""

    def __init__(self, greetings: Greetings, routing: Routing, limits: RoutingLimits) -> None:
        self._greetings, self._routing, self._limits = greetings, routing, limits

    async def converse(self, requests: Requests, context: Context) -> None:
        """One stream, from its challenge to its end."""
        challenge = provider_pb2.ExchangeReply(challenge=self._greetings.challenge())
        await context.write(provider_pb2.ExchangeResponse(replies=[challenge]))
        caller = await self._greeted(requests)
        if caller is None:
            return
        requester = self._routing.enter(caller.root)
        welcome = provider_pb2.Welcome(
            version=CONTRACT_VERSION, initial_credit=self._limits.answer_credit, max_open=self._limits.max_open
        )
        requester.say(provider_pb2.ExchangeReply(welcome=welcome))
        try:
            await conversing(self._write(requester, context), self._read(requester, requests), self._watch(requester))
        finally:
            self._routing.leave(requester)

    async def _greeted(self, requests: Requests) -> Caller | None:
        first = await first_message(requests)
        if first is None:
            return None
        if len(first.calls) != 1 or first.calls[0].WhichOneof("call") != "hello":
            raise MalformedError("expected a hello, alone.", field="calls[0].hello", remedy="Greet first.")
        return self._greetings.check(first.calls[0].hello, as_one_of=CALLERS)

    async def _read(self, requester: Requester, requests: Requests) -> None:
        async for request in requests:
            self._take(requester, request)
            # Who does not take what is said to it is not listened to: else refusals would fill the memory.
            await requester.outbox.room()
        await requester.settled()
        requester.outbox.close()

    def _take(self, requester: Requester, request: provider_pb2.ExchangeRequest) -> None:
        if len(request.calls) > _MOST_CALLS:
            raise too_many("calls", len(request.calls), most=_MOST_CALLS)
        queries: list[provider_pb2.QueryCall] = []
        for number, call in enumerate(request.calls):
            which = call.WhichOneof("call")
            if which == "query":
                queries.append(call.query)
            elif which == "credit":
                self._routing.credit(requester, call.credit)
            elif which == "cancel":
                # One that came in this very message is decided first.
                if queries:
                    self._routing.accept(requester, queries)
                    queries = []
                self._routing.cancel(requester, call.cancel.query_id)
            elif which == "contribution":
                requester.say(_no_contributions(call.contribution))
            else:
                raise MalformedError(
                    "expected a query, credit, cancel or contribution.",
                    field=f"calls[{number}]",
                    remedy="Greet once only. Is the client's software newer than the broker's?",
                )
        if queries:
            self._routing.accept(requester, queries)

    async def _write(self, requester: Requester, context: Context) -> None:
        async for batch in requester.outbox.batches():
            requester.writing = batch
            await context.write(joined(each.reply for each in batch))
            self._routing.written(requester)

    async def _watch(self, requester: Requester) -> None:
        await requester.cut_off.wait()
        raise UnavailableError(
            "an answer was revoked, and what had been sent of it was not taken.", remedy="Connect again."
        )


def _no_contributions(call: provider_pb2.ContributionCall) -> provider_pb2.ExchangeReply:
    envelope = call.contribution
    reply = provider_pb2.ContributionReply(
        statement_id=statement_id(envelope.payload_type, envelope.payload),
        refusal=refusal(
            Reason.NOT_ALLOWED, field="calls.contribution", message="This broker carries queries, not contributions."
        ),
    )
    return provider_pb2.ExchangeReply(contribution=reply)

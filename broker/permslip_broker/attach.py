"""NodeService.Attach: the long-lived stream of one node.

In order: the broker's challenge; the node's hello, alone; the welcome; every push that the node does not hold yet; the
grants that wait for its endorsement; then whatever comes.

Rules:

- A lease request is answered with a tick that tells the ledger's head and the number of pushes, both read after the
  request arrived.
- A node's statements are recorded in the order in which they came, and each is answered with what became of it. An
  acknowledgement is recorded only once nothing of the answers it is about is on its way to a requester any more; for
  that a reader who takes nothing is cut off, by the node alone whose grant it is.
- A node answers only what it was asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from google.protobuf.message import DecodeError
from sqlalchemy import Engine

from permslip import statements as st
from permslip._pb.permslip.v1 import node_pb2, session_pb2, statement_pb2 as pb
from permslip.bounds import check_bounds
from permslip.errors import MalformedError, UnavailableError
from permslip.greeting import CONTRACT_VERSION
from permslip.hosting.database import reading
from permslip.hosting.facts_store import FactStore
from permslip.hosting.ledger import Ledger
from permslip.hosting.logs import get_log
from permslip.quantities import Millis
from permslip_broker.attachments import AttachedNode, Attachments
from permslip_broker.conversing import conversing
from permslip_broker.deposits import Deposits
from permslip_broker.greetings import Greetings, first_message
from permslip_broker.identity import Identity
from permslip_broker.ledger_calls import LedgerCalls
from permslip_broker.links import Links
from permslip_broker.methods import Context
from permslip_broker.outcomes import too_many
from permslip_broker.pushes import Pushes
from permslip_broker.routing import Routing
from permslip_broker.routing_limits import RoutingLimits
from permslip_broker.witnessing import Witnessing

__all__ = ["Attach"]

_log = get_log(__name__)

STATEMENTS: Final[tuple[st.Kind[Any], ...]] = (st.ENDORSEMENT, st.ACKNOWLEDGEMENT, st.REVOCATION, st.KEY_CERT)
_MOST_FRAMES: Final = 1_024
_PAGE: Final = 100
# Messages of statements that may wait while others are recorded; beyond them the stream is not read on.
_WAITING: Final = 64

Requests = AsyncIterator[node_pb2.AttachRequest]


class Attach:
    """Handler of NodeService."""

    def __init__(
        self,
        *,
        identity: Identity,
        engine: Engine,
        ledger: Ledger,
        facts: FactStore,
        greetings: Greetings,
        attachments: Attachments,
        pushes: Pushes,
        deposits: Deposits,
        routing: Routing,
        links: Links,
        witnessing: Witnessing,
        ledger_calls: LedgerCalls,
        limits: RoutingLimits,
        clock: Callable[[], Millis],
    ) -> None:
        self._identity, self._engine, self._ledger, self._facts = identity, engine, ledger, facts
        self._greetings, self._attachments, self._pushes = greetings, attachments, pushes
        self._deposits, self._routing, self._links = deposits, routing, links
        self._ledger_calls, self._witnessing = ledger_calls, witnessing
        self._limits, self._clock = limits, clock

    async def attach(self, requests: Requests, context: Context) -> None:
        """One stream, from its challenge to its end."""
        challenge = node_pb2.BrokerFrame(challenge=self._greetings.challenge())
        await context.write(node_pb2.AttachResponse(frames=[challenge]))
        node = await self._greeted(requests)
        if node is None:
            return
        welcome = node_pb2.AttachWelcome(
            version=CONTRACT_VERSION,
            push_count=self._pushes.count(node.root),
            initial_credit=self._limits.first_credit,
        )
        node.outbox.put(node_pb2.BrokerFrame(welcome=welcome))
        self._attachments.attach(
            node, UnavailableError("another stream of this node took this one's place.", remedy="Attach once only.")
        )
        _log.info("node_attached", node=node.root.hex(), pushes_held=node.pushes_held)
        statements: asyncio.Queue[list[pb.Envelope]] = asyncio.Queue(_WAITING)
        try:
            await conversing(
                self._write(node, context),
                self._read(node, requests, statements),
                self._send_what_is_due(node),
                self._record(node, statements),
            )
        finally:
            self._attachments.detach(node)
            _log.info("node_detached", node=node.root.hex())
        if node.ended_by is not None:
            raise node.ended_by

    async def _greeted(self, requests: Requests) -> AttachedNode | None:
        first = await first_message(requests)
        if first is None:
            return None
        if len(first.frames) != 1 or first.frames[0].WhichOneof("frame") != "hello":
            raise MalformedError("expected a hello, alone.", field="frames[0].hello", remedy="Greet first.")
        hello = first.frames[0].hello
        caller = self._greetings.believe(hello.hello, as_one_of={pb.PRINCIPAL_KIND_NODE})
        if hello.HasField("key_cert"):
            # It may be newer than what is known here; whether it counts now is asked next.
            await self._deposits.deposit([hello.key_cert], among=(st.KEY_CERT,), method="Attach", caller=caller.root)
        self._greetings.check_standing(caller)
        due = self._pushes.count(caller.root)
        if hello.pushes_held > due:
            raise MalformedError(
                f"expected at most {due}, got {hello.pushes_held}.",
                field="hello.pushes_held",
                remedy="The node holds more than this broker ever recorded: was its database restored from a backup?",
            )
        return AttachedNode(caller.root, caller.key, max_open=hello.max_open, pushes_held=hello.pushes_held)

    # ------------------------------------------------------------------------------------- to the node

    async def _write(self, node: AttachedNode, context: Context) -> None:
        async for frames in node.outbox.batches():
            await context.write(node_pb2.AttachResponse(frames=frames))

    async def _send_what_is_due(self, node: AttachedNode) -> None:
        await self._send_pushes(node)
        await self._ask_for_endorsements(node)
        while True:
            await node.pushes_due()
            await self._send_pushes(node)

    async def _send_pushes(self, node: AttachedNode) -> None:
        while page := self._pushes.page(node.root, after=node.pushes_sent, limit=_PAGE):
            for push in page:
                node.send_push(push)
            await node.outbox.room()
        node.pushes_read()

    async def _ask_for_endorsements(self, node: AttachedNode) -> None:
        after, now = -1, self._clock()
        while rows := self._facts.grants_of_node(node.root, pending_only=True, after=after, limit=_PAGE):
            for row in rows:
                grant = row.capability.grant
                after = row.position
                if now < grant.payload.expires_at:
                    below = self._facts.delegations_of(grant.id) if grant.payload.delegation_depth else []
                    call = node_pb2.EndorsementCall(
                        grant=grant.envelope, delegations=[each.delegation.envelope for each in below]
                    )
                    node.outbox.put(node_pb2.BrokerFrame(endorsement=call), call.ByteSize())
            await node.outbox.room()

    # ------------------------------------------------------------------------------------- from the node

    async def _read(self, node: AttachedNode, requests: Requests, statements: asyncio.Queue[list[pb.Envelope]]) -> None:
        async for request in requests:
            if len(request.frames) > _MOST_FRAMES:
                raise too_many("frames", len(request.frames), most=_MOST_FRAMES)
            batch: list[pb.Envelope] = []
            for number, frame in enumerate(request.frames):
                which = frame.WhichOneof("frame")
                if which == "answer":
                    self._routing.relay(node, frame.answer)
                elif which == "lease":
                    self._tick(node, frame.lease)
                elif which == "statement":
                    batch.append(frame.statement)
                elif which == "cosignature":
                    self._witnessing.take(node, frame.cosignature)
                elif which == "link":
                    check_bounds(frame.link, f"frames[{number}].link")
                    self._links.answered(node, frame.link)
                elif which == "ledger":
                    self._ledger_calls.answered(node, frame.ledger)
                elif which in {None, "hello"}:
                    raise MalformedError(
                        "expected a frame, and no second hello.",
                        field=f"frames[{number}]",
                        remedy="Is the node's software newer than the broker's?",
                    )
                else:
                    _log.warning("frame_not_asked_for", node=node.root.hex(), frame=which)
            if batch:
                await statements.put(batch)
            # A node that does not take its ticks is not listened to.
            await node.outbox.room()
        node.outbox.close()

    def _tick(self, node: AttachedNode, lease: node_pb2.LeaseRequest) -> None:
        check_bounds(lease, "lease")
        with reading(self._engine) as connection:
            head = self._ledger.read_head(connection)
            count = self._pushes.count(node.root, connection)
        now = self._clock()
        # What the tick counts goes out ahead of it, unless it is more than a page.
        if count > node.pushes_sent:
            for push in self._pushes.page(node.root, after=node.pushes_sent, limit=_PAGE):
                node.send_push(push)
            node.expect_pushes(count)
        node.pushes_held = min(lease.pushes_held, count)
        node.last_tick_at = now
        tick = self._identity.tick(
            node=node.root,
            lease_nonce=lease.lease_nonce,
            size=head.size,
            root_hash=head.root,
            push_count=count,
            now=now,
        )
        node.outbox.put(node_pb2.BrokerFrame(tick=tick), len(tick.payload))

    def _place(self, target_id: bytes) -> bytes | None:
        """The node of a grant, or of a delegation's; None of what is not known."""
        delegated = self._facts.delegated(target_id)
        capability = self._facts.capability(target_id if delegated is None else delegated.grant_id)
        return None if capability is None else capability.grant.payload.slice.node

    async def _record(self, node: AttachedNode, statements: asyncio.Queue[list[pb.Envelope]]) -> None:
        while True:
            batch = await statements.get()
            while not statements.empty():
                batch = [*batch, *statements.get_nowait()]
            for target in _acknowledged(batch):
                # Nobody has looked at these yet: a node has a word on its own grants alone.
                if self._place(target) == node.root:
                    await self._routing.quiet(target)
            results = await self._deposits.deposit(batch, among=STATEMENTS, method="Attach.statement", caller=node.root)
            for each in results:
                result = session_pb2.DepositResult(
                    statement_id=each.statement_id, refusal=each.refusal, position=each.position
                )
                node.outbox.put(node_pb2.BrokerFrame(statement_result=result))


def _acknowledged(envelopes: list[pb.Envelope]) -> list[bytes]:
    """What these claim to acknowledge; whether it is true is seen when they are deposited."""
    targets = []
    for envelope in envelopes:
        if envelope.payload_type == st.ACKNOWLEDGEMENT.payload_type:
            try:
                targets.append(pb.Acknowledgement.FromString(envelope.payload).target_id)
            except DecodeError:
                continue
    return targets

"""What a recorded statement sets in motion, in this order and in one turn of the event loop.

1. Nodes that must hold it are sent it.
2. Answers that it makes unlawful end here: nothing more of them leaves the broker.
3. A node that may not be attached any more is detached.
4. A grant is put to its node for endorsement.
5. Whoever waits for it is told.

Example::

    deposits.on_recorded(Effects(attachments, routing, announcements).take)
"""

from __future__ import annotations

from permslip import statements as st
from permslip._pb.permslip.v1 import node_pb2
from permslip.errors import RefusedError
from permslip.reasons import Reason
from permslip_broker.announcements import Announcements
from permslip_broker.attachments import AttachedNode, Attachments
from permslip_broker.deposits import RecordedStatement
from permslip_broker.routing import Routing

__all__ = ["Effects"]


class Effects:
    """Sets in motion what follows from a recorded statement. Belongs to the event loop."""

    def __init__(self, attachments: Attachments, routing: Routing, announcements: Announcements) -> None:
        self._attachments, self._routing, self._announcements = attachments, routing, announcements

    def take(self, done: RecordedStatement) -> None:
        """Called once for each statement, right after its commit."""
        self._push(done)
        self._routing.recheck(done.changes)
        self._check_attached(done)
        self._ask_for_endorsement(done)
        self._announce(done)

    def _push(self, done: RecordedStatement) -> None:
        attached = [(node, number) for root, number in done.pushes.items() if (node := self._attachments.get(root))]
        if not attached:
            return
        for node, number in attached:
            node.push(
                node_pb2.Push(number=number, position=done.position, statement=done.signed.envelope, chain=done.chain)
            )

    def _check_attached(self, done: RecordedStatement) -> None:
        signed = done.signed
        if signed.kind not in (st.SUSPENSION, st.KEY_CERT):
            return
        node = self._attachments.get(signed.payload.root)
        if node is None:
            return
        if signed.kind is st.SUSPENSION:
            self._detach(node, Reason.NODE_SUSPENDED)
        elif signed.payload.signing_key != node.signing_key:
            self._detach(node, Reason.KEY_NOT_CERTIFIED)

    def _detach(self, node: AttachedNode, reason: Reason) -> None:
        self._attachments.detach(node)
        node.end(RefusedError(reason.meaning, code=reason.name, remedy=reason.remedy))

    def _ask_for_endorsement(self, done: RecordedStatement) -> None:
        signed = done.signed
        if signed.kind is not st.GRANT:
            return
        node = self._attachments.get(signed.payload.slice.node)
        if node is not None:
            call = node_pb2.EndorsementCall(grant=signed.envelope)
            node.outbox.put(node_pb2.BrokerFrame(endorsement=call), call.ByteSize())

    def _announce(self, done: RecordedStatement) -> None:
        signed = done.signed
        if signed.kind is st.ENDORSEMENT:
            self._announcements.announce(signed.payload.grant_id, signed)
        elif signed.kind is st.ACKNOWLEDGEMENT:
            self._announcements.announce(signed.payload.statement_id, signed)

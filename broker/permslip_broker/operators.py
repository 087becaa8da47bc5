"""OperatorService: admission and suspension of organizations, and how the broker is.

Example::

    await stub.Admit(operator_pb2.AdmitRequest(statements=[admission.envelope, cert.envelope]))
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any, Final

from permslip import statements as st
from permslip._pb.permslip.v1 import operator_pb2, session_pb2, statement_pb2 as pb
from permslip.bounds import check_bounds
from permslip.hosting.facts_store import FactStore
from permslip.hosting.ledger import Ledger
from permslip.quantities import Millis
from permslip_broker.attachments import Attachments
from permslip_broker.deposits import Deposits
from permslip_broker.greetings import Greetings
from permslip_broker.methods import Context
from permslip_broker.pushes import Pushes

__all__ = ["Operators"]

STATEMENTS: Final[tuple[st.Kind[Any], ...]] = (st.ADMISSION, st.SUSPENSION, st.KEY_CERT)


class Operators:
    """Handlers of OperatorService."""

    def __init__(
        self,
        *,
        greetings: Greetings,
        deposits: Deposits,
        ledger: Ledger,
        facts: FactStore,
        pushes: Pushes,
        attachments: Attachments,
        clock: Callable[[], Millis],
    ) -> None:
        self._greetings, self._deposits, self._ledger, self._facts = greetings, deposits, ledger, facts
        self._pushes, self._attachments = pushes, attachments
        self._started_at = clock()

    async def admit(self, request: operator_pb2.AdmitRequest, _context: Context) -> operator_pb2.AdmitResponse:
        """Record admissions, suspensions and certificates; each speaks for itself, whoever brings it."""
        check_bounds(request, "request")
        results = await self._deposits.deposit(request.statements, among=STATEMENTS, method="Admit")
        return operator_pb2.AdmitResponse(
            results=[
                session_pb2.DepositResult(statement_id=each.statement_id, refusal=each.refusal, position=each.position)
                for each in results
            ]
        )

    async def get_status(
        self, request: operator_pb2.GetStatusRequest, _context: Context
    ) -> operator_pb2.GetStatusResponse:
        """Sizes, versions and nodes, for the operator alone."""
        self._greetings.check(request.hello, as_one_of={pb.PRINCIPAL_KIND_OPERATOR})
        size, root = self._ledger.head()
        return operator_pb2.GetStatusResponse(
            ledger_size=size,
            root_hash=root,
            nodes=[self._node(node, due) for node, due in sorted(self._pushes.counts().items())],
            software_version=version("permslip"),
            started_at=self._started_at,
            grants=self._facts.count_grants(),
        )

    def _node(self, root: bytes, due: int) -> operator_pb2.NodeStatus:
        node = self._attachments.get(root)
        return operator_pb2.NodeStatus(
            root=root,
            attached=node is not None,
            last_tick_at=node.last_tick_at if node is not None else 0,
            pushes_held=node.pushes_held if node is not None else 0,
            pushes_due=due,
        )

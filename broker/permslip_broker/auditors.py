"""AuditorService, so far as this broker answers it: the signed checkpoint of its ledger.

Example::

    note = (await stub.GetCheckpoint(request)).checkpoint.note
"""

from __future__ import annotations

from permslip._pb.permslip.v1 import auditor_pb2, ledger_pb2
from permslip.bounds import check_bounds
from permslip.errors import RefusedError
from permslip.hosting.ledger import Ledger
from permslip.reasons import Reason
from permslip_broker.greetings import ANYBODY, Greetings
from permslip_broker.identity import Identity
from permslip_broker.methods import Context

__all__ = ["Auditors"]


class Auditors:
    """Handlers of AuditorService."""

    def __init__(self, *, identity: Identity, greetings: Greetings, ledger: Ledger) -> None:
        self._identity, self._greetings, self._ledger = identity, greetings, ledger

    async def get_checkpoint(
        self, request: auditor_pb2.GetCheckpointRequest, _context: Context
    ) -> auditor_pb2.GetCheckpointResponse:
        """The head of this broker's ledger as a C2SP signed note. It tells nothing but size and root."""
        check_bounds(request, "request")
        self._greetings.check(request.hello, as_one_of=ANYBODY)
        if request.ledger != self._identity.root:
            reason = Reason.NOT_FOUND
            raise RefusedError(
                "this broker keeps no such ledger.", code=reason.name, field="request.ledger", remedy=reason.remedy
            )
        note = self._identity.checkpoint(*self._ledger.head())
        return auditor_pb2.GetCheckpointResponse(checkpoint=ledger_pb2.SignedCheckpoint(note=note))

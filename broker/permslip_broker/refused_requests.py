"""Requests that never became a decision: what the caller is told, and what the ledger keeps of them.

Rules:

- The caller hears the reason, the field, and what to do. What went wrong inside stays in the log.
- The ledger gets the reason, the field and the digest of the refused bytes; never the bytes.
- What failed inside (a database, a stream that another took the place of) is no refusal, and is not recorded as one.
- An outsider must not fill the disk: at most ``per_second`` such entries are recorded; all are counted.

Example::

    refusal = refusals.refuse(error, "Deposit", request=envelope.SerializeToString())
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from typing import Final

from permslip._pb.permslip.v1 import session_pb2
from permslip.errors import AttenuationError, AuthorityError, PermslipError
from permslip.hosting.logs import get_log
from permslip.hosting.refusals import is_internal, reason_of, refusal_of
from permslip.quantities import Millis
from permslip.reasons import Reason
from permslip_broker.entries import refused
from permslip_broker.outcomes import RETRY_AFTER
from permslip_broker.recording import Recorder

__all__ = ["RefusedRequests"]

_log = get_log(__name__)

PER_SECOND: Final = 50


class RefusedRequests:
    """Tells, records and counts refusals.

    Args:
        recorder: the way into the ledger.
        clock: the broker's.
        per_second: entries that are recorded in one second.
    """

    def __init__(self, recorder: Recorder, clock: Callable[[], Millis], *, per_second: int = PER_SECOND) -> None:
        self._recorder, self._clock, self._per_second = recorder, clock, per_second
        self._second = 0
        self._recorded = 0
        self.count: Counter[tuple[str, Reason]] = Counter()

    def refuse(
        self, error: PermslipError, method: str, *, request: bytes = b"", caller: bytes = b""
    ) -> session_pb2.Refusal:
        """What to tell the caller; recorded on the way.

        Args:
            error: why.
            method: what was called, e.g. ``Deposit``.
            request: the refused bytes.
            caller: its key, where it had proved one.
        """
        reason, field = _reason(error), getattr(error, "field", "")
        self.count[method, reason] += 1
        _log.info("request_refused", method=method, reason=reason.name, field=field, detail=str(error))
        if not is_internal(error) and self.may_record():
            digest = sha256(request).digest() if request else b""
            entry = refused(reason, method, field=field, request_sha256=digest, caller=caller)
            self._recorder.append_soon(entry)
        refusal = refusal_of(error)
        refusal.code = reason.wire
        refusal.retry_after = refusal.retry_after or RETRY_AFTER.get(reason, 0)
        return refusal

    def may_record(self) -> bool:
        """Whether one more entry that an outsider caused may be recorded in this second; counts it."""
        second = self._clock() // 1_000
        if second != self._second:
            self._second, self._recorded = second, 0
        self._recorded += 1
        return self._recorded <= self._per_second


def _reason(error: PermslipError) -> Reason:
    """The reason, told more exactly than the status of a call needs it."""
    if isinstance(error, AuthorityError):
        return Reason.NOT_ALLOWED
    if isinstance(error, AttenuationError):
        return Reason.DELEGATION_WIDENS
    return reason_of(error)

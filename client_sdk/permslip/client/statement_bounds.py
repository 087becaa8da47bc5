"""How many statements can answer a call: whoever asks for those of a range is not sent statements without end.

Rules:

- An entry names one statement, and at most one more comes as its evidence: :data:`MOST_OF_ENTRY` for each entry, or one
  for each id that was asked for. Those told as erased count too, and a message that says nothing counts as one.
- A stream that broke off begins anew. What came before counts on, up to :data:`MOST_TIMES` the bound in all: a keeper
  who breaks off again and again cannot go on for ever either.

Example::

    >>> bound = StatementBound.of_range(0, 1)
    >>> bound.begin()
    >>> bound.take(FetchStatementsResponse(erased=[bytes(32)] * 3))
    Traceback (most recent call last):
        ...
    permslip.errors.MalformedError: statements: expected at most 2, got more. Fetch again. If it is found again, ...
"""

from __future__ import annotations

from typing import Final

from permslip._pb.permslip.v1.auditor_pb2 import FetchStatementsResponse
from permslip.errors import MalformedError

__all__ = ["MOST_OF_ENTRY", "MOST_TIMES", "StatementBound"]

MOST_OF_ENTRY: Final = 2
MOST_TIMES: Final = 8
_ID_BYTES: Final = 32


class StatementBound:
    """Counts what comes of one call.

    Args:
        most: statements at most; None: nobody knows, as the range has no end.
    """

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._now = self._in_all = 0

    @classmethod
    def of_range(cls, start: int, until: int) -> StatementBound:
        """For what the entries at ``start … until - 1`` name; ``until`` 0 is no end."""
        return cls(max(0, until - start) * MOST_OF_ENTRY if until else None)

    def begin(self) -> None:
        """A stream begins, perhaps once more."""
        self._now = 0

    def take(self, message: FetchStatementsResponse) -> None:
        """One message came.

        Raises:
            MalformedError: it is more than there can be, or an id in it is none.
        """
        if any(len(each) != _ID_BYTES for each in message.erased):
            raise MalformedError(f"expected ids of {_ID_BYTES} bytes.", field="statements.erased")
        count = max(1, len(message.statements) + len(message.erased))
        self._now += count
        self._in_all += count
        if self._most is not None and (self._now > self._most or self._in_all > self._most * MOST_TIMES):
            raise MalformedError(
                f"expected at most {self._most}, got more.",
                field="statements",
                remedy="Fetch again. If it is found again, the ledger's keeper and the broker have to explain it.",
            )

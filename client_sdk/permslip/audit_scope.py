"""What an auditor may see: the scope that the operator admitted her with, and what it hides.

A scope names nodes and dates. Broker and node hold every entry to it by this one function before they give it out; of a
hidden entry the auditor gets position and hash, which every proof needs, and nothing of what it says.

Rules, the first that holds hides an entry:

1. A scope that names nodes hides what is about another node: by the entry's slice, else, for accesses and refused
   requests, by whose ledger it stands in (so that the broker's refusals that name no slice are nobody's but its own).
2. A scope with dates hides accesses and refused requests that were recorded before its first moment, or at or after
   its last one. Recorded statements stay visible: they are the facts that every later decision was made by.

A node's ledger is read under a scope that names that node, or names none. A statement is given to whoever sees an entry
that names it. An admission without a scope is one without limits.

Example::

    >>> scope = pb.AuditScope(nodes=[bytes(32)])
    >>> may_read(bytes(32), scope, broker=b"b" * 32), may_read(b"n" * 32, scope, broker=b"b" * 32)
    (True, False)
"""

from __future__ import annotations

from typing import Final

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip._pb.permslip.v1.ledger_pb2 import LogEntry
from permslip.quantities import Millis
from permslip.reasons import Reason
from permslip.standing import Standing, key_reason

__all__ = [
    "auditor_reason",
    "entries_context",
    "is_unlimited",
    "make_scope",
    "may_read",
    "scope_of",
    "statements_context",
    "visible",
]

_ACCESSES: Final = frozenset({"access_decided", "access_answered", "request_refused"})


def make_scope(*, nodes: tuple[bytes, ...] = (), begins: int = 0, ends: int = 0) -> pb.AuditScope:
    """A scope, as an admission holds it.

    Args:
        nodes: roots of the nodes it is about; empty for the whole federation.
        begins, ends: UTC milliseconds, the first moment within and the first one after; 0 is no limit.
    """
    return pb.AuditScope(nodes=sorted(set(nodes)), until=ends, **{"from": begins})


def scope_of(standing: Standing) -> pb.AuditScope:
    """The scope that an auditor was admitted with."""
    return pb.AuditScope() if standing.admission is None else standing.admission.payload.audit_scope


def auditor_reason(standing: Standing | None, signer: pb.Signer, at: Millis) -> Reason:
    """Whether somebody who signs so is an auditor now.

    Returns:
        ``ALLOWED``, or why not: suspended, not admitted as an auditor, or another key than the current one.
    """
    if standing is not None and standing.suspension is not None:
        return Reason.REQUESTER_SUSPENDED
    if standing is None or not standing.is_admitted(pb.PRINCIPAL_KIND_AUDITOR, at):
        return Reason.REQUESTER_UNKNOWN
    return key_reason(standing, signer, at)


def may_read(ledger: bytes, scope: pb.AuditScope, *, broker: bytes) -> bool:
    """Whether a scope opens the ledger of this root at all; the broker's is open to every auditor, by entry."""
    return ledger == broker or not scope.nodes or ledger in scope.nodes


def is_unlimited(scope: pb.AuditScope) -> bool:
    """Whether a scope hides nothing at all, so that no entry need be looked at."""
    return not scope.nodes and not _begins(scope) and not scope.until


def visible(entry: LogEntry, scope: pb.AuditScope) -> bool:
    """Whether an auditor with this scope may read an entry."""
    event = entry.WhichOneof("event")
    if scope.nodes:
        if entry.HasField("slice"):
            if entry.slice.node not in scope.nodes:
                return False
        elif event in _ACCESSES and entry.ledger not in scope.nodes:
            return False
    if event in _ACCESSES:
        if entry.recorded_at < _begins(scope):
            return False
        return not scope.until or entry.recorded_at < scope.until
    return True


def entries_context(hello_id: bytes) -> bytes:
    """What a node's entries are sealed for (SPEC.md §3.1): the greeting that asked for them."""
    return b"ledger-entries" + hello_id


def statements_context(hello_id: bytes) -> bytes:
    """What a node's statements are sealed for: the greeting that asked for them."""
    return b"ledger-statements" + hello_id


def _begins(scope: pb.AuditScope) -> int:
    # The contract's name of the field is a keyword here.
    return int(getattr(scope, "from"))

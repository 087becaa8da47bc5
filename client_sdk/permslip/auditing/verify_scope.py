"""Verifying what is not there: ledgers that an auditor may read and has not, and entries that no scope hides.

Rules:

- The first ledger is the pinned broker's, every other one a node's.
- A node that was admitted and certified when the broker's ledger was fetched has a ledger: without it nobody can say
  that broker and nodes tell one story. That is «could not check», whoever left it out.
- A keeper's times do not go back. So of an entry that came as a hash alone, those before and after it say from when to
  when it can be; a scope with dates hides accesses outside of them, and a scope with nodes hides what is about others.
  What neither can hide was withheld.

Example::

    scope = scope_of_bundle(bundle)
    check_ledgers(bundle, trust, keepers, found)
    for each in bundle.ledgers():
        check_withheld(bundle, each, scope, found)
"""

from __future__ import annotations

import json
from collections.abc import Container
from typing import Any, Final

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.audit_scope import is_unlimited, make_scope, may_read
from permslip.auditing.bundle import BROKER, Bundle, LedgerRow
from permslip.auditing.codes import Code
from permslip.auditing.finding import Findings
from permslip.auditing.keepers import Keepers
from permslip.auditing.results import Trust
from permslip.errors import PermslipError
from permslip.keys import PublicKey, did_text

__all__ = ["check_ledgers", "check_nodes_held", "check_withheld", "hides_between", "scope_of_bundle"]

_TIMES: Final = "SELECT position, recorded_at, leaf IS NULL FROM entry WHERE ledger = ? ORDER BY position"
_LATEST: Final = "SELECT max(fetched_at) FROM checkpoint WHERE ledger = ?"


def scope_of_bundle(bundle: Bundle) -> pb.AuditScope:
    """The scope that a bundle was fetched with; one that cannot be read limits nothing, so that all must be there."""
    try:
        told: Any = json.loads(bundle.meta("scope") or "{}")
        nodes = tuple(PublicKey.from_did(str(each), field="scope.nodes").raw for each in told.get("nodes", ()))
        return make_scope(nodes=nodes, begins=told.get("from", 0), ends=told.get("until", 0))
    except (ValueError, TypeError, AttributeError, RecursionError, PermslipError):
        return pb.AuditScope()


def hides_between(scope: pb.AuditScope, first: int, last: int | None) -> bool:
    """Whether the dates of a scope can hide an access that was recorded between two times.

    Args:
        scope: the auditor's.
        first, last: UTC milliseconds, of the visible entries before and after it; None: there is none after it.
    """
    return first < getattr(scope, "from") or bool(scope.until and (last is None or last >= scope.until))


def check_ledgers(bundle: Bundle, trust: Trust, keepers: Keepers, found: Findings) -> None:
    """Check that each ledger stands for who it says, and that none is missing that the scope opens."""
    ledgers = bundle.ledgers()
    for each in ledgers:
        is_broker = each.root == trust.broker_root
        if (each.ledger == BROKER, each.kind, each.did) != (is_broker, "broker" if is_broker else "node", _did(each)):
            told = f"{each.name}: the bundle calls it ledger {each.ledger}, a {each.kind}'s, of {each.did}."
            found.add(Code.LEDGER_LABEL, told, ledger=each.ledger)
    check_nodes_held(bundle, trust, keepers, {each.root for each in ledgers}, found)


def check_nodes_held(bundle: Bundle, trust: Trust, keepers: Keepers, held: Container[bytes], found: Findings) -> None:
    """Check that the ledger of each admitted node is held that the scope opens.

    Args:
        bundle: what was fetched.
        trust: whom the auditor trusts.
        keepers: who was admitted.
        held: roots of the nodes whose ledgers are there.
        found: takes the findings.
    """
    scope = scope_of_bundle(bundle)
    (at,) = bundle.db.execute(_LATEST, (BROKER,)).fetchone()
    for root in keepers.nodes(at=at or 0):
        if root not in held and may_read(root, scope, broker=trust.broker_root):
            message = f"the bundle holds nothing of the ledger of {did_text(root)}, an admitted node."
            found.add(Code.LEDGER_UNREACHED, message, severity="warning", root=root)
            found.leave_unchecked(f"{message[0].upper()}{message[1:]} Fetch it.")


def check_withheld(bundle: Bundle, ledger: LedgerRow, scope: pb.AuditScope, found: Findings) -> None:
    """Find entries that came as hashes alone though the scope cannot hide them."""
    # Under a scope that names nodes, what the broker's ledger hides may be about any other node.
    if is_unlimited(scope) or (scope.nodes and ledger.root not in scope.nodes):
        return
    position, before, hidden = -1, 0, 0
    for position, recorded_at, is_hidden in bundle.db.execute(_TIMES, (ledger.ledger,)):
        if is_hidden:
            hidden += 1
        elif recorded_at is not None:
            if hidden and not hides_between(scope, before, recorded_at):
                _withheld(ledger, position - hidden, position, found)
            before, hidden = recorded_at, 0
    if hidden and not hides_between(scope, before, None):
        _withheld(ledger, position + 1 - hidden, position + 1, found)


def _withheld(ledger: LedgerRow, start: int, end: int, found: Findings) -> None:
    which = f"leaf {start}" if end == start + 1 else f"leaves {start} to {end - 1}"
    message = f"{ledger.name}: {which} came as a hash alone, and the auditor's scope does not hide what stands there."
    found.add(Code.LEAF_HIDDEN, message, ledger=ledger.ledger, position=start)


def _did(ledger: LedgerRow) -> str:
    try:
        return did_text(ledger.root)
    except PermslipError:
        return ""

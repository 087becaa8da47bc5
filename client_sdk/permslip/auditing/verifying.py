"""Verifying a bundle: that it is what the keepers signed, whole and unaltered. Nothing is asked of a server.

The steps, in order:

1. The bundle is of the federation and keys that the auditor trusts, and no node's ledger is missing.
2. Every checkpoint is signed by the key that its ledger's root had certified, and cosigned by the pinned witnesses.
3. Every leaf is strictly encoded, of its ledger, dated plausibly, and under the tree whose root each checkpoint signs:
   so all visits saw one history. What came as a hash alone is what the auditor's scope can hide.
4. The chain of every slice has no hole.
5. Every statement's signatures and id hold; what a leaf names is there, or a later leaf says when it was erased.
6. What ended a fetch early is a fault here too: a keeper that forks or withholds gives no leaves to be verified. Where
   the last fetch did not reach a ledger, what is held of it is old: «could not check».

Memory does not grow with the bundle.

Example::

    with Bundle.open("audit.db") as bundle:
        result = verify(bundle, Trust("grand-bend", broker_root=root, operator=operator))
    sys.exit(result.exit_code)
"""

from __future__ import annotations

import json
from typing import Final

from permslip.audit_scope import is_unlimited
from permslip.auditing.bundle import Bundle
from permslip.auditing.codes import Code
from permslip.auditing.finding import Findings
from permslip.auditing.keepers import Keepers
from permslip.auditing.results import Progress, Result, Trust, silent
from permslip.auditing.verify_checkpoints import check_checkpoints, refused_by_broker
from permslip.auditing.verify_leaves import check_leaves
from permslip.auditing.verify_scope import check_ledgers, check_withheld, scope_of_bundle
from permslip.auditing.verify_statements import check_erased, check_slices, check_statements

__all__ = ["verify"]

# What a fetch meets and cannot go past: verifying would not see it.
_FROM_FETCH: Final = (
    Code.CHECKPOINT_MALFORMED,
    Code.CHECKPOINT_SIGNATURE,
    Code.CHECKPOINT_KEY,
    Code.CHECKPOINT_FORK,
    Code.CHECKPOINT_ROLLBACK,
    Code.LEDGER_REPLACED,
    Code.POSITION_GAP,
)

_UNREACHED: Final = "SELECT message, details FROM finding WHERE step = 'fetch' AND code = ?"


def verify(bundle: Bundle, trust: Trust, *, progress: Progress = silent) -> Result:
    """Verify a bundle.

    Args:
        bundle: what was fetched.
        trust: as the auditor was told, by another way than the bundle.
        progress: told how far it is.

    Returns:
        what was found; it is in the bundle's tables ``finding`` and ``run`` as well.

    Raises:
        ConfigurationError: the bundle is of another federation, broker or operator.
        MalformedError: the file is damaged.
    """
    bundle.check_trust(trust)
    with bundle.findings("verify") as found:
        keepers = Keepers.of(bundle, trust)
        ledgers = bundle.ledgers()
        found.count("ledgers", len(ledgers))
        if not ledgers or ledgers[0].root != trust.broker_root:
            found.leave_unchecked("The bundle holds nothing of the broker's ledger: fetch again.")
        if trust.witness_set is None:
            found.add(Code.COSIGNATURE_NONE, "no witness set was given.", severity="note")
        refused = refused_by_broker(bundle)
        for each in ledgers:
            check_checkpoints(bundle, each, trust, keepers, found, is_refused=each.root in refused)
        scope = scope_of_bundle(bundle)
        check_ledgers(bundle, trust, keepers, found)
        for each in ledgers:
            check_leaves(bundle, each, trust, found, progress, hides=not is_unlimited(scope))
            check_withheld(bundle, each, scope, found)
        check_slices(bundle, found, progress)
        check_statements(bundle, trust, found, progress)
        check_erased(bundle, found)
        _take_from_fetch(bundle, found)
    return found.result


def _take_from_fetch(bundle: Bundle, found: Findings) -> None:
    rows = bundle.db.execute(
        "SELECT code, ledger, position, message FROM finding WHERE step IN ('fetch', 'watch') AND severity = 'fault'"
    ).fetchall()
    for code, ledger, position, message in rows:
        if code in _FROM_FETCH:
            found.add(Code(code), f"while fetching: {message}", ledger=ledger, position=position)
    held = {each.root.hex(): each.ledger for each in bundle.ledgers()}
    for message, details in bundle.db.execute(_UNREACHED, (Code.LEDGER_UNREACHED,)).fetchall():
        ledger = held.get(json.loads(details).get("root"))
        if ledger is not None:  # one that was never reached is missing from the bundle, which is told already
            told = f"while fetching: {message}"
            found.add(Code.LEDGER_UNREACHED, told, ledger=ledger, severity="warning")
            found.leave_unchecked(told)

"""Reconcile: the broker's ledger against the nodes', access by access and statement by statement.

Replay asks of each ledger whether it is right by itself. Here it is asked whether they tell the same story: that what
was routed is what was served, that the answer relayed is the answer released, that a node holds what the broker says it
pushed. A keeper who lies must then lie in the same way as every other.

==================================================  ==================================================================
:mod:`permslip.auditing.reconcile_books`            one pass: the ledgers as narrow tables
:mod:`permslip.auditing.reconcile_accesses`         routed, served, how it ended, clocks
:mod:`permslip.auditing.reconcile_answers`          manifests, answers after a revocation, uses
:mod:`permslip.auditing.reconcile_statements`       pushes, acknowledgements, nodes' words, quorum
==================================================  ==================================================================

Rules:

- One query for each check; time grows with the number of entries, memory does not.
- A node that the auditor's scope opens and whose ledger is not there is «could not check», though others are there.
- What else cannot be known (an end that a crash may have lost, an entry outside the scope) is counted and not held
  against anybody.
- Receipts of requesters are not in the ledgers yet: what a requester received is taken from the broker's bytes.

Example::

    result = reconcile(bundle, trust)
    sys.exit(result.exit_code)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from permslip.auditing.bundle import Bundle
from permslip.auditing.codes import Code
from permslip.auditing.finding import Findings
from permslip.auditing.keepers import Keepers
from permslip.auditing.reconcile_accesses import check_accesses
from permslip.auditing.reconcile_answers import check_answers
from permslip.auditing.reconcile_books import Books
from permslip.auditing.reconcile_statements import check_statements
from permslip.auditing.results import Progress, Result, Trust, silent
from permslip.auditing.verify_scope import check_nodes_held
from permslip.errors import ConfigurationError

__all__ = ["reconcile"]

_GAPS: Final = """
    SELECT ledger, position, before FROM (
        SELECT ledger, position, lag(position, 1, -1) OVER (PARTITION BY ledger ORDER BY position) AS before FROM entry)
    WHERE position <> before + 1
"""


def reconcile(bundle: Bundle, trust: Trust, *, progress: Progress = silent) -> Result:
    """Compare the ledgers of a bundle with one another.

    Args:
        bundle: findings are kept in it.
        trust: federation, broker and operator.
        progress: told where it is.

    Raises:
        ConfigurationError: the bundle is of something else, or lacks the broker's ledger or every node's.
    """
    bundle.check_trust(trust)
    with bundle.findings("reconcile") as found:
        books = Books.read(bundle, progress)
        if not books.broker.size or not books.nodes:
            raise ConfigurationError(
                "holds the ledgers of one side alone: there is nothing to compare.",
                key=str(bundle.path),
                remedy="Fetch the broker's ledger and a node's: permslip audit fetch.",
            )
        checks: list[Callable[[Books, Findings], None]] = [_check_gaps, check_accesses, check_answers, check_statements]
        for number, check in enumerate(checks):
            progress("reconcile", number, len(checks))
            check(books, found)
        progress("reconcile", len(checks), len(checks))
        held = {each.root for each in books.nodes.values()}
        check_nodes_held(bundle, trust, Keepers.of(bundle, trust), held, found)
        found.count("ledgers", 1 + len(books.nodes))
    return found.result


def _check_gaps(books: Books, found: Findings) -> None:
    for ledger, position, before in books.each(_GAPS):
        found.add(
            Code.POSITION_GAP,
            f"position {position} follows {before}.",
            ledger=ledger,
            position=position,
        )

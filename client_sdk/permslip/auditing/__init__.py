"""Auditing: ledgers pulled into one file, and everything that is checked of that file alone.

=============================================  ====================================================================
:mod:`permslip.auditing.bundle`                the audit bundle: one SQLite file
:mod:`permslip.auditing.bundle_schema`         its tables and views
:mod:`permslip.auditing.entry_rows`            a ledger's leaf, decoded strictly into the bundle's columns
:mod:`permslip.auditing.fetching`              one visit: checkpoints, then :mod:`~permslip.auditing.pulling` and
                                               :mod:`~permslip.auditing.examining`
:mod:`permslip.auditing.verifying`             checkpoints, tree, slice chains, statements
:mod:`permslip.auditing.foreign_logs`          verifying a tlog-tiles log of anybody
:mod:`permslip.auditing.replaying`             every decision once more, by the facts as of its position
:mod:`permslip.auditing.bundle_facts`          those facts: a store that answers like the broker's and the nodes'
:mod:`permslip.auditing.reconciling`           the broker's ledger against the nodes'
:mod:`permslip.auditing.results`               whom an auditor trusts, and what a check found
:mod:`permslip.auditing.codes`                 every finding's code: what it means, what to do
=============================================  ====================================================================

Rules:

- What is checked is the bundle; nothing is asked of a server then. The keys to trust are given anew each time, and
  compared with those that the bundle names.
- Memory does not grow with the bundle.
- A check ends clean, with findings, or could not be made: 0, 1, 2 as exit codes.
"""

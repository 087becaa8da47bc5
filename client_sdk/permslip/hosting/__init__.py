"""What a broker and a node both need to run as a service.

The client library never imports this package: it needs the ``[broker]`` or ``[node]`` extra. What only one of
the two does is not here, but in ``permslip_broker`` or ``permslip_node``.

==========================================  ===================================================================
:mod:`permslip.hosting.database`            an engine from a URL, transactions, migrations
:mod:`permslip.hosting.schema`              the ledger's tables
:mod:`permslip.hosting.ledger`              the append-only ledger with group commit; begin reading here
:mod:`permslip.hosting.ledger_reading`      its leaves, proofs and slices' chains, also without appending
:mod:`permslip.hosting.drafts`              what is asked of the ledger, and what it answers
:mod:`permslip.hosting.appending`           one transaction: lock, recheck, insert, commit (with ``batch``, ``rows``)
:mod:`permslip.hosting.leaves`              the bytes of a leaf
:mod:`permslip.hosting.facts_store`         recorded statements and what they mean
:mod:`permslip.hosting.configuration`       TOML and environment into frozen dataclasses
:mod:`permslip.hosting.logs`                JSON logs with one query id through all processes
:mod:`permslip.hosting.metrics`             Prometheus instruments and where they are read
:mod:`permslip.hosting.serving`             the gRPC server: TLS, keepalive, health, drain
:mod:`permslip.hosting.guarding`            what stands around every handler
:mod:`permslip.hosting.refusals`            the one table from errors to gRPC status and public text
==========================================  ===================================================================
"""

from __future__ import annotations

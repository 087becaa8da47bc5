"""What a broker and a node both need to run as a service.

The client library never imports this package: it needs the ``[broker]`` or ``[node]`` extra. Nothing here knows a
grant or a record; those belong to ``permslip_broker`` and ``permslip_node``.

============================================  =====================================================================
:mod:`permslip.hosting.database`              an engine from a URL, transactions, migrations
:mod:`permslip.hosting.schema`                the ledger's tables
:mod:`permslip.hosting.ledger`                the append-only ledger with group commit
:mod:`permslip.hosting.configuration`         TOML and environment into frozen dataclasses
:mod:`permslip.hosting.logs`                  JSON logs with one query id through all processes
:mod:`permslip.hosting.metrics`               Prometheus instruments and where they are read
:mod:`permslip.hosting.serving`               the gRPC server: TLS, keepalive, health, drain
:mod:`permslip.hosting.refusals`              the one table from errors to gRPC status and public text
============================================  =====================================================================
"""

from __future__ import annotations

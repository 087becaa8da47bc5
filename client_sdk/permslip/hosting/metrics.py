"""Metrics: the instruments that broker and node both have, and the loopback port where Prometheus reads them.

Labels hold methods, codes and nodes' positions in a fixed set; never a key, handle or anything about a learner.

===================================  =========  ============================================================
``permslip_requests_total``          counter    calls answered, by ``method`` and ``code``
``permslip_request_seconds``         histogram  how long they took, by ``method``
``permslip_open_queries``            gauge      queries that are being worked on
``permslip_attached_nodes``          gauge      nodes with an open stream (broker)
``permslip_lease_age_seconds``       gauge      time since the nonce of the newest answered lease was sent (node)
``permslip_ledger_size``             gauge      entries in the ledger, as of this process's last commit
``permslip_ledger_append_seconds``   histogram  one group commit, from waking to durable
``permslip_ledger_batch_leaves``     histogram  leaves in one group commit
===================================  =========  ============================================================

Example::

    >>> metrics = Metrics()
    >>> metrics.requests.labels(method="Deposit", code="OK").inc()
    >>> with exposed(metrics, "127.0.0.1", 0) as port:                  # doctest: +SKIP
    ...     scrape(f"http://127.0.0.1:{port}/metrics")
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    make_wsgi_app,
    start_http_server,
)

from permslip.errors import ConfigurationError
from permslip.hosting.tile_serving import TilePages

__all__ = ["Metrics", "exposed"]

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LEAVES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000)


class Metrics:
    """One process's instruments, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter("permslip_requests", "Calls answered.", ("method", "code"), registry=self.registry)
        self.request_seconds = Histogram(
            "permslip_request_seconds", "How long calls took.", ("method",), buckets=_SECONDS, registry=self.registry
        )
        self.open_queries = Gauge("permslip_open_queries", "Queries being worked on.", registry=self.registry)
        self.attached_nodes = Gauge("permslip_attached_nodes", "Nodes with an open stream.", registry=self.registry)
        self._lease_age = Gauge(
            "permslip_lease_age_seconds",
            "Time since the nonce of the newest answered lease was sent.",
            registry=self.registry,
        )
        self._ledger_size = Gauge("permslip_ledger_size", "Entries in the ledger.", registry=self.registry)
        self._append_seconds = Histogram(
            "permslip_ledger_append_seconds",
            "One group commit, from waking to durable.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._batch_leaves = Histogram(
            "permslip_ledger_batch_leaves", "Leaves in one group commit.", buckets=_LEAVES, registry=self.registry
        )

    def batch_appended(self, leaves: int, seconds: float) -> None:
        """What a ledger reports of every commit: its ``on_batch``."""
        self._append_seconds.observe(seconds)
        self._batch_leaves.observe(leaves)

    def watch_ledger(self, size: Callable[[], int]) -> None:
        """Where the ledger's size is read when metrics are."""
        self._ledger_size.set_function(size)

    def watch_lease(self, age_seconds: Callable[[], float]) -> None:
        """Where the lease's age is read when metrics are."""
        self._lease_age.set_function(age_seconds)


@contextmanager
def exposed(metrics: Metrics, host: str, port: int, *, pages: TilePages | None = None) -> Iterator[int]:
    """Serve the metrics over HTTP while the block runs.

    Args:
        metrics: what is served.
        host: address to listen on; loopback unless the configuration says otherwise.
        port: port, or 0 for any.
        pages: a ledger's checkpoint and tiles, served beside them.

    Yields:
        the port.

    Raises:
        ConfigurationError: the address is taken or is not this machine's.
    """
    try:
        server, thread = start_http_server(port, addr=host, registry=metrics.registry)
    except OSError as error:
        raise ConfigurationError(
            f"metrics cannot be served at {host}:{port}: {error.strerror or error}.",
            key="metrics",
            remedy="Name an address of this machine and a free port.",
        ) from error
    if pages is not None:
        server.set_app(pages.before(make_wsgi_app(metrics.registry)))
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

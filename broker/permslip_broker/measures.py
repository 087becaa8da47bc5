"""What Prometheus reads of a broker, beside what every service has.

======================================  =======  =========================================================
``permslip_broker_decided_total``       counter  queries decided, by ``reason``
``permslip_broker_answered_total``      counter  what became of allowed ones, by ``reason``
``permslip_broker_refused_total``       counter  requests that never became a decision, by ``method`` and ``reason``
``permslip_broker_relayed_bytes_total`` counter  sealed bytes passed on
``permslip_broker_stray_answers_total`` counter  answers that nobody had asked for
``permslip_broker_held_bytes``          gauge    sealed bytes that wait for requesters or are being written
``permslip_broker_witnesses``           gauge    witnesses that are attached
``permslip_broker_witnesses_needed``    gauge    witnesses that must cosign a checkpoint
``permslip_broker_cosigned_entries``    gauge    entries of the ledger that the last checkpoint covers which they did
``permslip_broker_not_cosigned_total``  counter  checkpoints that nodes refused, and cosignatures that did not hold, by
                                                 ``reason``
``permslip_broker_node_faults_total``   counter  checkpoints of nodes' ledgers that this broker refused, by ``fault``
======================================  =======  =========================================================

All are read from the broker's own tallies when Prometheus asks; nothing is counted twice on the way of a query.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from permslip.hosting.metrics import Metrics
from permslip_broker.attachments import Attachments
from permslip_broker.node_checkpoints import NodeCheckpoints
from permslip_broker.refused_requests import RefusedRequests
from permslip_broker.routing import Routing
from permslip_broker.witnessing import Witnessing

__all__ = ["watch_broker", "watch_witnessing"]


class _Broker(Collector):
    def __init__(self, routing: Routing, refusals: RefusedRequests) -> None:
        self._routing, self._refusals = routing, refusals

    def collect(self) -> Iterable[Metric]:
        """Called when metrics are read."""
        return list(self._families())

    def _families(self) -> Iterator[Metric]:
        tally = self._routing.tally
        decided = CounterMetricFamily("permslip_broker_decided", "Queries decided.", labels=["reason"])
        for reason, count in list(tally.decided.items()):
            decided.add_metric([reason.name], count)
        yield decided
        answered = CounterMetricFamily("permslip_broker_answered", "What became of allowed queries.", labels=["reason"])
        for reason, count in list(tally.answered.items()):
            answered.add_metric([reason.name], count)
        yield answered
        refused = CounterMetricFamily(
            "permslip_broker_refused", "Requests that never became a decision.", labels=["method", "reason"]
        )
        for (method, reason), count in list(self._refusals.count.items()):
            refused.add_metric([method, reason.name], count)
        yield refused
        yield CounterMetricFamily("permslip_broker_relayed_bytes", "Sealed bytes passed on.", value=tally.relayed_bytes)
        yield CounterMetricFamily(
            "permslip_broker_stray_answers", "Answers that nobody had asked for.", value=tally.stray_answers
        )
        yield GaugeMetricFamily("permslip_broker_held_bytes", "Sealed bytes waiting.", value=self._routing.held_bytes)


class _Witnesses(Collector):
    def __init__(self, witnessing: Witnessing, nodes: NodeCheckpoints) -> None:
        self._witnessing, self._nodes = witnessing, nodes

    def collect(self) -> Iterable[Metric]:
        """Called when metrics are read."""
        refused = CounterMetricFamily(
            "permslip_broker_not_cosigned", "Checkpoints that nodes did not cosign.", labels=["reason"]
        )
        for reason, count in list(self._witnessing.refused.items()):
            refused.add_metric([reason], count)
        faults = CounterMetricFamily(
            "permslip_broker_node_faults", "Checkpoints of nodes' ledgers that were refused.", labels=["fault"]
        )
        for fault, count in list(self._nodes.refused.items()):
            faults.add_metric([fault], count)
        return [refused, faults]


def watch_witnessing(metrics: Metrics, witnessing: Witnessing, nodes: NodeCheckpoints) -> None:
    """Let be seen whether the witnesses keep up."""
    registry = metrics.registry
    registry.register(_Witnesses(witnessing, nodes))
    Gauge("permslip_broker_witnesses", "Attached witnesses.", registry=registry).set_function(
        lambda: witnessing.attached
    )
    Gauge("permslip_broker_witnesses_needed", "Witnesses that must cosign.", registry=registry).set_function(
        lambda: witnessing.needed
    )
    Gauge(
        "permslip_broker_cosigned_entries", "Entries of the last cosigned checkpoint.", registry=registry
    ).set_function(lambda: witnessing.best.size if witnessing.best is not None else 0)


def watch_broker(metrics: Metrics, routing: Routing, refusals: RefusedRequests, attachments: Attachments) -> None:
    """Let a broker's figures be read where its metrics are."""
    metrics.registry.register(_Broker(routing, refusals))
    metrics.open_queries.set_function(lambda: routing.open_queries)
    metrics.attached_nodes.set_function(lambda: len(attachments))

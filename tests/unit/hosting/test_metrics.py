"""Metrics: what can be read, where, and until when."""

from __future__ import annotations

import urllib.request
from urllib.error import URLError

import pytest

from permslip.errors import ConfigurationError
from permslip.hosting.metrics import Metrics, exposed


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        return str(answer.read().decode())


def test_instruments_are_read_over_http_until_closed() -> None:
    metrics = Metrics()
    metrics.requests.labels(method="Deposit", code="OK").inc()
    metrics.batch_appended(200, 0.004)
    metrics.watch_ledger(lambda: 1_234)
    metrics.watch_lease(lambda: 0.75)
    metrics.attached_nodes.set(4)
    metrics.open_queries.set(7)

    with exposed(metrics, "127.0.0.1", 0) as port:
        text = scrape(port)

    for line in (
        'permslip_requests_total{code="OK",method="Deposit"} 1.0',
        "permslip_ledger_batch_leaves_sum 200.0",
        'permslip_ledger_append_seconds_bucket{le="0.005"} 1.0',
        "permslip_ledger_size 1234.0",
        "permslip_lease_age_seconds 0.75",
        "permslip_attached_nodes 4.0",
        "permslip_open_queries 7.0",
    ):
        assert line in text
    with pytest.raises(URLError):
        scrape(port)


def test_two_services_of_one_process_do_not_mix() -> None:
    first, second = Metrics(), Metrics()

    first.requests.labels(method="Deposit", code="OK").inc()

    assert second.registry.get_sample_value("permslip_requests_total", {"method": "Deposit", "code": "OK"}) is None


def test_address_that_is_taken_is_a_configuration_error() -> None:
    with (
        exposed(Metrics(), "127.0.0.1", 0) as port,
        pytest.raises(ConfigurationError, match=f"127.0.0.1:{port}"),
        exposed(Metrics(), "127.0.0.1", port),
    ):
        pass

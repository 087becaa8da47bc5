"""Stopping by a signal, and alerts as lines."""

from __future__ import annotations

import json
import os
import signal

import pytest

from permslip.auditing.alerts import Alert
from permslip.auditing.stopping import Stop, stopping


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_asks_to_stop_and_its_handler_is_put_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)

    with stopping() as stop:
        os.kill(os.getpid(), number)
        assert await stop.wait(None)
        assert stop.asked

    assert signal.getsignal(number) is before


async def test_waiting_ends_after_its_time() -> None:
    assert not await Stop().wait(0.0)


async def test_what_was_asked_before_is_not_waited_for() -> None:
    stop = Stop()
    stop.ask()

    assert await stop.wait(None)


def test_an_alert_is_one_line_whatever_a_ledger_says() -> None:
    alert = Alert("2026-11-22T15:58:01Z", "replay", "LEAF_HASH", "fault", "evil\x1b[2J\nname", 3, "a\r\nb\u202e")

    assert alert.line.isprintable()
    assert "\n" not in alert.line
    assert json.loads(json.dumps(alert.to_dict()))["position"] == 3


def test_an_alert_about_no_entry_names_the_ledger_alone() -> None:
    alert = Alert.now("watch", "LEDGER_UNREACHED", "warning", "school", None, "is not connected.")

    assert alert.line.endswith(" WARNING LEDGER_UNREACHED school: is not connected.")

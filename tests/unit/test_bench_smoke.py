"""The benchmarks run, and their figures are written. Nothing here judges a time."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.bench import federated_query
from tests.bench.__main__ import PARTS, run
from tests.bench.figures import Figure, Report, percentile
from tests.bench.scale import SMALLEST


@pytest.mark.e2e
@pytest.mark.parametrize("part", sorted(PARTS))
def test_a_part_of_the_benchmarks_gives_figures(part: str, tmp_path: Path) -> None:
    report = asyncio.run(run(SMALLEST, [part], tmp_path))

    assert report.figures
    assert report.table()


@pytest.mark.e2e
def test_a_profile_is_written_for_every_party_of_a_query(tmp_path: Path) -> None:
    asyncio.run(federated_query.profile(SMALLEST, tmp_path, tmp_path / "profiles"))

    names = {each.name for each in (tmp_path / "profiles").iterdir()}
    assert names == {"requester.txt", "broker-broker.txt", "node-node-0.txt"}


def test_a_ratio_is_judged_by_its_bound() -> None:
    slow = Figure("latency", 20, "ms", baseline=10, against="floor", at_most=1.6)
    fast = Figure("latency", 15, "ms", baseline=10, against="floor", at_most=1.6)
    scarce = Figure("rate", 20, "per s", baseline=50, against="floor", at_least=0.5)
    plenty = Figure("rate", 30, "per s", baseline=50, against="floor", at_least=0.5)

    assert [each.met for each in (slow, fast, scarce, plenty)] == [False, True, False, True]


def test_a_value_without_ratio_is_judged_by_its_own_bound() -> None:
    assert Figure("start", 149, "ms", value_at_most=150).met is True
    assert Figure("start", 151, "ms", value_at_most=150).met is False
    assert Figure("start", 151, "ms").met is None


def test_a_ratio_whose_baseline_is_missing_is_missed() -> None:
    assert Figure("latency", 20, "ms", at_most=1.6).met is False


def test_what_was_missed_and_left_out_stands_in_the_file(tmp_path: Path) -> None:
    report = Report(settings={"scale": "quick"})
    report.add(Figure("latency", 20, "ms", baseline=10, against="floor", at_most=1.6), Figure("plain", 1, "ms"))
    report.leave_out("import", "no data")

    report.write(tmp_path / "deep" / "bench.json")

    written = json.loads((tmp_path / "deep" / "bench.json").read_text(encoding="utf-8"))
    assert written["missed"] == ["latency"]
    assert written["left_out"] == {"import": "no data"}
    assert [figure["ratio"] for figure in written["figures"]] == [2.0, None]
    assert "MISSED" in report.table()


def test_a_percentile_is_a_value_that_was_measured() -> None:
    assert percentile([5, 1, 3], 0.5) == 3
    assert percentile([5, 1, 3], 0.99) == 5
    assert percentile([7], 0.5) == 7

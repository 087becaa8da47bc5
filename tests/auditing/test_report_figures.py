"""What a report counts: accesses once, time without holes, revocations against last uses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from permslip.auditing.charts import Bar
from permslip.auditing.figures import Figures, time_text
from permslip.auditing.report_figures import figures_section
from permslip.auditing.report_parts import Chart
from tests.auditing.report_bundles import DAY, START, HandMade, some_id


@pytest.fixture
def made(tmp_path: Path) -> Iterator[HandMade]:
    made = HandMade(tmp_path / "audit.db").ledgers()
    yield made
    made.bundle.close()


def figures(made: HandMade) -> Figures:
    return Figures(made.bundle.db)


def test_an_access_that_broker_and_school_logged_counts_once(made: HandMade) -> None:
    made.access(1)

    totals = figures(made).totals()

    assert (totals.accesses, totals.answered) == (1, 1)


def test_refusals_are_told_apart_by_who_refused(made: HandMade) -> None:
    made.access(1)
    made.access(2, broker="GRANT_REVOKED")
    made.access(3, school="WITHHELD")
    made.access(4, school="NO_LEASE")

    totals = figures(made).totals()

    assert (totals.answered, totals.refused_by_broker, totals.refused_by_schools) == (1, 1, 2)


def test_an_answer_that_a_school_refused_is_no_answer_that_was_cut_short(made: HandMade) -> None:
    made.access("refused", school="USES_EXHAUSTED")
    made.add(1, "access_answered", query_id=some_id("query", "refused"), reason="USES_EXHAUSTED")
    made.access("away", school=None)
    made.add(1, "access_answered", query_id=some_id("query", "away"), reason="UNREACHABLE")
    made.access("whole")
    made.add(1, "access_answered", query_id=some_id("query", "whole"), reason="ALLOWED")

    totals = figures(made).totals()

    assert (totals.refused_by_schools, totals.cut_short) == (1, 1)


def test_an_access_that_only_the_schools_ledger_shows_counts(made: HandMade) -> None:
    made.add(2, "access_decided", query_id=some_id(1), reason="ALLOWED", decided_at=START)

    assert figures(made).totals().accesses == 1


def test_learners_of_one_school_are_counted_by_slice(made: HandMade) -> None:
    for number in range(6):
        made.access(number, learner=number % 4)

    found = figures(made)

    assert found.totals().slices == 4
    assert found.by_school(limit=5).rows == (Bar("Grand Bend ISD", (4,)),)


def test_providers_are_ranked_and_what_is_cut_is_counted(made: HandMade) -> None:
    for number in range(9):
        for access in range(number + 1):
            made.access((number, access), requester=made.provider(f"Provider {number}"))

    ranked = figures(made).by_provider(limit=3)

    assert [row.label for row in ranked.rows] == ["Provider 8", "Provider 7", "Provider 6"]
    assert ranked.total == 9


def test_a_cut_list_says_so(made: HandMade) -> None:
    for number in range(15):
        made.access(number, requester=made.provider(f"Provider {number}"))

    charts = [part for part in figures_section(figures(made)).parts if isinstance(part, Chart)]

    assert [chart.note for chart in charts if "party" in chart.title] == ["The first 12 of 15 are shown."]


def test_somebody_without_a_name_is_shown_by_key(made: HandMade) -> None:
    made.access(1)

    assert figures(made).by_provider(limit=3).rows[0].label.startswith("a person, key ")


def test_refusals_before_any_decision_are_counted_beside_those_of_accesses(made: HandMade) -> None:
    made.access(1, broker="GRANT_EXPIRED")
    made.add(1, "request_refused", reason="BAD_SIGNATURE", recorded_at=START)
    made.add(2, "request_refused", reason="BAD_SIGNATURE", recorded_at=START)

    found = figures(made)

    assert found.refusals(limit=5).rows == (Bar("BAD_SIGNATURE", (0, 2)), Bar("GRANT_EXPIRED", (1, 0)))
    assert found.totals().turned_away == 2


@pytest.mark.parametrize(
    ("span", "each"),
    [
        (0, "one second"),
        (30_000, "one second"),
        (3_600_000, "5 minutes"),
        (DAY, "one hour"),
        (30 * DAY, "one day"),
        (365 * DAY, "4 weeks"),
        (30 * 365 * DAY, "one year"),
        (40_000 * 365 * DAY, "1001 years"),
    ],
)
def test_columns_of_time_are_few_however_long_it_was(made: HandMade, span: int, each: str) -> None:
    made.access(1, at=START)
    made.access(2, at=START + span)

    series = figures(made).over_time()

    assert series.each == each
    assert len(series.rows) <= 41
    assert sum(row.total for row in series.rows) == 2


def test_time_has_no_holes(made: HandMade) -> None:
    made.access(1, at=START)
    made.access(2, at=START + 20 * DAY)

    rows = figures(made).over_time().rows

    assert len(rows) == 21
    assert [row.total for row in rows].count(0) == 19


@pytest.mark.parametrize("at", [0, -(2**62), 2**62])
def test_absurd_clocks_are_shown_as_they_are(made: HandMade, at: int) -> None:
    made.access(1, at=at)
    made.access(2, at=START)

    assert sum(row.total for row in figures(made).over_time().rows) == 2


def test_a_time_that_no_calendar_holds_is_a_number() -> None:
    assert time_text(2**62) == f"{2**62} ms"
    assert time_text(START) == "14 Oct 2026 17:46"
    assert time_text(None) == "unknown"


@pytest.mark.parametrize(
    ("used", "label"),
    [
        (None, "never used"),
        (START + 40 * DAY - 1_000, "used within the hour before"),
        (START + 39 * DAY, "1 to 7 days before"),
        (START, "more than 30 days before"),
        (START + 40 * DAY + 3_000, "used after it"),
    ],
)
def test_a_revoked_consent_is_counted_by_its_last_use(made: HandMade, used: int | None, label: str) -> None:
    grant = some_id("grant")
    made.granted(grant, revoked_at=START + 40 * DAY)
    if used is not None:
        made.access(1, at=used, grant=grant)

    rows, longest = figures(made).revocations()

    assert [row.label for row in rows if row.total] == [label]
    assert longest == (3_000 if label == "used after it" else 0)


def test_what_a_school_refused_after_a_revocation_is_no_use(made: HandMade) -> None:
    grant = some_id("grant")
    made.granted(grant, revoked_at=START)
    made.access(1, at=START + 1_000, grant=grant, school="GRANT_REVOKED")

    rows, _ = figures(made).revocations()

    assert [row.label for row in rows if row.total] == ["never used"]


def test_the_revocation_of_something_else_than_a_grant_is_not_counted(made: HandMade) -> None:
    made.granted(some_id("grant"), revoked_at=START)
    made.bundle.db.execute("UPDATE entry SET payload_type = 'other' WHERE payload_type LIKE '%grant%'")

    rows, _ = figures(made).revocations()

    assert sum(row.total for row in rows) == 0

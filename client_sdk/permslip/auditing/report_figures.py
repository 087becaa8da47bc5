"""The report's middle: figures and charts of the accesses.

Rules:

- Charts count what :class:`~permslip.auditing.figures.Figures` counts; a table with the same numbers belongs to each.
- «Allowed» means: neither broker nor school refused. Whether a whole answer came is a figure of its own.

Example::

    section = figures_section(figures)
"""

from __future__ import annotations

from typing import Final

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.auditing.charts import Bar, bars, columns, grouped
from permslip.auditing.figures import Figures, Ranked, time_text
from permslip.auditing.report_parts import Chart, Fact, Facts, Paragraph, Part, Section, Table
from permslip.notice_words import WORDS
from permslip.reasons import Reason

__all__ = ["figures_section"]

_SHOWN: Final = 12
_BOTH: Final = ("allowed", "refused")
_REFUSED: Final = ("accesses", "requests before any decision")
# Both as the bundle names them → in words.
_PURPOSES: Final = {
    "": "not said",
    **{
        name.removeprefix("PURPOSE_"): WORDS["en"].purposes[number].capitalize()
        for name, number in pb.Purpose.items()
        if number
    },
}
_REASONS: Final = {"": "not said", **{reason.name: reason.meaning for reason in Reason}}


def figures_section(figures: Figures) -> Section:
    """Figures, then charts."""
    totals = figures.totals()
    if totals.accesses == 0 and totals.turned_away == 0:
        return Section("figures", "Figures", (Paragraph("No access stands in the ledgers that could be read."),))
    over_time = figures.over_time()
    providers, purposes = figures.by_provider(limit=_SHOWN), figures.by_purpose(limit=_SHOWN)
    schools, refusals = figures.by_school(limit=_SHOWN), figures.refusals(limit=_SHOWN)
    idle, longest = figures.revocations()
    parts: list[Part] = [
        Paragraph(f"From {time_text(totals.first_at)} to {time_text(totals.last_at)} UTC, within the audit's scope."),
        Facts(
            (
                Fact(grouped(totals.accesses), "accesses were asked for"),
                Fact(grouped(totals.answered), "were allowed by broker and school"),
                Fact(grouped(totals.refused_by_broker), "were refused by the broker"),
                Fact(grouped(totals.refused_by_schools), "were refused by a school"),
                Fact(grouped(totals.cut_short), "were allowed but got no whole answer"),
                Fact(grouped(totals.turned_away), "requests were turned away before any decision"),
                Fact(grouped(totals.slices), "learners' slices were asked for"),
                Fact(grouped(totals.providers), "parties asked"),
                Fact(grouped(totals.schools), "schools and providers hold the slices"),
            )
        ),
        Paragraph(
            "A slice is what one school keeps about one learner; a learner known to two schools counts twice, because"
            " nobody in the centre can tell that it is the same child.",
            small=True,
        ),
        Chart(
            "Accesses over time",
            columns(over_time.rows, series=_BOTH, title="Accesses over time", name="time"),
            _table("Accesses over time", "From (UTC)", over_time.rows, _BOTH),
            f"Each column is {over_time.each}; times are UTC." if over_time.each else "",
        ),
        _ranked("Accesses by party that asked", "providers", "Party", providers, _BOTH),
        _ranked("Accesses by purpose", "purposes", "Purpose", _renamed(purposes, _PURPOSES), _BOTH),
        _ranked("Learners' slices asked for, by school", "schools", "School", schools, ("learners",)),
        _ranked("Refusals by reason", "refusals", "Reason", _renamed(refusals, _REASONS), _REFUSED),
        Chart(
            "Last use of consents that were revoked",
            bars(idle, series=("consents",), title="Last use of consents that were revoked", name="revoked"),
            _table("Last use of consents that were revoked", "Last use", idle, ("consents",)),
            _after(idle[0].total, longest),
        ),
    ]
    return Section("figures", "Figures", tuple(parts))


def _ranked(title: str, name: str, head: str, ranked: Ranked, series: tuple[str, ...]) -> Chart:
    cut = ranked.total - len(ranked.rows)
    return Chart(
        title,
        bars(ranked.rows, series=series, title=title, name=name),
        _table(title, head, ranked.rows, series),
        f"The first {len(ranked.rows)} of {grouped(ranked.total)} are shown." if cut > 0 else "",
    )


def _table(caption: str, head: str, rows: tuple[Bar, ...], series: tuple[str, ...]) -> Table:
    return Table(
        caption,
        (head, *series),
        tuple((row.label, *(grouped(value) for value in row.values)) for row in rows),
        numbers=tuple(range(1, len(series) + 1)),
    )


def _renamed(ranked: Ranked, called: dict[str, str]) -> Ranked:
    return Ranked(tuple(Bar(called.get(row.label, row.label), row.values) for row in ranked.rows), ranked.total)


def _after(count: int, longest: int) -> str:
    if count == 0:
        return "No consent was used after its revocation."
    return (
        f"The longest use after a revocation came {longest / 1000:.1f} seconds after it, by the clocks of the ledgers'"
        " keepers. Up to 5 seconds are what a school that is cut off may need; more stands among the findings."
    )

"""A profile as people read it at a terminal: what came, what did not, and what can be done.

Rules:

- Every section that was asked for is named. Where one node says the same of many sections, they share a row, and are
  named below the table by the fewest paths.
- What came has a row of its own.

Example::

    node                     section
    Alder Creek High School  transcript.grades  36 records
    Alder Creek High School  (15 sections)      denied      SECTION_NOT_GRANTED

    denied, SECTION_NOT_GRANTED, at Alder Creek High School:
      personal, portfolio.works, voice
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Final

from permslip.cli.output import table
from permslip.coverage import Coverage
from permslip.sections import condensed

if TYPE_CHECKING:
    from permslip.profile import Profile

__all__ = ["gaps_text", "profile_text"]

# So many sections of which a node says the same still get a row each.
_FEW: Final = 3


def profile_text(profile: Profile) -> str:
    """The whole of what a profile says of itself; its records are for files and programs."""
    lines = _coverage_lines(profile.coverage) if profile.coverage else ["Nothing was asked."]
    lines += [f"\nNOT TO BE BELIEVED, {name}: {error}" for name, error in profile.faults]
    lines += _remedies(profile)
    conflicts = profile.conflicts()
    if conflicts:
        lines += ["", "Where nodes differ:"]
        for conflict in conflicts:
            about = " ".join(filter(None, (conflict.section, conflict.about, conflict.name)))
            said = "; ".join(f"{fact.entry.node_name}: {fact.text}" for fact in conflict.facts)
            lines.append(f"  {about}: {said}")
    return "\n".join(lines)


def gaps_text(profile: Profile) -> str:
    """Only what may be held and did not come; empty where nothing is missing."""
    gaps = profile.gaps()
    return "\n".join([*_coverage_lines(gaps), *_remedies(profile)]) if gaps else ""


def _coverage_lines(coverage: Sequence[Coverage]) -> list[str]:
    rows: list[tuple[str, str, str, str]] = []
    shared: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
    for (_, name), of_node in groupby(coverage, key=lambda each: (each.node, each.node_name)):
        same: dict[tuple[str, str], list[str]] = {}
        for each in of_node:
            if each.returned:
                rows.append((name, each.section, _records(each.returned), _note(each)))
            else:
                same.setdefault((each.state.value, _note(each)), []).append(each.section)
        for (state, note), sections in same.items():
            if len(sections) <= _FEW:
                rows += [(name, section, state, note) for section in sections]
            else:
                rows.append((name, f"({len(sections)} sections)", state, note))
                shared.setdefault((state, note, tuple(sections)), []).append(name)
    lines = [table(("node", "section", "", ""), rows)]
    for (state, note, together), names in shared.items():
        what = f"{state}, {note}," if note else state
        lines += ["", f"{what} at {' and '.join(names)}:", f"  {', '.join(condensed(together))}"]
    return lines


def _records(count: int) -> str:
    return "1 record" if count == 1 else f"{count} records"


def _note(each: Coverage) -> str:
    return each.reason.name if each.reason.name != "ALLOWED" else "some kept back" if each.partly_withheld else ""


def _remedies(profile: Profile) -> list[str]:
    told = dict.fromkeys(f"  {each.reason.name}: {each.remedy}" for each in profile.gaps() if each.remedy)
    return ["", "What can be done:", *told] if told else []

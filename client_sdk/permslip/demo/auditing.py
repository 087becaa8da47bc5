"""The last act: an auditor who trusts nobody replays the ledgers of the whole federation.

Rules:

- She is told the root keys and the witnesses by the operator, not by the servers that she checks.
- What she finds is a fault of the product here: the demo then fails.
- Her bundle and her report lie in the demo's folder; where that goes, the report alone stays.

Example::

    audit_ledgers(stage, keep=Path("kept"))
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

from permslip.demo.stage import Stage

__all__ = ["BUNDLE", "REPORT", "audit_ledgers"]

BUNDLE: Final = "audit.db"
REPORT: Final = "report.html"
_CHECKS: Final = (
    ("verify", "checkpoints, cosignatures, every leaf and statement"),
    ("replay", "every decision made again, by the facts of its moment"),
    ("reconcile", "what was routed against what was served"),
)
# A check that found something ends with 1: the demo says what.
_CHECKED: Final = (0, 1)


def audit_ledgers(stage: Stage, *, keep: Path | None) -> None:
    """Fetch, verify, replay, reconcile, report.

    Args:
        stage: everything still runs.
        keep: the folder that stays; None: the report is copied to where temporary files lie.
    """
    narrator, federation, report = stage.narrator, stage.federation, stage.report.audit
    narrator.act("An auditor replays the ledgers")
    narrator.say(
        "The operator admits an auditor, and tells her the root keys and which nodes are the witnesses. She fetches "
        "the ledgers of the broker and of every node into one SQLite file, and believes none of them:"
    )
    witnesses = federation.name_witnesses(stage.nodes)
    config = str(federation.make_auditor("auditor", "State Audit Office", witnesses))
    bundle = stage.folder / BUNDLE

    def run(step: str, *options: str) -> dict[str, Any]:
        command = ("audit", "--config", config, step, str(bundle), *options, "--json")
        document: dict[str, Any] = stage.children.run(*command, accept=_CHECKED).document()
        return document

    fetched = run("fetch")
    stage.expect(fetched["result"] == "clean", f"every ledger can be fetched: {fetched}")
    results = {step: run(step) for step, _ in _CHECKS}
    narrator.table(
        ("her check", "looks at", "", "faults"),
        [
            (
                step,
                what,
                ", ".join(f"{count:,} {name}" for name, count in _shown(results[step])),
                results[step]["faults"],
            )
            for step, what in _CHECKS
        ],
        numbers=(3,),
    )
    for step, found in results.items():
        stage.expect(found["result"] == "clean", f"{step} finds nothing: {found}")
    report.entries = {each: int(count) for each, count in fetched["counts"].items()}
    report.results = {step: found["result"] for step, found in results.items()}
    report.differences = sum(found["faults"] for found in results.values())

    page = stage.folder / REPORT
    run("report", "--out", str(page))
    report.report = str(page if keep is not None else _kept(page))
    narrator.done(f"every access was rightly decided, nothing was left out; the report: {report.report}")


def _shown(found: dict[str, Any]) -> list[tuple[str, int]]:
    """The largest counts: what a reader wants to see."""
    counts = sorted(found["counts"].items(), key=lambda item: -item[1])
    return [(name.replace("_", " "), count) for name, count in counts[:3]]


def _kept(page: Path) -> Path:
    """A copy for this user alone, in a folder of its own that outlives the demo."""
    return Path(shutil.copy2(page, Path(tempfile.mkdtemp(prefix="permslip-report-")) / REPORT))

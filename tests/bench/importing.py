"""Importing the largest file of a real district, against one bare pass of ``iterparse`` over it.

Both run in a process of their own. The bare pass parses and throws away (every element is cleared when it ends); the
import also maps, checks, packs and commits 55,680 records. The file is Grand Bend's ``StudentGrade.xml`` (51 MB); where
that is not at hand, the grades of a generated district.

The child: ``python -m tests.bench.importing iterparse|import FILE FOLDER``.
"""

from __future__ import annotations

import os
import sys
import time
import zipfile
from pathlib import Path
from shutil import copyfileobj
from statistics import median
from typing import Any
from xml.etree import ElementTree

from tests.bench.figures import Figure, Report
from tests.bench.processes import ROOT, Processes, announce, peak_mb
from tests.bench.scale import SMALLEST, Scale

__all__ = ["measure"]

_ARCHIVE = Path("grandbend", "edfi-1.0-full", "EdFiSampleData.zip")
_MEMBER = "Sample Data/StudentGrade.xml"
_TURNS = 2


async def measure(report: Report, scale: Scale, folder: Path) -> None:
    """Seconds of both, by turns, and the import's greatest memory."""
    source = folder / "StudentGrade.xml"
    real = _real(source) if scale is not SMALLEST else False
    if not real:
        _generated(source, scale.learners)
    passes: list[dict[str, Any]] = []
    imports: list[dict[str, Any]] = []
    with Processes() as processes:
        for turn in range(min(scale.rounds, _TURNS)):
            place = folder / str(turn)
            place.mkdir()
            for command, results in (("iterparse", passes), ("import", imports)):
                child = processes.start("tests.bench.importing", command, str(source), str(place))
                results.append(child.say())
                child.end()
    size = source.stat().st_size / 1e6
    what = "Grand Bend's StudentGrade.xml" if real else f"{scale.learners} generated learners"
    report.add(
        Figure(
            "import",
            median(each["seconds"] for each in imports),
            "s",
            baseline=median(each["seconds"] for each in passes),
            against="bare iterparse pass",
            at_most=6,
            note=f"{what}, {size:.1f} MB, {imports[0]['records']:,} records",
        ),
        Figure("import.peak memory", max(each["peak_mb"] for each in imports), "MB", value_at_most=300),
    )


def _real(target: Path) -> bool:
    archive = Path(os.environ.get("PERMSLIP_DATA") or ROOT.parent / "shared" / "data") / _ARCHIVE
    if not archive.is_file():
        return False
    with zipfile.ZipFile(archive) as unpacked, unpacked.open(_MEMBER) as source, target.open("wb") as copy:
        copyfileobj(source, copy)
    return True


def _generated(target: Path, learners: int) -> None:
    from permslip_node.sample_district import generate_district

    district = generate_district(target.parent / "district", learners=learners, seed=1)
    [grades] = district.edfi.rglob("*StudentGrade*.xml")
    grades.rename(target)


def _iterparse(source: Path) -> int:
    elements = 0
    for _, element in ElementTree.iterparse(source):
        element.clear()
        elements += 1
    return elements


def _import(source: Path, folder: Path) -> int:
    from permslip.hosting.database import migrate, open_engine
    from permslip_node.importing import import_edfi
    from permslip_node.sql_sink import SqlSink

    engine = open_engine(f"sqlite:///{folder / 'node.db'}")
    migrate(engine, "permslip_node")
    report = import_edfi([source], SqlSink(engine, clock=lambda: time.time_ns() // 1_000_000))
    engine.dispose()
    return report.inserted


def main() -> None:
    """Be the child."""
    command, source, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    started = time.perf_counter()
    records = _iterparse(source) if command == "iterparse" else _import(source, folder)
    announce(seconds=time.perf_counter() - started, records=records, peak_mb=peak_mb(os.getpid()))


if __name__ == "__main__":
    main()

"""A large bundle is reported in the memory that a small one needs, and in a page that a person can read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.auditing.report_bundles import START, HandMade

ENTRIES = 300_000
MEBIBYTE = 1 << 20

# Half of the entries are the broker's, half the school's; every tenth is refused, and every entry has a finding.
FILL = """
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :entries)
INSERT INTO entry (ledger, position, leaf_hash, leaf, event, recorded_at, decided_at, node, handle, query_id,
    requester, grant_id, purpose, reason)
SELECT 1 + i % 2, i / 2, zeroblob(32), zeroblob(200), 'access_decided', :start + i * 1000, :start + i * 1000,
    zeroblob(32), CAST(printf('%016d', i / 2) AS BLOB), CAST(printf('%032d', i / 2) AS BLOB),
    CAST(printf('%032d', i / 2) AS BLOB), CAST(printf('%032d', i / 4) AS BLOB), 'TUTORING',
    CASE WHEN i % 10 THEN 'ALLOWED' ELSE 'GRANT_REVOKED' END
FROM n
"""
FINDINGS = """
INSERT INTO finding (step, code, severity, ledger, position, message)
SELECT 'replay', 'LEAF_HASH', 'fault', ledger, position, printf('%0500d', position) FROM entry
"""

# Runs by itself, so that the peak is this report's alone.
REPORT = """
import json, resource, sys
from pathlib import Path
from permslip.auditing.bundle import Bundle
from permslip.auditing.reporting import write_report
with Bundle.open(sys.argv[1]) as bundle:
    written = write_report(bundle, Path(sys.argv[1]).with_suffix(".html"))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps({"peak": peak, "page": written.stat().st_size}))
"""


def reported(folder: Path, entries: int) -> dict[str, int]:
    made = HandMade(folder / f"{entries}.db").ledgers()
    with made.bundle.transaction() as db:
        db.execute(FILL, {"entries": entries, "start": START})
        db.execute(FINDINGS)
    made.bundle.close()
    done = subprocess.run(
        [sys.executable, "-c", REPORT, str(made.bundle.path)], capture_output=True, text=True, check=True
    )
    measured: dict[str, int] = json.loads(done.stdout)
    return measured


@pytest.mark.slow
def test_a_hundred_times_the_entries_need_no_more_memory_and_no_longer_page(tmp_path: Path) -> None:
    small, large = reported(tmp_path, ENTRIES // 100), reported(tmp_path, ENTRIES)

    # SQLite's page cache has a fixed size that a small bundle does not fill.
    assert large["peak"] - small["peak"] < 64 * MEBIBYTE
    assert (tmp_path / f"{ENTRIES}.db").stat().st_size > 256 * MEBIBYTE
    assert large["page"] < 2 * small["page"]

"""Verify one bundle, and say how long it took and how much memory it needed at its peak."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from permslip.auditing.bundle import Bundle
from permslip.auditing.results import Trust
from permslip.auditing.verifying import verify
from permslip.keys import PublicKey
from tests.bench.processes import announce, peak_mb


def main() -> None:
    """``python -m tests.bench.audit_process BUNDLE BROKER_ROOT OPERATOR``."""
    path, root, operator = sys.argv[1:]
    trust = Trust("fed.bench", PublicKey.from_did(root).raw, PublicKey.from_did(operator).raw)
    started = time.perf_counter()
    with Bundle.open(Path(path)) as bundle:
        result = verify(bundle, trust)
    if result.exit_code:
        raise RuntimeError(f"an honest bundle is not clean: {result}")
    announce(seconds=time.perf_counter() - started, peak_mb=peak_mb(os.getpid()))


if __name__ == "__main__":
    main()

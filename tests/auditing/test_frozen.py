"""A checkpoint that was cosigned long before it was fetched: what came since may have been kept from the auditor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from permslip.auditing.verifying import verify
from tests.auditing.conftest import Scene, faults, told
from tests.auditing.signed_bundles import resign, signed_bundle, witness_set
from tests.scenarios.world import MINUTE

BROKER = 1


@pytest.mark.parametrize(
    ("minutes", "expected"), [((9, 9), 0), ((30, 30), 2), ((0, 30), 2)], ids=["lately", "long ago", "one lately"]
)
def test_a_quorum_must_have_cosigned_the_newest_checkpoint_shortly_before_it_was_fetched(
    scene: Scene, tmp_path: Path, minutes: tuple[int, int], expected: int
) -> None:
    witnesses = [scene.school, scene.other]
    pinned = witness_set(scene.fed, witnesses, 2)
    with signed_bundle(scene.fed, tmp_path / "audit.db", witnesses=witnesses) as bundle:
        size, root, at = bundle.db.execute(
            "SELECT size, root, fetched_at FROM checkpoint WHERE ledger = 1 AND visit = 2"
        ).fetchone()
        ages = [each * MINUTE for each in minutes]
        resign(bundle, scene.fed.broker, BROKER, size=size, root=root, visit=2, at=at, witnesses=witnesses, ages=ages)

        result = verify(bundle, replace(scene.fed.trust, witness_set=pinned))

        assert (result.exit_code, faults(bundle)) == (expected, {})
        assert [severity for *_, severity, _ in told(bundle, "COSIGNATURES_OLD")] == ["warning"] * (expected > 0)
        assert ("30 minutes" in result.unchecked) == (expected > 0)

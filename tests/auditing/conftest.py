"""A federation that keeps ledgers, and what audits find in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from permslip.auditing.bundle import Bundle
from permslip.auditing.replaying import replay
from permslip.auditing.results import Result
from tests.auditing.ledgers import Audited
from tests.scenarios.world import Party

Check = Callable[..., Result]


@dataclass
class Scene:
    """One school, a second one, a tutor, a club, two parents: who most tests need."""

    fed: Audited
    school: Party
    other: Party
    tutor: Party
    club: Party
    mother: Party
    father: Party

    def audit(self, folder: Path, check: Check = replay, **bundle: Any) -> tuple[Result, dict[str, int]]:
        """Fetch everything and check it; the result, and how often each code of a fault was found."""
        with self.fed.bundle(folder / "audit.db", **bundle) as fetched:
            result = check(fetched, self.fed.trust)
            return result, faults(fetched)


def faults(bundle: Bundle) -> dict[str, int]:
    """How often each code was found as a fault."""
    return dict(Counter(code for (code,) in bundle.db.execute("SELECT code FROM finding WHERE severity = 'fault'")))


def told(bundle: Bundle, code: str) -> list[tuple[int, int, str, str]]:
    """Ledger, position, severity and message of each finding of a code."""
    query = "SELECT ledger, position, severity, message FROM finding WHERE code = ? ORDER BY finding"
    return bundle.db.execute(query, (code,)).fetchall()


@pytest.fixture
def scene() -> Scene:
    fed = Audited()
    school, other = fed.node("school"), fed.node("library")
    tutor, club = fed.provider("tutor"), fed.provider("club")
    return Scene(fed, school, other, tutor, club, fed.person("mother"), fed.person("father"))

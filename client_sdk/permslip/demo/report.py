"""What the demo found out: ``report.json``, with exactly these keys.

===================  ==========================================================================================
``nodes``            how many nodes there were
``learners``         different learners that the schools hold (a learner of the platform is counted once)
``guardian_links``   links between a guardian and a learner
``records``          node → section → how many records it holds
``import_seconds``   wall clock, from the first importer's start to the last one's end
``import_peak_mb``   the most resident memory that any importer had, in 10^6 bytes
``grants``           consents' grants that the nodes endorsed
``profiles``         profiles that were assembled
``profile_sections`` sections that those profiles hold records of, together
``partial``          ``unreachable_node`` that was stopped, ``sections_missing`` that the profile then named
``revocation``       ``acknowledged`` by the node, ``seconds`` until then, ``query_after``: the next query's reason
``refusals``         name of each attempt → reason code that came back
``ledger``           ``broker_entries``, ``node_entries`` (node → entries), ``checkpoint_verified``
``audit``            an auditor's: ``entries`` (what was fetched → how many), ``results`` (check → ``clean``),
                     ``differences`` (faults found), ``report`` (where it is)
``central_leaks``    texts of learners, families and providers that were found at the broker
===================  ==========================================================================================

Example::

    report.write(Path("report.json"))
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from permslip.errors import UnavailableError

__all__ = ["AuditFacts", "DemoReport", "LedgerFacts", "Partial", "RevocationFacts"]


@dataclass(slots=True)
class Partial:
    """What a profile said while one node was down."""

    unreachable_node: str = ""
    sections_missing: list[str] = field(default_factory=list)


@dataclass(slots=True)
class RevocationFacts:
    """What came of a revocation."""

    acknowledged: bool = False
    seconds: float = 0.0
    query_after: str = ""


@dataclass(slots=True)
class LedgerFacts:
    """How long the ledgers are, and whether the broker's checkpoint verified."""

    broker_entries: int = 0
    node_entries: dict[str, int] = field(default_factory=dict)
    checkpoint_verified: bool = False


@dataclass(slots=True)
class AuditFacts:
    """What an auditor found in all ledgers, and where her report is."""

    entries: dict[str, int] = field(default_factory=dict)
    results: dict[str, str] = field(default_factory=dict)
    differences: int = 0
    report: str = ""


@dataclass(slots=True)
class DemoReport:
    """The report; the module says what each key means."""

    nodes: int = 0
    learners: int = 0
    guardian_links: int = 0
    records: dict[str, dict[str, int]] = field(default_factory=dict)
    import_seconds: float = 0.0
    import_peak_mb: float = 0.0
    grants: int = 0
    profiles: int = 0
    profile_sections: int = 0
    partial: Partial = field(default_factory=Partial)
    revocation: RevocationFacts = field(default_factory=RevocationFacts)
    refusals: dict[str, str] = field(default_factory=dict)
    ledger: LedgerFacts = field(default_factory=LedgerFacts)
    audit: AuditFacts = field(default_factory=AuditFacts)
    central_leaks: int = 0

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        return asdict(self)

    def write(self, path: Path) -> None:
        """Write it as JSON.

        Raises:
            UnavailableError: the file cannot be written.
        """
        try:
            path.write_text(json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise UnavailableError(
                f"the report cannot be written: {error.strerror}: {path}.", remedy="Name another file."
            ) from error

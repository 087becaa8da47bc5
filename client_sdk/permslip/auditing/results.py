"""Whom an auditor trusts, what a check found, and how it tells where it is.

Example::

    trust = Trust("grand-bend", broker_root=root, operator=operator)
    result = verify(bundle, trust, progress=silent)
    sys.exit(result.exit_code)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.statements import Signed

__all__ = ["EXIT_CLEAN", "EXIT_FINDINGS", "EXIT_UNCHECKED", "Progress", "Result", "Trust", "silent"]

EXIT_CLEAN: Final = 0
EXIT_FINDINGS: Final = 1
EXIT_UNCHECKED: Final = 2

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called now and then with what is being done, how much of it is done, and how much there is (0: not known)."""


def silent(doing: str, done: int, total: int) -> None:
    """The progress of a check that nobody watches."""


@dataclass(frozen=True, slots=True)
class Trust:
    """What an auditor was told by a trusted way, never by the servers.

    Attributes:
        federation: the federation's name.
        broker_root: the broker's root key.
        operator: the key of the federation's operator.
        witness_set: the pinned witnesses, if there are any.
    """

    federation: str
    broker_root: bytes
    operator: bytes
    witness_set: Signed[pb.WitnessSet] | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What one step found.

    Attributes:
        step: ``verify``, ``replay`` or ``reconcile``.
        counts: what was looked at, by name.
        findings: how many of each code, whatever their severity.
        faults: how many are faults.
        unchecked: why the check could not be made; empty when it was.
    """

    step: str
    counts: Mapping[str, int] = field(default_factory=dict)
    findings: Mapping[str, int] = field(default_factory=dict)
    faults: int = 0
    unchecked: str = ""

    @property
    def word(self) -> str:
        """``findings``, ``unchecked`` or ``clean``, as the bundle's table ``run`` has it: a fault found is a fault."""
        return "findings" if self.faults else "unchecked" if self.unchecked else "clean"

    @property
    def exit_code(self) -> int:
        """0 clean, 1 findings, 2 could not check."""
        return {"clean": EXIT_CLEAN, "findings": EXIT_FINDINGS, "unchecked": EXIT_UNCHECKED}[self.word]

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        return {
            "step": self.step,
            "result": self.word,
            "faults": self.faults,
            "findings": dict(self.findings),
            "counts": dict(self.counts),
            "unchecked": self.unchecked,
        }

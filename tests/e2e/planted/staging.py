"""The table of planted faults: what one row is, and what a row's plant works with.

Example::

    @fault(FAULTS, "an answer's digest is another one at the broker")
    def swapped(stage: Stage) -> Expected:
        with stage.ledger("broker") as broker:
            position = broker.one("access_answered", query_id=stage.query("first"))
            broker.entry(position).access_answered.manifest_sha256 = bytes(32)
        return [Caught("reconcile", Code.ANSWER_DIFFERS, "broker", position)]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from permslip.auditing.codes import Code
from tests.e2e.planted.forgery import ForgedLedger, forget_checkpoints
from tests.e2e.planted.honest import Honest

__all__ = ["Caught", "Expected", "Fault", "Stage", "fault"]


class Caught(NamedTuple):
    """A finding that must be there.

    Attributes:
        step: which command finds it.
        code: as what.
        ledger: whose ledger it is in: ``broker`` or a node's name.
        position: where in it; None: anywhere, or about the ledger as a whole.
        severity: what it is found as; a ``warning`` where somebody honest can come to look like that.
    """

    step: str
    code: Code
    ledger: str
    position: int | None = None
    severity: str = "fault"


Expected = list[Caught]


@dataclass(frozen=True)
class Stage:
    """What a plant may change.

    Attributes:
        honest: what truly happened.
        files: a copy of the databases, stopped: ``broker`` and each node by its name.
    """

    honest: Honest
    files: dict[str, Path]

    @property
    def folder(self) -> Path:
        """Where the copy is."""
        return self.files["broker"].parent

    def ledger(self, name: str, **options: Any) -> ForgedLedger:
        """One ledger, to be rewritten."""
        return ForgedLedger(self.files[name], **options)

    def query(self, name: str) -> bytes:
        """The id of a query of the history."""
        return self.honest.queries[name].id

    def forget_checkpoints(self) -> None:
        """The lie is as old as the ledgers."""
        forget_checkpoints(self.folder)


@dataclass(frozen=True)
class Fault:
    """One row.

    Attributes:
        name: what is wrong.
        plant: plants it, and says where it must be caught.
        old: nobody cosigned anything before: only what the entries say can give it away.
        visited: the auditor was here before the fault was planted, and goes on with her bundle.
    """

    name: str
    plant: Callable[[Stage], Expected]
    old: bool
    visited: bool


def fault(
    table: list[Fault], name: str, *, old: bool = True, visited: bool = False
) -> Callable[[Callable[[Stage], Expected]], Callable[[Stage], Expected]]:
    """Add a row to a table; arguments as :class:`Fault`'s."""

    def added(plant: Callable[[Stage], Expected]) -> Callable[[Stage], Expected]:
        table.append(Fault(name, plant, old, visited))
        return plant

    return added

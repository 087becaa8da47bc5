"""What the acts of the demo share: its parties, its options, its voice and its report.

Example::

    stage.narrator.act("A parent revokes")
    stage.expect(state.is_complete, "every school confirms the revocation")
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from permslip.client.consenting import Consent
from permslip.demo.central import CentralSearch
from permslip.demo.children import Children
from permslip.demo.families import Family
from permslip.demo.federation import Federation, NodeParty, ProviderParty
from permslip.demo.narration import Narrator
from permslip.demo.report import DemoReport
from permslip.errors import PermslipError

__all__ = ["Given", "Options", "Stage"]


@dataclass(frozen=True, slots=True)
class Options:
    """How the demo is to run.

    Attributes:
        data: real files; None: a generated district.
        families: how many families link; None: a number that suits the data.
        learners: of the generated district.
        seed: of the generated district.
    """

    data: Path | None = None
    families: int | None = None
    learners: int = 36
    seed: int = 11


@dataclass(frozen=True, slots=True)
class Given:
    """A consent that a family gave, and for which provider."""

    family: Family
    provider: ProviderParty
    consent: Consent


@dataclass(slots=True)
class Stage:
    """Everything that more than one act needs.

    Attributes:
        folder: where everything lies.
        options: how it runs.
        narrator: its voice.
        children: its processes.
        federation: its parties' commands.
        search: what must not be found at the broker.
        nodes: schools, then the platform.
        tutor, therapist, summer: the providers.
        families: who linked.
        given: the consents, in the order in which they were given.
        revoked: the family whose consent for the tutor was revoked.
        report: what was found out so far.
    """

    folder: Path
    options: Options
    narrator: Narrator
    children: Children
    federation: Federation
    search: CentralSearch
    report: DemoReport = field(default_factory=DemoReport)
    nodes: list[NodeParty] = field(default_factory=list)
    families: list[Family] = field(default_factory=list)
    given: list[Given] = field(default_factory=list)
    revoked: Family | None = None
    providers: dict[str, ProviderParty] = field(default_factory=dict)

    @property
    def tutor(self) -> ProviderParty:
        """Reads some sections of many learners."""
        return self.providers["tutor"]

    @property
    def therapist(self) -> ProviderParty:
        """Reads one section, once."""
        return self.providers["therapist"]

    @property
    def summer(self) -> ProviderParty:
        """Reads much of a few, until the autumn."""
        return self.providers["summer"]

    def given_to(self, provider: ProviderParty) -> list[Given]:
        """The consents for one provider."""
        return [each for each in self.given if each.provider is provider]

    def expect(self, holds: bool, what: str) -> None:
        """Go on only if it came out as said.

        Raises:
            PermslipError: it did not.
        """
        if not holds:
            self.narrator.failed(f"not so: {what}")
            raise PermslipError(
                f"the demo did not come out as it should: {what}.",
                remedy=f"With --keep DIR everything stays in DIR, the logs in DIR/{Path('federation', 'logs')}.",
            )

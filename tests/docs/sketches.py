"""Pages whose Python is a sketch: what stands for something else in it, and what must be there before it can run.

A sketch shows names that a reader replaces by her own, such as ``"broker.example:7443"`` or ``slip_text``. They are
replaced here by those of the README's federation, so that a sketch is run as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["SKETCHES", "Sketch"]


@dataclass(frozen=True, slots=True)
class Sketch:
    """How the Python of a page is made whole.

    Attributes:
        before: commands that are typed first.
        prelude: what stands before every block.
        stands_for: text → what it stands for; all of it must be on the page.
    """

    before: tuple[str, ...]
    prelude: str
    stands_for: dict[str, str]

    def whole(self, text: str) -> str:
        """A block that can be run."""
        for shown, meant in self.stands_for.items():
            text = text.replace(shown, meant)
        return self.prelude + text


_SDK: Final = Sketch(
    before=(
        """permslip guardian --wallet family grant 'Bright Tutors' --section transcript --section personal.attendance \\
        --purpose tutoring --purpose-text 'Help with reading' --until $(date -d '+90 days' +%F) \\
        --reference learner-17 --yes""",
        "permslip node slip 700001 810001 --config high/node.toml | grep ^PS1- > mia.slip",
        "permslip keys show tutor/root.key --json > tutor.json",
    ),
    prelude="""\
import datetime, json, tomllib
from pathlib import Path
federation = tomllib.loads(Path("permslip.toml").read_text())
slip_text, references = Path("mia.slip").read_text(), ["learner-17"]
tutor = json.loads(Path("tutor.json").read_text())["did"]
until = (datetime.date.today() + datetime.timedelta(days=90)).isoformat()
""",
    stands_for={
        "broker=…, broker_root=…, federation=…, operator=…": "**federation",
        'broker="broker.example:7443"': 'broker=federation["broker"]',
        'broker_root="did:key:z6Mk…"': 'broker_root=federation["broker_root"]',
        'federation="grand-bend"': 'federation=federation["federation"]',
        'operator="did:key:z6Mk…"': 'operator=federation["operator"]',
        '"provider.key"': '"tutor/online.key"',
        '"provider.cert"': '"tutor/online.cert"',
        '"family"': '"family-of-mia"',
        '"2027-06-30"': "until",
    },
)

SKETCHES: Final[dict[str, Sketch]] = {"docs/reference/sdk.md": _SDK}

"""One checkpoint of this broker's ledger while it is being cosigned, and as it is shown.

Example::

    known = Round(identity, head.size, head.root, begun=now)
    known.lines[key.public.raw] = line
    known.shown(enough=True).note
"""

from __future__ import annotations

from typing import NamedTuple

from permslip.checkpoints import Checkpoint
from permslip.notes import NoteSignature, append_signatures
from permslip.quantities import Millis
from permslip_broker.identity import Identity

__all__ = ["Cosigned", "Round", "WitnessStream"]


class Cosigned(NamedTuple):
    """A checkpoint as it is shown.

    Attributes:
        size, root: of the ledger.
        note: signed by the broker, with the cosignatures.
        lines: the cosignatures alone.
        enough: whether that is a quorum.
        cosigned_at: when the last of them came; 0: none did.
    """

    size: int
    root: bytes
    note: bytes
    lines: bytes
    enough: bool
    cosigned_at: Millis


class Round:
    """One head of the ledger, and who cosigned it so far."""

    def __init__(self, identity: Identity, size: int, root: bytes, begun: Millis) -> None:
        self.size, self.root, self.begun = size, root, begun
        self.plain = identity.checkpoint(size, root)
        self.text = Checkpoint(identity.origin, size, root).text()
        self.lines: dict[bytes, NoteSignature] = {}
        self.cosigned_at = Millis(0)

    def shown(self, *, enough: bool) -> Cosigned:
        """As it is now."""
        note = append_signatures(self.plain, self.lines.values())
        lines = "".join(each.line() for each in self.lines.values()).encode()
        return Cosigned(self.size, self.root, note, lines, enough, self.cosigned_at)


class WitnessStream:
    """What is known of one node's stream."""

    def __init__(self) -> None:
        self.known = 0
        self.open_offers = 0
        self.silent_since = 0.0
        self.not_before = 0.0

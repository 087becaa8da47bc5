"""A log that a tool of others makes, lets grow, signs and cosigns: nothing of it is written by our code.

Example::

    log = LogOfTheirs.begun(aics, folder, [b"an entry", b"another"])
    log.grow([b"a third"])
    log.folder, log.key, log.witnesses
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from tests.thirdparty.programs import Aics

__all__ = ["ORIGIN", "LogOfTheirs"]

ORIGIN: Final = "log.example/theirs"

# Runs in the tool's own interpreter. Keys are made of fixed seeds, so that each checkpoint has the same.
_SIGN: Final = """
import json, sys
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from aics_tlog import *
from aics_tlog import format_vkey, cosignature_vkey, vkey_from_ed25519, sign_cosignature
asked = json.load(sys.stdin)
origin, size, lines = asked["origin"], asked["size"], tuple(asked["lines"])
root = IncrementalTileWriter(DirectoryTileStore(asked["folder"]), size).root()
log, *witnesses = [Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32) for seed in range(1, 5)]
note = sign_checkpoint(Checkpoint(origin, size, root, lines), log, origin)
names = [f"witness-{number}.example" for number in range(3)]
for name, key in zip(names, witnesses):
    _, line = sign_cosignature(key, name, 1_800_000_000, origin, size, root, lines)
    note = Note(note.text, (*note.signatures, line))
with open(asked["folder"] + "/checkpoint", "wb") as file:
    file.write(note.to_bytes())
print(json.dumps({
    "key": format_vkey(vkey_from_ed25519(origin, log.public_key())),
    "witnesses": [format_vkey(cosignature_vkey(*each)) for each in zip(names, [k.public_key() for k in witnesses])],
}))
"""


@dataclass
class LogOfTheirs:
    """One log.

    Attributes:
        folder: its tiles, entries and checkpoint.
        size: entries.
        key, witnesses: vkeys.
    """

    aics: Aics
    folder: Path
    size: int = 0
    key: str = ""
    witnesses: tuple[str, ...] = ()

    @classmethod
    def begun(cls, aics: Aics, folder: Path, entries: Sequence[bytes]) -> Self:
        """A new one, signed by its key and three witnesses."""
        log = cls(aics, folder)
        aics.build(folder, _lines(entries))
        log._sign(len(entries))
        return log

    def grow(self, entries: Sequence[bytes], *, lines: Sequence[str] = ()) -> None:
        """Append, and sign a new checkpoint, which may have extension lines."""
        self.aics.append(self.folder, self.size, _lines(entries))
        self._sign(self.size + len(entries), lines)

    def _sign(self, size: int, lines: Sequence[str] = ()) -> None:
        self.size = size
        said = self.aics.run_script(_SIGN, origin=ORIGIN, size=size, folder=str(self.folder), lines=list(lines))
        self.key, self.witnesses = said["key"], tuple(said["witnesses"])


def _lines(entries: Sequence[bytes]) -> bytes:
    return b"".join(each + b"\n" for each in entries)

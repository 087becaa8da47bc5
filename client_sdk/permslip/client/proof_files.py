"""A folder of proofs: every entry of a report as a file that anybody can check, with what it takes to check them.

==================================  =================================================================================
``<time>-….tlog-proof``             one entry of one ledger, by C2SP tlog-proof (:mod:`permslip.tlog_proof`)
``…-hidden-<hash>.tlog-proof``      one that is not for this reader: the file does not hold it, its hash is in the name
``chain-end-….txt``                 a school's signed word on where its own chain of the slice ended
``certificates.txt``                of the broker's and the schools' keys, by their roots
``witnesses.txt``                   the sets of witnesses, where cosignatures were demanded
``README.txt``                      how to check it all, in plain words
==================================  =================================================================================

Rules:

- The folder is for its owner alone (0700, files 0600): who asked about a child when is nobody else's business.
- Names begin with the time, so that they sort by it; an entry that is not shown takes the time of the one before.
- Saving again replaces what it names anew and deletes nothing.

Example::

    report = await guardian.accesses()
    save_proofs(report, "proofs")
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from permslip.armor import armor
from permslip.client.accesses import AccessReport, SliceReport
from permslip.errors import ConfigurationError
from permslip.keys import did_text
from permslip.slice_chains import ChainEntry, ledger_verifier
from permslip.tlog_proof import SUFFIX

__all__ = ["CERTIFICATES", "CHAIN_END", "EVENT_WORDS", "WITNESSES", "save_proofs"]

CERTIFICATES: Final = "certificates.txt"
WITNESSES: Final = "witnesses.txt"
CHAIN_END: Final = "chain-end-"
_README: Final = "README.txt"

EVENT_WORDS: Final = {
    "": "hidden",
    "statement_recorded": "statement",
    "access_decided": "asked",
    "access_answered": "answered",
    "authority_changed": "authority",
}
"""What the ledgers' entries are called for parents."""

_TEXT: Final = """\
Proofs of who asked for your child's data
=========================================

Each file that ends in .tlog-proof is one entry of a ledger: of the broker, which passes questions on, or of a school
itself. The file proves that the entry is in that ledger, and that its keeper signed the ledger as it stood then. Nobody
needs to be asked for that, and nobody can alter the entry without being found out.

In the names: when (UTC), whose ledger, which child's slice, the entry's number, and what it is:
  asked       somebody asked, and was allowed or refused
  answered    how the answer ended, and how much left the school
  statement   a consent, a school's confirmation or a revocation was recorded
  authority   the school changed who decides for the child
  hidden      somebody else's business: only its place is shown, so that nothing can be left out

The numbers of one slice in one ledger go from 1 to the last without a hole. chain-end-….txt is the school's own signed
word on the last one.

To check everything, without network:

  permslip guardian check-proof FOLDER

With any other tool that reads the C2SP tlog-proof format (https://c2sp.org/tlog-proof): the entry's bytes are the extra
data, the leaf's hash is SHA-256 over a zero byte and those bytes. The ledgers' keys in the C2SP note format:

{keys}

Whose keys these are is said by certificates.txt, signed by the roots:

{roots}

Compare the roots with those that you know from elsewhere: the schools' stand on the slips that they gave you, the
broker's is what your federation publishes.
{witnesses}
"""
_WITNESSED: Final = """
The broker's ledger was also cosigned by witnesses, which makes sure that everybody is shown the same one. Who they are
is said by witnesses.txt, signed by the federation's operator.
"""


def save_proofs(report: AccessReport, folder: str | os.PathLike[str]) -> int:
    """Write a report's proofs into a folder, which is made if it is missing.

    Args:
        report: from :meth:`permslip.client.guarding.AsyncGuardianClient.accesses`.
        folder: where to.

    Returns:
        how many proofs were written.

    Raises:
        ConfigurationError: the folder cannot be written, or others may read it.
    """
    path = Path(folder)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.stat().st_mode & 0o077:
            raise ConfigurationError(
                f"{path} is open to others.", key="--save", remedy=f"Make it yours alone: chmod 700 {path}"
            )
        count = 0
        for each in report.slices:
            for name, entry in _named(each):
                _write(path / name, entry.proof.raw())
                count += 1
            if each.end is not None:
                name = f"{CHAIN_END}{_slug(each.node_name)}-{each.handle.hex()[:8]}.txt"
                _write(path / name, armor(each.end.envelope).encode())
        _write(path / CERTIFICATES, "".join(armor(each.envelope) for each in report.certificates).encode())
        if report.witnesses:
            _write(path / WITNESSES, "".join(map(armor, report.witnesses)).encode())
        _write(path / _README, _readme(report).encode())
    except OSError as error:
        raise ConfigurationError(f"cannot be written: {error.strerror}.", key=str(path)) from error
    return count


def _named(report: SliceReport) -> Iterator[tuple[str, ChainEntry]]:
    for keeper, entries in (("broker", report.broker), (_slug(report.node_name), report.school)):
        last = next((each.recorded_at for each in entries if each.recorded_at), 0)
        for entry in entries:
            last = entry.recorded_at or last
            time = datetime.fromtimestamp(last / 1000, UTC).strftime("%Y%m%dT%H%M%S.%f")[:-3]
            what = EVENT_WORDS.get(entry.event, _slug(entry.event))
            if entry.proof.extra is None:
                what = f"{what}-{entry.leaf_hash.hex()}"
            yield f"{time}Z-{keeper}-{report.handle.hex()[:8]}-{entry.seq:06d}-{what}{SUFFIX}", entry


def _readme(report: AccessReport) -> str:
    keys: dict[str, None] = {}
    by_root = {each.payload.root: each.payload.signing_key for each in report.certificates}
    for entry in report.entries:
        if entry.ledger in by_root:
            keys[str(ledger_verifier(entry.proof.checkpoint, by_root[entry.ledger]).key)] = None
    names = {each.node: each.node_name for each in report.slices}
    roots = [f"  {names.get(root, 'the broker')}: {did_text(root)}" for root in by_root]
    return _TEXT.format(
        keys="\n".join(f"  {each}" for each in keys) or "  (none: there is no entry yet)",
        roots="\n".join(roots),
        witnesses=_WITNESSED if report.witnesses else "",
    )


def _write(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name[:64]}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as stream:
            stream.write(content)
        draft.replace(path)
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()


def _slug(name: str) -> str:
    """A name as part of a file's name."""
    return re.sub("[^a-z0-9]+", "-", name.casefold()).strip("-")[:40] or "school"

"""Verifying checkpoints: signed by the key that the ledger's root certified, cosigned by the pinned witnesses.

Whether the leaves make the roots that were signed is :mod:`permslip.auditing.verify_leaves`.

Rules:

- The key that counts is that of the certificate in force when the checkpoint was fetched.
- The newest checkpoint of the broker's ledger must have the quorum of the pinned witness set; earlier ones are proved
  by the leaves to be its beginnings, so a quorum that they lack is a warning.
- That quorum must have cosigned shortly before the fetch. Otherwise the end of the ledger may have been kept back:
  «could not check».
- The newest checkpoint of a node's ledger must have the broker's cosignature. Where the broker's own ledger says that
  it refused one of this node's, that is a fault: the node signed two histories. Where it says nothing, it is a
  warning: the broker may have had no time for it.
- A checkpoint of visit 0 is the auditor's own, from elsewhere: its signature was her business then.

Example::

    for row in ledgers:
        refused = refused_by_broker(bundle)
    check_checkpoints(bundle, row, trust, keepers, found, is_refused=row.root in refused)
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from permslip._pb.permslip.v1 import ledger_pb2, statement_pb2 as pb
from permslip.auditing.bundle import BROKER, Bundle, LedgerRow
from permslip.auditing.codes import Code
from permslip.auditing.cosigners import cosigners, too_old
from permslip.auditing.finding import Findings
from permslip.auditing.keepers import Keepers
from permslip.auditing.results import Trust
from permslip.checkpoints import VerifiedCheckpoint, open_checkpoint
from permslip.errors import MalformedError, PermslipError, ProofError, SignatureError
from permslip.keys import PublicKey
from permslip.notes import Ed25519Verifier, SignatureType, VerifierKey
from permslip.statements import Signed
from permslip.witnesses import witness_key, witness_policy

__all__ = ["CheckpointRow", "check_checkpoints", "checkpoints_of", "refused_by_broker"]


class CheckpointRow(NamedTuple):
    """A checkpoint as the bundle has it."""

    ledger: int
    size: int
    root: bytes
    note: bytes
    vkey: str
    cosigners: str
    visit: int
    fetched_at: int

    @property
    def latest_cosignature(self) -> int | None:
        """POSIX seconds of the last of its cosignatures, so far as the column says; None where there is none."""
        try:
            times = [each["timestamp"] for each in json.loads(self.cosigners)]
        except (ValueError, TypeError, KeyError):
            return None
        return max((each for each in times if isinstance(each, int)), default=None)


def checkpoints_of(bundle: Bundle, ledger: int) -> Iterator[CheckpointRow]:
    """The checkpoints of a ledger by size, and by visit within one."""
    columns = ", ".join(CheckpointRow._fields)
    rows = bundle.db.execute(
        f"SELECT {columns} FROM checkpoint WHERE ledger = ? ORDER BY size, visit",  # noqa: S608  # names of its own columns
        (ledger,),
    )
    return (CheckpointRow(*row) for row in rows)


def refused_by_broker(bundle: Bundle) -> set[bytes]:
    """Roots of the nodes of which the broker's ledger says that it refused a checkpoint."""
    refused = set()
    for (leaf,) in bundle.db.execute(
        "SELECT leaf FROM entry WHERE ledger = ? AND event = 'witness_alert' AND leaf IS NOT NULL", (BROKER,)
    ):
        with suppress(DecodeError):
            refused.add(ledger_pb2.LogEntry.FromString(leaf).witness_alert.keeper)
    return refused


def check_checkpoints(
    bundle: Bundle, ledger: LedgerRow, trust: Trust, keepers: Keepers, found: Findings, *, is_refused: bool = False
) -> None:
    """Verify every checkpoint of one ledger.

    Args:
        bundle: where they are.
        ledger: whose.
        trust: whom the auditor trusts.
        keepers: who had which key.
        found: takes the findings.
        is_refused: whether the broker says that it refused a checkpoint of this ledger.
    """
    newest = bundle.db.execute(
        "SELECT size, visit FROM checkpoint WHERE ledger = ? ORDER BY visit DESC, size DESC LIMIT 1", (ledger.ledger,)
    ).fetchone()
    if newest is None:
        found.add(Code.CHECKPOINT_MISSING, f"{ledger.name}: expected a checkpoint.", ledger=ledger.ledger)
        return
    for row in checkpoints_of(bundle, ledger.ledger):
        found.count("checkpoints")
        if row.visit == 0:
            continue
        check = _Check(bundle, ledger, trust, keepers, found, row)
        check.run(is_newest=(row.size, row.visit) == tuple(newest), is_refused=is_refused)


class _Check:
    """One checkpoint."""

    def __init__(
        self,
        bundle: Bundle,
        ledger: LedgerRow,
        trust: Trust,
        keepers: Keepers,
        found: Findings,
        row: CheckpointRow,
    ) -> None:
        self._bundle, self._ledger, self._trust = bundle, ledger, trust
        self._keepers, self._found, self._row = keepers, found, row

    def run(self, *, is_newest: bool, is_refused: bool) -> None:
        log = self._log()
        if log is None:
            return
        opened = self._open(log)
        if opened is None:
            return
        told = opened.checkpoint
        if (told.size, told.root) != (self._row.size, self._row.root):
            self._add(Code.CHECKPOINT_COLUMNS, f"the note says size {told.size} and root {told.root.hex()}.")
        named = self._cosigned(log)
        if is_newest and self._ledger.kind == "node" and not named:
            self._found.add(
                Code.COSIGNATURES_MISSING,
                f"{self._ledger.name}, checkpoint of size {self._row.size}: the broker "
                + ("refused one of this ledger, by its own ledger." if is_refused else "did not cosign it."),
                ledger=self._ledger.ledger,
                severity="fault" if is_refused else "warning",
                size=self._row.size,
                visit=self._row.visit,
            )
        pinned = self._trust.witness_set
        if self._ledger.root == self._trust.broker_root and pinned is not None:
            self._quorum(pinned, log, is_newest=is_newest)

    def _log(self) -> Ed25519Verifier | None:
        """The key that must have signed."""
        cert = self._keepers.cert(self._ledger.root, at=self._row.fetched_at)
        if cert is None:
            self._add(Code.CHECKPOINT_KEY, "its keeper had no certificate in force, or was not admitted.")
            return None
        try:
            public = PublicKey.parse(cert.signing_key, field="key-cert.signing_key")
            key = VerifierKey(self._ledger.origin, SignatureType.ED25519, public)
        except PermslipError as error:
            self._add(Code.CHECKPOINT_KEY, error.message)
            return None
        if str(key) != self._row.vkey:
            self._add(Code.CHECKPOINT_KEY, f"expected it to be signed by {key}, got {self._row.vkey}.")
            return None
        return Ed25519Verifier(key)

    def _open(self, log: Ed25519Verifier) -> VerifiedCheckpoint | None:
        try:
            return open_checkpoint(self._row.note, log)
        except (MalformedError, ProofError) as error:
            self._add(Code.CHECKPOINT_MALFORMED, error.message)
        except SignatureError as error:
            self._add(Code.CHECKPOINT_SIGNATURE, error.message)
        return None

    def _cosigned(self, log: Ed25519Verifier) -> list[dict[str, Any]]:
        """Every cosignature by a node, or on a node's checkpoint by the broker, holds, and is what the bundle says.

        Returns:
            who cosigned; nobody where a cosignature does not hold.
        """
        try:
            found = cosigners(self._row.note, log, self._cosigning_keys())
        except SignatureError as error:
            self._add(Code.COSIGNATURE_INVALID, error.message)
            return []
        try:
            told = json.loads(self._row.cosigners)
        except ValueError:
            told = None
        if told != found:
            self._add(Code.CHECKPOINT_COLUMNS, "the bundle names other cosigners than the note.", cosigners=found)
        return found

    def _cosigning_keys(self) -> list[VerifierKey]:
        at, federation = self._row.fetched_at, self._trust.federation
        broker = self._keepers.cert(self._trust.broker_root, at=at)
        if self._ledger.root != self._trust.broker_root:
            if broker is None:
                return []
            public = PublicKey.parse(broker.signing_key, field="key-cert.signing_key")
            return [VerifierKey(self._bundle.ledgers()[0].origin, SignatureType.COSIGNATURE_V1, public)]
        certs: list[tuple[bytes, Any]] = [
            (each, self._keepers.cert(each, at=at)) for each in self._keepers.nodes(at=at)
        ]
        return [witness_key(federation, root, cert.signing_key) for root, cert in certs if cert is not None]

    def _quorum(self, pinned: Signed[pb.WitnessSet], log: Ed25519Verifier, *, is_newest: bool) -> None:
        policy = witness_policy(pinned, signing_key=self._key_of)
        try:
            cosignatures = policy.verify(self._row.note, log).cosignatures
        except SignatureError as error:
            self._add(Code.COSIGNATURE_INVALID, error.message)
        except PermslipError as error:
            self._found.add(
                Code.COSIGNATURES_MISSING,
                error.message,
                ledger=self._ledger.ledger,
                severity="fault" if is_newest else "warning",
                size=self._row.size,
                visit=self._row.visit,
            )
        else:
            self._found.count("cosignatures", len(cosignatures))
            message = too_old(cosignatures, policy.k, self._row.fetched_at) if is_newest else None
            if message is not None:
                message = f"{self._ledger.name}, checkpoint of size {self._row.size}: {message}"
                self._found.add(
                    Code.COSIGNATURES_OLD,
                    message,
                    ledger=self._ledger.ledger,
                    severity="warning",
                    size=self._row.size,
                    visit=self._row.visit,
                )
                self._found.leave_unchecked(message)

    def _key_of(self, root: bytes) -> bytes | None:
        cert = self._keepers.cert(root, at=self._row.fetched_at)
        return None if cert is None else cert.signing_key

    def _add(self, code: Code, message: str, **details: Any) -> None:
        row = self._row
        told = f"{self._ledger.name}, checkpoint of size {row.size} (visit {row.visit}): {message}"
        self._found.add(code, told, ledger=self._ledger.ledger, size=row.size, visit=row.visit, **details)

"""A broker and three schools as processes; the operator has named the schools as witnesses, and two of them are enough.

Example::

    with ThreeWitnesses(folder) as federation:
        await federation.settled_in()
        federation.grow()
        checkpoint = await federation.until_cosigned(at_least=20)
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc

from permslip import statements as st
from permslip._pb.permslip.v1 import (
    auditor_pb2,
    auditor_pb2_grpc,
    session_pb2,
    session_pb2_grpc,
    statement_pb2 as pb,
)
from permslip.armor import read_statement, read_statements
from permslip.checkpoints import VerifiedCheckpoint, open_checkpoint
from permslip.demo.children import free_port
from permslip.errors import ProofError
from permslip.keys import PublicKey, did_text
from permslip.notes import Ed25519Verifier, SignatureType, VerifierKey
from permslip.witnesses import WitnessPolicy, verify_witness_sets, witness_policy
from tests.federation.ledgers import LedgerOf
from tests.federation.principals import Organization
from tests.federation.processes import FederationProcesses, now
from tests.federation.requester import say_hello
from tests.federation.school_process import SchoolProcess, until

__all__ = ["NAMES", "ThreeWitnesses"]

NAMES = ("north", "south", "west")
_PATIENCE = 20.0


class ThreeWitnesses:
    """Everybody, running.

    Args:
        folder: where everything is made.
        pinned: whether the operator's set is in the broker's configuration.
    """

    def __init__(self, folder: Path, *, pinned: bool = True) -> None:
        self.processes = FederationProcesses(folder)
        self.schools: tuple[SchoolProcess, ...] = ()
        self.ledger = LedgerOf(self.processes.broker_folder / "broker.db")
        try:
            self.schools = tuple(SchoolProcess(self.processes, name) for name in NAMES)
            self.witness_file = folder / "witnesses.txt"
            self.site = f"127.0.0.1:{free_port()}"
            self.processes.command(
                *("operator", "--federation", self.processes.federation),
                *("--key", str(self.processes.broker_folder / "operator.key"), "witnesses"),
                *(did_text(each.root) for each in self.schools),
                *("--out", str(self.witness_file)),
            )
            with self.processes.broker_config.open("a", encoding="utf-8") as config:
                if pinned:
                    config.write(f'witness_set_file = "{self.witness_file}"\n')
                config.write("[broker.ledger]\ncheckpoint_ms = 50\nnode_checkpoint_s = 0.3\n")
                config.write(f'[broker.metrics]\nlisten = "{self.site}"\n')
            self.processes.start_broker()
            self.processes.admit(each.organization for each in self.schools)
            for each in self.schools:
                each.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in self.schools:
            if each.process is not None:
                each.thaw()
            each.cable.__exit__(None, None, None)
        self.processes.__exit__(kind, error, trace)

    @property
    def port(self) -> int:
        """Where the broker listens."""
        return int(self.processes.address.rpartition(":")[2])

    async def settled_in(self) -> None:
        """Wait until every school may answer."""
        for each in self.schools:
            await each.until_ready()

    def grow(self) -> int:
        """Record something new; returns the least size that the ledger has then."""
        size = self.size()
        club = Organization.new("Club", pb.PRINCIPAL_KIND_PROVIDER, self.processes.federation, now=now())
        self.processes.admit([club])
        return size + 2

    def size(self) -> int:
        """Entries in the broker's ledger."""
        return len(self.ledger.entries())

    # ------------------------------------------------------------------------------------- what is shown

    def log_verifier(self) -> Ed25519Verifier:
        """Of the broker's checkpoints."""
        cert = pb.KeyCert.FromString(read_statement(self.processes.broker_folder / "broker.cert", st.KEY_CERT).payload)
        origin = f"{self.processes.federation}/broker"
        return Ed25519Verifier(VerifierKey(origin, SignatureType.ED25519, PublicKey.parse(cert.signing_key)))

    def policy(self) -> WitnessPolicy:
        """What the operator's file demands."""
        newest = verify_witness_sets(
            read_statements(self.witness_file),
            federation=self.processes.federation,
            operator=self.processes.operator.public,
        )
        keys = {each.root: each.organization.key.public.raw for each in self.schools}
        return witness_policy(newest, signing_key=keys.get)

    async def note(self) -> bytes:
        """The broker's checkpoint, as whoever greets is shown it."""
        async with grpc.aio.insecure_channel(self.processes.address) as channel:
            given = await session_pb2_grpc.SessionServiceStub(channel).GetChallenge(
                session_pb2.GetChallengeRequest(federation=self.processes.federation),
                wait_for_ready=True,
                timeout=_PATIENCE,
            )
            kind = pb.PRINCIPAL_KIND_OPERATOR
            hello = say_hello(given.challenge, self.processes.operator, broker=self.processes.root, now=now, kind=kind)
            said = await auditor_pb2_grpc.AuditorServiceStub(channel).GetCheckpoint(
                auditor_pb2.GetCheckpointRequest(hello=hello, ledger=self.processes.root), timeout=_PATIENCE
            )
        return said.checkpoint.note

    async def checkpoint(self) -> VerifiedCheckpoint:
        """The checkpoint, cosigned as the operator's file demands.

        Raises:
            ProofError: it is not.
        """
        return self.policy().verify(await self.note(), self.log_verifier())

    async def signed_alone(self) -> VerifiedCheckpoint:
        """The checkpoint, whoever cosigned it."""
        return open_checkpoint(await self.note(), self.log_verifier())

    async def until_cosigned(self, *, at_least: int, by: int = 2) -> VerifiedCheckpoint:
        """Wait until enough witnesses have cosigned so many entries."""
        ends = time.monotonic() + _PATIENCE
        while True:
            try:
                found = await self.checkpoint()
                if found.checkpoint.size >= at_least and len(found.cosignatures) >= by:
                    return found
                why = f"{found.checkpoint.size} entries, {len(found.cosignatures)} cosignatures"
            except ProofError as error:
                why = error.message
            assert time.monotonic() < ends, why

    # ------------------------------------------------------------------------------------- what the processes say

    def broker_said(self, event: str) -> list[str]:
        """Lines of the broker's log with this event."""
        text = self.processes.broker.log.read_text(encoding="utf-8", errors="replace")
        return [each for each in text.splitlines() if f'"event": "{event}"' in each]

    async def until_broker_said(self, event: str) -> str:
        """Wait for such a line; returns the first."""
        lines: list[str] = await until(lambda: self.broker_said(event), f"the broker says {event}")
        return lines[0]

    async def until_true(self, holds: Callable[[], Awaitable[bool]], what: str) -> None:
        """Wait until something that must be asked for holds."""
        ends = time.monotonic() + _PATIENCE
        while not await holds():
            assert time.monotonic() < ends, f"this never came true: {what}"

"""Nodes' checkpoints, cosigned by this broker: a node that rewrites its own ledger is found out as a broker would be.

The broker asks each attached node for a checkpoint now and then, and whenever an auditor wants one; checks that it
continues the last one, by the rules of C2SP tlog-witness; and cosigns it under the name of its own ledger.

Rules:

- A checkpoint counts if the key signed it that the node's current certificate names.
- One that does not continue the last is not cosigned: an error in the log, counted, a ``witness_alert`` in this
  broker's ledger, and an auditor gets the node's own, without this broker's line.
- The alert is on the disk before who asked is answered: an auditor who fetches this broker's ledger then finds it.
  While the broker runs it is recorded once, not each time that the node is asked.

Example::

    note = await checkpoints.cosigned(root)        # None: ask the node for its own
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from typing import Final

from permslip import statements as st
from permslip._pb.permslip.v1 import auditor_pb2, ledger_pb2, node_pb2, statement_pb2 as pb
from permslip.checkpoints import (
    Checkpoint,
    CosignatureSigner,
    UpdateOutcome,
    UpdateRefusedError,
    VerifiedCheckpoint,
    cosign,
    open_checkpoint,
)
from permslip.errors import KeyRejectedError, PermslipError, ProofError, UnavailableError, VerificationError
from permslip.greeting import CONTRACT_VERSION, HELLO_LIFETIME, make_server_nonce
from permslip.hosting.drafts import Draft
from permslip.hosting.facts_store import FactStore
from permslip.hosting.last_cosigned import LastCosigned, OtherSizeError
from permslip.hosting.logs import get_log
from permslip.keys import PublicKey
from permslip.notes import Ed25519Verifier, SignatureType, VerifierKey, append_signatures, parse_note
from permslip.quantities import Millis
from permslip_broker.attachments import Attachments
from permslip_broker.identity import Identity
from permslip_broker.ledger_calls import OWN, LedgerCalls
from permslip_broker.recording import Recorder

__all__ = ["NodeCheckpoints"]

_log = get_log(__name__)

# Between a look for who is due and the next, as part of the time after which a node is.
_LOOKS: Final = 10
_AT_ONCE: Final = 4
_FAULTS: Final = {
    UpdateOutcome.FORK: ledger_pb2.WITNESS_FAULT_FORK,
    UpdateOutcome.ROLLBACK: ledger_pb2.WITNESS_FAULT_ROLLBACK,
    UpdateOutcome.INCONSISTENT: ledger_pb2.WITNESS_FAULT_BAD_PROOF,
    UpdateOutcome.OTHER_LOG: ledger_pb2.WITNESS_FAULT_FORK,
}


class NodeCheckpoints:
    """Asks for them, checks and cosigns them. Belongs to the event loop.

    Args:
        identity: who cosigns.
        facts: nodes' certificates.
        calls: to the nodes.
        store: the last ones.
        recorder: the way into this broker's ledger, for what is refused.
        attachments: the nodes that can be asked.
        clock: the broker's.
        every: seconds after which an attached node is asked again.
    """

    def __init__(
        self,
        identity: Identity,
        facts: FactStore,
        calls: LedgerCalls,
        store: LastCosigned,
        recorder: Recorder,
        attachments: Attachments,
        *,
        clock: Callable[[], Millis],
        every: float,
    ) -> None:
        self._identity, self._facts, self._calls, self._store = identity, facts, calls, store
        self._recorder, self._attachments, self._clock, self._every = recorder, attachments, clock, every
        self.refused: Counter[str] = Counter()
        """How often a checkpoint was refused, by what it was."""
        # Of each node the contradiction that was recorded last: what it is, and with what.
        self._alerted: dict[bytes, tuple[UpdateOutcome, Checkpoint | None]] = {}
        self._asked_at: dict[bytes, float] = {}
        self._turns: dict[bytes, asyncio.Lock] = {}
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def keep(self) -> None:
        """Ask every attached node now and then, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            attached = {node.root for node in self._attachments}
            self._asked_at = {root: at for root, at in self._asked_at.items() if root in attached}
            due = [root for root in attached if loop.time() - self._asked_at.get(root, -self._every) >= self._every]
            await asyncio.gather(*map(self._ask_quietly, due))
            await asyncio.sleep(self._every / _LOOKS)

    async def cosigned(self, root: bytes) -> bytes | None:
        """The node's checkpoint as of now with this broker's cosignature; None: it is not attached, or not to be
        believed, and is to be asked for its own."""
        if self._attachments.get(root) is None:
            return None
        try:
            return await self._ask(root)
        except UpdateRefusedError as error:
            self.refused[error.outcome.name] += 1
            _log.error("node_checkpoint_refused", node=root.hex(), fault=error.outcome.name, detail=error.message)
            await self._alert(root, error)
        except VerificationError as error:
            self.refused[type(error).__name__] += 1
            _log.error("node_checkpoint_refused", node=root.hex(), fault=type(error).__name__, detail=error.message)
        return None

    async def _alert(self, root: bytes, error: UpdateRefusedError) -> None:
        told = (error.outcome, error.old)
        if self._alerted.get(root) == told:
            return
        self._alerted[root] = told
        body = ledger_pb2.WitnessAlert(
            fault=_FAULTS[error.outcome], offered_size=error.new.size, offered_root=error.new.root, keeper=root
        )
        if error.old is not None:
            body.seen_size, body.seen_root = error.old.size, error.old.root
        try:
            await self._recorder.append(Draft("witness_alert", body, despite_clock=True))
        except PermslipError as failure:
            del self._alerted[root]
            _log.error("witness_alert_not_recorded", node=root.hex(), why=f"{type(failure).__name__}: {failure}")

    async def _ask_quietly(self, root: bytes) -> None:
        self._asked_at[root] = asyncio.get_running_loop().time()
        try:
            async with self._places:
                await self.cosigned(root)
        except PermslipError as error:
            _log.info("node_checkpoint_not_had", node=root.hex(), why=f"{type(error).__name__}: {error.message}")
        except Exception as error:  # noqa: BLE001 (whatever it is: the other nodes are asked all the same)
            _log.error("node_checkpoint_not_had", node=root.hex(), exc_info=error)

    async def _ask(self, root: bytes) -> bytes:
        async with self._turns.setdefault(root, asyncio.Lock()):
            hello = self._hello(root)
            request = auditor_pb2.GetCheckpointRequest(hello=hello, ledger=root)
            reply = await self._calls.ask(root, node_pb2.LedgerCall(checkpoint=request), caller=OWN)
            opened = self._opened(root, reply.checkpoint.checkpoint.note)
            last = await asyncio.to_thread(self._store.last, root)
            old, new = last.checkpoint.size if last is not None else 0, opened.checkpoint.size
            proof: list[bytes] = []
            if 0 < old < new:
                asked = auditor_pb2.GetProofsRequest(hello=hello, ledger=root, size=new, old_size=old)
                proofs = await self._calls.ask(root, node_pb2.LedgerCall(proofs=asked), caller=OWN)
                proof = list(proofs.proofs.consistency.hashes)
            try:
                await asyncio.to_thread(self._store.take, root, opened, old_size=old, proof=proof, now=self._clock())
            except OtherSizeError as error:
                raise UnavailableError(error.message, remedy="Try again in a moment.") from error
            signer = CosignatureSigner(self._identity.origin, self._identity.key, timestamp=self._clock() // 1_000)
            return append_signatures(opened.note.raw, [cosign(opened, signer)])

    def _opened(self, root: bytes, note: bytes) -> VerifiedCheckpoint:
        standing = self._facts.standing(root)
        if standing is None or standing.cert is None:
            raise KeyRejectedError("the node has no certified key.")
        public = PublicKey.parse(standing.cert.payload.signing_key, field="key-cert.signing_key")
        origin = parse_note(note).untrusted_text.split("\n", 1)[0]
        if origin == self._identity.origin:
            raise ProofError("expected a checkpoint of the node's own ledger, got one under this broker's name.")
        return open_checkpoint(note, Ed25519Verifier(VerifierKey(origin, SignatureType.ED25519, public)))

    def _hello(self, root: bytes) -> pb.Envelope:
        now = self._clock()
        payload = pb.Hello(
            federation=self._identity.federation,
            nonce=os.urandom(16),
            created_at=now,
            signer=self._identity.signer,
            kind=pb.PRINCIPAL_KIND_BROKER,
            broker=root,
            server_nonce=make_server_nonce(self._identity.nonce_secret, now=now),
            expires_at=Millis(now + HELLO_LIFETIME),
            versions=[CONTRACT_VERSION],
        )
        return st.sign(st.HELLO, payload, [self._identity.key]).envelope

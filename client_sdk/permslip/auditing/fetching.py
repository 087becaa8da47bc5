"""Fetching: ledgers and the statements they name into a bundle, verified as they come, from where the last one ended.

Each call of :func:`fetch` is a *visit*: it takes a checkpoint of each ledger in scope, and brings the bundle up to it.

Rules:

- The nodes' ledgers are brought up to date before the broker's: so whatever they say was routed must be in its own. A
  broker that cannot show that much (its witnesses are slow, or it lies) is asked again, a few times.
- A checkpoint is kept as soon as its signature holds, before any leaf is asked for: what a keeper signed is evidence.
- The leaves are pulled first (:mod:`permslip.auditing.pulling`), then what was pulled is examined
  (:mod:`permslip.auditing.examining`). A fetch that was killed in either goes on where it was.
- What is wrong with a leaf or statement is noted and does not end the fetch: verifying finds all of it. What ends the
  fetch of a ledger is what cannot be gone past: a missing leaf, a forked checkpoint, a keeper who cannot be reached.
- The leaves must make the root that the checkpoint signs, and the checkpoint must continue the one of the last visit.
- Memory is bounded by one portion of leaves.

Example::

    async with AsyncAuditorClient(…) as client:
        with Bundle.create("audit.db", new_meta(client)) as bundle:
            result = await Fetch(client, bundle, trust).run()
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple, TypeAlias

from permslip import statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.audit_scope import may_read
from permslip.auditing.bundle import Bundle, LedgerRow
from permslip.auditing.codes import Code
from permslip.auditing.cosigners import cosigners, too_old
from permslip.auditing.examining import Examination
from permslip.auditing.finding import Findings
from permslip.auditing.pulling import LedgerEndedError, frontier_of, pull
from permslip.auditing.results import Progress, Result, Trust, silent
from permslip.checkpoints import Checkpoint
from permslip.client.auditing import AsyncAuditorClient, LedgerCheckpoint
from permslip.errors import (
    ConfigurationError,
    KeyRejectedError,
    MalformedError,
    PermslipError,
    ProofError,
    SignatureError,
)
from permslip.keys import PublicKey, did_text
from permslip.notes import Ed25519Verifier, SignatureType, VerifierKey
from permslip.witnesses import witness_key, witness_policy

__all__ = ["Fetch", "new_meta", "scope_text"]

# How often a ledger is asked for a newer checkpoint: because statements were erased while it was read, or because the
# nodes' ledgers name later entries of the broker's.
_ROUNDS: Final = 3


async def new_meta(client: AsyncAuditorClient) -> dict[str, str]:
    """What a new bundle says of whom it is of, and of what may be in it.

    Raises:
        KeyRejectedError: the caller is no admitted auditor.
    """
    server = client.session.server
    return {
        "federation": server.federation,
        "broker_root": did_text(server.broker_root),
        "operator": did_text(server.operator),
        "auditor": did_text(client.session.identity.root),
        "scope": scope_text(await client.scope()),
    }


def scope_text(scope: pb.AuditScope) -> str:
    """A scope as the bundle says it, JSON."""
    told = {"nodes": [did_text(each) for each in scope.nodes], "from": getattr(scope, "from"), "until": scope.until}
    return json.dumps(told, sort_keys=True)


class _Ledger(NamedTuple):
    """A ledger to visit."""

    root: bytes
    kind: str
    name: str


_Visit: TypeAlias = Callable[[_Ledger, Findings], Awaitable[None]]


class Fetch:
    """One visit.

    Args:
        client: an auditor's.
        bundle: goes on from what is there.
        trust: as the auditor was told; the client's own must be the same.
        nodes: roots of the nodes to visit; None: all in scope.
        last: checkpoints that this auditor saw before, elsewhere: the ledgers must continue them.
        progress: told how far it is.
    """

    def __init__(
        self,
        client: AsyncAuditorClient,
        bundle: Bundle,
        trust: Trust,
        *,
        nodes: Sequence[bytes] | None = None,
        last: Sequence[Checkpoint] = (),
        progress: Progress = silent,
    ) -> None:
        self._client, self._bundle, self._trust = client, bundle, trust
        self._nodes, self._last, self._progress = nodes, last, progress
        self._visit = 0
        # How many entries the broker's ledger has at least, by what the nodes' say.
        self._named_size = 0

    async def run(self) -> Result:
        """Bring the bundle up to date.

        Raises:
            ConfigurationError: the bundle is of another federation, auditor or scope.
            PermslipError: the broker could not be asked at all.
        """
        self._bundle.check_trust(self._trust)
        with self._bundle.findings("fetch") as found:
            scope = await self._scope()
            self._visit = int(self._bundle.meta("visits") or 0) + 1
            self._bundle.set_meta("visits", str(self._visit))
            broker, *nodes = await self._ledgers(scope)
            if not self._bundle.ledgers() and not await self._reach(self._learn, broker, found):
                return found.result
            for each in (*nodes, broker):
                await self._reach(self._visit_ledger, each, found)
        return found.result

    async def _reach(self, visit: _Visit, ledger: _Ledger, found: Findings) -> bool:
        """Do it with a ledger; where that cannot be done, say so."""
        try:
            await visit(ledger, found)
        except LedgerEndedError as ended:
            found.add(ended.code, ended.message, ledger=ended.ledger, position=ended.position)
        except PermslipError as error:
            found.add(Code.LEDGER_UNREACHED, f"{ledger.name}: {error}", severity="warning", root=ledger.root)
            found.leave_unchecked(f"{ledger.name}: {error}")
            found.count("unreached")
        else:
            return True
        return False

    async def _scope(self) -> pb.AuditScope:
        scope = await self._client.scope()
        for name, told in (("auditor", did_text(self._client.session.identity.root)), ("scope", scope_text(scope))):
            if self._bundle.meta(name) != told:
                raise ConfigurationError(
                    f"the bundle was fetched with {self._bundle.meta(name)}, now it is {told}.",
                    key=name,
                    remedy="Fetch into a new bundle: what was hidden then would stay hidden in this one.",
                )
        return scope

    async def _ledgers(self, scope: pb.AuditScope) -> list[_Ledger]:
        """Every ledger to visit, the broker's first; the bundle learns what they are called."""
        organizations = await self._client.organizations()
        with self._bundle.transaction():
            for each in organizations:
                self._bundle.add_organization(each.root, each.name, each.kind_name)
        wanted = set(self._nodes) if self._nodes is not None else None
        broker = self._trust.broker_root
        nodes = [
            _Ledger(each.root, "node", each.name)
            for each in organizations
            if each.kind == pb.PRINCIPAL_KIND_NODE and each.certified and not each.suspended
            if (each.root in wanted if wanted is not None else may_read(each.root, scope, broker=broker))
        ]
        unknown = (wanted or set()) - {each.root for each in nodes}
        if unknown:
            names = ", ".join(sorted(did_text(each) for each in unknown))
            raise ConfigurationError(f"no admitted node has this root: {names}.", key="node")
        return [_Ledger(broker, "broker", f"{self._trust.federation} broker"), *nodes]

    async def _learn(self, ledger: _Ledger, _found: Findings) -> None:
        """Make the broker's ledger known: under its name it cosigns the nodes', which come first."""
        self._row(ledger, await self._checkpoint(ledger.root))

    async def _visit_ledger(self, ledger: _Ledger, found: Findings) -> None:
        examination = Examination(self._client, self._bundle, self._trust.federation, found, self._progress)
        for _ in range(_ROUNDS):
            checkpoint = await self._checkpoint(ledger.root)
            row = self._row(ledger, checkpoint)
            await self._keep(row, checkpoint, found)
            await self._continue(row, checkpoint)
            try:
                await pull(self._client, self._bundle, row, checkpoint, found, self._progress)
                self._compare(row.ledger, checkpoint, found)
            finally:
                await examination.run(row.ledger)
                self._note_named(row)
            is_behind = ledger.kind == "broker" and checkpoint.size < self._named_size
            if not is_behind and not examination.is_erasure_open(row.ledger):
                break
        found.count("ledgers")

    def _note_named(self, row: LedgerRow) -> None:
        """Note which of the broker's entries the newly fetched ones of a node name."""
        [named] = self._bundle.db.execute(
            "SELECT max(routed_position) FROM entry WHERE ledger = ? AND position >= ?", (row.ledger, row.fetched)
        ).fetchone()
        self._named_size = max(self._named_size, 0 if named is None else named + 1)

    async def _checkpoint(self, root: bytes) -> LedgerCheckpoint:
        try:
            return await self._client.checkpoint(root)
        except SignatureError as error:
            raise LedgerEndedError(Code.CHECKPOINT_SIGNATURE, f"{did_text(root)}: {error.message}") from error
        except KeyRejectedError as error:
            raise LedgerEndedError(Code.CHECKPOINT_KEY, f"{did_text(root)}: {error.message}") from error
        except (MalformedError, ProofError) as error:
            raise LedgerEndedError(Code.CHECKPOINT_MALFORMED, f"{did_text(root)}: {error.message}") from error

    def _row(self, ledger: _Ledger, checkpoint: LedgerCheckpoint) -> LedgerRow:
        origin = checkpoint.checkpoint.origin
        with self._bundle.transaction():
            number = self._bundle.add_ledger(ledger.root, kind=ledger.kind, name=ledger.name, origin=origin)
            self._bundle.add_statements([checkpoint.cert])
        row = self._bundle.ledger(number)
        if row.origin != origin:
            message = f"expected a checkpoint of {row.origin}, got one of {origin}."
            raise LedgerEndedError(Code.LEDGER_REPLACED, message, ledger=number)
        return row

    async def _keep(self, row: LedgerRow, checkpoint: LedgerCheckpoint, found: Findings) -> None:
        """Keep the checkpoint, with whoever cosigned it; check that those did who must."""
        log = Ed25519Verifier(checkpoint.key)
        try:
            named = cosigners(checkpoint.note, log, await self._cosigning_keys(row))
        except SignatureError as error:
            found.add(Code.COSIGNATURE_INVALID, error.message, ledger=row.ledger)
            named = []
        self._bundle.add_checkpoint(
            row.ledger,
            checkpoint.size,
            checkpoint.root,
            checkpoint.note,
            vkey=str(checkpoint.key),
            cosigners=named,
            visit=self._visit,
            fetched_at=self._client.session.now(),
        )
        if row.kind == "node" and not named:
            # Whether it refused to is in its own ledger, which comes last.
            told = f"{row.name}: the broker did not cosign the node's checkpoint."
            found.add(Code.COSIGNATURES_MISSING, told, ledger=row.ledger, severity="warning")
        pinned = self._trust.witness_set
        if pinned is None or row.kind != "broker":
            return
        directory = await self._client.session.know(pinned.payload.witnesses)
        certs = {each: cert for each in pinned.payload.witnesses if (cert := directory.cert(each)) is not None}
        with self._bundle.transaction():
            self._bundle.add_statements(certs.values())
        policy = witness_policy(pinned, signing_key=lambda each: _key_of(certs.get(each)))
        try:
            cosignatures = policy.verify(checkpoint.note, log).cosignatures
        except PermslipError as error:
            code = Code.COSIGNATURE_INVALID if isinstance(error, SignatureError) else Code.COSIGNATURES_MISSING
            found.add(code, error.message, ledger=row.ledger)
            return
        old = too_old(cosignatures, policy.k, self._client.session.now())
        if old is not None:
            old = f"{row.name}, checkpoint of size {checkpoint.size}: {old}"
            found.add(Code.COSIGNATURES_OLD, old, ledger=row.ledger, severity="warning")
            found.leave_unchecked(old)

    async def _cosigning_keys(self, row: LedgerRow) -> list[VerifierKey]:
        """The keys that may have cosigned: of all nodes for the broker's ledger, of the broker for a node's."""
        session, federation = self._client.session, self._trust.federation
        if row.kind == "broker":
            nodes = [each for each in session.directory.organizations() if each.kind == pb.PRINCIPAL_KIND_NODE]
            certs = [(each.root, cert) for each in nodes if (cert := session.directory.cert(each.root)) is not None]
            with self._bundle.transaction():
                self._bundle.add_statements(cert for _, cert in certs)
            return [
                witness_key(federation, root, cert.payload.signing_key)
                for root, cert in certs
                if cert.payload.signing_key != session.broker_key
            ]
        broker = self._bundle.ledgers()[0]
        return [_cosigning_key(broker.origin, session.broker_key)]

    async def _continue(self, row: LedgerRow, checkpoint: LedgerCheckpoint) -> None:
        """Check that this checkpoint continues those that the auditor saw before."""
        earlier = [each for each in self._last if each.origin == checkpoint.checkpoint.origin]
        if row.head_size is not None and row.head_root is not None:
            earlier.append(Checkpoint(row.origin, row.head_size, row.head_root))
        for each in earlier:
            if each.size > checkpoint.size:
                message = f"size {each.size} was signed before, and now {checkpoint.size}: leaves were taken away."
                raise LedgerEndedError(Code.CHECKPOINT_ROLLBACK, message, ledger=row.ledger)
            try:
                await self._client.prove_consistency(each, checkpoint)
            except ProofError as error:
                raise LedgerEndedError(Code.CHECKPOINT_FORK, error.message, ledger=row.ledger) from error

    def _compare(self, ledger: int, checkpoint: LedgerCheckpoint, found: Findings) -> None:
        """The leaves make the root that was signed."""
        row = self._bundle.ledger(ledger)
        if row.pulled != checkpoint.size:
            return  # an earlier fetch went further, to another checkpoint: verifying compares both
        root = frontier_of(row).root()
        if root == checkpoint.root:
            self._bundle.set_head(ledger, checkpoint.size, checkpoint.root)
            return
        found.add(
            Code.CHECKPOINT_ROOT,
            f"the {checkpoint.size} leaves make root {root.hex()}, the keeper signed {checkpoint.root.hex()}.",
            ledger=ledger,
        )


def _cosigning_key(name: str, public: bytes) -> VerifierKey:
    return VerifierKey(name, SignatureType.COSIGNATURE_V1, PublicKey.parse(public, field="key"))


def _key_of(cert: st.Signed[pb.KeyCert] | None) -> bytes | None:
    return None if cert is None else bytes(cert.payload.signing_key)

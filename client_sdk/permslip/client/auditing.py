"""``AsyncAuditorClient``: an auditor reads the ledgers of broker and nodes, each answer checked as it comes.

A node's ledger comes through the broker, sealed to a key that the auditor makes for each call: the broker learns
nothing of it. Checkpoints and proofs come in clear.

Rules:

- A checkpoint counts if the key signed it that the newest certificate of the ledger's keeper names; the broker's root
  is pinned, a node's is admitted by the pinned operator.
- Leaves come in order and without a gap; that they are in the signed tree shows when the whole tree was computed
  (:mod:`permslip.auditing.fetching`), or by a proof.
- Statements come verified. That all of them came is for the caller to check.
- A stream that breaks off goes on where it stopped, for as long as a connection may be tried.

Example::

    async with AsyncAuditorClient(
        broker="broker.example:7443", broker_root="did:key:…", federation="grand-bend", operator="did:key:…",
        keys="auditor.key", cert="auditor.cert",
    ) as client:
        checkpoint = await client.checkpoint()                    # of the broker's ledger
        async for leaf in client.entries(until=checkpoint.size):
            ...
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, TypeAlias, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from permslip import statements as st
from permslip._pb.permslip.v1 import auditor_pb2, auditor_pb2_grpc, ledger_pb2, statement_pb2 as pb
from permslip.audit_scope import entries_context, statements_context
from permslip.bounds import check_bounds
from permslip.checkpoints import Checkpoint, open_checkpoint
from permslip.client.failures import error_of, is_unreached
from permslip.client.identity import CertSource, KeySource, identify
from permslip.client.session import Session, backoff, system_clock
from permslip.client.settings import server_of
from permslip.client.statement_bounds import StatementBound
from permslip.client.timeouts import Timeout
from permslip.directory import Organization
from permslip.errors import KeyRejectedError, MalformedError, PermslipError, ProofError, RefusedError, TimedOutError
from permslip.keyfile import Passphrase
from permslip.keys import PublicKey, SealingKey, did_text
from permslip.merkle import HASH_BYTES, leaf_hash, verify_consistency, verify_inclusion
from permslip.notes import Ed25519Verifier, SignatureType, VerifierKey
from permslip.quantities import Millis
from permslip.sealing import open_sealed
from permslip.statements import Signed

__all__ = ["AsyncAuditorClient", "FetchedStatements", "LedgerCheckpoint"]

M = TypeVar("M", bound=Message)

_MAX_POSITIONS: Final = 1_024
_END: Final = 2**63 - 1
_STALE: Final = "HELLO_REFUSED"
_Open: TypeAlias = Callable[[Any, pb.Envelope], Any]


@dataclass(frozen=True, slots=True)
class LedgerCheckpoint:
    """A checkpoint of one ledger, signed by its keeper's certified key.

    Attributes:
        ledger: root key of the keeper.
        checkpoint: origin, size and root.
        note: the signed note, with whatever cosignatures it has; those are not verified here.
        key: the verifier key that it was verified with.
        cert: the keeper's certificate that names this key.
    """

    ledger: bytes
    checkpoint: Checkpoint
    note: bytes
    key: VerifierKey
    cert: Signed[pb.KeyCert]

    @property
    def size(self) -> int:
        """Leaves in the ledger."""
        return self.checkpoint.size

    @property
    def root(self) -> bytes:
        """Root of its tree."""
        return self.checkpoint.root


@dataclass(frozen=True, slots=True)
class FetchedStatements:
    """One message of statements.

    Attributes:
        statements: verified.
        erased: ids that the keeper says were erased.
        refused: what does not hold, and why; none of it is to be believed.
    """

    statements: tuple[Signed[Any], ...]
    erased: tuple[bytes, ...]
    refused: tuple[tuple[pb.Envelope, PermslipError], ...] = ()


class AsyncAuditorClient:
    """An auditor's connection to a broker.

    Wherever a ``ledger`` is asked for, it is the root key of its keeper (bytes or did); None is the broker's.

    Args:
        keys: the auditor's keys, or the path of their file.
        cert: the certificate that the auditor's root gave them, or the path of its file.
        broker, broker_root, federation, operator, passphrase, tls_ca, timeout, now: as for
            :class:`~permslip.client.providing.AsyncClient`.
    """

    def __init__(
        self,
        *,
        broker: str,
        broker_root: str,
        federation: str,
        operator: str,
        keys: KeySource,
        cert: CertSource | None = None,
        passphrase: Passphrase | None = None,
        tls_ca: str | os.PathLike[str] | None = None,
        timeout: Timeout | None = None,
        now: Callable[[], Millis] = system_clock,
    ) -> None:
        server = server_of(broker, broker_root, federation, operator, os.fspath(tls_ca) if tls_ca else None)
        identity = identify(keys, cert, federation=federation, passphrase=passphrase)
        self._session = Session(server, identity, timeout or Timeout(), now)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the connection."""
        await self._session.close()

    @property
    def session(self) -> Session:
        """The connection: whom it trusts, as whom it calls, what it knows of organizations."""
        return self._session

    async def organizations(self) -> list[Organization]:
        """Every organization of the federation, verified."""
        return await self._session.organizations()

    async def scope(self) -> pb.AuditScope:
        """What this auditor was admitted to see, by the operator's own word.

        Raises:
            KeyRejectedError: it is not admitted as an auditor.
        """
        root = self._session.identity.root
        known = (await self._session.know([root])).organization(root)
        if known is None or known.audit_scope is None or known.suspended:
            raise KeyRejectedError(
                f"{did_text(root)} is not admitted as an auditor.", remedy="Ask the federation's operator to admit it."
            )
        return known.audit_scope

    async def checkpoint(self, ledger: bytes | str | None = None) -> LedgerCheckpoint:
        """The newest checkpoint of a ledger, its keeper's signature verified.

        Raises:
            SignatureError: not signed by the keeper's certified key.
            RefusedError: the ledger is not in this auditor's scope.
            UnavailableError: the node is not connected.
        """
        root = self._root(ledger)
        request = auditor_pb2.GetCheckpointRequest(ledger=root)
        response = await self._call("GetCheckpoint", request, root)
        check_bounds(response, "checkpoint")
        cert = await self._cert(root)
        note = response.checkpoint.note
        key = VerifierKey(_origin(note), SignatureType.ED25519, PublicKey.parse(cert.payload.signing_key, field="key"))
        opened = open_checkpoint(note, Ed25519Verifier(key))
        return LedgerCheckpoint(root, opened.checkpoint, note, key, cert)

    async def entries(
        self, ledger: bytes | str | None = None, start: int = 0, until: int | None = None, *, follow: bool = False
    ) -> AsyncGenerator[ledger_pb2.LedgerLeaf, None]:
        """Leaves of a ledger in order, one by one, each with the hash of its own bytes.

        Args:
            ledger, start, until, follow: as for :meth:`entry_messages`.

        Raises:
            ProofError: a leaf is missing, or is not the one of its hash.
            RefusedError, UnavailableError: as :meth:`entry_messages`.
        """
        async with aclosing(self.entry_messages(ledger, start, until, follow=follow)) as messages:
            async for message in messages:
                for leaf in message.entries:
                    if leaf.leaf and leaf_hash(leaf.leaf) != leaf.leaf_hash:
                        raise ProofError(f"leaf {leaf.position} is not the one whose hash is given.")
                    yield leaf

    async def entry_messages(
        self, ledger: bytes | str | None = None, start: int = 0, until: int | None = None, *, follow: bool = False
    ) -> AsyncGenerator[auditor_pb2.FetchEntriesResponse, None]:
        """Leaves of a ledger in order, as they come; whether bytes and hashes belong together is not looked at.

        Args:
            ledger: whose.
            start: the first position.
            until: the position after the last; None: as far as the ledger reaches now.
            follow: go on with what is appended, until the iterator is closed; ``until`` is then ignored.

        Raises:
            ProofError: a leaf is missing; those before it were given.
            MalformedError: a hash is none.
            RefusedError: the ledger is not in this auditor's scope.
            UnavailableError: no answer could be had.
        """
        root = self._root(ledger)
        position = start
        end = _END if until is None or follow else until

        def opened(stub: Any, hello: pb.Envelope) -> Any:
            request = auditor_pb2.FetchEntriesRequest(
                hello=hello, ledger=root, until=end, follow=follow, **{"from": position}
            )
            return stub.FetchEntries(request)

        messages = self._stream(root, opened, auditor_pb2.FetchEntriesResponse, entries_context, patient=follow)
        async with aclosing(messages):
            async for message in messages:
                for number, leaf in enumerate(message.entries):
                    wrong: PermslipError | None = None
                    if leaf.position != position:
                        wrong = ProofError(f"expected leaf {position} of the ledger, got leaf {leaf.position}.")
                    elif len(leaf.leaf_hash) != HASH_BYTES:
                        wrong = MalformedError(f"expected {HASH_BYTES} bytes.", field=f"leaf[{position}].leaf_hash")
                    if wrong is not None:
                        if number:
                            yield auditor_pb2.FetchEntriesResponse(entries=message.entries[:number])
                        raise wrong
                    position += 1
                if position > end:
                    raise ProofError(f"expected leaves up to position {end}, got {position - end} more.")
                if message.entries:
                    yield message
        if until is not None and not follow and position < until:
            raise ProofError(f"expected leaves up to position {until}, but they ended at {position}.")

    async def statements(
        self, ledger: bytes | str | None = None, start: int = 0, until: int = 0, *, ids: Sequence[bytes] = ()
    ) -> AsyncGenerator[FetchedStatements, None]:
        """The statements that entries name, each verified; what does not hold is told apart.

        Args:
            ledger: whose.
            start, until: the entries' positions; the last is exclusive. Without one, nothing bounds how many come.
            ids: instead of a range, these statements.

        Raises:
            MalformedError: more came than the range's entries can name.
            RefusedError, UnavailableError: as :meth:`entry_messages`.
        """
        root = self._root(ledger)
        asked = {"from": start, "until": until} if not ids else {}
        federation = self._session.server.federation
        bound = StatementBound(len(ids)) if ids else StatementBound.of_range(start, until)

        def opened(stub: Any, hello: pb.Envelope) -> Any:
            bound.begin()
            request = auditor_pb2.FetchStatementsRequest(hello=hello, ledger=root, statement_ids=ids, **asked)
            return stub.FetchStatements(request)

        messages = self._stream(root, opened, auditor_pb2.FetchStatementsResponse, statements_context)
        async with aclosing(messages):
            async for message in messages:
                bound.take(message)
                verified: list[Signed[Any]] = []
                refused: list[tuple[pb.Envelope, PermslipError]] = []
                for envelope in message.statements:
                    try:
                        verified.append(st.verify(st.kind_of(envelope), envelope, federation=federation))
                    except PermslipError as error:
                        refused.append((envelope, error))
                yield FetchedStatements(tuple(verified), tuple(message.erased), tuple(refused))

    async def prove_inclusion(self, checkpoint: LedgerCheckpoint, leaves: Sequence[tuple[int, bytes]]) -> None:
        """Prove that leaves are in a checkpoint's tree.

        Args:
            checkpoint: of their ledger.
            leaves: position and leaf hash of each.

        Raises:
            ProofError: one is not.
        """
        for first in range(0, len(leaves), _MAX_POSITIONS):
            some = leaves[first : first + _MAX_POSITIONS]
            request = auditor_pb2.GetProofsRequest(
                ledger=checkpoint.ledger, size=checkpoint.size, positions=[position for position, _ in some]
            )
            response = await self._call("GetProofs", request, checkpoint.ledger)
            if [each.position for each in response.inclusion] != [position for position, _ in some]:
                raise ProofError("expected one proof for each leaf that was asked for.")
            for (position, digest), proof in zip(some, response.inclusion, strict=True):
                verify_inclusion(digest, position, checkpoint.size, list(proof.hashes), checkpoint.root)

    async def prove_consistency(self, earlier: Checkpoint, later: LedgerCheckpoint) -> list[bytes]:
        """Prove that the tree of an earlier checkpoint is the beginning of a later one's; returns the proof.

        Raises:
            ProofError: it is not: the ledger's keeper signed two histories.
        """
        proof: list[bytes] = []
        if 0 < earlier.size < later.size:
            request = auditor_pb2.GetProofsRequest(ledger=later.ledger, size=later.size, old_size=earlier.size)
            response = await self._call("GetProofs", request, later.ledger)
            proof = list(response.consistency.hashes)
        verify_consistency(earlier.size, later.size, earlier.root, later.root, proof)
        return proof

    def _root(self, ledger: bytes | str | None) -> bytes:
        if ledger is None:
            return self._session.server.broker_root
        parsed = PublicKey.from_did(ledger, field="ledger") if isinstance(ledger, str) else PublicKey.parse(ledger)
        return parsed.raw

    async def _cert(self, root: bytes) -> Signed[pb.KeyCert]:
        """The certificate of a ledger's keeper."""
        cert = self._session.broker_cert
        if root != self._session.server.broker_root:
            cert = (await self._session.know([root])).cert(root)
        if cert is None:
            raise KeyRejectedError(f"{did_text(root)} has no certified key, or is suspended.")
        return cert

    async def _call(self, method: str, request: Any, root: bytes) -> Any:
        """A call with one answer, in clear."""

        async def call(hello: pb.Envelope) -> Any:
            request.hello.CopyFrom(hello)
            return await self._session.call(auditor_pb2_grpc.AuditorServiceStub, method, request)

        if root == self._session.server.broker_root:
            return await self._session.with_greeting(call)
        return await call((await self._session.greet_node(root, SealingKey.generate().public)).envelope)

    async def _stream(
        self, root: bytes, opened: _Open, message: type[M], context: Callable[[bytes], bytes], *, patient: bool = False
    ) -> AsyncGenerator[Any, None]:
        """The messages of a stream, opened again while no broker can be reached; a node's are unsealed.

        Args:
            root: whose ledger.
            opened: opens the call from where the last one stopped.
            message: the class of its messages.
            context: for what a node seals them.
            patient: wait for the next message as long as it takes.
        """
        session = self._session
        give_up, attempt = asyncio.get_running_loop().time() + session.timeout.connect, 0
        refused = False
        while True:
            reply_key = SealingKey.generate() if root != session.server.broker_root else None
            hello, context_bytes = await self._greeting(root, reply_key, context, fresh=refused)
            channel = session.open_channel()
            call = opened(auditor_pb2_grpc.AuditorServiceStub(channel), hello)
            try:
                while (read := await self._read(call, patient=patient)) is not None:
                    yield read if reply_key is None else _unsealed(read, message, reply_key, context_bytes)
                    give_up, attempt = asyncio.get_running_loop().time() + session.timeout.connect, 0
                return
            except grpc.aio.AioRpcError as failure:
                error, wait = error_of(failure), backoff(attempt)
                # A greeting may have become too old since the last stream; once more with a new one.
                if isinstance(error, RefusedError) and error.code == _STALE and not refused:
                    refused = True
                    continue
                if not is_unreached(failure) or asyncio.get_running_loop().time() + wait > give_up:
                    raise error from failure
                session.channels.leave(channel, grace=session.timeout.call)
                attempt += 1
                await asyncio.sleep(wait)
            finally:
                call.cancel()

    async def _greeting(
        self, root: bytes, reply_key: SealingKey | None, context: Callable[[bytes], bytes], *, fresh: bool
    ) -> tuple[pb.Envelope, bytes]:
        if reply_key is None:
            return await self._session.greet(fresh=fresh), b""
        hello = await self._session.greet_node(root, reply_key.public)
        return hello.envelope, context(hello.id)

    async def _read(self, call: Any, *, patient: bool) -> Any:
        """The next message; None at the end."""
        try:
            async with asyncio.timeout(None if patient else self._session.timeout.call):
                read = await call.read()
        except TimeoutError:
            raise TimedOutError(
                "the ledger's keeper stopped sending.", remedy="Try again, or allow more time."
            ) from None
        return None if read is grpc.aio.EOF else read


def _unsealed(message: Any, expected: type[M], key: SealingKey, context: bytes) -> M:
    if not message.sealed:
        raise MalformedError("expected a node's answer to be sealed.", field="ledger")
    opened = open_sealed(key, message.sealed, context=context)
    try:
        return expected.FromString(opened)
    except DecodeError:
        raise MalformedError(f"expected a {expected.DESCRIPTOR.name}.", field="ledger.sealed") from None


def _origin(note: bytes) -> str:
    try:
        return note.split(b"\n", 1)[0].decode()
    except UnicodeDecodeError:
        raise MalformedError("expected a ledger's name.", field="checkpoint") from None

"""Accesses: the ledger's entries about one's own slices, checked to be in the ledger and without a hole.

Rules:

- Every entry is proved to be in the broker's signed checkpoint; what is not proved is an error, not a warning.
- Entries about one slice are numbered and chained. An entry that is another person's business shows number and hash
  alone, so that its place is not empty.

Example::

    async for access in guardian.accesses():
        print(access.recorded_at, access.requester_name, access.reason.name, access.sections)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from permslip import statements as st
from permslip._pb.permslip.v1 import guardian_pb2, guardian_pb2_grpc, ledger_pb2, statement_pb2 as pb
from permslip.checkpoints import VerifiedCheckpoint, open_checkpoint
from permslip.client.failures import reason_of_code
from permslip.client.session import Session
from permslip.directory import Directory
from permslip.errors import MalformedError, ProofError
from permslip.grant_views import time_text
from permslip.keys import PublicKey, did_text
from permslip.merkle import leaf_hash, verify_inclusion
from permslip.notes import Ed25519Verifier, SignatureType, VerifierKey
from permslip.reasons import Reason
from permslip.wallet import LinkedSlice

__all__ = ["Access", "AccessChecker", "list_accesses"]


@dataclass(frozen=True, slots=True)
class Access:
    """One entry of the broker's ledger about a slice.

    Attributes:
        position: in the ledger.
        event: ``access_decided``, ``access_answered``, ``statement_recorded`` …; empty where the entry is another
            person's business, or was erased.
        recorded_at: the broker's clock, UTC milliseconds; 0 where unknown.
        node, handle: the slice; empty where unknown.
        slice_seq: its number in the slice's chain; 0 where unknown.
        requester, requester_name: who asked.
        grant_id: under which grant.
        query_id: which query; decision and answer share it.
        purpose: the purpose's name.
        reason: the verdict, or how the answer ended.
        sections: section → verdict.
        sealed_bytes: how much was relayed.
    """

    position: int
    event: str = ""
    recorded_at: int = 0
    node: bytes = b""
    handle: bytes = b""
    slice_seq: int = 0
    requester: bytes = b""
    requester_name: str = ""
    grant_id: bytes = b""
    query_id: bytes = b""
    purpose: str = ""
    reason: Reason = Reason.ALLOWED
    sections: tuple[tuple[str, Reason], ...] = field(default=())
    sealed_bytes: int = 0

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        return {
            "position": self.position,
            "event": self.event,
            "recorded_at": time_text(self.recorded_at) if self.recorded_at else "",
            "node": did_text(self.node) if self.node else "",
            "handle": self.handle.hex(),
            "slice_seq": self.slice_seq,
            "requester": did_text(self.requester) if self.requester else "",
            "requester_name": self.requester_name,
            "grant_id": self.grant_id.hex(),
            "query_id": self.query_id.hex(),
            "purpose": self.purpose,
            "reason": self.reason.name,
            "sections": {path: reason.name for path, reason in self.sections},
            "sealed_bytes": self.sealed_bytes,
        }


async def list_accesses(session: Session, slices: Sequence[LinkedSlice]) -> AsyncIterator[Access]:
    """Every entry about one's own slices, slice after slice, checked; see :class:`AccessChecker`.

    Args:
        session: with the broker.
        slices: only these; else every slice on which the caller holds a consent.
    """
    asked = [pb.Slice(node=each.node, handle=each.handle) for each in slices]
    # Where the chains end is told with the first page of a listing of all of them.
    heads = [head async for response in _pages(session, asked) for head in response.heads]
    for head in heads:
        checker = AccessChecker(
            head.slice,
            federation=session.server.federation,
            broker_root=session.server.broker_root,
            broker_key=session.broker_key,
            directory=session.directory,
        )
        async for response in _pages(session, [head.slice]):
            found = checker.check(response)
            await session.know({each.requester for each in found if each.requester})
            for access in found:
                yield checker.named(access)
        checker.finish(head)


def _pages(session: Session, slices: Sequence[pb.Slice]) -> AsyncIterator[guardian_pb2.ListAccessesResponse]:
    return session.pages(
        guardian_pb2_grpc.GuardianServiceStub,
        "ListAccesses",
        lambda hello, page: guardian_pb2.ListAccessesRequest(hello=hello, page=page, slices=slices),
    )


class AccessChecker:
    """Checks the entries of one slice, page after page, and that none is missing.

    Args:
        place: the slice.
        federation: its name.
        broker_root: the pinned root key of the broker.
        broker_key: the key that its certificate names, which signs checkpoints.
        directory: for names.
    """

    def __init__(
        self, place: pb.Slice, *, federation: str, broker_root: bytes, broker_key: bytes, directory: Directory
    ) -> None:
        self._place, self._federation, self._broker_root = place, federation, broker_root
        self._directory = directory
        self._broker_key = PublicKey.parse(broker_key, field="broker_key")
        self._seq, self._last = 0, b""

    def check(self, page: guardian_pb2.ListAccessesResponse) -> list[Access]:
        """The entries of a page, each proved to be in its checkpoint and to follow the one before.

        Raises:
            ProofError: an entry is not in the ledger, or one before it is missing.
            SignatureError: the checkpoint is not the broker's.
            MalformedError: an entry is not what the format says.
        """
        if not page.entries:
            return []
        checkpoint = self._checkpoint(page.checkpoint.note).checkpoint
        if len(page.proofs) != len(page.entries):
            raise ProofError("expected one proof for each entry.")
        found = []
        for leaf, proof in zip(page.entries, page.proofs, strict=True):
            if proof.position != leaf.position or proof.size != checkpoint.size:
                raise ProofError("a proof is about another entry or checkpoint.")
            if leaf.leaf and leaf_hash(leaf.leaf) != leaf.leaf_hash:
                raise ProofError("an entry is not the one whose hash is given.")
            verify_inclusion(leaf.leaf_hash, leaf.position, checkpoint.size, list(proof.hashes), checkpoint.root)
            found.append(self._access(leaf))
        return found

    def named(self, access: Access) -> Access:
        """The same with the requester's public name, as the directory has it now."""
        return replace(access, requester_name=self._directory.name(access.requester)) if access.requester else access

    def finish(self, head: ledger_pb2.SliceHead) -> None:
        """Check that the entries reach as far as the broker said the slice's chain does.

        Raises:
            ProofError: they end earlier, or elsewhere.
        """
        if self._seq < head.slice_seq or (self._seq == head.slice_seq and self._last != head.leaf_hash):
            raise _left_out("the last entries about this slice were left out.")

    def _access(self, leaf: ledger_pb2.LedgerLeaf) -> Access:
        before, self._seq, self._last = self._last, self._seq + 1, leaf.leaf_hash
        if not leaf.leaf:
            # Another person's business: the next entry that is shown names this one's hash.
            return Access(leaf.position, node=self._place.node, handle=self._place.handle, slice_seq=self._seq)
        entry = st.decode_strictly(ledger_pb2.LogEntry, leaf.leaf, "ledger.leaf")
        if entry.federation != self._federation or entry.ledger != self._broker_root or entry.slice != self._place:
            raise ProofError("an entry belongs to another ledger or slice.")
        if entry.slice_seq != self._seq or entry.slice_prev != before:
            raise _left_out("an entry about this slice was left out.")
        return self._told(entry, leaf.position)

    def _told(self, entry: ledger_pb2.LogEntry, position: int) -> Access:
        event = entry.WhichOneof("event") or ""
        common: dict[str, Any] = {
            "position": position,
            "event": event,
            "recorded_at": entry.recorded_at,
            "node": entry.slice.node,
            "handle": entry.slice.handle,
            "slice_seq": entry.slice_seq,
        }
        if event == "access_decided":
            decided = entry.access_decided
            return Access(
                **common,
                requester=decided.requester.root,
                grant_id=decided.grant_id,
                query_id=decided.query_id,
                purpose=pb.Purpose.Name(decided.purpose).removeprefix("PURPOSE_").lower() if decided.purpose else "",
                reason=reason_of_code(decided.reason),
                sections=tuple((each.section, reason_of_code(each.reason)) for each in decided.sections),
            )
        if event == "access_answered":
            answered = entry.access_answered
            return Access(
                **common,
                query_id=answered.query_id,
                reason=reason_of_code(answered.reason),
                sealed_bytes=answered.sealed_bytes,
            )
        if event == "statement_recorded":
            return Access(**common, grant_id=entry.statement_recorded.subject)
        return Access(**common)

    def _checkpoint(self, note: bytes) -> VerifiedCheckpoint:
        try:
            origin = note.split(b"\n", 1)[0].decode("ascii")
        except UnicodeDecodeError:
            raise MalformedError("expected a log's name.", field="checkpoint") from None
        key = VerifierKey(origin, SignatureType.ED25519, self._broker_key)
        return open_checkpoint(note, Ed25519Verifier(key))


def _left_out(message: str) -> ProofError:
    return ProofError(message, remedy="Ask the broker's operator why; an auditor can find out.")

"""What was done with a parent's consents: the entries about her slices, each with its proof of inclusion.

The entries about one slice are chained and numbered, so she can see that none is left out. Those about grants that she
neither signed nor may revoke are another person's: of them she gets number and hash, which the chain needs, and not
what they say.

Rules:

- One page is entries of one slice, ascending; the token names the slice's place in the list and the number reached.
- Proofs are against the checkpoint that comes with the page: its witnesses' cosignatures are asked for between
  :meth:`Accesses.begin`, which says how much it must cover, and :meth:`Accesses.page`.
- How often a slice was used is told to those alone whom its node once named in an endorsement: whoever knows a handle
  can sign a grant on it, and learns nothing by that.

Example::

    begun = accesses.begin(key, request)
    response = accesses.page(key, request, begun)
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from sqlalchemy import Engine

from permslip._pb.permslip.v1 import guardian_pb2, ledger_pb2, statement_pb2 as pb
from permslip.errors import MalformedError, RefusedError
from permslip.hosting.database import reading
from permslip.hosting.leaves import decode_leaf
from permslip.hosting.ledger import Ledger, SliceEntry
from permslip.hosting.ledger_reading import SqlHashes
from permslip.merkle import root_at
from permslip.reasons import Reason
from permslip_broker.identity import Identity
from permslip_broker.own_grants import OwnGrants
from permslip_broker.paging import page_size
from permslip_broker.schema import BrokerTables

__all__ = ["Accesses", "Begun"]

_TOKEN: Final = struct.Struct(">qqq")
# An answer comes within minutes of its decision; so many entries back it is looked for.
_LOOK_BACK: Final = 256


class Begun(NamedTuple):
    """What a page begins with.

    Attributes:
        slices: that are asked for: node and handle.
        place, after: slice and number reached by the page before.
        size: of the checkpoint that the page is proved against; on the first page the least that it must have.
        heads: where the chains end; on the first page alone.
        note: that checkpoint; empty: signed by this broker alone.
    """

    slices: list[tuple[bytes, bytes]]
    place: int
    after: int
    size: int
    heads: list[ledger_pb2.SliceHead]
    note: bytes = b""


class Accesses:
    """Reads the entries of a person's slices. Waits for the database: not for the event loop."""

    def __init__(
        self, identity: Identity, engine: Engine, tables: BrokerTables, ledger: Ledger, own_grants: OwnGrants
    ) -> None:
        self._identity, self._engine, self._tables = identity, engine, tables
        self._ledger, self._own_grants = ledger, own_grants

    def begin(self, key: bytes, request: guardian_pb2.ListAccessesRequest) -> Begun:
        """What is asked for, and how many entries the checkpoint must cover.

        Raises:
            MalformedError: the token is not one of ours.
            RefusedError: a slice was asked for on which the caller holds no consent.
        """
        slices = self._slices(key, request)
        place, after, size = self._token(request.page.token, len(slices))
        # Where the chains end is told with the first page; the size read after it holds all of them.
        heads = [] if size else [self._head(node, handle) for node, handle in slices]
        return Begun(slices, place, after, size or self._ledger.read_head().size, heads)

    def page(
        self, key: bytes, request: guardian_pb2.ListAccessesRequest, begun: Begun
    ) -> guardian_pb2.ListAccessesResponse:
        """One page of entries, proved against a checkpoint of ``begun.size`` entries."""
        slices, place, after, size, heads, note = begun
        limit = page_size(request.page)
        response = guardian_pb2.ListAccessesResponse(
            checkpoint=ledger_pb2.SignedCheckpoint(note=note or self._checkpoint(size)), heads=heads
        )
        while place < len(slices) and not response.entries:
            node, handle = slices[place]
            entries = self._ledger.slice_entries(node, handle, after, limit)
            entries = [each for each in entries if each.position < size]
            shown = self._shown(key, (node, handle), entries)
            for entry in entries:
                leaf = entry.leaf if entry.seq in shown else None
                response.entries.add(position=entry.position, leaf_hash=entry.leaf_hash, leaf=leaf or b"")
                hashes = self._ledger.inclusion_proof(entry.position, size)
                response.proofs.add(position=entry.position, size=size, hashes=hashes)
            if len(entries) == limit:
                response.next_page = _TOKEN.pack(place, entries[-1].seq, size)
                return response
            place, after = place + 1, 0
        if place < len(slices):
            response.next_page = _TOKEN.pack(place, 0, size)
        return response

    def _slices(self, key: bytes, request: guardian_pb2.ListAccessesRequest) -> list[tuple[bytes, bytes]]:
        if not request.slices:
            return [each for each in self._own_grants.slices(key) if self._own_grants.on_slice(key, *each)]
        asked = [(each.node, each.handle) for each in request.slices]
        for number, (node, handle) in enumerate(asked):
            if not self._own_grants.on_slice(key, node, handle):
                reason = Reason.NOT_ALLOWED
                raise RefusedError(
                    "the caller holds no consent on this slice.",
                    code=reason.name,
                    field=f"slices[{number}]",
                    remedy=reason.remedy,
                )
        return asked

    def _shown(self, key: bytes, place: tuple[bytes, bytes], entries: list[SliceEntry]) -> set[int]:
        """Numbers of the entries that concern grants which this person may see."""
        if not entries:
            return set()
        grants = self._own_grants.on_slice(key, *place)
        earlier = max(0, entries[0].seq - 1 - _LOOK_BACK)
        before = self._ledger.slice_entries(*place, earlier, entries[0].seq - 1 - earlier)
        queries: set[bytes] = set()
        shown: set[int] = set()
        for entry in (*before, *entries):
            if entry.leaf is None:
                continue
            leaf = decode_leaf(entry.leaf)
            event = leaf.WhichOneof("event")
            if event == "access_decided":
                mine = leaf.access_decided.grant_id in grants
                if mine:
                    queries.add(leaf.access_decided.query_id)
            elif event == "access_answered":
                mine = leaf.access_answered.query_id in queries
            elif event == "statement_recorded":
                recorded = leaf.statement_recorded
                mine = recorded.statement_id in grants or recorded.subject in grants
            else:
                mine = False
            if mine:
                shown.add(entry.seq)
        return shown

    def _head(self, node: bytes, handle: bytes) -> ledger_pb2.SliceHead:
        end = self._ledger.slice_end(node, handle)
        place = pb.Slice(node=node, handle=handle)
        if end is None:
            return ledger_pb2.SliceHead(slice=place)
        return ledger_pb2.SliceHead(slice=place, slice_seq=end.seq, leaf_hash=end.leaf_hash)

    def _checkpoint(self, size: int) -> bytes:
        with reading(self._engine) as connection:
            root = root_at(SqlHashes(connection, self._tables.ledger), size)
        return self._identity.checkpoint(size, root)

    @staticmethod
    def _token(token: bytes, slices: int) -> tuple[int, int, int]:
        if not token:
            return 0, 0, 0
        if len(token) == _TOKEN.size:
            place, after, size = _TOKEN.unpack(token)
            if 0 <= place < slices and after >= 0 and size > 0:
                return place, after, size
        raise MalformedError("expected the token of the page before.", field="page.token")

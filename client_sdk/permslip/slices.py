"""Slices on their way: what a node answers to one query, from its first sealed byte to the verified manifest.

Rules (SPEC.md §3):

- The ``Opening`` binds query, grant and sealed content key under the node's signature. Nothing is yielded before it
  holds: a broker that seals records of its own to the reply key cannot make one.
- A chunk's plaintext is ``uint32 big-endian length ‖ body ‖ zeros``; a body is a ``SlicePart`` of whole records.
- The last chunk carries the ``Manifest``: what was answered for each section, how many records, their digest. A slice
  without it is not whole.
- Plaintexts add up to a Padmé length of at least 4 KiB; all chunks but the last are 64 KiB. So nothing but that one
  length can be seen from outside.

Example::

    writer = SliceWriter(query, signer=signer, key=key, now=now)
    chunks = writer.add(page, 50)
    rest, manifest = writer.finish(coverage, slice_seq=7, now=now)

    reader = SliceReader(query, reply_key, node=grant.slice.node, check_signer=directory.check)
    reader.open_with(writer.opening)
    for chunk in (*chunks, *rest):
        records.extend(reader.read(chunk))
    manifest = reader.finish()
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final, TypeVar

from google.protobuf.message import DecodeError

from permslip import statements as st
from permslip._pb.permslip.v1 import record_pb2, statement_pb2 as pb
from permslip.errors import AuthorityError, MalformedError, SealError
from permslip.keys import SealingKey, SigningKey
from permslip.quantities import Millis
from permslip.sealing import MAX_CHUNK_BYTES, SliceOpener, SliceSealer, padme
from permslip.sections import expand
from permslip.statements import Signed

__all__ = ["MAX_BODY_BYTES", "MIN_SLICE_BYTES", "SliceReader", "SliceWriter"]

_S = TypeVar("_S", pb.Opening, pb.Manifest)

_LENGTH_BYTES: Final = 4
MAX_BODY_BYTES: Final = MAX_CHUNK_BYTES - _LENGTH_BYTES
MIN_SLICE_BYTES: Final = 4096


class SliceWriter:
    """Seals the answer to one query.

    Args:
        query: verified and allowed.
        signer: the node's root and current online key.
        key: the private key of ``signer.key``.
        now: the node's clock.
    """

    def __init__(self, query: Signed[pb.Query], *, signer: pb.Signer, key: SigningKey, now: Millis) -> None:
        self._query, self._signer, self._key = query, signer, key
        self._sealer = SliceSealer(query.payload.reply_key, query.id)
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._full_chunks = 0
        self._records = 0
        self._digest = sha256()
        opening = pb.Opening(
            federation=query.payload.federation,
            nonce=os.urandom(16),
            created_at=now,
            signer=signer,
            query_id=query.id,
            grant_id=query.payload.grant_id,
            sealed_key=self._sealer.sealed_key,
            header=self._sealer.header,
        )
        self.opening = st.sign(st.OPENING, opening, [key]).envelope

    def add(self, records: bytes, count: int) -> list[bytes]:
        """Add whole records; returns the sealed chunks that became full.

        Args:
            records: serialized ``SlicePart`` with records only, at most :data:`MAX_BODY_BYTES`.
            count: how many they are.

        Raises:
            MalformedError: ``records`` are too many for one chunk.
        """
        if len(records) > MAX_BODY_BYTES:
            raise MalformedError(f"expected at most {MAX_BODY_BYTES} bytes, got {len(records)}.", field="records")
        chunks = [self._full_chunk()] if self._pending_bytes + len(records) > MAX_BODY_BYTES else []
        self._pending.append(records)
        self._pending_bytes += len(records)
        self._records += count
        self._digest.update(records)
        return chunks

    def finish(
        self,
        coverage: Sequence[pb.SectionCoverage],
        *,
        slice_seq: int,
        now: Millis,
        next_page: bytes = b"",
    ) -> tuple[list[bytes], Signed[pb.Manifest]]:
        """Seal what is left, with the manifest; returns the last chunks and the manifest.

        Args:
            coverage: one for each leaf section that the query asked for.
            slice_seq: number of the latest entry about this slice in the node's ledger.
            now: the node's clock.
            next_page: where the next page begins, if there is one.
        """
        manifest = pb.Manifest(
            federation=self._query.payload.federation,
            nonce=os.urandom(16),
            created_at=now,
            signer=self._signer,
            query_id=self._query.id,
            grant_id=self._query.payload.grant_id,
            coverage=coverage,
            records=self._records,
            records_sha256=self._digest.digest(),
            next_page=next_page,
            slice_seq=slice_seq,
        )
        signed = st.sign(st.MANIFEST, manifest, [self._key])
        tail = record_pb2.SlicePart(manifest=signed.envelope).SerializeToString(deterministic=True)
        chunks = [self._full_chunk()] if self._pending_bytes + len(tail) > MAX_BODY_BYTES else []
        body = b"".join([*self._pending, tail])
        self._pending.clear()
        # From 4 MiB on the padding may be longer than a chunk: then chunks with an empty body go ahead of the last.
        while (length := self._length_of_last(len(body))) > MAX_CHUNK_BYTES:
            chunks.append(self._full_chunk())
        chunks.append(self._sealer.chunk(_framed(body, length), last=True))
        return chunks, signed

    def _length_of_last(self, body: int) -> int:
        """How long the last chunk's plaintext must be, so that the whole slice's length is a Padmé length."""
        before = self._full_chunks * MAX_CHUNK_BYTES
        return padme(max(before + _LENGTH_BYTES + body, MIN_SLICE_BYTES)) - before

    def _full_chunk(self) -> bytes:
        body = b"".join(self._pending)
        self._pending.clear()
        self._pending_bytes = 0
        self._full_chunks += 1
        return self._sealer.chunk(_framed(body, MAX_CHUNK_BYTES), last=False)


class SliceReader:
    """Opens the answer to one query, believing only what the node signed.

    Args:
        query: the query that was sent.
        reply_key: the pair of its reply key.
        node: root key of the node that the grant names.
        check_signer: raises unless a signer's key is certified by its root now.
    """

    def __init__(
        self,
        query: Signed[pb.Query],
        reply_key: SealingKey,
        *,
        node: bytes,
        check_signer: Callable[[pb.Signer], None],
    ) -> None:
        self._query, self._reply_key, self._node, self._check_signer = query, reply_key, node, check_signer
        self._opener: SliceOpener | None = None
        self._returned: Counter[str] = Counter()
        self._digest = sha256()
        self._manifest: Signed[pb.Manifest] | None = None

    @property
    def is_open(self) -> bool:
        """Whether a genuine opening arrived."""
        return self._opener is not None

    def open_with(self, envelope: pb.Envelope) -> None:
        """Take the opening.

        Raises:
            VerificationError: not by the node, for another query or grant, or a second one.
            MalformedError: not an opening.
        """
        if self._opener is not None:
            raise SealError("a second opening came for one query.")
        opening = self._believed(st.OPENING, envelope).payload
        self._opener = SliceOpener(self._reply_key, opening.sealed_key, opening.header, self._query.id)

    def read(self, chunk: bytes) -> list[record_pb2.Record]:
        """Open the next chunk; returns its records.

        Raises:
            SealError: no opening yet, or the chunk is not the next one of this slice, unaltered.
            VerificationError: the manifest is not the node's word about what was read.
        """
        if self._opener is None:
            raise SealError("a chunk came before the opening.")
        plaintext, last = self._opener.open(chunk)
        body = _unframed(plaintext)
        try:
            part = record_pb2.SlicePart.FromString(body)
        except DecodeError:
            raise SealError("the node sent records that cannot be read.", remedy="Tell the node's operator.") from None
        if part.HasField("manifest") != last:
            raise SealError("the manifest is missing, or not in the last chunk.")
        self._returned.update(record.section for record in part.records)
        if last:
            # The manifest's own bytes are not among the records'.
            tail = record_pb2.SlicePart(manifest=part.manifest).SerializeToString(deterministic=True)
            if not body.endswith(tail):
                raise SealError("the manifest does not stand at the end of the slice.")
            self._digest.update(body[: len(body) - len(tail)])
            self._take_manifest(part.manifest)
        else:
            self._digest.update(body)
        return list(part.records)

    def finish(self) -> Signed[pb.Manifest]:
        """The manifest, once the slice is whole.

        Raises:
            SealError: the slice was cut short.
        """
        if self._opener is None or self._manifest is None:
            raise SealError("the slice was cut short: its end did not arrive.", remedy="Query again.")
        self._opener.finish()
        return self._manifest

    def _take_manifest(self, envelope: pb.Envelope) -> None:
        signed = self._believed(st.MANIFEST, envelope)
        manifest = signed.payload
        if manifest.records != self._returned.total() or manifest.records_sha256 != self._digest.digest():
            raise SealError("the manifest does not describe the records that came with it.")
        if tuple(each.section for each in manifest.coverage) != expand(self._query.payload.sections):
            raise SealError("the manifest does not cover the sections that were asked for.")
        allowed = {each.section: each.returned for each in manifest.coverage if each.reason == pb.REASON_ALLOWED}
        refused = [each.section for each in manifest.coverage if each.reason != pb.REASON_ALLOWED and each.returned]
        if refused or +self._returned != +Counter(allowed):
            raise SealError("the manifest does not count the records of each section as they came.")
        self._manifest = signed

    def _believed(self, kind: st.Kind[_S], envelope: pb.Envelope) -> Signed[_S]:
        signed = st.verify(kind, envelope, federation=self._query.payload.federation)
        payload = signed.payload
        if payload.query_id != self._query.id or payload.grant_id != self._query.payload.grant_id:
            raise AuthorityError(f"{kind.name}: it is about another query or grant.")
        if payload.signer.root != self._node:
            raise AuthorityError(f"{kind.name}: not signed by the node that the grant names.")
        self._check_signer(payload.signer)
        return signed


def _framed(body: bytes, length: int) -> bytes:
    return (len(body).to_bytes(_LENGTH_BYTES, "big") + body).ljust(length, b"\x00")


def _unframed(plaintext: bytes) -> bytes:
    end = _LENGTH_BYTES + int.from_bytes(plaintext[:_LENGTH_BYTES], "big")
    if len(plaintext) < _LENGTH_BYTES or end > len(plaintext) or plaintext.count(0, end) != len(plaintext) - end:
        raise SealError("a chunk's length or padding is wrong.")
    return plaintext[_LENGTH_BYTES:end]

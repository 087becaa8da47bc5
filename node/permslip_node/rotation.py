"""After a rotation of the node's online key: what no broker has confirmed yet is said anew, with the new key.

A broker believes a node's current key alone. A statement that the earlier key signed, and that did not go up before the
rotation, would be refused and forgotten: a guardian would wait for an acknowledgement for ever, and a grant that this
node ended would stay endorsed at the broker.

Rules:

- An acknowledgement says the same again: what, and at which size of the ledger.
- An endorsement is judged anew, by the roster as it is now. That of a grant which has ended since is left out.
- What takes the place of an earlier statement is recorded before that is forgotten: an end in between says it twice.
- What others signed (a revocation brought by hand) and certificates, which the root signs, stay as they are.

Example::

    await rotation.say_anew()
    node.send_unconfirmed(stream)
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection

from permslip import statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.hosting.logs import get_log
from permslip.quantities import Millis, Position
from permslip.reasons import Reason
from permslip.statements import Signed
from permslip_node.endorsing import Endorser
from permslip_node.identity import Identity
from permslip_node.recording import OwnWord, Recording, statement_draft, write_outgoing

__all__ = ["Rotation"]

_log = get_log(__name__)


class Rotation:
    """Belongs to one event loop.

    Args:
        identity: who signs now.
        recording: where statements are recorded, and what is unconfirmed stands.
        endorser: judges grants anew.
        clock: UTC milliseconds now.
    """

    def __init__(
        self, identity: Identity, recording: Recording, endorser: Endorser, *, clock: Callable[[], Millis]
    ) -> None:
        self._identity, self._recording, self._endorser, self._clock = identity, recording, endorser, clock
        self._turn = asyncio.Lock()

    async def say_anew(self) -> int:
        """Take the place of what an earlier key signed; returns how many statements were.

        Raises:
            PermslipError: as :meth:`permslip_node.recording.Recording.append`; what is left can be said anew later.
        """
        async with self._turn:
            earlier = self._by_an_earlier_key()
            if not earlier:
                return 0
            for signed in earlier.values():
                if signed.kind is st.ACKNOWLEDGEMENT:
                    await self._acknowledge(signed)
            grants = [each.payload.grant_id for each in earlier.values() if each.kind is st.ENDORSEMENT]
            await self._endorse(dict.fromkeys(grants))
            for broker in self._recording.brokers:
                await self._recording.confirmed(broker, list(earlier))
        _log.info("said_anew", statements=len(earlier))
        return len(earlier)

    def _by_an_earlier_key(self) -> dict[bytes, Signed[Any]]:
        found: dict[bytes, Signed[Any]] = {}
        kinds = (st.ENDORSEMENT, st.ACKNOWLEDGEMENT)
        for broker in self._recording.brokers:
            for envelope in self._recording.unconfirmed(broker):
                if envelope.payload_type not in {each.payload_type for each in kinds}:
                    continue
                signed = st.verify(st.kind_of(envelope, kinds), envelope, federation=self._identity.federation)
                if signed.payload.signer.key != self._identity.signer.key:
                    found[signed.id] = signed
        return found

    async def _acknowledge(self, earlier: Signed[pb.Acknowledgement]) -> None:
        payload = pb.Acknowledgement()
        payload.CopyFrom(earlier.payload)
        payload.nonce = os.urandom(16)
        payload.created_at = max(self._clock(), earlier.payload.created_at + 1)
        payload.signer.CopyFrom(self._identity.signer)
        signed = self._identity.sign(st.ACKNOWLEDGEMENT, payload)

        def keep(connection: Connection, position: Position) -> None:
            write_outgoing(connection, position, signed, self._recording.brokers)

        draft = statement_draft(
            signed, subject=payload.target_id, slice_of=self._place(payload.target_id), changes=(), also=keep
        )
        await self._recording.append(draft, sends=[OwnWord(signed)])

    async def _endorse(self, grants: dict[bytes, None]) -> None:
        found = [self._recording.facts.capability(each) for each in grants]
        await self._endorser.renew([each for each in found if each is not None and each.ended == Reason.ALLOWED])

    def _place(self, target: bytes) -> tuple[bytes, bytes] | None:
        facts = self._recording.facts
        capability = facts.capability(target)
        if capability is None and (delegated := facts.delegated(target)) is not None:
            capability = facts.capability(delegated.grant_id)
        return (
            None if capability is None else (capability.grant.payload.slice.node, capability.grant.payload.slice.handle)
        )

"""Endorsing: the node's signed word on whether a grant's signers may decide, and its taking that word back.

Rules:

- Grant and endorsement are recorded in one transaction; what was judged by a roster that changed before the commit is
  judged again under the head's lock.
- An endorsement lives for 30 days at most and is renewed 7 days before its end while it is still true, and only where
  it then lives longer: not in the last week before the learner comes of age.
- One that an earlier key of this node signed is made anew when the broker asks for it, which believes the current key
  alone.
- When authority changes, every living endorsement on that slice is judged again at once (:meth:`Endorser.review`): what
  is no longer true is followed by a refusal, recorded here first, so that this node stops answering before the broker
  even hears of it; and the list of who may revoke follows the roster.
- A grant that was revoked or superseded is endorsed no more: it would end those that it was to take the place of.
- A call about a handle that this node never gave is answered and not recorded: nobody can fill the ledger with
  inventions.

Example::

    for envelope in await endorser.endorse([call]):
        send(envelope)
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from sqlalchemy import Connection, Engine, select

from permslip import statements as st
from permslip._pb.permslip.v1 import node_pb2, statement_pb2 as pb
from permslip.errors import MalformedError, PermslipError, UnavailableError
from permslip.facts import Capability, FactReader, check_admissible
from permslip.grants import revoker_hash
from permslip.hosting.database import reading
from permslip.hosting.drafts import Draft, Recorded
from permslip.hosting.logs import get_log
from permslip.quantities import Millis, Position
from permslip.reasons import Reason
from permslip.statements import Signed
from permslip_node import schema
from permslip_node.identity import Identity
from permslip_node.judging import Judgement, judge
from permslip_node.recording import OwnWord, Recording, statement_draft, write_outgoing
from permslip_node.roster import authority_subject, read_authority
from permslip_node.vetoes import end_vetoes

__all__ = ["RENEW_BEFORE", "Endorser"]

_log = get_log(__name__)

RENEW_BEFORE: Final = 7 * 86_400_000
_PAGE: Final = 200
_ATTEMPTS: Final = 5


class Endorser:
    """Judges grants, and records what it says about them. Belongs to one event loop.

    Args:
        identity: who signs.
        engine: the node's database, where the roster is.
        recording: where statements are recorded.
        default_rule: quorum rule of learners who have none of their own.
        clock: UTC milliseconds now.
    """

    def __init__(
        self,
        identity: Identity,
        engine: Engine,
        recording: Recording,
        *,
        default_rule: str,
        clock: Callable[[], Millis],
    ) -> None:
        self._identity, self._engine, self._recording = identity, engine, recording
        self._default_rule, self._clock = default_rule, clock
        # One at a time: two calls about one grant must not both record it.
        self._turn = asyncio.Lock()

    async def endorse(self, calls: Sequence[node_pb2.EndorsementCall]) -> list[pb.Envelope]:
        """Answer calls for endorsement; returns what is not kept in ``outgoing`` and must be sent by the caller.

        What is new is recorded and sent through :class:`Recording`.
        """
        loose: list[pb.Envelope] = []
        async with self._turn:
            appends = []
            begun: set[bytes] = set()
            for call in calls:
                try:
                    grant = st.verify(st.GRANT, call.grant, federation=self._identity.federation)
                except PermslipError as error:
                    _log.warning("endorsement_call_not_believed", why=error.message)
                    continue
                if grant.payload.slice.node != self._identity.root or grant.id in begun:
                    _log.warning("endorsement_call_not_for_this_node", grant=grant.id.hex())
                    continue
                capability = self._recording.facts.capability(grant.id)
                if capability is not None and capability.endorsement is not None and not self._is_due(capability):
                    loose.append(capability.endorsement.envelope)
                    continue
                refusal = None if capability is not None else self._refusal_without_record(grant)
                if refusal is not None:
                    loose.append(refusal.envelope)
                    continue
                begun.add(grant.id)
                appends.append(self._record(grant))
            await asyncio.gather(*appends)
        return loose

    async def review(self, handle: bytes, change: Draft | None = None) -> list[Recorded]:
        """Judge every living endorsement on a slice again.

        Args:
            handle: whose.
            change: the change of authority that makes it necessary; recorded in the same transaction.

        Returns:
            what was recorded.
        """
        async with self._turn:
            recorded: list[Recorded] = []
            for _ in range(_ATTEMPTS):
                drafts, sends = [] if change is None else [change], []
                for capability in self._endorsed(handle):
                    if change is not None or self._is_untrue(capability):
                        word = OwnWord()
                        drafts.append(self._draft(capability.grant, word, approved_before=True))
                        sends.append(word)
                if not drafts:
                    return recorded
                recorded += await self._recording.append(*drafts, sends=sends)
                # Another process may have endorsed something by the old roster while this was being recorded.
                change = None
        return recorded

    async def renew_due(self) -> int:
        """Judge again what ends soon; returns how many were recorded."""
        grant, now = schema.FACTS.grant_fact.c, self._clock()
        query = select(grant.grant_id).where(
            grant.node == self._identity.root,
            grant.verdict == int(pb.ENDORSEMENT_VERDICT_ENDORSED),
            grant.ended == int(Reason.ALLOWED),
            grant.expires_at > now,
            grant.valid_until < now + RENEW_BEFORE,
            grant.valid_until < grant.expires_at,
        )
        with reading(self._engine) as connection:
            due = [row.grant_id for row in connection.execute(query)]
        renewed = 0
        for start in range(0, len(due), _PAGE):
            found = map(self._recording.facts.capability, due[start : start + _PAGE])
            ending = [each for each in found if each is not None and self._is_due(each)]
            await self.renew(ending)
            renewed += len(ending)
        return renewed

    async def renew(self, capabilities: Sequence[Capability]) -> None:
        """Judge these again, and record what comes of it."""
        async with self._turn:
            await asyncio.gather(*(self._record(each.grant) for each in capabilities))

    def _is_due(self, capability: Capability) -> bool:
        endorsement = capability.endorsement
        if endorsement is None or capability.ended != Reason.ALLOWED:
            return False
        if endorsement.payload.signer.key != self._identity.signer.key:
            return True
        said = endorsement.payload
        if (
            said.verdict != pb.ENDORSEMENT_VERDICT_ENDORSED
            or said.valid_until >= self._clock() + RENEW_BEFORE
            or said.valid_until >= capability.grant.payload.expires_at
        ):
            return False
        judgement = self._judged_now(capability)
        return judgement.verdict != said.verdict or judgement.valid_until > said.valid_until

    def _endorsed(self, handle: bytes) -> Iterator[Capability]:
        after, now = -1, self._clock()
        while rows := self._recording.facts.grants_on_slice(self._identity.root, handle, after=after, limit=_PAGE):
            for row in rows:
                after, capability = row.position, row.capability
                endorsement = capability.endorsement
                if (
                    endorsement is not None
                    and endorsement.payload.verdict == pb.ENDORSEMENT_VERDICT_ENDORSED
                    and capability.ended == Reason.ALLOWED
                    and now < capability.grant.payload.expires_at
                ):
                    yield capability

    def _is_untrue(self, capability: Capability) -> bool:
        endorsement, judgement = capability.endorsement, self._judged_now(capability)
        revokers = [revoker_hash(capability.grant.id, key) for key in judgement.revokers]
        return (
            endorsement is None
            or judgement.verdict != endorsement.payload.verdict
            or sorted(revokers) != list(endorsement.payload.revokers)
            or judgement.valid_until < endorsement.payload.valid_until
        )

    def _judged_now(self, capability: Capability) -> Judgement:
        with reading(self._engine) as connection:
            return self._judge(connection, capability.grant, self._recording.facts, approved_before=True)

    def _refusal_without_record(self, grant: Signed[pb.Grant]) -> Signed[pb.Endorsement] | None:
        """The refusal of a grant that cannot even be recorded here."""
        now = self._clock()
        with reading(self._engine) as connection:
            authority = read_authority(connection, grant.payload.slice.handle, default_rule=self._default_rule)
        if authority is None:
            return self._signed(grant, Judgement(pb.ENDORSEMENT_VERDICT_UNKNOWN_HANDLE), now)
        try:
            if self._recording.facts.recorded_at(grant.id) is not None:
                raise MalformedError("it was erased here: it ended long ago.", field="grant")
            check_admissible(self._recording.facts, grant, operator=self._identity.operator, now=now)
        except PermslipError as error:
            _log.warning("grant_not_admissible", grant=grant.id.hex(), why=error.message)
            return self._signed(grant, Judgement(pb.ENDORSEMENT_VERDICT_TERMS_REFUSED), now)
        return None

    async def _record(self, grant: Signed[pb.Grant]) -> None:
        for attempt in range(_ATTEMPTS):
            word = OwnWord()
            # Looked at each time: a push may have brought the grant meanwhile.
            capability = self._recording.facts.capability(grant.id)
            approved = capability is not None and capability.approval is not None
            draft = self._draft(grant, word, approved_before=approved)
            drafts = [draft] if capability is not None else [self._recording.facts.draft(grant), draft]
            try:
                await self._recording.append(*drafts, sends=[word])
            except UnavailableError:
                if attempt == _ATTEMPTS - 1:
                    raise
                self._recording.notice()
                continue
            return

    def _draft(self, grant: Signed[pb.Grant], word: OwnWord, *, approved_before: bool) -> Draft:
        """The endorsement as the roster stands now, to be made again if it changes before the commit."""
        place = grant.payload.slice
        facts = self._recording.facts

        def made(reader: FactReader, connection: Connection) -> Draft:
            judgement = self._judge(connection, grant, reader, approved_before=approved_before)
            capability = reader.capability(grant.id)
            if capability is not None and capability.ended != Reason.ALLOWED:
                judgement = Judgement(pb.ENDORSEMENT_VERDICT_TERMS_REFUSED)
            last = capability.endorsement if capability is not None else None
            created_at = self._clock()
            if last is not None:
                created_at = Millis(max(created_at, last.payload.created_at + 1))
            signed = word.signed = self._signed(grant, judgement, created_at)
            is_new = not approved_before and judgement.verdict == pb.ENDORSEMENT_VERDICT_ENDORSED

            def also(own: Connection, position: Position) -> None:
                write_outgoing(own, position, signed, self._recording.brokers)
                if is_new:
                    end_vetoes(own, grant.payload)

            draft = statement_draft(
                signed,
                subject=grant.id,
                slice_of=(place.node, place.handle),
                changes=(grant.id, *grant.payload.supersedes),
                also=also,
            )
            return replace(
                draft,
                depends_on=(grant.id, authority_subject(place.handle), grant.payload.grantee),
                facts_position=reader.position,
                redo=lambda own, position: replace(made(facts.at(own, position), own), redo=None),
            )

        with reading(self._engine) as connection:
            return made(facts, connection)

    def _judge(
        self, connection: Connection, grant: Signed[pb.Grant], reader: FactReader, *, approved_before: bool
    ) -> Judgement:
        now = self._clock()
        standing = reader.standing(grant.payload.grantee)
        admitted = standing is not None and standing.is_admitted(pb.PRINCIPAL_KIND_PROVIDER, now)
        authority = read_authority(connection, grant.payload.slice.handle, default_rule=self._default_rule)
        return judge(grant.payload, authority, provider_admitted=admitted, approved_before=approved_before, now=now)

    def _signed(self, grant: Signed[pb.Grant], judgement: Judgement, created_at: Millis) -> Signed[pb.Endorsement]:
        payload = pb.Endorsement(
            federation=self._identity.federation,
            nonce=os.urandom(16),
            created_at=created_at,
            signer=self._identity.signer,
            grant_id=grant.id,
            verdict=judgement.verdict,
            quorum_rule=judgement.rule,
            revokers=sorted(revoker_hash(grant.id, key) for key in judgement.revokers),
            valid_until=judgement.valid_until,
        )
        return self._identity.sign(st.ENDORSEMENT, payload)

"""Grants as their parties see them: verified statements first, the broker's word only where nobody signs.

Rules:

- The grant, the endorsement, the revocation and the acknowledgement are verified here. What a status says follows from
  them; only «superseded» and the consent id rest on the broker's word.
- «Revoked» needs the node's signed acknowledgement. :attr:`GrantView.confirmed` is true when its key is the node's
  current one, as the directory has it.
- A private part that cannot be opened (another key was certified when it was sealed) leaves purpose text and reference
  empty; the grant still counts.

Example::

    view = view_of(state, federation="fed.example", directory=directory, sealing=keys.sealing, now=now)
    print(view.node_name, view.status, view.reference, view.until)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from permslip import statements as st
from permslip._pb.permslip.v1 import session_pb2, statement_pb2 as pb
from permslip.consents import open_private
from permslip.directory import Directory
from permslip.errors import AuthorityError, KeyRejectedError, MalformedError, SealError
from permslip.grants import check_grant
from permslip.keys import SealingKey, did_text
from permslip.quantities import Millis, StatementId
from permslip.sections import SENSITIVE, covers, expand
from permslip.statements import Signed

__all__ = ["GrantStatus", "GrantView", "time_text", "view_of"]


class GrantStatus(StrEnum):
    """Where a grant stands."""

    PENDING = "pending"
    ACTIVE = "active"
    REFUSED = "refused"
    REVOKING = "revoking"
    REVOKED = "revoked"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"
    AUTHORITY_ENDED = "authority-ended"

    @property
    def is_live(self) -> bool:
        """Whether it can be used, now or once the school has confirmed it."""
        return self in (GrantStatus.ACTIVE, GrantStatus.PENDING)


@dataclass(frozen=True, slots=True, repr=False)
class GrantView:
    """One grant, with what has become of it.

    Attributes:
        signed: the grant as the guardian signed it.
        status: where it stands.
        node_name, grantee_name: public names from the operator's admissions; the key's own name where there is none.
        consent_id: shared by the grants of one consent; chosen by the broker.
        deposited_at: the broker's time, UTC milliseconds.
        private: what was sealed to node and grantee, where this reader could open it.
        endorsement: the node's latest word.
        revocation, acknowledgement: once it was revoked, and once the node said so.
        confirmed: the acknowledgement's key is the node's current one.
        delegations: verified, as deposited.
    """

    signed: Signed[pb.Grant]
    status: GrantStatus
    node_name: str
    grantee_name: str
    consent_id: bytes
    deposited_at: int
    private: pb.GrantPrivate | None = None
    endorsement: Signed[pb.Endorsement] | None = None
    revocation: Signed[pb.Revocation] | None = None
    acknowledgement: Signed[pb.Acknowledgement] | None = None
    confirmed: bool = False
    delegations: tuple[Signed[pb.Delegation], ...] = field(default=())

    def __repr__(self) -> str:
        # For logs: neither the learner's reference nor the purpose in words.
        terms = f"{', '.join(self.sections)} for {self.purpose} until {time_text(self.signed.payload.expires_at)}"
        return f"<GrantView {self.id.hex()} {self.status} {self.node_name!r} to {self.grantee_name!r}: {terms}>"

    @property
    def id(self) -> bytes:
        """The grant's id."""
        return self.signed.id

    @property
    def node(self) -> bytes:
        """Root key of the school's node."""
        return self.signed.payload.slice.node

    @property
    def slice(self) -> pb.Slice:
        """Node and handle."""
        return self.signed.payload.slice

    @property
    def sections(self) -> tuple[str, ...]:
        """The section paths it covers."""
        return tuple(self.signed.payload.sections)

    @property
    def purpose(self) -> str:
        """The purpose code's name, e.g. ``tutoring``."""
        return pb.Purpose.Name(self.signed.payload.purpose).removeprefix("PURPOSE_").lower()

    @property
    def purpose_text(self) -> str:
        """What it is for, in words; empty where the private part could not be opened."""
        return self.private.purpose_text if self.private is not None else ""

    @property
    def reference(self) -> str:
        """The grantee's own reference for the learner; empty as :attr:`purpose_text`."""
        return self.private.reference if self.private is not None else ""

    @property
    def until(self) -> datetime:
        """When it ends."""
        return datetime.fromtimestamp(self.signed.payload.expires_at / 1000, UTC)

    @property
    def refused_because(self) -> str:
        """Why the node did not endorse it, as a code's name; empty unless it refused."""
        if self.endorsement is None or self.endorsement.payload.verdict == pb.ENDORSEMENT_VERDICT_ENDORSED:
            return ""
        return pb.EndorsementVerdict.Name(self.endorsement.payload.verdict).removeprefix("ENDORSEMENT_VERDICT_")

    def covers(self, leaf: str) -> bool:
        """Whether a leaf section is covered by the grant's own paths."""
        return covers(self.signed.payload.sections, leaf)

    def sensitive_sections(self) -> tuple[str, ...]:
        """The sensitive leaves that it names."""
        return tuple(path for path in expand(self.sections) if path in SENSITIVE)

    def chain_to(self, party: bytes) -> tuple[bytes, ...]:
        """Ids of the delegations from the grant down to ``party``; empty for the grantee herself.

        Raises:
            AuthorityError: ``party`` is not reached.
        """
        if party == self.signed.payload.grantee:
            return ()
        by_id = {each.id: each for each in self.delegations}
        for last in self.delegations:
            if last.payload.delegatee != party:
                continue
            chain = [last]
            while (above := by_id.get(StatementId(chain[0].payload.parent_id))) is not None:
                chain.insert(0, above)
            if chain[0].payload.parent_id == self.id:
                return tuple(each.id for each in chain)
        raise AuthorityError("the grant was given to somebody else, and no delegation leads here.")

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold; ids and handles as hexadecimal, keys as did:key."""
        grant = self.signed.payload
        return {
            "grant_id": self.id.hex(),
            "consent_id": self.consent_id.hex(),
            "status": self.status.value,
            "confirmed": self.confirmed,
            "refused_because": self.refused_because,
            "node": did_text(grant.slice.node),
            "node_name": self.node_name,
            "handle": grant.slice.handle.hex(),
            "grantee": did_text(grant.grantee),
            "grantee_name": self.grantee_name,
            "granted_by": [did_text(each) for each in grant.granted_by],
            "actions": [pb.Action.Name(each).removeprefix("ACTION_").lower() for each in grant.actions],
            "sections": list(grant.sections),
            "purpose": self.purpose,
            "purpose_text": self.purpose_text,
            "reference": self.reference,
            "not_before": time_text(grant.not_before),
            "expires_at": time_text(grant.expires_at),
            "records_from": grant.records_from,
            "records_until": grant.records_until,
            "max_uses": grant.max_uses,
            "deposited_at": time_text(self.deposited_at) if self.deposited_at else "",
        }


def view_of(
    state: session_pb2.GrantState,
    *,
    federation: str,
    directory: Directory,
    sealing: SealingKey | None,
    now: Millis,
) -> GrantView:
    """Verify what a broker says of one grant.

    Raises:
        MalformedError: not the statements that were expected.
        SignatureError: one of them is not signed by those it names.
        AuthorityError: one of them is about another grant, or not by the grant's node.
    """
    # (1) the grant itself
    grant = st.verify(st.GRANT, state.grant, federation=federation)
    check_grant(grant.payload)
    if state.grant_id and state.grant_id != grant.id:
        raise AuthorityError("grants: the broker sent another grant than it names.")
    # (2) what the node says of it
    endorsement = _by_node(st.ENDORSEMENT, state, "endorsement", grant, federation)
    if endorsement is not None and endorsement.payload.grant_id != grant.id:
        raise AuthorityError("grants: the endorsement is about another grant.")
    # (3) whether it was revoked, and whether the node said that it holds the revocation
    revocation = None
    if state.HasField("revocation"):
        revocation = st.verify(st.REVOCATION, state.revocation, federation=federation)
        if revocation.payload.target_id != grant.id:
            raise AuthorityError("grants: the revocation is about another grant.")
    acknowledgement = _by_node(st.ACKNOWLEDGEMENT, state, "acknowledgement", grant, federation)
    if acknowledgement is not None and acknowledgement.payload.target_id != grant.id:
        raise AuthorityError("grants: the acknowledgement is about another grant.")
    delegations = tuple(st.verify(st.DELEGATION, each, federation=federation) for each in state.delegations)
    return GrantView(
        signed=grant,
        status=_status(state, grant, endorsement, revocation, acknowledgement, now),
        node_name=directory.name(grant.payload.slice.node),
        grantee_name=directory.name(grant.payload.grantee),
        consent_id=state.consent_id,
        deposited_at=state.deposited_at,
        private=_private(grant.payload, sealing),
        endorsement=endorsement,
        revocation=revocation,
        acknowledgement=acknowledgement,
        confirmed=acknowledgement is not None and _is_current(acknowledgement.payload.signer, directory, now),
        delegations=delegations,
    )


def time_text(millis: int) -> str:
    """UTC milliseconds as ISO 8601 with seconds, e.g. ``2026-11-22T12:00:00Z``."""
    return datetime.fromtimestamp(millis / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


_BROKERS_WORD: Final = {session_pb2.GRANT_STATUS_SUPERSEDED: GrantStatus.SUPERSEDED}


def _status(
    state: session_pb2.GrantState,
    grant: Signed[pb.Grant],
    endorsement: Signed[pb.Endorsement] | None,
    revocation: Signed[pb.Revocation] | None,
    acknowledgement: Signed[pb.Acknowledgement] | None,
    now: Millis,
) -> GrantStatus:
    if revocation is not None or acknowledgement is not None:
        return GrantStatus.REVOKED if acknowledgement is not None else GrantStatus.REVOKING
    if state.status in _BROKERS_WORD:
        return _BROKERS_WORD[state.status]
    if now >= grant.payload.expires_at:
        return GrantStatus.EXPIRED
    if endorsement is None:
        return GrantStatus.PENDING
    if endorsement.payload.verdict == pb.ENDORSEMENT_VERDICT_ENDORSED:
        return GrantStatus.ACTIVE
    if endorsement.payload.verdict == pb.ENDORSEMENT_VERDICT_AUTHORITY_ENDED:
        return GrantStatus.AUTHORITY_ENDED
    return GrantStatus.REFUSED


def _by_node(
    kind: st.Kind[st.P], state: session_pb2.GrantState, name: str, grant: Signed[pb.Grant], federation: str
) -> Signed[st.P] | None:
    if not state.HasField(name):  # type: ignore[arg-type]  # the stub lists the names one by one
        return None
    signed = st.verify(kind, getattr(state, name), federation=federation)
    if signed.payload.signer.root != grant.payload.slice.node:
        raise AuthorityError(f"grants: the {kind.name} is not by the node that the grant names.")
    return signed


def _private(grant: pb.Grant, sealing: SealingKey | None) -> pb.GrantPrivate | None:
    if sealing is None:
        return None
    try:
        return open_private(grant, sealing)
    except (SealError, MalformedError):
        return None


def _is_current(signer: pb.Signer, directory: Directory, now: Millis) -> bool:
    try:
        directory.check_signer(signer, kind=pb.PRINCIPAL_KIND_NODE, at=now)
    except KeyRejectedError:
        return False
    return True

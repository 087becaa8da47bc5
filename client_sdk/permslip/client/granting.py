"""Granting: drafts of consents, and their deposit.

Rules:

- The keys to which private words are sealed come from certificates that the node's and the grantee's own roots signed.
- A grantee that is not admitted, or suspended, is refused before anything is shown or signed.
- A grant is kept in the wallet, if there is one, before it is deposited: what was signed can always be revoked.

Example::

    draft = await granting.draft(terms, slices)
    consent = await granting.deposit(draft.sign([key]), draft)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from permslip._pb.permslip.v1 import guardian_pb2, guardian_pb2_grpc, statement_pb2 as pb
from permslip.client.consenting import Consent, ConsentDraft, RefusedGrant
from permslip.client.failures import error_of_refusal
from permslip.client.reading import Reader
from permslip.client.session import Session
from permslip.consents import ConsentTerms, make_grant
from permslip.directory import Directory
from permslip.dsse import statement_id
from permslip.errors import ConfigurationError, MalformedError
from permslip.grant_views import GrantView
from permslip.keys import did_text
from permslip.notices import render
from permslip.reasons import Reason
from permslip.sections import covers, expand
from permslip.wallet import GivenGrant, LinkedSlice, Wallet

__all__ = ["Granting"]

_DAY: Final = 86_400_000
_FAMILY_DAYS: Final = 90
_FAMILY_TEXT: Final = "To read what the school holds."
# An own grant that ends sooner than this is renewed before it is used.
_FAMILY_LEAST: Final = 3_600_000


class Granting:
    """Drafts and deposits; belongs to one guardian's client.

    Args:
        session: with the broker.
        reader: verifies what the broker says of grants.
        wallet: where the words are kept, if anywhere.
    """

    def __init__(self, session: Session, reader: Reader, wallet: Wallet | None) -> None:
        self._session, self._reader, self._wallet = session, reader, wallet

    async def draft(
        self,
        terms: ConsentTerms,
        slices: Sequence[LinkedSlice],
        *,
        cosigners: Sequence[bytes] = (),
        supersedes: Sequence[GrantView] = (),
    ) -> ConsentDraft:
        """What is to be signed, and the words to be shown first.

        Args:
            terms: what was decided.
            slices: one grant for each of them.
            cosigners: keys of the other guardians who will sign.
            supersedes: grants that end when these take effect, each on its own slice.

        Raises:
            KeyRejectedError: a node or the grantee is not admitted, suspended, or has no current key.
            MalformedError: names the field that is missing or wrong.
        """
        if not slices:
            raise MalformedError("there is no slice to grant.", field="slices", remedy="Link a school first.")
        session, identity = self._session, self._session.identity
        directory = await session.know({each.node for each in slices} | {terms.grantee, *terms.onward_parties})
        grantee_key = self._grantee_sealing_key(terms, directory)
        names = self._names(terms, slices, directory)
        grants, notices = [], []
        for each in slices:
            node_key = directory.sealing_key(each.node, kind=pb.PRINCIPAL_KIND_NODE, at=session.now())
            place = pb.Slice(node=each.node, handle=each.handle)
            grant = make_grant(
                terms,
                place,
                federation=session.server.federation,
                granted_by=[identity.root, *cosigners],
                names=names,
                recipients=[node_key, grantee_key],
                now=session.now(),
                supersedes=[view.id for view in supersedes if view.slice == place],
            )
            grants.append(grant)
            notices.append(render(grant, purpose_text=terms.purpose_text, names=names, language=terms.language))
        return ConsentDraft(
            terms, tuple(grants), tuple(slices), tuple(notices), names.get(terms.grantee, did_text(terms.grantee))
        )

    async def deposit(
        self, envelopes: Sequence[pb.Envelope], draft: ConsentDraft | None = None, *, wait: float
    ) -> Consent:
        """Deposit signed grants as one consent, and wait for the schools' endorsements.

        Args:
            envelopes: of grants, signed by everybody they name.
            draft: what they were signed from, to be kept in the wallet.
            wait: seconds to wait for endorsements; those that are offline endorse later.

        Raises:
            RefusedError: the broker does not take the call.
            UnavailableError: no answer could be had.
        """
        if draft is not None:
            self._keep(envelopes, draft, b"")
        request = guardian_pb2.DepositConsentRequest(statements=envelopes, wait=round(wait * 1_000))
        response = await self._session.call(guardian_pb2_grpc.GuardianServiceStub, "DepositConsent", request)
        by_id = {statement_id(each.payload_type, each.payload): each for each in envelopes}
        states, refused = [], []
        for result in response.results:
            if result.statement_id not in by_id:
                raise MalformedError("the broker answered about other grants.", field="results.statement_id")
            if result.refusal.code == Reason.ALLOWED.wire and result.HasField("grant"):
                states.append(result.grant)
            else:
                grant = pb.Grant.FromString(by_id[result.statement_id].payload)
                refused.append(
                    RefusedGrant(self._session.directory.name(grant.slice.node), error_of_refusal(result.refusal))
                )
        views = await self._reader.views(states)
        if any(view.id not in by_id for view in views):
            raise MalformedError("the broker answered about other grants.", field="results.grant")
        if draft is not None:
            self._keep([view.signed.envelope for view in views], draft, response.consent_id)
        self._reader.forget_grants()
        return Consent(response.consent_id, tuple(views), tuple(refused))

    async def own(self, slices: Sequence[LinkedSlice], sections: Sequence[str], *, wait: float) -> list[GrantView]:
        """Grants to oneself that cover the sections, made where they are missing: an own key needs a grant as well."""
        identity = self._session.identity
        wanted = expand(sections)
        ends_after = self._session.now() + _FAMILY_LEAST
        held = [
            view
            async for view in self._reader.grants()
            if view.status.is_live
            and view.signed.payload.expires_at > ends_after
            and all(covers(view.sections, leaf) for leaf in wanted)
        ]
        found = {(view.slice.node, view.slice.handle): view for view in held}
        missing = [each for each in slices if (each.node, each.handle) not in found]
        if missing:
            is_learner = identity.kind == pb.PRINCIPAL_KIND_LEARNER
            terms = ConsentTerms(
                grantee=identity.root,
                sections=tuple(sections),
                purpose=pb.PURPOSE_SELF if is_learner else pb.PURPOSE_FAMILY,
                purpose_text=_FAMILY_TEXT,
                expires_at=self._session.now() + _FAMILY_DAYS * _DAY,
            )
            draft = await self.draft(terms, missing)
            consent = await self.deposit(draft.sign([identity.keys.signing]), draft, wait=wait)
            if consent.refused:
                raise consent.refused[0].error
            found |= {(view.slice.node, view.slice.handle): view for view in consent.grants}
        return [found[each.node, each.handle] for each in slices]

    def _grantee_sealing_key(self, terms: ConsentTerms, directory: Directory) -> bytes:
        identity = self._session.identity
        if terms.grantee != identity.root:
            return directory.sealing_key(terms.grantee, kind=pb.PRINCIPAL_KIND_PROVIDER, at=self._session.now())
        if identity.keys.sealing is None:
            raise ConfigurationError("the key file holds no sealing key.", key="keys", remedy="Make a new key.")
        return identity.keys.sealing.public

    def _names(self, terms: ConsentTerms, slices: Sequence[LinkedSlice], directory: Directory) -> Mapping[bytes, str]:
        """Public names, as the operator admitted them: the node and the grantee can render the notice again."""
        roots = {each.node for each in slices} | {terms.grantee, *terms.onward_parties}
        known = {root: directory.organization(root) for root in roots}
        return {root: each.name for root, each in known.items() if each is not None}

    def _keep(self, envelopes: Sequence[pb.Envelope], draft: ConsentDraft, consent_id: bytes) -> None:
        if self._wallet is None:
            return
        drafted = {each.SerializeToString(deterministic=True): number for number, each in enumerate(draft.grants)}
        kept = []
        for envelope in envelopes:
            number = drafted[envelope.payload]
            grant, linked = draft.grants[number], draft.slices[number]
            kept.append(
                GivenGrant(
                    grant_id=statement_id(envelope.payload_type, envelope.payload),
                    consent_id=consent_id,
                    node=linked.node,
                    handle=linked.handle,
                    grantee=draft.terms.grantee,
                    grantee_name=draft.grantee_name,
                    learner=linked.learner,
                    purpose_text=draft.terms.purpose_text,
                    reference=draft.terms.reference,
                    notice=draft.notices[number].text,
                    signed_at=grant.created_at,
                    expires_at=grant.expires_at,
                )
            )
        self._wallet.add_grants(kept)

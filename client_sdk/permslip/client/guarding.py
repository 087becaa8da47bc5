"""``AsyncGuardianClient``: what a parent, or a learner of age, does: link, grant, watch, revoke.

Example::

    async with AsyncGuardianClient(wallet="family", broker=…, broker_root=…, federation=…, operator=…) as guardian:
        linked = await guardian.link(slip_text)
        consent = await guardian.grant(
            tutor, learner=linked.learner, sections=["transcript", "personal.attendance"],
            purpose="tutoring", purpose_text="Help with reading", until="2026-12-18",
        )
        profile = await guardian.profile(learner=linked.learner)
        async for state in guardian.revoke(consent):
            print(state.text)
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from types import TracebackType
from typing import Final, Self, Unpack

from permslip._pb.permslip.v1 import guardian_pb2, guardian_pb2_grpc, statement_pb2 as pb
from permslip.armor import read_statements, write_statements
from permslip.client.accesses import AccessReport
from permslip.client.asking import DEFAULT_MAX_ANSWER
from permslip.client.chains import read_accesses
from permslip.client.consenting import Consent, ConsentDraft, GivenTerms, terms_of
from permslip.client.ending import Revocable, revocations_of
from permslip.client.failures import error_of_refusal
from permslip.client.granting import Granting
from permslip.client.identity import KeySource, identify
from permslip.client.reading import Reader, Wanted
from permslip.client.revoking import RevocationState, RevokedGrant, follow
from permslip.client.session import Session, system_clock
from permslip.client.settings import server_of
from permslip.client.timeouts import Timeout
from permslip.errors import ConfigurationError, MalformedError
from permslip.grant_views import GrantView
from permslip.keyfile import Passphrase
from permslip.keys import PublicKey, SigningKey
from permslip.linking import make_link_request
from permslip.profile import Profile
from permslip.quantities import Millis
from permslip.sections import TOP
from permslip.slip import parse_slip
from permslip.wallet import LinkedSlice, Wallet

__all__ = ["FAMILY_SECTIONS", "AsyncGuardianClient"]

# What a family reads of its own unless it asks for more: everything that is not sensitive, and who the learner is.
FAMILY_SECTIONS: Final = tuple(sorted({*TOP, "identity.demographics"}))
_ENDORSED_WITHIN: Final = 10.0
_MAX_OPEN: Final = 64


class AsyncGuardianClient:
    """A guardian's, or a learner's, connection to a broker. Nothing is connected before it is needed.

    Args:
        broker, broker_root, federation, operator, tls_ca, timeout, max_answer_bytes, now: as for
            :class:`~permslip.client.providing.AsyncClient`.
        wallet: her wallet, or the path of its folder.
        keys: her keys, where there is no wallet.
        passphrase: of a protected key.
        witnesses: file of the federation's witness sets; with it, the broker's ledger must have been cosigned.

    Raises:
        ConfigurationError: names the argument that is wrong or missing.
        MalformedError: the file of witness sets is none.
    """

    def __init__(
        self,
        *,
        broker: str,
        broker_root: str,
        federation: str,
        operator: str,
        wallet: Wallet | str | os.PathLike[str] | None = None,
        keys: KeySource | None = None,
        passphrase: Passphrase | None = None,
        tls_ca: str | os.PathLike[str] | None = None,
        witnesses: str | os.PathLike[str] | None = None,
        timeout: Timeout | None = None,
        max_answer_bytes: int = DEFAULT_MAX_ANSWER,
        now: Callable[[], Millis] = system_clock,
    ) -> None:
        if wallet is not None and not isinstance(wallet, Wallet):
            wallet = Wallet.open(wallet, passphrase=passphrase)
        if keys is None:
            if wallet is None:
                raise ConfigurationError("expected a wallet, or keys.", key="wallet")
            keys = wallet.keys
        server = server_of(broker, broker_root, federation, operator, os.fspath(tls_ca) if tls_ca else None)
        self.wallet = wallet
        self._witnesses = read_statements(witnesses) if witnesses is not None else []
        identity = identify(keys, None, federation=federation, passphrase=passphrase)
        self._session = Session(server, identity, timeout or Timeout(), now, seen=wallet)
        self._reader = Reader(self._session, max_open=_MAX_OPEN, max_answer_bytes=max_answer_bytes)
        self._granting = Granting(self._session, self._reader, wallet)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the connection."""
        self._session.end()
        await self._reader.close()
        await self._session.close()

    @property
    def public(self) -> PublicKey:
        """The guardian's own key."""
        return self._session.identity.keys.signing.public

    async def provider_named(self, name: str) -> bytes:
        """Root key of the one provider with this public name, as the operator admitted it.

        Raises:
            MalformedError: there is none, or more than one.
        """
        providers = [each for each in await self._session.organizations() if each.kind == pb.PRINCIPAL_KIND_PROVIDER]
        found = [each for each in providers if each.name.casefold() == name.casefold() and not each.suspended]
        if len(found) != 1:
            known = ", ".join(each.name for each in providers) or "none"
            raise MalformedError(
                f"{len(found) or 'no'} providers are called {name!r}.",
                field="grantee",
                remedy=f"Give the did:key. The providers are: {known}.",
            )
        return found[0].root

    # -------------------------------------------------------------------------------------------- link

    async def link(self, slip_text: str, *, learner: str = "") -> LinkedSlice:
        """Link a learner by the slip that the school printed.

        Args:
            slip_text: as scanned or typed.
            learner: what the guardian calls the learner; as the school says unless given.

        Raises:
            MalformedError: not a slip, or mistyped; names the group.
            KeyRejectedError: the key that was offered as the school's is not the one on the slip.
            RefusedError: the slip is used, too old, or its code is wrong.
            UnavailableError: the school's node is not connected.
        """
        session = self._session
        slip = parse_slip(slip_text)
        entry = await session.entry(slip.node)
        # Believed by the root on the paper, not by anything that the broker or the operator says.
        sealed, pending = make_link_request(
            slip, session.server.federation, session.identity.keys, entry.key_cert, session.now()
        )
        request = guardian_pb2.RelayLinkRequest(
            federation=session.server.federation, node=slip.node, sealed_request=sealed
        )
        response = await session.call(guardian_pb2_grpc.GuardianServiceStub, "RelayLink", request)
        if not response.sealed_response:
            raise error_of_refusal(response.refusal)
        told = pending.open_response(response.sealed_response).payload
        linked = LinkedSlice(
            node=told.slice.node,
            handle=told.slice.handle,
            learner=learner or told.learner_name,
            learner_name=told.learner_name,
            node_name=told.node_name,
            relationship=told.relationship,
            quorum_rule=told.quorum_rule,
            other_guardians=told.other_guardians,
            majority_at=told.majority_at,
            linked_at=session.now(),
        )
        if self.wallet is not None:
            self.wallet.add_slice(linked)
        return linked

    # ------------------------------------------------------------------------------------------- grant

    async def draft(
        self,
        grantee: str | bytes,
        *,
        slices: Sequence[LinkedSlice] = (),
        learner: str = "",
        cosigners: Sequence[bytes] = (),
        supersedes: Sequence[GrantView] = (),
        **terms: Unpack[GivenTerms],
    ) -> ConsentDraft:
        """What would be signed, with the words to show first; nothing is signed or sent.

        Args:
            grantee: the provider's root key, ``did:key:…`` or bytes; her own key for the family's own use.
            slices: one grant for each of them.
            learner: all slices of this learner instead; of the wallet's only one unless given.
            cosigners: public keys of other guardians who must sign too.
            supersedes: grants that end when these take effect.
            terms: see :class:`~permslip.client.consenting.GivenTerms`.

        Raises:
            MalformedError: names what is missing or wrong.
            KeyRejectedError: the grantee or a school is not admitted, or suspended.
        """
        chosen = tuple(slices) or self._slices_of(learner)
        made = terms_of(_root(grantee, "grantee"), terms)
        return await self._granting.draft(made, chosen, cosigners=cosigners, supersedes=supersedes)

    async def deposit(
        self, draft: ConsentDraft, *, cosigners: Sequence[SigningKey] = (), wait: float = _ENDORSED_WITHIN
    ) -> Consent:
        """Sign a draft that was shown, and deposit it.

        Args:
            draft: from :meth:`draft`.
            cosigners: private keys of other guardians, where they sign on this very device.
            wait: seconds to wait for the schools.

        Raises:
            SignatureError: a cosigner that the draft does not name.
            UnavailableError: no answer could be had; what was signed is in the wallet.
        """
        keys = [self._session.identity.keys.signing, *cosigners]
        return await self._granting.deposit(draft.sign(keys), draft, wait=wait)

    async def deposit_signed(self, envelopes: Sequence[pb.Envelope], *, wait: float = _ENDORSED_WITHIN) -> Consent:
        """Deposit grants that all guardians have signed, e.g. after :func:`permslip.consents.cosign`."""
        return await self._granting.deposit(envelopes, wait=wait)

    async def grant(
        self,
        grantee: str | bytes,
        *,
        slices: Sequence[LinkedSlice] = (),
        learner: str = "",
        cosigners: Sequence[SigningKey] = (),
        supersedes: Sequence[GrantView] = (),
        wait: float = _ENDORSED_WITHIN,
        **terms: Unpack[GivenTerms],
    ) -> Consent:
        """Grant in one tap: one grant for each slice, deposited together.

        Whoever must show the words first calls :meth:`draft` and then :meth:`deposit`.

        Args:
            grantee, slices, learner, supersedes, terms: as for :meth:`draft`.
            cosigners: private keys of other guardians, where they sign on this very device.
            wait: seconds to wait for the schools' endorsements.
        """
        draft = await self.draft(
            grantee,
            slices=slices,
            learner=learner,
            cosigners=[each.public.raw for each in cosigners],
            supersedes=supersedes,
            **terms,
        )
        return await self.deposit(draft, cosigners=cosigners, wait=wait)

    # ------------------------------------------------------------------------------------------- watch

    async def grants(self) -> AsyncIterator[GrantView]:
        """The grants that she signed, and those of other guardians that she may revoke; verified.

        The broker knows no families: it shows what others signed about a child once she has a consent of her own on
        the same slice, such as the one that :meth:`profile` makes.
        """
        pages = self._session.pages(
            guardian_pb2_grpc.GuardianServiceStub,
            "ListConsents",
            lambda hello, page: guardian_pb2.ListConsentsRequest(hello=hello, page=page),
        )
        async for response in pages:
            for view in await self._reader.views(response.grants):
                yield view

    async def accesses(self, slices: Sequence[LinkedSlice] = ()) -> AccessReport:
        """Every access to her slices, by the broker's ledger and by each school's own, proved and without a hole.

        What a school says that cannot be believed, and a school whose own count could not be had, is said in the
        report; so is what the two ledgers say differently.

        Args:
            slices: only these; else those of her wallet, and every slice on which she holds a consent.

        Raises:
            ProofError: an entry is not in the broker's ledger, or one was left out.
            SignatureError: the checkpoint is not the broker's.
            RefusedError: the broker does not tell of a slice that was asked for.
        """
        return await read_accesses(self._session, slices, wallet=self.wallet, witnesses=self._witnesses)

    async def profile(
        self,
        *,
        learner: str = "",
        slices: Sequence[LinkedSlice] = (),
        sections: Iterable[str] | None = None,
        records_from: str = "",
        records_until: str = "",
        timeout: float | None = None,
    ) -> Profile:
        """Her own child's profile. It takes a grant to her own key, which is made where it is missing.

        Args:
            learner, slices: whose; as for :meth:`draft`.
            sections: paths; without them everything that is not sensitive, and who the learner is.
            records_from, records_until, timeout: as for :meth:`permslip.client.providing.AsyncClient.profile`.
        """
        paths = FAMILY_SECTIONS if sections is None else (sections,) if isinstance(sections, str) else tuple(sections)
        chosen = tuple(slices) or self._slices_of(learner)
        views = await self._granting.own(chosen, paths, wait=_ENDORSED_WITHIN)
        return await self._reader.profile(views, Wanted(paths, records_from, records_until, timeout))

    # ------------------------------------------------------------------------------------------ revoke

    async def revoke(self, target: Revocable) -> AsyncIterator[RevocationState]:
        """Revoke, and tell each change until every school confirmed or the call's time is over.

        The last state says what the schools' own signed acknowledgements say.

        Args:
            target: a consent, grants, or ids of grants or consents.

        Raises:
            RefusedError: nothing is known by that id, or the broker does not take the call.
            UnavailableError: no answer could be had; use :meth:`revocation_file` and carry it to the school.
        """
        async for state in follow(self._session, await self._revocations(target)):
            if self.wallet is not None and state.confirmed:
                self.wallet.mark_revoked(each.grant_id for each in state.grants if each.confirmed)
            yield state

    async def revocation_file(self, target: Revocable, path: str | os.PathLike[str]) -> int:
        """Write signed revocations to a file for the direct path: ``permslip node revoke FILE`` at the school.

        Grants of the wallet need no broker for that.

        Returns:
            how many were written.
        """
        revocations = await self._revocations(target)
        write_statements(path, [each.revocation.envelope for each in revocations])
        return len(revocations)

    async def _revocations(self, target: Revocable) -> list[RevokedGrant]:
        return await revocations_of(target, session=self._session, wallet=self.wallet, grants=self.grants)

    def _slices_of(self, learner: str) -> tuple[LinkedSlice, ...]:
        if self.wallet is None:
            raise MalformedError("expected slices: there is no wallet.", field="slices")
        if learner:
            return self.wallet.of_learner(learner)
        if len(self.wallet.learners) > 1:
            raise MalformedError(
                "there are several learners.",
                field="learner",
                remedy=f"Name one of: {', '.join(self.wallet.learners)}.",
            )
        return self.wallet.slices


def _root(key: str | bytes, field: str) -> bytes:
    parsed = PublicKey.from_did(key, field=field) if isinstance(key, str) else PublicKey.parse(key, field=field)
    return parsed.raw

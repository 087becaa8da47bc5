"""The clients without ``await``: each runs its asynchronous twin on an event loop in a thread of its own.

Rules:

- A client may be used from several threads; calls run at the same time, on the one stream.
- An iterator that is left early, and Ctrl-C, cancel what is under way.
- :meth:`close` (or leaving the ``with`` block) ends the connection and the thread.

Example::

    with Client(broker="broker.example:7443", …, keys="provider.key", cert="provider.cert") as client:
        profile = client.profile("learner-17")
        for profile in client.profiles(references):
            ...
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Unpack

from google.protobuf.message import Message

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.client.accesses import AccessReport
from permslip.client.asking import DEFAULT_MAX_ANSWER
from permslip.client.consenting import Consent, ConsentDraft, GivenTerms
from permslip.client.ending import Revocable
from permslip.client.guarding import AsyncGuardianClient
from permslip.client.identity import CertSource, KeySource
from permslip.client.loop_thread import BlockingClient
from permslip.client.operating import AsyncOperatorClient, BrokerStatus
from permslip.client.providing import DEFAULT_MAX_OPEN, AsyncClient
from permslip.client.revoking import RevocationState
from permslip.client.selection import Selector
from permslip.client.session import system_clock
from permslip.client.timeouts import Timeout
from permslip.directory import Organization
from permslip.entries import Entry
from permslip.grant_views import GrantView
from permslip.keyfile import Passphrase
from permslip.keys import PublicKey, SigningKey
from permslip.profile import Profile
from permslip.quantities import Millis
from permslip.statements import Signed
from permslip.wallet import LinkedSlice, Wallet

__all__ = ["Client", "GuardianClient", "OperatorClient"]


class Client(BlockingClient):
    """A provider's connection to a broker; see :class:`~permslip.client.providing.AsyncClient` for the arguments."""

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
        max_open: int = DEFAULT_MAX_OPEN,
        max_answer_bytes: int = DEFAULT_MAX_ANSWER,
        now: Callable[[], Millis] = system_clock,
    ) -> None:
        self._client = AsyncClient(
            broker=broker,
            broker_root=broker_root,
            federation=federation,
            operator=operator,
            keys=keys,
            cert=cert,
            passphrase=passphrase,
            tls_ca=tls_ca,
            timeout=timeout,
            max_open=max_open,
            max_answer_bytes=max_answer_bytes,
            now=now,
        )
        super().__init__(self._client.aclose)

    def grants(self, *grant_ids: bytes) -> Iterator[GrantView]:
        """See :meth:`~permslip.client.providing.AsyncClient.grants`."""
        return self._thread.iterate(self._client.grants(*grant_ids))

    def organizations(self) -> list[Organization]:
        """Every organization of the federation, verified."""
        return self._thread.run(self._client.organizations())

    def profile(
        self,
        of: Selector,
        *,
        sections: Iterable[str] | None = None,
        records_from: str = "",
        records_until: str = "",
        timeout: float | None = None,
    ) -> Profile:
        """See :meth:`~permslip.client.providing.AsyncClient.profile`."""
        return self._thread.run(
            self._client.profile(
                of, sections=sections, records_from=records_from, records_until=records_until, timeout=timeout
            )
        )

    def profiles(
        self,
        of: Iterable[Selector],
        *,
        sections: Iterable[str] | None = None,
        records_from: str = "",
        records_until: str = "",
        timeout: float | None = None,
    ) -> Iterator[Profile]:
        """See :meth:`~permslip.client.providing.AsyncClient.profiles`."""
        return self._thread.iterate(
            self._client.profiles(
                of, sections=sections, records_from=records_from, records_until=records_until, timeout=timeout
            )
        )

    def records(
        self,
        of: Selector,
        *,
        section: str | None = None,
        sections: Iterable[str] | None = None,
        records_from: str = "",
        records_until: str = "",
        timeout: float | None = None,
    ) -> Iterator[Entry[Message]]:
        """See :meth:`~permslip.client.providing.AsyncClient.records`."""
        return self._thread.iterate(
            self._client.records(
                of,
                section=section,
                sections=sections,
                records_from=records_from,
                records_until=records_until,
                timeout=timeout,
            )
        )


class GuardianClient(BlockingClient):
    """A guardian's connection to a broker; see :class:`~permslip.client.guarding.AsyncGuardianClient`."""

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
        self._client = AsyncGuardianClient(
            broker=broker,
            broker_root=broker_root,
            federation=federation,
            operator=operator,
            wallet=wallet,
            keys=keys,
            passphrase=passphrase,
            tls_ca=tls_ca,
            witnesses=witnesses,
            timeout=timeout,
            max_answer_bytes=max_answer_bytes,
            now=now,
        )
        super().__init__(self._client.aclose)

    @property
    def wallet(self) -> Wallet | None:
        """Her wallet, if there is one."""
        return self._client.wallet

    @property
    def public(self) -> PublicKey:
        """Her own key."""
        return self._client.public

    def link(self, slip_text: str, *, learner: str = "") -> LinkedSlice:
        """See :meth:`~permslip.client.guarding.AsyncGuardianClient.link`."""
        return self._thread.run(self._client.link(slip_text, learner=learner))

    def draft(
        self,
        grantee: str | bytes,
        *,
        slices: Sequence[LinkedSlice] = (),
        learner: str = "",
        cosigners: Sequence[bytes] = (),
        supersedes: Sequence[GrantView] = (),
        **terms: Unpack[GivenTerms],
    ) -> ConsentDraft:
        """See :meth:`~permslip.client.guarding.AsyncGuardianClient.draft`."""
        return self._thread.run(
            self._client.draft(
                grantee, slices=slices, learner=learner, cosigners=cosigners, supersedes=supersedes, **terms
            )
        )

    def deposit(self, draft: ConsentDraft, *, cosigners: Sequence[SigningKey] = (), wait: float = 10.0) -> Consent:
        """See :meth:`~permslip.client.guarding.AsyncGuardianClient.deposit`."""
        return self._thread.run(self._client.deposit(draft, cosigners=cosigners, wait=wait))

    def deposit_signed(self, envelopes: Sequence[pb.Envelope], *, wait: float = 10.0) -> Consent:
        """See :meth:`~permslip.client.guarding.AsyncGuardianClient.deposit_signed`."""
        return self._thread.run(self._client.deposit_signed(envelopes, wait=wait))

    def grant(
        self,
        grantee: str | bytes,
        *,
        slices: Sequence[LinkedSlice] = (),
        learner: str = "",
        cosigners: Sequence[SigningKey] = (),
        supersedes: Sequence[GrantView] = (),
        wait: float = 10.0,
        **terms: Unpack[GivenTerms],
    ) -> Consent:
        """See :meth:`~permslip.client.guarding.AsyncGuardianClient.grant`."""
        return self._thread.run(
            self._client.grant(
                grantee, slices=slices, learner=learner, cosigners=cosigners, supersedes=supersedes, wait=wait, **terms
            )
        )

    def grants(self) -> Iterator[GrantView]:
        """See :meth:`~permslip.client.guarding.AsyncGuardianClient.grants`."""
        return self._thread.iterate(self._client.grants())

    def accesses(self, slices: Sequence[LinkedSlice] = ()) -> AccessReport:
        """See :meth:`~permslip.client.guarding.AsyncGuardianClient.accesses`."""
        return self._thread.run(self._client.accesses(slices))

    def profile(
        self,
        *,
        learner: str = "",
        slices: Sequence[LinkedSlice] = (),
        sections: Iterable[str] | None = None,
        records_from: str = "",
        records_until: str = "",
        timeout: float | None = None,
    ) -> Profile:
        """See :meth:`~permslip.client.guarding.AsyncGuardianClient.profile`."""
        return self._thread.run(
            self._client.profile(
                learner=learner,
                slices=slices,
                sections=sections,
                records_from=records_from,
                records_until=records_until,
                timeout=timeout,
            )
        )

    def revoke(self, target: Revocable) -> Iterator[RevocationState]:
        """See :meth:`~permslip.client.guarding.AsyncGuardianClient.revoke`."""
        return self._thread.iterate(self._client.revoke(target))

    def revocation_file(self, target: Revocable, path: str | os.PathLike[str]) -> int:
        """See :meth:`~permslip.client.guarding.AsyncGuardianClient.revocation_file`."""
        return self._thread.run(self._client.revocation_file(target, path))


class OperatorClient(BlockingClient):
    """The operator's connection to a broker; see :class:`~permslip.client.operating.AsyncOperatorClient`."""

    def __init__(
        self,
        *,
        broker: str,
        broker_root: str,
        federation: str,
        keys: KeySource,
        passphrase: Passphrase | None = None,
        tls_ca: str | os.PathLike[str] | None = None,
        timeout: Timeout | None = None,
        now: Callable[[], Millis] = system_clock,
    ) -> None:
        self._client = AsyncOperatorClient(
            broker=broker,
            broker_root=broker_root,
            federation=federation,
            keys=keys,
            passphrase=passphrase,
            tls_ca=tls_ca,
            timeout=timeout,
            now=now,
        )
        super().__init__(self._client.aclose)

    def admit(
        self, root: str | bytes, *, kind: str, name: str, agreement_id: str, valid_until: int = 0
    ) -> Signed[pb.Admission]:
        """See :meth:`~permslip.client.operating.AsyncOperatorClient.admit`."""
        return self._thread.run(
            self._client.admit(root, kind=kind, name=name, agreement_id=agreement_id, valid_until=valid_until)
        )

    def suspend(self, root: str | bytes, *, agreement_id: str = "") -> Signed[pb.Suspension]:
        """See :meth:`~permslip.client.operating.AsyncOperatorClient.suspend`."""
        return self._thread.run(self._client.suspend(root, agreement_id=agreement_id))

    def register(self, statements: Sequence[pb.Envelope]) -> None:
        """See :meth:`~permslip.client.operating.AsyncOperatorClient.register`."""
        self._thread.run(self._client.register(statements))

    def status(self) -> BrokerStatus:
        """See :meth:`~permslip.client.operating.AsyncOperatorClient.status`."""
        return self._thread.run(self._client.status())

    def organization(self, root: str | bytes) -> Organization | None:
        """See :meth:`~permslip.client.operating.AsyncOperatorClient.organization`."""
        return self._thread.run(self._client.organization(root))

    def organizations(self) -> list[Organization]:
        """Every organization of the federation, verified."""
        return self._thread.run(self._client.organizations())

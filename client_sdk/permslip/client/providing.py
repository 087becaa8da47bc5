"""``AsyncClient``: what a provider does with the consents it holds. A guardian or learner reads with it too.

Example::

    async with AsyncClient(
        broker="broker.example:7443", broker_root="did:key:…", federation="grand-bend", operator="did:key:…",
        keys="provider.key", cert="provider.cert",
    ) as client:
        async for grant in client.grants():
            print(grant.reference, grant.node_name, grant.status, grant.until)
        profile = await client.profile("learner-17")
        async for profile in client.profiles(references):      # pipelined, in the order in which they complete
            ...
        async for entry in client.records("learner-17", section="personal.attendance"):
            ...
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterable
from types import TracebackType
from typing import Final, Self

from google.protobuf.message import Message

from permslip.client.asking import DEFAULT_MAX_ANSWER
from permslip.client.identity import CertSource, KeySource, identify
from permslip.client.reading import Reader, RecordStream, Wanted
from permslip.client.selection import Selector
from permslip.client.session import Session, system_clock
from permslip.client.settings import server_of
from permslip.client.timeouts import Timeout
from permslip.directory import Organization
from permslip.entries import Entry
from permslip.grant_views import GrantView
from permslip.keyfile import Passphrase
from permslip.profile import Profile
from permslip.quantities import Millis

__all__ = ["DEFAULT_MAX_OPEN", "AsyncClient"]

DEFAULT_MAX_OPEN: Final = 512


class AsyncClient:
    """A provider's connection to a broker. Nothing is connected before it is needed.

    Args:
        broker: ``host:port``, or several separated by commas: replicas, tried in turn.
        broker_root: the broker's root key, ``did:key:…``; pinned.
        federation: the federation's name.
        operator: the key of the federation's operator, ``did:key:…``; pinned.
        keys: the client's keys, or the path of their file.
        cert: for an organization its key certificate, or the path of its file.
        passphrase: of a protected key file.
        tls_ca: PEM file of the certificates to trust; None: the system's, and no TLS to this very machine.
        timeout: how long to wait.
        max_open: queries that may be open at once.
        max_answer_bytes: that one node's answer to a profile may have, sealed; beyond them it is a gap with a
            :class:`~permslip.errors.TooLargeError`. Records that are streamed have no such bound.
        now: the clock, for tests.

    Raises:
        ConfigurationError: names the argument that is wrong.
        KeyFileError: the key file cannot be used.
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
        max_open: int = DEFAULT_MAX_OPEN,
        max_answer_bytes: int = DEFAULT_MAX_ANSWER,
        now: Callable[[], Millis] = system_clock,
    ) -> None:
        server = server_of(broker, broker_root, federation, operator, os.fspath(tls_ca) if tls_ca else None)
        identity = identify(keys, cert, federation=federation, passphrase=passphrase)
        self._session = Session(server, identity, timeout or Timeout(), now)
        self._reader = Reader(self._session, max_open=max_open, max_answer_bytes=max_answer_bytes)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the stream and the connection; open answers end as cancelled."""
        self._session.end()
        await self._reader.close()
        await self._session.close()

    async def grants(self, *grant_ids: bytes) -> AsyncIterator[GrantView]:
        """The grants made out to this client, page by page, verified, with the opened private part.

        Args:
            grant_ids: only these; also such as were passed on to this client.

        Raises:
            RefusedError: the broker does not take this client.
            UnavailableError: no answer could be had.
            VerificationError: the broker sent something that was not signed by those it names.
        """
        async for view in self._reader.grants(grant_ids):
            yield view

    async def organizations(self) -> list[Organization]:
        """Every organization of the federation, verified."""
        return await self._session.organizations()

    async def profile(
        self,
        of: Selector,
        *,
        sections: Iterable[str] | None = None,
        records_from: str = "",
        records_until: str = "",
        timeout: float | None = None,
    ) -> Profile:
        """Assemble the profile of one learner from every node that a consent names.

        A node that is unreachable, refuses or lies does not raise: the profile says what is missing, and why.

        Args:
            of: the learner's reference, the id of a consent or grant (bytes or hexadecimal), one grant, or several.
            sections: paths; None is everything that is not sensitive, and the sensitive sections that the grants name.
            records_from, records_until: only records of these days, YYYY-MM-DD.
            timeout: seconds for the whole answer; the client's own unless given.

        Raises:
            RefusedError: no such consent is known, or the broker does not take this client.
            UnavailableError: no broker can be reached.
        """
        wanted = _wanted(sections, records_from, records_until, timeout)
        return await self._reader.profile(await self._reader.choose(of), wanted)

    async def profiles(
        self,
        of: Iterable[Selector],
        *,
        sections: Iterable[str] | None = None,
        records_from: str = "",
        records_until: str = "",
        timeout: float | None = None,
    ) -> AsyncIterator[Profile]:
        """Assemble many profiles, pipelined on one stream, in the order in which they complete.

        Arguments and errors as for :meth:`profile`; an unknown consent is raised before anything is asked.
        """
        groups = [await self._reader.choose(each) for each in of]
        wanted = _wanted(sections, records_from, records_until, timeout)
        async for profile in self._reader.profiles(groups, wanted):
            yield profile

    async def records(
        self,
        of: Selector,
        *,
        section: str | None = None,
        sections: Iterable[str] | None = None,
        records_from: str = "",
        records_until: str = "",
        timeout: float | None = None,
    ) -> AsyncIterator[Entry[Message]]:
        """Stream records one by one, with memory for some hundred kilobytes only, whatever their number.

        Arguments as for :meth:`profile`; ``section`` names one path. For what was covered, see :meth:`record_stream`.

        Raises:
            RefusedError: a node or the broker said no, at the end if records of other nodes came.
            UnavailableError: cut short, or no answer.
            VerificationError: what came must not be believed.
        """
        stream = await self.record_stream(
            of,
            sections=(section,) if section is not None else sections,
            records_from=records_from,
            records_until=records_until,
            timeout=timeout,
        )
        try:
            async for entry in stream:
                yield entry
        finally:
            await stream.aclose()

    async def record_stream(
        self,
        of: Selector,
        *,
        sections: Iterable[str] | None = None,
        records_from: str = "",
        records_until: str = "",
        timeout: float | None = None,
    ) -> RecordStream:
        """As :meth:`records`, as an object that tells the coverage afterwards."""
        wanted = _wanted(sections, records_from, records_until, timeout)
        return self._reader.records(await self._reader.choose(of), wanted)


def _wanted(sections: Iterable[str] | None, records_from: str, records_until: str, timeout: float | None) -> Wanted:
    paths = (sections,) if isinstance(sections, str) else None if sections is None else tuple(sections)
    return Wanted(paths, records_from, records_until, timeout)

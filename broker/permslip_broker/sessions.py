"""SessionService: what every connection begins with, and who is in the federation.

Example::

    challenge = await stub.GetChallenge(session_pb2.GetChallengeRequest(federation="grand-bend"))
"""

from __future__ import annotations

from typing import Final

from permslip._pb.permslip.v1 import session_pb2
from permslip.bounds import check_bounds
from permslip.errors import MalformedError
from permslip.hosting.facts_store import FactStore
from permslip.standing import Standing
from permslip_broker.attachments import Attachments
from permslip_broker.greetings import Greetings
from permslip_broker.identity import Identity
from permslip_broker.methods import Context
from permslip_broker.paging import page_size

__all__ = ["Sessions"]

_ROOT_BYTES: Final = 32


class Sessions:
    """Handlers of SessionService."""

    def __init__(self, identity: Identity, greetings: Greetings, facts: FactStore, attachments: Attachments) -> None:
        self._identity, self._greetings = identity, greetings
        self._facts, self._attachments = facts, attachments

    async def get_challenge(
        self, request: session_pb2.GetChallengeRequest, _context: Context
    ) -> session_pb2.GetChallengeResponse:
        """Who the broker is, and a nonce for a greeting."""
        self._check_federation(request.federation)
        return session_pb2.GetChallengeResponse(challenge=self._greetings.challenge())

    async def list_directory(
        self, request: session_pb2.ListDirectoryRequest, _context: Context
    ) -> session_pb2.ListDirectoryResponse:
        """The admitted organizations, ascending by root; the page token is the last root seen."""
        check_bounds(request, "request")
        self._check_federation(request.federation)
        if request.roots:
            found = [standing for root in request.roots if (standing := self._facts.standing(root)) is not None]
            return session_pb2.ListDirectoryResponse(entries=[self._entry(each) for each in found])
        token, size = request.page.token, page_size(request.page)
        if token and len(token) != _ROOT_BYTES:
            raise MalformedError("expected the token of the page before.", field="page.token")
        found = self._facts.standings(after=token, limit=size)
        following = found[-1].root if len(found) == size else b""
        return session_pb2.ListDirectoryResponse(entries=[self._entry(each) for each in found], next_page=following)

    def _check_federation(self, federation: str) -> None:
        if federation != self._identity.federation:
            raise MalformedError(
                f"expected {self._identity.federation!r}, got {federation[:64]!r}.",
                field="request.federation",
                remedy="Check the broker's address and the federation's name.",
            )

    def _entry(self, standing: Standing) -> session_pb2.DirectoryEntry:
        return session_pb2.DirectoryEntry(
            admission=standing.admission.envelope if standing.admission is not None else None,
            key_cert=standing.cert.envelope if standing.cert is not None else None,
            suspension=standing.suspension.envelope if standing.suspension is not None else None,
            attached=self._attachments.get(standing.root) is not None,
        )

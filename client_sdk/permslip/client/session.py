"""A session with a broker: who it is, greetings, calls that list or deposit, and the directory.

Rules:

- The broker is the one whose root key is pinned; its certificate is checked each time a challenge comes. One with a
  lower number than was seen before is refused: its key may be one that was stolen and replaced.
- A call that no broker answered is made again with jittered back-off until the time to connect is over. That is safe:
  every change is idempotent by the statement's id.
- What is known of organizations is asked for by root, kept, and asked for again after a while, and when somebody signs
  with a key that is not known.

Example::

    session = Session(server, identity, Timeout())
    response = await session.call(OperatorServiceStub, "Admit", AdmitRequest(statements=[admission]))
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Final, Protocol, TypeAlias

import grpc
from google.protobuf.message import Message

from permslip import statements as st
from permslip._pb.permslip.v1 import session_pb2, session_pb2_grpc, statement_pb2 as pb
from permslip.client.channels import Channels
from permslip.client.failures import error_of, is_unreached
from permslip.client.identity import Identity
from permslip.client.settings import Server
from permslip.client.timeouts import Timeout
from permslip.clock import system_clock
from permslip.directory import Directory, Organization
from permslip.errors import KeyRejectedError, MalformedError, RefusedError, UnavailableError
from permslip.greeting import make_hello
from permslip.quantities import Millis
from permslip.standing import check_key_cert

__all__ = ["SeenCertificates", "Session", "backoff", "system_clock"]

_Stub: TypeAlias = Callable[[grpc.aio.Channel], Any]
_MakePage: TypeAlias = Callable[[pb.Envelope, session_pb2.Page], Message]

_HELLO_FRESH: Final = 40_000  # of its 60 s; the rest is for the way
_DIRECTORY_FRESH: Final = 300.0
_REFRESH_AT_MOST_EVERY: Final = 1.0
_ROOTS_IN_ONE_CALL: Final = 256
_PAGE: Final = 500


def backoff(attempt: int, *, least: float = 0.0) -> float:
    """Seconds to wait before the next attempt: random up to 0.1 s doubled each time, at most 5 s; full jitter.

    Args:
        attempt: 0 for the first repetition.
        least: never less than this.
    """
    most = min(5.0, 0.1 * 2 ** min(attempt, 10))
    return max(least, random.uniform(0, most))  # noqa: S311  # spreads attempts, keeps no secret


class SeenCertificates(Protocol):
    """Remembers the highest number of a certificate that each broker has shown."""

    def broker_seq(self, root: bytes) -> int:
        """The highest number; 0 where none was seen."""
        ...

    def saw_broker_seq(self, root: bytes, seq: int) -> None:
        """Remember it if it is higher."""


class _SeenHere:
    """As long as the session lasts, where there is no place to keep it longer."""

    def __init__(self) -> None:
        self._seqs: dict[bytes, int] = {}

    def broker_seq(self, root: bytes) -> int:
        return self._seqs.get(root, 0)

    def saw_broker_seq(self, root: bytes, seq: int) -> None:
        self._seqs[root] = max(seq, self.broker_seq(root))


class Session:
    """One broker, one identity.

    Args:
        server: where the broker is, and whom to trust about it.
        identity: as whom to call.
        timeout: how long to wait.
        now: the clock.
        seen: remembers the broker's certificates beyond this session.
    """

    def __init__(
        self,
        server: Server,
        identity: Identity,
        timeout: Timeout,
        now: Callable[[], Millis] = system_clock,
        seen: SeenCertificates | None = None,
    ) -> None:
        self.server, self.identity, self.timeout, self.now = server, identity, timeout, now
        self._seen: SeenCertificates = _SeenHere() if seen is None else seen
        self.channels = Channels(server)
        self.directory = Directory(federation=server.federation, operator=server.operator)
        self._asked_at: dict[bytes, float] = {}
        self._learning: dict[bytes, asyncio.Task[None]] = {}
        self._greeting: st.Signed[pb.Hello] | None = None
        self._broker_cert: st.Signed[pb.KeyCert] | None = None
        self._closed = False

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    @property
    def broker_key(self) -> bytes:
        """The key that the broker's certificate names; empty until :meth:`greet` was called."""
        return b"" if self._broker_cert is None else self._broker_cert.payload.signing_key

    @property
    def broker_cert(self) -> st.Signed[pb.KeyCert] | None:
        """The broker's certificate, by its pinned root; None until :meth:`greet` was called."""
        return self._broker_cert

    def end(self) -> None:
        """Call nothing any more."""
        self._closed = True

    async def close(self) -> None:
        """Close the connection; nothing can be called any more."""
        self._closed = True
        for learning in self._learning.values():
            learning.cancel()
        await self.channels.close()

    async def call(self, stub: _Stub, method: str, request: Message) -> Any:
        """Make one call, again while no broker answers and there is time.

        Args:
            stub: the service's stub.
            method: its method's name.
            request: idempotent, as all are.

        Raises:
            RefusedError: the broker said no.
            UnavailableError: no answer could be had.
        """
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self.timeout.connect
        attempt = 0
        while True:
            channel = self.open_channel()
            try:
                return await getattr(stub(channel), method)(request, timeout=self.timeout.call)
            except grpc.aio.AioRpcError as failure:
                wait = backoff(attempt)
                if not is_unreached(failure) or loop.time() + wait > give_up:
                    raise error_of(failure) from failure
                self.channels.leave(channel, grace=self.timeout.call)
                attempt += 1
                await asyncio.sleep(wait)

    def open_channel(self) -> grpc.aio.Channel:
        """The channel in use.

        Raises:
            UnavailableError: the client was closed.
        """
        if self._closed:
            raise UnavailableError("the client is closed.", remedy="Make a new one.")
        return self.channels.current()

    async def greet(self, *, fresh: bool = False) -> pb.Envelope:
        """A greeting for a read of one's own things, or for a stream.

        Args:
            fresh: make a new one, even if the last is young enough.

        Raises:
            KeyRejectedError: the server is another broker than the pinned one, or its certificate has ended or is an
                earlier one than it has shown before.
        """
        kept = self._greeting
        if not fresh and kept is not None and self.now() - kept.payload.created_at < _HELLO_FRESH:
            return kept.envelope
        self._greeting = await self._greeted()
        return self._greeting.envelope

    async def greet_node(self, node: bytes, reply_key: bytes) -> st.Signed[pb.Hello]:
        """A new greeting for a read that a node answers through the broker.

        Args:
            node: the node's root.
            reply_key: the X25519 key to which it seals its answer.

        Raises:
            KeyRejectedError: as :meth:`greet`.
        """
        return await self._greeted(node=node, reply_key=reply_key)

    async def _greeted(self, *, node: bytes = b"", reply_key: bytes = b"") -> st.Signed[pb.Hello]:
        request = session_pb2.GetChallengeRequest(federation=self.server.federation)
        response = await self.call(session_pb2_grpc.SessionServiceStub, "GetChallenge", request)
        challenge: session_pb2.Challenge = response.challenge
        self._check_broker(challenge)
        return make_hello(
            challenge,
            broker=self.server.broker_root,
            signer=self.identity.signer,
            kind=self.identity.kind,
            key=self.identity.keys.signing,
            now=self.now(),
            node=node,
            reply_key=reply_key,
        )

    async def with_greeting(self, make_call: Callable[[pb.Envelope], Awaitable[Any]]) -> Any:
        """Make a call that carries a greeting; once more with a new one when the broker finds it too old.

        Args:
            make_call: gets the greeting, returns the awaitable of the call.
        """
        try:
            return await make_call(await self.greet())
        except RefusedError as error:
            if error.code != "HELLO_REFUSED":
                raise
        return await make_call(await self.greet(fresh=True))

    async def know(self, roots: Iterable[bytes]) -> Directory:
        """The directory, with these organizations in it so far as the broker knows them."""
        clock = asyncio.get_running_loop().time()
        stale = {each for each in roots if clock - self._asked_at.get(each, -_DIRECTORY_FRESH) >= _DIRECTORY_FRESH}
        await self._ask_for(sorted(stale))
        return self.directory

    async def learn_anew(self, root: bytes) -> None:
        """Ask again about one organization: it signed with a key that is not known. Not more often than each second."""
        learning = self._learning.get(root)
        if learning is None:
            learning = self._learning[root] = asyncio.ensure_future(self._learn(root))
            learning.add_done_callback(lambda _: self._learning.pop(root, None))
        await asyncio.shield(learning)

    async def _learn(self, root: bytes) -> None:
        since = asyncio.get_running_loop().time() - self._asked_at.get(root, float("-inf"))
        await asyncio.sleep(max(0.0, _REFRESH_AT_MOST_EVERY - since))
        await self._ask_for([root])

    async def organizations(self) -> list[Organization]:
        """Every organization of the federation, verified."""
        token = b""
        while True:
            page = session_pb2.Page(size=_PAGE, token=token)
            response = await self._list(session_pb2.ListDirectoryRequest(federation=self.server.federation, page=page))
            for entry in response.entries:
                self._take(entry)
            if not response.next_page or response.next_page == token:
                return list(self.directory.organizations())
            token = response.next_page

    async def entry(self, root: bytes) -> session_pb2.DirectoryEntry:
        """What the broker says of one organization, unverified.

        Raises:
            RefusedError: it says nothing.
        """
        response = await self._list(session_pb2.ListDirectoryRequest(federation=self.server.federation, roots=[root]))
        if not response.entries:
            raise RefusedError(
                "the broker does not know this organization.",
                code="NODE_UNKNOWN",
                remedy="Check that you use the right federation; else ask the school.",
            )
        return next(iter(response.entries))

    async def pages(self, stub: _Stub, method: str, make: _MakePage) -> AsyncIterator[Any]:
        """Every page of a listing of one's own things.

        Args:
            stub, method: as for :meth:`call`.
            make: the request, from a greeting and the page wanted.
        """
        token = b""
        while True:
            page = session_pb2.Page(size=_PAGE, token=token)

            async def call(hello: pb.Envelope, page: session_pb2.Page = page) -> Any:
                return await self.call(stub, method, make(hello, page))

            response = await self.with_greeting(call)
            yield response
            # A broker that repeats its token would be asked forever.
            if not response.next_page or response.next_page == token:
                return
            token = response.next_page

    async def _ask_for(self, roots: list[bytes]) -> None:
        for start in range(0, len(roots), _ROOTS_IN_ONE_CALL):
            some = roots[start : start + _ROOTS_IN_ONE_CALL]
            response = await self._list(session_pb2.ListDirectoryRequest(federation=self.server.federation, roots=some))
            for entry in response.entries:
                self._take(entry)
            clock = asyncio.get_running_loop().time()
            self._asked_at.update((each, clock) for each in some)

    async def _list(self, request: session_pb2.ListDirectoryRequest) -> session_pb2.ListDirectoryResponse:
        response: session_pb2.ListDirectoryResponse = await self.call(
            session_pb2_grpc.SessionServiceStub, "ListDirectory", request
        )
        return response

    def _take(self, entry: session_pb2.DirectoryEntry) -> None:
        if entry.HasField("admission"):
            self.directory.add(entry)

    def _check_broker(self, challenge: session_pb2.Challenge) -> None:
        if challenge.federation != self.server.federation:
            raise MalformedError(
                f"expected {self.server.federation!r}, got {challenge.federation[:64]!r}.",
                field="challenge.federation",
                remedy="Check the broker's address and the federation's name.",
            )
        signed = st.verify(st.KEY_CERT, challenge.broker_cert, federation=self.server.federation)
        cert = signed.payload
        check_key_cert(cert)
        if cert.root == self.server.broker_root and self.now() >= cert.valid_until:
            raise KeyRejectedError(
                "the broker's certificate has ended.",
                remedy="Check this machine's clock; else tell the broker's operator.",
            )
        if cert.root == self.server.broker_root:
            newest = self._seen.broker_seq(cert.root)
            if cert.seq < newest:
                raise KeyRejectedError(
                    f"expected the broker's certificate number {newest} or a later one, got number {cert.seq}: "
                    "its earlier keys are worth nothing.",
                    remedy="Do not use it: somebody may have stolen an earlier key. Tell the broker's operator.",
                )
            if cert.seq > newest:
                self._seen.saw_broker_seq(cert.root, cert.seq)
            self._broker_cert = signed

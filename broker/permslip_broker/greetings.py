"""Who calls: greetings checked against what the federation says of the caller.

A greeting proves a key. What that key may do is said here:

- an **organization** (provider, node, auditor) greets with the online key that its current certificate names, is
  admitted as what it says it is, and not suspended;
- a **person** (guardian, learner) greets with her own key; the broker knows no more of her than what she signed;
- the **operator** greets with the federation's operator key.

Example::

    caller = greetings.check(request.hello, as_one_of=(pb.PRINCIPAL_KIND_PROVIDER,))
    caller.root
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, TypeVar

from permslip._pb.permslip.v1 import session_pb2, statement_pb2 as pb
from permslip.dsse import SignedCache
from permslip.errors import PermslipError, RefusedError, TimedOutError
from permslip.greeting import CONTRACT_VERSION, HELLO_LIFETIME, check_hello, make_server_nonce
from permslip.hosting.facts_store import FactStore
from permslip.quantities import Millis
from permslip.reasons import Reason
from permslip.standing import key_reason
from permslip_broker.identity import Identity

__all__ = ["ANYBODY", "PERSONS", "Caller", "Greetings", "first_message", "proved_caller"]

PERSONS: Final = frozenset({pb.PRINCIPAL_KIND_GUARDIAN, pb.PRINCIPAL_KIND_LEARNER})
ANYBODY: Final = frozenset(pb.PrincipalKind.values()) - {pb.PRINCIPAL_KIND_UNSPECIFIED}

# Seconds for which a stream may stay open without a greeting: as long as its nonce is good for.
GREETING_WITHIN: Final = HELLO_LIFETIME / 1_000
_CACHED: Final = 4_096
_M = TypeVar("_M")
# Of the call that is being handled; each has a context of its own.
_proved: ContextVar[bytes] = ContextVar("proved", default=b"")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who was shown to be calling."""

    root: bytes
    key: bytes
    kind: pb.PrincipalKind.ValueType


class Greetings:
    """Gives challenges and checks what comes back.

    Args:
        identity: the broker's.
        facts: who is admitted, with which key.
        clock: the broker's.
    """

    def __init__(self, identity: Identity, facts: FactStore, clock: Callable[[], Millis]) -> None:
        self._identity, self._facts, self._clock = identity, facts, clock
        self._signatures = SignedCache(_CACHED)

    def now(self) -> Millis:
        """The broker's clock."""
        return self._clock()

    def challenge(self) -> session_pb2.Challenge:
        """Who this broker is, and a nonce that is good for 60 s."""
        now = self._clock()
        return session_pb2.Challenge(
            federation=self._identity.federation,
            broker_cert=self._identity.cert.envelope,
            server_nonce=make_server_nonce(self._identity.nonce_secret, now=now),
            versions=[CONTRACT_VERSION],
            server_time=now,
        )

    def believe(self, envelope: pb.Envelope, *, as_one_of: Collection[int], node: bytes = b"") -> Caller:
        """Check a greeting's signature and freshness alone; :meth:`check_standing` is still to come.

        Args:
            envelope: the greeting.
            as_one_of: the kinds of callers that this is for.
            node: the node whose answer is asked for; such a greeting names it in this broker's place.

        Raises:
            RefusedError: ``HELLO_REFUSED``, or ``NOT_ALLOWED`` for a kind of caller that this is not for.
        """
        try:
            hello = check_hello(
                envelope,
                secret=self._identity.nonce_secret,
                broker=node or self._identity.root,
                federation=self._identity.federation,
                now=self._clock(),
                cache=self._signatures,
            ).payload
        except PermslipError as error:
            field = getattr(error, "field", "")
            code = Reason.VERSION_NOT_SPOKEN if field == "hello.versions" else Reason.HELLO_REFUSED
            raise RefusedError(error.message, code=code.name, field=field, remedy=error.remedy) from error
        if hello.kind not in PERSONS:
            _proved.set(hello.signer.key)
        if hello.kind not in as_one_of:
            raise _refused(Reason.NOT_ALLOWED, "hello.kind")
        return Caller(hello.signer.root, hello.signer.key, hello.kind)

    def check(self, envelope: pb.Envelope, *, as_one_of: Collection[int], node: bytes = b"") -> Caller:
        """Who calls; arguments as for :meth:`believe`.

        Raises:
            RefusedError: as :meth:`believe` and :meth:`check_standing`.
        """
        caller = self.believe(envelope, as_one_of=as_one_of, node=node)
        self.check_standing(caller)
        if caller.kind not in PERSONS:
            _proved.set(caller.root)
        return caller

    def check_standing(self, caller: Caller) -> None:
        """Whether the caller is what it says it is.

        Raises:
            RefusedError: names why.
        """
        if caller.kind == pb.PRINCIPAL_KIND_OPERATOR:
            if caller.key != self._identity.operator or caller.root != self._identity.operator:
                raise _refused(Reason.NOT_ALLOWED, "hello.signer")
            return
        if caller.kind in PERSONS:
            if caller.root != caller.key:
                raise _refused(Reason.HELLO_REFUSED, "hello.signer.root")
            return
        standing = self._facts.standing(caller.root)
        if standing is not None and standing.suspension is not None:
            is_node = caller.kind == pb.PRINCIPAL_KIND_NODE
            raise _refused(Reason.NODE_SUSPENDED if is_node else Reason.REQUESTER_SUSPENDED, "hello.signer.root")
        now = self._clock()
        if standing is None or not standing.is_admitted(caller.kind, now):
            is_node = caller.kind == pb.PRINCIPAL_KIND_NODE
            raise _refused(Reason.NODE_UNKNOWN if is_node else Reason.REQUESTER_UNKNOWN, "hello.signer.root")
        reason = key_reason(standing, pb.Signer(root=caller.root, key=caller.key), now)
        if reason != Reason.ALLOWED:
            raise _refused(reason, "hello.signer.key")


def proved_caller() -> bytes:
    """Which organization's greeting held in the call that is being handled: its root, or where that is not shown to be
    its own, the key that signed. Empty before, and for persons, of whose calls no list is kept."""
    return _proved.get()


async def first_message(requests: AsyncIterator[_M]) -> _M | None:
    """What a stream begins with; None where it ends without a word. Who says nothing holds no stream open.

    Raises:
        TimedOutError: nothing came while a greeting could still be good.
    """
    try:
        async with asyncio.timeout(GREETING_WITHIN):
            return await anext(requests)
    except StopAsyncIteration:
        return None
    except TimeoutError:
        raise TimedOutError("no greeting came in time.", remedy="Connect again, and greet at once.") from None


def _refused(reason: Reason, field: str) -> RefusedError:
    return RefusedError(reason.meaning, code=reason.name, field=field, remedy=reason.remedy)

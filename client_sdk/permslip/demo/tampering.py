"""Queries that nobody should answer, each wrong in one way, and the reason that must come back.

=====================  ==========================================================  =========================
name                   what is wrong                                               reason
=====================  ==========================================================  =========================
``forged``             signed with a key of the attacker's own                     ``BAD_SIGNATURE``
``widened``            a genuine query, edited after it was signed to ask for more ``BAD_SIGNATURE``
``replayed``           a genuine query, sent a second time                         ``QUERY_REPLAYED``
``expired``            a genuine query, kept until its time was over               ``QUERY_EXPIRED``
``wrong_section``      asks for a section that the parent did not grant            ``SECTION_NOT_GRANTED``
``sensitive_section``  asks for a sensitive section under a grant on what is above ``SECTION_SENSITIVE``
``wrong_requester``    an admitted provider uses another provider's grant          ``NOT_GRANTEE``
``wrong_action``       wants to watch where reading was granted                    ``ACTION_NOT_GRANTED``
``unknown_grant``      names a grant that nobody gave                              ``GRANT_UNKNOWN``
=====================  ==========================================================  =========================

A grant that was edited after the parent signed it is no query; the demo deposits one as well (``widened_grant``).

Example::

    for attempt in attempts(tutors, summers, not_granted="transcript.credits", sensitive="personal.discipline"):
        with RawExchange(address, attempt.caller) as exchange: ...
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from permslip import statements as st
from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.demo.raw_exchange import RawCaller
from permslip.keys import SealingKey, SigningKey
from permslip.reasons import Reason
from permslip.statements import Signed

__all__ = ["Attempt", "Held", "attempts", "make_query", "widened_grant"]

_LIFETIME: Final = 60_000


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt.

    Attributes:
        name: as in the report.
        story: what somebody tries, for a person.
        caller: whose stream it goes through.
        query: what is sent.
        expected: the reason that must come back.
        first: the same query goes out once before, and is answered.
    """

    name: str
    story: str
    caller: RawCaller
    query: pb.Envelope
    expected: Reason
    first: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """A live grant that allows reading, and who holds it."""

    grant: Signed[pb.Grant]
    caller: RawCaller


def attempts(narrow: Held, broad: Held, *, not_granted: str, sensitive: str) -> Iterator[Attempt]:
    """Every wrong query, made from two live grants.

    Args:
        narrow: most are made from this one.
        broad: held by another provider.
        not_granted: a section that the narrow grant does not cover.
        sensitive: a sensitive section below a path that the broad grant names.
    """
    grant, grantee = narrow.grant, narrow.caller
    sections = list(grant.payload.sections)
    now = time.time_ns() // 1_000_000
    sound = make_query(grant.id, grantee, sections)

    forged = pb.Envelope()
    forged.CopyFrom(sound.envelope)
    forged.signatures[0].signature = SigningKey.generate().sign(b"not the query")
    yield Attempt("forged", "somebody signs in the tutor's name", grantee, forged, Reason.BAD_SIGNATURE)

    widened = pb.Envelope()
    widened.CopyFrom(make_query(grant.id, grantee, sections).envelope)
    payload = pb.Query.FromString(widened.payload)
    payload.sections[:] = sorted({*sections, not_granted})
    widened.payload = payload.SerializeToString(deterministic=True)
    yield Attempt("widened", "a signed query is edited to ask for more", grantee, widened, Reason.BAD_SIGNATURE)

    yield Attempt(
        "replayed", "the very same query is sent again", grantee, sound.envelope, Reason.QUERY_REPLAYED, first=True
    )

    old = now - 10 * _LIFETIME
    expired = make_query(grant.id, grantee, sections, created_at=old, expires_at=old + _LIFETIME)
    yield Attempt(
        "expired", "a query from ten minutes ago is sent now", grantee, expired.envelope, Reason.QUERY_EXPIRED
    )

    wrong = make_query(grant.id, grantee, [not_granted])
    yield Attempt(
        "wrong_section", f"the grantee asks for {not_granted}", grantee, wrong.envelope, Reason.SECTION_NOT_GRANTED
    )

    secret = make_query(broad.grant.id, broad.caller, [sensitive])
    yield Attempt(
        "sensitive_section",
        f"a grant on what is above it is used for {sensitive}",
        broad.caller,
        secret.envelope,
        Reason.SECTION_SENSITIVE,
    )

    stranger = make_query(grant.id, broad.caller, sections)
    yield Attempt(
        "wrong_requester",
        "another provider uses the tutor's grant",
        broad.caller,
        stranger.envelope,
        Reason.NOT_GRANTEE,
    )

    watching = make_query(grant.id, grantee, sections, action=pb.ACTION_WATCH)
    yield Attempt(
        "wrong_action", "the grantee wants to watch, not only to read", grantee, watching.envelope,
        Reason.ACTION_NOT_GRANTED,
    )  # fmt: skip

    unknown = make_query(os.urandom(32), grantee, sections)
    yield Attempt(
        "unknown_grant", "a query names a grant that nobody gave", grantee, unknown.envelope, Reason.GRANT_UNKNOWN
    )


def make_query(grant_id: bytes, caller: RawCaller, sections: list[str], **changes: Any) -> Signed[pb.Query]:
    """A signed query of this caller, sound but for what ``changes`` says of its fields."""
    now = time.time_ns() // 1_000_000
    fields: dict[str, Any] = {
        "federation": caller.federation,
        "nonce": os.urandom(16),
        "created_at": now,
        "signer": caller.signer,
        "expires_at": now + _LIFETIME,
        "grant_id": grant_id,
        "action": pb.ACTION_READ,
        "sections": sections,
        "reply_key": SealingKey.generate().public,
    }
    return st.sign(st.QUERY, pb.Query(**fields | changes), [caller.key])


def widened_grant(grant: Signed[pb.Grant], section: str) -> pb.Envelope:
    """The parent's grant with one section more, and her signature under what she did sign."""
    envelope = pb.Envelope()
    envelope.CopyFrom(grant.envelope)
    payload = pb.Grant.FromString(envelope.payload)
    payload.sections[:] = sorted({*payload.sections, section})
    envelope.payload = payload.SerializeToString(deterministic=True)
    return envelope

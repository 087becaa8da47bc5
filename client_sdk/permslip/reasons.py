"""Why an access was allowed or refused, and what a person can do about it.

The numbers are those of ``Reason`` in the wire contract. Each reason has a sentence that says what it means and a
remedy that says what to do next; ``docs/reference/reasons.md`` is made from them.

Example::

    >>> Reason.GRANT_REVOKED.meaning
    'The consent was revoked.'
    >>> Reason.GRANT_REVOKED.remedy
    'Ask the parent for a new consent, if it is still needed.'
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from permslip._pb.permslip.v1 import statement_pb2 as pb

__all__ = ["Reason"]


class Reason(IntEnum):
    """The verdict on an access: one for the slice, one for each section."""

    ALLOWED = 1

    MALFORMED = 10
    BAD_SIGNATURE = 11
    WRONG_FEDERATION = 12
    QUERY_EXPIRED = 13
    QUERY_FROM_FUTURE = 14
    QUERY_REPLAYED = 15

    REQUESTER_UNKNOWN = 20
    REQUESTER_SUSPENDED = 21
    KEY_NOT_CERTIFIED = 22
    KEY_EXPIRED = 23
    NOT_GRANTEE = 24

    GRANT_UNKNOWN = 30
    GRANT_PENDING = 31
    ENDORSEMENT_REFUSED = 32
    ENDORSEMENT_EXPIRED = 33
    GRANT_NOT_YET = 34
    GRANT_EXPIRED = 35
    GRANT_REVOKED = 36
    GRANT_SUPERSEDED = 37
    AUTHORITY_ENDED = 38
    OBJECTED = 39
    ACTION_NOT_GRANTED = 40
    SECTION_NOT_GRANTED = 41
    SECTION_SENSITIVE = 42
    SECTION_UNKNOWN = 43
    DATES_NOT_GRANTED = 44
    USES_EXHAUSTED = 45

    DELEGATION_UNKNOWN = 50
    DELEGATION_BROKEN = 51
    DELEGATION_TOO_DEEP = 52
    DELEGATION_WIDENS = 53
    DELEGATION_PARTY_NOT_NAMED = 54
    DELEGATION_REVOKED = 55
    DELEGATION_NOT_YET = 56
    DELEGATION_EXPIRED = 57

    NODE_UNKNOWN = 60
    NODE_SUSPENDED = 61
    NO_LEASE = 62
    CLOCK = 63
    WITHHELD = 64

    UNREACHABLE = 70
    TIMED_OUT = 71
    BUSY = 72
    DRAINING = 73
    INTERNAL = 74
    CANCELLED = 75

    LINK_REFUSED = 80
    HELLO_REFUSED = 81
    NOT_ALLOWED = 82
    NOT_FOUND = 83
    VERSION_NOT_SPOKEN = 84
    TOO_LARGE = 85

    @property
    def wire(self) -> pb.Reason.ValueType:
        """The same number, typed as the generated code wants it."""
        return cast("pb.Reason.ValueType", int(self))

    @property
    def meaning(self) -> str:
        """What it says, for a person."""
        return _WORDS[self][0]

    @property
    def remedy(self) -> str:
        """What that person can do next."""
        return _WORDS[self][1]

    @property
    def may_pass(self) -> bool:
        """Whether the same query may succeed later without anybody deciding anew."""
        return self in _MAY_PASS


_MAY_PASS: Final = frozenset(
    {
        Reason.GRANT_PENDING,
        Reason.GRANT_NOT_YET,
        Reason.DELEGATION_NOT_YET,
        Reason.ENDORSEMENT_EXPIRED,
        Reason.NO_LEASE,
        Reason.CLOCK,
        Reason.UNREACHABLE,
        Reason.TIMED_OUT,
        Reason.BUSY,
        Reason.DRAINING,
        Reason.INTERNAL,
    }
)

_WORDS: Final[dict[Reason, tuple[str, str]]] = {
    Reason.ALLOWED: ("The access is allowed.", "Nothing needs to be done."),
    Reason.MALFORMED: ("The message is not what the format says.", "Mend the field that is named and send it again."),
    Reason.BAD_SIGNATURE: (
        "A signature is missing, unnamed, duplicate or wrong.",
        "Sign the statement anew with the keys that it names.",
    ),
    Reason.WRONG_FEDERATION: (
        "The statement belongs to another federation.",
        "Use the keys and consents of this federation.",
    ),
    Reason.QUERY_EXPIRED: (
        "The query's time was over, or was set too long, when it was decided.",
        "Check this machine's clock, and send a new query.",
    ),
    Reason.QUERY_FROM_FUTURE: (
        "The query is dated more than a minute ahead.",
        "Set this machine's clock (NTP), and send a new query.",
    ),
    Reason.QUERY_REPLAYED: ("This very query was decided before.", "Send a new query; each one counts once."),
    Reason.REQUESTER_UNKNOWN: (
        "The requester is not an organization admitted to the federation.",
        "Ask the federation's operator for admission.",
    ),
    Reason.REQUESTER_SUSPENDED: (
        "The requester's admission is suspended.",
        "Speak with the federation's operator.",
    ),
    Reason.KEY_NOT_CERTIFIED: (
        "The signing key is not the organization's current key.",
        "Sign with the current key, or register a new certificate under the organization's root.",
    ),
    Reason.KEY_EXPIRED: (
        "The organization's key certificate has ended.",
        "Make a new certificate with the organization's root key and register it.",
    ),
    Reason.NOT_GRANTEE: (
        "The consent was given to somebody else.",
        "Ask the parent for a consent in your own name.",
    ),
    Reason.GRANT_UNKNOWN: ("There is no such consent here.", "Ask the parent to give it, or check its id."),
    Reason.GRANT_PENDING: (
        "The school has not confirmed the consent yet.",
        "Try again when the school's node is online; it confirms by itself.",
    ),
    Reason.ENDORSEMENT_REFUSED: (
        "The school did not confirm the consent: those who signed it may not decide this alone.",
        "The parent sees why in her app; she may need the other guardian's signature.",
    ),
    Reason.ENDORSEMENT_EXPIRED: (
        "The school's confirmation has run out and was not renewed yet.",
        "Try again when the school's node is online; it renews by itself while the consent holds.",
    ),
    Reason.GRANT_NOT_YET: ("The consent begins later.", "Wait until it begins."),
    Reason.GRANT_EXPIRED: ("The consent has ended.", "Ask the parent to renew it, if it is still needed."),
    Reason.GRANT_REVOKED: ("The consent was revoked.", "Ask the parent for a new consent, if it is still needed."),
    Reason.GRANT_SUPERSEDED: ("A newer consent took its place.", "Use the newer one: list your grants again."),
    Reason.AUTHORITY_ENDED: (
        "Those who signed no longer decide for the learner (for example because she came of age).",
        "Ask the learner herself, or the school.",
    ),
    Reason.OBJECTED: (
        "Another guardian objects.",
        "The guardians, or the school, must resolve the objection first.",
    ),
    Reason.ACTION_NOT_GRANTED: (
        "The consent does not allow this action.",
        "Ask the parent for a consent that includes it.",
    ),
    Reason.SECTION_NOT_GRANTED: (
        "The consent does not cover this section.",
        "Ask the parent for it, if it is needed for the purpose.",
    ),
    Reason.SECTION_SENSITIVE: (
        "The section is sensitive: only a consent that names it opens it.",
        "Ask the parent for this very section, and say why it is needed.",
    ),
    Reason.SECTION_UNKNOWN: ("There is no such section.", "See docs/reference/sections.md for the sections."),
    Reason.DATES_NOT_GRANTED: (
        "No day that was asked for is within the days of the consent.",
        "Ask for the days that the consent covers.",
    ),
    Reason.USES_EXHAUSTED: ("The consent was used as often as it allows.", "Ask the parent for a new consent."),
    Reason.DELEGATION_UNKNOWN: (
        "A delegation that the query names is not known here.",
        "The party that passed the consent on must deposit the delegation first.",
    ),
    Reason.DELEGATION_BROKEN: (
        "The delegations do not form a chain from the consent to the requester.",
        "Name them in order, from the consent down.",
    ),
    Reason.DELEGATION_TOO_DEEP: (
        "The consent may not be passed on that often.",
        "Ask the parent for a consent in your own name.",
    ),
    Reason.DELEGATION_WIDENS: (
        "A delegation gives more than the consent it comes from.",
        "The party that passed it on must narrow it and sign again.",
    ),
    Reason.DELEGATION_PARTY_NOT_NAMED: (
        "The consent does not name this party among those it may be passed on to.",
        "Ask the parent for a consent that names it.",
    ),
    Reason.DELEGATION_REVOKED: (
        "The party that passed the consent on revoked it, or is no longer admitted.",
        "Ask that party, or the parent.",
    ),
    Reason.DELEGATION_NOT_YET: ("The delegation begins later.", "Wait until it begins."),
    Reason.DELEGATION_EXPIRED: ("The delegation has ended.", "Ask the party that passed the consent on to renew it."),
    Reason.NODE_UNKNOWN: (
        "The school's node is not admitted to the federation.",
        "The school must ask the federation's operator for admission.",
    ),
    Reason.NODE_SUSPENDED: ("The school's node is suspended.", "The school must speak with the federation's operator."),
    Reason.NO_LEASE: (
        "The node has not heard from the broker within its lease, so it answers nobody.",
        "Try again in some seconds. The school's operator can check the connection.",
    ),
    Reason.CLOCK: (
        "The node's clock is behind its own records, so it answers nobody.",
        "The school's operator must set the clock (NTP).",
    ),
    Reason.WITHHELD: (
        "The school keeps this section back by its own rule.",
        "Ask the school.",
    ),
    Reason.UNREACHABLE: (
        "The node that holds this is not connected. Nothing is known about what it holds.",
        "Try again later.",
    ),
    Reason.TIMED_OUT: (
        "The answer did not come in time. Nothing is known about what is missing.",
        "Try again, with a longer timeout if the slice is large.",
    ),
    Reason.BUSY: ("Too many queries are open.", "Try again after the time that the answer names."),
    Reason.DRAINING: ("The server is about to restart.", "Connect again; the SDK does so by itself."),
    Reason.INTERNAL: (
        "Something failed inside. It was logged under the query's id.",
        "Try again; if it fails again, give the operator the query's id.",
    ),
    Reason.CANCELLED: ("The requester gave up before the answer was whole.", "Send a new query when it is needed."),
    Reason.LINK_REFUSED: (
        "The slip is used, too old, was tried too often, or its code is wrong.",
        "Check the code; if it still fails, ask the school for a new slip.",
    ),
    Reason.HELLO_REFUSED: (
        "The caller could not show who it is: the greeting is too old, or for another broker.",
        "Check this machine's clock and the broker's key, and connect again.",
    ),
    Reason.NOT_ALLOWED: ("The caller may not do this.", "Use the key of somebody who may."),
    Reason.NOT_FOUND: ("There is no such thing here.", "Check the id."),
    Reason.VERSION_NOT_SPOKEN: (
        "No version of the contract is spoken by both sides.",
        "Update the older software.",
    ),
    Reason.TOO_LARGE: ("The message is larger than allowed.", "Send it in smaller parts."),
}

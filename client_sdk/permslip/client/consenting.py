"""A consent on its way: drafted, shown, signed, deposited.

Example::

    draft = await guardian.draft(grantee, learner="Mia", sections=["transcript"], purpose="tutoring",
                                 purpose_text="Help with reading", until=date(2026, 12, 18))
    for notice in draft.notices:
        print(notice.text)
    consent = await guardian.deposit(draft.sign(keys))
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Required, TypeAlias, TypedDict

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.consents import ConsentTerms, purpose_code, sign_in_part
from permslip.errors import MalformedError, PermslipError
from permslip.grant_views import GrantStatus, GrantView
from permslip.keys import PublicKey, SigningKey
from permslip.notices import NoticeText
from permslip.wallet import LinkedSlice

__all__ = ["Consent", "ConsentDraft", "GivenTerms", "RefusedGrant", "Until", "end_of", "terms_of"]

# A moment, or a day: then the consent ends with that day, in UTC.
Until: TypeAlias = datetime | date | str


class GivenTerms(TypedDict, total=False):
    """What a parent decides, as it is given to ``draft`` and ``grant``.

    Attributes:
        sections: section paths.
        purpose: the purpose's name, e.g. ``tutoring``.
        purpose_text: the words of whoever asks; only school and grantee can read them.
        until: a day, with which it ends, or a moment.
        reference: the grantee's own for the learner.
        relationship: the signer's, in her words.
        records_from, records_until: only records of these days, YYYY-MM-DD.
        max_uses: 0 is unlimited.
        onward_parties, delegation_depth: root keys to whom it may be passed on, and how often.
        erase_within_days: 0 says nothing.
        language: of the notice, ``en`` or ``es``.
    """

    sections: Required[Iterable[str]]
    purpose: Required[str]
    purpose_text: Required[str]
    until: Required[Until]
    reference: str
    relationship: str
    records_from: str
    records_until: str
    max_uses: int
    onward_parties: Iterable[str | bytes]
    delegation_depth: int
    erase_within_days: int
    language: str


def terms_of(grantee: bytes, given: GivenTerms) -> ConsentTerms:
    """The terms that were given.

    Raises:
        MalformedError: names what is wrong.
    """
    sections = given["sections"]
    return ConsentTerms(
        grantee=grantee,
        sections=(sections,) if isinstance(sections, str) else tuple(sections),
        purpose=purpose_code(given["purpose"]),
        purpose_text=given["purpose_text"],
        expires_at=end_of(given["until"]),
        records_from=given.get("records_from", ""),
        records_until=given.get("records_until", ""),
        max_uses=given.get("max_uses", 0),
        onward_parties=tuple(_root(each) for each in given.get("onward_parties", ())),
        delegation_depth=given.get("delegation_depth", 0),
        erase_within_days=given.get("erase_within_days", 0),
        relationship=given.get("relationship", ""),
        reference=given.get("reference", ""),
        language=given.get("language", "en"),
    )


@dataclass(frozen=True, slots=True)
class ConsentDraft:
    """What is to be signed in one tap, with the words to show first.

    Attributes:
        terms: the same for all schools.
        grants: one payload for each slice, complete.
        slices: the slices, in the same order.
        notices: the words, in the same order.
        grantee_name: as shown.
    """

    terms: ConsentTerms
    grants: tuple[pb.Grant, ...]
    slices: tuple[LinkedSlice, ...]
    notices: tuple[NoticeText, ...]
    grantee_name: str

    def sign(self, keys: Sequence[SigningKey]) -> tuple[pb.Envelope, ...]:
        """The signed grants. Where others must sign too, they are believed once those have cosigned.

        Raises:
            SignatureError: a key that the grants do not name.
        """
        return tuple(sign_in_part(each, keys) for each in self.grants)


@dataclass(frozen=True, slots=True)
class RefusedGrant:
    """A grant that the broker did not record.

    Attributes:
        node_name: the school.
        error: why.
    """

    node_name: str
    error: PermslipError


@dataclass(frozen=True, slots=True, repr=False)
class Consent:
    """What became of a deposit.

    Attributes:
        consent_id: chosen by the broker; the grants share it.
        grants: those that were recorded.
        refused: those that were not.
    """

    consent_id: bytes
    grants: tuple[GrantView, ...]
    refused: tuple[RefusedGrant, ...] = ()

    def __repr__(self) -> str:
        places = [f"{each.node_name!r} {each.status}" for each in self.grants]
        places += [f"{each.node_name!r} not recorded" for each in self.refused]
        return f"<Consent {self.consent_id.hex()}: {', '.join(places)}>"

    @property
    def is_active(self) -> bool:
        """Whether every school has endorsed it."""
        return not self.refused and all(each.status == GrantStatus.ACTIVE for each in self.grants)

    @property
    def text(self) -> str:
        """For the parent, one line for each school."""
        lines = [f"{each.node_name}: {_WORDS.get(each.status, each.status.value)}" for each in self.grants]
        for number, each in enumerate(self.grants):
            if each.refused_because:
                lines[number] += f" ({each.refused_because})"
        return "\n".join([*lines, *(f"{each.node_name}: not recorded. {each.error}" for each in self.refused)])

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        return {
            "consent_id": self.consent_id.hex(),
            "active": self.is_active,
            "grants": [each.to_dict() for each in self.grants],
            "refused": [{"node_name": each.node_name, "error": str(each.error)} for each in self.refused],
        }


_WORDS = {
    GrantStatus.ACTIVE: "confirmed by the school",
    GrantStatus.PENDING: "waits for the school; it counts once the school confirms it",
    GrantStatus.REFUSED: "not confirmed by the school",
    GrantStatus.AUTHORITY_ENDED: "not confirmed by the school: authority has ended",
}


def end_of(until: Until) -> int:
    """UTC milliseconds at which a consent ends. A day ends with its last moment; a moment without zone is UTC.

    Raises:
        MalformedError: text that is neither a day nor a moment.
    """
    if isinstance(until, str):
        try:
            until = date.fromisoformat(until) if len(until) == 10 else datetime.fromisoformat(until)
        except ValueError:
            raise MalformedError(f"expected a day YYYY-MM-DD or a moment, got {until!r}.", field="until") from None
    if not isinstance(until, datetime):
        until = datetime.combine(until + timedelta(days=1), time(), UTC)
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return round(until.timestamp() * 1000)


def _root(key: str | bytes) -> bytes:
    field = "onward_parties"
    return (PublicKey.from_did(key, field=field) if isinstance(key, str) else PublicKey.parse(key, field=field)).raw

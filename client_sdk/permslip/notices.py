"""Notices: the words a parent reads before she signs, made from the very fields she signs.

A grant carries the digest of its notice (``Grant.notice``). Because the text is rendered by a versioned template from
the grant's own fields, whoever holds the private part can render it again and prove which words were shown.

Rules:

- The text comes from the structured fields, the purpose in the asker's own words and the organizations' public names;
  from nothing else. It says «your child», never a name.
- One notice for each grant, naming one school: a school cannot tell from a digest that there are others.
- The purpose's words are set off line by line (``> ``), so that they cannot pass for words of the template.
- A published template never changes; new words are a new version. Times are printed in UTC.

Example::

    notice = render(grant, purpose_text="Tutoring in reading", names={grant.grantee: "Ana's Tutoring", ...})
    print(notice.text)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.errors import MalformedError, VerificationError
from permslip.keys import did_text
from permslip.notice_words import LANGUAGES, WORDS, Words
from permslip.sealing import salted_digest

__all__ = ["LANGUAGES", "TEMPLATE", "VERSION", "NoticeText", "check_notice", "render", "section_label"]

TEMPLATE: Final = "grant"
VERSION: Final = "v1"


@dataclass(frozen=True, slots=True)
class NoticeText:
    """A rendered notice.

    Attributes:
        template, version: which words were used.
        language: ``en`` or ``es``.
        text: as shown, lines ended by a line feed but the last.
    """

    template: str
    version: str
    language: str
    text: str

    def digest(self, salt: bytes) -> bytes:
        """What the grant carries: the salted digest of the text's UTF-8 bytes."""
        return salted_digest(salt, self.text.encode())


def render(grant: pb.Grant, *, purpose_text: str, names: Mapping[bytes, str], language: str = "en") -> NoticeText:
    """Render the notice of one grant.

    Args:
        grant: its terms; the fields ``notice`` and ``private`` are not looked at.
        purpose_text: what it is for, in the asker's words.
        names: root key → public name, for the school, the grantee and onward parties; a key without a name is
            printed as it is.
        language: ``en`` or ``es``.

    Raises:
        MalformedError: there is no template in that language.
    """
    words = WORDS.get(language)
    if words is None:
        raise MalformedError(
            f"there is no notice in {language!r}.",
            field="grant.notice.language",
            remedy=f"Choose one of: {', '.join(LANGUAGES)}.",
        )
    lines = [*_who(grant, words, names), "", words.sections, *_sections(grant, words), ""]
    lines += [words.purpose.format(purpose=words.purposes[grant.purpose])]
    lines += [f"> {line}" for line in purpose_text.split("\n")]
    lines += ["", *_limits(grant, words, names), words.revocable]
    return NoticeText(TEMPLATE, VERSION, language, "\n".join(lines))


def check_notice(grant: pb.Grant, private: pb.GrantPrivate, *, names: Mapping[bytes, str]) -> NoticeText:
    """Render a grant's notice again and check that it is what the parent read.

    Args:
        grant: verified.
        private: its opened private part.
        names: the organizations' names as they were when it was signed.

    Raises:
        VerificationError: other words than these were shown.
        MalformedError: a template, version or language that is not known here.
    """
    if (grant.notice.template, grant.notice.version) != (TEMPLATE, VERSION):
        raise MalformedError(
            f"expected template {TEMPLATE} {VERSION}, got {grant.notice.template} {grant.notice.version}.",
            field="grant.notice.template",
            remedy="Is this software up to date?",
        )
    notice = render(grant, purpose_text=private.purpose_text, names=names, language=grant.notice.language)
    if notice.digest(private.notice_salt) != grant.notice.salted_sha256:
        raise VerificationError(
            "grant.notice: the parent read other words than those the grant's terms give.",
            remedy="An organization may have changed its name since; otherwise ask the parent.",
        )
    return notice


def section_label(path: str, language: str = "en") -> str:
    """What a section path means to a parent; the path itself where it is not known."""
    words = WORDS.get(language, WORDS["en"])
    return words.labels.get(path, path)


def _who(grant: pb.Grant, words: Words, names: Mapping[bytes, str]) -> list[str]:
    school = _name(grant.slice.node, names)
    actions = words.conjunction.join(words.actions[each] for each in grant.actions)
    if grant.grantee in grant.granted_by:
        return [words.title, "", words.own.format(actions=actions, school=school)]
    return [words.title, "", words.opening.format(grantee=_name(grant.grantee, names), actions=actions, school=school)]


def _sections(grant: pb.Grant, words: Words) -> list[str]:
    return [f"- {words.labels.get(path, path)} ({path})" for path in grant.sections]


def _limits(grant: pb.Grant, words: Words, names: Mapping[bytes, str]) -> list[str]:
    lines = [words.times.format(start=_time(grant.not_before), end=_time(grant.expires_at))]
    if grant.records_from and grant.records_until:
        lines.append(words.records_between.format(first=grant.records_from, last=grant.records_until))
    elif grant.records_from:
        lines.append(words.records_from.format(first=grant.records_from))
    elif grant.records_until:
        lines.append(words.records_until.format(last=grant.records_until))
    if grant.max_uses:
        lines.append(words.uses.format(count=grant.max_uses))
    if grant.delegation_depth:
        parties = ", ".join(_name(each, names) for each in grant.onward_parties)
        lines.append(words.onward.format(parties=parties))
    elif grant.grantee not in grant.granted_by:
        lines.append(words.not_onward)
    if grant.erase_within_days:
        lines.append(words.erase.format(days=grant.erase_within_days))
    if grant.supersedes:
        lines.append(words.supersedes)
    return lines


def _name(root: bytes, names: Mapping[bytes, str]) -> str:
    return names.get(root) or did_text(root)


def _time(millis: int) -> str:
    return datetime.fromtimestamp(millis / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")

"""Notices say what is signed, in the parent's language, and can be rendered again to prove it."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as some

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.errors import MalformedError, VerificationError
from permslip.keys import did_text
from permslip.notice_words import WORDS
from permslip.notices import LANGUAGES, NoticeText, check_notice, render, section_label
from permslip.sections import LEAVES, PATHS, SENSITIVE

SCHOOL, TUTOR, PARENT, PARTNER = b"s" * 32, b"t" * 32, b"p" * 32, b"q" * 32
NAMES = {SCHOOL: "Lincoln Elementary", TUTOR: "Ana's Tutoring", PARTNER: "Reading Partners"}
SALT = b"0123456789abcdef"


def terms(**changes: object) -> pb.Grant:
    grant = pb.Grant(
        granted_by=[PARENT],
        slice=pb.Slice(node=SCHOOL, handle=bytes(16)),
        grantee=TUTOR,
        actions=[pb.ACTION_READ],
        sections=["transcript.grades"],
        purpose=pb.PURPOSE_TUTORING,
        not_before=1_790_000_000_000,
        expires_at=1_800_000_000_000,
    )
    grant.MergeFrom(pb.Grant(**changes))  # type: ignore[arg-type]  # the stub types each field by itself
    return grant


def text(grant: pb.Grant, language: str = "en") -> str:
    return render(grant, purpose_text="Help with reading", names=NAMES, language=language).text


def test_the_notice_names_who_what_where_why_and_until_when() -> None:
    assert text(terms()).split("\n") == [
        "Permission for data about your child",
        "",
        "You allow Ana's Tutoring to read what Lincoln Elementary keeps about your child.",
        "",
        "Only in these areas:",
        "- Grades (transcript.grades)",
        "",
        "Only for this purpose: tutoring. In the words of whoever asks:",
        "> Help with reading",
        "",
        "From 2026-09-21 14:13 UTC until 2027-01-15 08:00 UTC.",
        "It may not be passed on to anybody else.",
        "You can take this back at any time. The school then stops, and tells you so.",
    ]


def test_the_spanish_notice_says_su_hijo_o_hija() -> None:
    shown = text(terms(), "es")

    assert "Usted permite a Ana's Tutoring leer lo que Lincoln Elementary guarda sobre su hijo o hija." in shown
    assert "- Calificaciones (transcript.grades)" in shown


def test_every_term_is_told() -> None:
    grant = terms(
        records_from="2025-08-01",
        records_until="2026-06-30",
        max_uses=7,
        delegation_depth=1,
        onward_parties=[PARTNER],
        erase_within_days=90,
        supersedes=[bytes(32)],
    )
    grant.actions.append(pb.ACTION_WATCH)

    shown = text(grant)

    assert "to read and be told of changes in what" in shown
    assert "from 2025-08-01 to 2026-06-30" in shown
    assert "At most 7 times." in shown
    assert "passed on, in whole or in part, to: Reading Partners." in shown
    assert "within 90 days" in shown
    assert "takes the place of an earlier permission" in shown


def test_a_grant_to_oneself_says_so() -> None:
    assert "You allow yourself to read what Lincoln Elementary" in text(terms(grantee=PARENT))


@pytest.mark.parametrize(
    ("bounds", "said"),
    [({"records_from": "2025-08-01"}, "on or after 2025-08-01"), ({"records_until": "2026-06-30"}, "on or before")],
)
def test_an_open_bound_of_days_is_told(bounds: dict[str, str], said: str) -> None:
    assert said in text(terms(**bounds))


def test_an_organization_without_a_name_is_told_by_its_key() -> None:
    assert did_text(b"x" * 32) in text(terms(grantee=b"x" * 32))


@given(some.text(min_size=1))
def test_the_askers_words_never_pass_for_the_templates_own(words: str) -> None:
    shown = render(terms(), purpose_text=words, names=NAMES).text.split("\n")

    own = render(terms(), purpose_text="", names=NAMES).text.split("\n")
    assert [line for line in shown if not line.startswith("> ")] == [line for line in own if line != "> "]


def test_a_language_without_template_is_refused() -> None:
    with pytest.raises(MalformedError, match="Choose one of: en, es"):
        text(terms(), "tlh")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_section_action_and_purpose_has_words_in_every_language(language: str) -> None:
    words = WORDS[language]

    assert set(words.labels) == set(PATHS)
    assert set(words.actions) == set(pb.Action.values()) - {0}
    assert set(words.purposes) == set(pb.Purpose.values()) - {0}
    assert len(set(words.labels.values())) == len(words.labels)


@pytest.mark.parametrize(("language", "mark"), [("en", "(sensitive)"), ("es", "(sensible)")])
def test_sensitive_sections_are_marked_as_such(language: str, mark: str) -> None:
    marked = {path for path in LEAVES if mark in section_label(path, language)}

    assert marked == SENSITIVE


def signed_with(notice: NoticeText) -> pb.Grant:
    return terms(
        notice=pb.Notice(
            template=notice.template,
            version=notice.version,
            language=notice.language,
            salted_sha256=notice.digest(SALT),
        )
    )


PRIVATE = pb.GrantPrivate(purpose_text="Help with reading", notice_salt=SALT)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_words_that_were_shown_can_be_proved(language: str) -> None:
    shown = render(terms(), purpose_text="Help with reading", names=NAMES, language=language)

    assert check_notice(signed_with(shown), PRIVATE, names=NAMES) == shown


@pytest.mark.parametrize(
    "changes",
    [{"max_uses": 3}, {"expires_at": 1_800_000_060_000}, {"purpose": pb.PURPOSE_RESEARCH}, {"erase_within_days": 1}],
    ids=lambda each: next(iter(each)),
)
def test_terms_other_than_those_shown_are_found_out(changes: dict[str, object]) -> None:
    grant = signed_with(render(terms(), purpose_text="Help with reading", names=NAMES))
    grant.MergeFrom(pb.Grant(**changes))  # type: ignore[arg-type]  # the stub types each field by itself

    with pytest.raises(VerificationError, match="other words"):
        check_notice(grant, PRIVATE, names=NAMES)


def test_a_template_that_is_not_known_is_refused() -> None:
    grant = signed_with(NoticeText("grant", "2", "en", "New words"))

    with pytest.raises(MalformedError, match="template"):
        check_notice(grant, PRIVATE, names=NAMES)


def test_an_unknown_section_is_labelled_by_its_path() -> None:
    assert section_label("personal.horoscope") == "personal.horoscope"

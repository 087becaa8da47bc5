"""What a person reads of a profile at a terminal: every section is named, and what is alike is said once."""

from __future__ import annotations

from permslip.cli.profile_text import gaps_text, profile_text
from permslip.coverage import Coverage, Held, uncovered
from permslip.profile import Profile, SliceAnswer
from permslip.reasons import Reason
from permslip.sections import TOP, expand

HIGH, PLATFORM = b"h" * 32, b"p" * 32


def _answer(node: bytes, name: str, *coverage: Coverage) -> SliceAnswer:
    return SliceAnswer(node, name, b"", b"", coverage)


def _denied(node: bytes, name: str, *paths: str) -> tuple[Coverage, ...]:
    return uncovered(expand(paths), Reason.SECTION_NOT_GRANTED, node=node, node_name=name)


def test_many_sections_denied_alike_share_a_row_and_are_named_once() -> None:
    rest = [path for path in TOP if path != "transcript"]
    profile = Profile(
        "sofia",
        (
            _answer(
                HIGH,
                "High",
                *_denied(HIGH, "High", *rest),
                Coverage(HIGH, "High", "transcript.grades", Held.RETURNED, 36),
            ),
            _answer(PLATFORM, "Platform", *_denied(PLATFORM, "Platform", *rest)),
        ),
    )
    count = len(expand(rest))

    assert profile_text(profile).splitlines() == [
        "node      section",
        "High      transcript.grades  36 records",
        f"High      ({count} sections)      denied      SECTION_NOT_GRANTED",
        f"Platform  ({count} sections)      denied      SECTION_NOT_GRANTED",
        "",
        "denied, SECTION_NOT_GRANTED, at High and Platform:",
        "  personal, portfolio.works, variability, voice",
        "",
        "What can be done:",
        "  SECTION_NOT_GRANTED: Ask the parent for it, if it is needed for the purpose.",
    ]


def test_few_sections_get_a_row_each() -> None:
    profile = Profile("sofia", (_answer(HIGH, "High", *_denied(HIGH, "High", "voice")),))

    rows = [line.split() for line in profile_text(profile).splitlines()[1:4]]

    assert rows == [["High", path, "denied", "SECTION_NOT_GRANTED"] for path in expand(["voice"])]


def test_the_gaps_alone_name_no_section_that_came() -> None:
    came = Coverage(HIGH, "High", "transcript.grades", Held.RETURNED, 1)
    profile = Profile("sofia", (_answer(HIGH, "High", came, *_denied(HIGH, "High", "portfolio")),))

    assert "portfolio.works" in gaps_text(profile)
    assert "transcript.grades" not in gaps_text(profile)
    assert "transcript.grades  1 record\n" in profile_text(profile)
    assert gaps_text(Profile("sofia", (_answer(HIGH, "High", came),))) == ""

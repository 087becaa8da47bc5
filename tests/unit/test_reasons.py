"""permslip.reasons: every number of the contract has words for a person, and the reference page has them too."""

from __future__ import annotations

from pathlib import Path

import pytest

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.reasons import Reason
from tests.repository import reference_pages


def test_the_reasons_are_those_of_the_contract() -> None:
    assert {f"REASON_{reason.name}": reason.value for reason in Reason} == {
        name: number for name, number in pb.Reason.items() if number
    }


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_says_what_it_means_and_what_to_do(reason: Reason) -> None:
    for sentence in (reason.meaning, reason.remedy):
        assert sentence[0].isupper()
        assert sentence.endswith(".")
        assert "|" not in sentence


def test_no_two_reasons_say_the_same() -> None:
    assert len({reason.meaning for reason in Reason}) == len(Reason)


def test_a_reason_on_the_wire_is_its_number() -> None:
    coverage = pb.SectionCoverage(section="voice", reason=Reason.SECTION_NOT_GRANTED.wire)

    assert coverage.reason == pb.REASON_SECTION_NOT_GRANTED


def test_what_may_pass_by_itself_needs_nobody_to_decide_anew() -> None:
    assert {reason.name for reason in Reason if reason.may_pass} == {
        "GRANT_PENDING",
        "GRANT_NOT_YET",
        "DELEGATION_NOT_YET",
        "ENDORSEMENT_EXPIRED",
        "NO_LEASE",
        "CLOCK",
        "UNREACHABLE",
        "TIMED_OUT",
        "BUSY",
        "DRAINING",
        "INTERNAL",
    }


@pytest.mark.parametrize("page", reference_pages.PAGES, ids=lambda path: path.name)
def test_reference_pages_are_what_the_code_says(page: Path) -> None:
    assert page.read_text("utf-8") == reference_pages.PAGES[page](), "run: python -m tests.repository.reference_pages"

"""Every scenario is played; together they give every reason that a decision can give."""

from __future__ import annotations

from typing import Any

import pytest

from permslip.reasons import Reason
from tests.scenarios.story import Stage, scenarios

SCENARIOS = scenarios()

# Said before a decision is reached, or when none can be: by the edges of broker and node, where their tests drive them.
SAID_ELSEWHERE = {
    Reason.MALFORMED: "a message that is not what the format says",
    Reason.BAD_SIGNATURE: "an envelope whose signatures do not hold",
    Reason.WRONG_FEDERATION: "a statement of another federation",
    Reason.UNREACHABLE: "the node is not attached, or left in the middle of an answer",
    Reason.TIMED_OUT: "the deadline passed",
    Reason.BUSY: "too many queries are open",
    Reason.DRAINING: "the server is about to restart",
    Reason.INTERNAL: "something failed inside",
    Reason.CANCELLED: "the requester gave up",
    Reason.LINK_REFUSED: "a slip that is used, too old or guessed",
    Reason.HELLO_REFUSED: "a greeting that is stale or for another broker",
    Reason.NOT_ALLOWED: "a call by somebody who may not make it",
    Reason.NOT_FOUND: "a read of something that is not there",
    Reason.VERSION_NOT_SPOKEN: "no common version of the contract",
    Reason.TOO_LARGE: "a message larger than allowed",
}


@pytest.mark.parametrize("title", SCENARIOS)
def test_scenario(title: str) -> None:
    Stage(SCENARIOS[title]).play()


def test_together_the_scenarios_give_every_reason_that_a_decision_can_give() -> None:
    given = set[Reason]().union(*(Stage(scenario).play() for scenario in SCENARIOS.values()))

    assert {reason.name for reason in given} == {reason.name for reason in Reason} - {
        reason.name for reason in SAID_ELSEWHERE
    }


@pytest.mark.parametrize(
    ("scenario", "message"),
    [
        ({"parties": {}, "story": ["Nobody does this"]}, "no such sentence"),
        (
            {
                "parties": {"schools": ["Lincoln"], "providers": ["Tutor"], "people": ["Maria"]},
                "story": [
                    {"Maria grants Tutor at Lincoln": {"called": "consent"}},
                    {"Tutor asks for transcript.grades": {"under": "consent", "answer": "allowed"}},
                ],
            },
            "GRANT_PENDING",
        ),
        (
            {
                "parties": {"schools": ["Lincoln"], "providers": ["Tutor"], "people": ["Maria"]},
                "story": [{"Maria grants Tutor at Lincoln": {"refused": "grant.sections"}}],
            },
            "expected to be refused",
        ),
    ],
)
def test_a_story_that_is_not_true_fails(scenario: dict[str, Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        Stage(scenario).play()

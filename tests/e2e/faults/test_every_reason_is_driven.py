"""Every reason code is driven: over real sockets where it is said at an edge, by a scenario where it is decided.

``OVER_SOCKETS`` names the test for each reason that running brokers and nodes give; scenarios are played, and say
themselves what they give. A reason that nothing drives fails here, and so does a test that is gone or does not name it.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from permslip.reasons import Reason
from tests.e2e.broker.test_refused_queries import SCENES
from tests.scenarios.story import Stage, scenarios

OVER_SOCKETS: dict[Reason, str] = {
    Reason.ALLOWED: "faults/test_drain.py::test_a_draining_broker_finishes_what_is_open_and_takes_nothing_new",
    Reason.MALFORMED: (
        "faults/test_refused_at_the_door.py::test_a_query_that_cannot_be_believed_is_told_so_and_the_stream_goes_on"
    ),
    Reason.BAD_SIGNATURE: (
        "faults/test_lying_broker.py::test_a_query_that_the_broker_altered_or_repeats_is_refused_by_the_node"
    ),
    Reason.WRONG_FEDERATION: (
        "faults/test_lying_broker.py::test_a_query_that_the_broker_altered_or_repeats_is_refused_by_the_node"
    ),
    Reason.QUERY_REPLAYED: (
        "faults/test_decided_and_not_answered.py::test_a_retry_is_free_when_the_node_never_heard_of_the_query"
    ),
    Reason.REQUESTER_SUSPENDED: (
        "faults/test_revoked_while_streaming.py::test_a_suspended_provider_s_answers_end_as_well"
    ),
    Reason.GRANT_REVOKED: (
        "faults/test_revoked_while_streaming.py::test_not_a_byte_reaches_the_requester_after_the_acknowledgement"
    ),
    Reason.USES_EXHAUSTED: (
        "faults/test_decided_and_not_answered.py::test_a_retry_costs_a_use_when_the_node_had_released_something"
    ),
    Reason.NO_LEASE: (
        "faults/test_cut_off_nodes.py::test_a_node_stops_in_the_middle_of_an_answer_when_the_broker_is_frozen"
    ),
    Reason.CLOCK: "faults/test_cut_off_nodes.py::test_a_node_whose_clock_is_behind_its_own_ledger_answers_nobody",
    Reason.UNREACHABLE: (
        "faults/test_middle_of_an_answer.py::test_a_killed_node_is_told_as_missing_and_answers_when_it_is_started_again"
    ),
    Reason.TIMED_OUT: "faults/test_middle_of_an_answer.py::test_a_frozen_broker_is_told_as_no_answer_in_time",
    Reason.BUSY: "broker/test_answers_under_way.py::test_more_queries_than_a_stream_may_have_open_are_told_busy",
    Reason.DRAINING: "faults/test_drain.py::test_a_draining_broker_finishes_what_is_open_and_takes_nothing_new",
    Reason.INTERNAL: "broker/test_answers_under_way.py::test_a_node_that_sends_more_than_its_credit_loses_the_answer",
    Reason.CANCELLED: "broker/test_answers_under_way.py::test_a_cancelled_query_ends_at_the_node_too",
    Reason.LINK_REFUSED: "faults/test_refused_at_the_door.py::test_a_guessed_slip_is_refused_and_says_no_more",
    Reason.HELLO_REFUSED: "faults/test_refused_at_the_door.py::test_a_greeting_that_does_not_hold_is_refused",
    Reason.NOT_ALLOWED: "faults/test_refused_at_the_door.py::test_a_greeting_that_does_not_hold_is_refused",
    Reason.NOT_FOUND: "faults/test_refused_at_the_door.py::test_a_ledger_that_is_not_kept_here_is_not_found",
    Reason.VERSION_NOT_SPOKEN: "faults/test_refused_at_the_door.py::test_a_greeting_that_does_not_hold_is_refused",
    Reason.TOO_LARGE: "faults/test_refused_at_the_door.py::test_a_message_with_too_many_calls_ends_the_stream",
}


@pytest.fixture(scope="module")
def in_scenarios() -> dict[Reason, list[str]]:
    """Which scenarios give each reason."""
    given: dict[Reason, list[str]] = {}
    for title, scenario in scenarios().items():
        for reason in Stage(scenario).play():
            given.setdefault(reason, []).append(title)
    return given


@pytest.mark.parametrize("reason", Reason, ids=[each.name for each in Reason])
def test_a_reason_is_driven(reason: Reason, in_scenarios: dict[Reason, list[str]]) -> None:
    by_broker = {each for _, each in SCENES}
    assert reason in OVER_SOCKETS or reason in by_broker or reason in in_scenarios, f"nothing drives {reason.name}"


@pytest.mark.parametrize("reason", OVER_SOCKETS, ids=[each.name for each in OVER_SOCKETS])
def test_the_test_that_drives_a_reason_is_there_and_names_it(reason: Reason, repo_root: Path) -> None:
    file, _, name = OVER_SOCKETS[reason].partition("::")
    source = (repo_root / "tests" / "e2e" / file).read_text(encoding="utf-8")
    functions = [each for each in ast.walk(ast.parse(source)) if isinstance(each, ast.AsyncFunctionDef)]
    [found] = [each for each in functions if each.name == name]
    named = {
        each.attr
        for each in ast.walk(found)
        if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and each.value.id == "Reason"
    }
    assert reason.name in named

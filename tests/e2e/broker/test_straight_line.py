"""Deposit, endorse, query, answer: what a broker does all day."""

from __future__ import annotations

from permslip.reasons import Reason
from tests.e2e.broker.small_federation import SmallFederation


async def test_a_query_under_an_endorsed_grant_is_answered_by_its_node(federation: SmallFederation) -> None:
    async with federation.attached() as node, federation.requester(federation.tutor) as tutor:
        grant = await federation.endorsed_grant()
        asked = federation.query(federation.tutor, grant)
        answer = await tutor.ask(asked)
    assert answer.reason == Reason.ALLOWED
    assert answer.outcome.said_by == federation.school.root
    assert len(answer.records(asked, node=federation.school.root)) == node.records

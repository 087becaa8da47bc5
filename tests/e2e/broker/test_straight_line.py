"""Deposit, endorse, query, answer: what a broker does all day."""

from __future__ import annotations

from sqlalchemy import Engine, event

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


async def test_a_batch_under_known_grants_reads_nothing_from_the_database(federation: SmallFederation) -> None:
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_others: object) -> None:
        statements.append(statement)

    async with (
        federation.attached(),
        federation.attached(federation.platform),
        federation.requester(federation.tutor) as tutor,
    ):
        grants = [
            await federation.endorsed_grant(),
            await federation.endorsed_grant(federation.platform),
            await federation.endorsed_grant(handle=bytes(16)),
        ]

        async def ask() -> None:
            envelopes = [federation.query(federation.tutor, each).envelope for each in grants]
            assert [each.reason for each in await tutor.ask_all(envelopes)] == [Reason.ALLOWED] * 3
            await federation.broker.recorder.settle()

        await ask()
        event.listen(Engine, "before_cursor_execute", note)
        try:
            await ask()
        finally:
            event.remove(Engine, "before_cursor_execute", note)
    assert [each for each in statements if each.lstrip().upper().startswith("SELECT")] == []

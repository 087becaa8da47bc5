"""Coming of age at the node: what guardians signed ends on the day, and the learner consents with her own key."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from permslip._pb.permslip.v1 import ledger_pb2, statement_pb2 as pb
from permslip.hosting.leaves import decode_leaf
from permslip.reasons import Reason
from permslip.statements import Signed
from permslip_node.app import RunningNode, open_store
from permslip_node.importing.sink import ImportedName
from permslip_node.majority import day_millis, majority_of
from permslip_node.roster import find_learner, read_authority
from permslip_node.sql_sink import SqlSink
from tests.e2e.node.conftest import World
from tests.e2e.node.test_commands import document, said
from tests.federation.principals import DAY

ENDORSED, ENDED = pb.ENDORSEMENT_VERDICT_ENDORSED, pb.ENDORSEMENT_VERDICT_AUTHORITY_ENDED


def day_in(world: World, days: int) -> date:
    return datetime.fromtimestamp(world.clock() // 1_000, UTC).date() + timedelta(days=days)


def majorities(node: RunningNode) -> int:
    """Entries of authority that passed, whichever process wrote them."""
    leaves = node.ledger.leaves(0, node.ledger.read_head().size)
    events = [decode_leaf(leaf.leaf).authority_changed.change for leaf in leaves if leaf.leaf]
    return events.count(ledger_pb2.AUTHORITY_CHANGE_MAJORITY)


async def endorsed_anew(world: World, grant: Signed[pb.Grant], number: int) -> pb.Endorsement:
    """The last of so many different words of the node about a grant; each may be sent more than once."""

    def different() -> dict[bytes, pb.Endorsement]:
        return {each.id: each.payload for each in world.broker.endorsements_of(grant.id)}

    await world.broker.until(lambda: len(different()) >= number)
    assert len(different()) == number
    return list(different().values())[-1]


async def test_on_the_day_what_guardians_signed_ends_while_the_node_runs_and_she_consents_anew(world: World) -> None:
    ada = world.school.learner("604822", grades=2)
    async with world.attached() as (running, node):
        mother = await world.school.link(node, "604822")
        learner = await world.school.link(node, "604822", "self")
        grant = world.grant(mother, handle=ada)
        long = await node.endorse(grant)
        day = day_in(world, 10)
        async with world.school.office() as office:
            assert await office.noticed(await office.majority("604822", day), patience=20)
        assert (await node.ask(world.query(grant))).reason == Reason.ALLOWED
        assert majorities(running) == 0
        assert (await endorsed_anew(world, grant, 2)).valid_until == day_millis(day) < long.valid_until

        world.clock.offset = day_millis(day) - world.clock() + 1_000
        assert (await endorsed_anew(world, grant, 3)).verdict == ENDED
        assert majorities(running) == 1
        assert (await node.ask(world.query(grant))).reason == Reason.AUTHORITY_ENDED
        assert (await node.endorse(world.grant(mother, handle=ada))).verdict == ENDED
        anew = world.grant(learner, handle=ada)
        assert (await node.endorse(anew)).verdict == ENDORSED
        assert len((await node.ask(asked := world.query(anew))).records(asked, node=world.school.root)) == 2


async def test_in_the_last_week_before_the_day_nothing_is_renewed_that_cannot_live_longer(world: World) -> None:
    ada = world.school.learner("604822", grades=1)
    async with world.attached() as (running, node):
        mother = await world.school.link(node, "604822")
        async with world.school.office() as office:
            await office.majority("604822", day_in(world, 5))
        grant = world.grant(mother, handle=ada)
        first = await node.endorse(grant)
        size = running.ledger.size
        assert await running.endorser.renew_due() == 0
        assert await node.endorse(grant) == first
        assert running.ledger.size == size


async def test_who_came_of_age_while_the_node_was_down_is_of_age_before_anybody_can_ask(world: World) -> None:
    ada = world.school.learner("604822", grades=1)
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822")
        grant = world.grant(mother, handle=ada, lifetime=90 * DAY)
        await node.endorse(grant)
    async with world.school.office() as office:
        await office.majority("604822", day_in(world, 3))
    world.clock.offset = 4 * DAY
    async with world.school.running() as running:
        assert majorities(running) == 1
        capability = running.facts.capability(grant.id)
        assert capability is not None
        assert capability.endorsement is not None
        assert capability.endorsement.payload.verdict == ENDED


async def test_day_that_has_come_cuts_open_answers(world: World) -> None:
    world.broker.gives_credit = False
    ada = world.school.learner("604822", grades=1_000, text="x" * 1_000)
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822")
        grant = world.grant(mother, handle=ada)
        await node.endorse(grant)
        [answer] = node.route(world.query(grant))
        await world.broker.until(lambda: answer.sealed_bytes >= world.broker.first_credit)
        async with world.school.office() as office:
            assert await office.noticed(await office.majority("604822", day_in(world, 0)), patience=20)
        await answer.whole.wait()
        assert answer.reason == Reason.AUTHORITY_ENDED


async def test_a_wrong_day_is_taken_back_by_the_command_and_revives_nothing(world: World, tmp_path: Path) -> None:
    ada = world.school.learner("604822", grades=1)
    async with world.attached() as (running, node):
        mother = await world.school.link(node, "604822")
        grant = world.grant(mother, handle=ada)
        await node.endorse(grant)
        told = document(await said(world, tmp_path, "majority", "604822", "--on", "2020-02-29", "--json"))
        assert (told["endorsements_judged"], told["in_force"]) == (1, True)
        assert (await node.ask(world.query(grant))).reason == Reason.AUTHORITY_ENDED
        [line] = document(await said(world, tmp_path, "families", "604822", "--json"))
        assert line["majority"] == "2020-02-29"

        document(await said(world, tmp_path, "majority", "604822", "--forget", "--json"))

        assert majorities(running) == 2
        assert (await node.ask(world.query(grant))).reason == Reason.AUTHORITY_ENDED
        assert (await node.endorse(world.grant(mother, handle=ada))).verdict == ENDORSED


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (["majority", "nobody", "--on", "2027-05-04"], 4, "no learner 'nobody'"),
        (["majority", "604822"], 2, "Give either --on YYYY-MM-DD or --forget"),
        (["majority", "604822", "--on", "2027-05-04", "--forget"], 2, "Give either --on YYYY-MM-DD or --forget"),
        (["majority", "604822", "--on", "4 May"], 2, "does not match the format"),
    ],
)
async def test_majority_command_says_what_is_wrong(
    world: World, tmp_path: Path, words: list[str], code: int, why: str
) -> None:
    world.school.learner("604822")
    result = await said(world, tmp_path, *words)
    assert (result.exit_code, why in " ".join(result.output.split())) == (code, True)


# ------------------------------------------------------------------------------------- by birth dates


def imported(world: World, birth_date: str, age: int | None = 18) -> int:
    """When she comes of age once this birth date was imported."""
    with open_store(world.school.settings) as engine:
        sink = SqlSink(engine, clock=world.clock, majority_age=age)
        sink.learner("604822")
        sink.put_names([ImportedName("604822", "Ada", birth_date)])
        with engine.connect() as connection:
            authority = read_authority(connection, find_learner(connection, "604822"), default_rule="any")
    assert authority is not None
    return authority.majority_at


async def test_birth_date_of_an_import_says_it_where_an_age_is_configured_and_the_office_did_not(world: World) -> None:
    world.school.learner("604822")
    assert imported(world, "2010-05-04", age=None) == 0
    assert imported(world, "", 18) == 0
    assert imported(world, "2010-05-04") == day_millis(date(2028, 5, 4))
    assert imported(world, "2011-05-04") == day_millis(date(2029, 5, 4))
    async with world.school.office() as office:
        await office.majority("604822", date(2030, 1, 1))
        assert imported(world, "2010-05-04") == day_millis(date(2030, 1, 1))
        await office.majority("604822", None)
    assert imported(world, "2010-05-04") == day_millis(date(2028, 5, 4))


async def test_import_of_a_birth_date_takes_effect_at_the_running_node_and_so_does_its_correction(world: World) -> None:
    ada = world.school.learner("604822", grades=1)
    async with world.attached() as (running, node):
        mother = await world.school.link(node, "604822")
        grant = world.grant(mother, handle=ada)
        await node.endorse(grant)
        imported(world, "2000-01-01")
        assert (await endorsed_anew(world, grant, 2)).verdict == ENDED
        assert (await node.ask(world.query(grant))).reason == Reason.AUTHORITY_ENDED
        imported(world, "2020-01-01")
        await running.come_of_age()
        assert majorities(running) == 2
        assert (await node.endorse(world.grant(mother, handle=ada))).verdict == ENDORSED


def test_majority_of_a_birth_date() -> None:
    assert majority_of("2008-02-29", 18) == day_millis(date(2026, 3, 1))
    assert majority_of("2008-02-29", 20) == day_millis(date(2028, 2, 29))
    assert majority_of("1940-01-01", 18) == 1
    assert majority_of("4 May 2008", 18) == 0

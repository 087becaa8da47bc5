"""``permslip node suspend``, ``reinstate``, ``quorum``, ``revoke``: said to people and to machines, with exit codes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import update

from permslip._pb.permslip.v1 import statement_pb2 as pb
from permslip.armor import write_statements
from permslip.hosting.database import writing
from permslip.reasons import Reason
from permslip_node import schema
from permslip_node.app import open_store
from permslip_node.cli import node as node_commands
from tests.e2e.node.conftest import FEDERATION, World
from tests.federation.consents import make_revocation
from tests.federation.principals import Person


async def said(world: World, folder: Path, *words: str) -> Result:
    """Run a command in a thread: it has an event loop of its own."""
    config = world.school.write_config(folder)
    arguments = [*words, "--config", str(config)]
    return await asyncio.to_thread(CliRunner().invoke, node_commands, arguments)


def document(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


async def test_suspended_by_a_command_her_consents_end_and_she_is_reinstated(world: World, tmp_path: Path) -> None:
    ada = world.school.learner("604822", grades=1, guardians=["P1", "P2"])
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822")
        grant = world.grant(mother, handle=ada)
        await node.endorse(grant)
        told = document(await said(world, tmp_path, "suspend", "P1", "604822", "--json"))
        assert (told["endorsements_judged"], told["in_force"]) == (1, True)
        assert (await node.ask(world.query(grant))).reason == Reason.ENDORSEMENT_REFUSED
        back = await said(world, tmp_path, "reinstate", "P1", "604822")
        assert (back.exit_code, "reinstated" in back.stdout) == (0, True)
        assert (await node.endorse(world.grant(mother, handle=ada))).verdict == pb.ENDORSEMENT_VERDICT_ENDORSED
        document(await said(world, tmp_path, "quorum", "604822", "all", "--json"))
        alone = await node.endorse(world.grant(mother, handle=ada))
        assert alone.verdict == pb.ENDORSEMENT_VERDICT_QUORUM_NOT_MET


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (["suspend", "P1", "nobody"], 4, "no learner 'nobody'"),
        (["suspend", "nobody", "604822"], 4, "'nobody' is no guardian"),
        (["quorum", "nobody", "any"], 4, "no learner 'nobody'"),
        (["quorum", "604822", "most"], 2, "most"),
    ],
)
async def test_what_is_not_there_is_named(world: World, tmp_path: Path, words: list[str], code: int, why: str) -> None:
    world.school.learner("604822")
    result = await said(world, tmp_path, *words)
    assert result.exit_code == code
    assert why in result.output


async def test_revocation_by_a_stranger_or_of_something_unknown_is_not_taken(world: World, tmp_path: Path) -> None:
    ada = world.school.learner("604822", grades=1)
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822")
        grant = world.grant(mother, handle=ada)
        await node.endorse(grant)
        file = tmp_path / "revocation.txt"
        for who, target, why in (
            (Person.new(), grant.id, "no right to revoke"),
            (mother, bytes(32), "not known here"),
        ):
            statement = make_revocation(who, target, world.school.root, federation=FEDERATION, now=world.clock())
            write_statements(file, [statement.envelope])
            result = await said(world, tmp_path, "revoke", str(file))
            assert result.exit_code == 1
            assert why in result.output
        elsewhere = make_revocation(mother, grant.id, bytes(31) + b"n", federation=FEDERATION, now=world.clock())
        write_statements(file, [elsewhere.envelope])
        assert "meant for this node" in (await said(world, tmp_path, "revoke", str(file))).output
        assert (await node.ask(world.query(grant))).reason == Reason.ALLOWED


async def test_revocation_is_taken_once_while_no_node_runs(world: World, tmp_path: Path) -> None:
    ada = world.school.learner("604822", grades=1)
    async with world.attached() as (_, node):
        mother = await world.school.link(node, "604822")
        grant = world.grant(mother, handle=ada)
        await node.endorse(grant)
    revocation = make_revocation(mother, grant.id, world.school.root, federation=FEDERATION, now=world.clock())
    file = tmp_path / "revocation.txt"
    write_statements(file, [revocation.envelope])
    told = document(await said(world, tmp_path, "revoke", str(file), "--json"))
    assert (told["revocation"], told["target"], told["in_force"]) == (revocation.id.hex(), grant.id.hex(), True)
    again = await said(world, tmp_path, "revoke", str(file))
    assert (again.exit_code, "recorded here already" in again.output) == (1, True)


async def test_slips_of_all_families_leave_out_who_may_not_be_linked(world: World, tmp_path: Path) -> None:
    world.school.learner("604821", guardians=["P0"])
    world.school.learner("604822", guardians=["P1", "P2"])
    world.school.learner("604823", guardians=["P3"])
    async with world.school.office() as office:
        await office.suspend("604822", "P1")
    with open_store(world.school.settings) as engine, writing(engine) as connection:
        learner = schema.learner
        connection.execute(update(learner).where(learner.c.native_id == "604821").values(majority_at=1))
    slips = tmp_path / "slips.jsonl"
    assert document(await said(world, tmp_path, "slip", "--all-families", str(slips), "--json"))["slips"] == 2
    assert [json.loads(each)["person"] for each in slips.read_text().splitlines()] == ["P2", "P3"]
    assert slips.stat().st_mode & 0o077 == 0

"""Witnesses as real processes: checkpoints are cosigned, whoever is down, restarted or frozen meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from permslip.errors import ProofError
from permslip.witnesses import witness_name
from tests.e2e.witness.three_witnesses import ThreeWitnesses
from tests.federation.school_process import until

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def one_federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThreeWitnesses]:
    with ThreeWitnesses(tmp_path_factory.mktemp("witnesses")) as running:
        yield running


@pytest.fixture
async def federation(one_federation: ThreeWitnesses) -> AsyncIterator[ThreeWitnesses]:
    """Everybody runs, and cosigns."""
    for each in one_federation.schools:
        if not each.is_running:
            each.start()
    await one_federation.settled_in()
    yield one_federation
    for each in one_federation.schools:
        each.thaw()
        assert each.ledger.events("witness_alert") == []
        assert each.said("checkpoint_refused") == []


async def test_what_was_just_recorded_is_cosigned_by_all(federation: ThreeWitnesses) -> None:
    size = federation.grow()

    found = await federation.until_cosigned(at_least=size, by=3)

    names = {witness_name(federation.processes.federation, each.root) for each in federation.schools}
    assert {each.witness.name for each in found.cosignatures} == names


async def test_status_tells_who_cosigned(federation: ThreeWitnesses) -> None:
    await federation.until_cosigned(at_least=federation.grow(), by=3)

    async def told() -> bool:
        said = federation.processes.command("broker", "status", "--config", str(federation.processes.broker_config))
        witnesses = said["witnesses"]
        assert (witnesses["needed"], witnesses["of"], witnesses["pinned"]) == (2, 3, True)
        return bool(witnesses["cosigned_entries"] == said["ledger_size"] and len(witnesses["cosigned_by"]) == 3)

    await federation.until_true(told, "the last checkpoint is kept")


async def test_one_witness_may_be_down(federation: ThreeWitnesses) -> None:
    federation.schools[0].kill()

    found = await federation.until_cosigned(at_least=federation.grow())

    assert len(found.cosignatures) == 2


async def test_without_a_quorum_the_last_cosigned_checkpoint_is_shown_and_nothing_stands_still(
    federation: ThreeWitnesses,
) -> None:
    before = await federation.until_cosigned(at_least=federation.grow())
    gone = len(federation.broker_said("node_detached"))
    for each in federation.schools[:2]:
        each.kill()
    await until(lambda: len(federation.broker_said("node_detached")) >= gone + 2, "the broker knows that they are gone")

    grown = federation.grow()
    found = await federation.checkpoint()
    assert before.checkpoint.size <= found.checkpoint.size < grown

    federation.schools[0].start()
    assert (await federation.until_cosigned(at_least=grown)).checkpoint.size >= grown


async def test_frozen_witnesses_hold_up_nobody(federation: ThreeWitnesses) -> None:
    await federation.until_cosigned(at_least=federation.grow(), by=3)
    for each in federation.schools[:2]:
        each.freeze()

    grown = federation.grow()
    assert (await federation.signed_alone()).checkpoint.size < grown
    for each in federation.schools[:2]:
        each.thaw()

    await federation.until_cosigned(at_least=grown)


async def test_restarted_broker_shows_at_once_what_was_cosigned_and_goes_on(federation: ThreeWitnesses) -> None:
    before = await federation.until_cosigned(at_least=federation.grow(), by=3)
    for each in federation.schools:
        each.cable.unplug()
    federation.processes.broker.end()
    federation.processes.start_broker()

    assert (await federation.checkpoint()).checkpoint == before.checkpoint
    for each in federation.schools:
        each.cable.plug()
    await federation.until_cosigned(at_least=federation.grow(), by=3)


async def test_killed_broker_loses_no_witness(federation: ThreeWitnesses) -> None:
    await federation.until_cosigned(at_least=federation.grow(), by=3)
    federation.processes.broker.kill()
    federation.processes.start_broker()

    await federation.until_cosigned(at_least=federation.grow(), by=3)


async def test_restarted_witness_goes_on_from_what_it_cosigned(federation: ThreeWitnesses) -> None:
    await federation.until_cosigned(at_least=federation.grow(), by=3)
    federation.schools[1].kill()
    grown = federation.grow()
    federation.schools[1].start()

    await federation.until_cosigned(at_least=grown, by=3)


async def test_checkpoint_that_two_of_three_cosigned_is_not_enough_for_who_demands_three(
    federation: ThreeWitnesses,
) -> None:
    federation.schools[2].kill()
    await federation.until_cosigned(at_least=federation.grow())
    demanding = federation.policy()._replace(k=3)

    with pytest.raises(ProofError, match="expected cosignatures by 3 of 3 witnesses"):
        demanding.verify(await federation.note(), federation.log_verifier())
